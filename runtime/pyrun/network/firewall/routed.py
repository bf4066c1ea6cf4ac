"""The rules of the table `inet pyrun`: what is redirected, masqueraded, let through and dropped.

Each rule carries its reason as a comment, which `nft list table inet pyrun` prints. How a packet meets the chains:

    guard ─► policies ─► prerouting      from outside or a container: forged? allowed? published, so redirected?
                         refusing        from outside alone: published, but not let in by the host's own firewall?
    output                               from the host itself: published, so redirected?
    input                                from a container to the host itself
    forward                              between containers, and between them and the outside
    postrouting                          whose sender address must become the host's

Egress policies are asked before anything is redirected: they tell of the address a container asked for, and hold
for its neighbours, the outside and the host itself alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from pyrun.network import nft, tags
from pyrun.network.firewall import names
from pyrun.network.firewall.expressions import (
    ESTABLISHED,
    REDIRECTED,
    RELATED,
    STATE,
    STATUS,
    UNTRACKED,
    Part,
    asked_port,
    compare,
    connection,
    goto,
    has_bits,
    icmpv6,
    interface,
    ipv4,
    ipv6,
    jump,
    lookup,
    masked,
    masquerade,
    meta,
    neighbour_discovery,
    payload,
    protocol,
    redirect,
    reject,
    reset,
    to_this_host,
    untracked,
    verdict,
)

_RAW, _MANGLE, _DNAT, _FILTER, _SNAT = -300, -150, -100, 0, 100
_ICMP, _TCP, _UDP = 1, 6, 17

# Name, hook, priority, kind; a chain without hook is entered from others.
CHAINS: tuple[tuple[str, int | None, int, str], ...] = (
    ("publish", None, 0, ""),
    ("refusing", None, 0, ""),
    ("egress", None, 0, ""),
    ("rejecting", None, 0, ""),
    ("within", None, 0, ""),
    ("others", None, 0, ""),
    ("leaving", None, 0, ""),
    ("guard", nft.PREROUTING, _RAW, "filter"),
    ("policies", nft.PREROUTING, _MANGLE, "filter"),
    ("prerouting", nft.PREROUTING, _DNAT, "nat"),
    ("output", nft.OUTPUT, _DNAT, "nat"),
    ("postrouting", nft.POSTROUTING, _SNAT, "nat"),
    ("input", nft.INPUT, _FILTER, "filter"),
    (names.FORWARD, nft.FORWARD, _FILTER, "filter"),
)

# What IPv6 itself must be able to say by an address that is routed. Membership of groups is told by that of the link.
_DISCOVERY = ((133, "routers"), (135, "neighbours"), (136, "neighbours"))

# What a rule is made of, and why it is there.
Rule = tuple[str, list[Part], str]

_SOURCE, _DESTINATION = payload(1, 12, 4), payload(1, 16, 4)
_SOURCE6, _DESTINATION6 = payload(1, 8, 16), payload(1, 24, 16)
# A key of sender and destination.
_TO_WHERE: list[Part] = [ipv4(), _SOURCE, payload(1, 16, 4, 9)]
_TO_WHERE6: list[Part] = [ipv6(), _SOURCE6, payload(1, 24, 16, 2)]
_OF_CONTAINERS: list[list[Part]] = [
    [ipv4(), _SOURCE, lookup(names.SUBNETS)],
    [ipv6(), _SOURCE6, lookup(names.SUBNETS6)],
]
_FLOWING = [connection(STATE), *has_bits(ESTABLISHED | RELATED)]
_REDIRECTED = [connection(STATUS), *has_bits(REDIRECTED)]
_DROP, _ACCEPT, _RETURN = verdict(nft.DROP), verdict(nft.ACCEPT), verdict(nft.RETURN)
_FROM_OTHERS: list[Part] = [
    *interface("iifname", "lo", different=True), meta("iifname"), lookup(names.BRIDGES, absent=True)
]  # fmt: skip
# Keys of the bridge a packet came by and its destination: of a further bridge, too, which has no address itself.
_TO_GATEWAY: list[list[Part]] = [
    [ipv4(), meta("iifname"), payload(1, 16, 4, 2), lookup(names.GATEWAYS)],
    [ipv6(), meta("iifname"), payload(1, 24, 16, 2), lookup(names.GATEWAYS6)],
]
_ECHO: list[list[Part]] = [[protocol(_ICMP), payload(2, 0, 1), compare(b"\x08")], [*icmpv6(128)]]
# On a further bridge of a network: from the gateway, which is on the first one, to a container.
_FROM_GATEWAY: list[Part] = [meta("iifname"), payload(0, 6, 6, 2), lookup(names.FURTHER)]
_JUDGED: list[Part] = [connection(STATE), *has_bits(UNTRACKED), *_FROM_GATEWAY]
_BEYOND = [meta("oifname"), lookup(names.BRIDGES, absent=True)]


# How others call the bridges of their containers; Docker's further ones are br- and twelve digits, while br-lan is
# somebody's uplink: told apart by their length.
_STRANGERS = ("docker", "podman", "cni", "virbr", "lxdbr", "incusbr")
_FIFTEEN_LONG: list[Part] = [masked(bytes(14) + b"\xff\0"), compare(bytes(16), different=True)]


def messages() -> list[bytes]:
    """The chains and rules, encoded."""
    chains = [nft.chain(tags.table(), name, hook, priority, kind) for name, hook, priority, kind in CHAINS]
    return chains + [nft.rule(tags.table(), chain, *parts, comment=why) for chain, parts, why in rules()]


def rules() -> Iterator[Rule]:
    """Every rule: its chain, its parts, its reason."""
    yield from _publish()
    yield from _refusing()
    yield from _guard()
    yield from _redirecting()
    yield from _masquerading()
    yield from _input()
    yield from _forward()
    yield from _policies()
    yield from _egress()


def _publish() -> Iterator[Rule]:
    port, port_at = payload(2, 2, 2, 9), payload(2, 2, 2, 10)
    yield "publish", [
        ipv4(), _DESTINATION, meta("l4proto", 9), port_at, lookup(names.PORTS_AT, 1, 1), redirect(nft.IPV4, 1, 9)
    ], "a port published on one address of this host"  # fmt: skip
    yield "publish", [
        ipv4(), meta("l4proto"), port, lookup(names.PORTS, 1, 1), redirect(nft.IPV4, 1, 9)
    ], "a port published on all of them"  # fmt: skip
    yield "publish", [
        ipv6(), _DESTINATION6, meta("l4proto", 2), payload(2, 2, 2, 13), lookup(names.PORTS6_AT, 1, 1),
        redirect(nft.IPV6, 1, 2),
    ], "a port published on one IPv6 address"  # fmt: skip
    yield "publish", [
        ipv6(), meta("l4proto"), port, lookup(names.PORTS6, 1, 1), redirect(nft.IPV6, 1, 2)
    ], "a port published on all of them"  # fmt: skip


def _refusing() -> Iterator[Rule]:
    # Before anything is redirected, and asked of the first packet of a flow alone: the destination is the original one.
    port, port_at = payload(2, 2, 2, 9), payload(2, 2, 2, 10)
    one = "this host's firewall would not let in what is published on this address: not redirected"
    every = "nor what is published on all of them"
    yield "refusing", [
        ipv4(), _DESTINATION, meta("l4proto", 9), port_at, lookup(names.CLOSED_AT), _ACCEPT
    ], one  # fmt: skip
    yield "refusing", [ipv4(), meta("l4proto"), port, lookup(names.CLOSED), _ACCEPT], every
    yield "refusing", [
        ipv6(), _DESTINATION6, meta("l4proto", 2), payload(2, 2, 2, 13), lookup(names.CLOSED6_AT), _ACCEPT
    ], one  # fmt: skip
    yield "refusing", [ipv6(), meta("l4proto"), port, lookup(names.CLOSED6), _ACCEPT], every


def _guard() -> Iterator[Rule]:
    yield "guard", [*_FROM_GATEWAY, untracked()], "on the last bridge of its way: it is tracked already"
    yield "guard", [
        interface("iifname", "lo", different=True), ipv4(), payload(1, 16, 1), compare(b"\x7f"), _DROP
    ], "127.0.0.0/8 is this host's own, though route_localnet would let neighbours in"  # fmt: skip
    yield "guard", [
        *_FROM_OTHERS, ipv4(), _SOURCE, lookup(names.SUBNETS), _DROP
    ], "a container's address is only believed on its bridge"  # fmt: skip
    yield "guard", [
        *_FROM_OTHERS, ipv6(), _SOURCE6, lookup(names.SUBNETS6), _DROP
    ], "a container's address is only believed on its bridge"  # fmt: skip


def _redirecting() -> Iterator[Rule]:
    yield "prerouting", [
        *_FROM_OTHERS, jump("refusing")
    ], "would this host's firewall let the port in? if not, it is the host's and its containers' own"  # fmt: skip
    yield "prerouting", [to_this_host(), jump("publish")], "only what is addressed to this host is redirected"
    yield "output", [
        ipv6(), _DESTINATION6, compare(bytes(15) + b"\1"), _RETURN
    ], "[::1] cannot be redirected: pyrun-guard listens there"  # fmt: skip
    yield "output", [to_this_host(), jump("publish")], "published ports seen from the host itself"


def _masquerading() -> Iterator[Rule]:
    yield "postrouting", [
        _REDIRECTED, ipv4(), payload(1, 12, 1), compare(b"\x7f"), masquerade()
    ], "a container cannot answer 127.0.0.1"  # fmt: skip
    for source in _OF_CONTAINERS:
        yield "postrouting", [
            _REDIRECTED, *source, meta("iifname"), meta("oifname", 2), lookup(names.OWN), masquerade()
        ], "a neighbour in the same network would answer past this host, from another address"  # fmt: skip
    yield "postrouting", [
        meta("iifname"), lookup(names.ADOPTED), goto("leaving")
    ], "whoever was on an adopted bridge before goes out as before"  # fmt: skip
    why = "a container of ours on it, as on any other network"
    yield "leaving", [ipv4(), _SOURCE, lookup(names.GUESTS), *_BEYOND, masquerade()], why
    yield "leaving", [ipv6(), _SOURCE6, lookup(names.GUESTS6), *_BEYOND, masquerade()], why
    yield "postrouting", [
        ipv4(), _SOURCE, lookup(names.SUBNETS), *_BEYOND, masquerade()
    ], "out into the world under the host's own address"  # fmt: skip
    yield "postrouting", [
        ipv6(), _SOURCE6, lookup(names.SUBNETS6), *_BEYOND, masquerade()
    ], "the same for IPv6: the subnets are this host's alone"  # fmt: skip


def _input() -> Iterator[Rule]:
    """What an --internal network reaches of this host; of other networks everything."""
    yield "input", [_FLOWING, _ACCEPT], "answers, and what was let through before"
    for kind, what in _DISCOVERY[1:]:
        yield "input", [ipv6(), neighbour_discovery(kind), _ACCEPT], f"IPv6 itself: looking for {what}"
    for echo, to_gateway in zip(_ECHO, _TO_GATEWAY, strict=True):
        yield "input", [*echo, *to_gateway, _ACCEPT], "a gateway is there, as a ping tells"
    for number, to_gateway in product((_UDP, _TCP), _TO_GATEWAY):
        yield "input", [
            protocol(number), asked_port(), compare(b"\0\x35"), *to_gateway, _ACCEPT
        ], "the resolver on the gateway, wherever it listens"  # fmt: skip
    yield "input", [
        meta("iifname"), lookup(names.SOURCES, 1, 0)
    ], "an --internal network reaches nothing else of this host"  # fmt: skip


def _forward() -> Iterator[Rule]:
    yield names.FORWARD, [_FLOWING, _ACCEPT], "answers, and what was let through before"
    yield names.FORWARD, [*_JUDGED, _ACCEPT], "on the last bridge of its way: it was judged already"
    yield from _seeking()
    for to_where, set_ in ((_TO_WHERE, names.DENIED), (_TO_WHERE6, names.DENIED6)):
        yield names.FORWARD, [
            _REDIRECTED, *to_where, lookup(set_), reject()
        ], "an egress policy denies the container behind this published port"  # fmt: skip
    yield names.FORWARD, [
        meta("iifname"), lookup(names.SOURCES, 1, 0)
    ], "an --internal network reaches nothing but itself"  # fmt: skip
    yield names.FORWARD, [
        meta("iifname"), lookup(names.ISOLATED), meta("oifname"), lookup(names.BRIDGES), goto("within")
    ], "--isolate: not even the published ports of other networks"  # fmt: skip
    yield names.FORWARD, [
        meta("oifname"), lookup(names.ISOLATED), meta("iifname"), lookup(names.BRIDGES), goto("within")
    ], "--isolate: published to the outside, not to other networks"  # fmt: skip
    yield names.FORWARD, [
        meta("iifname"), meta("oifname", 2), lookup(names.INSIDE, 1, 0)
    ], "within one network: as --icc says, of published ports as well"  # fmt: skip
    yield names.FORWARD, [_REDIRECTED, _ACCEPT], "to a published port"
    # Our rule in DOCKER-USER and its like accepts what our containers send, before Docker's own would drop it.
    for stranger in _strangers("oifname"):
        yield names.FORWARD, [
            meta("iifname"), lookup(names.BRIDGES), *stranger, _DROP
        ], "our accept rule in DOCKER-USER or its like would also let our containers in there: dropped"  # fmt: skip
    yield names.FORWARD, [
        meta("oifname"), lookup(names.TOWARDS, 1, 0)
    ], "unpublished ports are reached neither by routing nor from other networks"  # fmt: skip
    yield from _others()
    yield "within", [
        meta("iifname"), meta("oifname", 2), lookup(names.INSIDE, 1, 0)
    ], "its own network"  # fmt: skip
    yield "within", [_DROP], "and nothing else"


def _others() -> Iterator[Rule]:
    yield names.FORWARD, [
        meta("nfproto"), lookup(names.SWITCHED), meta("iifname"), lookup(names.BRIDGES, absent=True), *_BEYOND,
        goto("others"),
    ], "pyrun has switched forwarding on, for its own networks alone"  # fmt: skip
    yield "others", [
        interface("iifname", "pyr*"), _RETURN
    ], "another run directory's containers, as its rules say"  # fmt: skip
    for stranger in _strangers("iifname"):
        yield "others", [
            *stranger, _RETURN
        ], "other engines' containers and machines go out, as the rules of their owners say"  # fmt: skip
    yield (
        "others",
        [_DROP],
        "between links that are not pyrun's; PYRUN_FORWARD=accept pyrun network reload: let through",
    )


def _seeking() -> Iterator[Rule]:
    """Neighbour discovery, bridged frames of which come here where br_netfilter shows them."""
    yield names.FORWARD, [
        ipv6(), neighbour_discovery(135), _ACCEPT
    ], "who looks for the gateway may be on a further bridge; what is routed has another hop limit"  # fmt: skip
    for kind, _ in _DISCOVERY:
        yield names.FORWARD, [
            ipv6(), neighbour_discovery(kind, routed=True), meta("iifname"), lookup(names.BRIDGES), _DROP
        ], "the discovery of neighbours, which every policy lets through, is never routed"  # fmt: skip


def _strangers(which: str) -> list[list[Part]]:
    """What matches the bridges of others by one of their names; which: iifname or oifname."""
    found: list[list[Part]] = [[interface(which, f"{begin}*")] for begin in _STRANGERS]
    return [*found, [interface(which, "br-*"), meta(which), *_FIFTEEN_LONG]]


def _policies() -> Iterator[Rule]:
    yield "policies", [_FLOWING, _ACCEPT], "answers, and what was let through before"
    yield "policies", [*_JUDGED, _RETURN], "on the last bridge of its way: it was judged already"
    why = "a container with an egress policy"
    yield "policies", [ipv4(), _SOURCE, lookup(names.POLICED), goto("egress")], why
    yield "policies", [ipv6(), _SOURCE6, lookup(names.POLICED6), goto("egress")], why


def _egress() -> Iterator[Rule]:
    for kind, what in _DISCOVERY:
        yield "egress", [ipv6(), neighbour_discovery(kind), _ACCEPT], f"IPv6 itself: looking for {what}"
    for number, to_gateway in product((_UDP, _TCP), _TO_GATEWAY):
        yield "egress", [
            protocol(number), payload(2, 2, 2), compare(b"\0\x35"), *to_gateway, _ACCEPT
        ], "the resolver on the gateway, which knows the policies itself"  # fmt: skip
    yield from _egress_of(_TO_WHERE, 10, "")
    yield from _egress_of(_TO_WHERE6, 16, "6")
    yield "egress", [goto("rejecting")], "its policy allows nothing else"
    yield (
        "rejecting",
        [protocol(_TCP), reset()],
        "a connection is refused at once; after ICMP that takes a second",
    )
    yield "rejecting", [reject()], "everything else is told that an administrator forbids it"


def _egress_of(to_where: list[Part], register: int, six: str) -> Iterator[Rule]:
    """Rules of one family. register: the one of the protocol; the next one is the port's."""
    by_port: list[Part] = [*to_where, meta("l4proto", register), payload(2, 2, 2, register + 1)]
    yield "egress", [*to_where, lookup(names.DENIED + six), goto("rejecting")], "its policy denies this"
    yield "egress", [*by_port, lookup(names.ALLOWED + six), _ACCEPT], "its policy allows this"
    family, where = (ipv6(), payload(1, 24, 16)) if six else (ipv4(), payload(1, 16, 4))
    yield (
        "egress",
        [family, to_this_host(), goto("rejecting")],
        "no name that others answer leads into this host",
    )
    yield (
        "egress",
        [family, where, lookup(names.SUBNETS + six), goto("rejecting")],
        "nor to somebody else's container",
    )
    yield "egress", [*to_where, lookup(names.ADMITTED + six), _ACCEPT], "a name it may reach has this address"
    yield (
        "egress",
        [*by_port, lookup(f"admitted{six}_at"), _ACCEPT],
        "a name it may reach has this address and port",
    )
