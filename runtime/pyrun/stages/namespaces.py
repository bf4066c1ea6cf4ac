"""Namespaces: which ones are made with the clone, which are joined, which come later, and the names that live in them.

mount, pid, uts, ipc, network and user come with clone3; but where a pid namespace is joined beside a user namespace,
the latter and what belongs to it are made or joined by init. The cgroup namespace is made by init itself once it has
joined its cgroups: its root is where the process is at that moment. The time namespace is the planner's children's
(its clocks may be set only while nobody is in it). One that the config names by path is joined by init; the pid
namespace by its child (birth.py). But init is born in the user namespace, which owns those that are made, and in those
that root of that one has no rights over: after it, there is none left to join them.
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

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.plan.job import Job
    from pyrun.spec.oci import Config, Namespace

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


def _items(config: Config) -> list[Namespace]:
    return linux_section(config).get("namespaces") or []


def kinds(config: Config) -> list[str]:
    """The types of linux.namespaces, made or joined."""
    return [item["type"] for item in _items(config)]


def made(config: Config) -> list[str]:
    """Those the container gets new."""
    return [item["type"] for item in _items(config) if not item.get("path")]


def path_of(config: Config, kind: str) -> str:
    """Where the namespace to join is, or nothing."""
    for item in _items(config):
        if item["type"] == kind:
            return item.get("path") or ""
    return ""


def clone_flags(config: Config) -> int:
    """What clone3 makes; see the module's docstring for cgroup and time."""
    return 0 if user_is_inits(config) else _new(config)


def _new(config: Config) -> int:
    flags = 0
    for kind in made(config):
        if kind not in ("cgroup", "time"):
            flags |= FLAGS[kind]
    return flags


def user_is_inits(config: Config) -> bool:
    """Whether init makes or joins the user namespace: it has to know the pid namespace that is joined before."""
    return bool(path_of(config, "pid")) and "user" in kinds(config)


def plan_pid(config: Config, job: Job) -> list[Operation]:
    """The pid namespace that is joined, and the user namespace beside it. Only if that one owns it is there a right to
    enter it later, which is better: see csrc/init_birth.c."""
    path, user = path_of(config, "pid"), path_of(config, "user")
    if not path:
        return []
    inits, now = user_is_inits(config), _entered_first(config, "pid")
    operations = [Operation("PID_NAMESPACE", descriptor(job, "namespace", path, "pid"), int(now))]
    if inits and user:
        operations.append(Operation("ENTER", descriptor(job, "namespace", user, "user"), FLAGS["user"]))
    if inits and _new(config):
        operations.append(Operation("UNSHARE", _new(config)))
    return operations


def plan_joined(config: Config, job: Job) -> list[Operation]:
    """init enters the namespaces given by path, the mount namespace last: the paths are the host's. Not those that it
    has no right to join then: `born_in`."""
    given, before = _joined(config), born_in(config)
    given.sort(key=lambda item: item["type"] == "mount")
    return [
        Operation("ENTER", descriptor(job, "namespace", item["path"], item["type"]), FLAGS[item["type"]])
        for item in given
        if item["type"] not in before
    ]


def _joined(config: Config) -> list[Namespace]:
    """Those given by path, but for the two that are entered in ways of their own."""
    return [item for item in _items(config) if item.get("path") and item["type"] not in ("pid", "user")]


def born_in(config: Config) -> list[str]:
    """The types of those that init is born in: after it is in its user namespace, it has no right to join them."""
    if "user" not in kinds(config):
        return []
    given = [item["type"] for item in _joined(config)]
    return [kind for kind in given if kind != "mount" and _entered_first(config, kind)]


def _entered_first(config: Config, kind: str) -> bool:
    """Whether the namespace of this kind that is joined has to be entered before the user namespace."""
    user = path_of(config, "user")
    return "user" in kinds(config) and not (user and _rules(user, path_of(config, kind), kind))


