"""Another program that removes empty cgroups, at the moment a start has made one and nothing is in it yet."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import capabilities
from command import Pyrun
from kill_points import make_bundle

TOP = Path("/sys/fs/cgroup/pids" if not capabilities.cgroup2() else "/sys/fs/cgroup")
SAID = "was removed by another program before init had joined it"


@contextmanager
def remover(parent: Path, prefix: str, most: int) -> Iterator[list[str]]:
    """Remove what appears in *parent* as soon as it is there, *most* times."""
    parent.mkdir(exist_ok=True)
    keeper = parent / "keeper"  # else the parent is tidied away with the last container
    keeper.mkdir()
    known, removed, ended = set(os.listdir(parent)), list[str](), threading.Event()

    def remove() -> None:
        while not ended.is_set() and len(removed) < most:
            for name in os.listdir(parent):
                if name in known or not name.startswith(prefix):
                    continue
                try:
                    os.rmdir(parent / name)
                except OSError:  # init was quicker
                    continue
                removed.append(name)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        yield removed
    finally:
        ended.set()
        thread.join()
        keeper.rmdir()


def test_it_is_made_again_once(pyrun: Pyrun) -> None:
    with remover(TOP / "pyrun", "", 1) as removed:
        done = pyrun("run", "--rm", "-m", "64m", "busybox", "echo", "there")
    assert removed, "the remover was never quick enough"
    assert (done.returncode, done.stdout) == (0, "there\n"), done.stderr
    assert f"{removed[0]} {SAID}; it is made again" in done.stderr


def test_in_the_background_too(pyrun: Pyrun) -> None:
    with remover(TOP / "pyrun", "", 1) as removed:
        done = pyrun("run", "-d", "--name=web", "-p", "8098:80", "busybox", "sleep", "1000")
    assert removed and done.returncode == 0, done.stderr
    assert pyrun.ok("exec", "web", "echo", "there") == "there"
    assert pyrun.ok("port", "web") == "80/tcp -> 0.0.0.0:8098"


def test_what_happened_is_told_when_it_happens_again(pyrun: Pyrun) -> None:
    for _ in range(5):  # on a busy machine the remover sometimes comes too late for the second
        with remover(TOP / "pyrun", "", 1000) as removed:
            done = pyrun("run", "--rm", "--net=none", "busybox", "true")
        if len(removed) >= 2:
            break
    assert len(removed) >= 2 and done.returncode == 125
    *_, error, hint = done.stderr.splitlines()
    assert error.startswith("pyrun: cgroup ") and error.endswith(SAID)
    assert "tidies empty cgroups away" in hint
    assert pyrun.ok("ps", "-aq") == ""


@pytest.mark.parametrize("program", ["pyrun", "pyrun-oci"])
def test_of_a_bundle(pyrun: Pyrun, tmp_path: Path, program: str) -> None:
    bundle = make_bundle(pyrun, tmp_path / "bundle")
    words = {
        "pyrun": ["run", "--bundle", str(bundle), "again"],
        "pyrun-oci": ["--root", str(tmp_path / "state"), "run", "--bundle", str(bundle), "again"],
    }[program]
    for _ in range(5):  # on a busy machine the remover is sometimes too late
        with remover(TOP, "pyrun-", 1) as removed:
            done = subprocess.run(
                [str(pyrun.binary.with_name(program)), *words], env=pyrun.env, capture_output=True, text=True,
                timeout=30, check=False,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        if removed:
            break
    assert removed, "the remover was never quick enough"
    assert SAID in done.stderr
