"""Compressed or not: one stream of plain bytes with a position, a limit and a digest.

The kind is told by the first bytes, as Docker does, never by a name or a media type. gzip, bzip2 and xz come from
the standard library, zstd from the package `zstandard`. Nothing is run: a helper program of the machine or,
worse, of an image has no part in this (GHSA-x86f-5xw2-fm2r).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from pyrun import boot
from pyrun.errors import ImageError

Read = Callable[[int], bytes]  # at most that many bytes; b"" at the end

CHUNK_BYTES = 1 << 18
MAX_BYTES = 64 << 30  # of one archive when inflated

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\0"
_OTHERS = {b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip"}
_MEMORY_BYTES = 1 << 27  # more would let a small file ask for gigabytes; `xz -9` needs half of it


class Stream:
    """Reads plain bytes out of *read*, which may deliver them compressed.

    what: named in errors; limit_bytes: of the plain stream; seek: moves *read* forward by that many bytes, only
    for uncompressed input that can be skipped instead of read (then no digest is to be had).
    """

    def __init__(
        self, read: Read, what: str, limit_bytes: int = MAX_BYTES, seek: Callable[[int], None] | None = None
    ) -> None:
        self.what = what
        self.position = 0
        self._limit = limit_bytes
        self._hash = hashlib.sha256()
        self._seek = seek
        self._chunks = _plain(read, what)
        self._rest = memoryview(b"")

    def read(self, count: int) -> memoryview:
        """Between 1 and *count* bytes, or none at the end. Raises ImageError."""
        while not self._rest:
            chunk = next(self._chunks, b"")
            if not chunk:
                return self._rest
            if not self._seek:
                self._hash.update(chunk)
            self._rest = memoryview(chunk)
        taken, self._rest = self._rest[:count], self._rest[count:]
        self.position += len(taken)
        if self.position > self._limit:
            raise ImageError(
                f"{self.what} holds more than {self._limit} bytes", "it may be a decompression bomb"
            )
        return taken

    def read_exactly(self, count: int) -> bytes:
        """*count* bytes. Raises ImageError if the stream ends before."""
        data = self.read_up_to(count)
        if len(data) < count:
            raise ImageError(f"{self.what} is truncated")
        return data

    def read_up_to(self, count: int) -> bytes:
        """*count* bytes, or what there is to the end."""
        data = bytes(self.read(count)) if count else b""
        while len(data) < count and (more := self.read(count - len(data))):
            data += more
        return data

    def skip(self, count: int) -> None:
        """Leave out *count* bytes. Raises ImageError if the stream ends before."""
        if self._seek and count > len(self._rest):
            self._seek(count - len(self._rest))
            self.position += count
            self._rest = memoryview(b"")
            return
        while count:
            taken = len(self.read(min(count, CHUNK_BYTES)))
            if not taken:
                raise ImageError(f"{self.what} is truncated")
            count -= taken

    def drain(self) -> str:
        """Read to the end; returns the digest of all plain bytes, `sha256:...`."""
        while self.read(CHUNK_BYTES):
            pass
        return f"sha256:{self._hash.hexdigest()}"


def is_compressed(head: bytes) -> bool:
    """Whether those first bytes (6 are enough) are of a compressed file."""
    return head.startswith((_GZIP, _ZSTD, _BZIP2, _XZ, *_OTHERS))


def _plain(read: Read, what: str) -> Iterator[bytes]:
    head = b""
    while len(head) < 6 and (more := read(CHUNK_BYTES)):
        head += more
    for magic, kind in _OTHERS.items():
        if head.startswith(magic):
            raise ImageError(
                f"{what} is compressed with {kind}, which images do not use",
                "use gzip, zstd, xz, bzip2 or none",
            )
    if head.startswith(_GZIP):
        yield from _gunzip(head, read, what)
    elif head.startswith(_ZSTD):
        yield from _unzstd(head, read, what)
    elif head.startswith((_BZIP2, _XZ)):
        yield from _unpack(head, read, what)
    else:
        while head:
            yield head
            head = read(CHUNK_BYTES)


def _gunzip(data: bytes, read: Read, what: str) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits=31)
    try:
        while True:
            if plain := inflater.decompress(data, CHUNK_BYTES):
                yield plain
            data = inflater.unconsumed_tail
            if inflater.eof:
                data = _next_member(inflater.unused_data, read)
                if not data:
                    return
                inflater = zlib.decompressobj(wbits=31)
            elif not data and not (data := read(CHUNK_BYTES)):
                raise ImageError(f"{what} is truncated")
    except zlib.error as error:
        raise ImageError(f"{what} is not valid gzip: {error}") from None


def _next_member(data: bytes, read: Read) -> bytes:
    """What follows a gzip member: another one, or zero bytes of padding, which are left out."""
    while not (data := data.lstrip(b"\0")):
        if not (data := read(CHUNK_BYTES)):
            return b""
    return data


def _unpack(data: bytes, read: Read, what: str) -> Iterator[bytes]:
    """xz and bzip2, whose decompressors are used alike."""
    kind, make, broken = _decompressor(data, what)
    inflater = make()
    try:
        while True:
            if plain := inflater.decompress(data, CHUNK_BYTES):
                yield plain
            data = b""
            if inflater.eof:
                data = _next_member(inflater.unused_data, read)
                if not data:
                    return
                inflater = make()
            elif inflater.needs_input and not (data := read(CHUNK_BYTES)):
                raise ImageError(f"{what} is truncated")
    except broken as error:
        if getattr(error, "errno", None):  # of the file, not of what is in it
            raise
        raise ImageError(f"{what} is not valid {kind}: {error}") from None


def _decompressor(head: bytes, what: str) -> tuple[str, Callable[[], Any], type[Exception]]:
    """What reads a file that begins so: its name, how one is made, what it raises."""
    kind = "xz" if head.startswith(_XZ) else "bzip2"
    try:  # a Python may have been built without either
        if kind == "xz":
            import lzma

            return kind, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY_BYTES), lzma.LZMAError
        import bz2
    except ImportError:
        raise ImageError(
            f"{what} is compressed with {kind}, which this Python cannot read", "pack it with gzip"
        ) from None
    return kind, bz2.BZ2Decompressor, OSError


def _unzstd(head: bytes, read: Read, what: str) -> Iterator[bytes]:
    boot.site_packages()
    try:
        import zstandard
    except ImportError:
        raise ImageError(
            f"{what} is compressed with zstd, for which the pip package zstandard is missing",
            f"{boot.SITE_DIR.rpartition('/lib/')[0]}/bin/pip install zstandard",
        ) from None
    library: Any = zstandard

    def source(count: int) -> bytes:
        nonlocal head
        if head:
            taken, head = head[:count], head[count:]
            return taken
        return read(count)

    class Raw:
        read = staticmethod(source)

    inflater = library.ZstdDecompressor(max_window_size=_MEMORY_BYTES)
    try:
        with inflater.stream_reader(Raw(), read_size=CHUNK_BYTES, read_across_frames=True) as reader:
            while plain := reader.read(CHUNK_BYTES):
                yield plain
    except library.ZstdError as error:
        raise ImageError(f"{what} is not valid zstd: {error}") from None
