"""What a scope unit is told: what it is, whom it holds, and linux.resources as systemd's own properties.

systemd keeps the limits it knows and may write them again at any time, so it is told those it can be told; all of them
are written to the cgroup's files afterwards, by us. Annotations org.systemd.property.NAME set more, from a list: they
come with an image or a pod, and not every property is harmless (Exec* runs programs as root: CVE-2024-3154).
Source: org.freedesktop.systemd1(5), systemd.resource-control(5), runc docs/systemd.md. A property is (name, (D-Bus
type, value)).
"""

from __future__ import annotations

from pyrun import device_rules
from pyrun.errors import UsageError
from pyrun.safe import is_number

from .layout import is_v2
from .limits_v2 import DEFAULT_PERIOD_US, RESOURCES, cpu_weight, swap_alone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.spec.oci import Config, Cpu, Resources

    from .layout import Cgroup

    Property = tuple[str, tuple[str, Any]]

INFINITY = (1 << 64) - 1
PREFIX = "org.systemd.property."
# Of systemd 236, 240, 242, 244, 253: left out where systemd does not know them; the files are written all the same.
NEWER = ("CollectMode", "CPUQuotaPeriodUSec", "AllowedCPUs", "AllowedMemoryNodes", "OOMPolicy")
# Annotations that are let through, and their types. None of them starts, stops or runs anything else.
ALLOWED = {
    **dict.fromkeys("After Before PartOf".split(), "as"),
    **dict.fromkeys("CollectMode OOMPolicy ManagedOOMSwap ManagedOOMMemoryPressure KillMode".split(), "s"),
    **dict.fromkeys(
        "MemoryHigh MemoryLow MemoryMin MemoryMax MemorySwapMax MemoryZSwapMax TasksMax".split(), "t"
    ),
    **dict.fromkeys("CPUWeight StartupCPUWeight IOWeight StartupIOWeight CPUQuotaPerSecUSec".split(), "t"),
    **dict.fromkeys("TimeoutStopUSec RuntimeMaxUSec JobTimeoutUSec CPUQuotaPeriodUSec".split(), "t"),
    **dict.fromkeys("SendSIGKILL SendSIGHUP DefaultDependencies".split(), "b"),
    "KillSignal": "i",
}


def scope(config: Config, identifier: str, cgroup: Cgroup, pid: int) -> list[Property]:
    """All properties of the scope for *pid*."""
    v2 = is_v2(cgroup.hierarchies)
    io = "IOAccounting" if v2 else "BlockIOAccounting"
    found: list[Property] = [
        ("Description", ("s", f"pyrun-oci container {identifier}")),
        ("Slice", ("s", cgroup.slice)),
        ("Delegate", ("b", True)),
        ("PIDs", ("au", [pid])),
        *[(name, ("b", True)) for name in ("MemoryAccounting", "CPUAccounting", io, "TasksAccounting")],
        ("DefaultDependencies", ("b", False)),
        ("CollectMode", ("s", "inactive-or-failed")),
    ]
    resources = (config.get("linux") or {}).get("resources") or {}
    group = (resources.get("unified") or {}).get("memory.oom.group")
    if group in ("0", "1"):
        found.append(("OOMPolicy", ("s", "kill" if group == "1" else "continue")))
    found += limits(resources, v2=v2)
    if not cgroup.unprivileged:
        found += devices(resources)
    given = annotated(config)
    taken = {name for name, _ in given}
    return [each for each in found if each[0] not in taken] + given


def limits(resources: Resources, *, v2: bool) -> list[Property]:
    """Those of linux.resources that systemd has properties for. The last one of a name counts."""
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    found: list[Property] = []
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit:
        found.append(_number("MemoryMax" if v2 else "MemoryLimit", limit))
    if v2 and memory.get("reservation"):
        found.append(_number("MemoryLow", memory["reservation"]))
    if v2 and (swap or limit < 0):
        found.append(_number("MemorySwapMax", swap_alone(limit, swap)))
    found += _cpu(cpu, v2)
    if (pids := (resources.get("pids") or {}).get("limit")) is not None:
        found.append(_number("TasksMax", pids or 1))
    if weight := (resources.get("blockIO") or {}).get("weight"):
        from .limits_rare import io_weight

        found.append(_number("IOWeight", io_weight(weight)) if v2 else _number("BlockIOWeight", weight))
    for name, listed in (("AllowedCPUs", cpu.get("cpus")), ("AllowedMemoryNodes", cpu.get("mems"))):
        if listed:
            found.append((name, ("ay", bits(listed))))
    if resources.get("unified"):
        found += _unified(resources["unified"])
    return list(dict(found).items())


def _number(name: str, value: int) -> Property:
    return (name, ("t", INFINITY if value < 0 else value))


def _cpu(cpu: Cpu, v2: bool) -> list[Property]:
    found: list[Property] = []
    if v2 and cpu.get("idle") == 1:
        found.append(("CPUWeight", ("t", 0)))  # systemd's word for cpu.idle
    elif cpu.get("shares"):
        found.append(
            ("CPUWeight", ("t", cpu_weight(cpu["shares"]))) if v2 else ("CPUShares", ("t", cpu["shares"]))
        )
    return found + _quota(cpu.get("quota") or 0, cpu.get("period") or 0)


