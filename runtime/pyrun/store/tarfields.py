"""The fields of a tar's headers: numbers and times as they are spelled, names as they are told.

Source: man 5 tar; POSIX pax "Interchange Format".
"""

from __future__ import annotations

from pyrun.errors import ImageError
from pyrun.store.inflate import Stream


def number(field: bytes, stream: Stream, signed: bool = False) -> int:
    """A header's number: octal digits, or base 256 if the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
    else:
        digits = field.split(b"\0")[0].strip(b" ") or b"0"
        if digits.strip(b"01234567"):
            raise broken(stream, f"the number {digits!r} in a header is not octal")
        value = int(digits, 8)
    if value < 0 and not signed:
        raise broken(stream, "a negative number in a header")
    return value


def decimal(text: bytes, stream: Stream) -> int:
    """A number of a PAX record."""
    if not text.isdigit() or len(text) > 20:
        raise broken(stream, f"the number {text[:24]!r} in a PAX record is not decimal")
    return int(text)


def time_ns(extended: dict[bytes, bytes], block: bytes, stream: Stream) -> int:
    """The modification time, kept within 1970 to 2514, which every file system can store or clamp."""
    text = extended.get(b"mtime")
    if not text:
        nanoseconds = number(block[136:148], stream, signed=True) * 10**9
    else:
        whole, _, fraction = text.partition(b".")
        digits = whole.removeprefix(b"-") + fraction
        if len(text) > 40 or not digits.isdigit():
            raise broken(stream, f"the time {text[:40]!r} in a PAX record is not a number")
        past = text.startswith(b"-")  # 1970; an integer would lose the sign of -0.5
        nanoseconds = 0 if past or not whole else int(whole) * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return min(max(nanoseconds, 0), 2**34 * 10**9)


def show(name: bytes) -> str:
    """A name from an archive, made harmless for a terminal and short enough for one line."""
    text = ascii(name.decode("utf-8", "replace")) if not name.isascii() else repr(name)[1:]
    return text if len(text) <= 100 else text[:80] + "...'"


def broken(stream: Stream, why: str, hint: str = "") -> ImageError:
    """What to raise when an archive cannot be taken."""
    return ImageError(f"{stream.what} is refused: {why}", hint)
