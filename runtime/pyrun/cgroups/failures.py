"""A cgroup file that cannot be written, or a cgroup that is in use: what it means, and what can still be done.

Cold: nothing of this runs in a start that works. A refused limit is named by its field in the config, its
controller and its file. Source: cgroup-v2.rst (no internal process constraint, delegation containment).
"""

from __future__ import annotations

import errno
import posix

from pyrun.errors import CgroupRemoved, Conflict, StageFailed, UsageError
from pyrun.store import paths

from . import files, layout

RESOURCES = "config.json: linux.resources."


def second_way(path: str, value: str, field: str, number: int) -> None:
    """*value* could not be written: try the file's other name, or controllers that were not handed down. Raises."""
    directory, _, name = path.rpartition("/")
    optional, name = name[-1:] == "?", name.rstrip("?")
    names = name.split("|")
    values = value.split("|") if len(names) > 1 and "|" in value else [value] * len(names)
    if number == errno.ENOENT:
        number = _first_that_is_there(directory, names, values) if len(names) > 1 else number
        if number == errno.ENOENT and _enable_above(directory, name.partition(".")[0]):
            number = _first_that_is_there(directory, names, values)
    if not number or (optional and number in (errno.ENOENT, errno.EACCES)):
        return
    raise refused(directory, names[-1], values[-1], field, number)


def _first_that_is_there(directory: str, names: list[str], values: list[str]) -> int:
    number = errno.ENOENT
    for name, value in zip(names, values, strict=True):
        number = _written(f"{directory}/{name}", value)
        if number != errno.ENOENT:
            break
    return number


def _written(path: str, value: str) -> int:
    """0, or the error number."""
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError as error:
        return error.errno or errno.EIO
    try:
        posix.write(fd, value.encode())
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        posix.close(fd)
    return 0


def _enable_above(directory: str, controller: str) -> bool:
    """v2: hand *controller* down through every cgroup above; whether the directory has got it by that."""
    if not paths.exists(f"{directory}/cgroup.controllers") or controller in controllers(directory):
        return False
    above = []
    parent = directory.rpartition("/")[0]
    while paths.exists(f"{parent}/cgroup.controllers"):
        above.append(parent)
        parent = parent.rpartition("/")[0]
    for each in reversed(above):
        files.hand_down(each)
    return controller in controllers(directory)


def controllers(directory: str) -> list[str]:
    """The controllers a v2 cgroup has."""
    try:
        return paths.read(f"{directory}/cgroup.controllers").decode().split()
    except OSError:
        return []


def refused(directory: str, name: str, value: str, field: str, number: int) -> Exception:
    """The error for a limit that the kernel did not take."""
    controller = name.partition(".")[0]
    what = f"{RESOURCES}{field}" if field else f"cgroup: {name}"
    if number == errno.ENOENT and paths.exists(f"{directory}/cgroup.procs"):
        v2 = paths.exists(f"{directory}/cgroup.controllers")
        if controller == "cgroup" or (not v2 or controller in controllers(directory)):
            why = ": it lacks CONFIG_IOSCHED_BFQ" if ".bfq." in name else ""
            lack = f"this kernel's {controller} controller has no file {name} ({directory}){why}"
            return UsageError(f"{what}: cannot set {value!r:.80}: {lack}")
        reason, hint = _why_missing(directory, controller)
        return UsageError(f"{what}: needs the {controller} controller for {directory}/{name}: {reason}", hint)
    if number == errno.EBUSY and name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
        usage, peak = (
            _number(f"{directory}/memory.{key}") for key in ("usage_in_bytes", "max_usage_in_bytes")
        )
        return UsageError(f"{what}: must be more than what is in use ({usage}, at most {peak}), not {value}")
    if not field or (number in (errno.ENOENT, errno.ENODEV) and not paths.exists(directory)):
        return StageFailed("cgroup", f"write {value!r} to {directory}/{name}", number)
    return UsageError(f"{what}: cannot write {value!r:.80} to {directory}/{name}: {posix.strerror(number)}")


def _number(path: str) -> str:
    try:
        return paths.read(path).decode().strip()
    except OSError:
        return "?"


def _why_missing(directory: str, controller: str) -> tuple[str, str]:
    """v2: from our cgroup up, the first one that has the controller and does not hand it down."""
    parent = directory.rpartition("/")[0]
    while paths.exists(f"{parent}/cgroup.controllers"):
        if controller in controllers(parent):
            if paths.exists(f"{parent}/cgroup.type") and paths.read(f"{parent}/cgroup.procs"):
                return (
                    f"{parent} has processes of its own, so it can hand no controllers down (no internal processes)",
                    "choose a linux.cgroupsPath beside it, or move its processes into a cgroup below it",
                )
            return (
                f"{parent} cannot hand it down",
                "is it delegated? as root: systemctl set-property ... Delegate=yes",
            )
        parent = parent.rpartition("/")[0]
    return ("this host has none", "see `pyrun info`; a v1 hierarchy may hold it")


def missing_controller(name: str, field: str) -> UsageError:
    """v1: no hierarchy of the container's has the controller of file *name*."""
    controller = name.partition(".")[0]
    rule = f"needs the {controller} controller (cgroup v1), which is not mounted or not ours, for {name.rstrip('?')}"
    return UsageError(f"{RESOURCES}{field}: {rule}", "grep cgroup /proc/self/mountinfo")


def refuse_inhabited(directory: str, names: str) -> None:
    """A cgroup that exists may be taken if nobody is in it and it does not freeze whoever comes. Raises Conflict."""
    if names != "unified" and not {"devices", "pids", "freezer"} & set(names.split(",")):
        return
    from . import freezer, processes

    if found := processes.all_of([(names, directory)]):
        raise Conflict(
            f"container's cgroup is not empty: {directory}: {len(found)} process{'es' if len(found) > 1 else ''} found",
            "linux.cgroupsPath is for one container alone",
        )
    if freezer.is_frozen([(names, directory)]):
        raise Conflict(f"cgroup {directory} is frozen", "remove it, or choose another linux.cgroupsPath")


def removed(cgroup: layout.Cgroup, error: BaseException) -> CgroupRemoved | None:
    """Whether a start failed with *error* since a cgroup it had made is gone: another program's `rmdir`."""
    number = getattr(error, "number", None) or getattr(error, "errno", None)
    if number not in (errno.ENOENT, errno.ENODEV) or cgroup.late:
        return None
    for _, directory in cgroup.groups:
        if not paths.exists(directory):
            return CgroupRemoved(
                f"cgroup {directory} was removed by another program before init had joined it"
            )
    return None


def of_clone(groups: list[layout.Group], number: int) -> Exception | None:
    """What clone3 into a v2 cgroup failed with, if the cgroup is the reason. Source: man 2 clone3."""
    where = next((directory for names, directory in groups if names == "unified"), "")
    if not where or number not in (errno.EACCES, errno.EBUSY, errno.EOPNOTSUPP):
        return None
    reason, hint = {
        errno.EACCES: ("may not be entered by this user", "systemd-run --user --scope -p Delegate=yes ..."),
        errno.EBUSY: (
            "hands controllers down, so it can hold no process",
            "choose another linux.cgroupsPath",
        ),
        errno.EOPNOTSUPP: ("is of type domain invalid", "one of its parents is threaded or has processes"),
    }[number]
    return UsageError(f"cgroup {where} {reason}: {posix.strerror(number)}", hint)
