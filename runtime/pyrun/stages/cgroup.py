"""The cgroup: made and limited by the planner, joined by init, seen by the container, removed by the undo list.

Three drivers. cgroupfs: the planner makes the directories and writes the limits before anything runs in them; init
is born in v2's (CLONE_INTO_CGROUP) and writes 0 to v1's `tasks` (20 ms faster than being moved). systemd: init is
cloned and waits, systemd makes a scope of it, then the rest is written. disabled: the container stays in our cgroup.
A job has: driver ("cgroupfs" unless given), rootless, hierarchies, cgroups; groups() adds late, unit, parents.
Source: runtime-spec config-linux.md#control-groups. How it is done: cgroups/. Next: stages/rootfs.py.
"""

from __future__ import annotations

from pyrun import device_rules
from pyrun.cgroups import files, limits_v1, limits_v2
from pyrun.cgroups.layout import Group, directories, is_v2, layout
from pyrun.errors import Conflict
from pyrun.plan.operations import Operation
from pyrun.spec import values
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "PERFORM",
    "after_clone",
    "before",
    "directories",
    "groups",
    "joined_late",
    "layout",
    "perform",
    "plan",
    "undo",
]


def groups(config: dict[str, Any], job: dict[str, Any]) -> list[Group]:
    """(controllers, directory) of a bundle's container in each hierarchy; [] when it is to have none.

    Raises UsageError for what the driver cannot do. Notes in the job what the others here need.
    """
    section = values.linux_section(config)
    if section.get("intelRdt"):
        from pyrun.cgroups import rdt

        job["rdt"], job["late"] = rdt.plan(section["intelRdt"], str(job["id"])), True
    driver = job.get("driver") or "cgroupfs"
    if "hierarchies" not in job:
        job["hierarchies"] = layout()
    hierarchies = job["hierarchies"]
    job["unprivileged"] = job.get("rootless") or paths.is_user()
    if driver == "systemd":
        from pyrun.cgroups import systemd

        job["late"] = True
        return refuse_taken(systemd.groups(config, job))
    if driver == "disabled":
        from pyrun.cgroups import rootless

        job["hierarchies"] = hierarchies if is_v2(hierarchies) else []
        return rootless.none(config)
    path = str(section.get("cgroupsPath") or f"/pyrun-oci-{job['id']}")
    clean = values.normal_path("/" + path)  # nothing leads out of the hierarchy
    found = directories(hierarchies, clean if path[:1] == "/" else clean[1:])
    if job["unprivileged"]:
        from pyrun.cgroups import rootless

        found = rootless.usable(config, job, found)
    refuse_taken(found)
    if found and "/" in clean[1:]:
        job["parents"] = _parents(found, job["hierarchies"])
    return found


def refuse_taken(found: list[Group]) -> list[Group]:
    """A cgroup that is there may be taken if nobody is in it. Before the undo list is written, which would end them."""
    for names, directory in found:
        if ("devices" in names.split(",") or len(found) == 1) and paths.exists(directory):
            from pyrun.cgroups import failures

            failures.refuse_inhabited(directory, names)
    return found


def _parents(found: list[Group], hierarchies: list[tuple[str, str, str]]) -> list[str]:
    """The directories above that will have to be made, the deepest first: whoever made them takes them away."""
    missing = []
    for (_, directory), (_, mount, _) in zip(found, hierarchies, strict=True):
        parent = directory.rpartition("/")[0]
        while len(parent) > len(mount) and not paths.exists(parent):
            missing.append(parent)
            parent = parent.rpartition("/")[0]
    return missing


def plan(job: dict[str, object]) -> list[Operation]:
    """init joins every v1 hierarchy; the unified one it is born in, or moved to by systemd."""
    groups = job["cgroups"]
    assert isinstance(groups, list)
    return [
        Operation("CGROUP_JOIN", f"{directory}/tasks") for names, directory in groups if names != "unified"
    ]


def before(config: dict[str, Any], job: dict[str, Any]) -> list[Operation]:
    """The planner's part: make each directory, then write the limits. With the systemd driver, after_clone()."""
    if job.get("driver") == "systemd" or not job["cgroups"]:
        return []
    return [*_makes(job), *limits(config, job)]


