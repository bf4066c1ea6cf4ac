"""Intel RDT: a container's share of cache and memory bandwidth, as a group of the resctrl file system.

The group is named by closID, or by the container's id, and then it is ours to remove. Its processes' children belong
to it too, so init's pid is written while it waits. No cgroup, but done at the same moment.
Source: runtime-spec config-linux.md#intelrdt, Documentation/filesystems/resctrl.rst.
"""

from __future__ import annotations

import errno
import posix

from pyrun.errors import StageFailed, UsageError
from pyrun.store import paths

from . import files

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import IntelRdt

WHERE = "config.json: linux.intelRdt"


class Rdt:
    """A container's resctrl group.

    directory: the group; monitor: where it is monitored, or ""; lines: schemata to write; exists: it was there before;
    ours: it is made and removed with the container.
    """

    __slots__ = ("directory", "exists", "lines", "monitor", "ours")

    def __init__(self, directory: str, monitor: str = "") -> None:
        self.directory, self.monitor = directory, monitor
        self.lines: list[str] = []
        self.exists = self.ours = False


def mount(mountinfo: str = "") -> str:
    """Where resctrl is mounted, or "". Source: man 5 proc_pid_mountinfo."""
    text = mountinfo or paths.read("/proc/self/mountinfo").decode("utf-8", "surrogateescape")
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("resctrl "):
            return left.split(" ")[4]
    return ""


def plan(section: IntelRdt, identifier: str, root: str = "") -> Rdt:
    """The group, for join() and undo(). Nothing is changed yet.

    Raises UsageError where the kernel or the group that is named cannot do it.
    """
    root = root or mount()
    if not root:
        hint = "mount -t resctrl resctrl /sys/fs/resctrl, on a processor and kernel that have it"
        raise UsageError(f"{WHERE}: this host has no resctrl file system", hint)
    clos = section.get("closID") or ""
    given = [section.get("l3CacheSchema"), section.get("memBwSchema"), *(section.get("schemata") or ())]
    lines = [line for line in given if line]
    for line in lines:
        if "\n" in line:
            raise UsageError(f"{WHERE}: a schema is one line, not {line!r:.80}")
        _supported(root, line.partition(":")[0].strip())
    directory = root if clos == "/" else f"{root}/{clos or identifier}"
    exists = paths.exists(directory)
    if clos and not exists and not lines:
        raise UsageError(f"{WHERE}.closID: there is no group {clos!r:.80}, and no schema to make one with")
    if clos and exists:
        _matching(directory, lines)
    found = Rdt(directory, f"{directory}/mon_groups/{identifier}" if section.get("enableMonitoring") else "")
    found.ours, found.exists, found.lines = not clos and not exists, exists, lines
    return found


def _supported(root: str, resource: str) -> None:
    if not resource or not any(paths.exists(f"{root}/info/{each}") for each in (resource, resource + "CODE")):
        raise UsageError(f"{WHERE}: this processor has no {resource or 'such'} allocation", f"ls {root}/info")


def parsed(text: str) -> dict[str, dict[str, str]]:
    """Schemata: {"L3": {"0": "7f0"}}; leading zeros and the order do not count."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        name, _, rest = line.strip().partition(":")
        for part in rest.split(";"):
            cache, found_value, value = part.strip().partition("=")
            if found_value:
                found.setdefault(name.strip(), {})[cache.strip()] = value.strip().lower().lstrip("0") or "0"
    return found


def _matching(directory: str, lines: list[str]) -> None:
    """A group of somebody else's must have the schemata that are asked for."""
    has = parsed(paths.read(f"{directory}/schemata").decode()) if lines else {}
    for name, values in parsed("\n".join(lines)).items():
        for cache, value in values.items():
            if has.get(name, {}).get(cache) != value:
                there = f"{name}:{cache}={has.get(name, {}).get(cache, 'nothing')}"
                raise UsageError(f"{WHERE}: the group {directory} has {there}, not {name}:{cache}={value}")


def join(group: Rdt, pid: int) -> None:
    """Make the group if need be, write its schemata, put *pid* into it. Raises StageFailed."""
    if not group.exists:
        _make(group.directory)
    for line in group.lines:
        _write(f"{group.directory}/schemata", line + "\n")
    if group.monitor:
        _make(group.monitor)
    enter(group, pid)


def enter(group: Rdt, pid: int) -> None:
    """Put *pid* into the container's group, and into what is monitored: its first process, and those of `exec`."""
    for directory in (group.directory, group.monitor):
        if directory:
            _write(f"{directory}/tasks", str(pid))


