"""Id mappings, clock offsets, and what user and time namespaces ask of the rest of config.json. Cold.

Source: runtime-spec config-linux.md#user-namespace-mappings, config.md#mounts; man 7 user_namespaces, 7
time_namespaces. Not here: writing the maps (stages/namespaces.py), id-mapped mounts (stages/rootfs.py).
"""

from __future__ import annotations

from .check_rules import Each, Fields, Map, Whole, Word, place, wrong
from .check_table import UINT32

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Config, Linux, Mapping, Mount, User

FILE = "config.json: "

MAPPINGS_MAX = 340  # lines of /proc/PID/uid_map since Linux 4.15


def _extent(value: Mapping, path: str) -> None:
    for key in ("containerID", "hostID"):
        if value[key] + value["size"] > (1 << 32) - 1:
            raise wrong(
                f"{path}.size", f"must end below id 4294967295, starting at {key} {value[key]}", value["size"]
            )


_MAPPING_LIST = Each(
    Fields(
        {"containerID": UINT32, "hostID": UINT32, "size": Whole(1, (1 << 32) - 1)},
        needed="containerID hostID size",
        then=_extent,
    ),
    most=MAPPINGS_MAX,
)


class _Mappings:
    """A list of id mappings, no two of which overlap: the kernel takes all of them or none."""

    rule = _MAPPING_LIST.rule

    def __call__(self, value: object, path: str) -> None:
        _MAPPING_LIST(value, path)
        assert isinstance(value, list)
        for key in ("containerID", "hostID"):
            end = 0
            for start, size, number in sorted((item[key], item["size"], i) for i, item in enumerate(value)):
                if start < end:
                    raise wrong(f"{path}[{number}].{key}", f"{start} is in another mapping already")
                end = start + size


MAPPINGS = _Mappings()

KTIME_SECONDS_MAX = 9223372036  # the kernel's clocks count nanoseconds in 64 bits
_OFFSET = Fields(
    {"secs": Whole(-KTIME_SECONDS_MAX, KTIME_SECONDS_MAX), "nanosecs": Whole(0, 999_999_999)},
)
TIME_OFFSETS = Map(_OFFSET, key_rule=Word("monotonic", "boottime"))


def combinations(root: Config, linux: Linux, joined: dict[str, str], rootless: bool) -> None:
    """What user and time namespaces, netDevices and a caller without root ask of the rest."""
    mappings = {
        "uidMappings": linux.get("uidMappings") or [],
        "gidMappings": linux.get("gidMappings") or [],
    }
    if joined.get("user") == "":
        for key, extents in mappings.items():
            if not any(extent["containerID"] == 0 for extent in extents):
                raise wrong(f"{FILE}linux.{key}", "must map id 0 for a new user namespace")
    if joined.get("time") and linux.get("timeOffsets"):
        raise wrong(FILE + "linux.timeOffsets", "cannot be set for a time namespace that is joined")
    targets = [(key, device.get("name") or key) for key, device in (linux.get("netDevices") or {}).items()]
    for number, (key, target) in enumerate(targets):
        if "%" not in target and target in [other for _, other in targets[:number]]:
            raise wrong(place(FILE + "linux.netDevices", key) + ".name", f"{target!r} is there twice")
    if rootless:
        _rootless(root, linux, joined, mappings)


def mapped(user: User, mappings: dict[str, list[Mapping]], path: str) -> None:
    """Whom the process is to be must exist in its user namespace: setuid says EINVAL otherwise. No rule of the spec's,
    so `create` asks and not the check of a config."""
    for name, text, number in (("uid", "user", user.get("uid") or 0), ("gid", "group", user.get("gid") or 0)):
        if not any(0 <= number - each["containerID"] < each["size"] for each in mappings[f"{name}Mappings"]):
            raise wrong(f"{path}.{name}", f"cannot be an unmapped {text} in a user namespace", number)


def _rootless(root: Config, linux: Linux, joined: dict[str, str], mappings: dict[str, list[Mapping]]) -> None:
    if "user" not in joined:
        raise wrong(FILE + "linux.namespaces", "a user namespace is needed when not run as root")
    if linux.get("netDevices"):
        raise wrong(FILE + "linux.netDevices", "can be moved by root only")
    for number, mount in enumerate(root.get("mounts") or ()):
        path = f"{FILE}mounts[{number}]"
        if set(mount) & {"uidMappings", "gidMappings"} or {"idmap", "ridmap"} & set(
            mount.get("options") or ()
        ):
            raise wrong(path, "id-mapped mounts can be made by root only")
        if joined["user"] == "":
            _mount_owners(mount.get("options") or [], path, mappings)


def _mount_owners(options: list[str], path: str, mappings: dict[str, list[Mapping]]) -> None:
    """uid= and gid= of a file system are ids of the container: they must be mapped, or the kernel says EINVAL."""
    for number, option in enumerate(options):
        key, _, value = option.partition("=")
        if key not in ("uid", "gid") or not (value.isascii() and value.isdigit()):
            continue  # the kernel has the word
        extents = mappings[f"{key}Mappings"]
        if not any(0 <= int(value[:11]) - each["containerID"] < each["size"] for each in extents):
            raise wrong(
                f"{path}.options[{number}]", f"names a {key} that linux.{key}Mappings does not map", option
            )


def idmapped(mount: Mount, path: str, joined: dict[str, str]) -> None:
    """A mount with mappings of its own, or with the container's (idmap, ridmap)."""
    options = mount.get("options") or ()
    if not {"bind", "rbind"} & set(options):
        raise wrong(path, "id mappings are for bind mounts only")
    given = [key for key in ("uidMappings", "gidMappings") if mount.get(key)]
    if len(given) == 1:
        missing = "gidMappings" if given == ["uidMappings"] else "uidMappings"
        raise wrong(f"{path}.{missing}", f"is required beside {given[0]}")
    if not given and "user" not in joined:
        raise wrong(path, "needs uidMappings and gidMappings, or a user namespace, for idmap")