def _makes(job: dict[str, Any]) -> list[Operation]:
    """Each directory, that by which a start claims them first; a hybrid host's unified hierarchy has no controllers to
    hand down."""
    v2 = is_v2(job["hierarchies"])
    makes = [
        Operation("cgroup-make", directory, mount, "" if names == "unified" and not v2 else names)
        for (names, directory), (_, mount, _) in zip(job["cgroups"], job["hierarchies"], strict=True)
    ]
    return sorted(makes, key=lambda each: not files.is_claimed(str(each.args[2])))


def limits(config: dict[str, Any], job: dict[str, Any]) -> list[Operation]:
    """linux.resources as writes; the device rules; who owns the cgroup."""
    resources = values.linux_section(config).get("resources") or {}
    v2, lenient = is_v2(job["hierarchies"]), job.get("layers") is not None
    place = {name: directory for names, directory in job["cgroups"] for name in names.split(",")}
    if not place:
        return []
    operations = []
    for file, value, field in (limits_v2 if v2 else limits_v1).limits(resources, lenient=lenient):
        directory = place.get("unified" if v2 else file.partition(".")[0])
        if directory:
            operations.append(Operation("cgroup-write", f"{directory}/{file}", value, field))
        elif file[-1:] != "?":
            from pyrun.cgroups import failures

            raise failures.missing_controller(file, field)
    directory = place.get("unified" if v2 else "devices")
    wanted = job.get("bundle") or resources.get("devices") is not None  # a bundle is never without: as runc
    if wanted and not job.get("unprivileged"):
        if not directory:
            from pyrun.cgroups import failures

            raise failures.missing_controller("devices.deny", "devices")
        operations.append(Operation("cgroup-devices", directory, *device_rules.lines(resources)))
    user = (config.get("process") or {}).get("user") or {}
    if v2 and job.get("bundle") and (user.get("uid") or job.get("user_namespace")):
        from pyrun.cgroups import rootless

        if (uid := rootless.owner(config)) >= 0:
            operations.append(Operation("cgroup-owner", place["unified"], uid))
    return operations


PERFORM: dict[str, Callable[..., object]] = {
    "cgroup-make": files.make,
    "cgroup-write": files.write,
    "cgroup-devices": device_rules.apply,
    "cgroup-owner": files.give,
}


def perform(operations: list[Operation], job: dict[str, Any], undo_fd: int) -> None:
    """What before() planned. Raises Conflict for a cgroup that is somebody else's, perhaps since a moment ago: what is
    in it is not ours to end, so the undo list keeps only what was made here."""
    made = set()
    try:
        for operation in operations:
            if PERFORM[operation.kind](*operation.args):
                made.add(f"rmcgroup\t{operation.args[0]}")
    except Conflict:
        from pyrun import undo as lists

        lists.drop(undo_fd, [line for line in undo(job["cgroups"], job) if line not in made])
        raise


def joined_late(job: dict[str, object]) -> bool:
    """Whether init is cloned before it is where it belongs: systemd makes its scope, resctrl takes its pid."""
    return bool(job.get("late"))


def after_clone(config: dict[str, Any], job: dict[str, Any], pid: int) -> None:
    """What joined_late() promises, while init waits: the scope and the limits in it, the resctrl group."""
    if job.get("driver") == "systemd":
        from pyrun.cgroups import systemd

        systemd.start(config, job, pid)
        for operation in limits(config, job):
            PERFORM[operation.kind](*operation.args)
    if job.get("rdt"):
        from pyrun.cgroups import rdt

        rdt.join(job["rdt"], pid)


def undo(groups: list[Group], job: dict[str, Any] | None = None) -> list[str]:
    """Whatever still runs in the cgroup ends, then the directories go, then the parents made for it if they are empty.

    A systemd scope ends with its last process; stopping it by name is for `delete` (cgroups/systemd.py).
    """
    telling = {
        "pids",
        "unified",
        "freezer",
    }  # where everybody in the container is; some hosts mount several together
    kill = [f"kill-cgroup\t{directory}" for names, directory in groups if telling & set(names.split(","))]
    lines = kill[:1] + [f"rmcgroup\t{directory}" for _, directory in groups]
    if job:
        lines += [f"rmdir-empty\t{directory}" for directory in job.get("parents") or ()]
        if job.get("rdt"):
            from pyrun.cgroups import rdt

            lines += rdt.undo(job["rdt"])
    return lines
