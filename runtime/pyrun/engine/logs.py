"""`pyrun logs`: what a container has written, read back from the file its monitor keeps.

The file has one line per line of output, `<RFC 3339 time> stdout|stderr F|P <text>`; P (partial) means that
the text's next piece follows without a newline. Source: kubernetes' CRI logging format.
"""

from __future__ import annotations

import posix
import time
from _collections_abc import Iterator  # `collections.abc` would load all of `collections`

from pyrun.errors import NotFound, UsageError
from pyrun.safe import is_number
from pyrun.store import paths, state

_BLOCK_BYTES = 65536
_HEAD_BYTES = 64  # more than a time, a stream's name and F or P take
# Longer than any piece the monitor writes (csrc/streams.h): what has no newline for so long is no log, but what a crash
# has left of one.
_PIECE_BYTES = 1 << 20
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def logs(
    reference: str, *, follow: bool = False, tail: str = "all", since: str = "", until: str = ""
) -> Iterator[tuple[str, str, bytes]]:
    """Pieces of output in order: (stdout or stderr, time or "" within a line, bytes with their newline).

    tail: "all" or how many lines; since, until: RFC 3339 time, unix seconds, or an age as `1h30m`.
    With *follow* it goes on until the container has ended.
    Raises: NotFound (no such container, no log), UsageError (malformed value); all before the first piece.
    """
    wanted = _count(tail)
    first, last = (moment("--since", since), moment("--until", until))
    identifier = state.resolve(reference)
    fd = _open(identifier, reference)
    lines = _follow(fd, identifier) if follow else _available(fd, bytearray())
    return _pieces(fd, lines, wanted, first, last)


def _open(identifier: str, reference: str) -> int:
    """The log; a container started a moment ago may have to open it first. Raises: NotFound."""
    directory = f"{paths.root()}/containers/{identifier}"
    for _ in range(1000):
        try:
            return posix.open(f"{directory}/log", posix.O_RDONLY | posix.O_CLOEXEC)
        except FileNotFoundError:
            if not state.supervised(identifier) or identifier not in posix.listdir(
                f"{paths.root()}/containers"
            ):
                break
            time.sleep(0.001)
    raise NotFound(f"container {reference} has no log", "a bundle's output is not kept")


def moment(option: str, text: str) -> str:
    """A point in time in the log's own spelling, so that the two compare as text; "" for "".

    Raises: UsageError.
    """
    if not text:
        return ""
    # the fraction as it is written: a float of our days has room for six digits of it, the log has nine
    whole, _, rest = text.replace(",", ".").partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    try:
        age_s = _age_s(text)
        if age_s is not None:
            return _spell(max(0.0, time.time() - age_s))
        return _spell(_unix_s(whole + rest[digits:], text), rest[:digits])
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"option {option}: '{text}' is no time",
            "write 2026-01-31T10:00:00Z, unix seconds, or an age such as 10m",
        ) from None


def _unix_s(whole: str, text: str) -> int:
    """The whole seconds of a time; *whole* is *text* without a fraction. Raises ValueError."""
    if whole.isascii() and whole.isdigit():
        return int(whole)
    import datetime

    datetime.datetime.fromisoformat(text)  # what is left of nonsense could be a time
    return int(datetime.datetime.fromisoformat(whole).timestamp())


def _pieces(
    fd: int, lines: Iterator[bytes], wanted: int | None, first: str, last: str
) -> Iterator[tuple[str, str, bytes]]:
    """Take the lines apart; the time is given only where a line of output begins."""
    within = {b"stdout": False, b"stderr": False}
    try:
        posix.lseek(fd, 0 if wanted is None else _tail_offset(fd, wanted), 0)
        for line in lines:
            fields = line.split(b" ", 3)
            if len(fields) < 4 or fields[1] not in within:
                continue  # a line cut by a crash
            moment_text = fields[0].decode("ascii", "replace")
            if last and moment_text > last:
                return
            if moment_text < first:
                continue
            whole = fields[2] == b"F"
            text = fields[3] if whole else fields[3][:-1]
            yield fields[1].decode(), "" if within[fields[1]] else moment_text, text
            within[fields[1]] = not whole
    finally:
        posix.close(fd)


def _available(fd: int, rest: bytearray) -> Iterator[bytes]:
    """The whole lines from here to the end of the file; *rest* keeps the beginning of the next one."""
    while chunk := posix.read(fd, _BLOCK_BYTES):
        if len(rest) > _PIECE_BYTES:
            rest.clear()
        rest += chunk
        lines = rest.splitlines(keepends=True) if b"\r" not in rest else _split(rest)
        rest[:] = b"" if lines[-1].endswith(b"\n") else lines.pop()
        yield from map(bytes, lines)


def _split(data: bytearray) -> list[bytearray]:
    """Split after newlines only: a terminal's output has carriage returns within its lines."""
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _follow(fd: int, identifier: str) -> Iterator[bytes]:
    """Lines as they come, until the container has ended and its last line was read."""
    rest = bytearray()
    pause_s = 0.01
    running = True
    while running:
        try:
            running = state.status(state.load(identifier)) != "exited"
        except NotFound:  # removed (--rm); the open file still has it all
            running = False
        # Asked before the read: what was written before the end is then surely seen.
        before = posix.lseek(fd, 0, 1)
        yield from _available(fd, rest)
        pause_s = 0.01 if posix.lseek(fd, 0, 1) > before else min(pause_s * 1.5, 0.2)
        if running:
            time.sleep(pause_s)


def _tail_offset(fd: int, wanted: int) -> int:
    """Where the last *wanted* lines of output begin: read from the end, a block at a time."""
    end = position = after = posix.lseek(fd, 0, 2)
    behind, found = b"", 0
    while position > 0 and wanted:
        start = max(0, position - _BLOCK_BYTES)
        data = posix.pread(fd, position - start, start) + behind
        at = position - start
        while (at := data.rfind(b"\n", 0, at)) >= 0 or start == 0:
            # The piece behind this newline: what follows a whole one is the beginning of a line.
            piece = start + at + 1
            if after < end and _is_whole(data[at + 1 : at + 1 + _HEAD_BYTES]):
                found += 1
                if found == wanted:
                    return after
            after = min(piece, after)
            if at < 0:
                return 0
        position, behind = start, data[:_HEAD_BYTES]
    return 0 if wanted else end


def _is_whole(head: bytes) -> bool:
    """Whether a piece is F, by its first bytes."""
    fields = head.split(b" ", 3)
    return len(fields) == 4 and fields[2] == b"F"


def _count(tail: str) -> int | None:
    """The number of --tail; None is all."""
    if tail == "all":
        return None
    digits = tail.removeprefix("-")
    if not is_number(digits):
        raise UsageError(f"option --tail needs a number or 'all', not '{tail:.60}'", "--tail 100")
    return None if tail.startswith("-") else int(digits)


def _age_s(text: str) -> float | None:
    """Seconds of `1h30m`; None if it is no such age."""
    total = 0.0
    while text:
        digits = len(text) - len(text.lstrip("0123456789."))
        unit = "ms" if text[digits:].startswith("ms") else text[digits : digits + 1]
        try:
            total += float(text[:digits]) * _UNITS_S[unit]
        except (ValueError, KeyError):
            return None
        text = text[digits + len(unit) :]
    return total


def _spell(unix_s: float, fraction: str = "") -> str:
    """Unix seconds as the monitor writes times; *fraction*: the decimals of whole ones."""
    decimals = fraction[:9].ljust(9, "0") if fraction else f"{int(unix_s % 1 * 1e9):09d}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_s)) + f".{decimals}Z"
