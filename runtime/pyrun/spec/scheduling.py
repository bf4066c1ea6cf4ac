"""The words of config.json about scheduling, as the numbers of the system calls: scheduler, ioPriority,
execCPUAffinity, memoryPolicy, personality.

Errors name the path in config.json and the rule. Not here: what is wrong with a value only the kernel can tell.
Source: runtime-spec config.md#linux-process, config-linux.md#memory-policy, config-linux.md#personality; linux/sched.h,
linux/ioprio.h, linux/mempolicy.h; which combinations are refused: runc libcontainer/configs/validate.
"""

from __future__ import annotations

from pyrun.errors import UsageError

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Each word with its number; check_rare.py takes the words alone.
POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}  # fmt: skip
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08, "SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}  # fmt: skip
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IO_CLASS_SHIFT, IO_PRIORITY_MAX = 13, 7
MEMORY_MODES = {
    "MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5, "MPOL_WEIGHTED_INTERLEAVE": 6,
}  # fmt: skip
MEMORY_FLAGS = {
    "MPOL_F_STATIC_NODES": 1 << 15,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_NUMA_BALANCING": 1 << 13,
}
NO_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL")
DOMAINS = {"LINUX": 0x0000, "LINUX32": 0x0008}
_ID_MAX = 64 * 1024 - 1  # of a processor or memory node; as in csrc/init_scheduling.c


def wrong(path: str, rule: str) -> UsageError:
    """The error for a field of config.json."""
    return UsageError(f"config.json: {path}: {rule}")


def _known(value: object, table: dict[str, int], path: str) -> int:
    if not isinstance(value, str) or value not in table:
        raise wrong(path, f"must be one of {', '.join(table)}, not {value!r:.60}")
    return table[value]


def _object(value: object, path: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise wrong(path, f"must be an object, not {value!r:.60}")
    return value


def _number(value: object, path: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise wrong(path, f"must be a whole number from {least} to {most}, not {value!r:.60}")
    return value


def _flags(value: object, table: dict[str, int], path: str) -> int:
    bits = 0
    for number, name in enumerate(value if isinstance(value, list) else []):
        bits |= _known(name, table, f"{path}[{number}]")
    return bits


def ranges(text: object, path: str) -> list[int]:
    """`0-3,7` as [0, 3, 7, 7]. Spaces and empty elements are allowed, as in runc. Raises UsageError."""
    found: list[int] = []
    if not isinstance(text, str):
        raise wrong(path, f"must be a list of numbers and ranges such as 0-3,7, not {text!r:.60}")
    for item in text.split(","):
        first, dash, last = item.strip().partition("-")
        if not first and not dash:
            continue
        last = last if dash else first
        for word in (first, last):
            if not (word.isascii() and word.isdigit()) or len(word) > 9 or int(word) > _ID_MAX:
                raise wrong(path, f"must be a list of numbers up to {_ID_MAX} and ranges, not {text!r:.60}")
        if int(first) > int(last):
            raise wrong(path, f"the range {item.strip()!r} ends before it begins")
        found += [int(first), int(last)]
    if text and not found:
        raise wrong(path, f"no number in {text!r:.60}")
    return found


def scheduler(value: object) -> tuple[int, ...]:
    """process.scheduler as policy, nice, priority, flags, runtime, deadline, period (times signed, for init)."""
    path = "process.scheduler"
    given = _object(value, path)
    policy = _known(given.get("policy"), POLICIES, f"{path}.policy")
    timed = given["policy"] == "SCHED_DEADLINE"
    nice = _number(given.get("nice") or 0, f"{path}.nice", -(1 << 31), (1 << 31) - 1)
    if given["policy"] in ("SCHED_OTHER", "SCHED_BATCH"):
        _number(nice, f"{path}.nice", -20, 19)
    priority = _number(given.get("priority") or 0, f"{path}.priority", 0, (1 << 31) - 1)
    if priority and given["policy"] not in ("SCHED_FIFO", "SCHED_RR"):
        raise wrong(f"{path}.priority", f"is for SCHED_FIFO and SCHED_RR, not for {given['policy']}")
    flags = _flags(given.get("flags"), SCHEDULER_FLAGS, f"{path}.flags")
    times = []
    for name in ("runtime", "deadline", "period"):
        time_ns = _number(given.get(name) or 0, f"{path}.{name}", 0, (1 << 64) - 1)
        if time_ns and not timed:
            raise wrong(f"{path}.{name}", f"is for SCHED_DEADLINE, not for {given['policy']}")
        times.append(time_ns - (1 << 64) if time_ns >= 1 << 63 else time_ns)
    return (policy, nice, priority, flags, *times)


def io_priority(value: object) -> int:
    """process.ioPriority as ioprio_set wants it."""
    given = _object(value, "process.ioPriority")
    kind = _known(given.get("class"), IO_CLASSES, "process.ioPriority.class")
    priority = _number(given.get("priority") or 0, "process.ioPriority.priority", 0, IO_PRIORITY_MAX)
    return kind << _IO_CLASS_SHIFT | priority


def memory_policy(value: object) -> tuple[int, ...]:
    """linux.memoryPolicy as mode and flags, then ranges of nodes."""
    path = "linux.memoryPolicy"
    given = _object(value, path)
    mode = _known(given.get("mode"), MEMORY_MODES, f"{path}.mode")
    flags = _flags(given.get("flags"), MEMORY_FLAGS, f"{path}.flags")
    nodes = ranges(given.get("nodes") or "", f"{path}.nodes")
    if nodes and given["mode"] in NO_NODES:
        raise wrong(f"{path}.nodes", f"{given['mode']} takes no nodes, not {given['nodes']!r:.60}")
    if not nodes and given["mode"] not in (*NO_NODES, "MPOL_PREFERRED"):
        raise wrong(f"{path}.nodes", f"{given['mode']} needs at least one node")
    return (mode | flags, *nodes)


def personality(value: object) -> int:
    """linux.personality as personality(2) wants it. Its flags have no values yet, so any is an error."""
    given = _object(value, "linux.personality")
    domain = _known(given.get("domain"), DOMAINS, "linux.personality.domain")
    if names := given.get("flags"):
        raise wrong("linux.personality.flags", f"must be empty, there are none yet, not {names!r:.60}")
    return domain


# What each section becomes: the kind of operation, and its arguments.
WORDS: dict[str, Callable[[object], tuple[Any, ...]]] = {
    "scheduler": lambda value: ("SCHEDULER", *scheduler(value)),
    "ioPriority": lambda value: ("IO_PRIORITY", io_priority(value)),
    "memoryPolicy": lambda value: ("MEMORY_POLICY", *memory_policy(value)),
    "personality": lambda value: ("PERSONALITY", personality(value)),
}


def cpu_affinity(value: object, moment: str) -> list[int]:
    """process.execCPUAffinity.initial or .final as ranges; nothing if that was left open."""
    given = _object(value or {}, "process.execCPUAffinity")
    return ranges(given.get(moment) or "", f"process.execCPUAffinity.{moment}")
