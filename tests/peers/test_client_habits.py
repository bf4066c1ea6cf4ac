"""What Docker's client does when its reader leaves: the same of pyrun, side by side."""

from __future__ import annotations

import subprocess

import pytest

from command import Pyrun
from peers.engines import IMAGE, Engine

pytestmark = [pytest.mark.needs("dockerd"), pytest.mark.timeout(120)]
WORDS = (
    ["run", "--net=none", "--name=endless", IMAGE, "yes"],
    ["exec", "web", "yes"],
    ["exec", "-t", "web", "yes"],
    ["logs", "-f", "endless"],
)


def into_head(command: list[str], env: dict[str, str]) -> tuple[str, str]:
    """(what is printed: a line and the statuses; standard error) of a command whose reader leaves after a line."""
    line = " ".join(command) + " | head -n 1; echo ${PIPESTATUS[*]}"
    words = ["bash", "-c", line]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=40, check=False)
    return done.stdout, done.stderr.strip()


@pytest.fixture
def theirs(docker: Engine) -> list[tuple[str, str]]:
    """What Docker's client does; its daemon makes a cgroup with its first container, before pyrun looks around."""
    docker.run("-d", "--name=web", IMAGE, "sleep", "1000")
    seen = [into_head([*docker.words, *words], docker.env) for words in WORDS]
    docker.ok("rm", "-f", "web", "endless")
    return seen


def test_a_reader_that_leaves(theirs: list[tuple[str, str]], pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--net=none", "--name=web", "busybox", "sleep", "1000")
    for words, (printed, error) in zip(WORDS, theirs, strict=True):
        ours, our_error = into_head([str(pyrun.binary), *words], pyrun.env)
        assert (ours, our_error == "") == (printed, error == ""), (words, our_error, error)
