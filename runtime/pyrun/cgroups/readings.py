"""Reading cgroup files for statistics: what is absent is nothing, `max` is the largest number there is.

Source: cgroup-v1/*.rst, cgroup-v2.rst (interface file conventions).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypedDict, TypeVar

from pyrun.store import paths

UNLIMITED = (1 << 64) - 1
# Of v1's cpuset; v2 has none of them, and runc tells 0.
CPUSET_SWITCHES = (
    "cpu_exclusive mem_hardwall mem_exclusive memory_migrate memory_spread_page memory_spread_slab memory_pressure "
    "sched_load_balance sched_relax_domain_level"
).split()
exists = paths.exists

Pressure = dict[str, dict[str, float]]  # of `some` and of `full`: avg10, avg60, avg300, total


class CpuUsage(TypedDict, total=False):
    """In nanoseconds; percpu*: of each processor."""

    total: int
    percpu: list[int]
    percpu_kernel: list[int]
    percpu_user: list[int]
    kernel: int
    user: int


class Throttling(TypedDict, total=False):
    """throttledTime: in nanoseconds."""

    periods: int
    throttledPeriods: int
    throttledTime: int


class Cpu(TypedDict, total=False):
    """psi: of cgroup v2, here and below."""

    usage: CpuUsage
    throttling: Throttling
    psi: Pressure


class MemoryUse(TypedDict, total=False):
    """In bytes; failcnt: how often the limit was met."""

    limit: int
    failcnt: int
    usage: int
    max: int


class Memory(TypedDict, total=False):
    """swap: memory and swap together; raw: memory.stat."""

    cache: int
    usage: MemoryUse
    swap: MemoryUse
    kernel: MemoryUse
    kernelTCP: MemoryUse
    raw: dict[str, int]
    psi: Pressure


class BlkioEntry(TypedDict, total=False):
    """op: Read, Write ..."""

    major: int
    minor: int
    op: str
    value: int


class Stats(TypedDict):
    """What a container uses, as `runc events` has it. Most of what is 0 or empty is left out. blkio: tables by name,
    and psi; hugetlb: by size of a page."""

    cpu: Cpu
    cpuset: dict[str, list[int] | int]
    memory: Memory
    pids: dict[str, int]
    blkio: dict[str, list[BlkioEntry] | Pressure]
    hugetlb: dict[str, dict[str, int]]


Entries = TypeVar("Entries", bound=Mapping[str, object])


def text(path: str) -> str:
    """The whole file, or ""."""
    try:
        return paths.read(path).decode("utf-8", "replace")
    except OSError:
        return ""


def word(path: str) -> str:
    """The file without its newline."""
    return text(path).strip()


def number(path: str) -> int:
    """The file's one number; 0 if there is none."""
    found = word(path)
    if found == "max":
        return UNLIMITED
    return int(found) if found.removeprefix("-").isdecimal() else 0


def keyed(path: str) -> dict[str, int]:
    """A file of lines `key number`."""
    found = {}
    for line in text(path).splitlines():
        key, _, value = line.partition(" ")
        if value.isdecimal():
            found[key] = int(value)
    return found


def some(entries: Entries) -> Entries:
    """Without what is 0 or empty: runc leaves that out of its JSON."""
    kept: Any = {key: value for key, value in entries.items() if value not in (0, "", [], {})}
    left: Entries = kept
    return left


def listed(ranges: str) -> list[int]:
    """`0-2,7` -> 0, 1, 2, 7."""
    found: list[int] = []
    for part in ranges.split(",") if ranges else []:
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def pids(directory: str) -> dict[str, int]:
    """current, and limit unless there is none."""
    limit = number(f"{directory}/pids.max") if directory else 0
    current = number(f"{directory}/pids.current") if directory else 0
    if directory and not exists(f"{directory}/pids.current"):  # the controller is not ours: count
        current = len(text(f"{directory}/cgroup.procs").split())
    return some({"current": current, "limit": 0 if limit == UNLIMITED else limit})


def blkio_entries(path: str) -> list[BlkioEntry]:
    """`8:0 Read 12` a line, or `8:0 12`; totals are left out."""
    found = []
    for line in text(path).splitlines():
        fields = line.replace(":", " ").split()
        if len(fields) not in (3, 4) or fields[0] == "Total":
            continue
        entry: BlkioEntry = {"major": int(fields[0]), "minor": int(fields[1]), "value": int(fields[-1])}
        if len(fields) == 4:
            entry["op"] = fields[2]
        found.append(some(entry))
    return found


def huge_page_sizes(directory: str = "/sys/kernel/mm/hugepages") -> list[str]:
    """2MB, 1GB ..., as the controller's files are named."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = []
    for name in sorted(names):
        kilobytes = name.removeprefix("hugepages-").removesuffix("kB")
        if kilobytes.isdecimal():
            size = int(kilobytes)
            if size >= 1 << 20:
                found.append(f"{size >> 20}GB")
            else:
                found.append(f"{size >> 10}MB" if size >= 1 << 10 else f"{size}KB")
    return found


def ticks_per_second() -> int:
    """The unit of cpuacct.stat (USER_HZ)."""
    return os.sysconf("SC_CLK_TCK")
