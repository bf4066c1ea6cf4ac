"""Every exception pyrun raises on purpose, and how it reaches the user.

    PyrunError                  one line for the user, perhaps a hint; exit status 125 as `docker run`
    ├── UsageError              an option or a value is wrong
    ├── NotFound                no such image, container or network
    ├── Conflict                a name is taken, a container is running
    ├── ImageError              digest, platform, hostile or broken archive
    │   └── RegistryError       the registry's answer: status, unreachable, nonsense
    ├── NetworkError            bridge, address, firewall
    ├── StageFailed             (stage, action, errno): what the kernel refused, and in which step
    ├── CgroupRemoved           another program took a cgroup away between its making and init's joining it
    ├── EndedSilently           init is gone and did not say why
    └── CommandError            126 the command cannot be executed, 127 it does not exist

What ends a command below `cli` on purpose is one of these. Two others are for a caller that knows what they mean, and
makes one of these of them: `OSError` with the kernel's errno, from linux.py and from what asks the kernel by itself
(launching, network/messages, store/layers ...), and `ValueError` from what reads a text. A few modules have an error
of their own for the same purpose (store/nodes.py's `Refused`). cli/main.py says of any that gets through that it may be
a bug, but for an `OSError`, of which it says what the kernel said.
Messages are lower case without a full stop and name the field and the value; the hint names the remedy.
"""

from __future__ import annotations

import errno
import posix


class PyrunError(Exception):
    """What went wrong, in one line.

    message: the line after `pyrun: `; hint: what to do about it, may be empty; status: the exit status.
    """

    status = 125
    remedy = ""  # the hint where none is given

    def __init__(self, message: str, hint: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.remedy
        if status:
            self.status = status


class UsageError(PyrunError):
    """A wrong option, argument or value, found before anything was done."""


class NotFound(PyrunError):
    """No such image, container, network or user."""


class Conflict(PyrunError):
    """The name is in use, or the object is in a state that forbids the action."""


class ImageError(PyrunError):
    """An image that cannot be trusted or used: digest, platform, archive entries, limits."""

    remedy = "nothing of it was kept; get another copy, or tell its author"


class RegistryError(ImageError):
    """A registry that cannot be reached, refuses, or answers nonsense."""

    remedy = "check the spelling of the name, and the way to the registry; or try again later"


class NetworkError(PyrunError):
    """A bridge, address or firewall rule that cannot be had."""


class CommandError(PyrunError):
    """The container's command cannot be started: status 126 (found, not executable) or 127 (not found)."""


class StageFailed(PyrunError):
    """A step the kernel refused.

    stage: a file name in stages/; action: verb phrase of the operation; number: errno.
    """

    def __init__(self, stage: str, action: str, number: int | None) -> None:
        number = number or errno.EIO
        super().__init__(f"{stage}: cannot {action}: {posix.strerror(number)}", hint_for(stage, number))
        self.stage = stage
        self.number = number


class CgroupRemoved(PyrunError):
    """A directory of the container's cgroup is gone before init joined it. The start is undone; it may be repeated."""

    remedy = "what tidies empty cgroups away here: a release agent, cgroup-tools, a script? It has to leave new ones"


class EndedSilently(PyrunError):
    """init ended without a report: it was killed."""


# What an errno means where the plain text misleads. Keyed by (stage, errno); "" is any stage.
_HINTS: dict[tuple[str, int], str] = {
    ("", errno.EPERM): "run as root; inside another container, that container needs CAP_SYS_ADMIN",
    ("namespaces", errno.ENOSPC): "the limit in /proc/sys/user/max_*_namespaces is reached",
    ("namespaces", errno.EINVAL): "this kernel lacks one of the namespaces asked for; see `pyrun info`",
    ("namespaces", errno.ENOSYS): "this kernel lacks clone3 (Linux 5.12 or newer is needed)",
    ("rootfs", errno.ENOSYS): "this kernel lacks mount_setattr (Linux 5.12 or newer is needed)",
    ("rootfs", errno.ENOSPC): "the disk is full, or /proc/sys/fs/mount-max is reached",
    (
        "rootfs",
        errno.EINVAL,
    ): "a mount option is unknown to this kernel, or the root is not a directory tree it can mount",
    ("rootfs", errno.ELOOP): "a path of the image is a chain of symbolic links",
    (
        "rootfs",
        errno.ENOENT,
    ): "what is mounted has to be there; an image that lost a layer has to be pulled again",
    (
        "rootfs",
        errno.ENODEV,
    ): "/proc/filesystems has the file systems this kernel has loaded",
    ("rootfs", errno.EXDEV): "a path of the image leads through a /proc link",
    ("cgroup", errno.ENOENT): "the controller is not available here; see `pyrun info`",
    ("cgroup", errno.EBUSY): "processes are left in the cgroup; `pyrun system reconcile` removes them",
    ("network", errno.EXFULL): "a bridge holds at most 1023 ports; use another network",
    (
        "network",
        errno.EEXIST,
    ): "a link or address of that name exists; `pyrun system reconcile` removes leftovers",
    ("network", errno.EOPNOTSUPP): "this kernel lacks veth or bridge support",
    ("rootfs", errno.EPERM): "mounts need CAP_SYS_ADMIN, device nodes CAP_MKNOD; see `pyrun info`",
    ("process", errno.ENOENT): "name a directory that the container has",
    ("process", errno.EPERM): "raising a limit needs CAP_SYS_RESOURCE; see `pyrun info`",
    ("security", errno.EPERM): "a capability asked for is not held by pyrun itself; see `pyrun info`",
}


def hint_for(stage: str, number: int) -> str:
    """The remedy for an errno in a stage, or the one for any stage, or nothing."""
    return _HINTS.get((stage, number)) or _HINTS.get(("", number), "")
