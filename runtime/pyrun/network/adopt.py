"""`pyrun network adopt BRIDGE`: a network somebody wired by hand becomes one of pyrun's, and nobody on it notices.

    ip netns exec blue ... 10.0.0.2/24 ─── veth ─── br666 10.0.0.1/24 ─── MASQUERADE, FORWARD rules
                                                      │
    pyrun run --network br666 ... 10.0.0.3 ── pyv… ───┘

Subnet and gateway are those of the bridge's own address. Who is on it already is looked for in every network namespace
of this host, and in the bridge's neighbours; each of their addresses is claimed in the name of that namespace, so that
leases are handed out beside them, and is free again once the namespace is gone. What existed is noted, and `network rm`
leaves it: the bridge, its address, the rules of others. The way in from outside stays as those rules have it.
Not here: the bridge's other half, which is a network as any other (bridge.py).
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from pyrun import boot, linux, notice
from pyrun.errors import Conflict, NetworkError, NotFound, UsageError
from pyrun.network import design, foreign_leases, host, ownership, records, requests
from pyrun.network.egress import bridge_filter
from pyrun.network.firewall import firewalld
from pyrun.network.records import Network
from pyrun.safe import shell_word
from pyrun.store import containers, paths

boot.site_packages()

from pyroute2.iproute import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

_UNIVERSE, _MAIN = 0, 254
_NUD_GONE = 0x01 | 0x20 | 0x40  # NUD_INCOMPLETE, NUD_FAILED, NUD_NOARP


class Attached:
    """Somebody on the bridge: path of its namespace (or of the bridge, for a neighbour), its name, its addresses."""

    __slots__ = ("addresses", "ifname", "name", "path")

    def __init__(self, path: str, name: str, ifname: str, addresses: list[str]) -> None:
        self.path, self.name, self.ifname, self.addresses = path, name, ifname, addresses


def adopt(bridge: str, name: str = "") -> Network:
    """Take over *bridge* as the network *name*. Raises: NotFound, UsageError, Conflict, NetworkError."""
    name = requests.check_name(name or bridge, "network adopt --name")
    with host.locked(), IPRoute() as route:
        network, there = _noted(route, bridge, name)
        ownership.claim(route)
        hold(route, network.index)
        records.save(network)
        _claim(network, there)
    try:
        from pyrun.network import bridge as bridges

        bridges.ensure(name, quiet=True)
    except BaseException:
        shutil.rmtree(Path(paths.run(), "networks", name))
        raise
    told = [f"{each.name} has {' and '.join(each.addresses)}" for each in there if each.addresses]
    notice.say(f"network {name}: bridge {bridge} adopted, {'; '.join([_subnets_told(network), *told])}")
    return network


def _subnets_told(network: Network) -> str:
    return " and ".join(each.subnet for each in network.pools())


def _noted(route: Any, bridge: str, name: str) -> tuple[Network, list[Attached]]:
    """network.json of it, and who is on it. Nothing is changed."""
    option = f"network adopt {bridge}"
    requests.check_interface(bridge, "network adopt")
    found = route.link_lookup(ifname=bridge)
    if not found:
        raise NotFound(
            f"{option}: this host has no bridge of that name", "`ip link show type bridge` lists them"
        )
    (link,) = route.get_links(found[0])
    if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") != "bridge":
        raise UsageError(f"{option}: {bridge} is no bridge", "`ip link show type bridge` lists them")
    _refuse_taken(option, bridge, name)
    _refuse_shared(route, option, bridge, found[0])
    four, six = _subnets(route, option, bridge, found[0])
    ports = list(route.get_links(master=found[0]))
    network = records.Network(name, containers.new_id())
    network.bridge, network.index, network.adopted = bridge, int(found[0]), True
    network.mtu, network.created = int(link.get_attr("IFLA_MTU")), time.time()
    network.has(four, six)
    there = _in_namespaces(route, ports)
    there += _neighbours(route, bridge, found[0], {address for each in there for address in each.addresses})
    network.before = {
        "ports": sorted(str(port.get_attr("IFLA_IFNAME")) for port in ports),
        "route_localnet": host.read_sysctl(f"net/ipv4/conf/{bridge}/route_localnet"),
        "nf_call": bridge_filter.switches(bridge),
    }
    network.attached = [
        {"namespace": each.path, "name": each.name, "ifname": each.ifname, "addresses": each.addresses}
        for each in there
    ]
    return network, there


def _refuse_taken(option: str, bridge: str, name: str) -> None:
    if name in (*requests.RESERVED, design.DEFAULT):
        raise UsageError(f"{option}: the name {name} is pyrun's own", "choose one with --name")
    for other in records.known():
        if bridge in other.bridges():
            raise Conflict(
                f"{option}: it is the bridge of network {other.name} already",
                f"`pyrun network connect {shell_word(other.name)}` uses it",
            )
    if records.definition(name) or records.load(name):
        raise Conflict(f"{option}: network {name} exists", "choose another name with --name")


def _refuse_shared(route: Any, option: str, bridge: str, index: int) -> None:
    """A bridge the host itself goes out by leads to a segment with machines that nobody here knows."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for message in route.get_default_routes(family=family, table=_MAIN):
            if message.get_attr("RTA_OIF") == index:
                raise UsageError(
                    f"{option}: this host's own default route leaves there, so the addresses are not its to hand out",
                    f"--network l2:{bridge} connects a container to it",
                )


