"""What the network's operations say to a reader: (sentence, shell equivalent, how to see it).

`{name}` and `{pid}` are filled in by plan/explain.py. The shell lines would do the same by
hand, one by one; together they are the network of a container.
"""

from __future__ import annotations

from collections.abc import Callable
from shlex import join, quote

from pyrun.network import explain_drivers, firewall, host
from pyrun.network.egress import explain as explain_egress
from pyrun.network.explain_drivers import INSIDE, Explanation, arguments
from pyrun.network.publishing import ports
from pyrun.plan.operations import Operation
from pyrun.store import paths


def _network(operation: Operation) -> Explanation:
    bridge, gateway, prefix = arguments(operation)
    return (
        f"make the bridge {bridge} with the address {gateway}/{prefix}, forwarding and the table inet {firewall.TABLE}",
        f"ip link add {bridge} type bridge mcast_snooping 0; ip addr add {gateway}/{prefix} dev {bridge}; "
        f"ip link set {bridge} up; sysctl net.ipv4.ip_forward=1; nft -f ...",
        f"ip addr show {bridge}; nft list table inet {firewall.TABLE}",
    )


def _lease(operation: Operation) -> Explanation:
    address, network = arguments(operation)
    see = f"cat {quote(f'{paths.run()}/networks/{network}/leases/{address}')}"
    return (f"lease the address {address} of the network {network}", "", see)


def _port(operation: Operation) -> Explanation:
    host, number, protocol = arguments(operation)
    return (
        f"reserve the port {host}:{number}/{protocol} of the host",
        "",
        f"cat {quote(f'{paths.run()}/ports/{protocol}-{host}-{number}')}",
    )


def _netns_name(operation: Operation) -> Explanation:
    path = arguments(operation)[0]
    return (
        "give the network namespace the container's name",
        f"touch {path}; mount --bind /proc/{{pid}}/ns/net {path}",
        "ip netns list",
    )


def _netns_enter(operation: Operation) -> Explanation:
    if operation.args or not host.has_ipv6():
        return ("enter the network namespace, and return with a socket of it", "", f"{INSIDE} ip link")
    return (
        "enter the network namespace, where links that come are to have no IPv6, and return with a socket of it",
        "ip netns exec {name} sysctl net.ipv6.conf.default.disable_ipv6=1",
        f"{INSIDE} sysctl net.ipv6.conf.default.disable_ipv6",
    )


def _veth(operation: Operation) -> Explanation:
    name, bridge, mac, alias, inside, _ = arguments(operation)
    no_ipv6 = " addrgenmode none" if host.has_ipv6() else ""
    return (
        f"make a link pair: {name} in the bridge {bridge}, {inside} ({mac}) inside the container",
        f"ip link add {name} type veth peer name {inside} address {mac} netns {{name}}; "
        f"ip link set {name} alias {alias}{no_ipv6} master {bridge} up",
        f"ip -d link show {name}",
    )


def _ipv6(operation: Operation) -> Explanation:
    (inside,) = arguments(operation)
    return (
        f"switch IPv6 on for {inside}, and believe no router that advertises itself there",
        f"{INSIDE} sysctl net.ipv6.conf.{inside}.accept_ra=0 net.ipv6.conf.{inside}.accept_dad=0 "
        f"net.ipv6.conf.{inside}.disable_ipv6=0",
        f"{INSIDE} sysctl net.ipv6.conf.{inside}.accept_ra",
    )


def _pin(operation: Operation) -> Explanation:
    name, mac, address, address6 = arguments(operation)
    pairs = [(firewall.MACS, mac), (firewall.ADDRESSES, address), (firewall.ADDRESSES6, address6)]
    add = f"nft add element bridge {firewall.TABLE}"
    added = [f"{add} {where} '{{ \"{name}\" . {what} }}'" for where, what in pairs if what]
    return (
        f"let {name} send from {' and '.join(what for _, what in pairs if what)}, and nothing in the name of others",
        "; ".join(added),
        f"nft list set bridge {firewall.TABLE} {firewall.MACS}",
    )


def _announce(operation: Operation) -> Explanation:
    inside, mac, *addresses = arguments(operation)
    told = " and ".join(filter(None, addresses))
    return (
        f"tell the neighbours of {inside} that {told} is at {mac}: they may know a former owner",
        "",
        "",
    )


def _resolver(operation: Operation) -> Explanation:
    network, gateway = arguments(operation)
    return (
        f"let the resolver of the network {network} listen at {gateway}: it knows the containers and asks the outside",
        "",
        f"ss -lun src {f'[{gateway}]' if ':' in gateway else gateway}",
    )


def _address(operation: Operation) -> Explanation:
    address, prefix, inside = arguments(operation)
    more = " nodad" if ":" in address else " broadcast +"
    return (
        f"give {inside} the address {address}/{prefix}",
        f"ip -n {{name}} addr add {address}/{prefix}{more} dev {inside}",
        f"{INSIDE} ip addr show {inside}",
    )


def _route(operation: Operation) -> Explanation:
    gateway, inside = arguments(operation)
    six = " -6" if ":" in gateway else ""
    return (
        f"send everything else to {gateway}, by {inside}",
        f"ip{six} -n {{name}} route add default via {gateway} dev {inside}",
        f"{INSIDE} ip{six} route",
    )


def _settle(operation: Operation) -> Explanation:
    name, bridge = arguments(operation)
    return (
        f"read the link inside, {name} and {bridge} back, so that they forward from the first packet on",
        f"ip -n {{name}} link show; ip link show {name}; ip link show {bridge}",
        f"bridge link show dev {name}",
    )


