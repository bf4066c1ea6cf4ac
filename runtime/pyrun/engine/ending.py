"""Waiting until nothing is left of a container's running half: for `stop`, `kill` and `rm`.

As a rule its monitor sees to it. Where there is none the undo list is replayed here; one that does not come to it,
because a shell has suspended it (Ctrl-Z) or the reader of its output pauses (`| less`), is told to do without the
caller. And a container that was only being started when it was told to end is handed back, to be told again.
"""

from __future__ import annotations

import posix
import time

from pyrun import signals
from pyrun.engine import reconcile
from pyrun.errors import NotFound, PyrunError
from pyrun.store import paths, state

# A monitor needs some ms for its undo list; a cgroup that will not empty holds it up for 2 s a line.
_UNDO_LIMIT_S = 20.0
# How long a reader of the output may take, and how often its monitor is told not to wait for it after that.
_READING_S, _AGAIN_S = 1.0, 0.5


def wait_until_undone(identifier: str) -> bool:
    """True when nothing of the running half is left; False when its process runs, as it has only just been started.

    Raises: PyrunError after 20 s.
    """
    now = time.monotonic()
    deadline, hurry_at = now + _UNDO_LIMIT_S, now + _READING_S
    pause_s = 0.0005
    while True:
        if not paths.exists(state.run_dir(identifier)):
            return True
        _replay(identifier)
        if _runs(identifier):
            return False
        now = time.monotonic()
        if now > deadline:
            raise _undone_by_nobody(identifier)
        if now > hurry_at:
            _hurry(identifier)
            hurry_at = now + _AGAIN_S
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.05)


def being_started(identifier: str) -> bool:
    """Whether its planner is still at it, or was killed in the middle: what is sent to its process may not reach the
    command."""
    return paths.exists(f"{state.run_dir(identifier)}/starting")


def _replay(identifier: str) -> None:
    """The undo list, if there is nobody else to do it. Raises: PyrunError."""
    lock_fd = reconcile.claim(identifier)
    if lock_fd >= 0:
        from pyrun.engine import system

        complaints = system.undo_container(identifier, lock_fd)
        if complaints:
            raise PyrunError(f"container {identifier[:12]} cannot be cleaned up: {complaints[0]}")


def _runs(identifier: str) -> bool:
    if being_started(identifier):
        return False
    try:
        return state.process_alive(state.load(identifier))
    except NotFound:
        return False


def _undone_by_nobody(identifier: str) -> PyrunError:
    if being_started(identifier):
        return PyrunError(f"container {identifier[:12]} is still being started", "`ps -ef` shows by whom")
    return PyrunError(
        f"container {identifier[:12]} has ended, but its monitor has not cleaned up",
        "`ps -ef` shows what it is at",
    )


def _hurry(identifier: str) -> None:
    """Have the monitor go on, without the one who reads its output: once the container's process is gone it takes
    SIGTERM for that (csrc/monitor.c)."""
    try:
        pid = state.load(identifier).get("monitor_pid")
        pidfd = posix.pidfd_open(pid) if isinstance(pid, int) and pid > 0 else -1
    except (NotFound, ProcessLookupError):
        return
    if pidfd < 0:
        return
    try:
        # after the open: the number is not somebody else's by now
        words = paths.command_line(pid)
        if (
            words[0] == b"pyrun-monitor"
            and f"run={state.run_dir(identifier)}".encode("utf-8", "surrogateescape") in words
        ):
            signals.send(pidfd, signals.TERM)
            signals.send(pidfd, signals.CONTINUE)
    except OSError:  # it has just ended
        return
    finally:
        posix.close(pidfd)