def _subnets(
    route: Any, option: str, bridge: str, index: int
) -> tuple[list[records.Pool], list[records.Pool]]:
    """The subnets of the bridge's addresses, each with that address as its gateway. Raises UsageError, Conflict."""
    found: tuple[list[records.Pool], list[records.Pool]] = ([], [])
    for message in route.get_addr(index=index):
        if message["scope"] != _UNIVERSE:
            continue
        own = ip_interface(
            f"{message.get_attr('IFA_LOCAL') or message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
        )
        subnet = own.network
        if subnet.prefixlen > subnet.max_prefixlen - 2:
            continue
        _refuse_overlap(option, subnet)
        found[subnet.version == 6].append(design.described(subnet, str(own.ip)))
    if not (found[0] or found[1]):
        raise UsageError(
            f"{option}: {bridge} has no address, so its subnet is unknown",
            f"ip addr add 10.0.0.1/24 dev {shell_word(bridge)}",
        )
    return found


def _refuse_overlap(option: str, subnet: IPv4Network | IPv6Network) -> None:
    for other in records.known():
        for each in other.pools():
            theirs = ip_network(each.subnet)
            if theirs.version == subnet.version and theirs.overlaps(subnet):
                raise Conflict(
                    f"{option}: its subnet {subnet} overlaps {theirs} of network {other.name}",
                    "give one of the two another subnet",
                )


# ── who is on it ───────────────────────────────────────────────────────────────────────────────────


def _in_namespaces(route: Any, ports: list[Any]) -> list[Attached]:
    """The namespaces at the other ends of the bridge's veth pairs."""
    peers = {
        (port.get_attr("IFLA_LINK_NETNSID"), port.get_attr("IFLA_LINK"))
        for port in ports
        if port.get_attr("IFLA_LINK_NETNSID") is not None
    }
    own_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    found = []
    try:
        for path in _namespaces() if peers else ():
            found += _peers_in(route, path, own_fd, peers)
    finally:
        os.close(own_fd)
    return found


def _namespaces() -> Iterator[str]:
    """A path for each network namespace of this host, those with a name first; our own is left out."""
    seen = {os.stat("/proc/self/ns/net").st_ino}
    named = sorted(Path(paths.NETNS_DIR).glob("*"))
    lived_in = sorted(Path("/proc").glob("[0-9]*/ns/net"), key=lambda path: int(path.parts[2]))
    for path in [*named, *lived_in]:
        try:
            inode = path.stat().st_ino
        except OSError:  # ended meanwhile
            continue
        if inode not in seen:
            seen.add(inode)
            yield str(path)


def _peers_in(route: Any, path: str, own_fd: int, peers: set[tuple[Any, Any]]) -> list[Attached]:
    """The interfaces in one namespace that are the other ends of *peers*, (id of their namespace, index)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        number = route.get_netnsid(fd=fd)["nsid"]
        wanted = {index for each, index in peers if each == number}
        if not wanted:
            return []
        linux.setns(fd, linux.CLONE_NEWNET)
        try:
            with IPRoute() as inner:
                return [
                    _described(inner, link, path) for link in inner.get_links() if link["index"] in wanted
                ]
        finally:
            linux.setns(own_fd, linux.CLONE_NEWNET)
    except (NetlinkError, OSError):  # a name that is no namespace, or one that ended meanwhile
        return []
    finally:
        os.close(fd)


def _described(inner: Any, link: Any, path: str) -> Attached:
    addresses = [
        str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
        for message in inner.get_addr(index=link["index"])
        if message["scope"] == _UNIVERSE
    ]
    parts = Path(path).parts
    name = f"process {parts[2]}" if parts[1] == "proc" else parts[-1]
    return Attached(path, name, str(link.get_attr("IFLA_IFNAME")), addresses)


def _neighbours(route: Any, bridge: str, index: int, known: set[str]) -> list[Attached]:
    """Machines whose namespace is not to be seen, as virtual ones on a tap: whom the host has spoken with lately."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for message in route.get_neighbours(family=family, ifindex=index):
            address = str(message.get_attr("NDA_DST"))
            if message["ndm_type"] != 1 or message["state"] & _NUD_GONE or ip_address(address).is_link_local:
                continue
            if address in known:
                continue
            found.append(Attached(f"/sys/class/net/{bridge}", f"neighbour {address}", "", [address]))
    return found


