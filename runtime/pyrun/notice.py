"""Notices on the way to the user: the engine says them, the command line decides where they appear.

Only `cli` prints. Whoever has something to tell (a bridge was made, ip_forward was switched on) calls
`say`; without a sink the text is dropped, which is what a library user wants.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable

_sinks: list[Callable[[str], object]] = []


def install(sink: Callable[[str], object]) -> None:
    """Send notices to *sink*; the newest one wins."""
    _sinks.append(sink)


def remove() -> None:
    """Take away the newest sink: the one before it is told again."""
    _sinks.pop()


def say(text: str) -> None:
    """Tell the user *text*: one line without a full stop. A line break or an escape in it is shown as such."""
    if _sinks:
        _sinks[-1](text)
