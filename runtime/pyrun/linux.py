"""System calls that Python lacks, 1:1: named as in section 2 of the manual, same order of arguments.

What is here: thin wrappers over the cffi shim (csrc/shim.c), which turn -errno into `OSError`. What is not:
anything that decides, opens or closes on the caller's behalf. Descriptors returned are close-on-exec and
belong to the caller.
"""

from __future__ import annotations

import posix
import sys

from . import boot

try:
    if "_cffi_backend" not in sys.modules:
        boot.extension("_cffi_backend", boot.SITE_DIR)
    _shim = boot.extension("pyrun._shim", boot.PACKAGE_DIR)
except ImportError:  # a layout we do not know (a distribution's package): the import system finds them
    boot.site_packages()
    from pyrun import _shim  # type: ignore[attr-defined, no-redef]

lib = _shim.lib  # type: ignore[attr-defined]
ffi = _shim.ffi  # type: ignore[attr-defined]

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

O_PATH = 0x200000

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

OPEN_TREE_CLONE = 1

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_IDMAP = 0x100000

MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

CLOSE_RANGE_CLOEXEC = 4
MADV_POPULATE_WRITE = 23
SIGKILL = 9  # `signal` is a megabyte of Python for one number
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4


def _check(result: int, path: str | None = None) -> int:
    if result < 0:
        raise OSError(-result, posix.strerror(-result), path)
    return result


def _c(text: str | None) -> object:
    return ffi.NULL if text is None else text.encode("utf-8", "surrogateescape")


def clone_exec(
    flags: int,
    cgroup_fd: int,
    exe_fd: int,
    name: str,
    keep: list[tuple[int, int]],
    inside: list[int] | None = None,
) -> tuple[int, int]:
    """Start the program behind *exe_fd* in new namespaces: (pid, pidfd).

    keep: (our descriptor, the number it has in the child); all others must be close-on-exec.
    cgroup_fd: a cgroup v2 directory to be born in, or -1. inside: namespaces to be born in, entered in this order; the
    new ones belong to the user namespace among them. Source: man 2 clone3 (CLONE_INTO_CGROUP, CLONE_PIDFD), man 7
    user_namespaces.
    """
    pairs = ffi.new("int[]", [number for pair in keep for number in pair] + [-1, -1])
    pidfd = ffi.new("int *")
    entered = ffi.new("int[]", [*(inside or ()), -1])
    pid = lib.shim_clone_exec(flags, cgroup_fd, exe_fd, name.encode(), pairs, entered, pidfd)
    return _check(pid), pidfd[0]


def setns(fd: int, nstype: int = 0) -> None:
    """Join the namespace of *fd*, or those in *nstype* of the process of a pidfd."""
    _check(lib.shim_setns(fd, nstype))


def unshare(flags: int) -> None:
    """New namespaces for this process."""
    _check(lib.shim_unshare(flags))


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Signal exactly that process, never a later one of the same pid. Raises OSError (ESRCH)."""
    _check(lib.shim_pidfd_send_signal(pidfd, signal))


def pidfd_getfd(pidfd: int, target_fd: int) -> int:
    """A copy of another process's descriptor. Raises OSError (EBADF: it has none of that number; ESRCH: gone)."""
    return _check(lib.shim_pidfd_getfd(pidfd, target_fd))