# ── what is noted of them ──────────────────────────────────────────────────────────────────────────


def _claim(network: Network, there: list[Attached]) -> None:
    """A claim for every address in the network's subnets, in the name of the namespace that has it."""
    name = network.name
    paths.make(f"{paths.run()}/networks/{name}/leases")
    subnets = [ip_network(each.subnet) for each in network.pools()]
    for each in there:
        told = "" if each.path.startswith("/sys/") or " " in each.name else each.name
        within = [
            address for address in each.addresses if any(ip_address(address) in subnet for subnet in subnets)
        ]
        foreign_leases.note(name, each.path, told, each.ifname, within)


def restore(network: Network) -> None:
    """Of the bridge's settings what pyrun changed for published ports and policies; and what firewalld was told."""
    firewalld.withdraw(network)
    before = network.before or {}
    if before.get("route_localnet"):
        host.write_sysctl(f"net/ipv4/conf/{network.bridge}/route_localnet", str(before["route_localnet"]))
    bridge_filter.turn(network.bridge, before.get("nf_call") or {})


def check_standing(route: Any, network: Network) -> bool:
    """Whether the bridge had to be noted anew; it is never made by us. Raises NetworkError when it is gone."""
    found = route.link_lookup(ifname=network.bridge)
    if not found:
        raise NetworkError(
            f"network {network.name}: its bridge {network.bridge}, which was adopted, is gone",
            f"make it again and `pyrun network adopt` it; `pyrun network rm {shell_word(network.name)}` forgets it",
        )
    changed = bool(network.index != found[0])
    network.index = int(found[0])
    return changed


# ── the bridge's MAC is kept ───────────────────────────────────────────────────────────────────────


# A bridge without a MAC of its own has the lowest of its ports', and another one when a lower comes or that one goes:
# all on it would lose their gateway for a while. Once set, it is kept. But whenever a MAC is set, be it the same, the
# kernel forgets all neighbours on that link, permanent ones (`ip neigh add ... nud permanent`) too. Most are found
# again at once; but for a packet that is forwarded over IPv6 this host asks under the bridge's link-local address, and
# while that one is tentative (RFC 4862, 5.4: up to 2 s after the bridge came up), it does not ask. So they are set
# again. Source: net/core/neighbour.c neigh_changeaddr, net/ipv6/ndisc.c ndisc_send_ns, net/bridge/br_stp_if.c of
# Linux.

_UNICAST = 1  # RTN_UNICAST
_LEARNED = 0x02 | 0x04 | 0x08 | 0x10  # NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE
_STALE, _STATIC = 0x04, 0x40 | 0x80  # NUD_NOARP, NUD_PERMANENT


def hold(route: Any, index: int) -> None:
    """The bridge keeps its MAC whatever ports come and go, and the host its neighbours on it."""
    known = [
        message
        for message in route.get_neighbours(ifindex=index)
        if message["ndm_type"] == _UNICAST and message["state"] & (_LEARNED | _STATIC)
    ]
    route.link("set", index=index, address=route.get_links(index)[0].get_attr("IFLA_ADDRESS"))
    for message in known:
        with suppress(NetlinkError):  # then it is asked for
            route.neigh("replace", ifindex=index, **_again(message))


def _again(message: Any) -> dict[str, Any]:
    """What was known of a neighbour. One that was learned is used at once, and asked whether it is still there."""
    static = message["state"] & _STATIC
    told = {key: message.get_attr(f"NDA_{key.upper()}") for key in ("dst", "lladdr", "protocol", "flags_ext")}
    return {
        "family": message["family"], "state": static or _STALE, "flags": message["flags"],
        **{key: value for key, value in told.items() if value is not None},
    }  # fmt: skip
