"""`--net-rate in=10mbit,out=2mbit` and `--net-fault delay=100ms,loss=1%`: a slower, or a worse, line.

    host                                          container
    ──► root of the host's end: [netem ─►] tbf ─────► eth0        in, and every fault
    ◄── ifb: tbf ◄── redirect ◄── ingress of the host's end ◄──── eth0     out

All of it is on the host's end of each of the container's links: a container with NET_ADMIN could remove what is on its
own. What it receives is queued where it leaves the host; for what it sends that is too late, so it takes a detour by
a device made for this (ifb). The former go with the link, the latter by an undo line. A fault is one of the way in: a
round trip has its delay once. Source: man 8 tc-tbf, tc-netem, tc-mirred.
"""

from __future__ import annotations

import errno
from typing import Any

from pyrun import boot, notice
from pyrun.errors import NetworkError, UsageError
from pyrun.network import attach, endpoint, live_undo, tags
from pyrun.network.requests import Request
from pyrun.network.wiring import NetworkPlan
from pyrun.plan.operations import Operation
from pyrun.safe import is_number

Rates = dict[str, int]
Faults = dict[str, float]

_BITS = {
    "": 1, "bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9, "kibit": 1 << 10, "mibit": 1 << 20, "gibit": 1 << 30,
    "bps": 8, "kbps": 8 * 10**3, "mbps": 8 * 10**6, "gbps": 8 * 10**9,
}  # fmt: skip
# tc's own message has 32 bits for bytes a second; below a kilobit nothing but ARP would fit.
_LEAST_BITS, _MOST_BITS = 8_000, 32 * 10**9
_BURST_S, _QUEUE_S = 0.02, 0.05
_LEAST_BURST_BYTES, _PACKET_BYTES = 16_384, 1_514

_MICROSECONDS = {"us": 1, "ms": 1_000, "s": 1_000_000, "": 1_000}
_MOST_DELAY_US = 60 * 1_000_000
_SPANS, _SHARES = ("delay", "jitter"), ("loss", "duplicate", "reorder", "corrupt")
# So many packets may be under way: with the kernel's 1,000 a long delay would lose some of its own accord.
_UNDER_WAY = 10_000

_ROOT, _FIRST, _BELOW, _INGRESS = 0xFFFFFFFF, 0x10000, 0x10001, 0xFFFF0000
_EVERYTHING = 3  # ETH_P_ALL


def rates(text: str) -> Rates:
    """{"in": bits a second, "out": ...} of --net-rate. Raises UsageError."""
    found: Rates = {}
    for key, value in _pairs("--net-rate", text, ("in", "out"), "in=10mbit,out=2mbit"):
        number = value.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = value[len(number) :]
        if unit not in _BITS or not _is_number(number):
            raise UsageError(
                f"--net-rate {key}={value}: no rate", "a number with kbit, mbit or gbit, or of bits a second"
            )
        bits = int(float(number) * _BITS[unit])
        if not _LEAST_BITS <= bits <= _MOST_BITS:
            raise UsageError(f"--net-rate {key}={value}: must be 8kbit to 32gbit", f"{key}=10mbit")
        found[key] = bits
    return found


def faults(text: str) -> Faults:
    """delay and jitter in microseconds, loss, duplicate, reorder and corrupt in percent. Raises UsageError."""
    found: Faults = {}
    for key, value in _pairs("--net-fault", text, _SPANS + _SHARES, "delay=100ms,jitter=20ms,loss=1%"):
        found[key] = _span(key, value) if key in _SPANS else _share(key, value)
    for key in ("jitter", "reorder"):
        if found.get(key) and not found.get("delay"):
            raise UsageError(f"--net-fault {key}: needs a delay", f"delay=10ms,{text}")
    if found.get("jitter", 0) > found.get("delay", 0):
        raise UsageError("--net-fault jitter: must not be longer than the delay", "delay=100ms,jitter=20ms")
    return found


