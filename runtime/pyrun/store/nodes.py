"""One file of an archive's entry: the checks of its numbers, its owner, mode, attributes, device number.

Everything here works on a descriptor, or on a name just made inside a directory descriptor; which directory
that is, unpack.py decides.
"""

from __future__ import annotations

import errno
import os
import stat

from pyrun.errors import ImageError
from pyrun.store.tarfields import show
from pyrun.store.tarstream import Entry

MAX_TARGET_BYTES = 4095
_NOBODY = 0xFFFFFFFF  # as an owner it would mean: leave it as it is


# What helps where a user namespace has no id for somebody.
MORE_IDS = (
    "apt-get install uidmap, give the user ranges in /etc/subuid and /etc/subgid"
    " (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME), then: pkill pyrun-pause"
)


class Refused(Exception):
    """An entry that no honest archive has; the text says why."""


def set_attributes(entry: Entry, fd: int) -> int:
    """Owner, mode, extended attributes, in this order: a new owner clears set-id bits and capabilities.

    Returns how many attributes this machine would not take. Raises OSError, Refused.
    """
    _give(entry, fd)
    os.fchmod(fd, entry.mode)
    skipped = 0
    for name, value in entry.xattrs.items():
        if not keeps_xattr(name):
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
            skipped += 1
    return skipped


def _give(entry: Entry, place: int | bytes, parent_fd: int | None = None) -> None:
    """Set the owner. Raises ImageError where a user namespace has no such id."""
    numbers = owner(entry)
    try:
        if isinstance(place, int):
            os.fchown(place, *numbers)
        else:
            os.chown(place, *numbers, dir_fd=parent_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ImageError(
            f"{show(entry.name)} belongs to user {numbers[0]}, group {numbers[1]}, which this user has no id for",
            MORE_IDS,
        ) from None


def owner(entry: Entry) -> tuple[int, int]:
    """User and group id, as numbers: names in archives are never looked up. Raises Refused."""
    for number in (entry.uid, entry.gid):
        if not 0 <= number < _NOBODY:
            raise Refused(f"the user or group id {number}")
    return entry.uid, entry.gid


def keeps_xattr(name: bytes) -> bool:
    """Whether an extended attribute of an archive is written: capabilities and users' own, never overlayfs's."""
    if b"\0" in name:
        return False
    return name == b"security.capability" or (
        name.startswith(b"user.") and not name.startswith(b"user.overlay.")
    )


def make_special(entry: Entry, parent_fd: int, base: bytes) -> bool:
    """Make a symbolic link, fifo or device with its owner, mode and time; False if no privilege allows it.

    Raises OSError, Refused.
    """
    if entry.kind == "symlink":
        if not entry.target or b"\0" in entry.target or len(entry.target) > MAX_TARGET_BYTES:
            raise Refused("a link with an empty or too long target")
        os.symlink(entry.target, base, dir_fd=parent_fd)
    elif entry.kind == "fifo":
        os.mkfifo(base, 0o600, dir_fd=parent_fd)
    elif not _make_device(entry, parent_fd, base):
        return False
    _give(entry, base, parent_fd)
    if entry.kind != "symlink":
        os.chmod(base, entry.mode, dir_fd=parent_fd)  # what we have just made is no link
    os.utime(base, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent_fd, follow_symlinks=False)
    return True


def _make_device(entry: Entry, parent_fd: int, base: bytes) -> bool:
    major, minor = entry.device
    if entry.kind == "char" and (major, minor) == (0, 0):
        raise Refused(f"{show(base)} is a 0:0 device, which overlayfs takes for a whiteout")
    if major >= 1 << 12 or minor >= 1 << 20:
        raise Refused(f"the device number {major}:{minor}")
    kind = stat.S_IFCHR if entry.kind == "char" else stat.S_IFBLK
    try:
        os.mknod(base, kind | 0o600, os.makedev(major, minor), dir_fd=parent_fd)
    except PermissionError:  # as inside a user namespace
        return False
    return True
