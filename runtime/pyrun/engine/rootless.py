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
from typing import Any

from pyrun import notice
from pyrun.cgroups import rootless
from pyrun.errors import PyrunError, UsageError
from pyrun.spec.values import RLIM_INFINITY, RLIMITS
from pyrun.stages import cgroup
from pyrun.store import overlay_kind, paths
from pyrun.store.nodes import MORE_IDS

# The option of `run` behind a section of linux.resources.
_OPTIONS = {"memory": "--memory", "cpu": "--cpus", "pids": "--pids-limit"}


def adapt(config: dict[str, Any], job: dict[str, Any]) -> None:
    """Change *config* and *job* in place. Raises UsageError for what a user cannot have."""
    job["rootless_engine"] = True
    check_user(config["process"]["user"])
    if job.get(
        "on_host"
    ):  # of a container with --network=host; we are in it already, and only root enters it
        section = config["linux"]
        section["namespaces"] = [each for each in section["namespaces"] if each["type"] != "network"]
    _mounts(config, host_network=job["mode"] == "host" or bool(job.get("on_host")))
    _sysctls(config["linux"])
    config["process"]["rlimits"] = [clamped(limit) for limit in config["process"]["rlimits"]]
    _cgroup(config, job)
    job["fuse"] = (overlay_kind.noted() if job["dry_run"] else overlay_kind.kind()) == "fuse"


def adapt_bundle(config: dict[str, Any], job: dict[str, Any]) -> None:
    """The same for a bundle: its config is followed, but for a cgroup that nothing asks for."""
    config.setdefault("linux", {}).setdefault("resources", {})
    job["rootless_engine"] = True
    check_user(config["process"].get("user") or {"uid": 0, "gid": 0})
    _cgroup(config, job)


def check_user(user: dict[str, Any]) -> None:
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


def _mounts(config: dict[str, Any], *, host_network: bool) -> None:
    for mount in config["mounts"]:
        mount["options"] = [option for option in mount["options"] if _possible(option)]
        if host_network and mount["type"] == "sysfs":
            # the kernel mounts the sysfs of a network namespace for its owner only
            read_only = ["rro"] if "ro" in mount["options"] else []
            mount.update(
                type="bind",
                source="/sys",
                options=["rbind", "rprivate", "nosuid", "noexec", "nodev", *read_only],
            )


def _possible(option: str) -> bool:
    name, _, value = option.partition("=")
    return name not in ("uid", "gid") or not value.isdigit() or mapped(name, int(value))


def _sysctls(section: dict[str, Any]) -> None:
    """Docker lets every group ping; the kernel takes only groups it can map."""
    name = "net.ipv4.ping_group_range"
    if section["sysctl"].get(name) == "0 2147483647":
        section["sysctl"][name] = f"0 {last_id(paths.read('/proc/self/gid_map').decode())}"


def clamped(limit: dict[str, Any]) -> dict[str, Any]:
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


def _cgroup(config: dict[str, Any], job: dict[str, Any]) -> None:
    """Notes in the job which driver makes the container's cgroup, and where."""
    section = config["linux"]
    asked = rootless.limit_asked(section["resources"])
    job["unprivileged"] = True
    if not asked:
        job["hierarchies"], job["cgroups"] = [], []
        section.pop("cgroupsPath", None)
        return
    try:
        job["driver"], section["cgroupsPath"] = choose_driver(job)
        job["cgroups"] = cgroup.groups(config, job)
    except PyrunError as error:
        option = _OPTIONS.get(asked, f"linux.resources.{asked}")
        raise UsageError(
            f"{option} needs a cgroup of this user's own, and there is none: {error.message}",
            "log in where systemd runs a session for the user (cgroup v2), or: sudo pyrun run ...",
        ) from None
    job["early"] = cgroup.joined_late(job)


def choose_driver(job: dict[str, Any]) -> tuple[str, str]:
    """(driver, linux.cgroupsPath): the user's systemd, or a part of the unified hierarchy that is ours. Raises
    UsageError."""
    from pyrun.cgroups import bus
    from pyrun.cgroups.layout import is_v2

    if not is_v2(job["hierarchies"]):
        raise UsageError("the limits of cgroup v1 are root's")
    identifier = str(job["id"])
    relative = f"pyrun-{identifier}"
    (_, directory), *_ = cgroup.directories(job["hierarchies"], relative)
    if rootless.may_use(directory, job["hierarchies"][0]):
        return "cgroupfs", relative
    own = job["hierarchies"][0][2].rstrip("/")
    if rootless.may_use(f"{job['hierarchies'][0][1]}{own}/{relative}", job["hierarchies"][0]):
        return "cgroupfs", f"{own}/{relative}"
    bus.connect(user=True).close()
    return "systemd", f"user.slice:pyrun:{identifier}"
