"""A bridge of pyrun's, the container's link to it, what the firewall is told; and the network of an ordinary user.

The shell lines would do the same by hand, one by one; together they are the network of a container.
"""

from __future__ import annotations

from pyrun.network import firewall, host, tags
from pyrun.network.publishing import ports
from pyrun.safe import shell_command

from .rows import Explanation, Row, quoted

INSIDE = "ip netns exec {name}"
# Decided and claimed before the plan is carried out: network/claims.py.
CLAIM = "the claim"


def row(arguments: str, words: str, shell: str = "", see: str = "", by: str = "") -> Row:
    """One of the network stage."""
    return Row("network", arguments, words, shell, see, by)


def _netns_enter(ipv6: str = "") -> Explanation:
    if ipv6 or not host.has_ipv6():
        return "enter the network namespace, and return with a socket of it", "", f"{INSIDE} ip link"
    return (
        "enter the network namespace, where links that come are to have no IPv6, and return with a socket of it",
        f"{INSIDE} sysctl net.ipv6.conf.default.disable_ipv6=1",
        f"{INSIDE} sysctl net.ipv6.conf.default.disable_ipv6",
    )


@quoted
def _veth(link: str, bridge: str, mac: str, alias: str, inside: str, _: str) -> Explanation:
    no_ipv6 = " addrgenmode none" if host.has_ipv6() else ""
    return (
        f"make a link pair: {link} in the bridge {bridge}, {inside} ({mac}) inside the container",
        f"ip link add {link} type veth peer name {inside} address {mac} netns {{name}}; "
        f"ip link set {link} alias {alias}{no_ipv6} master {bridge} up",
        f"ip -d link show {link}",
    )


@quoted
def _pin(link: str, mac: str, address: str, address6: str) -> Explanation:
    pairs = [(firewall.MACS, mac), (firewall.ADDRESSES, address), (firewall.ADDRESSES6, address6)]
    add = f"nft add element bridge {tags.table()}"
    return (
        f"let {link} send from {' and '.join(what for _, what in pairs if what)}, and nothing in the name of others",
        "; ".join([f"{add} {where} '{{ \"{link}\" . {what} }}'" for where, what in pairs if what]),
        f"nft list set bridge {tags.table()} {firewall.MACS}",
    )


@quoted
def _announce(inside: str, mac: str, address: str, address6: str) -> Explanation:
    told = " and ".join(filter(None, (address, address6)))
    return f"tell the neighbours of {inside} that {told} is at {mac}: they may know a former owner", "", ""


@quoted
def _resolver(network: str, gateway: str) -> Explanation:
    return (
        f"let the resolver of the network {network} listen at {gateway}: it knows the containers and asks the outside",
        "",
        f"ss -lun src {f'[{gateway}]' if ':' in gateway else gateway}",
    )


def _keyed(base: str, address: str, number: str, protocol: str) -> tuple[str, str]:
    """A port of the host in the firewall: the name of its map or set, and its key there."""
    name, key = f"{base}6" if ":" in address else base, f"{protocol} . {number}"
    return (name, key) if address in (ports.ANY, ports.ANY6) else (f"{name}_at", f"{address} . {key}")


@quoted
def _publish(address: str, number: str, protocol: str, to: str, inside: str) -> Explanation:
    name, key = _keyed(firewall.PORTS, address, number, protocol)
    return (
        f"publish {address}:{number}/{protocol}: connections go to {to}:{inside}",
        f"nft add element inet {tags.table()} {name} '{{ {key} : {to} . {inside} }}'",
        f"nft list map inet {tags.table()} {name}",
    )


@quoted
def _close(address: str, number: str, protocol: str) -> Explanation:
    name, key = _keyed(firewall.CLOSED, address, number, protocol)
    return (
        f"keep {address}:{number}/{protocol} closed to the outside: this host's own firewall would not let it in",
        f"nft add element inet {tags.table()} {name} '{{ {key} }}'",
        f"nft list set inet {tags.table()} {name}",
    )


@quoted
def _open(address: str, number: str, protocol: str) -> Explanation:
    name, key = _keyed(firewall.CLOSED, address, number, protocol)
    return (
        f"have {address}:{number}/{protocol} open to the outside, as this host's own firewall has it",
        f"nft delete element inet {tags.table()} {name} '{{ {key} }}'",
        f"nft list set inet {tags.table()} {name}",
    )


def _commit(count: int) -> Explanation:
    what = "the change" if count == 1 else f"all {count} changes"
    see = f"nft list table inet {tags.table()}; nft list table bridge {tags.table()}"
    return f"commit {what} of the firewall in one transaction", "", see


def _user_network(program: str, pid_file: str, path: str, *given: str) -> Explanation:
    from pyrun.network.user_mode import pasta, slirp

    pasta_s = program == "pasta"
    line = pasta.command(pid_file, path, list(given)) if pasta_s else slirp.command(path, list(given))
    return (
        f"start {program}, which carries the container's packets through the user's own sockets",
        shell_command(line),
        "nsenter -t {pid} -n ip addr",
    )


