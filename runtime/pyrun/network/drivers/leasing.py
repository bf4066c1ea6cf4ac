"""Which addresses an interface on a card's segment gets, and the claims that keep two containers apart.

In a network that was created with a subnet they are leased as in any other. On a bare card (`macvlan:eth1`) the segment
is somebody else's: only an address that was asked for is taken, and its prefix length and gateway are those of the
host's own address there. Claims lie where every network has them, in run/networks/<network>/leases; those of MAC
addresses, which have to differ behind one card whatever the network, in run/macs (stations.py).
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from pyrun.digest import sha256_hex
from pyrun.errors import UsageError
from pyrun.network import claims, endpoint, leases, messages, records, stations, strangers
from pyrun.network.drivers import segment
from pyrun.store import paths

Wire = dict[str, Any]
Wanted = dict[str, Any]


def check(wanted: Wanted, card: segment.Card, network: records.Network, told: str) -> None:
    """Find the subnets of an interface, noted in *wanted* under "subnets": {"": ..., "6": ...}, and whether it leads
    out, under "internal". Raises UsageError."""
    wanted["subnets"] = {six: _subnet(wanted, card, network, told, six) for six in ("", "6")}
    wanted["internal"] = bool(network.get("internal"))


def _subnet(
    wanted: Wanted, card: segment.Card, network: records.Network, told: str, six: str
) -> dict[str, Any] | None:
    """gateway, prefix and range of one family; None where there is no address to be had."""
    address = str(wanted[f"ip{six}"])
    described: list[dict[str, Any]] = network.get(f"subnets{six or '4'}") or []
    if described and not address:
        return described[0]
    for each in described:
        if ip_address(address) in ip_network(each["subnet"]):
            if address == each["gateway"]:
                raise UsageError(f"{told}: {address} is the gateway", "choose another")
            return each
    if not address:
        return None
    try:
        prefix, gateway = card.home(address)
    except KeyError:
        whole = ", ".join(each["subnet"] for each in described) or ", ".join(card.addresses) or "no address"
        raise UsageError(
            f"{told}: ip{six}={address} is in none of its subnets ({card.name} has {whole})",
            "an address of one of them" if network else _remedy(wanted, card, address),
        ) from None
    if f"{address}/{prefix}" in card.addresses:
        raise UsageError(f"{told}: ip{six}={address} is the host's own address", "choose another")
    return {"gateway": gateway, "prefix": prefix, "range": "", "subnet": ""}


def _remedy(wanted: Wanted, card: segment.Card, address: str) -> str:
    """What to do about an address on a bare card whose subnet nobody has told of."""
    if wanted["driver"] in ("macvlan", "ipvlan"):
        return f"pyrun network create -d {wanted['driver']} -o parent={card.name} --subnet ... NAME"
    length = 64 if ":" in address else 24
    return (
        f"without ip{'6' if length == 64 else ''}=, and once it runs: "
        f"ip -n CONTAINER address add {address}/{length} dev {wanted['ifname'] or 'eth0'}"
    )


def addressed(
    request: dict[str, Any], wanted: Wanted, card: segment.Card, number: int, owner: str, taken: list[str]
) -> Wire:
    """The wire of an interface, its addresses claimed (each claim is added to *taken*) unless it is a dry run.

    Raises: Conflict, NetworkError.
    """
    wire: Wire = {
        "network": wanted["network"], "driver": wanted["driver"], "parent": card.name, "bridge": card.bridge,
        "ifname": wanted["ifname"], "aliases": list(wanted["aliases"]), "gw_priority": wanted["gw_priority"],
        "internal": wanted["internal"], "link": host_end(wanted["driver"], str(request["id"]), number),
    }  # fmt: skip
    link = str(wire["link"]) or "-"
    told = (str(request["name"]), str(request.get("hostname") or ""), link, str(wanted["ifname"]))
    lines = endpoint.lines(wanted, *told, [str(server) for server in request.get("dns") or ()])
    lines += ["internal"] if wanted["internal"] else []
    for six in ("", "6"):
        subnet = wanted["subnets"][six]
        chosen = "" if subnet is None else _one(request, wanted, card, six, owner, lines, taken)
        wire[f"address{six}"] = chosen
        wire[f"prefix{six}"] = int(subnet["prefix"]) if chosen else 0
        wire[f"gateway{six}"] = str(subnet["gateway"]) if chosen else ""
    wire["mac"] = wanted["mac"] or _mac(wire, str(request["id"]), number)
    if wire["mac"] and not request["dry_run"]:
        record = claims.write_record(owner, lines)
        try:
            taken.append(stations.take(_segment(wire), wire["mac"], record, f"--network {wanted['network']}"))
        finally:
            claims.forget(record)
    return wire


def _segment(wire: Wire) -> str:
    """Where no two may have one MAC: the bridge that holds the card, else the card."""
    return str(wire["bridge"] or wire["parent"])


def _one(
    request: dict[str, Any], wanted: Wanted, card: segment.Card, six: str, owner: str, lines: list[str],
    taken: list[str],
) -> str:  # fmt: skip
    network, address, subnet = str(wanted["network"]), str(wanted[f"ip{six}"]), wanted["subnets"][six]
    gateway, prefix = str(subnet["gateway"]), int(subnet["prefix"])
    if request["dry_run"]:
        return address or leases.peek(network, gateway, prefix, str(subnet["range"]))
    record = claims.write_record(owner, lines)
    try:
        while True:
            paths.make(f"{paths.run()}/networks/{network}/leases")
            try:
                if ":" not in network:
                    own = [each.partition("/")[0] for each in card.addresses]
                    strangers.note(network, f"/sys/class/net/{card.name}", card.name, "", own)
                if address:
                    leases.take_this(network, address, record)
                else:
                    address = leases.take(network, gateway, prefix, str(subnet["range"]), record)
            except FileNotFoundError:  # the last container on this card has ended in this moment
                continue
            taken.append(leases.path(network, address))
            return address
    finally:
        claims.forget(record)


def undo(wire: Wire, owner: str) -> list[str]:
    """The lines that give the addresses up, and the directory of a bare card with its last container."""
    network = str(wire["network"])
    held = [str(wire[key]) for key in ("address", "address6") if wire[key]]
    lines = [f"unlink-if\t{leases.path(network, address)}\t{owner}" for address in held]
    if wire["mac"]:
        lines.append(f"unlink-if\t{stations.path(_segment(wire), wire['mac'])}\t{owner}")
    if held and ":" in network:  # no network that somebody created
        lines += [f"rmdir-empty\t{paths.run()}/networks/{network}{below}" for below in ("/leases", "")]
    return lines


def owner_of(wire: Wire) -> str:
    """Who claimed what the interface has: whoever of its container's planners connected it."""
    claimed = [
        leases.path(str(wire["network"]), str(wire[key])) for key in ("address", "address6") if wire[key]
    ]
    claimed += [stations.path(_segment(wire), str(wire["mac"]))] if wire["mac"] else []
    return next(filter(None, map(claims.holder, claimed)), "")


_PREFIXES = {"l2": "pyl", "macvlan": "pym"}


def host_end(driver: str, identifier: str, number: int) -> str:
    """What the interface has on the host: of l2 its end of the pair, of macvlan the shim if there is one.

    Another beginning than that of a bridge's ports, which may send only what is pinned to them.
    """
    prefix = _PREFIXES.get(driver, "")
    return prefix and prefix + messages.host_link(identifier, number)[len(messages.HOST_LINK_PREFIX) :]


def _mac(wire: Wire, identifier: str, number: int) -> str:
    """Derived from the address, as anywhere; without one from the container's id, for a DHCP server to remember."""
    if wire["driver"] == "ipvlan":
        return ""  # the card's
    address = str(wire["address"] or wire["address6"])
    if address:
        return leases.mac(address)
    digest = sha256_hex(f"{identifier} {number}".encode())
    return ":".join(["02", *[digest[at : at + 2] for at in range(0, 10, 2)]])
