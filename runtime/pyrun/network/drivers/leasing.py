"""Which addresses an interface on a card's segment gets, and the claims that keep two containers apart.

In a network that was created with a subnet they are leased as in any other. On a bare card (`macvlan:eth1`) the segment
is somebody else's: only an address that was asked for is taken, and its prefix length and gateway are those of the
host's own address there. Claims lie where every network has them, in run/networks/<network>/leases; those of MAC
addresses, which have to differ behind one card whatever the network, in run/macs (mac_claims.py).
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from pyrun.digest import sha256_hex
from pyrun.errors import UsageError
from pyrun.network import claims, endpoint, foreign_leases, leases, mac_claims, messages, records, tags
from pyrun.network.drivers import segment
from pyrun.network.endpoint import Wire
from pyrun.network.requests import Endpoint, Request
from pyrun.safe import shell_word
from pyrun.store import paths


class Placement:
    """An endpoint on a card, as found out before anything is claimed.

    wanted: what is asked of it; settings: the driver's, complete; mtu: in bytes, 0 for the card's; internal: its
    network leads nowhere else; pool, pool6: the subnets its addresses come from, None where none is to be had.
    """

    __slots__ = ("card", "internal", "mtu", "pool", "pool6", "settings", "wanted")

    def __init__(self, wanted: Endpoint, card: segment.Card) -> None:
        self.wanted, self.card = wanted, card
        self.settings: dict[str, str | bool] = {}
        self.mtu, self.internal = 0, False
        self.pool: records.Pool | None = None
        self.pool6: records.Pool | None = None


def placed(wanted: Endpoint, card: segment.Card, network: records.Network | None, told: str) -> Placement:
    """The place of *wanted* on a card, without the driver's settings. network: None for a bare card. Raises
    UsageError."""
    there = Placement(wanted, card)
    if network:
        there.mtu, there.internal = network.mtu, network.internal
    there.pool = _pool(wanted, wanted.ip, card, network, told)
    there.pool6 = _pool(wanted, wanted.ip6, card, network, told, "6")
    return there


def _pool(
    wanted: Endpoint,
    address: str,
    card: segment.Card,
    network: records.Network | None,
    told: str,
    six: str = "",
) -> records.Pool | None:
    """The subnet of one family; None where there is no address to be had. address: that is asked for, or ""."""
    described = (network.subnets6 if six else network.subnets4) if network else []
    if described and not address:
        return described[0]
    for each in described:
        if ip_address(address) in ip_network(each.subnet):
            if address == each.gateway:
                raise UsageError(f"{told}: {address} is the gateway", "choose another")
            return each
    if not address:
        return None
    try:
        prefix, gateway = card.home(address)
    except KeyError:
        whole = ", ".join(each.subnet for each in described) or ", ".join(card.addresses) or "no address"
        raise UsageError(
            f"{told}: ip{six}={address} is in none of its subnets ({card.name} has {whole})",
            "an address of one of them" if network else _remedy(wanted, card, address),
        ) from None
    if f"{address}/{prefix}" in card.addresses:
        raise UsageError(f"{told}: ip{six}={address} is the host's own address", "choose another")
    return records.Pool("", gateway, prefix)


def _remedy(wanted: Endpoint, card: segment.Card, address: str) -> str:
    """What to do about an address on a bare card whose subnet nobody has told of."""
    if wanted.driver in ("macvlan", "ipvlan"):
        kind, card_name = shell_word(wanted.driver), shell_word(card.name)
        return f"pyrun network create -d {kind} -o parent={card_name} --subnet ... NAME"
    length = 64 if ":" in address else 24
    return (
        f"without ip{'6' if length == 64 else ''}=, and once it runs: "
        f"ip -n CONTAINER address add {shell_word(address)}/{length} dev {shell_word(wanted.ifname or 'eth0')}"
    )


def look(request: Request, there: Placement, number: int) -> Wire:
    """The wire of an interface, as `claim` would give it."""
    wanted, wire = there.wanted, _wire(there, host_end(there.wanted.driver, request.id, number))
    for address, pool in ((wanted.ip, there.pool), (wanted.ip6, there.pool6)):
        if pool is not None:
            chosen = address or leases.peek(wanted.network, pool.gateway, pool.prefix, pool.range)
            if chosen:
                wire.give(pool is there.pool6, chosen, pool.prefix, pool.gateway)
    wire.mac = wanted.mac or _mac(wire, request.id, number)
    return wire


def claim(request: Request, there: Placement, number: int, owner: str, taken: list[str]) -> Wire:
    """The wire of an interface, its addresses and MAC claimed: each claim is added to *taken*.

    Raises: Conflict, NetworkError.
    """
    wanted, wire = there.wanted, _wire(there, host_end(there.wanted.driver, request.id, number))
    told = (request.name, request.hostname, wire.link or "-", wanted.ifname)
    lines = endpoint.lines(wanted, *told, request.dns.servers)
    lines += ["internal"] if there.internal else []
    for address, pool in ((wanted.ip, there.pool), (wanted.ip6, there.pool6)):
        if pool is not None:
            chosen = _claimed(wanted.network, address, pool, there.card, owner, lines, taken)
            wire.give(pool is there.pool6, chosen, pool.prefix, pool.gateway)
    wire.mac = wanted.mac or _mac(wire, request.id, number)
    if wire.mac:
        record = claims.write_record(owner, lines)
        try:
            taken.append(mac_claims.take(_segment(wire), wire.mac, record, f"--network {wanted.network}"))
        finally:
            claims.forget(record)
    return wire


def _wire(there: Placement, link: str) -> Wire:
    """All of it but its addresses. link: what it has on the host."""
    wanted, card = there.wanted, there.card
    wire = Wire(wanted.network)
    wire.driver, wire.parent, wire.bridge, wire.link = wanted.driver, card.name, card.bridge, link
    wire.ifname, wire.aliases, wire.gw_priority = wanted.ifname, list(wanted.aliases), wanted.gw_priority
    wire.internal, wire.options, wire.mtu = there.internal, there.settings, there.mtu
    return wire


def _segment(wire: Wire) -> str:
    """Where no two may have one MAC: the bridge that holds the card, else the card."""
    return wire.bridge or wire.parent


def _claimed(
    network: str, address: str, pool: records.Pool, card: segment.Card, owner: str, lines: list[str],
    taken: list[str],
) -> str:  # fmt: skip
    """*address*, or a free one of the subnet, as the owner's. lines: what the claim tells."""
    record = claims.write_record(owner, lines)
    try:
        while True:
            paths.make(f"{paths.run()}/networks/{network}/leases")
            try:
                if ":" not in network:
                    own = [each.partition("/")[0] for each in card.addresses]
                    foreign_leases.note(network, f"/sys/class/net/{card.name}", card.name, "", own)
                if address:
                    leases.take_this(network, address, record)
                else:
                    address = leases.take(network, pool.gateway, pool.prefix, pool.range, record)
            except FileNotFoundError:  # the last container on this card has ended in this moment
                continue
            taken.append(leases.path(network, address))
            return address
    finally:
        claims.forget(record)


