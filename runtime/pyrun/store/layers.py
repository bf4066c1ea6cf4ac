"""Layer directories on disk: their names, the staging area they grow in, their removal.

    root/layers/<chain id>/      a finished layer, read-only from then on
    root/layers/.new-<random>/   one installation's staging area, locked (flock) while its process lives:
        <n>/ <n>.work/               layer n and the work directory of the overlay it is unpacked through
        blob-<n>                     a downloaded blob
    root/layers/.old-<random>/   on its way out

A layer's name is its chain id (image-spec config.md#layer-chainid), which covers the layers below it as well
as its own content: for a lowest layer it equals the diff id. The diff id alone would not do, since where an
entry `lib/x` lands depends on whether a layer below made `lib` a link (see unpack.py). Nothing is visible
under a final name before it is complete; a killed installation leaves only `.new-*`, which `sweep` removes.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pyrun import linux, notice
from pyrun.errors import ImageError
from pyrun.store import paths


def directory(chain_id: str) -> str:
    """The absolute directory of the layer with that chain id (64 hex digits)."""
    return f"{paths.root()}/layers/{chain_id}"


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Chain ids (hex, without `sha256:`) of the layers with those diff ids (`sha256:...`), bottom to top."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if chain:
            text = f"sha256:{chain[-1]} {diff_id}"
            chain.append(hashlib.sha256(text.encode()).hexdigest())
        else:
            chain.append(diff_id.removeprefix("sha256:"))
    return chain


class Staging:
    """A private directory below root/layers that disappears with everything in it unless it is renamed away.

    Use as a context manager. The lock on it lasts as long as the process: `sweep` leaves it alone.
    """

    def __init__(self) -> None:
        try:
            paths.make(f"{paths.root()}/layers")
            with store_lock():  # whoever takes away what nobody needs sees us, or is done before we look
                self._make()
        except OSError as error:
            raise ImageError(
                f"nothing can be written below {paths.root()}: {error.strerror}",
                "run as root, or set PYRUN_ROOT",
            ) from None

    def _make(self) -> None:
        while True:
            self.path = f"{paths.root()}/layers/.new-{secrets.token_hex(8)}"
            os.mkdir(self.path, 0o700)
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:  # a sweep came between
                continue
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            if os.path.exists(self.path):
                return
            os.close(self._fd)

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        remove_or_tell(self.path)
        os.close(self._fd)

    def sync(self) -> None:
        """Wait until everything written below is on the disk: a layer must not survive a power cut half."""
        if ctypes.CDLL(None, use_errno=True).syncfs(self._fd):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), self.path)


@contextmanager
def store_lock() -> Iterator[None]:
    """Held for the moments in which images and layers appear or disappear together, never while working."""
    base = f"{paths.root()}/images"
    paths.make(base)
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def in_use() -> bool:
    """Whether an installation is under way, which may count on layers that no image has yet. Ask with the store's lock
    held."""
    locks = [_lock(path) for path in _unfinished(".new-")]
    for fd in locks:
        if fd is not None and fd >= 0:
            os.close(fd)
    return None in locks


def size_bytes(path: str) -> int:
    """The bytes of all files of a layer, each once, as unpacking it would count them."""
    found: dict[tuple[int, int], int] = {}
    waiting = [path]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.path)
                elif stat.S_ISREG(status.st_mode):
                    found[status.st_dev, status.st_ino] = status.st_size
    return sum(found.values())


def discard(path: str) -> str:
    """Move a layer's or image's directory out of sight at once; returns the place to remove it from afterwards."""
    paths.make(f"{paths.root()}/layers")
    gone = f"{paths.root()}/layers/.old-{secrets.token_hex(8)}"
    os.rename(path, gone)
    return gone


def sweep(tell: Callable[[str], None] = notice.say) -> list[str]:
    """Remove the staging areas of installations that died; returns the paths removed. What cannot be removed is told, a
    sentence each, and stops nothing: the next sweep tries again."""
    removed = []
    for path in _unfinished(".new-", ".old-"):
        fd = _lock(path)
        if fd is None:
            continue
        if remove_or_tell(path, tell):
            removed.append(path)
        if fd >= 0:
            os.close(fd)
    return removed


def _unfinished(*beginnings: str) -> list[str]:
    base = f"{paths.root()}/layers"
    try:
        return sorted(f"{base}/{name}" for name in os.listdir(base) if name.startswith(beginnings))
    except (FileNotFoundError, PermissionError):
        return []


def _lock(path: str) -> int | None:
    """A descriptor with the lock of a staging area whose process has died; -1 for a file, which nobody works in; None
    if somebody works in it, or has taken it away."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def remove_or_tell(path: str, tell: Callable[[str], None] = notice.say) -> bool:
    """Remove a file or a tree; whether it is gone. One that stays is told of: it must not stop what comes after it."""
    try:
        remove_tree(path)
        return True
    except OSError as error:
        tell(f"{path} cannot be removed: {error.strerror}; `pyrun system reconcile` tries again")
        return False


def remove_tree(path: str | bytes, dir_fd: int | None = None) -> None:
    """Remove a file or a directory with everything below it, however deep; a missing one is fine.

    Never follows a link. Raises OSError.
    """
    try:
        os.unlink(path, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # unlink of a directory: EISDIR on Linux, EPERM by POSIX
        linux.remove_tree(linux.AT_FDCWD if dir_fd is None else dir_fd, os.fsdecode(path))
