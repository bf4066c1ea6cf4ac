"""Namespaces: which ones are made with the clone, which are joined, which come later, and the names that live in them.

mount, pid, uts, ipc, network and user come with clone3. The cgroup namespace is made by init itself once it has
joined its cgroups: its root is where the process is at that moment. The time namespace is the planner's children's
(its clocks may be set only while nobody is in it). One that the config names by path is joined: by init, but for
the pid namespace, which a process can only be born in, and the user namespace, which owns those that are made.
Source: man 7 namespaces, man 2 clone3, man 7 time_namespaces, runtime-spec config-linux.md#namespaces.
Next: stages/cgroup.py.
"""

from __future__ import annotations

import posix

from pyrun import linux
from pyrun.errors import StageFailed
from pyrun.plan.operations import Operation, descriptor
from pyrun.spec import mount_options, sysctls
from pyrun.spec.values import linux_section
from pyrun.store import paths

FLAGS = {
    "mount": linux.CLONE_NEWNS,
    "pid": linux.CLONE_NEWPID,
    "uts": linux.CLONE_NEWUTS,
    "ipc": linux.CLONE_NEWIPC,
    "network": linux.CLONE_NEWNET,
    "cgroup": linux.CLONE_NEWCGROUP,
    "user": linux.CLONE_NEWUSER,
    "time": linux.CLONE_NEWTIME,
}


def _items(config: dict[str, object]) -> list[dict[str, str]]:
    items = linux_section(config).get("namespaces")
    return items if isinstance(items, list) else []


def kinds(config: dict[str, object]) -> list[str]:
    """The types of linux.namespaces, made or joined."""
    return [item["type"] for item in _items(config)]


def made(config: dict[str, object]) -> list[str]:
    """Those the container gets new."""
    return [item["type"] for item in _items(config) if not item.get("path")]


def path_of(config: dict[str, object], kind: str) -> str:
    """Where the namespace to join is, or nothing."""
    for item in _items(config):
        if item["type"] == kind:
            return item.get("path") or ""
    return ""


def clone_flags(config: dict[str, object]) -> int:
    """What clone3 makes; see the module's docstring for cgroup and time."""
    flags = 0
    for kind in made(config):
        if kind not in ("cgroup", "time"):
            flags |= FLAGS[kind]
    return flags


def plan_joined(config: dict[str, object], job: dict[str, object]) -> list[Operation]:
    """init enters the namespaces given by path, the mount namespace last: the paths are the host's."""
    given = [item for item in _items(config) if item.get("path") and item["type"] not in ("pid", "user")]
    given.sort(key=lambda item: item["type"] == "mount")
    return [
        Operation("ENTER", descriptor(job, "namespace", item["path"], item["type"]), FLAGS[item["type"]])
        for item in given
    ]


def plan_cgroup(config: dict[str, object]) -> list[Operation]:
    """The cgroup namespace, made after the cgroups were joined."""
    return [Operation("UNSHARE", linux.CLONE_NEWCGROUP)] if "cgroup" in made(config) else []


def plan_names(config: dict[str, object]) -> list[Operation]:
    """Host and domain name of the uts namespace."""
    operations = []
    if config.get("hostname"):
        operations.append(Operation("HOSTNAME", str(config["hostname"])))
    if config.get("domainname"):
        operations.append(Operation("DOMAINNAME", str(config["domainname"])))
    return operations


_OF_LINKS = ("net/ipv4/conf/", "net/ipv6/conf/", "net/ipv4/neigh/", "net/ipv6/neigh/")


def plan_sysctls(config: dict[str, object], *, of_links: bool) -> list[Operation]:
    """Kernel parameters of the ipc and network namespaces, written through init's private /proc. of_links: those of
    interfaces, which have to be there, and of which the caller's word is to be the last."""
    parameters = linux_section(config).get("sysctl")
    found = [
        Operation("SYSCTL", sysctls.path(name), value)
        for name, value in (parameters.items() if isinstance(parameters, dict) else ())
    ]
    return [each for each in found if str(each.args[0]).startswith(_OF_LINKS) is of_links]


def plan_loopback(job: dict[str, object]) -> list[Operation]:
    """lo up, where no network stage does it."""
    return [Operation("LOOPBACK_UP")] if job.get("loopback") else []


def plan_root_identity(config: dict[str, object]) -> list[Operation]:
    """In a user namespace init is nobody until the maps are written; then it becomes root there."""
    return [Operation("ROOT_IDENTITY")] if "user" in kinds(config) else []


# ── the planner's part ─────────────────────────────────────────────────────────────────────────────


def open_namespace(path: str, kind: str) -> int:
    """A descriptor of the namespace at *path*, which is of this kind. Raises UsageError."""
    from pyrun import descriptors  # few containers join any

    return descriptors.open_namespace(path, kind)


def enter_for_children(config: dict[str, object]) -> None:
    """The pid and time namespaces of what this process clones next."""
    path = path_of(config, "pid")
    if path:
        fd = open_namespace(path, "pid")
        try:
            linux.setns(fd, linux.CLONE_NEWPID)
        except OSError as error:
            raise StageFailed("namespaces", f"join the pid namespace {path}", error.errno) from None
        finally:
            posix.close(fd)
    if "time" in made(config):
        linux.unshare(linux.CLONE_NEWTIME)
        offsets = linux_section(config).get("timeOffsets")
        for clock, offset in offsets.items() if isinstance(offsets, dict) else ():
            line = f"{clock} {offset.get('secs') or 0} {offset.get('nanosecs') or 0}"
            try:
                paths.write("/proc/self/timens_offsets", line.encode())
            except OSError as error:
                raise StageFailed("namespaces", f"set the clock {line!r}", error.errno) from None


def entered(config: dict[str, object]) -> bool:
    """Whether `enter_for_children` has something to do."""
    return bool(path_of(config, "pid")) or "time" in made(config)


def leave_for_children(config: dict[str, object]) -> None:
    """Back: hooks and the undo list are the host's business."""
    changed = ["pid"] if path_of(config, "pid") else []
    changed += ["time"] if "time" in made(config) else []
    for kind in changed:
        fd = posix.open(f"/proc/self/ns/{kind}", posix.O_RDONLY | posix.O_CLOEXEC)
        linux.setns(fd, FLAGS[kind])
        posix.close(fd)


def write_maps(config: dict[str, object], pid: int) -> None:
    """uid_map and gid_map of a new user namespace. Source: man 7 user_namespaces."""
    if "user" not in made(config):
        return
    if posix.geteuid() != 0:
        from pyrun import idmaps

        idmaps.write(linux_section(config), pid)
        return
    for name, key in (("uid_map", "uidMappings"), ("gid_map", "gidMappings")):
        text = mount_options.map_text(linux_section(config).get(key))
        try:
            paths.write(f"/proc/{pid}/{name}", text.encode())
        except OSError as error:
            wanted = text.strip().replace("\n", ", ")
            raise StageFailed("namespaces", f"write {wanted!r} to {name}", error.errno) from None
