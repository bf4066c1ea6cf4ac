"""Subnets that somebody asks for with --subnet: read, and refused where they are no use or in somebody's way."""

from __future__ import annotations

from ipaddress import ip_network

from pyrun.errors import Conflict, UsageError
from pyrun.network import records
from pyrun.network.records import Network
from pyrun.network.subnets import Subnet

# This host, one's own segment, everybody at once, reserved, IPv4 in disguise. Source: RFC 6890.
_NEVER = [
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
        *("::/8", "fe80::/10", "ff00::/8"),
    )
]


def subnet(text: str) -> Subnet:
    """What --subnet says. Raises UsageError."""
    try:
        subnet = ip_network(text)
    except ValueError:
        raise UsageError(
            f"--subnet {text!r:.60}: no subnet", "an address and a length, the rest zero: 10.1.0.0/24"
        ) from None
    if subnet.prefixlen > subnet.max_prefixlen - 2 or "/" not in text:
        raise UsageError(
            f"--subnet {text}: has no room for a gateway and a container",
            "a larger one: /30 at least for IPv4, /126 for IPv6",
        )
    if any(subnet.version == never.version and subnet.overlaps(never) for never in _NEVER):
        raise UsageError(
            f"--subnet {text}: is no range containers can have",
            "a private one: 10.1.0.0/24, 192.168.5.0/24, fd00:1::/64",
        )
    return subnet


def refuse_twice(asked: list[Subnet]) -> None:
    """Raises UsageError when two of them have addresses in common."""
    for number, subnet in enumerate(asked):
        for other in asked[:number]:
            if subnet.version == other.version and subnet.overlaps(other):
                raise UsageError(
                    f"--subnet {subnet}: overlaps the other --subnet {other}",
                    "make them apart, or leave one out",
                )


def refuse_overlaps(asked: list[Subnet], taken: list[Subnet], networks: list[Network]) -> None:
    """Raises Conflict when one has addresses of this host or of another network."""
    for subnet in asked:
        for other in taken:
            if subnet.version == other.version and subnet.overlaps(other):
                owner = [str(each["name"]) for each in networks if str(other) in _texts(each)]
                whose = (
                    f"network {owner[0]}" if owner else "a route, an address or a name server of this host"
                )
                six = "-6 " if subnet.version == 6 else ""
                raise Conflict(
                    f"--subnet {subnet}: overlaps {other} of {whose}", f"see `ip {six}route show table all`"
                )
    for network in networks:
        for text in _texts(network):
            for subnet in asked:
                other6 = ip_network(text)
                if subnet.version == other6.version and subnet.overlaps(other6):
                    raise Conflict(
                        f"--subnet {subnet}: overlaps {text} of network {network['name']}",
                        "choose another, or leave it out: a free one is taken",
                    )


def _texts(network: Network) -> list[str]:
    return [str(each["subnet"]) for each in records.subnets(network)]
