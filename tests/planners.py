"""The warm planner of a test, and a pytest plugin: every test with `pyrun` finds one that waits.

    make test ARGS="-p planners tests/system/test_run.py tests/system/test_exec.py tests/oci"

A warm start has to be the same start as a cold one: whatever is true of that has to stay true. `make test` runs without
it; tests/system/test_warm.py shows there what is particular. Not for tests that look at what a start makes first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Pyrun

WARM = {"PYRUN_WARM": "60"}


class Planner:
    """The warm planner of a run directory."""

    def __init__(self, pyrun: Pyrun) -> None:
        self.pyrun = pyrun
        names = [os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("mnt", "net")]
        self.socket = pyrun.runroot / "warm" / f"{names[0]}-{names[1]}"

    def processes(self) -> dict[int, int]:
        """pid -> parent, of those that work in this run directory."""
        mark = f"PYRUN_RUNROOT={self.pyrun.runroot}".encode()
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if (
                    b"warm-planner" in (path / "cmdline").read_bytes()
                    and mark in (path / "environ").read_bytes()
                ):
                    found[int(path.name)] = int((path / "stat").read_text().rpartition(") ")[2].split()[1])
            except OSError:  # gone
                continue
        return found

    def ready(self) -> set[int]:
        """Wait until its two children wait for launchers; their pids."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            there = self.processes()
            waiting = {pid for pid, parent in there.items() if parent in there and _accepts(pid)}
            if len(waiting) == 2 and self.socket.exists():
                return waiting
            time.sleep(0.01)
        raise AssertionError(f"no warm planner: {self.processes()}")

    def end(self) -> None:
        """Kill it and whoever waits."""
        deadline = time.monotonic() + 10
        while there := self.processes():
            assert time.monotonic() < deadline, there
            for pid in there:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _accepts(pid: int) -> bool:
    """By the system call it is in: accept or accept4 of x86_64, of aarch64."""
    try:
        return Path(f"/proc/{pid}/syscall").read_text().split()[0] in ("43", "288", "202", "242")
    except OSError:  # gone
        return False


@pytest.fixture(autouse=True)
def with_a_planner(request: pytest.FixtureRequest) -> Iterator[None]:
    """Of a test's own run directory; for tests that call the programs otherwise the variable alone."""
    before = os.environ.get("PYRUN_WARM")
    os.environ |= WARM
    made = None
    if "pyrun" in request.fixturenames and "planner" not in request.fixturenames:
        pyrun: Pyrun = request.getfixturevalue("pyrun")
        pyrun.env |= WARM
        pyrun("run", "--bundle", "/nowhere")
        made = Planner(pyrun)
        made.ready()
    yield
    if made:
        made.end()
    if before is None:
        del os.environ["PYRUN_WARM"]
