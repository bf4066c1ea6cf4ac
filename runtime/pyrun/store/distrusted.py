"""Files that others wrote: a container, an image, whoever packed an archive. The one way to open and read them.

A name of theirs may lead to anything: a FIFO, a device, a file of procfs that blocks its reader or that is empty after
it was read (/proc/kmsg), gigabytes. So the place is looked up first, with O_PATH, which opens nothing; what is there is
judged; then it is opened by its descriptor, without waiting (for a FIFO's writer, for whoever holds a lease), and read
up to a limit. Source: man 2 openat2, man 2 open (O_PATH, O_NONBLOCK), man 2 F_SETLEASE.
"""

from __future__ import annotations

import posix
from errno import EINVAL, EISDIR

from pyrun import linux

# Below a root that no link leads out of, and none of procfs's into what a descriptor stands for.
IN_ROOT = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
_RETRIES = 1000

# File systems whose files are the kernel speaking, by linux/magic.h and the kernel's sources.
_KERNELS = frozenset((
    0x9FA0,  # proc
    0x62656572,  # sysfs
    0x0027E0EB, 0x63677270,  # cgroup, cgroup2
    0x07655821,  # resctrl
    0x64626720, 0x74726163,  # debugfs, tracefs
    0x73636673, 0xF97CFF8C, 0x43415D53, 0x5A3C69F0,  # securityfs, selinuxfs, smackfs, apparmorfs
    0x62656570, 0xCAFE4A11, 0x42494E4D,  # configfs, bpf, binfmt_misc
    0x6165676C, 0xDE5E81E4,  # pstore, efivarfs
    0x1CD1, 0x19800202, 0x0187,  # devpts, mqueue, autofs
    0x6E736673, 0x50494446,  # nsfs, pidfs
    0x65735543, 0x6E667364, 0x67596969, 0xABBA1974,  # fusectl, nfsd, rpc_pipefs, xenfs
    0x6C6F6F70, 0x9FA1, 0x9FA2,  # binderfs, openpromfs, usbdevfs
))  # fmt: skip


def place(path: str, dir_fd: int = linux.AT_FDCWD, resolve: int = 0) -> int:
    """A descriptor (O_PATH) of what is at *path*, whatever it is. Raises OSError."""
    for _ in range(_RETRIES):
        try:
            return linux.openat2(dir_fd, path, linux.O_PATH, 0, resolve)
        except (
            BlockingIOError
        ):  # EAGAIN: a rename anywhere on this machine, while a `..` of a link was walked
            continue
    return linux.openat2(dir_fd, path, linux.O_PATH, 0, resolve)


def opened(place_fd: int) -> int:
    """A descriptor to read the file at *place_fd*. Raises OSError; EINVAL, in these words, for what is no file."""
    kind = posix.fstat(place_fd).st_mode & 0o170000
    if kind == 0o040000:
        raise OSError(EISDIR, posix.strerror(EISDIR))
    if kind != 0o100000:
        raise OSError(EINVAL, "not a regular file")
    if linux.fstatfs(place_fd) in _KERNELS:
        raise OSError(EINVAL, "a file of the kernel")
    flags = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC
    return posix.open(f"/proc/self/fd/{place_fd}", flags)


def open_file(path: str, dir_fd: int = linux.AT_FDCWD, resolve: int = 0) -> int:
    """A descriptor to read the file at *path*. Raises OSError as `opened`."""
    place_fd = place(path, dir_fd, resolve)
    try:
        return opened(place_fd)
    finally:
        posix.close(place_fd)


def content(fd: int, limit_bytes: int) -> bytes:
    """What is in a file, up to *limit_bytes*, and one more if there is more. Closes *fd*. Raises OSError."""
    pieces, left = [], limit_bytes + 1
    try:
        while left and (piece := posix.read(fd, min(left, 1 << 16))):
            pieces.append(piece)
            left -= len(piece)
    finally:
        posix.close(fd)
    return b"".join(pieces)


def read(path: str, limit_bytes: int) -> bytes:
    """The content of the file at *path*, of a longer one limit_bytes + 1. Raises OSError as `opened`."""
    return content(open_file(path), limit_bytes)
