"""Writing an archive's entries below one directory, whatever the archive says.

The rule that makes it safe: no path is ever used as a whole. An entry's parent is opened with
openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS) below the root's descriptor, so links, absolute or with `..`,
are followed as they would be inside the container and never lead out; then one system call makes the last
component relative to that descriptor without following it. The same holds for the targets of hard links and
for whiteouts. Attributes are set through descriptors of what was just made.

Whiteouts (`.wh.NAME`, `.wh..wh..opq`; image-spec layer.md) are carried out on the root given, which is the
union of the layers below and this one (see overlay_view.py): the kernel writes them down in the form overlayfs
wants, a 0:0 device or trusted.overlay.opaque. Those two can not be smuggled in: 0:0 devices and trusted.*
attributes of an archive are not made.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator

from pyrun.errors import ImageError
from pyrun.store import layers, nodes, tarstream
from pyrun.store.inflate import CHUNK_BYTES, Stream
from pyrun.store.nodes import Refused
from pyrun.store.rooted import MAX_DEPTH, MAX_PLACE_BYTES, DanglingLink, Rooted, TooDeep, real_path
from pyrun.store.tarfields import show
from pyrun.store.tarstream import Entry

MAX_ENTRIES = 4_000_000
MAX_PATH_BYTES = 4095
MAX_NAME_BYTES = 255

_WHITEOUT = b".wh."
_META = b".wh..wh."  # bookkeeping of aufs; only one of them has a meaning for others
_OPAQUE = b".wh..wh..opq"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Stopped(Exception):
    """The caller set the stop event."""


class Unpacked:
    """What was done. size_bytes: of all files; skipped: device nodes and attributes this machine refused."""

    __slots__ = ("count", "size_bytes", "skipped")

    def __init__(self) -> None:
        self.count = 0
        self.size_bytes = 0
        self.skipped = 0


def unpack(
    stream: Stream, root_fd: int, layered: bool = False, stop: threading.Event | None = None
) -> Unpacked:
    """Write all entries of *stream* below *root_fd*.

    layered: the root shows lower layers too, which whiteouts may hide. Raises ImageError (hostile or broken
    archive, full disk), Stopped.
    """
    writer = _Writer(stream, root_fd, layered)
    entry: Entry | None = None
    try:
        for entry in tarstream.entries(stream):
            if stop is not None and stop.is_set():
                raise Stopped
            writer.write(entry)
        writer.finish()
    except Refused as error:
        where = show(entry.name) if entry else "the end"
        raise ImageError(f"{stream.what} is refused at the entry {where}: {error}") from None
    except OSError as error:
        raise _failure(stream.what, entry, error) from error
    finally:
        writer.close()
    return writer.result


def _failure(what: str, entry: Entry | None, error: OSError) -> ImageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ImageError(
            f"{what} cannot be unpacked: {error.strerror}", "free some space below pyrun's root"
        )
    where = f" at {show(entry.name)}" if entry else ""
    return ImageError(f"{what} cannot be unpacked{where}: {error.strerror}")


class _Times:
    """Directories' times by their names in the archive: they are set last, since filling a directory changes its. A
    tree, so that what is replaced is forgotten with all below it at once."""

    __slots__ = ("below", "mtime_ns")

    def __init__(self) -> None:
        self.below: dict[bytes, _Times] = {}
        self.mtime_ns: int | None = None

    def note(self, parts: list[bytes], mtime_ns: int) -> None:
        """The time of one directory."""
        place = self
        for part in parts:
            if part not in place.below:
                place.below[part] = _Times()
            place = place.below[part]
        place.mtime_ns = mtime_ns

    def forget(self, parts: list[bytes]) -> None:
        """That directory is gone, and what was in it."""
        place: _Times | None = self
        for part in parts[:-1]:
            place = place and place.below.get(part)
        if place:
            place.below.pop(parts[-1], None)

    def deepest_first(self, path: bytes = b"") -> Iterator[tuple[bytes, int]]:
        """(path, time in ns) of all, each after those below it."""
        for name, times in self.below.items():
            yield from times.deepest_first(path + b"/" + name if path else name)
        if self.mtime_ns is not None:
            yield path, self.mtime_ns


class _Writer:
    def __init__(self, stream: Stream, root_fd: int, layered: bool) -> None:
        self.result = Unpacked()
        self._stream = stream
        self._root = Rooted(root_fd)
        self._layered = layered
        self._times = _Times()
        self._hidden: set[bytes] = (
            set()
        )  # resolved paths of directories in which nothing of the layers below is left
        self._made = self._root.made  # resolved paths of this layer's own entries: an opaque mark spares them

    def close(self) -> None:
        self._root.close()

    def write(self, entry: Entry) -> None:
        self.result.count += 1
        if self.result.count + self._root.unlisted > MAX_ENTRIES:
            raise Refused(f"more than {MAX_ENTRIES} entries")
        parts = self._parts(entry.name)
        if not parts:
            if entry.kind != "directory":
                raise Refused("the root may only be a directory")
            self._times.note([], entry.mtime_ns)
            self.result.skipped += nodes.set_attributes(entry, self._root.fd)
            return
        base = parts[-1]
        if base.startswith(_WHITEOUT):
            self._whiteout(parts)
            return
        parent_fd = self._directory(parts[:-1])
        self._make(entry, parent_fd, parts)
        if self._layered:
            self._made.add(real_path(parent_fd) + b"/" + base)

    def finish(self) -> None:
        """Set the times of the directories, deepest first."""
        for path, mtime_ns in self._times.deepest_first():
            try:
                fd = self._root.open(path or b".", os.O_RDONLY | os.O_DIRECTORY)
            except NotADirectoryError:  # replaced by a later entry, under another of its names
                continue
            if fd >= 0:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
                os.close(fd)

    # ── names ──────────────────────────────────────────────────────────────────────────────────────

    def _parts(self, name: bytes) -> list[bytes]:
        """The components of a name; a leading slash means the root, as it does for every tar."""
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise Refused("a name with '..'")
        if b"\0" in name or len(parts) > MAX_DEPTH or len(name) > MAX_PATH_BYTES:
            raise Refused(f"a name with a NUL, of more than {MAX_PATH_BYTES} bytes or {MAX_DEPTH} levels")
        if any(len(part) > MAX_NAME_BYTES for part in parts):
            raise Refused(f"a name of more than {MAX_NAME_BYTES} bytes")
        return parts

    def _directory(self, parts: list[bytes], create: bool = True) -> int:
        try:
            return self._root.directory(parts, create)
        except DanglingLink as link:
            raise Refused(f"its parent {show(link.path)} is a link to nowhere") from None
        except TooDeep:
            raise Refused(
                f"it would be deeper than {MAX_DEPTH} directories or {MAX_PLACE_BYTES} bytes"
            ) from None

    # ── one entry ──────────────────────────────────────────────────────────────────────────────────

    def _make(self, entry: Entry, parent_fd: int, parts: list[bytes]) -> None:
        """Make what the entry describes; what is there already is replaced, but directories are merged."""
        base = parts[-1]
        try:
            self._make_new(entry, parent_fd, base)
        except FileExistsError:
            there = os.stat(base, dir_fd=parent_fd, follow_symlinks=False)
            if entry.kind == "directory" and stat.S_ISDIR(there.st_mode):
                self._open_and_set(entry, parent_fd, base)
            else:
                layers.remove_tree(base, parent_fd)
                if stat.S_ISDIR(there.st_mode):
                    self._times.forget(parts)
                self._root.forget()
                self._make_new(entry, parent_fd, base)
        if entry.kind == "directory":
            self._times.note(parts, entry.mtime_ns)

    def _make_new(self, entry: Entry, parent_fd: int, base: bytes) -> None:
        if entry.kind == "file":
            fd = os.open(base, _CREATE, 0o600, dir_fd=parent_fd)
            try:
                self._copy(entry, fd)
                self.result.skipped += nodes.set_attributes(entry, fd)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(fd)
        elif entry.kind == "directory":
            os.mkdir(base, 0o700, dir_fd=parent_fd)
            self._open_and_set(entry, parent_fd, base)
        elif entry.kind == "link":
            self._hard_link(entry, parent_fd, base)
        else:
            self.result.skipped += not nodes.make_special(entry, parent_fd, base)

    def _open_and_set(self, entry: Entry, parent_fd: int, base: bytes) -> None:
        fd = os.open(base, _READ_DIR, dir_fd=parent_fd)
        try:
            self.result.skipped += nodes.set_attributes(entry, fd)
        finally:
            os.close(fd)

    def _copy(self, entry: Entry, fd: int) -> None:
        """Write a file's data; of a sparse one the pieces, each to its place, and no bytes for the holes."""
        for offset, size_bytes in [(0, entry.size_bytes)] if entry.pieces is None else entry.pieces:
            if offset:
                os.lseek(fd, offset, os.SEEK_SET)
            left = size_bytes
            while left:
                data = self._stream.read(min(left, CHUNK_BYTES))
                if not data:
                    raise ImageError(f"{self._stream.what} is truncated")
                left -= len(data)
                while data:
                    data = data[os.write(fd, data) :]
        if entry.pieces is not None:
            os.ftruncate(fd, entry.whole_bytes)
        self.result.size_bytes += entry.size_bytes

    def _hard_link(self, entry: Entry, parent_fd: int, base: bytes) -> None:
        parts = self._parts(entry.target)
        source_fd = (
            self._root.open(b"/".join(parts[:-1]) or b".", os.O_PATH | os.O_DIRECTORY) if parts else -1
        )
        if source_fd < 0:
            raise Refused(f"a hard link to {show(entry.target)}, which does not exist")
        try:  # a link as the target is linked itself, not followed
            os.link(parts[-1], base, src_dir_fd=source_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            raise Refused(f"a hard link to {show(entry.target)}, which does not exist") from None
        finally:
            os.close(source_fd)

    # ── whiteouts ──────────────────────────────────────────────────────────────────────────────────

    def _whiteout(self, parts: list[bytes]) -> None:
        base = parts[-1]
        hidden = base[len(_WHITEOUT) :]
        if base != _OPAQUE and (base.startswith(_META) and base != _META):
            return
        if hidden in (b"", b".", b"..") or base == _META:
            raise Refused("a whiteout without a name")
        parent_fd = self._directory(parts[:-1], create=False)
        if parent_fd < 0:
            return
        if base != _OPAQUE:
            layers.remove_tree(hidden, parent_fd)
        elif self._layered:
            self._hide_lower(parent_fd)
        self._root.forget()

    def _hide_lower(self, directory_fd: int) -> None:
        """Remove from a directory what this layer did not put there. It does not come back: once is enough."""
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory_fd)
        try:
            here = real_path(fd)
            if here in self._hidden:
                return
            self._hidden.add(here)
            for name in map(os.fsencode, os.listdir(fd)):
                if here + b"/" + name not in self._made:
                    layers.remove_tree(name, fd)
                elif stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                    below = os.open(name, _READ_DIR, dir_fd=fd)
                    try:
                        self._hide_lower(below)
                    finally:
                        os.close(below)
        finally:
            os.close(fd)
