"""What Docker's client can be told, and with which status it refuses: beside it, without a daemon."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from command import Pyrun
from pyrun.cli import unknown
from pyrun.cli.tables import ALIASES, GROUPS, TOP, VERBS

pytestmark = pytest.mark.skipif(not shutil.which("docker"), reason="docker is not installed")
LISTED = re.compile(r"^ +(?:(-\w), |    )(--[a-z0-9-]+)", re.MULTILINE)


OWN = (
    *("port add", "port rm", "network adopt", "network policy", "network reload", "system finish"),
    "system reconcile",
)


def docker(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    quiet = os.environ | {"DOCKER_CONFIG": str(where), "DOCKER_HOST": f"unix://{where}/none.sock"}
    return subprocess.run(
        ["docker", *words], env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def commands(page: str) -> list[str]:
    return [
        line.split()[0].rstrip("*") for line in page.splitlines() if re.match(r"  [a-z]+\*? +[A-Z]", line)
    ]


def test_every_command_of_docker_is_there_or_told_as_not_there_yet(tmp_path: Path) -> None:
    found = commands(docker(tmp_path, "--help").stdout)
    assert {"run", "start", "swarm"} <= set(found)
    known = {*VERBS, *GROUPS, *unknown.VERBS}
    assert not [word for word in found if word not in known]
    for group in GROUPS:
        for word in commands(docker(tmp_path, group, "--help").stdout):
            assert f"{group} {word}" in {*VERBS, *ALIASES, *unknown.VERBS} or word in unknown.VERBS, (
                f"{group} {word}"
            )


@pytest.mark.parametrize("verb", ["", *[verb for verb in VERBS if verb not in OWN]])
def test_every_option_of_docker_is_there_or_told_as_not_there_yet(tmp_path: Path, verb: str) -> None:
    page = docker(tmp_path, *verb.split(), "--help").stdout
    known = {name for row in (VERBS[verb] if verb else TOP)[0] for name in row[0]} | {"--help"}
    known |= {name for names in unknown.OPTIONS.get(verb, {}) for name in names.split()}
    found = {name for pair in LISTED.findall(page) for name in pair if name}
    assert "Usage:  docker" in page
    assert not found - known


REFUSED: tuple[tuple[str, ...], ...] = (
    ("bogus",), ("network", "bogus"), ("image", "bogus"), ("ps", "extra"), ("rm",), ("stop",), ("rmi",), ("logs",),
    ("network", "create"), ("network", "create", "a", "b"), ("pull",), ("pull", "a", "b"), ("pull", "UPPER"), ("run",),
    ("exec",), ("exec", "a"), ("container", "run"), ("run", "--bogus", "x"), ("exec", "--bogus", "a", "b"),
    ("ps", "--bogus"), ("--bogus", "ps"), ("logs", "--tail"), ("run", "--memory=x", "busybox"), ("run", "UPPER"),
    ("stop", "-t", "x", "a"), ("run", "-d=maybe", "busybox"), ("exec", "-e"), ("run", "--memory"),
    ("ps", "-f", "bogus=1"), ("kill", "-s", "BOGUS", "a"), ("stop", "-s", "BOGUS", "a"),
    ("ps", "--format", "{{.Bogus}}"),    ("network", "create", "--subnet=banana", "x"), ("help", "bogus"),
)  # fmt: skip


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_the_status_is_dockers(pyrun: Pyrun, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert pyrun(*words).returncode == docker(tmp_path, *words).returncode
