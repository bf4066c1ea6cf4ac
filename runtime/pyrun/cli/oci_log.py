"""The log as runc writes it, so that containerd, podman and cri-o can read it: logrus's JSON and text lines.

    {"level":"error","msg":"container does not exist","time":"2026-11-24T12:15:54Z"}       --log-format json
    time="2026-11-24T12:15:54Z" level=error msg="container does not exist"                 text
    WARN[0000] nobody has read what was sent to NOTIFY_SOCKET                              on a terminal

Without --log it goes to standard error. With it, an error is told on standard error too, as it is: containerd shows
that to the user when it finds nothing in the log. Source: logrus's formatters, runc's behaviour.
"""

from __future__ import annotations

import posix
import time

from pyrun import STARTED_NS
from pyrun.jsonlite import dumps
from pyrun.safe import quoted, visible

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options


_COLOURS = {"debug": 37, "warning": 33, "error": 31}
_PLAIN = "-._/@^+"


def write(options: Options, level: str, message: str) -> None:
    """One line, where it belongs. Debug lines only with --debug."""
    if level == "debug" and not options["debug"]:
        return
    fd = options["log_fd"] if isinstance(options["log_fd"], int) else -1
    if options["log_format"] == "json":
        line = json_line(level, message)
    elif fd < 0 and posix.isatty(2) and not posix.environ.get(b"NO_COLOR"):
        line = terminal_line(level, message)
    else:
        line = text_line(level, message)
    _all(2 if fd < 0 else fd, line + "\n")
    if fd >= 0 and level == "error":
        _all(2, visible(message.rstrip("\n")) + "\n")


def json_line(level: str, message: str) -> str:
    """An object with the keys in alphabetical order."""
    return dumps({"level": level, "msg": _decent(message), "time": now()})


def text_line(level: str, message: str) -> str:
    """key=value pairs, quoted where a space or another sign asks for it."""
    return f'time="{now()}" level={level} msg={_value(message)}'


def terminal_line(level: str, message: str) -> str:
    """For people: level and seconds since the start in front."""
    seconds = (time.monotonic_ns() - STARTED_NS) // 1_000_000_000
    kept = "\n" if level == "debug" else ""  # the lines of a traceback
    shown = "".join([c if c.isprintable() or c in kept else quoted(c)[1:-1] for c in message.rstrip("\n")])
    return f"\x1b[{_COLOURS.get(level, 36)}m{level[:4].upper()}\x1b[0m[{seconds:04d}] {shown:<44} "


def now() -> str:
    """RFC 3339 in local time, `Z` for UTC."""
    moment = time.localtime()
    zone = time.strftime("%z", moment)
    zone = "Z" if zone in ("+0000", "") else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + zone


def _value(text: str) -> str:
    plain = text and all((c.isascii() and c.isalnum()) or c in _PLAIN for c in text)
    return text if plain else quoted(text)


def _decent(text: str) -> str:
    """JSON readers refuse lone surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _all(fd: int, text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    try:
        while data:
            data = data[posix.write(fd, data) :]
    except OSError:  # the reader is gone; there is nobody left to tell
        return
