"""The segment behind a card of the host: the card, the bridge that holds it, and what the host itself has there.

Asked before anything is made, so that what cannot be is told by the option that asked for it. Only read here.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_interface
from typing import Any

from pyrun import boot
from pyrun.errors import NotFound, UsageError
from pyrun.network import requests, tags

boot.site_packages()

from pyroute2.iproute import IPRoute  # noqa: E402

_UP = 1  # IFF_UP
_LOOPBACK = 8  # IFF_LOOPBACK
_UNIVERSE = 0  # RT_SCOPE_UNIVERSE
_MAIN = 254  # RT_TABLE_MAIN


class Card:
    """A card of the host, or anything that can stand for one.

    bridge, bridge_index: what holds it (itself, if it is a bridge), "" and 0 for none; addresses: the host's own on
    this segment, as "192.0.2.5/24"; gateways: of the default routes that leave here.
    """

    __slots__ = (
        "addresses", "bridge", "bridge_index", "gateways", "index", "kind", "master", "mtu", "name", "up",
    )  # fmt: skip

    def __init__(self, route: Any, link: Any) -> None:
        self.name = str(link.get_attr("IFLA_IFNAME"))
        self.index = int(link["index"])
        self.kind = str(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "")
        self.mtu = int(link.get_attr("IFLA_MTU") or 1500)
        self.up = bool(link["flags"] & _UP)
        self.bridge, self.bridge_index = (self.name, self.index) if self.kind == "bridge" else ("", 0)
        self.master = ""
        over = link.get_attr("IFLA_MASTER")
        if over:
            (above,) = route.get_links(over)
            self.master = str(above.get_attr("IFLA_IFNAME"))
            if above.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge":
                self.bridge, self.bridge_index = self.master, int(over)
        indices = {self.index, self.bridge_index}
        self.addresses = _addresses(route, indices)
        self.gateways = _gateways(route, indices)

    def home(self, address: str) -> tuple[int, str]:
        """(prefix length, gateway or "") on this segment for an address a container is to have there.

        Raises KeyError where the host has no address whose subnet that is in.
        """
        for text in self.addresses:
            interface = ip_interface(text)
            if ip_address(address) in interface.network:
                inside = [each for each in self.gateways if ip_address(each) in interface.network]
                return interface.network.prefixlen, (inside or [""])[0]
        raise KeyError(address)


def card(name: str, told: str) -> Card:
    """The card called *name*. told: what asked for it. Raises: NotFound, UsageError."""
    requests.check_interface(name, told)
    with IPRoute() as route:
        found = route.link_lookup(ifname=name)
        if not found:
            raise NotFound(
                f"{told}: this host has no interface {name}", f"there are {', '.join(_names(route))}"
            )
        (link,) = route.get_links(found[0])
        if link["flags"] & _LOOPBACK:
            raise UsageError(
                f"{told}: {name} is the loopback, and leads to no segment",
                "the name of a card: `ip -br link` lists them",
            )
        return Card(route, link)


def _names(route: Any) -> list[str]:
    ours = ("lo", "pyr", "pyv", "pyl", "pym", "pyi", *[f"py{letter}" for letter in tags.LETTERS])
    names = [str(link.get_attr("IFLA_IFNAME")) for link in route.get_links()]
    return sorted(name for name in names if not name.startswith(ours)) or ["none"]


def _addresses(route: Any, indices: set[int]) -> list[str]:
    found = []
    for message in route.get_addr():
        if message["index"] in indices and message["scope"] == _UNIVERSE:
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            found.append(f"{address}/{message['prefixlen']}")
    return found


def _gateways(route: Any, indices: set[int]) -> list[str]:
    return [
        str(message.get_attr("RTA_GATEWAY"))
        for family in (socket.AF_INET, socket.AF_INET6)
        for message in route.get_default_routes(family=family, table=_MAIN)
        if message.get_attr("RTA_OIF") in indices and message.get_attr("RTA_GATEWAY")
    ]
