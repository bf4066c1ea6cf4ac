"""The sets and maps of both tables, and the elements that a network, a link or a port puts into them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from pyrun.network import leases, nft, tags
from pyrun.network.firewall import names
from pyrun.network.records import Network


def every() -> list[bytes]:
    """Messages that make all sets and maps of the table inet."""
    link = nft.INTERFACE
    done: list[tuple[str, list[int], dict[str, object]]] = []
    for address, six in ((nft.ADDRESS, ""), (nft.ADDRESS6, "6")):
        target: dict[str, object] = {"data": [address, nft.SERVICE]}
        everywhere = [nft.PROTOCOL, nft.SERVICE]
        to_where = [address, address, nft.PROTOCOL, nft.SERVICE]
        done += [
            ("ports" + six, everywhere, target),
            (f"ports{six}_at", [address, *everywhere], target),
            ("closed" + six, everywhere, {}),
            (f"closed{six}_at", [address, *everywhere], {}),
            ("subnets" + six, [address], {"interval": True}),
            ("gateways" + six, [link, address], {}),
            ("policed" + six, [address], {}),
            ("guests" + six, [address], {}),
            ("allowed" + six, to_where, {"interval": True}),
            ("denied" + six, [address, address], {"interval": True}),
            ("admitted" + six, [address, address], {"timeout": True}),
            (f"admitted{six}_at", to_where, {"timeout": True}),
        ]
    to_verdict: dict[str, object] = {"data": [nft.VERDICT]}
    done += [
        (names.BRIDGES, [link], {}),
        (names.FURTHER, [link, nft.ETHER], {}),
        (names.INSIDE, [link, link], to_verdict),
        (names.OWN, [link, link], {}),
        (names.TOWARDS, [link], to_verdict),
        (names.SOURCES, [link], to_verdict),
        (names.ISOLATED, [link], {}),
        (names.ADOPTED, [link], {}),
        (names.SWITCHED, [nft.PROTOCOL_FAMILY], {}),
    ]
    return [
        nft.set_(tags.table(), name, key, number, **more) for number, (name, key, more) in enumerate(done, 1)
    ]


def of_bridges() -> list[bytes]:
    """Messages that make all sets of the table bridge."""
    link, more = nft.INTERFACE, {"family": nft.BRIDGE}
    done = {
        names.MACS: [link, nft.ETHER],
        names.ADDRESSES: [link, nft.ADDRESS],
        names.ADDRESSES6: [link, nft.ADDRESS6],
        names.UNPINNED: [link],
        names.ALONE: [link],
        names.MUTE: [link],
        names.ROUTERS: [nft.ETHER],
    }
    sets = [
        nft.set_(tags.table(), name, key, number, **more)
        for number, (name, key) in enumerate(done.items(), 1)
    ]
    to_mac: dict[str, object] = {"data": [nft.ETHER], "family": nft.BRIDGE}
    return [*sets, nft.set_(tags.table(), names.ENTRANCES, [nft.ETHER], len(sets) + 1, **to_mac)]


def network_elements(kind: int, network: Network) -> list[bytes]:
    """Add or delete what the table inet knows of one network (as in network.json); nothing for one without a bridge."""
    bridges = _bridges(network)
    if network.driver != "bridge" or not bridges:
        return []
    drop, accept = nft.verdict_value(nft.DROP), nft.verdict_value(nft.ACCEPT)
    padded = [bridge.encode().ljust(16, b"\0") for bridge in bridges]
    pairs = [one + other for one in padded for other in padded]
    # A packet that the bridge itself passes on after br_netfilter redirected it has come by no link, says the kernel.
    from_none = [bytes(16) + bridge for bridge in padded]
    inside = accept if network.icc else drop
    items: list[tuple[str, list[nft.Item]]] = [
        (names.BRIDGES, [{"key": bridge} for bridge in padded]),
        (names.INSIDE, [{"key": pair, "data": inside} for pair in pairs]),
        (names.OWN, [{"key": pair} for pair in [*pairs, *from_none]]),
    ]
    router = _router(network)
    if padded[1:] and router:
        items.append((names.FURTHER, [{"key": bridge + router} for bridge in padded[1:]]))
    if network.adopted:
        # wired by hand: the rules made with it say who may come in, and as whom one leaves
        items.append((names.ADOPTED, [{"key": bridge} for bridge in padded]))
    else:
        items.append((names.TOWARDS, [{"key": bridge, "data": drop} for bridge in padded]))
    if network.internal:
        within = nft.verdict_value(nft.GOTO, "within")
        items.append((names.SOURCES, [{"key": bridge, "data": within} for bridge in padded]))
    if network.isolate:
        items.append((names.ISOLATED, [{"key": bridge} for bridge in padded]))
    for version, name in ((4, names.SUBNETS), (6, names.SUBNETS6)):
        spans = [end for subnet in _subnets(network, version) for end in _span(subnet)]
        if spans:
            items.append((name, spans))
    for name, packed in ((names.GATEWAYS, _gateways(network, 4)), (names.GATEWAYS6, _gateways(network, 6))):
        if packed:
            items.append((name, [{"key": bridge + gateway} for bridge in padded for gateway in packed]))
    return [nft.elements(kind, tags.table(), name, some) for name, some in items]


def gateway_elements(kind: int, network: Network) -> list[bytes]:
    """The same for the table bridge: where a network has further bridges, each is the gateway to its containers."""
    router = _router(network)
    if len(_bridges(network)) < 2 or not router:
        return []
    items: list[tuple[str, nft.Item]] = [
        (names.ROUTERS, {"key": router}),
        (names.ENTRANCES, {"key": router, "data": _mac(names.FURTHER_MAC)}),
    ]
    return [nft.elements(kind, tags.table(), name, [item], nft.BRIDGE) for name, item in items]


def guest(kind: int, address: str) -> bytes:
    """Add or delete a container of ours on an adopted bridge."""
    six = ":" in address
    packed = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, address)
    return nft.elements(kind, tags.table(), names.GUESTS6 if six else names.GUESTS, [{"key": packed}])


def switch(kind: int, version: int) -> bytes:
    """Add or delete a family whose forwarding pyrun has switched on: 4 or 6."""
    family = nft.IPV4 if version == 4 else nft.IPV6
    return nft.elements(kind, tags.table(), names.SWITCHED, [{"key": bytes([family, 0, 0, 0])}])


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", "")) + b"\0\0"


def _router(network: Network) -> bytes:
    """The MAC of the gateway, filled up to whole registers; nothing for an adopted bridge, which has its own."""
    gateway = network.gateway or network.gateway6
    if network.adopted or not gateway:
        return b""
    return _mac(leases.mac(gateway))


def _bridges(network: Network) -> list[str]:
    return list(dict.fromkeys(name for name in network.bridges() if name))


def _subnets(network: Network, version: int) -> list[IPv4Network | IPv6Network]:
    listed, first = (
        (network.subnets4, network.subnet) if version == 4 else (network.subnets6, network.subnet6)
    )
    found = [*[each.subnet for each in listed], first]
    return list(dict.fromkeys(ip_network(subnet, strict=False) for subnet in found if subnet))


def _gateways(network: Network, version: int) -> list[bytes]:
    listed, first = (
        (network.subnets4, network.gateway) if version == 4 else (network.subnets6, network.gateway6)
    )
    found = [*[each.gateway for each in listed], first]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return [socket.inet_pton(family, gateway) for gateway in dict.fromkeys(found) if gateway]


def _span(subnet: IPv4Network | IPv6Network) -> list[nft.Item]:
    """A range of a simple key: its first address, and the one after its last as its end."""
    after = int(subnet.broadcast_address) + 1 & (1 << subnet.max_prefixlen) - 1
    return [
        {"key": subnet.network_address.packed},
        {"key": after.to_bytes(subnet.max_prefixlen // 8, "big"), "end": True},
    ]


def pinned_elements(
    kind: int,
    link: str,
    mac: str,
    addresses: Iterable[str],
    addresses6: Iterable[str],
    *,
    unpinned: bool = False,
    alone: bool = False,
) -> list[bytes]:
    """Add or delete what a container's link may send as its own: a MAC ("" leaves it out) and addresses.

    unpinned: its container finds its addresses itself. alone: it may speak with the host only (icc=false).
    """
    name = link.encode().ljust(16, b"\0")
    items: list[tuple[str, list[nft.Item]]] = []
    if mac:
        items.append((names.MACS, [{"key": name + bytes.fromhex(mac.replace(":", "")) + b"\0\0"}]))
    for family, set_, some in (
        (socket.AF_INET, names.ADDRESSES, addresses),
        (socket.AF_INET6, names.ADDRESSES6, addresses6),
    ):
        keys: list[nft.Item] = [{"key": name + socket.inet_pton(family, address)} for address in some]
        if keys:
            items.append((set_, keys))
    items += [
        (set_, [{"key": name}])
        for set_, wanted in ((names.UNPINNED, unpinned), (names.ALONE, alone))
        if wanted
    ]
    return [nft.elements(kind, tags.table(), set_, some, nft.BRIDGE) for set_, some in items]
