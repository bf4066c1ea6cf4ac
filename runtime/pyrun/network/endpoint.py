"""One interface of one container in one bridged network: its addresses, its operations, its undo lines.

    look / claim   which addresses it gets; with `claim` they are the container's, each by a file made in one step
    operations     what connects it, once the container's network namespace is there (network/attach.py performs them)
    undo           what takes all of that back

Between them goes a dict, a `Wire`, which is also what container.json tells of an interface:

    network bridge link (the host's end) ifname mac address prefix gateway address6 prefix6 gateway6 aliases

Used by a start (stages/network.py) and by `network connect` alike.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

from pyrun.errors import NetworkError, UsageError
from pyrun.network import attach, claims, elements, leases, messages
from pyrun.plan.operations import Operation

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

Wire = dict[str, "Any"]
Wanted = dict[str, object]


def look(wanted: Wanted, template: messages.Template, identifier: str, number: int, inside: str) -> Wire:
    """What `claim` would give now; touches nothing."""
    wire = _wire(wanted, template, identifier, number, inside)
    address, address6 = str(wanted["ip"]), str(wanted["ip6"])
    if template["gateway"] and not address:
        address = leases.peek(*_pool(wanted, template, ""))
    if template["gateway6"] and not address6:
        network, gateway6, prefix6, within6 = _pool(wanted, template, "6")
        if address:
            address6 = leases.beside(address, gateway6, prefix6, within6)
        else:
            address6 = leases.peek(network, gateway6, prefix6, within6)
    return _addressed(wire, wanted, address, address6)


def claim(
    wanted: Wanted,
    template: messages.Template,
    identifier: str,
    number: int,
    inside: str,
    record: str,
    taken: list[str],
) -> Wire:
    """Lease its addresses for the owner of *record*; each claim made is added to *taken*.

    Raises: Conflict (a static address or MAC is held), NetworkError (none is left), FileNotFoundError (the network is
    gone).
    """
    wire = _wire(wanted, template, identifier, number, inside)
    network, address, address6 = str(wanted["network"]), str(wanted["ip"]), str(wanted["ip6"])
    if template["gateway"]:
        if address:
            leases.take_this(network, address, record)
        else:
            address = _next(wanted, template, "", record)
        taken.append(leases.path(network, address))
    if template["gateway6"]:
        if address6:
            leases.take_this(network, address6, record)
        else:
            beside = address and leases.take_beside(address, *_pool(wanted, template, "6"), record)
            address6 = beside or _next(wanted, template, "6", record)
        taken.append(leases.path(network, address6))
    if wanted["mac"] or wanted["ip"] or wanted["ip6"]:
        from pyrun.network import stations

        if _chooses_mac(wanted, template):
            mac = str(wanted["mac"] or leases.mac(address6))
            taken.append(stations.take_in(network, mac, record))
        else:
            stations.refuse_derived(network, address, f"--network {network}")
    return _addressed(wire, wanted, address, address6)


def _pool(wanted: Wanted, template: messages.Template, six: str) -> tuple[str, str, int, str]:
    """Network, gateway, prefix and range of the first subnet of a family; six: "" or "6"."""
    gateway, prefix, within = (template[key + six] for key in ("gateway", "prefix", "range"))
    return str(wanted["network"]), gateway, int(prefix), within


def _next(wanted: Wanted, template: messages.Template, six: str, record: str) -> str:
    """A free address of the first subnet of the family; when that is full, of a further one."""
    pool = _pool(wanted, template, six)
    try:
        return leases.take(*pool, record)
    except NetworkError:
        from pyrun.network import design

        for subnet in design.subnets_of(pool[0], six)[1:]:
            try:
                return leases.take(pool[0], subnet["gateway"], subnet["prefix"], subnet["range"], record)
            except NetworkError:
                continue
        raise


def lines(wanted: Wanted, name: str, hostname: str, link: str, inside: str, dns: list[str]) -> list[str]:
    """What the claims of an endpoint tell: for `inspect`, for the resolver, for healing."""
    told = [f"name {name}", f"link {link}", f"ifname {inside}"]
    if hostname and hostname != name:
        told.append(f"hostname {hostname}")
    told += [f"alias {alias}" for alias in wanted["aliases"]]  # type: ignore[attr-defined]
    if wanted["mac"]:
        told.append(f"mac {wanted['mac']}")
    return told + [f"dns {server}" for server in dns]


def check(wanted: Wanted, template: messages.Template) -> None:
    """Whether the addresses asked for can be had in this network at all. Raises UsageError."""
    network = wanted["network"]
    for key, gateway, prefix in (("ip", "gateway", "prefix"), ("ip6", "gateway6", "prefix6")):
        address = str(wanted[key])
        if not address:
            continue
        told = f"--{key} {address}"
        if not template[gateway]:
            kind = "IPv4" if key == "ip" else "IPv6"
            raise UsageError(f"{told}: network {network} has no {kind}", f"`pyrun network inspect {network}`")
        if address == template[gateway]:
            raise UsageError(
                f"{told}: that is the gateway of network {network}",
                "another address of its subnet, or none: a free one is taken",
            )
        if not _within(address, template[gateway], int(template[prefix])):
            from pyrun.network import design

            design.check_address(str(network), address, told)


def _within(address: str, gateway: str, prefix: int) -> bool:
    """Whether it is an address of the subnet. Raises UsageError for one that no container can have."""
    if not _same_subnet(address, gateway, prefix):
        return False
    size = 1 << ((128 if ":" in gateway else 32) - prefix)
    place = _number(address) % size
    if place == 0 or (place == size - 1 and ":" not in gateway):
        six = "6" if ":" in gateway else ""
        raise UsageError(
            f"--ip{six} {address}: that is an end of the subnet, no address of a container",
            "an address in between, or none: a free one is taken",
        )
    return True


def _same_subnet(address: str, gateway: str, prefix: int) -> bool:
    return (_number(address) ^ _number(gateway)) >> ((128 if ":" in gateway else 32) - prefix) == 0


def _number(address: str) -> int:
    return int.from_bytes(inet_pton(AF_INET6 if ":" in address else AF_INET, address), "big")


def _wire(wanted: Wanted, template: messages.Template, identifier: str, number: int, inside: str) -> Wire:
    return {
        "network": wanted["network"],
        "bridge": template["bridge"],
        "link": messages.host_link(identifier, number),
        "ifname": inside,
        "prefix": int(template["prefix"] or 0),
        "gateway": template["gateway"],
        "prefix6": int(template["prefix6"] or 0),
        "gateway6": template["gateway6"],
        "aliases": list(wanted["aliases"]),  # type: ignore[call-overload]
        "internal": template["internal"] == "True",
        "gw_priority": wanted["gw_priority"],
        "asked_for": bool(wanted["ip"] or wanted["ip6"] or wanted["mac"]),
        "mac_asked_for": _chooses_mac(wanted, template),
    }


def _chooses_mac(wanted: Wanted, template: messages.Template) -> bool:
    """Whether the MAC may be one that another lease derives: one that was given, or, where there is no IPv4, that of a
    given address, since many have the same last four bytes."""
    return bool(wanted["mac"] or (wanted["ip6"] and not template["gateway"]))


def _addressed(wire: Wire, wanted: Wanted, address: str, address6: str) -> Wire:
    if not (address or address6):
        raise NetworkError(
            f"network {wanted['network']!r} has no free address left",
            "use another network, or remove containers: `pyrun ps -a`",
        )
    wire["address"], wire["address6"] = address, address6
    for found, six in ((address, ""), (address6, "6")):
        if found and not _same_subnet(found, wire[f"gateway{six}"], wire[f"prefix{six}"]):
            from pyrun.network import design

            subnet = design.check_address(str(wanted["network"]), found, f"--ip{six} {found}")
            wire[f"gateway{six}"], wire[f"prefix{six}"] = subnet["gateway"], subnet["prefix"]
    wire["mac"] = wanted["mac"] or leases.mac(address or address6)
    return wire


def first_for(wires: list[Wire], key: str) -> Wire | None:
    """The interface of the default route: the highest priority, then the first, that leads out at all.

    key: "gateway" or "gateway6".
    """
    out = [wire for wire in wires if wire[key] and not wire["internal"]]
    if len(out) < 2:
        return out[0] if out else None
    return max(out, key=lambda wire: int(str(wire["gw_priority"])))


def operations(wire: Wire, name: str, default: Wire | None, default6: Wire | None) -> list[Operation]:
    """What connects it, in order; default, default6: the interfaces with the default routes."""
    link, bridge, inside, mac = (str(wire[key]) for key in ("link", "bridge", "ifname", "mac"))
    address, address6 = str(wire["address"]), str(wire["address6"])
    done = [Operation("VETH", link, bridge, mac, name, inside, str(wire["network"]))]
    if address6:
        done.append(Operation("IPV6", inside))
    done += [Operation("PIN", link, mac, address, address6), Operation("LINK_UP", inside)]
    if address:
        done.append(Operation("ADDRESS", address, int(str(wire["prefix"])), inside))
    if address6:
        done.append(Operation("ADDRESS6", address6, int(str(wire["prefix6"])), inside))
    if wire is default:
        done.append(Operation("ROUTE", str(wire["gateway"]), inside))
    if wire is default6:
        done.append(Operation("ROUTE6", str(wire["gateway6"]), inside))
    return [*done, Operation("SETTLE", link, bridge)]


def announcement(wire: Wire) -> list[Operation]:
    """What tells the neighbours of it, where they may know a former owner with another MAC. Once it may send."""
    addresses = (str(wire["address"]), str(wire["address6"]))
    if wire["asked_for"] or any(each and leases.mac(each) != wire["mac"] for each in addresses):
        return [Operation("ANNOUNCE", str(wire["ifname"]), str(wire["mac"]), *addresses)]
    return []


def undo(wire: Wire, template: messages.Template, owner: str) -> list[str]:
    """The lines of the undo list: the link goes down first, so that nobody answers for an address that is free."""
    link, network = str(wire["link"]), str(wire["network"])
    addresses = [str(wire[key]) for key in ("address", "address6") if wire[key]]
    down = messages.filled(template, "down", name=link.encode())
    batch = elements.unpin_batch(
        template, link, str(wire["mac"]), str(wire["address"]), str(wire["address6"])
    )
    return [
        f"netlink\t{messages.NETLINK_ROUTE}\t{down.hex()}",
        f"netlink\t{messages.NETLINK_NETFILTER}\t{batch.hex()}",
        *[f"unlink-if\t{leases.path(network, address)}\t{owner}" for address in addresses],
        *(_mac_given_up(wire, owner) if wire.get("mac_asked_for") else []),
    ]


def _mac_given_up(wire: Wire, owner: str) -> list[str]:
    return [f"unlink-if\t{leases.mac_path(str(wire['network']), str(wire['mac']))}\t{owner}"]


def forget_flows(wire: Wire, template: messages.Template, owner: str) -> list[str]:
    """Undo lines that make connection tracking forget what led to the container: before its addresses are given up,
    since the flows of their next owner are not ours."""
    found = []
    for key in ("address", "address6"):
        if address := str(wire[key]):
            found.append(f"guard\t{leases.path(str(wire['network']), address)}\t{owner}")
            found += [elements.flows_to(template, address), "end"]
    return found


def release(taken: list[str], owner: str) -> None:
    """Give up claims, for a start that fails before its undo list is written."""
    for path in taken:
        claims.release(path, owner)


def perform(link: attach.Attachment, todo: list[Operation]) -> None:
    """Carry out operations in order. Raises: StageFailed, Conflict."""
    for operation in todo:
        attach.perform(link, operation.kind, operation.args)
