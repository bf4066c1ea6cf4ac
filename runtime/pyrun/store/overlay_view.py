"""Unpacking a layer on top of the layers below it, through the file system that will later show them.

Why a mount: an entry `lib/x` belongs into `usr/lib/x` if a layer below made `lib` a link; a parent directory
that the archive does not list has the mode and owner it has below; a hard link may name a file from below; a
whiteout may name anything. Writing into the bare layer directory gets all of these wrong (an image whose
layers were built apart then loses its shared libraries behind a new, nearly empty `lib`), and looking them up
by hand means overlayfs written again. So the kernel does it: the layers below are mounted with the new
directory as the upper one, and whatever it writes there is what a later mount needs.

The mount lives in a mount namespace of one thread, which nobody else sees and which ends with the thread: no
kill can leave it behind. The lowest layer has nothing below it and is unpacked directly.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from pyrun import boot, linux
from pyrun.errors import ImageError
from pyrun.store.inflate import Stream
from pyrun.store.unpack import Unpacked, unpack

_OPTIONS = "index=off,metacopy=off,volatile"


def unpack_over(
    stream: Stream, directory: str, work: str, lower: Sequence[str], stop: threading.Event | None = None
) -> Unpacked:
    """Unpack *stream* into the empty *directory*, over the layers *lower* (bottom to top).

    work: an empty directory on the same file system. Raises ImageError, Stopped.
    """
    if not lower:
        return _unpack_at(stream, directory, False, stop)
    below = os.stat(lower[-1])  # the root's own attributes, unless the archive says otherwise
    os.chown(directory, below.st_uid, below.st_gid)
    os.chmod(directory, below.st_mode & 0o7777)
    os.utime(directory, ns=(below.st_mtime_ns, below.st_mtime_ns))
    stop = stop or threading.Event()
    return _in_thread(lambda: _mount_and_unpack(stream, directory, work, lower, stop), stop)


def _in_thread(work: Callable[[], Unpacked], stop: threading.Event) -> Unpacked:
    """Run *work* in a thread of its own and wait for it; Ctrl-C sets *stop* and still waits for its end."""
    results: list[Unpacked] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that waits
            failures.append(error)

    thread = threading.Thread(target=body, name="unpack", daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        stop.set()
        thread.join()
        raise
    if failures:
        raise failures[0]
    return results[0]


def _mount_and_unpack(
    stream: Stream, directory: str, work: str, lower: Sequence[str], stop: threading.Event
) -> Unpacked:
    try:
        linux.unshare(linux.CLONE_NEWNS)  # of this thread alone: man 2 unshare
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
        _mount(directory, work, lower)
    except OSError as error:
        raise ImageError(
            f"overlayfs cannot be mounted below {os.path.dirname(directory)}: {error.strerror}",
            "it needs root, and pyrun's root on a local file system such as ext4, xfs or btrfs",
        ) from error
    try:
        return _unpack_at(stream, directory, True, stop)
    finally:
        linux.umount2(directory, 0)


def _mount(directory: str, work: str, lower: Sequence[str]) -> None:
    """Mount the union over its own upper directory. Layers are named by descriptors of this mount namespace, since
    mount options end at 4095 bytes and a layer's path has almost 100.
    """
    if boot.rootless_uid() >= 0:
        from pyrun.store import overlay_kind

        if overlay_kind.kind() == "fuse":
            overlay_kind.mount_fuse(directory, directory, work, list(reversed(lower)))
            return
    fds = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in reversed(lower)]
    try:
        names = ":".join(f"/proc/self/fd/{fd}" for fd in fds)
        options = _OPTIONS if boot.rootless_uid() < 0 else f"{_OPTIONS},userxattr"
        data = f"lowerdir={names},upperdir={directory},workdir={work},{options}"
        linux.mount("overlay", directory, "overlay", 0, data)
    finally:
        for fd in fds:
            os.close(fd)


def _unpack_at(stream: Stream, directory: str, layered: bool, stop: threading.Event | None) -> Unpacked:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return unpack(stream, fd, layered, stop)
    finally:
        os.close(fd)
