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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
        remove_tree(self.path)
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
    held, after a `sweep`."""
    base = f"{paths.root()}/layers"
    return os.path.isdir(base) and any(name.startswith(".new-") for name in os.listdir(base))


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
    """Move a layer's or image's directory out of sight at once; returns the place to `remove_tree` afterwards."""
    gone = f"{paths.root()}/layers/.old-{secrets.token_hex(8)}"
    os.rename(path, gone)
    return gone


def sweep() -> list[str]:
    """Remove the staging areas of installations that died; returns the paths removed."""
    base = f"{paths.root()}/layers"
    removed = []
    try:
        names = sorted(name for name in os.listdir(base) if name.startswith((".new-", ".old-")))
    except (FileNotFoundError, PermissionError):
        return []
    for name in names:
        try:
            fd = os.open(f"{base}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except NotADirectoryError:  # a file on its way out, which needs nobody to work in it
            remove_tree(f"{base}/{name}")
            removed.append(f"{base}/{name}")
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(f"{base}/{name}")
            removed.append(f"{base}/{name}")
        except BlockingIOError:  # somebody is working in it
            pass
        finally:
            os.close(fd)
    return removed


def remove_tree(path: str | bytes, dir_fd: int | None = None) -> None:
    """Remove a file or a directory with everything below it; a missing one is fine.

    Never follows a link: every step is relative to a descriptor of the directory it is in. Raises OSError.
    """
    try:
        os.unlink(path, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # unlink of a directory: EISDIR on Linux, EPERM by POSIX
        pass
    try:
        _empty(path, dir_fd)
        os.rmdir(path, dir_fd=dir_fd)
    except FileNotFoundError:
        return


def _empty(path: str | bytes, dir_fd: int | None) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, dir_fd=dir_fd)
    except PermissionError:  # a directory of mode 0000, and we are not the real root
        os.chmod(path, 0o700, dir_fd=dir_fd)
        fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        if found and os.fstat(fd).st_mode & 0o300 != 0o300:
            os.fchmod(fd, 0o700)
        for name, is_directory in found:
            if is_directory:
                _empty(name, fd)
                os.rmdir(name, dir_fd=fd)
            else:
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)
