"""The check of a config.json that somebody else wrote: runtime-spec 1.3 for Linux, before anything is done.

check_table.py has a rule for every field; here is what holds between sections. An error names the path in the
file, the rule and the value. Where the specification leaves something open, runc's behaviour decides: relative mount
destinations are warned of, null means absent, rshared is a propagation. Stricter than runc:
versions other than 1.x, what a container without a mount namespace would do to the host's, fields whose absence has no
meaning. Sections for other systems (vm, windows, solaris ...) are ignored.

Not here: rare sections (check_rare.py, check_ids.py), seccomp (seccomp_check.py, asked when a profile is compiled: one
that was compiled before was checked before), reading the file (config_file.py), what this machine can do (the stages).
Source: runtime-spec config.md, config-linux.md.
"""

from __future__ import annotations

from pyrun import notice

from . import sysctls
from .check_rules import place, shown, wrong
from .check_table import CONFIG, CONSOLE_SIZE, PROCESS, RESOURCES

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

    from pyrun.spec.oci import Config, Device, Linux, Mount, Process, Resources

FILE = "config.json: "

# What is only possible in a namespace of the container's own, or one it joins.
NEEDS = (
    ("", "hostname", "uts"), ("", "domainname", "uts"), ("linux", "netDevices", "network"),
    ("linux", "uidMappings", "user"), ("linux", "gidMappings", "user"), ("linux", "timeOffsets", "time"),
)  # fmt: skip

# The usual ones; spec/mount_options.py knows the others.
BIND_OPTIONS = frozenset(
    "bind rbind ro rw rro private rprivate shared rshared slave rslave nosuid nodev noexec idmap ridmap".split()
)


def config(value: object, *, rootless: bool = False) -> Config:
    """The checked config, nulls taken out and relative mount destinations made absolute. Raises UsageError.

    rootless: for a caller who is not root, so who can do only what a user namespace of its own allows.
    """
    CONFIG(value, FILE)
    assert isinstance(value, dict)
    found: Any = value
    root: Config = found
    linux = root.get("linux") or {}
    joined = {item["type"]: item.get("path") or "" for item in linux.get("namespaces") or ()}
    if "mount" not in joined:
        _without_mount_namespace(linux, rootless or "user" in joined)
    for section, key, kind in NEEDS:
        if (linux if section else root).get(key) and kind not in joined:
            raise wrong(place(FILE + section, key), f"needs a {kind} namespace in linux.namespaces")
    _process(root["process"], FILE + "process")
    for number, mount in enumerate(root.get("mounts") or ()):
        _mount(mount, f"{FILE}mounts[{number}]", joined)
    if rootless or "user" in joined or "time" in joined or linux.get("netDevices"):
        from . import check_ids

        check_ids.combinations(root, linux, joined, rootless)
    _devices(linux.get("devices") or [])
    if linux.get("sysctl"):
        sysctls.check(linux["sysctl"], FILE + "linux.sysctl", joined)
    memory = (linux.get("resources") or {}).get("memory") or {}
    if memory.get("swap", 0) > 0 and memory.get("limit", 0) < 1:
        raise wrong(FILE + "linux.resources.memory.swap", "needs a memory limit", memory["swap"])
    return root


def process(value: object, path: str = FILE + "process") -> Process:
    """The checked process object, for `exec --process`. *path*: the file, errors begin with it."""
    path = path if ": " in path else f"{path}: "
    PROCESS(value, path)
    found: Any = value
    _process(found, path)
    checked: Process = found
    return checked


def resources(value: object, path: str = FILE + "linux.resources") -> Resources:
    """The checked resources object, for `update --resources`. The limit that swap needs may be there already."""
    path = path if ": " in path else f"{path}: "
    RESOURCES(value, path)
    found: Any = value
    checked: Resources = found
    return checked


def _without_mount_namespace(linux: Linux, user: bool) -> None:
    """Raise UsageError for what would change the host's mounts, or need the right to. The first rule is in runc's
    words, which callers look for."""
    for key in ("maskedPaths", "readonlyPaths"):
        if linux.get(key):
            raise wrong(
                f"{FILE}linux.{key}", "unable to restrict sys entries without a private MNT namespace",
                hint="add a mount namespace to linux.namespaces",
            )  # fmt: skip
    if linux.get("rootfsPropagation"):
        raise wrong(FILE + "linux.rootfsPropagation", "needs a mount namespace in linux.namespaces")
    if user:
        raise wrong(FILE + "linux.namespaces", "in a user namespace a mount namespace is needed")


def _process(process: Process, path: str) -> None:
    prefix = path if path[-1:] == " " else path + "."
    if not process["args"]:
        raise wrong(prefix + "args", "must name the program to execute")
    if not process.get("terminal"):
        process.pop("consoleSize", None)  # to be ignored
    elif "consoleSize" in process:
        CONSOLE_SIZE(process["consoleSize"], prefix + "consoleSize")


def _devices(devices: list[Device]) -> None:
    nodes: dict[str, tuple[object, ...]] = {}
    for number, device in enumerate(devices):
        node = (device["type"].replace("u", "c"), device.get("major"), device.get("minor"))
        if nodes.setdefault(device["path"], node) != node:
            raise wrong(
                f"{FILE}linux.devices[{number}].path", f"{shown(device['path'])} is another device already"
            )


def _mount(mount: Mount, path: str, joined: dict[str, str]) -> None:
    target, options = mount["destination"], mount.get("options") or []
    if target[0] != "/":
        notice.say(
            f"{path}.destination: {target[:80]!r} is not absolute, which is deprecated; taken as below /"
        )
        mount["destination"] = "/" + target
    bind = "bind" in options or "rbind" in options
    if (bind := bind or mount.get("type") == "bind") and not mount.get("source"):
        raise wrong(f"{path}.source", "is required for a bind mount")
    if bind and not BIND_OPTIONS.issuperset(options):
        _note_data(options, path)
    if "uidMappings" in mount or "gidMappings" in mount or "idmap" in options or "ridmap" in options:
        from . import check_ids

        check_ids.idmapped(mount, path, joined)


def _note_data(options: list[str], path: str) -> None:
    """A bind mount is of a file system that is mounted already: what is meant for one has no effect, and callers say
    it all the same. As with runc before 1.2 and crun it is no error."""
    from . import mount_options

    for number, option in enumerate(options):
        if option not in mount_options.SUPERBLOCK and mount_options.parse([option]).data:
            notice.say(f"{path}.options[{number}]: {option[:80]!r} has no effect on a bind mount")
