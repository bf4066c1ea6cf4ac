"""Signal names and numbers as Docker takes them: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.

The standard library's `signal` module builds enums (2 ms); the C module below it has the same constants.
Source: man 7 signal. SIGRTMIN is the C library's (34), as images mean it: systemd's `SIGRTMIN+3` is 37.
"""

from __future__ import annotations

import _signal
import posix

from pyrun.errors import UsageError
from pyrun.safe import is_number

HIGHEST: int = _signal.NSIG - 1
KILL = int(_signal.SIGKILL)
PIPE = int(_signal.SIGPIPE)
TERM = int(_signal.SIGTERM)
CONTINUE = int(_signal.SIGCONT)


def number(text: str) -> int:
    """The number of the signal *text* names, upper or lower case, with or without SIG.

    Raises: UsageError for a name this system does not have or a number outside 1..64.
    """
    value = int(text) if is_number(text) else _named(text.upper().removeprefix("SIG"))
    if not 1 <= value <= HIGHEST:
        raise UsageError(f"unknown signal '{text:.60}'", "see `kill -l` for the names")
    return value


def name(value: int) -> str:
    """`SIGTERM` of 15; the number itself when it has no name of its own."""
    for key, known in vars(_signal).items():
        if known == value and _is_signal(key) and key not in ("SIGCLD", "SIGPOLL", "SIGIOT"):
            return str(key)
    return str(value)


def send(pidfd: int, value: int) -> None:
    """Signal the process of *pidfd*; one that has just ended is fine. Source: man 2 pidfd_send_signal."""
    try:
        _signal.pidfd_send_signal(pidfd, value)
    except ProcessLookupError:
        pass


def die_of(value: int) -> None:
    """End this process as the signal would have ended it, so that its parent sees the truth."""
    _signal.signal(value, _signal.SIG_DFL)
    posix.kill(posix.getpid(), value)


def _named(short: str) -> int:
    """The number of `TERM` or `RTMIN+3`; 0 when there is none."""
    base, sign, offset = short.partition("+" if "+" in short else "-")
    key = "SIG" + base
    value = getattr(_signal, key, 0) if _is_signal(key) else 0
    if not sign:
        return int(value)
    if not (is_number(offset) and base in ("RTMIN", "RTMAX")):
        return 0
    value += int(offset) if sign == "+" else -int(offset)
    return int(value) if _signal.SIGRTMIN <= value <= _signal.SIGRTMAX else 0


def _is_signal(key: str) -> bool:
    """True for SIGTERM, not for SIG_DFL."""
    return key.startswith("SIG") and key[3:].isalnum()
