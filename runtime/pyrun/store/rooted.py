"""Paths below one directory that can not lead out of it: openat2 with RESOLVE_IN_ROOT and nothing else.

Links, absolute or with `..`, resolve as they would after chroot; links of /proc are refused. Used to write
what an archive says (unpack.py), whose names and links are anybody's.
"""

from __future__ import annotations

import errno
import os

from pyrun import linux

# nothing is mounted below the root of an unpacking; what is all the same is no part of it
_IN_ROOT = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS | linux.RESOLVE_NO_XDEV
MAX_DEPTH = 256
MAX_PLACE_BYTES = 3600  # a name in it, below any store, must still be a path for one system call (PATH_MAX)
_RETRIES = 64  # openat2 says EAGAIN when a rename elsewhere races with a `..` in a link


class DanglingLink(Exception):
    """A parent directory is a link to nowhere. path: its name."""

    def __init__(self, path: bytes) -> None:
        super().__init__(path)
        self.path = path


class TooDeep(Exception):
    """A directory lies deeper than MAX_DEPTH or MAX_PLACE_BYTES below the root."""


class Rooted:
    """The directory *fd* as a root; *fd* stays the caller's."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.made: set[bytes] = set()  # real paths of the parents made by `directory`
        self.unlisted = 0  # how many those are
        self._top = real_path(fd)
        self._last_path: bytes | None = None  # the directory used last: archives are sorted
        self._last_fd = -1

    def open(self, path: bytes, flags: int) -> int:
        """Open *path*; -1 if it does not exist. Raises OSError."""
        text = path.decode("utf-8", "surrogateescape")
        for attempt in range(_RETRIES):
            try:
                return linux.openat2(self.fd, text, flags | os.O_CLOEXEC, 0, _IN_ROOT)
            except FileNotFoundError:
                return -1
            except BlockingIOError:
                if attempt == _RETRIES - 1:
                    raise
        return -1

    def directory(self, parts: list[bytes], create: bool = True) -> int:
        """A descriptor (O_PATH) of the directory; it is this object's and holds until the next call.

        Missing directories are made as root's with mode 0755; without *create*, -1 says that one is missing.
        Raises OSError, DanglingLink, TooDeep.
        """
        path = b"/".join(parts) or b"."
        if self._last_path == path:
            return self._last_fd
        fd = self.open(path, linux.O_PATH | os.O_DIRECTORY)
        if fd < 0 and create:
            fd = self._make_parents(parts)
        if fd >= 0:
            self.close()
            self._last_path, self._last_fd = path, fd
            self._check_depth(fd)
        return fd

    def _check_depth(self, fd: int) -> None:
        """By where it is: through links, short names lead to any depth."""
        try:
            below = real_path(fd)[len(self._top) :]
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # longer than a page
                raise TooDeep from None
            raise
        if below.count(b"/") > MAX_DEPTH or len(below) > MAX_PLACE_BYTES:
            raise TooDeep

    def forget(self) -> None:
        """Something was removed: what was opened before may no longer be what its path says."""
        self._last_path = None

    def close(self) -> None:
        """Let go of the kept descriptor."""
        if self._last_fd >= 0:
            os.close(self._last_fd)
        self._last_path, self._last_fd = None, -1

    def _make_parents(self, parts: list[bytes]) -> int:
        fd = os.dup(self.fd)
        for depth, part in enumerate(parts, 1):
            path = b"/".join(parts[:depth])
            below = -1
            try:
                below = self.open(path, linux.O_PATH | os.O_DIRECTORY)
                if below < 0:
                    self._check_depth(fd)
                    os.mkdir(part, 0o755, dir_fd=fd)
                    os.chmod(part, 0o755, dir_fd=fd)  # whatever the umask is
                    self.made.add(real_path(fd) + b"/" + part)
                    self.unlisted += 1
                    below = os.open(
                        part, linux.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd
                    )
            except FileExistsError:
                raise DanglingLink(path) from None
            finally:
                os.close(fd)
            fd = below
        return fd


def real_path(fd: int) -> bytes:
    """Where the kernel says the descriptor's file is: the same for every link that led there."""
    return os.readlink(f"/proc/self/fd/{fd}".encode())
