"""Interfaces that are no link of a bridge of pyrun's; rates and faults of a link, the policy of a container."""

from __future__ import annotations

import json
from ipaddress import ip_interface

from pyrun.network import shaping, tags
from pyrun.network.egress import parse
from pyrun.network.egress.policy import is_open
from pyrun.network.firewall import names
from pyrun.safe import shell_word

from .network import INSIDE, LINK_UP, row
from .rows import Explanation, Row, quoted


def _mtu(mtu: str) -> tuple[str, str]:
    """What is said of it, and as an option of ip(8)."""
    return (f", for packets of {mtu} bytes at most", f" mtu {mtu}") if mtu != "0" else ("", "")


@quoted
def _macvlan(parent: str, mode: str, inside: str, mac: str, mtu: str) -> Explanation:
    told, option = _mtu(mtu)
    return (
        f"make the macvlan {inside} ({mac}) on {parent}, inside the container{told}",
        f"ip link add {inside} link {parent} netns {{name}} address {mac}{option} type macvlan mode {mode}",
        f"{INSIDE} ip -d link show {inside}",
    )


@quoted
def _shim(link: str, parent: str, address: str, own: str, mtu: str) -> Explanation:
    return (
        f"make {link} on {parent}, by which the host ({own}) and the container ({address}) reach each other",
        f"ip link add {link} link {parent}{_mtu(mtu)[1]} type macvlan mode bridge; "
        f"sysctl net.ipv4.conf.{link}.arp_filter=1; ip link set {link} up; ip route add {address} dev {link} src {own}",
        f"ip route get {address}",
    )


@quoted
def _ipvlan(parent: str, mode: str, inside: str, mtu: str) -> Explanation:
    told, option = _mtu(mtu)
    return (
        f"make the ipvlan {inside} on {parent}, inside the container{told}",
        f"ip link add {inside} link {parent} netns {{name}}{option} type ipvlan mode {mode}",
        f"{INSIDE} ip -d link show {inside}",
    )


@quoted
def _card_ipv6(link: str, wanted: str) -> Explanation:
    conf = f"net.ipv6.conf.{link}"
    has = "have IPv6 on {}, without believing routers that advertise themselves"
    return (
        (has if wanted == "1" else "have no IPv6 on {}").format(link),
        f"{INSIDE} sysctl {conf}.accept_ra=0 {conf}.accept_dad=0 {conf}.disable_ipv6={'0' if wanted == '1' else '1'}",
        f"{INSIDE} sysctl {conf}.disable_ipv6",
    )


@quoted
def _card_route(link: str, gateway: str) -> Explanation:
    way = f"via {gateway} dev {link}" if gateway else f"dev {link}"
    return (
        f"send everything else {'to ' + gateway if gateway else 'straight out of ' + link}",
        f"ip -n {{name}} route add default {way}",
        f"{INSIDE} ip route",
    )


@quoted
def _card_ready(link: str, outside: str, address6: str) -> Explanation:
    waiting = f", once packets for {address6} are taken" if address6 else ""
    return (
        f"read {f'{link} and {outside}' if outside else link} back{waiting}, so that no first packet is lost",
        f"ip -n {{name}} link show {link}"
        + (f"; ip link show {outside}" if outside else "")
        + (f"; ip -n {{name}} route get {address6}" if address6 else ""),
        f"{INSIDE} ip link show {link}",
    )


@quoted
def _answers(link: str, address: str, prefix: str, gateway: str) -> Explanation:
    table = "$((7000 + index))"
    return (
        f"answer from {address} by {link}, though the default route is another's",
        f"index=$({INSIDE} cat /sys/class/net/{link}/ifindex); "
        f"ip -n {{name}} route replace {ip_interface(f'{address}/{prefix}').network} dev {link} table {table}; "
        f"ip -n {{name}} route replace default via {gateway} dev {link} table {table}; "
        f"ip -n {{name}} rule add priority 1000 from {address} lookup {table}",
        f"{INSIDE} ip {'-6 ' if ':' in address else ''}rule",
    )


@quoted
def _names_inside(_id: str, _name: str, port: str, _asks: str) -> Explanation:
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


def _cni(network: str, file: str, namespace: str, _keep: str, text: str) -> Explanation:
    job = json.loads(text)
    plugins = [str(plugin["type"]) for plugin in job["network"]["plugins"]]
    return (
        f"run the plugins of the CNI network {network}: {', '.join(plugins)}; what they answer is noted in {file}",
        f"CNI_COMMAND=ADD CNI_CONTAINERID={str(job['id'])[:12]} CNI_NETNS={shell_word(namespace)} "
        f"CNI_IFNAME={job['ifname']} CNI_PATH={shell_word(str(job['path']))} {shell_word(plugins[0])} "
        f"<{shell_word(str(job['network']['file']))}; ...",
        f"{INSIDE} ip addr show {job['ifname']}",
    )