def _localnet(operation: Operation) -> Explanation:
    (bridge,) = arguments(operation)
    return (
        f"let 127.0.0.1 of the host be redirected to {bridge} (the chain guard keeps everybody else out)",
        f"sysctl net.ipv4.conf.{bridge}.route_localnet=1",
        f"sysctl net.ipv4.conf.{bridge}.route_localnet",
    )


def _hairpin(operation: Operation) -> Explanation:
    (name,) = arguments(operation)
    return (
        f"let the container reach its own published port: {name} may send back where a packet came from",
        f"bridge link set dev {name} hairpin on",
        f"bridge -d link show dev {name}",
    )


def _publish(operation: Operation) -> Explanation:
    host, number, protocol, address, inside = arguments(operation)
    name, key = _keyed(firewall.PORTS, host, number, protocol)
    return (
        f"publish {host}:{number}/{protocol}: connections go to {address}:{inside}",
        f"nft add element inet {firewall.TABLE} {name} '{{ {key} : {address} . {inside} }}'",
        f"nft list map inet {firewall.TABLE} {name}",
    )


def _keyed(base: str, host: str, number: str, protocol: str) -> tuple[str, str]:
    """A port of the host in the firewall: the name of its map or set, and its key there."""
    name, key = f"{base}6" if ":" in host else base, f"{protocol} . {number}"
    return (name, key) if host in (ports.ANY, ports.ANY6) else (f"{name}_at", f"{host} . {key}")


def _close(operation: Operation) -> Explanation:
    host, number, protocol = arguments(operation)
    name, key = _keyed(firewall.CLOSED, host, number, protocol)
    return (
        f"keep {host}:{number}/{protocol} closed to the outside: this host's own firewall would not let it in",
        f"nft add element inet {firewall.TABLE} {name} '{{ {key} }}'",
        f"nft list set inet {firewall.TABLE} {name}",
    )


def _open(operation: Operation) -> Explanation:
    host, number, protocol = arguments(operation)
    name, key = _keyed(firewall.CLOSED, host, number, protocol)
    return (
        f"have {host}:{number}/{protocol} open to the outside, as this host's own firewall has it",
        f"nft delete element inet {firewall.TABLE} {name} '{{ {key} }}'",
        f"nft list set inet {firewall.TABLE} {name}",
    )


def _commit(operation: Operation) -> Explanation:
    (count,) = arguments(operation)
    see = f"nft list table inet {firewall.TABLE}; nft list table bridge {firewall.TABLE}"
    what = "the change" if count == "1" else f"all {count} changes"
    return (f"commit {what} of the firewall in one transaction", "", see)


def _forget_flows(operation: Operation) -> Explanation:
    number, protocol = arguments(operation)
    return (
        f"forget tracked {protocol} flows to port {number}, which would keep their former way",
        f"conntrack -D -p {protocol} --orig-port-dst {number}  # Debian: the package conntrack",
        f"conntrack -L -p {protocol} --orig-port-dst {number}",
    )


def _netns_file(operation: Operation) -> Explanation:
    (path,) = arguments(operation)
    return (
        "give the network namespace a name in the user's mount namespace",
        f"touch {quote(path)}; mount --bind /proc/{{pid}}/ns/net {quote(path)}",
        "lsns -t net -p {pid}",
    )


def _user_network(operation: Operation) -> Explanation:
    program, pid_file, name, *given = arguments(operation)
    from pyrun.network.user_mode import pasta, slirp

    line = pasta.command(pid_file, name, given) if program == "pasta" else slirp.command(name, given)
    return (
        f"start {program}, which carries the container's packets through the user's own sockets",
        join(line),
        "nsenter -t {pid} -n ip addr",
    )


def _forward(operation: Operation) -> Explanation:
    host, number, inside, protocol = arguments(operation)
    words = f'"proto": "{protocol}", "host_addr": "{host}", "host_port": {number}, "guest_port": {inside}'
    return (
        f"publish {host}:{number}/{protocol}: slirp4netns listens there",
        f'echo \'{{"execute": "add_hostfwd", "arguments": {{{words}}}}}\' | nc -U slirp.sock',
        f"ss -{'t' if protocol == 'tcp' else 'u'}ln 'sport = :{number}'",
    )


EXPLAIN: dict[str, Callable[[Operation], Explanation]] = {
    **explain_drivers.EXPLAIN,
    **explain_egress.EXPLAIN,
    "NETWORK": _network,
    "LEASE": _lease,
    "PORT": _port,
    "NETNS_NAME": _netns_name,
    "NETNS_ENTER": _netns_enter,
    "VETH": _veth,
    "IPV6": _ipv6,
    "PIN": _pin,
    "LINK_UP": explain_drivers.link_up,
    "ADDRESS": _address,
    "ADDRESS6": _address,
    "ROUTE": _route,
    "ROUTE6": _route,
    "ANNOUNCE": _announce,
    "RESOLVER": _resolver,
    "SETTLE": _settle,
    "LOCALNET": _localnet,
    "HAIRPIN": _hairpin,
    "PUBLISH": _publish,
    "CLOSE": _close,
    "OPEN": _open,
    "COMMIT": _commit,
    "FORGET_FLOWS": _forget_flows,
    "NETNS_FILE": _netns_file,
    "USER_NETWORK": _user_network,
    "FORWARD": _forward,
}
