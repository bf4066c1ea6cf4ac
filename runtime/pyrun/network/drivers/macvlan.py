"""macvlan: an interface with a MAC of its own on a card of the host; to its segment the container is one more machine.

    -o mode=bridge       the default; private, vepa and passthru are the kernel's other ways
    -o host-shim=on      host and container reach each other, which the kernel alone does not let them: a second
                         interface of this kind on the host, without an address. It answers for the host's own address,
                         and a route leads to this container by it; it goes with the container. Of IPv6, where host and
                         container both have it, nobody is asked: either side is told the MAC of the other

The interface is born in the container's namespace. Source: the kernel's drivers/net/macvlan.c, man 8 ip-link.
"""

from __future__ import annotations

import socket
from ipaddress import ip_interface

from pyrun import boot
from pyrun.errors import UsageError
from pyrun.network import attach, host
from pyrun.network.drivers import leasing, links, segment
from pyrun.network.endpoint import Wire
from pyrun.plan.operations import Operation
from pyrun.safe import shell_word

boot.site_packages()

from pyroute2.iproute import IPRoute  # noqa: E402

MODES = ("bridge", "private", "vepa", "passthru")
_ON, _OFF = ("on", "true", "1", "yes"), ("off", "false", "0", "no", "")


def settings(options: dict[str, str], told: str) -> dict[str, str | bool]:
    """mode and host_shim, complete. Raises UsageError."""
    found: dict[str, str | bool] = {"mode": "bridge", "host_shim": False}
    for key, value in options.items():
        if key in ("mode", "macvlan_mode"):
            if value not in MODES:
                raise UsageError(f"{told}: mode={value}: no mode of macvlan", ", ".join(MODES))
            found["mode"] = value
        elif key in ("host-shim", "host_shim"):
            if str(value).lower() not in _ON + _OFF:
                raise UsageError(f"{told}: host-shim={value}: is on or off", "host-shim=on")
            found["host_shim"] = str(value).lower() in _ON
        else:
            raise UsageError(f"{told}: {key}={value}: no setting of macvlan", "mode= host-shim=")
    if found["host_shim"] and found["mode"] != "bridge":
        raise UsageError(
            f"{told}: host-shim needs mode=bridge, not {found['mode']}", "mode=bridge, or no host-shim"
        )
    return found


def check(there: leasing.Placement, told: str) -> None:
    """Raises UsageError, NetworkError."""
    links.refuse_unknown("macvlan", told)
    card = there.card
    refuse_unfit(card, told, "macvlan")
    if not there.settings["host_shim"]:
        return
    if there.pool is None:
        raise UsageError(f"{told}: host-shim needs an address that pyrun knows", "ip=...")
    if not any("." in text for text in card.addresses):
        raise UsageError(
            f"{told}: host-shim: {card.name} has no IPv4 address for the host to be reached at",
            f"give it one, `ip addr add ... dev {shell_word(card.name)}`, or leave host-shim out",
        )


def refuse_unfit(card: segment.Card, told: str, kind: str) -> None:
    """A card that is down, or belongs to a bridge or bond, carries neither kind. Raises UsageError."""
    if card.master:
        raise UsageError(
            f"{told}: {card.name} belongs to {card.master}, and {kind} would cut it off from there",
            f"--network l2:{card.name}" if card.bridge else f"--network {kind}:{card.master}",
        )
    if not card.up:
        raise UsageError(f"{told}: {card.name} is down", f"ip link set {shell_word(card.name)} up")


def operations(wire: Wire, card: segment.Card) -> list[Operation]:
    """What makes it."""
    return [Operation("MACVLAN", card.name, str(wire.options["mode"]), wire.ifname, wire.mac, wire.mtu)]


def afterwards(wire: Wire, card: segment.Card) -> list[Operation]:
    """The shim, if there is to be one."""
    if not (wire.options["host_shim"] and wire.address):
        return []
    own, own6 = _own(card, wire, six=False), _own(card, wire, six=True) if wire.address6 else ""
    todo = [Operation("SHIM", wire.link, card.name, wire.address, own, wire.mtu)]
    if own6:
        todo.append(Operation("SHIM6", wire.link, wire.address6, own6, wire.ifname, wire.mac))
    return todo


def _own(card: segment.Card, wire: Wire, *, six: bool) -> str:
    """The host's own address on the card, of the container's subnet if there is one; "" without any."""
    address, prefix, _ = wire.family(six)
    subnet = ip_interface(f"{address}/{prefix}").network
    found = [ip_interface(text).ip for text in card.addresses if (":" in text) == six]
    return str(next((each for each in found if each in subnet), found[0] if found else ""))


def undo(wire: Wire) -> list[str]:
    """The shim is the host's; the interface itself goes with the namespace."""
    return [links.undo_delete(wire.link)] if wire.options["host_shim"] and wire.address else []


def make(link: attach.Attachment, parent: str, mode: str, inside: str, mac: str, mtu: int) -> None:
    """Make the interface in the container's namespace. mtu: in bytes, 0 for the card's."""
    with links.asking():
        links.make_inside(link, parent, inside, mtu, kind="macvlan", macvlan_mode=mode, address=mac)


def shim(link: attach.Attachment, name: str, parent: str, address: str, own: str, mtu: int) -> None:
    """The host's own interface of this kind, and the container's address behind it.

    It has no address. What the host sends by it comes from *own*, and who asks on the segment for *own* is answered by
    it only if the way back leads there: arp_filter, else half the segment would come to know the host by this MAC.
    """
    del link
    with links.asking(), IPRoute() as route:
        parent_index = route.link_lookup(ifname=parent)[0]
        for stale in route.link_lookup(ifname=name):
            route.link("del", index=stale)
        wanted = {"mtu": mtu} if mtu else {}  # what is more than the container takes would be dropped
        route.link("add", ifname=name, kind="macvlan", link=parent_index, macvlan_mode="bridge", **wanted)
        index = route.link_lookup(ifname=name)[0]
        host.write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")
        host.write_sysctl(f"net/ipv4/conf/{name}/arp_filter", "1")
        route.link("set", index=index, state="up")
        route.route("add", dst=str(ip_interface(address).network), oif=index, prefsrc=own, scope="link")


def shim6(link: attach.Attachment, name: str, address: str, own: str, inside: str, mac: str) -> None:
    """The same of IPv6, for the shim *name*.

    There is no arp_filter for neighbour discovery: a shim that answered for the host would answer the whole segment. So
    it has no address, not even a link-local one, and answers nobody; the container is told its MAC, and it is told the
    container's. Either goes with its interface.
    """
    with links.asking():
        # before IPv6 is on: 1 stands for no link-local address (man 8 ip-link, addrgenmode)
        for key, value in (("addr_gen_mode", "1"), ("accept_ra", "0"), ("disable_ipv6", "0")):
            host.write_sysctl(f"net/ipv6/conf/{name}/{key}", value)
        with IPRoute() as route:
            index = route.link_lookup(ifname=name)[0]
            shim_mac = route.get_links(index)[0].get_attr("IFLA_ADDRESS")
            route.neigh(
                "replace", dst=address, lladdr=mac, ifindex=index, state="permanent", family=socket.AF_INET6
            )
            route.route("replace", dst=f"{address}/128", oif=index, prefsrc=own, family=socket.AF_INET6)
        with attach.inside_of(link), IPRoute() as route:
            index = route.link_lookup(ifname=inside)[0]
            route.neigh(
                "replace", dst=own, lladdr=shim_mac, ifindex=index, state="permanent", family=socket.AF_INET6
            )
