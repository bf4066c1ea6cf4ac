"""The cables of running containers: put back into their bridge when that was deleted, or when somebody took them out.

A lease tells of its cable ("link pyv..."), the claims of ports of what it has to be able to do. Cold: for whoever
rebuilds a network, and for `network reload`.
"""

from __future__ import annotations

import time
from typing import Any

from pyrun.network import host, leases, records, shards
from pyrun.network.egress import bridge_filter
from pyrun.network.publishing import ports
from pyrun.network.records import Network

_UP = 1  # IFF_UP
# One that ends is taken down a moment before its lease is gone: what is still astray after this is so for good.
_ENDING_S = 0.4


def reconnect(route: Any, network: Network) -> None:
    """Put the cables of running containers back into a bridge that was deleted under them."""
    network.shards = shards.standing(route, network)
    _put_back(route, network, _of(network.name))
    _open_loopback(network)


def restored(route: Any, network: Network) -> list[str]:
    """Put back what somebody took out of the network's bridges, or took down; what that was, in words."""
    done = ["route_localnet"] if _open_loopback(network) else []
    astray = _astray(route, network)
    if astray:
        time.sleep(_ENDING_S)
        astray &= _astray(route, network)
        cables = _of(network.name)
        _put_back(route, network, {link: cables[link] for link in astray & set(cables)})
    return done + [f"the cable {link}" for link in sorted(astray)]


def _of(name: str) -> dict[str, list[str]]:
    """The host's ends of the cables of living containers on a network, and the addresses behind each."""
    found: dict[str, list[str]] = {}
    for address, lines in leases.held(name).items():
        for line in lines:
            if line.startswith("link "):
                found.setdefault(line[5:], []).append(address)
    return found


def _astray(route: Any, network: Network) -> set[str]:
    """Those that are there, and either in none of its bridges or down."""
    bridges = {index for name in network.bridges() for index in route.link_lookup(ifname=name)}
    cables = _of(network.name)
    return {
        name
        for link in (route.get_links() if cables else ())
        if (name := str(link.get_attr("IFLA_IFNAME"))) in cables
        and (link.get_attr("IFLA_MASTER") not in bridges or not link["flags"] & _UP)
    }


def _put_back(route: Any, network: Network, cables: dict[str, list[str]]) -> None:
    published = {address for _, address in records.published_ports()}
    if cables:
        bridge_filter.hold(network)
    for link, addresses in cables.items():
        for index in route.link_lookup(ifname=link):
            shards.join(route, network, index)
            if not published.isdisjoint(addresses):  # its container reaches its own published port
                route.brport("set", index=index, mode=1)


def _open_loopback(network: Network) -> bool:
    """Let 127.0.0.1 of the host be redirected to containers, if a port asks for it; whether that was off."""
    bridges = network.bridges()  # by each of them enters what its own containers answer
    shut = [
        name
        for name in (f"net/ipv4/conf/{each}/route_localnet" for each in bridges)
        if host.read_sysctl(name) != "1"
    ]
    wanted = {
        address
        for port, address in records.published_ports()
        if port[0] == ports.ANY or port[0][:4] == "127."
    }
    if not shut or wanted.isdisjoint(leases.held(network.name)):
        return False
    for name in shut:
        host.write_sysctl(name, "1")
    return True
