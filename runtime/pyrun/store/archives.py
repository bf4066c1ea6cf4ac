"""Image archives on disk: files of a tar or of a directory, found by name, never unpacked.

`pyrun load` reads docker-archives and OCI layouts through this; engine/load.py knows what their files mean. A tar
that is compressed, or comes from a pipe, is first written plain into the staging area, since its table of
contents may be its last entry.
"""

from __future__ import annotations

import io
import os
import posixpath
from typing import BinaryIO, Protocol

from pyrun.errors import ImageError
from pyrun.store import distrusted, inflate, layers, tarstream

MAX_FILES = 1_000_000
_MAX_LINKS = 8


class Archive(Protocol):
    """Files by their names (relative, normalised)."""

    what: str

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""

    def open(self, name: str) -> BinaryIO:
        """Its content. Raises ImageError if it is missing."""


def read(archive: Archive, name: str, limit_bytes: int) -> bytes:
    """A small file of an archive as bytes. Raises ImageError (missing, too large)."""
    with archive.open(name) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ImageError(f"{archive.what}: {name} is larger than {limit_bytes} bytes")
    return data


class Directory:
    """A directory as an archive."""

    def __init__(self, path: str) -> None:
        self.what = path
        self._path = path

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return os.path.isfile(f"{self._path}/{name}")

    def open(self, name: str) -> BinaryIO:
        """Its content. Raises ImageError if it is missing."""
        if ".." in name.split("/") or name.startswith("/"):
            raise ImageError(f"{self.what}: the file name {name!r} leads out of it")
        try:
            return open(distrusted.open_file(f"{self._path}/{name}"), "rb")
        except OSError as error:
            raise ImageError(f"{self.what}: {name}: {error.strerror}") from None


class TarFile:
    """A plain tar file that can be sought in. Raises ImageError if it is none."""

    def __init__(self, file: BinaryIO, what: str) -> None:
        self.what = what
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        if not self._size:  # a tar that holds nothing has two blocks that say so
            raise ImageError(f"{what} is empty", "what was to write it has failed, or wrote nothing")
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._sparse: set[str] = set()  # in a root file system they are unpacked; none is looked for by name
        file.seek(0)
        stream = inflate.Stream(file.read, what, max(self._size, 1), seek=lambda count: _seek(file, count))
        for count, entry in enumerate(tarstream.entries(stream)):
            if count >= MAX_FILES:
                raise ImageError(f"{what} holds more than {MAX_FILES} files")
            name = _normal(entry.name)
            if entry.pieces is not None:
                self._sparse.add(name)
            elif entry.kind == "file":
                self._files[name] = (entry.offset, entry.size_bytes)
            elif entry.kind == "symlink":
                self._links[name] = posixpath.normpath(
                    posixpath.join(posixpath.dirname(name), _text(entry.target))
                )
            elif entry.kind == "link":
                self._links[name] = _normal(entry.target)
            if entry.offset + entry.size_bytes > self._size:
                raise ImageError(f"{what} is truncated")

    def _find(self, name: str) -> str:
        for _ in range(_MAX_LINKS):
            if name in self._files or name not in self._links:
                return name
            name = self._links[name]
        return ""

    def has(self, name: str) -> bool:
        """Whether there is a file of that name, perhaps through links inside the archive."""
        return self._find(name) in self._files

    def open(self, name: str) -> BinaryIO:
        """Its content. Raises ImageError if it is missing."""
        found = self._find(posixpath.normpath(name))
        place = self._files.get(found)
        if found in self._sparse:
            raise ImageError(
                f"{self.what}: the file {name!r:.100} is sparse", "pack it again without --sparse"
            )
        if place is None:
            raise ImageError(f"{self.what}: the file {name!r:.100} is missing")
        return io.BufferedReader(_Slice(self._file.fileno(), *place), inflate.CHUNK_BYTES)


class _Slice(io.RawIOBase):
    """Part of a file, without touching its position."""

    def __init__(self, fd: int, offset: int, size_bytes: int) -> None:
        super().__init__()
        self._fd = fd
        self._at = offset
        self._end = offset + size_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), self._end - self._at)
        got = os.preadv(self._fd, [memoryview(buffer)[:count]], self._at) if count else 0
        self._at += got
        return got


def _seek(file: BinaryIO, count: int) -> None:
    file.seek(count, io.SEEK_CUR)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _normal(name: bytes) -> str:
    return posixpath.normpath("/" + _text(name).lstrip("/"))[1:]


def plain_file(file: BinaryIO, what: str, staging: layers.Staging) -> BinaryIO:
    """*file* itself if it is uncompressed and can be sought in, else an inflated copy in the staging area."""
    if file.seekable():
        head = file.read(6)
        file.seek(0)
        if not inflate.is_compressed(head):
            return file
    stream = inflate.Stream(file.read, what)
    copy = open(f"{staging.path}/archive", "w+b")
    try:
        while data := stream.read(inflate.CHUNK_BYTES):
            copy.write(data)
        copy.flush()
    except BaseException:
        copy.close()
        raise
    return copy
