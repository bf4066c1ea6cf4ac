"""`pyrun kill`: one signal to the first process of a container, and nothing else."""

from __future__ import annotations

import posix
import select

from pyrun import signals
from pyrun.engine import ending
from pyrun.errors import Conflict
from pyrun.store import paths, state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.record import Record

_FROZEN_S = 0.2  # who has not died by then may be frozen


def kill(reference: str, signal: str = "KILL") -> str:
    """Send *signal* (name or number) to a running container; after SIGKILL wait until it is cleaned up.

    Returns the id. Raises: UsageError (no such signal), NotFound, Conflict (it does not run).
    """
    number = signals.number(signal)
    identifier = state.resolve(reference)
    pidfd = state.open_process(state.load(identifier))
    if pidfd < 0:
        raise Conflict(f"container {reference} is not running", "see `pyrun ps -a`")
    try:
        _tell(identifier, number)
        signals.send(pidfd, number)
        if number == signals.KILL:
            until_dead(pidfd, identifier)
            ending.wait_until_undone(identifier)
    finally:
        posix.close(pidfd)
    return identifier


def send(container: Record, number: int) -> None:
    """Signal the first process of a container, if it runs, and wait for nothing."""
    pidfd = state.open_process(container)
    if pidfd >= 0:
        try:
            _tell(str(container["id"]), number)
            signals.send(pidfd, number)
        finally:
            posix.close(pidfd)


def _tell(identifier: str, number: int) -> None:
    """A start that is under way learns from this file who ended it (verdict.py)."""
    if number == signals.KILL and ending.being_started(identifier):
        try:
            paths.write(f"{state.run_dir(identifier)}/killed", b"")
        except OSError:  # it has failed by itself, and taken everything back; or the disk is full
            return


def until_dead(pidfd: int, identifier: str) -> None:
    """After SIGKILL. What a container has frozen itself, in v1 cgroups below its own, does not die of it, and so its
    first process does not: kill-cgroup of the undo list thaws whatever it finds."""
    if wait(pidfd, _FROZEN_S):
        return
    from pyrun import undo

    try:
        lines = paths.read(f"{state.run_dir(identifier)}/undo").decode("utf-8", "surrogateescape").split("\n")
    except FileNotFoundError:
        lines = []
    fd = undo.in_memory([line for line in lines if line.startswith("kill-cgroup\t")])
    try:
        undo.replay(fd)
    finally:
        posix.close(fd)
    wait(pidfd, None)


def wait(pidfd: int, timeout_s: float | None) -> bool:
    """Wait for the end of the process (None: for ever); whether it has ended. Source: man 2 pidfd_open."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    # poll(2) takes no more than an int; after these 24 days nobody waits any longer
    return bool(poll.poll(None if timeout_s is None else min(int(timeout_s * 1000), 0x7FFFFFFF)))
