"""The rules of config.json as tables: field, kind, range; below each object's fields, what holds between them.

Read it beside runtime-spec config.md and config-linux.md: the order is theirs. `Rare` sections are in check_rare.py and
check_ids.py. Not here: the kinds of rules (check_rules.py), what holds across sections (check.py).
"""

from __future__ import annotations

from pyrun.safe import is_number

from . import values
from .check_rules import (
    Each,
    Fields,
    Map,
    Rare,
    Whole,
    Word,
    absolute,
    absolute_if_any,
    flag,
    name,
    number_list,
    text,
    wrong,
)

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Cpu, Device, Memory, Rlimit

# ── kinds of values ────────────────────────────────────────────────────────────────────────────────

UINT64, UINT32 = Whole(0, (1 << 64) - 1), Whole(0, (1 << 32) - 1)
WEIGHT = Whole(10, 1000, 0)  # 0 is none given
ID = Whole(0, (1 << 32) - 2)  # -1 means "leave it as it is" to the kernel
LIMIT = Whole(-1, (1 << 63) - 1)  # -1 is no limit
DEVICE = Whole(-1, (1 << 32) - 1)  # -1 is any
NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
HOOK_KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
PROPAGATIONS = ("private", "shared", "slave", "unbindable")


def _version(value: object, path: str) -> None:
    text(value, path)
    core, _, build = str(value).partition("+")
    numbers, dash, suffix = core.partition("-")
    parts = numbers.split(".")
    good = len(parts) == 3 and all(is_number(part) and str(int(part[:9])) == part for part in parts)
    for words in ([suffix] if dash else []) + ([build] if build else []):
        plain = words.replace(".", "").replace("-", "")
        good = good and all(words.split(".")) and words.isascii() and (plain.isalnum() or not plain)
    if not good:
        raise wrong(path, "must be a version such as 1.3.0", value)
    if parts[0] != "1":
        raise wrong(path, "must be a version 1.x of the runtime specification", value)


def variable(value: object, path: str) -> None:
    """An entry of an environment."""
    text(value, path)
    if str(value).find("=") < 1:
        raise wrong(path, "must be NAME=VALUE", value)


def _access(value: object, path: str) -> None:
    if type(value) is not str or not value or value.strip("rwm"):
        raise wrong(path, "must be made of the letters r, w and m", value)


def _cgroups_path(value: object, path: str) -> None:
    text(value, path)
    if ".." in str(value).split("/") or not str(value).isprintable():
        raise wrong(path, "must stay below the cgroup hierarchy, in printable characters", value)


def _host_name(value: object, path: str) -> None:
    text(value, path)
    if len(str(value).encode("utf-8", "surrogatepass")) > 64:
        raise wrong(path, "must have at most 64 bytes", value)


# ── what holds within one object ───────────────────────────────────────────────────────────────────


def _rlimit(limit: Rlimit, path: str) -> None:
    if limit["soft"] > limit["hard"]:
        raise wrong(f"{path}.soft", f"must not be above the hard limit {limit['hard']}", limit["soft"])


def _device(device: Device, path: str) -> None:
    for key in ("major", "minor") if device["type"] != "p" else ():
        if key not in device:
            raise wrong(f"{path}.{key}", f"is required for a device of type {device['type']}")


def _memory(memory: Memory, path: str) -> None:
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if limit > 0 and 0 < swap < limit:
        raise wrong(
            f"{path}.swap", f"is memory and swap together, so not below the memory limit {limit}", swap
        )


def _cpu(cpu: Cpu, path: str) -> None:
    for part, least, whole, most in (
        ("burst", cpu.get("burst", 0), "quota", cpu.get("quota", 0)),
        ("realtimeRuntime", cpu.get("realtimeRuntime", 0), "realtimePeriod", cpu.get("realtimePeriod", 0)),
    ):
        if 0 < most < least:
            raise wrong(f"{path}.{part}", f"must not be above {whole} {most}", least)


# ── the tables ─────────────────────────────────────────────────────────────────────────────────────

PROCESS = Fields(
    {
        "terminal": flag,
        "user": Fields({"uid": ID, "gid": ID, "umask": Whole(0, 0o777), "additionalGids": Each(ID, most=65536)}),
        "args": Each(text),
        "env": Each(variable),
        "cwd": absolute,
        "capabilities": Fields(dict.fromkeys(values.CAPABILITY_SETS, Each(text))),
        "rlimits": Each(
            Fields(
                {
                    "type": Word(*[f"RLIMIT_{limit.upper()}" for limit in values.RLIMITS]),
                    "soft": UINT64,
                    "hard": UINT64,
                },
                needed="type soft hard",
                then=_rlimit,
            ),
            unique="type",
        ),
        "noNewPrivileges": flag,
        "apparmorProfile": text,
        "selinuxLabel": text,
        "oomScoreAdj": Whole(-1000, 1000),
        "scheduler": Rare("SCHEDULER"),
        "ioPriority": Rare("IO_PRIORITY"),
        "execCPUAffinity": Fields({"initial": number_list, "final": number_list}),
    },
    needed="cwd args",
)  # fmt: skip
CONSOLE_SIZE = Fields({"height": Whole(0, 65535), "width": Whole(0, 65535)}, needed="height width")

