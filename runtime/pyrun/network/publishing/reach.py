"""From where a published port is reachable, and what the host's firewall makes of it: for `pyrun port`.

    this host     always
    the LAN       by which addresses of the host; none when it is published on the loopback address or is closed
    containers    by every address of the host but the loopback's, the gateway of their network among them

Cold: reads addresses, rules and a set from the kernel.
"""

from __future__ import annotations

import socket
from typing import Any

from pyrun import boot

boot.site_packages()

from pyroute2 import IPRoute  # noqa: E402

from pyrun.network import messages  # noqa: E402
from pyrun.network.publishing import host_firewall, ports, publication, shutting  # noqa: E402

Row = dict[str, object]

_LINK_LOCAL = "fe80:"
_CABLES = ("veth", "tun")  # of containers, of virtual machines


def rows(published: list[ports.Port]) -> list[Row]:
    """One row a port: port host inside protocol lan (addresses) containers firewall (in words)."""
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        filtered = host_firewall.suspected(sock)
        refused = host_firewall.closed(published) if filtered else {}
        shut = shutting.standing(sock)
    finally:
        sock.close()
    addresses = host_addresses()
    return [_row(port, addresses, refused.get(port, ""), shut, filtered=filtered) for port in published]


def _row(
    port: ports.Port, addresses: list[str], refused: str, shut: set[publication.Closed], *, filtered: bool
) -> Row:
    host, number, inside, protocol = port
    alone = not host_firewall.outside([port])
    is_shut = (host, number, protocol) in shut
    if host in (ports.ANY, ports.ANY6):
        lan = [address for address in addresses if (":" in address) == (host == ports.ANY6)]
    else:
        lan = [host]
    return {
        "host": host,
        "port": number,
        "inside": inside,
        "protocol": protocol,
        "lan": [] if alone or is_shut else lan,
        "containers": not alone,
        "firewall": "" if alone or not filtered else _worded(port, refused, shut=is_shut),
    }


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