def undo(wire: Wire, owner: str) -> list[str]:
    """The lines that give the addresses up, and the directory of a bare card with its last container."""
    network, held = wire.network, wire.addresses()
    lines = [f"unlink-if\t{leases.path(network, address)}\t{owner}" for address in held]
    if wire.mac:
        lines.append(f"unlink-if\t{mac_claims.path(_segment(wire), wire.mac)}\t{owner}")
    if held and ":" in network:  # no network that somebody created
        lines += [f"rmdir-empty\t{paths.run()}/networks/{network}{below}" for below in ("/leases", "")]
    return lines


def owner_of(wire: Wire) -> str:
    """Who claimed what the interface has: whoever of its container's planners connected it."""
    claimed = [leases.path(wire.network, address) for address in wire.addresses()]
    claimed += [mac_claims.path(_segment(wire), wire.mac)] if wire.mac else []
    return next(filter(None, map(claims.holder, claimed)), "")


_PREFIXES = {"l2": "pyl", "macvlan": "pym"}


def host_end(driver: str, identifier: str, number: int) -> str:
    """What the interface has on the host: of l2 its end of the pair, of macvlan the shim if there is one.

    Another beginning than that of a bridge's ports, which may send only what is pinned to them.
    """
    prefix = _PREFIXES.get(driver, "")
    return prefix and prefix + messages.host_link(identifier, number)[len(tags.link_prefix()) :]


def _mac(wire: Wire, identifier: str, number: int) -> str:
    """Derived from the address, as anywhere; without one from the container's id, for a DHCP server to remember."""
    if wire.driver == "ipvlan":
        return ""  # the card's
    if address := wire.address or wire.address6:
        return leases.mac(address)
    digest = sha256_hex(f"{identifier} {number}".encode())
    return ":".join(["02", *[digest[at : at + 2] for at in range(0, 10, 2)]])
