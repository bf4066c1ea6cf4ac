"""ipvlan: an interface on a card of the host that shares its MAC; for switches that allow one MAC a port.

    -o mode=l2     the default: the container is on the card's segment
    -o mode=l3     the card routes: no broadcast reaches the container, and it sends everything straight out
    -o mode=l3s    the same, with the host's connection tracking and rules in between

A DHCP client in the container has to send a client id of its own, since all share one MAC. The interface is born in the
container's namespace. Source: the kernel's Documentation/networking/ipvlan.rst.
"""

from __future__ import annotations

from pyrun.errors import UsageError
from pyrun.network import attach
from pyrun.network.drivers import leasing, links, macvlan, segment
from pyrun.network.endpoint import Wire
from pyrun.plan.operations import Operation

MODES = ("l2", "l3", "l3s")


def settings(options: dict[str, str], told: str) -> dict[str, str | bool]:
    """The mode. Raises UsageError."""
    mode = "l2"
    for key, value in options.items():
        if key not in ("mode", "ipvlan_mode"):
            raise UsageError(f"{told}: {key}={value}: no setting of ipvlan", "mode=")
        if value not in MODES:
            raise UsageError(f"{told}: mode={value}: no mode of ipvlan", ", ".join(MODES))
        mode = value
    return {"mode": mode}


def check(there: leasing.Placement, told: str) -> None:
    """Raises UsageError, NetworkError."""
    links.refuse_unknown("ipvlan", told)
    macvlan.refuse_unfit(there.card, told, "ipvlan")
    if there.wanted.mac:
        raise UsageError(f"{told}: mac={there.wanted.mac}: an ipvlan has the MAC of its card", "use macvlan")


def operations(wire: Wire, card: segment.Card) -> list[Operation]:
    """What makes it."""
    return [Operation("IPVLAN", card.name, str(wire.options["mode"]), wire.ifname, wire.mtu)]


def afterwards(wire: Wire, card: segment.Card) -> list[Operation]:
    """Nothing."""
    del wire, card
    return []


def undo(wire: Wire) -> list[str]:
    """Nothing of it is the host's."""
    del wire
    return []


def make(link: attach.Attachment, parent: str, mode: str, inside: str, mtu: int) -> None:
    """Make the interface in the container's namespace. mtu: in bytes, 0 for the card's."""
    with links.asking():
        links.make_inside(link, parent, inside, mtu, kind="ipvlan", ipvlan_mode=MODES.index(mode))
