"""`pyrun kill`: one signal to the first process of a container, and nothing else."""

from __future__ import annotations

import posix
import select

from pyrun import signals
from pyrun.engine import ending
from pyrun.errors import Conflict
from pyrun.store import state


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
        signals.send(pidfd, number)
        if number == signals.KILL:
            wait(pidfd, None)
            ending.wait_until_undone(identifier)
    finally:
        posix.close(pidfd)
    return identifier


def send(container: dict[str, object], number: int) -> None:
    """Signal the first process of a container, if it runs, and wait for nothing."""
    pidfd = state.open_process(container)
    if pidfd >= 0:
        try:
            signals.send(pidfd, number)
        finally:
            posix.close(pidfd)


def wait(pidfd: int, timeout_s: float | None) -> bool:
    """Wait for the end of the process (None: for ever); whether it has ended. Source: man 2 pidfd_open."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    # poll(2) takes no more than an int; after these 24 days nobody waits any longer
    return bool(poll.poll(None if timeout_s is None else min(int(timeout_s * 1000), 0x7FFFFFFF)))
