"""How the static binary is executed so that no container can write to it (CVE-2019-5736).

Whoever touches a process of ours can open its binary through /proc/PID/exe, and once that is no longer running, write
to it with whatever rights it has. Three ways, the first that works:

    mount    a detached read-only mount of the file, which exists nowhere else: with CAP_SYS_ADMIN, the host's or that
             of a user namespace which owns the mount namespace
    plain    the file itself, where it is root's and nobody else may write to it, and we are not root: a container of
             ours is neither
    memory   a copy in memory that its seals keep from ever changing: 0.2 ms and 150 kB a container

Source: man 2 open_tree, mount_setattr, memfd_create, fcntl (F_ADD_SEALS). Not here: the interpreter's, in
csrc/launcher.c, by the same rules.
"""

from __future__ import annotations

import fcntl
import posix

from . import boot, linux
from .errors import PyrunError

_ATTRIBUTES = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV
_MFD_EXEC = 16  # which Python does not know yet
_F_ADD_SEALS = 1033
_SEALS = 1 | 2 | 4 | 8  # F_SEAL_SEAL, SHRINK, GROW, WRITE

# How it was done last, for --debug and `info`.
used = ""


def seal() -> int:
    """A descriptor of the binary to execute. Whatever the caller left open goes neither to init nor to the monitor
    (CVE-2024-21626), unless it is passed by name. Raises PyrunError."""
    linux.close_range(3, (1 << 32) - 1, linux.CLOSE_RANGE_CLOEXEC)
    return descriptor(boot.binary())


def descriptor(path: str) -> int:
    """A descriptor of *path* by the first way that works; notes it in `used`. Raises PyrunError."""
    global used
    try:
        try:
            fd, used = _mount(path), "mount"
        except PermissionError:
            if _is_roots(path):
                fd, used = posix.open(path, linux.O_PATH | posix.O_CLOEXEC), "plain"
            else:
                fd, used = _memory(path), "memory"
    except OSError as error:
        raise PyrunError(
            f"cannot open {path}: {error.strerror}", "install pyrun again: make install"
        ) from None
    return fd


def _mount(path: str) -> int:
    fd = linux.open_tree(linux.AT_FDCWD, path, linux.OPEN_TREE_CLONE)
    try:
        linux.mount_setattr(fd, "", linux.AT_EMPTY_PATH, _ATTRIBUTES)
    except OSError:
        posix.close(fd)
        raise
    return fd


def _is_roots(path: str) -> bool:
    """Whether only the host's root can write to it, and we are somebody else."""
    if posix.geteuid() == 0:
        return False
    status = posix.stat(path)
    return status.st_uid == 0 and not status.st_mode & 0o022 and not posix.access(path, posix.W_OK)


def _memory(path: str) -> int:
    flags = posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING
    try:
        fd = posix.memfd_create("pyrun", flags | _MFD_EXEC)
    except OSError:  # before Linux 6.3 all of them may be executed
        fd = posix.memfd_create("pyrun", flags)
    source_fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        while posix.sendfile(fd, source_fd, None, 1 << 24):
            pass
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
    except OSError:
        posix.close(fd)
        raise
    finally:
        posix.close(source_fd)
    return fd
