"""l2:IFACE, the container on a card's own segment as a virtual machine would be: a veth into the bridge that holds it.

The bridge must be there, made by whoever looks after this host: making one would take the card's addresses away for a
moment, and with them, perhaps, the very connection the command came by. Where there is none the commands are printed.
No address is handed out: one is given by ip=, or a DHCP client in the container asks the segment's own server.
What the container sends is not checked by the rules against spoofing, which are for bridges of pyrun's own.
"""

from __future__ import annotations

from pyrun import boot, notice
from pyrun.errors import UsageError
from pyrun.network import attach, host, messages, nft
from pyrun.network.drivers import leasing, links, segment
from pyrun.network.endpoint import Wire
from pyrun.network.firewall import foreign
from pyrun.plan.operations import Operation
from pyrun.safe import shell_command, shell_word

boot.site_packages()

from pyroute2.iproute import IPRoute  # noqa: E402


def settings(options: dict[str, str], told: str) -> dict[str, str | bool]:
    """There are none. Raises UsageError."""
    for key, value in options.items():
        raise UsageError(f"{told}: {key}={value}: no setting of l2", "ip= ip6= mac= ifname=")
    return {}


def check(there: leasing.Placement, told: str) -> None:
    """Raises UsageError with the commands that would make a bridge."""
    card = there.card
    if card.bridge:
        _tell_of_dropping(card.bridge)
    else:
        raise UsageError(
            f"{told}: {card.name} is in no bridge, and none is made for you: that would cut {card.name} off meanwhile",
            f"as root, and not by way of {card.name}: {bridging(card)}",
        )


def _tell_of_dropping(bridge: str) -> None:
    """A firewall that drops what is forwarded sees what passes a bridge, too, where br_netfilter hands it over."""
    if host.read_sysctl("net/bridge/bridge-nf-call-iptables") != "1":
        return
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        dropping = [place for place in foreign.places(sock, ipv6=False) if place.hook == nft.FORWARD]
    finally:
        sock.close()
    if dropping:
        notice.say(
            f"another firewall of this host drops what passes the bridge {bridge}, unless it has a rule that lets it "
            f"through: iptables -I FORWARD -i {shell_word(bridge)} -o {shell_word(bridge)} -j ACCEPT"
        )


def bridging(card: segment.Card) -> str:
    """The commands that put a card into a new bridge, which takes over its addresses and default routes."""
    steps = ["ip link add br0 type bridge", "ip link set br0 up"]
    steps += [shell_command(["ip", "addr", "del", text, "dev", card.name]) for text in card.addresses]
    steps.append(f"ip link set {shell_word(card.name)} master br0")
    steps += [f"ip addr add {shell_word(text)} dev br0" for text in card.addresses]
    steps += [f"ip route add default via {shell_word(each)} dev br0" for each in card.gateways]
    return "; ".join(steps)


def operations(wire: Wire, card: segment.Card) -> list[Operation]:
    """What makes it."""
    return [Operation("SEGMENT", wire.link, card.bridge, wire.ifname, wire.mac, card.mtu)]


def afterwards(wire: Wire, card: segment.Card) -> list[Operation]:
    """Nothing."""
    del wire, card
    return []


def undo(wire: Wire) -> list[str]:
    """The host's end goes down; the pair ends with the namespace."""
    return [links.undo_down(wire.link)]


def make(link: attach.Attachment, name: str, bridge: str, inside: str, mac: str, mtu: int) -> None:
    """Make the pair, one end in the bridge, the other inside; read back until the bridge forwards for it."""
    with links.asking(), IPRoute() as route:
        for stale in route.link_lookup(ifname=name):
            route.link("del", index=stale)
        peer = {"ifname": inside, "net_ns_fd": link.namespace_fd, "address": mac, "mtu": mtu}
        route.link("add", ifname=name, kind="veth", peer=peer, mtu=mtu)
        index = route.link_lookup(ifname=name)[0]
        host.write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")  # the host is not to be reached by it
        route.link("set", index=index, master=route.link_lookup(ifname=bridge)[0], state="up")
