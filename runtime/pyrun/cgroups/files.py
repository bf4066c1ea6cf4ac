"""Making cgroups and writing limits: what the planner's operations do.

A write that the kernel refuses is looked at in failures.py, which may find another way; so the common case is an
open, a write and a close. Not here: which directories (layout.py) and which values (limits_*.py).
Source: cgroup-v2.rst (controlling controllers), cgroup-v1/cpusets.rst.
"""

from __future__ import annotations

import fcntl
import posix

from pyrun.errors import Conflict, StageFailed
from pyrun.plan.operations import Operation
from pyrun.plan.performers import words
from pyrun.store import paths

# Against others who tidy away the parent between its making and ours.
ATTEMPTS = 20


def is_claimed(names: str) -> bool:
    """Whether a start claims its cgroups by the one in this hierarchy."""
    return names == "unified" or "devices" in names.split(",")


def make(directory: str, mount: str, names: str) -> bool:
    """Make a cgroup and its parents; v2 hands the controllers down, v1's cpuset starts empty and is filled. False: it
    was there.

    One that exists is taken, unless somebody lives in it or is about to. Raises StageFailed, Conflict.
    """
    for attempt in range(ATTEMPTS):
        try:
            made = _make(directory, mount, names)
            if is_claimed(names):
                claim(directory)
            if not made:
                from .failures import refuse_inhabited

                refuse_inhabited(directory, names)
            return made
        except FileNotFoundError as error:
            # a parent that was empty has just been tidied away by somebody
            if attempt == ATTEMPTS - 1:
                raise _not_made(directory, mount, names, error) from None
        except OSError as error:
            raise _not_made(directory, mount, names, error) from None
    return False


def ensure(directory: str, mount: str, names: str) -> None:
    """Make a cgroup that may be there, with somebody in it: systemd's. Raises StageFailed."""
    try:
        _make(directory, mount, names)
    except OSError as error:
        raise _not_made(directory, mount, names, error) from None


def _not_made(directory: str, mount: str, names: str, error: OSError) -> StageFailed:
    return StageFailed("cgroup", words(Operation("cgroup-make", directory, mount, names)), error.errno)


def _make(directory: str, mount: str, names: str) -> bool:
    """Whether it was made; False: it was there."""
    parent, made = directory.rpartition("/")[0], True
    try:
        posix.mkdir(directory, 0o755)
    except FileNotFoundError:
        if len(parent) <= len(mount):
            raise
        _make(parent, mount, names)
        if "cpuset" in names.split(","):
            # the kernel fills what is made below, quicker than we do among a thousand
            put(f"{parent}/cgroup.clone_children", b"1")
        posix.mkdir(directory, 0o755)
    except FileExistsError:
        made = False
    if names == "unified":
        hand_down(parent)
    if "cpuset" in names.split(",") and not (made and len(parent) > len(mount) and _is_filled(directory)):
        for file in ("cpuset.cpus", "cpuset.mems"):
            if made or not paths.read(f"{directory}/{file}").strip():
                put(f"{directory}/{file}", _inherited(parent, mount, file))
    return made


def _is_filled(directory: str) -> bool:
    """By cgroup.clone_children of the one above: the processors and the memory at once."""
    return bool(paths.read(f"{directory}/cpuset.mems").strip())


def claim(directory: str) -> int:
    """Of two starts that want one cgroup at the same moment one gets it, before either has a process in it: a lock that
    lasts as long as this process, or until the monitor replaces it. Its descriptor. Raises Conflict."""
    fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        posix.close(fd)
        raise Conflict(
            f"cgroup {directory} is being taken by another start",
            "linux.cgroupsPath is for one container alone",
        ) from None
    return fd


def _inherited(directory: str, mount: str, file: str) -> bytes:
    """What a cpuset hands to one below it; whoever made it a moment ago may not have filled it yet."""
    value = paths.read(f"{directory}/{file}")
    if not value.strip() and len(directory) > len(mount):
        value = _inherited(directory.rpartition("/")[0], mount, file)
        put(f"{directory}/{file}", value)
    return value


def hand_down(parent: str) -> None:
    """Enable every controller a cgroup has for its children. EBUSY: processes in it; then limits fail by name."""
    try:
        wanted = paths.read(f"{parent}/cgroup.controllers").split()
        missing = set(wanted) - set(paths.read(f"{parent}/cgroup.subtree_control").split())
        if missing:
            put(f"{parent}/cgroup.subtree_control", b" ".join([b"+" + name for name in sorted(missing)]))
    except OSError:
        return


def write(path: str, value: str, field: str = "") -> None:
    """Write a limit. field: below linux.resources, for the error. path may end in ?, or in FILE|FILE (limits_*.py)."""
    try:
        put(path, value.encode())
    except OSError as error:
        from .failures import second_way

        second_way(path, value, field, error.errno or 0)


def put(path: str, data: bytes) -> None:
    """One write. A ? at the end of *path* is not part of it. Raises OSError."""
    fd = posix.open(path.rstrip("?"), posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, data)
    finally:
        posix.close(fd)


def give(directory: str, uid: int) -> None:
    """Let *uid* manage what is below this cgroup (v2); its limits stay ours."""
    from .rootless import chown

    chown(directory, uid)
