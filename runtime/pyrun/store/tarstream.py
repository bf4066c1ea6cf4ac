"""Reading tar headers from a stream: ustar, GNU long names, PAX; nothing is written here.

Why not `tarfile`: it reads extension headers of any size into memory, follows sparse maps, applies global
headers, and decodes names; an image's archive is hostile until proven otherwise (CVE-2017-14992). Names stay
bytes from here to the disk. What Docker's reader leaves out is left out here too, so that both see the same
tree: global PAX headers, and data behind links and directories.
Source: man 5 tar; POSIX pax "Interchange Format".
"""

from __future__ import annotations

from collections.abc import Iterator

from pyrun.errors import ImageError
from pyrun.store.inflate import Stream

BLOCK = 512
MAX_HEADER_BYTES = 1 << 20  # one PAX header or long name
MAX_PENDING = 16  # extension headers before one entry

_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"1": "link", b"2": "symlink", b"3": "char", b"4": "block",
          b"5": "directory", b"6": "fifo"}  # fmt: skip
_NUMBERS = (b"uid", b"gid", b"size")


class Entry:
    """One entry. kind: file, link (hard), symlink, char, block, directory or fifo; data follows for files alone."""

    __slots__ = (
        "device",
        "gid",
        "kind",
        "mode",
        "mtime_ns",
        "name",
        "offset",
        "size_bytes",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(self, kind: str, name: bytes, target: bytes = b"") -> None:
        self.kind = kind
        self.name = name
        self.target = target
        self.mode = 0o644
        self.uid = 0
        self.gid = 0
        self.size_bytes = 0
        self.mtime_ns = 0
        self.device = (0, 0)
        self.offset = 0  # of the data in the stream
        self.xattrs: dict[bytes, bytes] = {}


def entries(stream: Stream) -> Iterator[Entry]:
    """The archive's entries in order; the data of a file may be read from *stream* before the next one is asked for.

    Raises ImageError for a truncated or malformed archive.
    """
    while (entry := _next(stream)) is not None:
        entry.offset = stream.position
        padded = entry.offset + entry.size_bytes + -entry.size_bytes % BLOCK
        yield entry
        if stream.position < padded:
            stream.skip(padded - stream.position)


def _next(stream: Stream) -> Entry | None:
    extended: dict[bytes, bytes] = {}
    for _ in range(MAX_PENDING):
        block = _block(stream)
        if block is None:
            return None
        kind, size = block[156:157], _number(block[124:136], stream)
        if kind in b"xgLKX":
            data = _extension(stream, size)
            if kind == b"L":
                extended[b"path"] = data.rstrip(b"\0")
            elif kind == b"K":
                extended[b"linkpath"] = data.rstrip(b"\0")
            elif kind != b"g":
                extended.update(_records(data, stream))
        elif kind == b"V":  # the volume's label
            stream.skip(size + -size % BLOCK)
        else:
            return _entry(block, kind, extended, stream)
    raise _broken(stream, f"more than {MAX_PENDING} extension headers in a row")


def _block(stream: Stream) -> bytes | None:
    first = bytes(stream.read(BLOCK))
    if not first:
        return None  # no end mark; readers accept that
    block = first + stream.read_exactly(BLOCK - len(first))
    if not block.strip(b"\0"):
        return None
    stored = block[148:156].strip(b"\0 ")
    if stored.strip(b"01234567") or sum(block) - sum(block[148:156]) + 8 * 32 != int(stored or b"0", 8):
        raise _broken(stream, "not a tar archive, or damaged: a header's checksum is wrong")
    return block


def _extension(stream: Stream, size: int) -> bytes:
    if size > MAX_HEADER_BYTES:
        raise _broken(stream, f"an extension header of {size} bytes (at most {MAX_HEADER_BYTES})")
    return stream.read_exactly(size + -size % BLOCK)[:size]


def _records(data: bytes, stream: Stream) -> dict[bytes, bytes]:
    """PAX records: `length key=value newline`, the length in decimal and of the whole record."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space]
        if space < 0 or not digits.isdigit():
            raise _broken(stream, "a PAX record without its length")
        end = at + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise _broken(stream, "a PAX record with a wrong length")
        records[key] = value
        at = end
    return records


def _entry(block: bytes, flag: bytes, extended: dict[bytes, bytes], stream: Stream) -> Entry:
    name = block[0:100].split(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345] and b"path" not in extended:
        name = block[345:500].split(b"\0")[0] + b"/" + name
    name = extended.get(b"path") or name
    kind = _KINDS.get(flag, "")
    sparse = flag == b"S" or any(key.startswith(b"GNU.sparse.") for key in extended)
    if sparse or not kind:
        what = "sparse" if sparse else f"of the unknown type {flag!r}"
        raise _broken(
            stream, f"the entry {show(name)} is {what}", "write it with a tar that makes plain entries"
        )
    if flag == b"\0" and name.endswith(b"/"):  # how archives before POSIX spell a directory
        kind = "directory"
    entry = Entry(kind, name, extended.get(b"linkpath") or block[157:257].split(b"\0")[0])
    entry.mode = _number(block[100:108], stream) & 0o7777
    numbers = {key: _decimal(extended[key], stream) for key in _NUMBERS if extended.get(key)}
    entry.uid = numbers[b"uid"] if b"uid" in numbers else _number(block[108:116], stream)
    entry.gid = numbers[b"gid"] if b"gid" in numbers else _number(block[116:124], stream)
    if kind == "file":
        entry.size_bytes = numbers[b"size"] if b"size" in numbers else _number(block[124:136], stream)
    entry.mtime_ns = _time_ns(extended, block, stream)
    if kind in ("char", "block"):
        entry.device = (_number(block[329:337], stream), _number(block[337:345], stream))
    for key, value in extended.items():
        if key.startswith(b"SCHILY.xattr."):
            entry.xattrs[key[13:]] = value
    return entry


def _number(field: bytes, stream: Stream, signed: bool = False) -> int:
    """A header's number: octal digits, or base 256 if the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
    else:
        digits = field.split(b"\0")[0].strip(b" ") or b"0"
        if digits.strip(b"01234567"):
            raise _broken(stream, f"the number {digits!r} in a header is not octal")
        value = int(digits, 8)
    if value < 0 and not signed:
        raise _broken(stream, "a negative number in a header")
    return value


def _decimal(text: bytes, stream: Stream) -> int:
    if not text.isdigit() or len(text) > 20:
        raise _broken(stream, f"the number {text[:24]!r} in a PAX record is not decimal")
    return int(text)


def _time_ns(extended: dict[bytes, bytes], block: bytes, stream: Stream) -> int:
    """The modification time, kept within 1970 to 2514, which every file system can store or clamp."""
    text = extended.get(b"mtime")
    if not text:
        nanoseconds = _number(block[136:148], stream, signed=True) * 10**9
    else:
        whole, _, fraction = text.partition(b".")
        digits = whole.removeprefix(b"-") + fraction
        if len(text) > 40 or not digits.isdigit():
            raise _broken(stream, f"the time {text[:40]!r} in a PAX record is not a number")
        nanoseconds = int(whole) * 10**9 + int(fraction[:9].ljust(9, b"0")) if whole.strip(b"-") else 0
    return min(max(nanoseconds, 0), 2**34 * 10**9)


def show(name: bytes) -> str:
    """A name from an archive, made harmless for a terminal and short enough for one line."""
    text = ascii(name.decode("utf-8", "replace")) if not name.isascii() else repr(name)[1:]
    return text if len(text) <= 100 else text[:80] + "...'"


def _broken(stream: Stream, why: str, hint: str = "") -> ImageError:
    return ImageError(f"{stream.what} is refused: {why}", hint)
