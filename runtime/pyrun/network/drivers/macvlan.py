"""macvlan: an interface with a MAC of its own on a card of the host; to its segment the container is one more machine.

    -o mode=bridge       the default; private, vepa and passthru are the kernel's other ways
    -o host-shim=on      host and container reach each other, which the kernel alone does not let them: a second
                         interface of this kind on the host, without an address. It answers for the host's own address,
                         and a route leads to this container by it; it goes with the container

The interface is born in the container's namespace. Source: the kernel's drivers/net/macvlan.c, man 8 ip-link.
"""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

from pyrun import boot
from pyrun.errors import UsageError
from pyrun.network import attach, host
from pyrun.network.drivers import links, segment
from pyrun.plan.operations import Operation

boot.site_packages()

from pyroute2 import IPRoute  # noqa: E402

MODES = ("bridge", "private", "vepa", "passthru")
_ON, _OFF = ("on", "true", "1", "yes"), ("off", "false", "0", "no", "")


def settings(options: dict[str, Any], told: str) -> dict[str, Any]:
    """mode and host_shim, complete. Raises UsageError."""
    found: dict[str, Any] = {"mode": "bridge", "host_shim": False}
    for key, value in options.items():
        if key in ("mode", "macvlan_mode"):
            if value not in MODES:
                raise UsageError(f"{told}: mode={value}: no mode of macvlan", ", ".join(MODES))
            found["mode"] = value
        elif key in ("host-shim", "host_shim"):
            if str(value).lower() not in _ON + _OFF:
                raise UsageError(f"{told}: host-shim={value}: is on or off")
            found["host_shim"] = str(value).lower() in _ON
        else:
            raise UsageError(f"{told}: {key}={value}: no setting of macvlan", "mode= host-shim=")
    if found["host_shim"] and found["mode"] != "bridge":
        raise UsageError(f"{told}: host-shim needs mode=bridge, not {found['mode']}")
    return found


def check(wanted: dict[str, Any], card: segment.Card, told: str) -> None:
    """Raises UsageError, NetworkError."""
    links.refuse_unknown("macvlan", told)
    refuse_unfit(card, told, "macvlan")
    if not wanted["options"]["host_shim"]:
        return
    if wanted["subnets"][""] is None:
        raise UsageError(f"{told}: host-shim needs an address that pyrun knows", "ip=...")
    if not any("." in text for text in card.addresses):
        raise UsageError(f"{told}: host-shim: {card.name} has no IPv4 address for the host to be reached at")


def refuse_unfit(card: segment.Card, told: str, kind: str) -> None:
    """A card that is down, or belongs to a bridge or bond, carries neither kind. Raises UsageError."""
    if card.master:
        raise UsageError(
            f"{told}: {card.name} belongs to {card.master}, and {kind} would cut it off from there",
            f"--network l2:{card.name}" if card.bridge else f"--network {kind}:{card.master}",
        )
    if not card.up:
        raise UsageError(f"{told}: {card.name} is down", f"ip link set {card.name} up")


def operations(wire: dict[str, Any], card: segment.Card) -> list[Operation]:
    """What makes it."""
    options = wire["options"]
    todo = [Operation("MACVLAN", card.name, options["mode"], wire["ifname"], wire["mac"])]
    if options["host_shim"] and wire["address"]:
        own = next(text for text in card.addresses if "." in text)
        todo.append(Operation("SHIM", wire["link"], card.name, wire["address"], own.partition("/")[0]))
    return todo


def undo(wire: dict[str, Any]) -> list[str]:
    """The shim is the host's; the interface itself goes with the namespace."""
    return [links.undo_delete(str(wire["link"]))] if wire["options"]["host_shim"] and wire["address"] else []


def make(link: attach.Attachment, parent: str, mode: str, inside: str, mac: str) -> None:
    """Make the interface in the container's namespace."""
    with links.told(f"make the macvlan {inside} on {parent}"):
        links.make_inside(link, parent, inside, kind="macvlan", macvlan_mode=mode, address=mac)


def shim(link: attach.Attachment, name: str, parent: str, address: str, own: str) -> None:
    """The host's own interface of this kind, and the container's address behind it.

    It has no address. What the host sends by it comes from *own*, and who asks on the segment for *own* is answered by
    it only if the way back leads there: arp_filter, else half the segment would come to know the host by this MAC.
    """
    del link
    with links.told(f"make the shim {name} on {parent}"), IPRoute() as route:
        parent_index = route.link_lookup(ifname=parent)[0]
        for stale in route.link_lookup(ifname=name):
            route.link("del", index=stale)
        route.link("add", ifname=name, kind="macvlan", link=parent_index, macvlan_mode="bridge")
        index = route.link_lookup(ifname=name)[0]
        host.write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")
        host.write_sysctl(f"net/ipv4/conf/{name}/arp_filter", "1")
        route.link("set", index=index, state="up")
        route.route("add", dst=str(ip_interface(address).network), oif=index, prefsrc=own, scope="link")


PERFORM = {
    "MACVLAN": (make, "make the macvlan"),
    "SHIM": (shim, "make the shim of the host"),
}
