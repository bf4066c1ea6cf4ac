"""linux.resources as the files of cgroup v2: (file, value, field). A ? after the file: it may be absent.

The fields were meant for v1. Conversions: memory and swap together -> swap alone; reservation -> memory.low;
cpu.shares 2..262144 -> cpu.weight 1..10000 by the curve that keeps both defaults (1024 and 100) together. What v2
lacks is an error. 0 means "unset", as runc takes it, but for pids.limit, where it is a limit (nobody may fork).
Source: runtime-spec config-linux.md#control-groups, cgroup-v2.rst, crun.1 (cgroup v2). Rare sections: limits_rare.py.
"""

from __future__ import annotations

from pyrun.spec.check_rules import wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.spec.oci import Cpu, Memory, Resources

# (file, value, field below linux.resources)
Limit = tuple[str, str, str]
RESOURCES = "config.json: linux.resources."
RARE = ("blockIO", "hugepageLimits", "network", "rdma", "unified")
DEFAULT_PERIOD_US = 100_000


def limits(resources: Resources, *, lenient: bool = False) -> list[Limit]:
    """What is to be written, in order. lenient: the swap limit is nobody's wish, and may be left out."""
    found: list[Limit] = []
    if (pids := (resources.get("pids") or {}).get("limit")) is not None:
        found.append(("pids.max", pids_maximum(pids), "pids.limit"))
    if memory := resources.get("memory"):
        found += _memory(memory, lenient)
    if cpu := resources.get("cpu"):
        found += _cpu(cpu)
    for key in RARE:
        if resources.get(key):
            from .limits_rare import v2

            return found + v2(resources)
    return found


def pids_maximum(limit: int) -> str:
    """-1 is no limit; 0 is 1, since systemd takes no 0: nobody may fork either way."""
    return "max" if limit < 0 else str(limit or 1)


def maximum(value: int) -> str:
    """-1 is no limit."""
    return "max" if value < 0 else str(value)


def swap_alone(limit: int, swap: int) -> int:
    """v1 counts memory and swap together, v2 swap alone: -1 none, 0 left as it is unless both were given."""
    if limit < 0 and not swap:
        return -1  # no limit on memory: none on swap either, as v1 has it
    if swap <= 0 or limit < 0:
        return swap
    if not limit:
        raise wrong(RESOURCES + "memory.swap", "needs a memory limit", swap)
    if swap < limit:
        raise wrong(RESOURCES + "memory.swap", f"must be at least memory.limit ({limit})", swap)
    return swap - limit


def _memory(memory: Memory, lenient: bool) -> list[Limit]:
    limit, swap, found = memory.get("limit") or 0, memory.get("swap") or 0, []
    if swap or limit < 0:
        value = maximum(swap_alone(limit, swap))
        # without swap accounting there is no swap to limit; only a share of it cannot be had
        absent = "?" if lenient or value in ("0", "max") else ""
        found.append((f"memory.swap.max{absent}", value, "memory.swap"))
    if limit:
        found.append(("memory.max", maximum(limit), "memory.limit"))
    if reservation := memory.get("reservation"):
        found.append(("memory.low", maximum(reservation), "memory.reservation"))
    swappiness = memory.get("swappiness") not in (None, -1)
    for key, given in (("disableOOMKiller", memory.get("disableOOMKiller")), ("swappiness", swappiness)):
        if given:
            raise wrong(f"{RESOURCES}memory.{key}", "cannot be had with cgroup v2, which has no file for it")
    return found


def cpu_weight(shares: int) -> int:
    """cpu.weight for cpu.shares: 10^((l^2 + 125 l) / 612 - 7/34) with l = log2(shares)."""
    from math import ceil, log2

    if shares <= 2 or shares >= 262144:
        return 1 if shares <= 2 else 10000
    exponent = log2(shares)
    return ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34))


def _cpu(cpu: Cpu) -> list[Limit]:
    found = []
    for key in ("realtimeRuntime", "realtimePeriod"):
        if cpu.get(key):
            raise wrong(f"{RESOURCES}cpu.{key}", "cannot be had with cgroup v2, which has no cpu.rt_* files")
    if cpu.get("shares"):
        found.append(("cpu.weight", str(cpu_weight(cpu["shares"])), "cpu.shares"))
    if (idle := cpu.get("idle")) is not None:  # after the weight, which an idle cgroup does not take
        found.append(("cpu.idle" if idle else "cpu.idle?", str(idle), "cpu.idle"))
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota or period:
        value = f"{quota if quota > 0 else 'max'} {period or DEFAULT_PERIOD_US}"
        found.append(("cpu.max", value, "cpu.quota" if quota else "cpu.period"))
    if (burst := cpu.get("burst")) is not None:  # after the quota, which it may not exceed
        found.append(("cpu.max.burst" if burst else "cpu.max.burst?", str(burst), "cpu.burst"))
    for key, listed in (("cpus", cpu.get("cpus")), ("mems", cpu.get("mems"))):
        if listed:
            found.append((f"cpuset.{key}", listed, f"cpu.{key}"))
    return found
