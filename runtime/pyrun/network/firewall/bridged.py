"""The rules of the table `bridge pyrun`: what a container's link may send, checked where it enters the bridge.

A container with CAP_NET_RAW or NET_ADMIN (Docker and pyrun grant the first by default) could speak under the
addresses of others: answer their ARP, announce itself as router, hand out addresses. Links not called pyv*, or as
those of this run directory are (tags.py), are nobody's here. Each rule carries its reason as a comment:
`nft list table bridge pyrun`. Source: RFC 826, 4861, 5227; linux/net/bridge/netfilter.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyrun.network import nft, tags
from pyrun.network.firewall import names
from pyrun.network.firewall.expressions import (
    Expression,
    Part,
    compare,
    goto,
    group_membership,
    icmpv6,
    interface,
    jump,
    lookup,
    masked,
    meta,
    neighbour_discovery,
    payload,
    protocol,
    set_meta,
    set_payload,
    verdict,
)

# Before br_netfilter (0) and everybody's filter (-200): what is spoofed is nobody's business.
_EARLY = -300
_ICMPV6, _UDP = 58, 17
_FROM, _TO = 8, 24  # where IPv6 has its addresses
_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"

# What ICMPv6 is for between neighbours: RFC 4861, RFC 3810. A container is no router (130, 134, 137).
_OF_THE_LINK: tuple[tuple[list[Expression], str], ...] = (
    (neighbour_discovery(135), "looks for neighbours"),
    (neighbour_discovery(136), "answers neighbours"),
    (neighbour_discovery(133), "looks for routers"),
    (group_membership(143), "joins and leaves groups"),
    (group_membership(131), "joins a group (the older way)"),
    (group_membership(132), "leaves a group (the older way)"),
)

Rule = tuple[str, list[Part], str]

CHAINS: tuple[tuple[str, int | None, int], ...] = (
    (names.FRAMES, None, 0),
    ("check_arp", None, 0),
    ("check_ipv4", None, 0),
    ("check_ipv6", None, 0),
    ("check_icmpv6", None, 0),
    ("on_the_link", None, 0),
    ("entrance", None, 0),
    ("seeking", None, 0),
    ("prerouting", nft.PREROUTING, _EARLY),
    ("forward", nft.FORWARD, _EARLY),
)

_DROP, _ACCEPT, _RETURN = verdict(nft.DROP), verdict(nft.ACCEPT), verdict(nft.RETURN)
# Of a frame for the gateway, where a network has further bridges: the MAC that each of them has.
_ENTRANCE: list[Part] = [payload(0, 0, 6), lookup(names.ENTRANCES, 1, 1)]
_UNPINNED: Part = [meta("iifname"), lookup(names.UNPINNED)]
_NOBODYS = "a link whose container finds its address itself"


def messages() -> list[bytes]:
    """The chains and rules, encoded."""
    family = nft.BRIDGE
    chains = [nft.chain(tags.table(), name, hook, priority, family=family) for name, hook, priority in CHAINS]
    return chains + [
        nft.rule(tags.table(), chain, *parts, comment=why, family=family) for chain, parts, why in rules()
    ]


def rules() -> Iterator[Rule]:
    """Every rule: its chain, its parts, its reason."""
    yield from _entrance()
    yield (
        "prerouting",
        [interface("iifname", f"{tags.link_prefix()}*"), goto(names.FRAMES)],
        "what comes out of a container",
    )
    yield "forward", [
        meta("oifname"), lookup(names.ALONE), payload(0, 6, 6), lookup(names.ROUTERS, absent=True), _DROP
    ], "--icc=false: a container exchanges frames with this host alone"  # fmt: skip
    for one, other in (("iifname", "oifname"), ("oifname", "iifname")):
        yield "forward", [
            meta(one), lookup(names.MUTE), interface(other, f"{tags.link_prefix()}*"), _DROP
        ], "an egress policy, where the kernel shows no bridged frames to the rules"  # fmt: skip
    yield from _joints()
    yield "forward", [
        _is(_IPV6), interface("iifname", f"{tags.link_prefix()}*"), *_link_local(), goto("on_the_link")
    ], "what a container says to its neighbours by its address of the link"  # fmt: skip
    yield from _links()
    yield from _arp()
    yield from _ipv4()
    yield from _ipv6()
    yield from _on_the_link()


def _joints() -> Iterator[Rule]:
    """The same by the joint between two bridges of a network, which leads to the gateway as well. The MAC of an adopted
    bridge is no router's here: beyond that one's ports, who has such a policy is cut off from its gateway too."""
    yield "forward", [
        meta("oifname"), lookup(names.MUTE), interface("iifname", "pyj*"),
        payload(0, 6, 6), lookup(names.ROUTERS, absent=True), _DROP,
    ], "the same from another bridge of the network, whence only this host is heard"  # fmt: skip
    yield "forward", [
        meta("iifname"), lookup(names.MUTE), interface("oifname", "pyj*"), goto("seeking")
    ], "and to another bridge, where only the gateway is looked for"  # fmt: skip
    yield "seeking", [payload(0, 12, 2), compare(_ARP), _ACCEPT], "it asks and answers by ARP"
    for kind, what in ((135, "asks"), (136, "answers")):
        yield "seeking", [_is(_IPV6), neighbour_discovery(kind), _ACCEPT], f"it {what} by IPv6"
    yield "seeking", [_DROP], "and nothing else"


def _entrance() -> Iterator[Rule]:
    """What is for the gateway enters this host at the bridge it is on: br_netfilter would take it for two packets."""
    yield "prerouting", [
        interface("iifname", f"{tags.link_prefix()}*"), *_ENTRANCE, jump("entrance")
    ], "for the gateway, where a network has further bridges"  # fmt: skip
    yield "entrance", [payload(0, 12, 2), compare(_ARP), _RETURN], "who asks for the gateway asks itself"
    for kind in (135, 136):
        yield "entrance", [_is(_IPV6), neighbour_discovery(kind), _RETURN], "the same of IPv6"
    yield "entrance", [
        *_ENTRANCE, set_payload(0, 0, 6), *set_meta("pkttype", b"\0")
    ], "it enters this host here, once, whether bridges pass frames to the rules or not"  # fmt: skip


def _links() -> Iterator[Rule]:
    kind, chain = payload(0, 12, 2), names.FRAMES
    yield chain, [
        meta("iifname"), payload(0, 6, 6, 2), lookup(names.MACS, absent=True), _DROP
    ], "under its own MAC alone"  # fmt: skip
    yield chain, [
        payload(0, 0, 6), masked(b"\xff\xff\xff\xff\xff\xf0"), compare(b"\x01\x80\xc2\0\0\0"), _DROP
    ], "no spanning tree, no pause frames: a container is no switch"  # fmt: skip
    for number, name in ((_ARP, "arp"), (_IPV4, "ipv4"), (_IPV6, "ipv6")):
        yield chain, [kind, compare(number), goto(f"check_{name}")], "are the addresses in it its own?"
    yield chain, [_DROP], "no VLAN tags and no other protocols, which nothing here could check"


def _arp() -> Iterator[Rule]:
    yield "check_arp", [
        payload(1, 0, 6), compare(b"\0\1\x08\0\6\4", different=True), _DROP
    ], "ARP between Ethernet and IPv4: the fields lie where the next rules look"  # fmt: skip
    yield "check_arp", [
        _is(_ARP), meta("iifname"), payload(1, 8, 6, 2), lookup(names.MACS, absent=True), _DROP
    ], "an ARP sender tells its own MAC"  # fmt: skip
    yield "check_arp", [_UNPINNED, _ACCEPT], _NOBODYS
    yield (
        "check_arp",
        [_is(_ARP), payload(1, 14, 4), compare(bytes(4)), _ACCEPT],
        "an ARP probe claims no address",
    )
    yield "check_arp", [
        _is(_ARP), meta("iifname"), payload(1, 14, 4, 2), lookup(names.ADDRESSES, absent=True), _DROP
    ], "an ARP sender tells its own address"  # fmt: skip


def _ipv4() -> Iterator[Rule]:
    yield "check_ipv4", [
        protocol(_UDP), payload(2, 0, 4), compare(b"\0\x43\0\x44"), _DROP
    ], "a container is no DHCP server"  # fmt: skip
    yield "check_ipv4", [_UNPINNED, _ACCEPT], _NOBODYS
    yield "check_ipv4", [
        _is(_IPV4), meta("iifname"), payload(1, 12, 4, 2), lookup(names.ADDRESSES, absent=True), _DROP
    ], "under its own address alone"  # fmt: skip


def _ipv6() -> Iterator[Rule]:
    own = [_is(_IPV6), meta("iifname"), payload(1, 8, 16, 2), lookup(names.ADDRESSES6, absent=True), _DROP]
    yield "check_ipv6", [protocol(_ICMPV6), goto("check_icmpv6")], "IPv6 itself"
    yield "check_ipv6", [
        protocol(_UDP), payload(2, 0, 4), compare(b"\x02\x23\x02\x22"), _DROP
    ], "a container is no DHCPv6 server"  # fmt: skip
    yield "check_ipv6", [_UNPINNED, _ACCEPT], _NOBODYS
    yield "check_ipv6", [*_link_local(), _DROP], "its address of the link is for looking for neighbours"
    yield "check_ipv6", own, "under its own addresses alone"
    yield from _icmpv6()
    yield "check_icmpv6", own, "under its own addresses alone"
    yield "check_icmpv6", [
        _is(_IPV6), *_link_local(), *_link_local(_TO), icmpv6(129), _ACCEPT
    ], "it answers pings on the link; to another address that would be routed back to its neighbours"  # fmt: skip
    yield "check_icmpv6", [*_link_local(), goto("on_the_link")], "its address of the link is for nothing else"


def _link_local(where: int = _FROM) -> list[Part]:
    return [payload(1, where, 2), masked(b"\xff\xc0"), compare(b"\xfe\x80")]


def _on_the_link() -> Iterator[Rule]:
    """No egress policy knows the address that an interface gives itself."""
    yield "on_the_link", [_UNPINNED, _ACCEPT], _NOBODYS
    for kind, what in _OF_THE_LINK:
        yield "on_the_link", [_is(_IPV6), *kind, _ACCEPT], f"it {what}"
    yield "on_the_link", [_DROP], "and nothing else, which would be past every egress policy"


def _icmpv6() -> Iterator[Rule]:
    def of(kind: int) -> list[Part]:
        return [_is(_IPV6), icmpv6(kind)]

    unsaid: list[Part] = [payload(1, 8, 16), compare(bytes(16))]
    yield "check_icmpv6", [*of(134), _DROP], "a container is no router: it advertises nothing"
    yield "check_icmpv6", [*of(137), _DROP], "nor does it send anybody elsewhere"
    yield "check_icmpv6", [_UNPINNED, _ACCEPT], _NOBODYS
    yield "check_icmpv6", [
        *of(136), meta("iifname"), payload(2, 8, 16, 2), lookup(names.ADDRESSES6, absent=True), _DROP
    ], "it answers for its own addresses alone"  # fmt: skip
    for kind, what in (
        (neighbour_discovery(133), "routers"),
        (neighbour_discovery(135), "neighbours"),
        (group_membership(143), "groups"),
    ):
        yield "check_icmpv6", [
            _is(_IPV6), *kind, *unsaid, _ACCEPT
        ], f"it may look for {what} before it has an address"  # fmt: skip


def _is(kind: bytes) -> Part:
    """Known already by the chain; said again so that `nft list` can name the fields."""
    return [payload(0, 12, 2), compare(kind)]
