"""Reading tar headers from a stream: ustar, GNU long names, PAX, sparse files; nothing is written here.

Why not `tarfile`: it reads extension headers of any size into memory, believes sparse maps, applies global
headers, and decodes names; an image's archive is hostile until proven otherwise (CVE-2017-14992). Names stay
bytes from here to the disk. What Docker's reader leaves out is left out here too, so that both see the same
tree: global PAX headers, and data behind links and directories.
Source: man 5 tar; POSIX pax "Interchange Format".
"""

from __future__ import annotations

from collections.abc import Iterator

from pyrun.errors import ImageError
from pyrun.store import sparse
from pyrun.store.inflate import Stream
from pyrun.store.tarfields import broken, decimal, number, show, time_ns

BLOCK = 512
MAX_HEADER_BYTES = 1 << 20  # one PAX header or long name
MAX_PENDING = 16  # extension headers before one entry

_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"S": "file",
          b"1": "link", b"2": "symlink", b"3": "char", b"4": "block",
          b"5": "directory", b"6": "fifo"}  # fmt: skip
_NUMBERS = (b"uid", b"gid", b"size")


class Entry:
    """One entry. kind: file, link (hard), symlink, char, block, directory or fifo; data follows for files alone.

    size_bytes: of that data; pieces: of a sparse file where they belong, whole_bytes then its size, holes and all.
    """

    __slots__ = (
        "device",
        "gid",
        "kind",
        "mode",
        "mtime_ns",
        "name",
        "offset",
        "pieces",
        "size_bytes",
        "target",
        "uid",
        "whole_bytes",
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
        self.whole_bytes = 0
        self.pieces: sparse.Pieces | None = None
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
        kind, size = block[156:157], number(block[124:136], stream)
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
    raise broken(stream, f"more than {MAX_PENDING} extension headers in a row")


def _block(stream: Stream) -> bytes | None:
    first = bytes(stream.read(BLOCK))
    if not first:
        return None  # no end mark; readers accept that
    block = first + stream.read_up_to(BLOCK - len(first))
    if len(block) < BLOCK and stream.position == len(block):
        raise broken(stream, f"not a tar archive, or damaged: it is {len(block)} bytes long")
    if len(block) < BLOCK:
        raise ImageError(f"{stream.what} is truncated")
    if not block.strip(b"\0"):
        return None
    stored = block[148:156].strip(b"\0 ")
    if stored.strip(b"01234567") or sum(block) - sum(block[148:156]) + 8 * 32 != int(stored or b"0", 8):
        raise broken(stream, "not a tar archive, or damaged: a header's checksum is wrong")
    return block


def _extension(stream: Stream, size: int) -> bytes:
    if size > MAX_HEADER_BYTES:
        raise broken(stream, f"an extension header of {size} bytes (at most {MAX_HEADER_BYTES})")
    return stream.read_exactly(size + -size % BLOCK)[:size]


def _records(data: bytes, stream: Stream) -> dict[bytes, bytes]:
    """PAX records: `length key=value newline`, the length in decimal and of the whole record."""
    records: dict[bytes, bytes] = {}
    pieces: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space]
        if space < 0 or not digits.isdigit():
            raise broken(stream, "a PAX record without its length")
        end = at + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise broken(stream, "a PAX record with a wrong length")
        if key in sparse.PAIR:
            pieces.append((key, value))
        records[key] = value
        at = end
    if pieces:
        records[sparse.MAP] = sparse.pairs(pieces, stream)
    return records


def _entry(block: bytes, flag: bytes, extended: dict[bytes, bytes], stream: Stream) -> Entry:
    name = block[0:100].split(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345] and b"path" not in extended:
        name = block[345:500].split(b"\0")[0] + b"/" + name
    name = sparse.name(extended, extended.get(b"path") or name)
    kind = _KINDS.get(flag, "")
    form = sparse.form(flag, extended, stream)
    if not kind or (form and kind != "file"):
        what = f"of the unknown type {flag!r}" if not kind else f"a {kind} and sparse"
        raise broken(
            stream, f"the entry {show(name)} is {what}", "write it with a tar that makes plain entries"
        )
    if flag == b"\0" and name.endswith(b"/"):  # how archives before POSIX spell a directory
        kind = "directory"
    entry = Entry(kind, name, extended.get(b"linkpath") or block[157:257].split(b"\0")[0])
    entry.mode = number(block[100:108], stream) & 0o7777
    numbers = {key: decimal(extended[key], stream) for key in _NUMBERS if extended.get(key)}
    entry.uid = numbers[b"uid"] if b"uid" in numbers else number(block[108:116], stream)
    entry.gid = numbers[b"gid"] if b"gid" in numbers else number(block[116:124], stream)
    if kind == "file":
        entry.size_bytes = numbers[b"size"] if b"size" in numbers else number(block[124:136], stream)
    entry.mtime_ns = time_ns(extended, block, stream)
    if kind in ("char", "block"):
        entry.device = (number(block[329:337], stream), number(block[337:345], stream))
    if form:
        found = sparse.read(form, block, extended, entry.size_bytes, stream)
        entry.pieces, entry.whole_bytes, entry.size_bytes = found
    for key, value in extended.items():
        if key.startswith(b"SCHILY.xattr."):
            entry.xattrs[key[13:]] = value
    return entry
