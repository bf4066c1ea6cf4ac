"""The cgroup: made and limited by the planner, joined by init, seen by the container, removed by the undo list.

Three drivers. cgroupfs: the planner makes the directories and writes the limits before anything runs in them; init
is born in v2's (CLONE_INTO_CGROUP) and writes 0 to v1's `tasks` (20 ms faster than being moved). systemd: init is
cloned and waits, systemd makes a scope of it, then the rest is written. disabled: the container stays in our cgroup.
Source: runtime-spec config-linux.md#control-groups. How it is done: cgroups/. Next: stages/rootfs.py.
"""

from __future__ import annotations

from pyrun import device_rules
from pyrun.cgroups import files, limits_v1, limits_v2
from pyrun.cgroups.layout import Cgroup, Group, directories, is_v2, layout
from pyrun.errors import Conflict
from pyrun.plan import performers
from pyrun.plan.operations import Operation
from pyrun.spec import values
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.plan.job import Job
    from pyrun.spec.oci import Config

__all__ = [
    "Cgroup",
    "after_clone",
    "before",
    "directories",
    "layout",
    "perform",
    "place",
    "plan",
    "undo",
]


def place(config: Config, identifier: str, driver: str, *, rootless: bool) -> Cgroup:
    """Where a bundle's container belongs. driver: cgroupfs, systemd or disabled; rootless: see Job.

    Raises UsageError for what the driver cannot do, Conflict for a cgroup that has processes.
    """
    found = Cgroup(layout(), [], driver)
    found.unprivileged = rootless or paths.is_user()
    section = values.linux_section(config)
    if section.get("intelRdt"):
        from pyrun.cgroups import rdt

        found.rdt, found.late = rdt.plan(section["intelRdt"], identifier), True
    if driver == "systemd":
        from pyrun.cgroups import systemd

        found.late = True
        systemd.place(config, identifier, found)
        refuse_taken(found.groups)
    elif driver == "disabled":
        from pyrun.cgroups import rootless as users

        users.refuse_limits(config)
        found.hierarchies = found.hierarchies if is_v2(found.hierarchies) else []
    else:
        _by_path(config, str(section.get("cgroupsPath") or f"/pyrun-oci-{identifier}"), found)
    return found


def _by_path(config: Config, path: str, found: Cgroup) -> None:
    clean = values.normal_path("/" + path)  # nothing leads out of the hierarchy
    found.groups = directories(found.hierarchies, clean if path[:1] == "/" else clean[1:])
    if found.unprivileged:
        from pyrun.cgroups import rootless

        rootless.keep_usable(config, found)
    refuse_taken(found.groups)
    if found.groups and "/" in clean[1:]:
        found.parents = _parents(found.groups, found.hierarchies)


def refuse_taken(found: list[Group]) -> None:
    """A cgroup that is there may be taken if nobody is in it. Before the undo list is written, which would end them."""
    for names, directory in found:
        if ("devices" in names.split(",") or len(found) == 1) and paths.exists(directory):
            from pyrun.cgroups import failures

            failures.refuse_inhabited(directory, names)


def _parents(found: list[Group], hierarchies: list[tuple[str, str, str]]) -> list[str]:
    """The directories above that will have to be made, the deepest first: whoever made them takes them away."""
    missing = []
    for (_, directory), (_, mount, _) in zip(found, hierarchies, strict=True):
        parent = directory.rpartition("/")[0]
        while len(parent) > len(mount) and not paths.exists(parent):
            missing.append(parent)
            parent = parent.rpartition("/")[0]
    return missing


def plan(job: Job) -> list[Operation]:
    """init joins every v1 hierarchy; the unified one it is born in, or moved to by systemd."""
    return [
        Operation("CGROUP_JOIN", f"{directory}/tasks")
        for names, directory in job.cgroup.groups
        if names != "unified"
    ]


def before(config: Config, job: Job) -> list[Operation]:
    """The planner's part: make each directory, then write the limits. With the systemd driver, after_clone()."""
    if job.cgroup.driver == "systemd" or not job.cgroup.groups:
        return []
    return [*_makes(job.cgroup), *limits(config, job)]


def _makes(cgroup: Cgroup) -> list[Operation]:
    """Each directory, that by which a start claims them first; a hybrid host's unified hierarchy has no controllers to
    hand down."""
    v2 = is_v2(cgroup.hierarchies)
    makes = [
        Operation("cgroup-make", directory, mount, "" if names == "unified" and not v2 else names)
        for (names, directory), (_, mount, _) in zip(cgroup.groups, cgroup.hierarchies, strict=True)
    ]
    return sorted(makes, key=lambda each: not files.is_claimed(str(each.args[2])))


def limits(config: Config, job: Job) -> list[Operation]:
    """linux.resources as writes; the device rules; who owns the cgroup."""
    resources = values.linux_section(config).get("resources") or {}
    v2, lenient = is_v2(job.cgroup.hierarchies), job.layers is not None
    place = {name: directory for names, directory in job.cgroup.groups for name in names.split(",")}
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
    wanted = job.bundle or resources.get("devices") is not None  # a bundle is never without: as runc
    if wanted and not job.cgroup.unprivileged:
        if not directory:
            from pyrun.cgroups import failures

            raise failures.missing_controller("devices.deny", "devices")
        operations.append(Operation("cgroup-devices", directory, *device_rules.lines(resources)))
    user = (config.get("process") or {}).get("user") or {}
    if v2 and job.bundle and (user.get("uid") or job.user_namespace):
        from pyrun.cgroups import rootless

        if (uid := rootless.owner(config)) >= 0:
            operations.append(Operation("cgroup-owner", place["unified"], uid))
    return operations


def perform(operations: list[Operation], cgroup: Cgroup, undo_fd: int) -> None:
    """What before() planned. Raises Conflict for a cgroup that is somebody else's, perhaps since a moment ago: what is
    in it is not ours to end, so the undo list keeps only what was made here."""
    made = set()
    try:
        for operation in operations:
            if performers.perform(operation):
                made.add(f"rmcgroup\t{operation.args[0]}")
    except Conflict:
        from pyrun import undo as lists

        lists.drop(undo_fd, [line for line in undo(cgroup) if line not in made])
        raise


def after_clone(config: Config, job: Job, pid: int) -> None:
    """What a cgroup that is joined late waits for: the scope and the limits in it, the resctrl group."""
    if job.cgroup.driver == "systemd":
        from pyrun.cgroups import systemd

        systemd.start(config, job.id, job.cgroup, pid)
        for operation in limits(config, job):
            performers.perform(operation)
    if job.cgroup.rdt:
        from pyrun.cgroups import rdt

        rdt.join(job.cgroup.rdt, pid)


def undo(cgroup: Cgroup) -> list[str]:
    """Whatever still runs in the cgroup ends, then the directories go, then the parents made for it if they are empty.

    A systemd scope ends with its last process; stopping it by name is for `delete` (cgroups/systemd.py).
    """
    kill = [
        f"kill-cgroup\t{directory}"
        for kind in ("freezer", "pids", "unified")  # by v1, who is frozen cannot die; there it is thawed
        for names, directory in cgroup.groups
        if kind in names.split(",")  # some hosts mount several together
    ][:1]
    lines = kill + [f"rmcgroup\t{directory}" for _, directory in cgroup.groups]
    lines += [f"rmdir-empty\t{directory}" for directory in cgroup.parents]
    if cgroup.rdt:
        from pyrun.cgroups import rdt

        lines += rdt.undo(cgroup.rdt)
    return lines