def _make(directory: str) -> None:
    try:
        posix.mkdir(directory, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise StageFailed("cgroup", f"make the resctrl group {directory}", error.errno) from None


def _write(path: str, text: str) -> None:
    try:
        files.put(path, text.encode())
    except OSError as error:
        raise StageFailed("cgroup", f"write {text.strip()!r} to {path}{_reason(path)}", error.errno) from None


def _reason(path: str) -> str:
    """What the kernel says of the last refusal. Source: resctrl.rst (last_cmd_status)."""
    root = path
    while "/" in root:
        root = root.rpartition("/")[0]
        try:
            text = paths.read(f"{root}/info/last_cmd_status").decode().strip()
            return f" ({text})" if text != "ok" else ""
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                break
    return ""


def undo(group: Rdt) -> list[str]:
    """Lines for the undo list: what we made, the monitoring group first."""
    made = [group.monitor] if group.monitor else []
    made += [group.directory] if group.ours else []
    return [f"rmdir\t{directory}" for directory in made]


def update(section: IntelRdt, identifier: str, changes: IntelRdt, root: str = "") -> None:
    """`update --l3-cache-schema`, `--mem-bw-schema`: changes by their names in the config. Raises PyrunError."""
    root = root or mount()
    for flag, line in (
        ("--l3-cache-schema", changes.get("l3CacheSchema")), ("--mem-bw-schema", changes.get("memBwSchema")),
    ):  # fmt: skip
        if not line:
            continue
        if not root:
            raise UsageError(f"{flag}: this host has no resctrl file system")
        if not section:
            raise UsageError(f"{flag}: the container was created without linux.intelRdt")
        _supported(root, line.partition(":")[0].strip())
        clos = section.get("closID") or identifier
        _write(f"{root if clos == '/' else root + '/' + clos}/schemata", line + "\n")


def stats(section: IntelRdt, identifier: str, root: str = "") -> dict[str, object]:
    """`events`: the schemata in force, the root's, and what is monitored; {} without resctrl."""
    root = root or mount()
    if not section or not root:
        return {}
    clos = section.get("closID") or identifier
    directory = root if clos == "/" else f"{root}/{clos}"
    found: dict[str, object] = {}
    for name, own, above, info in (
        ("L3", "l3_cache_schema", "l3_cache_schema_root", "l3_cache_info"),
        ("MB", "mem_bw_schema", "mem_bw_schema_root", "mem_bw_info"),
    ):
        if details := _info(f"{root}/info/{name}"):
            found[info] = details
            found[above], found[own] = _line(root, name), _line(directory, name)
    found["schemata"] = [line.strip() for line in _text(f"{directory}/schemata").splitlines() if line.strip()]
    monitored = f"{directory}/mon_groups/{identifier}" if section.get("enableMonitoring") else directory
    return {**{key: value for key, value in found.items() if value}, **_monitored(monitored)}


_INFO = {
    "L3": ("cbm_mask", "min_cbm_bits", "num_closids"),
    "MB": ("bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"),
}


def _info(directory: str) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for name in _INFO[directory.rpartition("/")[2]]:
        text = _text(f"{directory}/{name}").strip()
        if text:
            found[name] = text if name == "cbm_mask" else int(text)
    return found


def _line(directory: str, name: str) -> str:
    lines = [line.strip() for line in _text(f"{directory}/schemata").splitlines()]
    return next((line for line in lines if line.startswith(name + ":")), "")


def _text(path: str) -> str:
    try:
        return paths.read(path).decode()
    except OSError:
        return ""


def _monitored(directory: str) -> dict[str, list[dict[str, int]]]:
    """mbm_stats and cmt_stats: a row per NUMA node, as runc has them."""
    bandwidth, cache = [], []
    try:
        nodes = sorted(posix.listdir(f"{directory}/mon_data"))
    except OSError:
        return {}
    for node in nodes:
        values = {name: _text(f"{directory}/mon_data/{node}/{name}").strip() for name in _MONITORED}
        numbers = {name: int(text) for name, text in values.items() if text.isdecimal()}
        if "llc_occupancy" in numbers:
            cache.append({"llc_occupancy": numbers.pop("llc_occupancy")})
        if numbers:
            bandwidth.append(numbers)
    return {key: rows for key, rows in (("mbm_stats", bandwidth), ("cmt_stats", cache)) if rows}


_MONITORED = ("mbm_total_bytes", "mbm_local_bytes", "llc_occupancy")  # files, and runc's keys as well
