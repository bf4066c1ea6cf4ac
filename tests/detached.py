"""Detached containers of tests that watch them from outside: begin one, see it listed, take its monitor away."""

from __future__ import annotations

import json
import os
import signal

from command import Pyrun
from pyrun.store import state
from waiting import until

POLITE = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; echo ready; while :; do sleep 1; done"


def begin(pyrun: Pyrun, name: str, script: str = POLITE, *options: str) -> str:
    """A detached container that has said it is ready; returns its id."""
    ident = pyrun.ok("run", "-d", "--name", name, "--net=none", *options, "busybox", "sh", "-c", script)
    if "ready" in script:
        until(lambda: "ready" in pyrun.ok("logs", name))
    return ident


def listed(pyrun: Pyrun, *options: str) -> dict[str, dict[str, str]]:
    """`ps -a` by name."""
    lines = pyrun.ok("ps", "-a", "--format", "json", *options).splitlines()
    return {row["Names"]: row for row in map(json.loads, lines)}


def kill_monitor(pyrun: Pyrun, name: str) -> None:
    pid = int(str(pyrun.state(name)["monitor_pid"]))
    os.kill(pid, signal.SIGKILL)
    until(lambda: state.start_time(pid) == 0)  # dead, be it as a zombie
