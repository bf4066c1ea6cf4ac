"""What the planner opens for init, just before the clone: the descriptors that a plan names by number.

A plan is pure: it only notes what it will need (`plan.operations.descriptor`). init gets what it could not open
itself: in a user namespace the host's directories (`tree`: a detached copy of a mount), a user namespace that maps
owners (`idmap`), namespaces to join (`namespace`), or plain files (`file`, `path`). All of them are close-on-exec and
belong to the caller. Source: man 2 open_tree, mount_setattr (MOUNT_ATTR_IDMAP). Not here: their places in init
(csrc/shim.c).
"""

from __future__ import annotations

import fcntl
import posix
from errno import ENOENT, EPERM

from . import linux
from .errors import StageFailed, UsageError
from .plan.operations import FIRST_PASSED

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.plan.job import Job

# Bits of `how`, as BIND has them (csrc/ops.h).
_TREE, _OWNERS_TREE = 1, 8

NS_GET_USERNS, NS_GET_PARENT, NS_GET_NSTYPE = 0xB701, 0xB702, 0xB703  # man 2 ioctl_nsfs
# What NS_GET_NSTYPE answers.
_TYPES = {
    linux.CLONE_NEWNS: "mount", linux.CLONE_NEWPID: "pid", linux.CLONE_NEWUTS: "uts", linux.CLONE_NEWIPC: "ipc",
    linux.CLONE_NEWNET: "network", linux.CLONE_NEWCGROUP: "cgroup", linux.CLONE_NEWUSER: "user",
    linux.CLONE_NEWTIME: "time",
}  # fmt: skip


def open_all(job: Job) -> list[tuple[int, int]]:
    """(our descriptor, its number in init) for everything in job.descriptors. Raises StageFailed, with nothing left
    open."""
    opened: list[tuple[int, int]] = []
    try:
        for number, (kind, args) in enumerate(job.descriptors, FIRST_PASSED):
            opened.append((KINDS[kind](*args), number))
    except BaseException:
        for fd, _ in opened:
            posix.close(fd)
        raise
    return opened


def _open(flags: int, path: str) -> int:
    try:
        return posix.open(path, flags | posix.O_CLOEXEC)
    except OSError as error:
        raise StageFailed("rootfs", f"open {path}", error.errno) from None


def _path(path: str) -> int:
    """A place, whatever it is."""
    return _open(linux.O_PATH, path)


def _file(path: str) -> int:
    """A file to read."""
    return _open(posix.O_RDONLY, path)


def open_namespace(path: str, kind: str) -> int:
    """A descriptor of the namespace at *path*, and of nothing else: setns also takes a pidfd, which means more than the
    config says. Raises UsageError. Source: man 2 ioctl_nsfs."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"config.json: linux.namespaces: {kind}: {path}: {error.strerror}") from None
    try:
        found = _TYPES.get(fcntl.ioctl(fd, NS_GET_NSTYPE), "unknown")
    except OSError:
        found = ""
    if found == kind:
        return fd
    posix.close(fd)
    what = f"a {found} namespace" if found else "no namespace"
    raise UsageError(f"config.json: linux.namespaces: {kind}: {path} is {what}")


def rules(user: str, path: str, kind: str) -> bool:
    """Whether root of the user namespace at *user* has rights over the namespace at *path*, of this kind: it belongs to
    that user namespace or to one below. Raises UsageError."""
    user_fd = open_namespace(user, "user")
    wanted = posix.fstat(user_fd)
    posix.close(user_fd)
    fd, request = open_namespace(path, kind), NS_GET_USERNS
    try:
        while True:
            above = fcntl.ioctl(fd, request)
            posix.close(fd)
            fd, request = above, NS_GET_PARENT
            owner = posix.fstat(fd)
            if (owner.st_dev, owner.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    except OSError:  # above our own (EPERM)
        return False
    finally:
        posix.close(fd)


def _tree(source: str, how: int, target: str, *owners: str) -> int:
    """A detached copy of what is mounted at *source*. Where there is none, or we may not, init looks itself: the source
    may be a place that an earlier mount of the container's makes. Then an empty file stands in for it."""
    recursive = linux.AT_RECURSIVE if how & _TREE else 0
    try:
        fd = linux.open_tree(linux.AT_FDCWD, source, linux.OPEN_TREE_CLONE | recursive)
    except OSError as error:
        if error.errno in (ENOENT, EPERM) and not owners:
            return posix.memfd_create("pyrun-absent")
        raise StageFailed("rootfs", f"open {source}, which is to be seen at {target}", error.errno) from None
    if owners:
        namespace = _owners(target, *owners)
        flags = linux.AT_EMPTY_PATH | (linux.AT_RECURSIVE if how & _OWNERS_TREE else 0)
        try:
            linux.mount_setattr(fd, "", flags, linux.MOUNT_ATTR_IDMAP, userns_fd=namespace)
        except OSError as error:
            posix.close(fd)
            action = f"map the owners of {source} (idmap), which is to be seen at {target}"
            raise StageFailed("rootfs", action, error.errno) from None
        finally:
            posix.close(namespace)
    return fd


def _owners(target: str, *owners: str) -> int:
    """A user namespace: that of a path, or a new one with these maps, which nobody ever lives in."""
    if len(owners) == 1:
        return open_namespace(owners[0], "user")
    try:
        return linux.user_namespace(*owners)
    except OSError as error:
        wanted = ", ".join([text.strip().replace("\n", ", ") for text in owners])
        raise StageFailed("rootfs", f"map owners for the mount on {target} ({wanted})", error.errno) from None


KINDS: dict[str, Callable[..., int]] = {
    "path": _path,
    "file": _file,
    "namespace": open_namespace,
    "tree": _tree,
    "idmap": _owners,
}
