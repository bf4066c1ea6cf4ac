"""From where a published port is reachable, and what the host's firewall makes of it: for `pyrun port`.

    this host     always
    the LAN       by which addresses of the host; none when it is published on the loopback address or is closed
    containers    by every address of the host but the loopback's, the gateway of their network among them

Cold: reads addresses, rules and a set from the kernel.
"""

from __future__ import annotations

import socket

from pyrun import boot

boot.site_packages()

from pyroute2 import IPRoute  # noqa: E402

from pyrun.network import messages  # noqa: E402
from pyrun.network.publishing import host_firewall, ports, publication, shutting  # noqa: E402

Row = dict[str, object]

_LINK_LOCAL = "fe80:"


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
    """The addresses of this host that others can reach: not the loopback's, nor those of our own bridges."""
    with IPRoute() as route:
        names = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in route.get_links()}
        found = [
            str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in route.get_addr(family=family)
            if not names.get(message["index"], "").startswith(("lo", "pyr"))
        ]
    return [address for address in found if not address.startswith(_LINK_LOCAL)]
