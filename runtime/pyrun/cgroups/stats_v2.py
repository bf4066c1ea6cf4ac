"""What cgroup v2 knows of a container's use, in the shape of `runc events`, which is v1's.

swap is memory and swap together, as v1 counts; io.stat's words are put into v1's tables; pressure is v2's alone.
Every file may be absent. Source: cgroup-v2.rst, accounting/psi.rst, runc types/events.go. v1: stats_v1.py.
"""

from __future__ import annotations

from . import readings
from .layout import Group
from .readings import UNLIMITED, BlkioEntry, Pressure, keyed, number, word

_IO = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}


def collect(groups: list[Group]) -> readings.Stats:
    """cpu, cpuset, memory, pids, blkio, hugetlb."""
    directory = next(directory for names, directory in groups if names == "unified")
    return {
        "cpu": _cpu(directory),
        "cpuset": _cpuset(directory),
        "memory": _memory(directory),
        "pids": readings.pids(directory),
        "blkio": _blkio(directory),
        "hugetlb": _hugetlb(directory),
    }


def _cpu(directory: str) -> readings.Cpu:
    stat = keyed(f"{directory}/cpu.stat")
    total: readings.CpuUsage = {"total": stat.get("usage_usec", 0) * 1000}
    usage = readings.some(total)
    usage["kernel"], usage["user"] = stat.get("system_usec", 0) * 1000, stat.get("user_usec", 0) * 1000
    throttling: readings.Throttling = {
        "periods": stat.get("nr_periods", 0),
        "throttledPeriods": stat.get("nr_throttled", 0),
        "throttledTime": stat.get("throttled_usec", 0) * 1000,
    }
    pressure = _pressure(f"{directory}/cpu.pressure")
    found: readings.Cpu = {"usage": usage, "throttling": readings.some(throttling), "psi": pressure}
    return readings.some(found)


def _cpuset(directory: str) -> dict[str, list[int] | int]:
    """v2 says which are in effect; v1's switches are not there, and 0."""
    found: dict[str, list[int] | int] = {
        "cpus": readings.listed(word(f"{directory}/cpuset.cpus.effective")),
        "mems": readings.listed(word(f"{directory}/cpuset.mems.effective")),
    }
    return readings.some(found) | dict.fromkeys(readings.CPUSET_SWITCHES, 0)


def _memory(directory: str) -> readings.Memory:
    raw = keyed(f"{directory}/memory.stat")
    found: readings.Memory = {
        "cache": raw.get("file", 0),
        "raw": raw,
        "psi": _pressure(f"{directory}/memory.pressure"),
    }
    if readings.exists(f"{directory}/memory.current"):
        usage, limit = number(f"{directory}/memory.current"), number(f"{directory}/memory.max")
        events = keyed(f"{directory}/memory.events")
        more: readings.MemoryUse = {"usage": usage, "max": number(f"{directory}/memory.peak")}
        found["usage"] = {"limit": limit, "failcnt": events.get("max", 0), **readings.some(more)}
        if readings.exists(f"{directory}/memory.swap.current"):
            swap_limit = number(f"{directory}/memory.swap.max")
            both: readings.MemoryUse = {"usage": usage + number(f"{directory}/memory.swap.current")}
            whole = UNLIMITED if UNLIMITED in (limit, swap_limit) else limit + swap_limit
            found["swap"] = {"limit": whole, "failcnt": 0, **readings.some(both)}
    return readings.some(found)


def _blkio(directory: str) -> dict[str, list[BlkioEntry] | Pressure]:
    tables: dict[str, list[BlkioEntry]] = {}
    for line in readings.text(f"{directory}/io.stat").splitlines():
        device, *items = line.split(" ")
        major, _, minor = device.partition(":")
        if not major.isdecimal() or not minor.isdecimal():
            continue
        for item in items:
            key, _, value = item.partition("=")
            if key in _IO and value.isdecimal():
                table, operation = _IO[key]
                entry: BlkioEntry = {"major": int(major), "minor": int(minor), "value": int(value)}
                tables.setdefault(table, []).append({**readings.some(entry), "op": operation})
    return readings.some({**tables, "psi": _pressure(f"{directory}/io.pressure")})


def _hugetlb(directory: str) -> dict[str, dict[str, int]]:
    found = {}
    for size in readings.huge_page_sizes():
        prefix = f"{directory}/hugetlb.{size}"
        if readings.exists(f"{prefix}.current"):
            current = (
                f"{prefix}.rsvd.current" if readings.exists(f"{prefix}.rsvd.current") else f"{prefix}.current"
            )
            failed = keyed(f"{prefix}.events").get("max", 0)
            found[size] = readings.some({"usage": number(current)}) | {"failcnt": failed}
    return found


def _pressure(path: str) -> Pressure:
    """PSI: {"some": {"avg10": 0.0, ..., "total": 0}, "full": {...}}; {} where the kernel does not tell."""
    found = {}
    for line in readings.text(path).splitlines():
        kind, *items = line.split(" ")
        pairs = [item.partition("=") for item in items]
        found[kind] = {key: int(value) if key == "total" else float(value) for key, _, value in pairs}
    return found
