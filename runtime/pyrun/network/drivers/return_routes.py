"""The way back of answers: published ports lead to a bridge, while the default route may be a card's.

What comes in by the bridge would be answered past this host, by the card, and nobody would know the sender. So a rule
in the container's namespace sends whatever bears the address of a bridge by that bridge, from a table of its own:

    1000: from 10.77.0.2 lookup 7002        7002: 10.77.0.0/16 dev eth0; default via 10.77.0.1 dev eth0

That holds for connections, whose answers bear the address that was asked. An answer by UDP gets its sender's address
from the route only then, unless the program chooses it: `pyrun port` tells (publishing/reach.py). The table goes with
its interface; a rule without one is passed over. Source: man 8 ip-rule.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from ipaddress import ip_interface
from typing import Any

from pyrun.network import attach, endpoint
from pyrun.network.drivers import links
from pyrun.network.endpoint import Wire
from pyrun.plan.operations import Operation

_PRIORITY = 1000
_TABLES = 7000  # and the interface's index


def operations(wires: list[Wire]) -> list[Operation]:
    """The rules that a container with *wires* needs: none where its default route is a bridge's."""
    return [Operation("ANSWERS", *led) for led in _led(wires)]


def _led(wires: list[Wire]) -> Iterator[tuple[str, str, int, str]]:
    """Interface, address, prefix and gateway of each rule."""
    for six in (False, True):
        default = endpoint.first_for(wires, six)
        if default is not None and default.driver:
            for wire in wires:
                if wire.gateway_of(six) and not (wire.driver or wire.internal):
                    yield wire.ifname, *wire.family(six)


def keep(link: attach.Attachment, wires: list[Wire]) -> None:
    """Set them for a container that runs; those that are there already stay."""
    for led in _led(wires):
        lead_back(link, *led)


def lead_back(link: attach.Attachment, inside: str, address: str, prefix: int, gateway: str) -> None:
    """Let what bears *address* go by its own interface. Carries out the operation."""
    six = ":" in address
    more: dict[str, Any] = {"family": socket.AF_INET6 if six else socket.AF_INET}
    with links.asking(), attach.inside_of(link), links.IPRoute() as route:
        index = route.link_lookup(ifname=inside)[0]
        more["table"] = _TABLES + index
        try:
            route.rule("add", priority=_PRIORITY, src=address, src_len=128 if six else 32, **more)
        except links.NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:
                return  # a kernel without CONFIG_IP_MULTIPLE_TABLES, where there is no such table either
            if error.code != errno.EEXIST:
                raise
        subnet = str(ip_interface(f"{address}/{prefix}").network)
        route.route("replace", dst=subnet, oif=index, **more, **({} if six else {"scope": "link"}))
        route.route("replace", dst="::/0" if six else "0.0.0.0/0", gateway=gateway, oif=index, **more)
