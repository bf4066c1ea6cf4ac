"""What the operations of the drivers and of shaping say to a reader: (sentence, shell equivalent, how to see it).

As in explain.py, which takes them in; `{name}` and `{pid}` are filled in by plan/explain.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_interface
from shlex import quote

from pyrun.plan.operations import Operation
from pyrun.store import paths

Explanation = tuple[str, str, str]
INSIDE = "ip netns exec {name}"


def arguments(operation: Operation) -> list[str]:
    """The arguments as text, to be taken apart."""
    return [str(item) for item in operation.args]


def _macvlan(operation: Operation) -> Explanation:
    parent, mode, inside, mac, mtu = arguments(operation)
    return (
        f"make the macvlan {inside} ({mac}) on {parent}, inside the container{_told_mtu(mtu)}",
        f"ip link add {inside} link {parent} netns {{name}} address {mac}{_mtu(mtu)} type macvlan mode {mode}",
        f"{INSIDE} ip -d link show {inside}",
    )


def _shim(operation: Operation) -> Explanation:
    name, parent, address, own, mtu = arguments(operation)
    return (
        f"make {name} on {parent}, by which the host ({own}) and the container ({address}) reach each other",
        f"ip link add {name} link {parent}{_mtu(mtu)} type macvlan mode bridge; "
        f"sysctl net.ipv4.conf.{name}.arp_filter=1; ip link set {name} up; ip route add {address} dev {name} src {own}",
        f"ip route get {address}",
    )


def _shim6(operation: Operation) -> Explanation:
    name, address, own, inside, mac = arguments(operation)
    return (
        f"the same of IPv6: the host ({own}) and the container ({address}) are told each other's MAC",
        f"sysctl net.ipv6.conf.{name}.addr_gen_mode=1 net.ipv6.conf.{name}.accept_ra=0; "
        f"ip neigh replace {address} lladdr {mac} dev {name} nud permanent; "
        f"ip route replace {address} dev {name} src {own}; ip -n {{name}} neigh replace {own} "
        f"lladdr $(cat /sys/class/net/{name}/address) dev {inside} nud permanent",
        f"ip route get {address}",
    )


def _ipvlan(operation: Operation) -> Explanation:
    parent, mode, inside, mtu = arguments(operation)
    return (
        f"make the ipvlan {inside} on {parent}, inside the container{_told_mtu(mtu)}",
        f"ip link add {inside} link {parent} netns {{name}}{_mtu(mtu)} type ipvlan mode {mode}",
        f"{INSIDE} ip -d link show {inside}",
    )


def _told_mtu(mtu: str) -> str:
    return f", for packets of {mtu} bytes at most" if mtu != "0" else ""


def _mtu(mtu: str) -> str:
    return f" mtu {mtu}" if mtu != "0" else ""


def _segment(operation: Operation) -> Explanation:
    name, bridge, inside, mac, mtu = arguments(operation)
    return (
        f"make a link pair: {name} in the bridge {bridge}, which holds the card, {inside} ({mac}) inside the container",
        f"ip link add {name} mtu {mtu} type veth peer name {inside} address {mac} mtu {mtu} netns {{name}}; "
        f"sysctl net.ipv6.conf.{name}.disable_ipv6=1; ip link set {name} master {bridge} up",
        f"bridge link show dev {name}",
    )


def _card_ipv6(operation: Operation) -> Explanation:
    name, wanted = arguments(operation)
    off = "0" if wanted == "1" else "1"
    return (
        f"{name} {'has IPv6, without believing routers that advertise themselves' if wanted == '1' else 'has no IPv6'}",
        f"{INSIDE} sysctl net.ipv6.conf.{name}.accept_ra=0 net.ipv6.conf.{name}.accept_dad=0 "
        f"net.ipv6.conf.{name}.disable_ipv6={off}",
        f"{INSIDE} sysctl net.ipv6.conf.{name}.disable_ipv6",
    )


def _card_address(operation: Operation) -> Explanation:
    name, address, prefix = arguments(operation)
    return (
        f"give {name} the address {address}/{prefix}",
        f"ip -n {{name}} addr add {address}/{prefix} dev {name}",
        f"{INSIDE} ip addr show {name}",
    )


def link_up(operation: Operation) -> Explanation:
    """Of any link inside, a bridge's or a card's."""
    (name,) = arguments(operation)
    return (f"bring {name} up inside", f"ip -n {{name}} link set {name} up", f"{INSIDE} ip link show {name}")


def _card_route(operation: Operation) -> Explanation:
    name, gateway = arguments(operation)
    way = f"via {gateway} dev {name}" if gateway else f"dev {name}"
    return (
        f"send everything else {'to ' + gateway if gateway else 'straight out of ' + name}",
        f"ip -n {{name}} route add default {way}",
        f"{INSIDE} ip route",
    )


def _card_ready(operation: Operation) -> Explanation:
    name, outside, address6 = arguments(operation)
    both = f"{name} and {outside}" if outside else name
    waiting = f", once packets for {address6} are taken" if address6 else ""
    return (
        f"read {both} back{waiting}, so that no first packet is lost",
        f"ip -n {{name}} link show {name}"
        + (f"; ip link show {outside}" if outside else "")
        + (f"; ip -n {{name}} route get {address6}" if address6 else ""),
        f"{INSIDE} ip link show {name}",
    )


def _answers(operation: Operation) -> Explanation:
    name, address, prefix, gateway = arguments(operation)
    table = "$((7000 + index))"
    return (
        f"answer from {address} by {name}, though the default route is another's",
        f"index=$({INSIDE} cat /sys/class/net/{name}/ifindex); "
        f"ip -n {{name}} route replace {ip_interface(f'{address}/{prefix}').network} dev {name} table {table}; "
        f"ip -n {{name}} route replace default via {gateway} dev {name} table {table}; "
        f"ip -n {{name}} rule add priority 1000 from {address} lookup {table}",
        f"{INSIDE} ip {'-6 ' if ':' in address else ''}rule",
    )


def _names_of(operation: Operation) -> Explanation:
    (network,) = arguments(operation)
    return (
        f"let the containers on {network} be known by name: the resolver reads their leases",
        "# one resolver for all networks, started by the first question",
        f"ls {quote(f'{paths.run()}/networks/{network}/leases')}",
    )


def _names_inside(operation: Operation) -> Explanation:
    _, _, port, _ = arguments(operation)
    rules = [
        f"ip daddr 127.0.0.11 {each} dport 53 {each} dport set {port}; "
        f"ip saddr 127.0.0.11 {each} sport {port} {each} sport set 53"
        for each in ("udp", "tcp")
    ]
    return (
        f"answer it at 127.0.0.11, inside, on port {port}: no address of this host can be reached from there",
        f"{INSIDE} nft 'table ip pyrun-names {{ chain output {{ type filter hook output priority raw; "
        f"{'; '.join(rules)}; }}; }}'",
        f"{INSIDE} nft list table ip pyrun-names; {INSIDE} ss -lun",
    )


def _cni(operation: Operation) -> Explanation:
    name, file, namespace, _, text = arguments(operation)
    job = json.loads(text)
    plugins = [str(plugin["type"]) for plugin in job["network"]["plugins"]]
    return (
        f"run the plugins of the CNI network {name}: {', '.join(plugins)}; what they answer is noted in {file}",
        f"CNI_COMMAND=ADD CNI_CONTAINERID={str(job['id'])[:12]} CNI_NETNS={quote(namespace)} "
        f"CNI_IFNAME={job['ifname']} CNI_PATH={quote(str(job['path']))} {quote(plugins[0])} "
        f"<{quote(str(job['network']['file']))}; ...",
        f"{INSIDE} ip addr show {job['ifname']}",
    )


def _rate(operation: Operation) -> Explanation:
    name, bits_in, bits_out, below = arguments(operation)
    parent = "parent 1:1" if below == "1" else "root"
    ways = [f"in to {bits_in} bit/s"] * (bits_in != "0") + [f"out to {bits_out} bit/s"] * (bits_out != "0")
    done = [f"tc qdisc add dev {name} {parent} tbf rate {bits_in}bit ..."] if bits_in != "0" else []
    shown = [name]
    if bits_out != "0":
        from pyrun.network import shaping

        detour = shaping.ifb(name)
        shown.append(detour)
        done += [
            f"ip link add {detour} type ifb; ip link set {detour} up",
            f"tc qdisc add dev {detour} root tbf rate {bits_out}bit ...; tc qdisc add dev {name} ingress",
            f"tc filter add dev {name} ingress u32 match u32 0 0 action mirred egress redirect dev {detour}",
        ]
    see = "; ".join(f"tc -s qdisc show dev {each}" for each in shown)
    return (f"limit the way {' and the way '.join(ways)}", "; ".join(done), see)


def _fault(operation: Operation) -> Explanation:
    name, words = arguments(operation)
    units = {"delay": "us", "jitter": "us"}
    given = {
        key: f"{value}{units.get(key, '%')}"
        for key, _, value in [pair.partition("=") for pair in words.split(",")]
    }
    told = ", ".join(f"{key} {value}" for key, value in given.items())
    netem = " ".join(f"{key} {value}" for key, value in given.items() if key != "jitter")
    if "jitter" in given:
        netem = netem.replace(f"delay {given['delay']}", f"delay {given['delay']} {given['jitter']}")
    return (
        f"make the container's line worse: {told} of what arrives",
        f"tc qdisc add dev {name} root netem {netem}",
        f"tc -s qdisc show dev {name}",
    )


EXPLAIN: dict[str, Callable[[Operation], Explanation]] = {
    "MACVLAN": _macvlan,
    "SHIM": _shim,
    "SHIM6": _shim6,
    "IPVLAN": _ipvlan,
    "SEGMENT": _segment,
    "CARD_IPV6": _card_ipv6,
    "CARD_ADDRESS": _card_address,
    "CARD_UP": link_up,
    "CARD_ROUTE": _card_route,
    "CARD_READY": _card_ready,
    "ANSWERS": _answers,
    "NAMES_OF": _names_of,
    "NAMES_INSIDE": _names_inside,
    "CNI": _cni,
    "RATE": _rate,
    "FAULT": _fault,
}
