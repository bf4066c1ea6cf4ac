"""What becomes of a start when an ordinary user is behind it: root of a user namespace is not root of the host.

csrc/rootless.c has made us root of such a namespace, shared by all of the user's containers. The config of a container
is adapted to what can be had there:

    mounts      a mode or owner of an id that is not mapped is left out; with the host's network /sys is the host's
    sysctls     the groups that may ping are those that exist here
    rlimits     no higher than our own, and it is said
    cgroup      none, unless a limit is asked for: then one that systemd or somebody else delegates to the user

    root        by fuse-overlayfs, where the kernel mounts no overlay for a user

Devices (shown, not made) and mounts are init's (csrc/init_nodes.c), the network is network/user_mode/'s.
Source: man 7 user_namespaces, man 5 sysfs, podman's specgen (rootless rules). Cold: root has none of it.
"""

from __future__ import annotations

import resource

from pyrun import notice
from pyrun.cgroups import rootless
from pyrun.errors import PyrunError, UsageError
from pyrun.safe import is_number
from pyrun.spec.values import RLIM_INFINITY, RLIMITS
from pyrun.stages import cgroup
from pyrun.store import overlay_kind, paths
from pyrun.store.nodes import MORE_IDS

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.cgroups.layout import Hierarchy
    from pyrun.plan.job import Job
    from pyrun.spec.oci import Config, Linux, Rlimit, User

# The option of `run` behind a section of linux.resources.
_OPTIONS = {"memory": "--memory", "cpu": "--cpus", "pids": "--pids-limit"}


def adapt(config: Config, job: Job, *, host_network: bool) -> None:
    """Change both in place. host_network: --network=host. Raises UsageError for what a user cannot have."""
    job.rootless_engine = True
    check_user(config["process"]["user"])
    if job.on_host:  # of a container with --network=host; we are in it already, and only root enters it
        section = config["linux"]
        section["namespaces"] = [each for each in section["namespaces"] if each["type"] != "network"]
    _mounts(config, host_network=host_network or job.on_host)
    _sysctls(config["linux"])
    config["process"]["rlimits"] = [clamped(limit) for limit in config["process"]["rlimits"]]
    _cgroup(config, job)
    job.fuse = overlay_kind.noted() == "fuse"


def adapt_bundle(config: Config, job: Job) -> None:
    """The same for a bundle: its config is followed, but for a cgroup that nothing asks for."""
    config.setdefault("linux", {}).setdefault("resources", {})
    job.rootless_engine = True
    check_user(config["process"].get("user") or {"uid": 0, "gid": 0})
    _cgroup(config, job)


def check_user(user: User) -> None:
    """Raise UsageError for a user or group that does not exist in the user namespace."""
    groups = [] if _groups_denied() else user.get("additionalGids") or []
    for kind, numbers in (("uid", [user["uid"]]), ("gid", [user["gid"], *groups])):
        for number in numbers:
            if not mapped(kind, number):
                raise UsageError(f"--user: the {kind} {number} is none of those this user may use", MORE_IDS)


def _groups_denied() -> bool:
    """Whether nobody here may change the supplementary groups: init then leaves them as they are."""
    return paths.read("/proc/self/setgroups").strip() == b"deny"


def mapped(kind: str, number: int, text: str = "") -> bool:
    """Whether *number* is an id here. kind: "uid" or "gid"."""
    lines = [line.split() for line in (text or paths.read(f"/proc/self/{kind}_map").decode()).splitlines()]
    return any(int(first) <= number < int(first) + int(count) for first, _, count in lines)


def last_id(text: str) -> int:
    """The highest id of a map that begins at 0 and has no gaps; 0 for a map of one."""
    return max(int(line.split()[0]) + int(line.split()[2]) for line in text.splitlines()) - 1


# ── config ─────────────────────────────────────────────────────────────────────────────────────────


def _mounts(config: Config, *, host_network: bool) -> None:
    for mount in config["mounts"]:
        mount["options"] = [option for option in mount["options"] if _possible(option)]
        if host_network and mount["type"] == "sysfs":
            # the kernel mounts the sysfs of a network namespace for its owner only
            read_only = ["rro"] if "ro" in mount["options"] else []
            mount["type"], mount["source"] = "bind", "/sys"
            mount["options"] = ["rbind", "rprivate", "nosuid", "noexec", "nodev", *read_only]


def _possible(option: str) -> bool:
    name, _, value = option.partition("=")
    return name not in ("uid", "gid") or not is_number(value) or mapped(name, int(value))


def _sysctls(section: Linux) -> None:
    """Docker lets every group ping; the kernel takes only groups it can map."""
    name = "net.ipv4.ping_group_range"
    if section["sysctl"].get(name) == "0 2147483647":
        section["sysctl"][name] = f"0 {last_id(paths.read('/proc/self/gid_map').decode())}"


def clamped(limit: Rlimit) -> Rlimit:
    """A resource limit within our own hard one, which a user can only lower."""
    _, hard = resource.getrlimit(RLIMITS[limit["type"][7:].lower()])
    most = RLIM_INFINITY if hard == resource.RLIM_INFINITY else hard
    if limit["hard"] <= most:
        return limit
    shown = "unlimited" if limit["hard"] == RLIM_INFINITY else limit["hard"]
    notice.say(
        f"--ulimit {limit['type'][7:].lower()}={shown}: this user's own limit is {most}, which is used"
    )
    return {**limit, "hard": most, "soft": min(limit["soft"], most)}


# ── cgroup ─────────────────────────────────────────────────────────────────────────────────────────


def _cgroup(config: Config, job: Job) -> None:
    """The container's cgroup: none without a limit, else one that this user may make."""
    section = config["linux"]
    asked = rootless.limit_asked(section["resources"])
    job.cgroup.unprivileged = True
    if not asked:
        job.cgroup.hierarchies, job.cgroup.groups = [], []
        section.pop("cgroupsPath", None)
        return
    try:
        driver, section["cgroupsPath"] = choose_driver(job.cgroup.hierarchies, job.id)
        job.cgroup = cgroup.place(config, job.id, driver, rootless=True)
    except PyrunError as error:
        option = _OPTIONS.get(asked, f"linux.resources.{asked}")
        raise UsageError(
            f"{option} needs a cgroup of this user's own, and there is none: {error.message}",
            "log in where systemd runs a session for the user (cgroup v2), or: sudo pyrun run ...",
        ) from None
    job.early = job.cgroup.late


def choose_driver(hierarchies: list[Hierarchy], identifier: str) -> tuple[str, str]:
    """(driver, linux.cgroupsPath): the user's systemd, or a part of the unified hierarchy that is ours. Raises
    UsageError."""
    from pyrun.cgroups import bus
    from pyrun.cgroups.layout import is_v2

    if not is_v2(hierarchies):
        raise UsageError("the limits of cgroup v1 are root's")
    relative = f"pyrun-{identifier}"
    (_, directory), *_ = cgroup.directories(hierarchies, relative)
    if rootless.may_use(directory, hierarchies[0]):
        return "cgroupfs", relative
    own = hierarchies[0][2].rstrip("/")
    if rootless.may_use(f"{hierarchies[0][1]}{own}/{relative}", hierarchies[0]):
        return "cgroupfs", f"{own}/{relative}"
    bus.connect(user=True).close()
    return "systemd", f"user.slice:pyrun:{identifier}"
