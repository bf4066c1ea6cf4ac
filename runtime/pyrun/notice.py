"""Notices on the way to the user: the engine says them, the command line decides where they appear.

Only `cli` prints. Whoever has something to tell (a bridge was made, ip_forward was switched on) calls
`say`; without a sink the text is dropped, which is what a library user wants.
"""

from __future__ import annotations

_sinks: list[object] = []


def install(sink: object) -> None:
    """Send notices to *sink*, a callable taking one str; the newest sink wins."""
    _sinks.append(sink)


def say(text: str) -> None:
    """Tell the user *text*: one line, no full stop, no newline."""
    if _sinks:
        _sinks[-1](text)  # type: ignore[operator]