def _quota(quota: int, period: int) -> list[Property]:
    """systemd thinks in microseconds a second, and in whole percents: round up, so that nobody gets less."""
    found: list[Property] = [("CPUQuotaPeriodUSec", ("t", period))] if period else []
    if not quota and not period:
        return []
    per_second = INFINITY
    if quota > 0:
        per_second = quota * 1_000_000 // (period or DEFAULT_PERIOD_US)
        per_second += -per_second % 10_000
    return [*found, ("CPUQuotaPerSecUSec", ("t", per_second))]


_UNIFIED = {
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.max": "MemoryMax",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
}


def _unified(unified: dict[str, str]) -> list[Property]:
    """What systemd knows of it; a value it could not read is left to the kernel to refuse."""
    found: list[Property] = []
    for key, text in unified.items():
        words = text.split()
        if key in _UNIFIED and len(words) == 1 and (words[0] == "max" or is_number(words[0])):
            value = -1 if words[0] == "max" else int(words[0])
            found.append(_number(_UNIFIED[key], value or (1 if key == "pids.max" else 0)))
        elif key in ("cpuset.cpus", "cpuset.mems") and text.strip():
            found.append(
                ("AllowedCPUs" if key == "cpuset.cpus" else "AllowedMemoryNodes", ("ay", bits(text.strip())))
            )
        elif key == "cpu.max" and all(word == "max" or is_number(word) for word in words[:2]) and words:
            period = int(words[1]) if len(words) > 1 and words[1] != "max" else DEFAULT_PERIOD_US
            found += _quota(0 if words[0] == "max" else int(words[0]), period)
    if unified.get("cpu.idle", "").strip() == "1":
        found.append(("CPUWeight", ("t", 0)))
    return found


def bits(ranges: str) -> bytes:
    """`1,3-5` as systemd takes a set of CPUs: a bit each, the lowest first."""
    mask = 0
    for part in ranges.split(","):
        first, _, last = part.strip().partition("-")
        if not first:
            continue
        if (
            not is_number(first)
            or not is_number(last or first)
            or not int(first) <= int(last or first) < 8192
        ):
            raise UsageError(f"{RESOURCES}cpu: not a list of numbers and ranges: {ranges!r:.80}")
        mask |= (1 << int(last or first) + 1) - (1 << int(first))
    if not mask:
        raise UsageError(f"{RESOURCES}cpu: an empty list: {ranges!r:.80}")
    return mask.to_bytes(mask.bit_length() + 7 >> 3, "little")


def devices(resources: Resources) -> list[Property]:
    """The device rules as an allow-list, empty first, for systemd appends. *:N it cannot say; our own rules follow."""
    clear: Property = ("DeviceAllow", ("a(ss)", []))
    allowed: dict[tuple[str, str], str] = {}
    for text in device_rules.lines(resources):
        verdict, kind, *rest = text.split(" ")
        if kind == "a":
            if verdict == "allow":
                return [clear, ("DevicePolicy", ("s", "auto"))]
            allowed.clear()
        elif verdict == "allow":
            allowed[kind, rest[0]] = "".join(sorted({*allowed.get((kind, rest[0]), ""), *rest[1]}))
        else:
            left = "".join([each for each in allowed.pop((kind, rest[0]), "") if each not in rest[1]])
            if left:
                allowed[kind, rest[0]] = left
    found = []
    for (kind, numbers), access in allowed.items():
        group, (major, _, minor) = {"b": "block", "c": "char"}[kind], numbers.partition(":")
        if major == "*":
            if minor == "*":
                found.append((f"{group}-*", access))
        else:
            found.append((f"{group}-{major}" if minor == "*" else f"/dev/{group}/{numbers}", access))
    return [clear, ("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", found))]


def annotated(config: Config) -> list[Property]:
    """The properties that annotations set. Raises UsageError for one that may not be set, or not to that."""
    found: list[Property] = []
    for key, text in (config.get("annotations") or {}).items():
        if not key.startswith(PREFIX):
            continue
        name, scale = key.removeprefix(PREFIX), 1
        if name.endswith("Sec") and not name.endswith("USec"):
            name, scale = name.removesuffix("Sec") + "USec", 1_000_000
        if name not in ALLOWED:
            raise UsageError(f"config.json: annotations.{key}: this property may not be set by an annotation")
        try:
            found.append((name, (ALLOWED[name], _value(ALLOWED[name], text.strip(), scale))))
        except ValueError:
            kind = {"as": "a list of texts ['a', 'b']", "s": "a text 'a'", "b": "true or false"}
            rule = kind.get(ALLOWED[name], "a number, such as uint64 5")
            raise UsageError(f"config.json: annotations.{key}: must be {rule}, not {text!r:.80}") from None
    return found


def _value(kind: str, text: str, scale: int) -> Any:
    """A value in GVariant's text form, of one of the types in ALLOWED. Raises ValueError."""
    if kind == "b":
        if text not in ("true", "false"):
            raise ValueError
        return text == "true"
    if kind == "s":
        return _text(text)
    if kind == "as":
        if text[:1] + text[-1:] != "[]":
            raise ValueError
        return [_text(each.strip()) for each in text[1:-1].split(",") if each.strip()]
    words = text.split(" ")
    word = words[-1] if words[0] in ("uint64", "int64", "uint32", "int32", "double") else text
    if scale != 1 and "." in word:
        return int(float(word) * scale)
    number = int(word) * scale
    if not 0 <= number <= (INFINITY if kind == "t" else (1 << 31) - 1):
        raise ValueError
    return number


def _text(text: str) -> str:
    if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0] or text[0] in text[1:-1]:
        raise ValueError
    return text[1:-1]
