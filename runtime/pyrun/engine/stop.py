"""`pyrun stop`: ask the container to end, insist after a while, return when everything is cleaned up."""

from __future__ import annotations

import posix
import time

from pyrun import signals
from pyrun.engine import ending, kill
from pyrun.errors import NotFound
from pyrun.store import state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.record import Record

DEFAULT_TIMEOUT_S = 10
# (id of a container, when it was sent its stop signal, by time.monotonic())
Asked = tuple[str, float]


def stop(reference: str, timeout_s: int | None = None, signal: str = "", asked: Asked | None = None) -> str:
    """Send the stop signal, wait *timeout_s* (None: the container's or 10; below 0: for ever), then SIGKILL.

    signal: "" means the container's stop signal or TERM. asked: what `ask` returned, if it was sent already. A
    container that does not run is fine, as in Docker. Works without a monitor too: its undo list is then replayed here.
    Returns the id. Raises: NotFound, UsageError (no such signal).
    """
    identifier, asked_at = asked or ask(reference, signal)
    while True:
        _insist(identifier, timeout_s, asked_at)
        if ending.wait_until_undone(identifier):
            return identifier
        try:
            identifier, asked_at = ask(identifier, signal)  # it was only being started
        except NotFound:  # it has ended since, and was started with --rm
            return identifier


def _insist(identifier: str, timeout_s: int | None, asked_at: float) -> None:
    """Wait for the end of the process that was asked, and end it when patience is over."""
    try:
        container = state.load(identifier)
        pidfd = -1 if ending.being_started(identifier) else state.open_process(container)
    except NotFound:  # it has ended since, and was started with --rm
        return
    if pidfd < 0:
        return
    try:
        patience_s = _patience_s(container, timeout_s)
        left_s = None if patience_s is None else max(0.0, asked_at + patience_s - time.monotonic())
        if not kill.wait(pidfd, left_s):
            signals.send(pidfd, signals.KILL)
            kill.until_dead(pidfd, identifier)
    finally:
        posix.close(pidfd)


def ask(reference: str, signal: str = "") -> Asked:
    """Send the stop signal to a container that runs. Raises: as `stop`."""
    wanted = signals.number(signal) if signal else 0
    identifier = state.resolve(reference)
    container = state.load(identifier)
    if not ending.being_started(identifier):
        kill.send(container, wanted or signals.number(str(container.get("stop_signal") or "TERM")))
    return identifier, time.monotonic()


def _patience_s(container: Record, given: int | None) -> int | None:
    """Seconds between the signal and SIGKILL; None is for ever."""
    seconds = given if given is not None else container.get("stop_timeout")
    if not isinstance(seconds, int):
        seconds = DEFAULT_TIMEOUT_S
    return None if seconds < 0 else seconds