def openat2(dir_fd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open *path* below *dir_fd* under the rules of *resolve* (RESOLVE_IN_ROOT ...)."""
    return _check(lib.shim_openat2(dir_fd, _c(path), flags, mode, resolve), path)


def open_tree(dir_fd: int, path: str, flags: int) -> int:
    """A descriptor of a mount, or with OPEN_TREE_CLONE of a detached copy of it."""
    return _check(lib.shim_open_tree(dir_fd, _c(path), flags), path)


def mount_setattr(
    dir_fd: int, path: str, flags: int, set_: int, clear: int = 0, propagation: int = 0, userns_fd: int = 0
) -> None:
    """Change attributes or the propagation of a mount (with AT_RECURSIVE of a tree)."""
    _check(lib.shim_mount_setattr(dir_fd, _c(path), flags, set_, clear, propagation, userns_fd), path)


def user_namespace(uid_map: str, gid_map: str) -> int:
    """A descriptor of a new user namespace with these maps and nobody in it. Source: man 7 user_namespaces."""
    return _check(lib.shim_user_namespace(_c(uid_map), _c(gid_map)))


def mount(source: str, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """The old mount call: bind mounts on host paths of our own."""
    _check(lib.shim_mount(_c(source), _c(target), _c(fstype), flags, _c(data)), target)


def umount2(target: str, flags: int) -> None:
    """Unmount. Raises OSError (EINVAL: not a mount point)."""
    _check(lib.shim_umount2(_c(target), flags), target)


def close_range(first: int, last: int, flags: int) -> None:
    """Close descriptors, or with CLOSE_RANGE_CLOEXEC mark them."""
    _check(lib.shim_close_range(first, last, flags))


def madvise(address: int, length: int, advice: int) -> None:
    """What to do with a range of our memory. Raises OSError (EINVAL: an advice this kernel does not know)."""
    _check(lib.shim_madvise(address, length, advice))


def execveat(fd: int, arguments: list[str], environment: list[str]) -> None:
    """Replace this process by the program behind *fd*; returns only by raising OSError."""
    argv = [ffi.new("char[]", item.encode("utf-8", "surrogateescape")) for item in arguments]
    envp = [ffi.new("char[]", item.encode("utf-8", "surrogateescape")) for item in environment]
    _check(
        lib.shim_execveat(fd, ffi.new("char *[]", [*argv, ffi.NULL]), ffi.new("char *[]", [*envp, ffi.NULL]))
    )


def prctl(option: int, first: int = 0, second: int = 0, third: int = 0, fourth: int = 0) -> int:
    """Operations on the calling process that the hot path needs; the rest is python-prctl's, in host.py."""
    return _check(lib.shim_prctl(option, first, second, third, fourth))


def bpf(command: int, attributes: bytes) -> int:
    """The bpf call with its attribute union as bytes, see device_rules.py and cgroups/devices.py."""
    buffer = ffi.new("char[]", attributes)
    return _check(lib.shim_bpf(command, buffer, len(attributes)))


def packet_pair() -> tuple[int, int]:
    """Both ends of a SOCK_SEQPACKET connection: without the module _socket, whose names take 0.15 ms to make."""
    fds = ffi.new("int[2]")
    _check(lib.shim_packet_pair(fds))
    return fds[0], fds[1]


def receive(fd: int, size: int) -> tuple[bytes, int]:
    """(the next packet, the descriptor that came with it or -1); no bytes at the end. Raises OSError."""
    buffer, passed = ffi.new("char[]", size), ffi.new("int *")
    length = _check(lib.shim_receive(fd, buffer, size, passed))
    return ffi.buffer(buffer, length)[:], passed[0]


def mount_id(dir_fd: int, path: str) -> int:
    """The id of the mount *path* is on, or with "" of *dir_fd* itself: two places on one mount share it.
    Source: man 2 statx (STATX_MNT_ID)."""
    identifier = ffi.new("uint64_t *")
    _check(lib.shim_name_to_mount(dir_fd, _c(path), identifier), path)
    return int(identifier[0])


def fstatfs(fd: int) -> int:
    """The type of the file system *fd* is on, as in linux/magic.h. Source: man 2 fstatfs."""
    return _check(lib.shim_fstatfs(fd))


def remove_tree(dir_fd: int, path: str) -> None:
    """Remove the directory *path* below *dir_fd* with everything in it, however deep, links not followed; one that is
    missing is fine. Raises OSError: the first failure, after everything else is gone. Source: csrc/remove.c."""
    _check(lib.shim_remove_tree(dir_fd, _c(path)), path)