@quoted
def _rate(link: str, bits_in: str, bits_out: str, below_fault: str) -> Explanation:
    parent = "parent 1:1" if below_fault == "1" else "root"
    ways = [f"in to {bits_in} bit/s"] * (bits_in != "0") + [f"out to {bits_out} bit/s"] * (bits_out != "0")
    done = [f"tc qdisc add dev {link} {parent} tbf rate {bits_in}bit ..."] if bits_in != "0" else []
    shown = [link]
    if bits_out != "0":
        detour = shaping.ifb(link)
        shown.append(detour)
        done += [
            f"ip link add {detour} type ifb; ip link set {detour} up",
            f"tc qdisc add dev {detour} root tbf rate {bits_out}bit ...; tc qdisc add dev {link} ingress",
            f"tc filter add dev {link} ingress u32 match u32 0 0 action mirred egress redirect dev {detour}",
        ]
    see = "; ".join(f"tc -s qdisc show dev {each}" for each in shown)
    return f"limit the way {' and the way '.join(ways)}", "; ".join(done), see


@quoted
def _fault(link: str, words: str) -> Explanation:
    units = {"delay": "us", "jitter": "us"}
    pairs = [pair.partition("=") for pair in words.split(",")]
    given = {key: f"{value}{units.get(key, '%')}" for key, _, value in pairs}
    netem = " ".join(f"{key} {value}" for key, value in given.items() if key != "jitter")
    if "jitter" in given:
        netem = netem.replace(f"delay {given['delay']}", f"delay {given['delay']} {given['jitter']}")
    told = ", ".join(f"{key} {value}" for key, value in given.items())
    return (
        f"make the container's line worse: {told} of what arrives",
        f"tc qdisc add dev {link} root netem {netem}",
        f"tc -s qdisc show dev {link}",
    )


# ── the policy ─────────────────────────────────────────────────────────────────────────────────────


def _egress(_id: str, text: str, addresses: str, _bridges: str, _links: str) -> Explanation:
    elements = [each for own in addresses.split(" ") for each in _elements(own, text)]
    return (
        f"let the container open connections only as its policy says: {text}",
        "; ".join(f"nft add element inet {tags.table()} {name} '{{ {key} }}'" for name, key in elements),
        f"nft list chain inet {tags.table()} egress; nft list set inet {tags.table()} {names.ALLOWED}",
    )


def _elements(own: str, text: str) -> list[tuple[str, str]]:
    """(set, key) of what the policy says of one address; what names resolve to comes with the resolver's answers."""
    policy, six = parse.parse(text), ":" in own
    if policy is None:
        return []
    found = [(names.POLICED6 if six else names.POLICED, own)]
    everybody = "::/0" if six else "0.0.0.0/0"
    for network, port, protocol in [(everybody, "*", "*")] if is_open(policy) else policy.allow:
        if (":" in network) == six:
            ports, number = ("0-65535" if port == "*" else port), _number(protocol, six=six)
            found.append(
                (names.ALLOWED6 if six else names.ALLOWED, f"{own} . {network} . {number} . {ports}")
            )
    denied = names.DENIED6 if six else names.DENIED
    return found + [(denied, f"{own} . {network}") for network in policy.deny if (":" in network) == six]


def _number(protocol: str, *, six: bool) -> str:
    if protocol == "*":
        return "0-255"
    return "ipv6-icmp" if six and protocol == "icmp" else protocol


ROWS = {
    "MACVLAN": Row("network", _macvlan),
    "SHIM": Row("network", _shim),
    "SHIM6": row("link address own inside mac",
        "let the host ({own}) and the container ({address}) reach each other by IPv6, each told the other's MAC",
        "sysctl net.ipv6.conf.{link}.addr_gen_mode=1 net.ipv6.conf.{link}.accept_ra=0; "
        "ip neigh replace {address} lladdr {mac} dev {link} nud permanent; "
        "ip route replace {address} dev {link} src {own}; ip -n {name} neigh replace {own} "
        "lladdr $(cat /sys/class/net/{link}/address) dev {inside} nud permanent", "ip route get {address}"),
    "IPVLAN": Row("network", _ipvlan),
    "SEGMENT": row("link bridge inside mac mtu",
        "make a link pair: {link} in the bridge {bridge}, which holds the card, {inside} ({mac}) inside the container",
        "ip link add {link} mtu {mtu} type veth peer name {inside} address {mac} mtu {mtu} netns {name}; "
        "sysctl net.ipv6.conf.{link}.disable_ipv6=1; ip link set {link} master {bridge} up",
        "bridge link show dev {link}"),
    "CARD_IPV6": Row("network", _card_ipv6),
    "CARD_ADDRESS": row("inside address prefix", "give {inside} the address {address}/{prefix}",
        "ip -n {name} addr add {address}/{prefix} dev {inside}", f"{INSIDE} ip addr show {{inside}}"),
    "CARD_UP": LINK_UP,
    "CARD_ROUTE": Row("network", _card_route),
    "CARD_READY": Row("network", _card_ready),
    "ANSWERS": Row("network", _answers),
    "NAMES_OF": row("network", "let the containers on {network} be known by name: the resolver reads their leases",
        "# one resolver for all networks, started by the first question", "ls {run}/networks/{network}/leases"),
    "NAMES_INSIDE": Row("network", _names_inside),
    "CNI": Row("network", _cni),
    "RATE": Row("network", _rate),
    "FAULT": Row("network", _fault),
    "EGRESS": Row("network", _egress),
    "APART": row("bridge link", "have what {link} says to its neighbours on {bridge} meet the rules",
        "echo 1 >/sys/class/net/{link}/brport/bridge/bridge/nf_call_iptables",
        "cat /sys/class/net/{link}/brport/bridge/bridge/nf_call_iptables"),
}  # fmt: skip
