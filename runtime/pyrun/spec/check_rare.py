"""The rules of config.json's rare sections, loaded when such a section is there (check_rules.Rare). Cold.

One table a section, as in check_table.py. Source: runtime-spec config-linux.md, config.md#linux-process; man 2
sched_setattr, 2 ioprio_set, 2 set_mempolicy. Not here: id mappings and time offsets (check_ids.py).
"""

from __future__ import annotations

from . import scheduling
from .check_rules import (
    Each,
    Fields,
    Map,
    Whole,
    Word,
    flag,
    name,
    number_list,
    one_line,
    text,
    wrong,
)
from .check_table import UINT32, UINT64, WEIGHT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.spec.oci import IoPriority, MemoryPolicy, Object, Scheduler


# ── process ────────────────────────────────────────────────────────────────────────────────────────


def _scheduler(value: Scheduler, path: str) -> None:
    policy, priority = value["policy"], value.get("priority", 0)
    runtime, deadline, period = (value.get("runtime", 0), value.get("deadline", 0), value.get("period", 0))
    if policy in ("SCHED_FIFO", "SCHED_RR"):
        if not 1 <= priority <= 99:
            raise wrong(f"{path}.priority", f"must be from 1 to 99 for {policy}", priority)
    elif priority:
        raise wrong(f"{path}.priority", "is for SCHED_FIFO and SCHED_RR only")
    if policy != "SCHED_DEADLINE":
        for key in ("runtime", "deadline", "period"):
            if value.get(key):
                raise wrong(f"{path}.{key}", "is for SCHED_DEADLINE only")
    elif not 0 < runtime <= deadline:
        raise wrong(f"{path}.runtime", f"must be from 1 to the deadline {deadline}", runtime)
    elif period and deadline > period:
        raise wrong(f"{path}.deadline", f"must not be above the period {period}", deadline)


SCHEDULER = Fields(
    {
        "policy": Word(*scheduling.POLICIES),
        "nice": Whole(-20, 19),
        "priority": Whole(0, 99),
        "flags": Each(Word(*scheduling.SCHEDULER_FLAGS)),
        "runtime": UINT64,
        "deadline": UINT64,
        "period": UINT64,
    },
    needed="policy",
    then=_scheduler,
)


def _io_priority(value: IoPriority, path: str) -> None:
    if value["class"] != "IOPRIO_CLASS_IDLE" and value.get("priority") is None:
        raise wrong(f"{path}.priority", f"is required for {value['class']}")


IO_PRIORITY = Fields(
    {"class": Word(*scheduling.IO_CLASSES), "priority": Whole(0, scheduling.IO_PRIORITY_MAX)},
    needed="class",
    then=_io_priority,
)

# ── network devices ────────────────────────────────────────────────────────────────────────────────

NAME_BYTES_MAX = 15  # IFNAMSIZ without the final NUL


def _device_name(value: object, path: str) -> None:
    name(value, path)
    given = str(value)
    if given in (".", "..") or any(c in "/:" or c.isspace() for c in given):
        raise wrong(path, "must be a network device's name: no slash, colon or blank", value)
    if len(given.encode("utf-8", "surrogatepass")) > NAME_BYTES_MAX:
        raise wrong(path, f"must have at most {NAME_BYTES_MAX} bytes", value)


def _new_device_name(value: object, path: str) -> None:
    if value == "":
        return  # the same as absent
    _device_name(value, path)
    if "%" in str(value).replace("%d", "", 1):
        raise wrong(path, "must have no % but that of one %d", value)


NET_DEVICES = Map(Fields({"name": _new_device_name}), key_rule=_device_name)

# ── resources ──────────────────────────────────────────────────────────────────────────────────────

_NUMBERS = {"major": Whole(0, 4095), "minor": Whole(0, 1048575)}


def _one_of(*keys: str) -> Callable[[Object, str], None]:
    def check(value: Object, path: str) -> None:
        if not any(key in value for key in keys):
            raise wrong(path, f"must have {' or '.join(keys)}")

    return check


WEIGHT_DEVICES = Each(
    Fields(
        {**_NUMBERS, "weight": WEIGHT, "leafWeight": WEIGHT},
        needed="major minor",
        then=_one_of("weight", "leafWeight"),
    )
)
THROTTLE_DEVICES = Each(Fields({**_NUMBERS, "rate": UINT64}, needed="major minor rate"))


def _page_size(value: object, path: str) -> None:
    text(value, path)
    number, unit = str(value)[:-2], str(value)[-2:]
    if unit not in ("KB", "MB", "GB") or not (number.isascii() and number.isdigit()) or number[0] == "0":
        raise wrong(path, "must be a size such as 64KB, 2MB or 1GB", value)


HUGEPAGE_LIMITS = Each(Fields({"pageSize": _page_size, "limit": UINT64}, needed="pageSize limit"))
NETWORK = Fields(
    {
        "classID": UINT32,
        "priorities": Each(Fields({"name": _device_name, "priority": UINT32}, needed="name priority")),
    }
)
RDMA = Map(Fields({"hcaHandles": UINT32, "hcaObjects": UINT32}, then=_one_of("hcaHandles", "hcaObjects")))


def _cgroup_file(value: object, path: str) -> None:
    name(value, path)
    controller, dot, parameter = str(value).partition(".")
    if not controller or not dot or not parameter or "/" in str(value) or not str(value).isprintable():
        raise wrong(path, "must be named CONTROLLER.PARAMETER, as the files of a cgroup are")


UNIFIED = Map(text, key_rule=_cgroup_file)

# ── the rest of linux ──────────────────────────────────────────────────────────────────────────────


def _clos(value: object, path: str) -> None:
    one_line(value, path)
    if value in (".", "..") or ("/" in str(value) and value != "/"):
        raise wrong(path, "must be the name of one resctrl directory, or /", value)


def _bandwidth(value: object, path: str) -> None:
    one_line(value, path)
    if value != "" and str(value)[:3] != "MB:":
        raise wrong(path, "must begin with MB:", value)


INTEL_RDT = Fields(
    {
        "closID": _clos,
        "schemata": Each(one_line),
        "l3CacheSchema": one_line,
        "memBwSchema": _bandwidth,
        "enableMonitoring": flag,
    }
)


def _memory_policy(value: MemoryPolicy, path: str) -> None:
    mode, flags, nodes = value["mode"], value.get("flags") or (), value.get("nodes", "").strip(", ")
    if mode in scheduling.NO_NODES and nodes:
        raise wrong(f"{path}.nodes", f"must be empty for {mode}", nodes)
    if mode not in (*scheduling.NO_NODES, "MPOL_PREFERRED") and not nodes:
        raise wrong(f"{path}.nodes", f"must name a memory node for {mode}")
    if {"MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"} <= set(flags):
        raise wrong(f"{path}.flags", "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude one another")


MEMORY_POLICY = Fields(
    {
        "mode": Word(*scheduling.MEMORY_MODES),
        "nodes": number_list,
        "flags": Each(Word(*scheduling.MEMORY_FLAGS)),
    },
    needed="mode",
    then=_memory_policy,
)

# The specification knows no flags yet: whoever applies it refuses them.
PERSONALITY = Fields({"domain": Word(*scheduling.DOMAINS), "flags": Each(text)}, needed="domain")