def plan_pid_entered(config: Config, job: Job) -> list[Operation]:
    """The pid namespace that is joined, as long as there is a right to, and when nothing else is cloned any more."""
    path = path_of(config, "pid")
    if not path or _entered_first(config, "pid"):
        return []
    return [Operation("ENTER", descriptor(job, "namespace", path, "pid"), FLAGS["pid"])]


def plan_cgroup(config: Config) -> list[Operation]:
    """The cgroup namespace, made after the cgroups were joined."""
    return [Operation("UNSHARE", linux.CLONE_NEWCGROUP)] if "cgroup" in made(config) else []


def plan_names(config: Config) -> list[Operation]:
    """Host and domain name of the uts namespace."""
    operations = []
    if config.get("hostname"):
        operations.append(Operation("HOSTNAME", config["hostname"]))
    if config.get("domainname"):
        operations.append(Operation("DOMAINNAME", config["domainname"]))
    return operations


_OF_LINKS = ("net/ipv4/conf/", "net/ipv6/conf/", "net/ipv4/neigh/", "net/ipv6/neigh/")


def plan_sysctls(config: Config, *, of_links: bool) -> list[Operation]:
    """Kernel parameters of the ipc and network namespaces, written through init's private /proc. of_links: those of
    interfaces, which have to be there, and of which the caller's word is to be the last."""
    parameters = linux_section(config).get("sysctl")
    found = [
        Operation("SYSCTL", sysctls.path(name), value)
        for name, value in (parameters.items() if isinstance(parameters, dict) else ())
    ]
    return [each for each in found if str(each.args[0]).startswith(_OF_LINKS) is of_links]


def plan_loopback(job: Job) -> list[Operation]:
    """lo up, where no network stage does it."""
    return [Operation("LOOPBACK_UP")] if job.loopback else []


def plan_root_identity(config: Config) -> list[Operation]:
    """In a user namespace init is nobody until the maps are written; then it becomes root there."""
    return [Operation("ROOT_IDENTITY")] if "user" in kinds(config) else []


# ── the planner's part ─────────────────────────────────────────────────────────────────────────────


def open_namespace(path: str, kind: str) -> int:
    """A descriptor of the namespace at *path*, which is of this kind. Raises UsageError."""
    from pyrun import descriptors  # few containers join any

    return descriptors.open_namespace(path, kind)


def _rules(user: str, path: str, kind: str) -> bool:
    from pyrun import descriptors

    return descriptors.rules(user, path, kind)


def open_born_in(config: Config) -> list[int]:
    """Descriptors of the namespaces that init is born in, the user namespace last. Raises UsageError."""
    inits = user_is_inits(config) or not path_of(config, "user")
    wanted = born_in(config) + ([] if inits else ["user"])
    opened: list[int] = []
    try:
        for kind in wanted:
            opened.append(open_namespace(path_of(config, kind), kind))
    except BaseException:
        for fd in opened:
            posix.close(fd)
        raise
    return opened


def enter_for_children(config: Config) -> None:
    """The time namespace of what this process clones next."""
    if "time" in made(config):
        linux.unshare(linux.CLONE_NEWTIME)
        offsets = linux_section(config).get("timeOffsets")
        for clock, offset in offsets.items() if isinstance(offsets, dict) else ():
            line = f"{clock} {offset.get('secs') or 0} {offset.get('nanosecs') or 0}"
            try:
                paths.write("/proc/self/timens_offsets", line.encode())
            except OSError as error:
                raise StageFailed("namespaces", f"set the clock {line!r}", error.errno) from None


def entered(config: Config) -> bool:
    """Whether `enter_for_children` has something to do."""
    return "time" in made(config)


def leave_for_children(config: Config) -> None:
    """Back: hooks and the undo list are the host's business."""
    if entered(config):
        fd = posix.open("/proc/self/ns/time", posix.O_RDONLY | posix.O_CLOEXEC)
        linux.setns(fd, linux.CLONE_NEWTIME)
        posix.close(fd)


def write_maps(config: Config, pid: int) -> None:
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
