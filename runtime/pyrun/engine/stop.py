"""`pyrun stop`: ask the container to end, insist after a while, return when everything is cleaned up."""

from __future__ import annotations

import posix

from pyrun import signals
from pyrun.engine import kill, reconcile
from pyrun.store import state

DEFAULT_TIMEOUT_S = 10


def stop(reference: str, timeout_s: int | None = None, signal: str = "") -> str:
    """Send the stop signal, wait *timeout_s* (None: the container's or 10; below 0: for ever), then SIGKILL.

    signal: "" means the container's stop signal or TERM. A container that does not run is fine, as in Docker.
    Works without a monitor too: its undo list is then replayed here. Returns the id.
    Raises: NotFound, UsageError (no such signal).
    """
    wanted = signals.number(signal) if signal else 0
    identifier = state.resolve(reference)
    container = state.load(identifier)
    number = wanted or signals.number(str(container.get("stop_signal") or "TERM"))
    pidfd = state.open_process(container)
    if pidfd >= 0:
        try:
            signals.send(pidfd, number)
            if not kill.wait(pidfd, _patience_s(container, timeout_s)):
                signals.send(pidfd, signals.KILL)
                kill.wait(pidfd, None)
        finally:
            posix.close(pidfd)
    reconcile.wait_until_undone(identifier)
    return identifier


def _patience_s(container: dict[str, object], given: int | None) -> int | None:
    """Seconds between the signal and SIGKILL; None is for ever."""
    seconds = given if given is not None else container.get("stop_timeout")
    if not isinstance(seconds, int):
        seconds = DEFAULT_TIMEOUT_S
    return None if seconds < 0 else seconds