MAPPINGS = Rare("MAPPINGS", "check_ids", empty=[])
MOUNTS = Each(
    Fields(
        {
            "destination": name, "type": text, "source": text, "options": Each(text),
            "uidMappings": MAPPINGS, "gidMappings": MAPPINGS,
        },
        needed="destination",
    )
)  # fmt: skip

HOOKS = Each(
    Fields(
        {"path": absolute, "args": Each(text), "env": Each(text), "timeout": Whole(1, (1 << 31) - 1)},
        needed="path",
    )
)

THROTTLE = Rare("THROTTLE_DEVICES", empty=[])
RESOURCES = Fields(
    {
        "devices": Each(
            Fields(
                {"allow": flag, "type": Word("a", "b", "c", ""), "major": DEVICE, "minor": DEVICE, "access": _access},
                needed="allow access",
            )
        ),
        "memory": Fields(
            {
                "limit": LIMIT, "reservation": LIMIT, "swap": LIMIT, "kernel": LIMIT, "kernelTCP": LIMIT,
                "swappiness": Whole(0, 100), "disableOOMKiller": flag, "useHierarchy": flag, "checkBeforeUpdate": flag,
            },
            then=_memory,
        ),
        "cpu": Fields(
            {
                "shares": UINT64, "quota": Whole(1000, (1 << 63) - 1, -1, 0), "burst": UINT64,
                "period": Whole(1000, 1_000_000, 0), "realtimeRuntime": LIMIT, "realtimePeriod": UINT64,
                "cpus": number_list, "mems": number_list, "idle": Whole(0, 1),
            },
            then=_cpu,
        ),
        "pids": Fields({"limit": LIMIT}),
        "blockIO": Fields(
            {
                "weight": WEIGHT, "leafWeight": WEIGHT, "weightDevice": Rare("WEIGHT_DEVICES", empty=[]),
                "throttleReadBpsDevice": THROTTLE, "throttleWriteBpsDevice": THROTTLE,
                "throttleReadIOPSDevice": THROTTLE, "throttleWriteIOPSDevice": THROTTLE,
            }
        ),
        "hugepageLimits": Rare("HUGEPAGE_LIMITS", empty=[]),
        "network": Rare("NETWORK", empty={}),
        "rdma": Rare("RDMA", empty={}),
        "unified": Rare("UNIFIED", empty={}),
    }
)  # fmt: skip

LINUX = Fields(
    {
        "namespaces": Each(Fields({"type": Word(*NAMESPACES), "path": absolute_if_any}, needed="type"), unique="type"),
        "uidMappings": MAPPINGS,
        "gidMappings": MAPPINGS,
        "timeOffsets": Rare("TIME_OFFSETS", "check_ids", empty={}),
        "devices": Each(
            Fields(
                {
                    "type": Word("c", "b", "u", "p"), "path": absolute, "uid": ID, "gid": ID,
                    "fileMode": Whole(0, 0o177777), "major": Whole(0, 4095), "minor": Whole(0, 1048575),
                },
                needed="type path",
                then=_device,
            )
        ),
        "netDevices": Rare("NET_DEVICES", empty={}),
        "cgroupsPath": _cgroups_path,
        "resources": RESOURCES,
        "rootfsPropagation": Word(*PROPAGATIONS, *[f"r{word}" for word in PROPAGATIONS], ""),
        "seccomp": Fields({}),
        "sysctl": Map(text),
        "maskedPaths": Each(absolute),
        "readonlyPaths": Each(absolute),
        "mountLabel": text,
        "intelRdt": Rare("INTEL_RDT"),
        "memoryPolicy": Rare("MEMORY_POLICY"),
        "personality": Rare("PERSONALITY"),
    }
)  # fmt: skip

CONFIG = Fields(
    {
        "ociVersion": _version,
        "root": Fields({"path": name, "readonly": flag}, needed="path"),
        "process": PROCESS,
        "hostname": _host_name,
        "domainname": _host_name,
        "mounts": MOUNTS,
        "hooks": Fields(dict.fromkeys(HOOK_KINDS, HOOKS)),
        "annotations": Map(text),
        "linux": LINUX,
    },
    needed="ociVersion root process",
)
