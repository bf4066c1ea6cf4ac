"""The sets and maps of both tables, and the elements that a network, a link or a port puts into them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from pyrun.network import leases, nft
from pyrun.network.firewall import names


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
    ]
    return [
        nft.set_(names.TABLE, name, key, number, **more) for number, (name, key, more) in enumerate(done, 1)
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
        nft.set_(names.TABLE, name, key, number, **more) for number, (name, key) in enumerate(done.items(), 1)
    ]
    to_mac: dict[str, object] = {"data": [nft.ETHER], "family": nft.BRIDGE}
    return [*sets, nft.set_(names.TABLE, names.ENTRANCES, [nft.ETHER], len(sets) + 1, **to_mac)]


def network_elements(kind: int, network: dict[str, object]) -> list[bytes]:
    """Add or delete what the table inet knows of one network (as in network.json); nothing for one without a bridge."""
    bridges = _bridges(network)
    if network.get("driver", "bridge") != "bridge" or not bridges:
        return []
    drop, accept = nft.verdict_value(nft.DROP), nft.verdict_value(nft.ACCEPT)
    padded = [bridge.encode().ljust(16, b"\0") for bridge in bridges]
    pairs = [one + other for one in padded for other in padded]
    # A packet that the bridge itself passes on after br_netfilter redirected it has come by no link, says the kernel.
    from_none = [bytes(16) + bridge for bridge in padded]
    inside = accept if network.get("icc", True) else drop
    items: list[tuple[str, list[nft.Item]]] = [
        (names.BRIDGES, [{"key": bridge} for bridge in padded]),
        (names.INSIDE, [{"key": pair, "data": inside} for pair in pairs]),
        (names.OWN, [{"key": pair} for pair in [*pairs, *from_none]]),
    ]
    router = _router(network)
    if padded[1:] and router:
        items.append((names.FURTHER, [{"key": bridge + router} for bridge in padded[1:]]))
    if network.get("adopted"):
        # wired by hand: the rules made with it say who may come in, and as whom one leaves
        items.append((names.ADOPTED, [{"key": bridge} for bridge in padded]))
    else:
        items.append((names.TOWARDS, [{"key": bridge, "data": drop} for bridge in padded]))
    if network.get("internal"):
        within = nft.verdict_value(nft.GOTO, "within")
        items.append((names.SOURCES, [{"key": bridge, "data": within} for bridge in padded]))
    if network.get("isolate"):
        items.append((names.ISOLATED, [{"key": bridge} for bridge in padded]))
    for version, name in ((4, names.SUBNETS), (6, names.SUBNETS6)):
        spans = [end for subnet in _subnets(network, version) for end in _span(subnet)]
        if spans:
            items.append((name, spans))
    for name, packed in ((names.GATEWAYS, _gateways(network, 4)), (names.GATEWAYS6, _gateways(network, 6))):
        if packed:
            items.append((name, [{"key": bridge + gateway} for bridge in padded for gateway in packed]))
    return [nft.elements(kind, names.TABLE, name, some) for name, some in items]


def gateway_elements(kind: int, network: dict[str, object]) -> list[bytes]:
    """The same for the table bridge: where a network has further bridges, each is the gateway to its containers."""
    router = _router(network)
    if len(_bridges(network)) < 2 or not router:
        return []
    items: list[tuple[str, nft.Item]] = [
        (names.ROUTERS, {"key": router}),
        (names.ENTRANCES, {"key": router, "data": _mac(names.FURTHER_MAC)}),
    ]
    return [nft.elements(kind, names.TABLE, name, [item], nft.BRIDGE) for name, item in items]


def guest(kind: int, address: str) -> bytes:
    """Add or delete a container of ours on an adopted bridge."""
    six = ":" in address
    packed = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, address)
    return nft.elements(kind, names.TABLE, names.GUESTS6 if six else names.GUESTS, [{"key": packed}])


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", "")) + b"\0\0"


def _router(network: dict[str, object]) -> bytes:
    """The MAC of the gateway, filled up to whole registers; nothing for an adopted bridge, which has its own."""
    gateway = str(network.get("gateway") or network.get("gateway6") or "")
    if network.get("adopted") or not gateway:
        return b""
    return _mac(leases.mac(gateway))


def _bridges(network: dict[str, object]) -> list[str]:
    shards = network.get("shards")
    further = [str(shard) for shard in shards] if isinstance(shards, list | tuple) else []
    return list(dict.fromkeys(name for name in [str(network.get("bridge", "")), *further] if name))


def _subnets(network: dict[str, object], version: int) -> list[IPv4Network | IPv6Network]:
    listed = network.get(f"subnets{version}")
    found = [str(each["subnet"]) for each in listed] if isinstance(listed, list | tuple) else []
    found.append(str(network.get("subnet" if version == 4 else "subnet6") or ""))
    return list(dict.fromkeys(ip_network(subnet, strict=False) for subnet in found if subnet))


def _gateways(network: dict[str, object], version: int) -> list[bytes]:
    listed = network.get(f"subnets{version}")
    found = [str(each.get("gateway") or "") for each in listed] if isinstance(listed, list | tuple) else []
    found.append(str(network.get("gateway" if version == 4 else "gateway6") or ""))
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
        if keys := [{"key": name + socket.inet_pton(family, address)} for address in some]:
            items.append((set_, keys))  # type: ignore[arg-type]
    items += [
        (set_, [{"key": name}])
        for set_, wanted in ((names.UNPINNED, unpinned), (names.ALONE, alone))
        if wanted
    ]
    return [nft.elements(kind, names.TABLE, set_, some, nft.BRIDGE) for set_, some in items]