# Of any link inside, a bridge's or a card's.
LINK_UP = row(
    "inside",
    "bring {inside} up inside",
    "ip -n {name} link set {inside} up",
    f"{INSIDE} ip link show {{inside}}",
)

ROWS = {
    "NETWORK": row("bridge gateway prefix",
        "make the bridge {bridge} with the address {gateway}/{prefix}, forwarding and the table inet {table}",
        "ip link add {bridge} type bridge mcast_snooping 0; ip addr add {gateway}/{prefix} dev {bridge}; "
        "ip link set {bridge} up; sysctl net.ipv4.ip_forward=1; nft -f ...",
        "ip addr show {bridge}; nft list table inet {table}", by=CLAIM),
    "LEASE": row("address network", "lease the address {address} of the network {network}",
        see="cat {run}/networks/{network}/leases/{address}", by=CLAIM),
    "PORT": row("address number protocol", "reserve the port {address}:{number}/{protocol} of the host",
        see="cat {run}/ports/{protocol}-{address}-{number}", by=CLAIM),
    "NETNS_NAME": row("path owner", "give the network namespace the container's name",
        "touch {path}; mount --bind /proc/{pid}/ns/net {path}", "ip netns list"),
    "NETNS_ENTER": Row("network", _netns_enter),
    "VETH": Row("network", _veth),
    "IPV6": row("inside", "switch IPv6 on for {inside}, and believe no router that advertises itself there",
        f"{INSIDE} sysctl net.ipv6.conf.{{inside}}.accept_ra=0 net.ipv6.conf.{{inside}}.accept_dad=0 "
        "net.ipv6.conf.{inside}.disable_ipv6=0", f"{INSIDE} sysctl net.ipv6.conf.{{inside}}.accept_ra"),
    "PIN": Row("network", _pin),
    "LINK_UP": LINK_UP,
    "ADDRESS": row("address prefix inside", "give {inside} the address {address}/{prefix}",
        "ip -n {name} addr add {address}/{prefix} broadcast + dev {inside}", f"{INSIDE} ip addr show {{inside}}"),
    "ADDRESS6": row("address prefix inside", "give {inside} the address {address}/{prefix}",
        "ip -n {name} addr add {address}/{prefix} nodad dev {inside}", f"{INSIDE} ip addr show {{inside}}"),
    "ROUTE": row("gateway inside", "send everything else to {gateway}, by {inside}",
        "ip -n {name} route add default via {gateway} dev {inside}", f"{INSIDE} ip route"),
    "ROUTE6": row("gateway inside", "send everything else to {gateway}, by {inside}",
        "ip -6 -n {name} route add default via {gateway} dev {inside}", f"{INSIDE} ip -6 route"),
    "ANNOUNCE": Row("network", _announce),
    "RESOLVER": Row("network", _resolver),
    "SETTLE": row("link bridge",
        "read the link inside, {link} and {bridge} back, so that they forward from the first packet on",
        "ip -n {name} link show; ip link show {link}; ip link show {bridge}", "bridge link show dev {link}"),
    "LOCALNET": row("bridge",
        "let 127.0.0.1 of the host be redirected to {bridge} (the chain guard keeps everybody else out)",
        "sysctl net.ipv4.conf.{bridge}.route_localnet=1", "sysctl net.ipv4.conf.{bridge}.route_localnet"),
    "HAIRPIN": row("link",
        "let the container reach its own published port: {link} may send back where a packet came from",
        "bridge link set dev {link} hairpin on", "bridge -d link show dev {link}"),
    "PUBLISH": Row("network", _publish),
    "CLOSE": Row("network", _close),
    "OPEN": Row("network", _open),
    "COMMIT": Row("network", _commit),
    "FORGET_FLOWS": row("number protocol",
        "forget tracked {protocol} flows to port {number}, which would keep their former way",
        "conntrack -D -p {protocol} --orig-port-dst {number}  # Debian: the package conntrack",
        "conntrack -L -p {protocol} --orig-port-dst {number}"),
    "NETNS_FILE": row("path", "give the network namespace a name in the user's mount namespace",
        "touch {path}; mount --bind /proc/{pid}/ns/net {path}", "lsns -t net -p {pid}"),
    "USER_NETWORK": Row("network", _user_network),
    "FORWARD": row("address number inside protocol socket",
        "publish {address}:{number}/{protocol}: slirp4netns listens there",
        'echo \'{{"execute": "add_hostfwd", "arguments": {{"proto": "{protocol}", "host_addr": "{address}", '
        '"host_port": {number}, "guest_port": {inside}}}}}\' | nc -U {socket}',
        "ss --{protocol} -ln 'sport = :{number}'"),
}  # fmt: skip
