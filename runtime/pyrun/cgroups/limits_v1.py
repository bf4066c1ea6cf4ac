"""linux.resources as the files of cgroup v1: (file, value, field). A ? after the file: it may be absent.

The first word of a file is its controller, whose hierarchy it is written in. 0 and "" mean "unset", as runc takes
them. The order suits a fresh cgroup; for one in use see update.py. Rare sections: limits_rare.py.
Source: runtime-spec config-linux.md#control-groups, cgroup-v1/*.rst, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

from pyrun.spec.check_rules import wrong

from .limits_v2 import RARE, RESOURCES, Limit, pids_maximum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.spec.oci import Cpu, Memory, Resources

_MEMORY = (
    ("limit", "memory.limit_in_bytes"),
    ("swap", "memory.memsw.limit_in_bytes"),
    ("reservation", "memory.soft_limit_in_bytes"),
)
_CPU = (
    ("shares", "cpu.shares"),
    ("period", "cpu.cfs_period_us"),
    ("quota", "cpu.cfs_quota_us"),
    ("realtimePeriod", "cpu.rt_period_us"),
    ("realtimeRuntime", "cpu.rt_runtime_us"),
    ("cpus", "cpuset.cpus"),
    ("mems", "cpuset.mems"),
)
# What the kernel makes of cpu.shares outside these it does not say.
SHARES_LEAST, SHARES_MOST = 2, 262144


def limits(resources: Resources, *, lenient: bool = False) -> list[Limit]:
    """What is to be written, in order. lenient: the swap limit is nobody's wish, and may be left out."""
    found: list[Limit] = []
    if (pids := (resources.get("pids") or {}).get("limit")) is not None:
        found.append(("pids.max", pids_maximum(pids), "pids.limit"))
    if memory := resources.get("memory"):
        found += _memory(memory, "?" if lenient else "")
    if cpu := resources.get("cpu"):
        found += _cpu(cpu)
    for key in RARE:
        if resources.get(key):
            from .limits_rare import v1

            return found + v1(resources)
    return found


def _memory(memory: Memory, absent: str) -> list[Limit]:
    if memory.get("limit") == -1 and not memory.get("swap"):
        # none on memory: none on swap either, where there is any
        memory, absent = {**memory, "swap": -1}, "?"
    found = []
    for key, file in _MEMORY:
        if value := memory.get(key):
            found.append((file + (absent if key == "swap" else ""), str(value), f"memory.{key}"))
    if memory.get("disableOOMKiller"):
        found.append(("memory.oom_control", "1", "memory.disableOOMKiller"))
    if memory.get("swappiness") not in (None, -1):
        found.append(("memory.swappiness", str(memory["swappiness"]), "memory.swappiness"))
    return found


def _cpu(cpu: Cpu) -> list[Limit]:
    shares = cpu.get("shares")
    if shares and not SHARES_LEAST <= shares <= SHARES_MOST:
        raise wrong(RESOURCES + "cpu.shares", f"must be {SHARES_LEAST} to {SHARES_MOST} here", shares)
    found = [(file, str(value), f"cpu.{key}") for key, file in _CPU if (value := cpu.get(key))]
    if (burst := cpu.get("burst")) is not None:  # after the quota, which it may not exceed
        found.append(("cpu.cfs_burst_us" if burst else "cpu.cfs_burst_us?", str(burst), "cpu.burst"))
    if (idle := cpu.get("idle")) is not None:  # after the shares, which an idle cgroup does not take
        found.append(("cpu.idle" if idle else "cpu.idle?", str(idle), "cpu.idle"))
    return found
