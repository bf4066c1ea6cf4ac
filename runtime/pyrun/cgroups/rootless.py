"""Cgroups without being root: which of them a user may use; and giving a container's cgroup to its own root.

systemd delegates a part of the unified hierarchy to a user (`Delegate=yes`); elsewhere all belongs to root. A user
without such a part runs containers without a cgroup, as long as no limit is asked for.
Source: cgroup-v2.rst (delegation), runtime-spec config-linux.md#cgroup-ownership, man 7 cgroups.
"""

from __future__ import annotations

import errno
import posix

from pyrun.errors import StageFailed, UsageError
from pyrun.store import paths

from .layout import Cgroup, Hierarchy, is_v2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.spec.oci import Config, Mapping, Resources

DELEGATED_FILES = "/sys/kernel/cgroup/delegate"
# What that file said when it was new (Linux 4.15); absent before.
_DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
_HINT = "a delegated cgroup: --systemd-cgroup, or systemd-run --user --scope -p Delegate=yes ..."


def real_uid() -> int:
    """Our user as the user namespace above has it. Source: man 7 user_namespaces (uid_map)."""
    uid = posix.getuid()
    lines = [[int(word) for word in line.split()] for line in paths.read("/proc/self/uid_map").splitlines()]
    return on_host(uid, [{"containerID": a, "hostID": b, "size": size} for a, b, size in lines])


def keep_usable(config: Config, cgroup: Cgroup) -> None:
    """Leave of its directories, and of v1's hierarchies, those that this user may make and enter.

    Raises UsageError where a limit or a path was asked for and cannot be had.
    """
    pairs = zip(cgroup.groups, cgroup.hierarchies, strict=True)
    kept = [(group, hierarchy) for group, hierarchy in pairs if may_use(group[1], hierarchy)]
    if len(kept) == len(cgroup.groups):
        return
    section = config.get("linux") or {}
    if section.get("cgroupsPath") and not kept:
        path = f"{section['cgroupsPath']!r:.100}"
        raise UsageError(f"config.json: linux.cgroupsPath: this user may not make the cgroup {path}", _HINT)
    if not kept:
        refuse_limits(config)
    if not is_v2(cgroup.hierarchies):  # v2's one hierarchy still tells how to mount it
        cgroup.hierarchies = [hierarchy for _, hierarchy in kept]
    cgroup.groups = [group for group, _ in kept]


def refuse_limits(config: Config) -> None:
    """Raise UsageError for a limit, where the container is to have no cgroup."""
    if field := limit_asked((config.get("linux") or {}).get("resources") or {}):
        raise UsageError(
            f"config.json: linux.resources.{field}: the container has no cgroup to set it in", _HINT
        )


def limit_asked(resources: Resources) -> str:
    """The first section that limits something, or "". Device rules are root's, who alone can open nodes anyway."""
    for key, value in resources.items():
        if key == "devices" or not value:
            continue
        if not isinstance(value, dict) or any(
            each not in (None, 0, "", False, [], {}) for each in value.values()
        ):
            return key
    return ""


def may_use(directory: str, hierarchy: Hierarchy) -> bool:
    """Whether a cgroup can be made at *directory*, and a process moved there from where we are.

    The nearest directory that exists must be writable; and, since a process moves, the cgroup.procs of the common
    ancestor of both places.
    """
    _, mount, own = hierarchy
    parent = directory
    while not paths.exists(parent) and len(parent) > len(mount):
        parent = parent.rpartition("/")[0]
    common = mount
    for mine, theirs in zip(
        own.strip("/").split("/"), directory[len(mount) :].strip("/").split("/"), strict=False
    ):
        if mine != theirs or not mine:
            break
        common += "/" + mine
    return posix.access(parent, posix.W_OK) and posix.access(f"{common}/cgroup.procs", posix.W_OK)


def owner(config: Config) -> int:
    """Who is to own the container's cgroup: the user its process is on the host, or -1 to leave it as it is.

    Only with a cgroup namespace of its own and a writable mount of it: else it could do nothing with it.
    """
    section = config.get("linux") or {}
    kinds = {item["type"] for item in section.get("namespaces") or () if not item.get("path")}
    mounts = [item for item in config.get("mounts") or () if item.get("type") in ("cgroup", "cgroup2")]
    if "cgroup" not in kinds or not any("ro" not in (item.get("options") or ()) for item in mounts):
        return -1
    uid = int(((config.get("process") or {}).get("user") or {}).get("uid") or 0)
    host = uid if "user" not in kinds else on_host(uid, section.get("uidMappings") or [])
    return host if host > 0 else -1


def on_host(uid: int, mappings: list[Mapping]) -> int:
    """The host's number of a container's *uid*; -1 if it is not mapped."""
    for item in mappings:
        if item["containerID"] <= uid < item["containerID"] + item["size"]:
            return item["hostID"] + uid - item["containerID"]
    return -1


def chown(directory: str, uid: int, delegated: str = DELEGATED_FILES) -> None:
    """Give the cgroup's directory and the files for managing what is below it to *uid*. Raises StageFailed."""
    try:
        names = paths.read(delegated).decode().split()
    except OSError:
        names = list(_DELEGATED)
    for path in [directory, *[f"{directory}/{name}" for name in names]]:
        try:
            posix.chown(path, uid, -1)
        except OSError as error:
            if error.errno == errno.ENOENT or (error.errno == errno.EPERM and posix.stat(path).st_uid == uid):
                continue
            raise StageFailed("cgroup", f"give {path} to user {uid}", error.errno) from None
