"""From where a published port is reachable, and what the host's firewall makes of it: for `pyrun port`.

    this host     always, but where the address it is published on is not this host's any more: then nobody reaches it
    the LAN       by which addresses of the host; none when it is published on the loopback address or is closed, or
                  when what is answered leaves the container by another interface than the question came in, or
                  when it leads to an adopted bridge and the host's rules do not forward it (`correct`, below)
    containers    by every address of the host but the loopback's, the gateway of their network among them; those of
                  its own network alone, if that is isolated (--isolate), or if others get no answer either

Of an ordinary user's container the ports are sockets of pasta or slirp4netns. The rules they are behind are root's to
read: what the firewall makes of them is said to be unknown, and "lan" is where they listen.

Cold: reads addresses, rules and a set from the kernel, and asks it in the container for the way of answers.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyrun import boot
from pyrun.network import endpoint, messages, records
from pyrun.network.endpoint import Wire
from pyrun.network.publishing import host_firewall
from pyrun.network.publishing.host_rules import judge, reading

boot.site_packages()

from pyroute2.iproute import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

from pyrun.network import attach  # noqa: E402
from pyrun.network.publishing import ports, shutting  # noqa: E402

_LINK_LOCAL = "fe80:"
_CABLES = ("veth", "tun")  # of containers, of virtual machines
_UNREAD = "unknown: only root can read its rules"


class Row:
    """From where one port is reachable.

    here: from this host; lan: by which of its addresses; containers: from these, only: those of one network alone, or
    ""; firewall: what the host's makes of it, in words; astray: by what answers to the LAN leave instead, or "".
    """

    __slots__ = (
        "astray", "containers", "firewall", "here", "host", "inside", "lan", "only", "port", "protocol",
    )  # fmt: skip

    def __init__(self, port: ports.Port) -> None:
        self.host, self.port, self.inside, self.protocol = port
        self.here = self.containers = False
        self.lan: list[str] = []
        self.firewall = self.only = self.astray = ""


def rows(published: list[ports.Port], wires: list[Wire], pid: int) -> list[Row]:
    """One row a port.

    wires: the container's interfaces on bridges; pid: of its process, 0 if it does not run.
    """
    addresses = host_addresses()
    if boot.rootless_uid() >= 0:
        return [_row(port, addresses, _UNREAD, shut=False) for port in published]
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        filtered = host_firewall.suspected(sock)
        refused = host_firewall.closed(published) if filtered else {}
        shut = shutting.standing(sock)
    finally:
        sock.close()
    found = []
    for port in published:
        is_shut = (port[0], port[1], port[3]) in shut
        worded = _worded(port, refused.get(port, ""), shut=is_shut) if filtered else ""
        found.append(_row(port, addresses, worded, shut=is_shut))
    if wires:
        with _inside(pid) as route:
            for row in found:
                _follow_answers(row, wires, addresses, route)
        correct(found, wires)
    return found


def _row(port: ports.Port, addresses: list[str], firewall: str, *, shut: bool) -> Row:
    row = Row(port)
    row.here = _is_here(row.host)
    if not row.here or not host_firewall.outside([port]):
        return row
    row.containers, row.firewall = True, firewall
    if shut:
        return row
    if row.host in (ports.ANY, ports.ANY6):
        row.lan = [address for address in addresses if (":" in address) == (row.host == ports.ANY6)]
    else:
        row.lan = [row.host]
    return row


def _is_here(host: str) -> bool:
    """Whether this host has the address now: another network, a new lease of its DHCP server may have changed it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((host, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


@contextmanager
def _inside(pid: int) -> Iterator[Any]:
    """An IPRoute in the network namespace of a process; None without one, or when it has just ended."""
    try:
        link = attach.Attachment({}, pid, None)
    except OSError:
        yield None
        return
    try:
        with attach.inside_of(link):
            route = IPRoute()
        with route:
            yield route
    finally:
        link.close()


def _follow_answers(row: Row, wires: list[Wire], addresses: list[str], route: Any) -> None:
    """Correct a row by what its network lets in, and by which way answers to the LAN go."""
    six = ":" in row.host
    wire = endpoint.first_for(wires, six)
    if wire is None or not row.containers:
        return
    network = records.load(wire.network) or records.Network()
    if route is not None:
        # Who asked by one of the host's addresses on a segment is answered there: the address stands for them.
        astray = {
            each: by for each in addresses if (":" in each) == six and (by := _astray(route, wire, row, each))
        }
        lan = row.lan
        row.lan = [each for each in lan if each not in astray]
        row.astray = next((astray[each] for each in lan if each in astray), "")
    if network.isolate or row.astray:
        row.only, row.containers = wire.network, network.icc


def _astray(route: Any, wire: Wire, row: Row, other: str) -> str:
    """By what an answer to *other* leaves the container, if that is not the interface the question came in by.

    By UDP an answer bears the address of the interface it leaves by, unless the program chooses another.
    """
    own = wire.family(":" in other)[0]
    bears = {} if row.protocol == "udp" else {"src": own}
    family = socket.AF_INET6 if ":" in other else socket.AF_INET
    try:
        (way,) = route.route("get", dst=other, family=family, **bears)
    except NetlinkError:
        return "no interface"
    name = str(route.get_links(way.get_attr("RTA_OIF"))[0].get_attr("IFLA_IFNAME"))
    sender = own if bears else way.get_attr("RTA_PREFSRC")
    return "" if (name, sender) == (wire.ifname, own) else name


def _worded(port: ports.Port, refused: str, *, shut: bool) -> str:
    if shut and refused:
        return f"{refused}: closed to the outside"
    if shut:
        return "lets it in now: `pyrun network reload` opens it"
    if refused and shutting.through_firewall(port):
        return f"{refused}: overruled by --publish-through-firewall"
    if refused:
        return f"{refused} any more: `pyrun network reload` closes it"
    return "lets it in"


def host_addresses() -> list[str]:
    """The addresses of this host that others can reach: not the loopback's, nor those of bridges that hold nothing but
    the cables of containers and virtual machines, ours or somebody else's."""
    with IPRoute() as route:
        links = {link["index"]: link for link in route.get_links()}
        ways_out = {way.get_attr("RTA_OIF") for way in route.get_routes() if way.get_attr("RTA_GATEWAY")}
        inner = {index for index in links if index not in ways_out and _holds_only_cables(index, links)}
        found = [
            str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in route.get_addr(family=family)
            if message["index"] in links.keys() - inner
            and links[message["index"]].get_attr("IFLA_IFNAME") != "lo"
        ]
    return [address for address in found if not address.startswith(_LINK_LOCAL)]


def _holds_only_cables(index: int, links: dict[int, Any]) -> bool:
    if _kind(links[index]) != "bridge":
        return False
    ports = [link for link in links.values() if link.get_attr("IFLA_MASTER") == index]
    return all(_kind(port) in _CABLES for port in ports)


def _kind(link: Any) -> str:
    return str(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "")


# ── adopted bridges ────────────────────────────────────────────────────────────────────────────────


# Into other bridges of ours what is published is let past chains of others that drop (firewall/openings.py). Into an
# adopted one the rules that were made with it go on deciding, of what is forwarded; so these are asked as well.


def correct(rows: list[Row], wires: list[Wire]) -> None:
    """Say in the rows which ports the host does not forward from the outside."""
    wanted = [(row, wire) for row in rows if row.lan and (wire := _leads(row, wires))]
    if not wanted or not _suspected():
        return
    hooks, uplinks = reading.hooks("forward"), reading.uplinks()
    for row, wire in wanted:
        six = ":" in row.host
        packets = [
            judge.Packet(
                protocol=row.protocol,
                port=row.inside,
                six=six,
                interface=uplink,
                address=wire.family(six)[0],
                outgoing=wire.bridge,
            )
            for uplink in uplinks
        ]
        reason = host_firewall.strictest(packets, hooks)
        if reason:
            row.firewall = f"{reason}: `network adopt` leaves that to it"
            if all(host_firewall.strictest([packet], hooks) for packet in packets):
                row.lan = []


def _leads(row: Row, wires: list[Wire]) -> Wire | None:
    """The interface on an adopted bridge that a port leads to."""
    wire = endpoint.first_for(wires, ":" in row.host)
    network = records.load(wire.network) if wire else None
    return wire if network and network.adopted else None


def _suspected() -> bool:
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        return host_firewall.suspected(sock, host_firewall.FORWARD)
    finally:
        sock.close()
