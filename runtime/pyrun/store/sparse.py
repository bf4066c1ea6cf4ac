"""Sparse files in a tar: only their pieces are in the archive, and a map says where each belongs.

GNU tar has written that map in four places: in the header and in blocks behind it (type S), as repeated PAX records
(0.0), as one record (0.1), or in front of the data (1.0). A map is taken only if its pieces are in order, do not
overlap, lie within the file, and are together as long as the data that follows; so it can neither write a byte
twice nor shift what is read as the next header.
Source: GNU tar manual, "Storing Sparse Files"; Go's archive/tar, which is what Docker reads with.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyrun.store.inflate import MAX_BYTES, Stream
from pyrun.store.tarfields import broken, decimal, number, show

BLOCK = 512
MAX_MAP_BYTES = 1 << 20  # some 50,000 pieces

PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")  # 0.0: one of each a piece
MAP = b"GNU.sparse.map"
_VERSION = (b"GNU.sparse.major", b"GNU.sparse.minor")
_OLD, _RECORDS, _IN_FRONT = "old", "0.x", "1.0"

Pieces = list[tuple[int, int]]  # (offset in the file, bytes), in order


def form(flag: bytes, extended: dict[bytes, bytes], stream: Stream) -> str:
    """Where an entry's map is, "" for one that is not sparse."""
    if flag == b"S":
        return _OLD
    if not any(key.startswith(b"GNU.sparse.") for key in extended):
        return ""
    version = tuple(extended.get(key, b"") for key in _VERSION)
    if version == (b"1", b"0"):
        return _IN_FRONT
    if version not in ((b"", b""), (b"0", b"0"), (b"0", b"1")):
        raise broken(
            stream, "sparse in a version that is not known", "write it with `tar --sparse-version=1.0`"
        )
    return _RECORDS


def name(extended: dict[bytes, bytes], otherwise: bytes) -> bytes:
    """The file's name: PAX has another one in the header, for readers that know nothing of sparse files."""
    return extended.get(b"GNU.sparse.name") or otherwise


def read(
    kind: str, block: bytes, extended: dict[bytes, bytes], data_bytes: int, stream: Stream
) -> tuple[Pieces, int, int]:
    """The map of an entry: (pieces, bytes of the whole file, bytes of data that still follow in the stream).

    kind: what `form` said; data_bytes: as the header has them. Raises ImageError.
    """
    if kind == _OLD:
        if block[257:265] != b"ustar  \0":
            raise broken(stream, "a sparse entry that GNU tar did not write")
        whole = number(block[483:495], stream)
        numbers = _in_blocks(block, stream)
    else:
        size = extended.get(b"GNU.sparse.realsize") or extended.get(b"GNU.sparse.size") or b""
        whole = decimal(size, stream)
        if kind == _IN_FRONT:
            numbers, read_bytes = _in_front(data_bytes, stream)
            data_bytes -= read_bytes
        else:
            numbers = [decimal(text, stream) for text in extended.get(MAP, b"").split(b",") if text]
    return _checked(numbers, whole, data_bytes, stream), whole, data_bytes


def _in_blocks(block: bytes, stream: Stream) -> list[int]:
    """Four pairs in the header; 21 in each block behind it, as long as one announces another."""
    numbers: list[int] = []
    fields, more = block[386:482], block[482]
    for _ in range(MAX_MAP_BYTES // BLOCK):
        for at in range(0, len(fields), 24):
            if not fields[at : at + 24].strip(b"\0"):
                break
            numbers += [number(fields[each : each + 12], stream) for each in (at, at + 12)]
        if not more:
            return numbers
        further = stream.read_exactly(BLOCK)
        fields, more = further[:504], further[504]
    raise broken(stream, f"a sparse map of more than {MAX_MAP_BYTES} bytes")


def _in_front(data_bytes: int, stream: Stream) -> tuple[list[int], int]:
    """Lines before the data, filled up to a block: how many pieces, then offset and size of each."""
    text, lines, wanted = bytearray(), 0, 1
    while lines < wanted:
        if len(text) + BLOCK > min(data_bytes, MAX_MAP_BYTES):
            raise broken(stream, f"a sparse map longer than its data, or than {MAX_MAP_BYTES} bytes")
        more = stream.read_exactly(BLOCK)
        lines += more.count(b"\n")
        text += more
        if wanted == 1 and lines:
            wanted = 1 + 2 * decimal(bytes(text).partition(b"\n")[0], stream)
    return [decimal(line, stream) for line in bytes(text).split(b"\n")[1:wanted]], len(text)


def _checked(numbers: Sequence[int], whole: int, data_bytes: int, stream: Stream) -> Pieces:
    pieces = list(zip(numbers[::2], numbers[1::2], strict=False))
    end = 0
    for offset, size in pieces:
        if offset < end:
            raise broken(stream, f"a sparse map whose pieces overlap or are out of order at {offset}")
        end = offset + size
    if len(numbers) % 2 or end > whole or sum(size for _, size in pieces) != data_bytes:
        raise broken(stream, "a sparse map that does not fit its file or its data")
    if whole > MAX_BYTES:
        raise broken(stream, f"a sparse file of {whole} bytes (at most {MAX_BYTES})")
    return pieces


def pairs(texts: list[tuple[bytes, bytes]], stream: Stream) -> bytes:
    """The repeated records of 0.0 as the one of 0.1: `offset,size,offset,size`."""
    if any(key != PAIR[place % 2] for place, (key, _) in enumerate(texts)):
        raise broken(stream, f"a sparse map in which {show(PAIR[0])} and {show(PAIR[1])} do not take turns")
    return b",".join(str(decimal(value, stream)).encode() for _, value in texts)
