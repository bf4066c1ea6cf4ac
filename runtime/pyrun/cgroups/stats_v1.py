"""What cgroup v1 knows of a container's use, in the shape of `runc events`.

Every file may be absent (a controller that is not mounted, a kernel without swap accounting): its numbers are then
left out or 0, as runc has them. Source: cgroup-v1/*.rst, runc types/events.go. v2: stats_v2.py.
"""

from __future__ import annotations

from typing import Literal

from . import readings
from .layout import Group
from .readings import BlkioEntry, Pressure, blkio_entries, keyed, number, word

# (key in the document, files of which the first set that is there counts: BFQ, CFQ, without a scheduler)
_BLKIO = (
    ("ioServiceBytesRecursive", "io_service_bytes"),
    ("ioServicedRecursive", "io_serviced"),
    ("ioQueueRecursive", "io_queued"),
    ("ioServiceTimeRecursive", "io_service_time"),
    ("ioWaitTimeRecursive", "io_wait_time"),
    ("ioMergedRecursive", "io_merged"),
    ("ioTimeRecursive", "time"),
    ("sectorsRecursive", "sectors"),
)
_BLKIO_FILES = (
    "blkio.bfq.{}_recursive",
    "blkio.{}_recursive",
    "blkio.throttle.{}_recursive",
    "blkio.throttle.{}",
)


_MEMORY: tuple[tuple[Literal["usage", "swap", "kernel", "kernelTCP"], str], ...] = (
    ("usage", ""),
    ("swap", "memsw."),
    ("kernel", "kmem."),
    ("kernelTCP", "kmem.tcp."),
)


def collect(groups: list[Group]) -> readings.Stats:
    """cpu, cpuset, memory, pids, blkio, hugetlb."""
    place = {name: directory for names, directory in groups for name in names.split(",")}
    return {
        "cpu": _cpu(place.get("cpu", ""), place.get("cpuacct", "")),
        "cpuset": _cpuset(place.get("cpuset", "")),
        "memory": _memory(place.get("memory", "")),
        "pids": readings.pids(place.get("pids", "")),
        "blkio": _blkio(place.get("blkio", "")),
        "hugetlb": _hugetlb(place.get("hugetlb", "")),
    }


def _cpu(cpu: str, cpuacct: str) -> readings.Cpu:
    ticks = keyed(f"{cpuacct}/cpuacct.stat") if cpuacct else {}
    per_tick = 1_000_000_000 // readings.ticks_per_second()
    usage: readings.CpuUsage = {
        "total": number(f"{cpuacct}/cpuacct.usage"),
        "percpu": _numbers(f"{cpuacct}/cpuacct.usage_percpu"),
        "percpu_kernel": _numbers(f"{cpuacct}/cpuacct.usage_percpu_sys"),
        "percpu_user": _numbers(f"{cpuacct}/cpuacct.usage_percpu_user"),
    }
    usage = readings.some(usage)
    # always there, as runc has them
    usage["kernel"], usage["user"] = ticks.get("system", 0) * per_tick, ticks.get("user", 0) * per_tick
    throttled = keyed(f"{cpu}/cpu.stat")
    throttling: readings.Throttling = {
        "periods": throttled.get("nr_periods", 0),
        "throttledPeriods": throttled.get("nr_throttled", 0),
        "throttledTime": throttled.get("throttled_time", 0),
    }
    found: readings.Cpu = {"usage": usage, "throttling": readings.some(throttling)}
    return readings.some(found)


def _numbers(path: str) -> list[int]:
    return [int(each) for each in word(path).split() if each.isdecimal()]


def _cpuset(directory: str) -> dict[str, list[int] | int]:
    found: dict[str, list[int] | int] = {
        "cpus": readings.listed(word(f"{directory}/cpuset.cpus")),
        "mems": readings.listed(word(f"{directory}/cpuset.mems")),
    }
    switches = {name: number(f"{directory}/cpuset.{name}") for name in readings.CPUSET_SWITCHES}
    return readings.some(found) | switches


def _memory(directory: str) -> readings.Memory:
    raw = keyed(f"{directory}/memory.stat")
    found: readings.Memory = {"cache": raw.get("cache", 0)}
    for key, prefix in _MEMORY:
        usage = f"{directory}/memory.{prefix}usage_in_bytes"
        if directory and readings.exists(usage):
            entry: readings.MemoryUse = {
                "usage": number(usage),
                "max": number(f"{directory}/memory.{prefix}max_usage_in_bytes"),
            }
            always: readings.MemoryUse = {
                "limit": number(f"{directory}/memory.{prefix}limit_in_bytes"),
                "failcnt": number(f"{directory}/memory.{prefix}failcnt"),
            }
            found[key] = {**always, **readings.some(entry)}
    found["raw"] = raw
    return readings.some(found)


def _blkio(directory: str) -> dict[str, list[BlkioEntry] | Pressure]:
    """The first scheduler's files that are there; each key from the same family, as runc looks for them."""
    for form in _BLKIO_FILES:
        if directory and readings.exists(f"{directory}/{form.format('io_serviced')}"):
            return readings.some(
                {key: blkio_entries(f"{directory}/{form.format(name)}") for key, name in _BLKIO}
            )
    return {}


def _hugetlb(directory: str) -> dict[str, dict[str, int]]:
    found = {}
    for size in readings.huge_page_sizes() if directory else ():
        prefix = f"{directory}/hugetlb.{size}"
        prefix += ".rsvd" if readings.exists(f"{prefix}.rsvd.usage_in_bytes") else ""
        used = {"usage": number(f"{prefix}.usage_in_bytes"), "max": number(f"{prefix}.max_usage_in_bytes")}
        found[size] = readings.some(used) | {"failcnt": number(f"{prefix}.failcnt")}
    return found