def _pairs(option: str, text: str, known: tuple[str, ...], example: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if key not in known or not equals:
            raise UsageError(f"{option} {text!r:.80}: {pair!r:.40} is no setting", f"{option} {example}")
        if key in [each for each, _ in found]:
            raise UsageError(f"{option} {text!r:.80}: {key} is given twice", "say it once")
        found.append((key, value.lower()))
    return found


def _is_number(text: str) -> bool:
    return is_number(text.replace(".", "", 1))


def _span(key: str, value: str) -> float:
    number = value.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = value[len(number) :]
    if unit not in _MICROSECONDS or not _is_number(number):
        raise UsageError(f"--net-fault {key}={value}: no time", "a number with us, ms or s")
    if float(number) * _MICROSECONDS[unit] > _MOST_DELAY_US:
        raise UsageError(f"--net-fault {key}={value}: must be at most 60s", f"{key}=100ms")
    return float(number) * _MICROSECONDS[unit]


def _share(key: str, value: str) -> float:
    number = value.removesuffix("%")
    if not _is_number(number) or float(number) > 100:
        raise UsageError(f"--net-fault {key}={value}: must be 0% to 100%", f"{key}=1%")
    return float(number)


# ── the plan ───────────────────────────────────────────────────────────────────────────────────────


def check(request: Request) -> None:
    """Whether what is asked can be read and this kernel can do it. Raises UsageError, NetworkError."""
    wanted = _wanted(request.net_rate, request.net_fault)
    if request.mode != "bridge":
        raise _no_link(request)
    _refuse_unable(*wanted)


def _wanted(net_rate: str, net_fault: str) -> tuple[Rates, Faults]:
    return rates(net_rate) if net_rate else {}, faults(net_fault) if net_fault else {}


def _no_link(request: Request) -> UsageError:
    option = "--net-rate" if request.net_rate else "--net-fault"
    told = f"{option}: the container has no link with an end on the host"
    return UsageError(told, "it works on bridges of pyrun and on l2:IFACE")


def add(request: Request, planned: NetworkPlan) -> None:
    """Add to the plan of a container's network what is done to its links. Raises UsageError."""
    todo, undone = plan(request.net_rate, request.net_fault, planned.wires)
    if not todo:
        raise _no_link(request)
    say_without(request.net_rate, request.net_fault, planned.wires)
    planned.outside += todo
    planned.undo = live_undo.inserted(planned.undo, undone)


def plan(net_rate: str, net_fault: str, wires: list[endpoint.Wire]) -> tuple[list[Operation], list[str]]:
    """Operations and undo lines for the host's ends of the container's links. net_rate, net_fault: as given.

    An interface without such an end stays as quick as it is. Raises: UsageError.
    """
    wanted, fault = _wanted(net_rate, net_fault)
    links = [wire.link for wire in wires if _ifb_prefix(wire.link)]
    words = ",".join([f"{key}={value:g}" for key, value in fault.items()])
    todo, undone = [], []
    for link in links:
        if fault:
            todo.append(Operation("FAULT", link, words))
        if wanted:
            todo.append(Operation("RATE", link, wanted.get("in", 0), wanted.get("out", 0), int(bool(fault))))
        if wanted.get("out"):
            undone += undone_of(link)
    return todo, undone


def say_without(net_rate: str, net_fault: str, wires: list[endpoint.Wire]) -> None:
    """Tell of the interfaces that have no end on the host: nothing is done to them."""
    options = [option for option, given in (("--net-rate", net_rate), ("--net-fault", net_fault)) if given]
    for wire in wires:
        if not _ifb_prefix(wire.link):
            told = f"{' and '.join(options)} without effect on network {wire.network}"
            notice.say(f"{told}: its link has no end on the host")


def _ifb_prefix(link: str) -> str:
    """How the name of a link's detour begins; "" where the host has no end of it: that of a bridge's port, or of l2."""
    return "pyi" if tags.is_host_link(link) else "pyk" if link[:3] == "pyl" else ""


def ifb(link: str) -> str:
    """The device by which what comes from *link* takes its detour."""
    return _ifb_prefix(link) + link[3:]


def undone_of(link: str) -> list[str]:
    """The undo line of its detour; fine where there is none."""
    from pyrun.network.drivers import links

    return [links.undo_delete(ifb(link))] if _ifb_prefix(link) else []


def _refuse_unable(wanted: Rates, fault: Faults) -> None:
    from pyrun.network.drivers import links

    found: list[tuple[str, str]] = []
    links.in_scratch_namespace(lambda route: found.extend(_lacking(route, wanted, fault)))
    for what, option in found:
        given = "--net-fault" if option == "CONFIG_NET_SCH_NETEM" else "--net-rate"
        raise NetworkError(
            f"{given}: this kernel has no {what} ({option})",
            f"a kernel with {option}; cloud kernels often lack it",
        )


def _lacking(route: Any, wanted: Rates, fault: Faults) -> list[tuple[str, str]]:
    """What this kernel cannot do of it, found out by doing it to the loopback of a namespace nobody sees."""
    from pyroute2.netlink.exceptions import NetlinkError

    lo = route.link_lookup(ifname="lo")[0]
    step = ("network emulator", "CONFIG_NET_SCH_NETEM")
    try:
        if fault:
            route.tc("add", "netem", index=lo, handle=_FIRST, delay=1000)
            route.tc("del", "netem", index=lo, handle=_FIRST)
        if wanted.get("in") or wanted.get("out"):
            step = ("token bucket filter", "CONFIG_NET_SCH_TBF")
            _bucket(route, lo, 10**6)
        if wanted.get("out"):
            step = ("intermediate functional block", "CONFIG_IFB")
            route.link("add", ifname="pyrprobe", kind="ifb")
            step = (
                "redirection of what comes in",
                "CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_U32, CONFIG_NET_ACT_MIRRED",
            )
            _redirect(route, lo, route.link_lookup(ifname="pyrprobe")[0])
    except NetlinkError as error:
        if error.code in (errno.ENOENT, errno.EOPNOTSUPP):
            return [step]
        raise
    return []


# ── done to a link ─────────────────────────────────────────────────────────────────────────────────


def rate(link: attach.Attachment, name: str, bits_in: int, bits_out: int, below_fault: int) -> None:
    """Limit what goes to the container and what comes from it. below_fault: there is an emulator at the root."""
    del link
    boot.site_packages()
    from pyrun.network.drivers import links

    with links.asking(), links.IPRoute() as route:
        index = route.link_lookup(ifname=name)[0]
        if bits_in:
            _bucket(route, index, bits_in, _BELOW if below_fault else _ROOT)
        if bits_out:
            detour = ifb(name)
            for stale in route.link_lookup(ifname=detour):
                route.link("del", index=stale)
            route.link("add", ifname=detour, kind="ifb", txqlen=1000)
            device = route.link_lookup(ifname=detour)[0]
            route.link("set", index=device, state="up")
            _bucket(route, device, bits_out)
            _redirect(route, index, device)


def fault(link: attach.Attachment, name: str, words: str) -> None:
    """Emulate a worse line for what goes to the container."""
    del link
    from pyrun.network.drivers import links

    given = {key: float(value) for key, _, value in [pair.partition("=") for pair in words.split(",")]}
    settings = {
        "delay": int(given.get("delay", 0)), "jitter": int(given.get("jitter", 0)), "loss": given.get("loss", 0),
        "duplicate": given.get("duplicate", 0), "prob_reorder": given.get("reorder", 0),
        "prob_corrupt": given.get("corrupt", 0),
    }  # fmt: skip
    with links.asking(), links.IPRoute() as route:
        index = route.link_lookup(ifname=name)[0]
        route.tc("add", "netem", index=index, handle=_FIRST, parent=_ROOT, limit=_UNDER_WAY, **settings)


def _bucket(route: Any, index: int, bits: int, parent: int = _ROOT) -> None:
    """A token bucket: bursts of 20 ms, at most 50 ms in the queue."""
    bytes_a_second = bits // 8
    burst = max(int(bytes_a_second * _BURST_S), _LEAST_BURST_BYTES)
    limit = burst + max(int(bytes_a_second * _QUEUE_S), 10 * _PACKET_BYTES)
    handle = _FIRST if parent == _ROOT else 2 * _FIRST
    route.tc(
        "add", "tbf", index=index, handle=handle, parent=parent, rate=bytes_a_second, burst=burst, limit=limit
    )


def _redirect(route: Any, index: int, device: int) -> None:
    route.tc("add", "ingress", index=index, handle=_INGRESS)
    action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": device}
    route.tc("add-filter", "u32", index=index, parent=_INGRESS, prio=1, protocol=_EVERYTHING, target=0,
             keys=["0x0/0x0+0"], action=action)  # fmt: skip
