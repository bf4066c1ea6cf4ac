"""One interface of one container in one bridged network: its addresses, its operations, its undo lines.

    look / claim   which addresses it gets; with `claim` they are the container's, each by a file made in one step
    operations     what connects it, once the container's network namespace is there (network/attach.py performs them)
    undo           what takes all of that back

Between them goes a `Wire`, which is also what container.json tells of an interface.

Used by a start (stages/network.py) and by `network connect` alike.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

from pyrun.errors import NetworkError, UsageError
from pyrun.network import attach, claims, elements, leases, messages
from pyrun.plan.operations import Operation
from pyrun.safe import shell_word

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

    from pyrun.network.requests import Endpoint

# The keys of an interface in container.json, in their order: of one on a bridge of ours, of one on a card of the host.
_ON_A_BRIDGE = (
    "network", "bridge", "link", "ifname", "prefix", "gateway", "prefix6", "gateway6", "aliases", "internal",
    "gw_priority", "asked_for", "mac_asked_for", "address", "address6", "mac",
)  # fmt: skip
_ON_A_CARD = (
    "network", "driver", "parent", "bridge", "ifname", "aliases", "gw_priority", "internal", "link", "address",
    "prefix", "gateway", "address6", "prefix6", "gateway6", "mac", "options", "mtu",
)  # fmt: skip


class Wire:
    """One interface of a container.

    network: of which it is; bridge: that it is in, or that holds its card; link: the host's end, "" without one;
    ifname: inside; address, prefix (bits), gateway: of IPv4, with a 6 of IPv6, "" and 0 without; internal: the network
    leads nowhere else; asked_for: by an address or a MAC; mac_asked_for: its MAC is claimed. On a card of the host:
    driver, parent (the card), options (the driver's settings), mtu (bytes, 0 for the card's).
    """

    __slots__ = (
        "address", "address6", "aliases", "asked_for", "bridge", "driver", "gateway", "gateway6", "gw_priority",
        "ifname", "internal", "link", "mac", "mac_asked_for", "mtu", "network", "options", "parent", "prefix",
        "prefix6",
    )  # fmt: skip

    def __init__(self, network: str = "") -> None:
        self.network = network
        self.bridge = self.link = self.ifname = self.mac = ""
        self.address = self.gateway = self.address6 = self.gateway6 = ""
        self.prefix = self.prefix6 = 0
        self.aliases: list[str] = []
        self.internal = self.asked_for = self.mac_asked_for = False
        self.gw_priority = 0
        self.driver = self.parent = ""
        self.options: dict[str, str | bool] = {}
        self.mtu = 0

    def addresses(self) -> list[str]:
        """Those it has, IPv4 first."""
        return [address for address in (self.address, self.address6) if address]

    def gateway_of(self, six: bool) -> str:
        """The gateway of a family."""
        return self.gateway6 if six else self.gateway

    def family(self, six: bool) -> tuple[str, int, str]:
        """Address, prefix and gateway of a family."""
        return (
            (self.address6, self.prefix6, self.gateway6) if six else (self.address, self.prefix, self.gateway)
        )

    def give(self, six: bool, address: str, prefix: int, gateway: str) -> None:
        """Set all three."""
        if six:
            self.address6, self.prefix6, self.gateway6 = address, prefix, gateway
        else:
            self.address, self.prefix, self.gateway = address, prefix, gateway

    def record(self) -> dict[str, object]:
        """As container.json has it."""
        return {key: getattr(self, key) for key in (_ON_A_CARD if self.driver else _ON_A_BRIDGE)}


def recorded(told: dict[str, Any]) -> Wire:
    """The interface of which container.json tells; what a record of an older version lacks is as at first."""
    wire = Wire()
    for key in Wire.__slots__:
        if key in told:
            setattr(wire, key, told[key])
    return wire


def look(wanted: Endpoint, template: messages.Template, identifier: str, number: int, inside: str) -> Wire:
    """What `claim` would give now; touches nothing."""
    wire = _wire(wanted, template, identifier, number, inside)
    address, address6 = wanted.ip, wanted.ip6
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
    wanted: Endpoint,
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
    network, address, address6 = wanted.network, wanted.ip, wanted.ip6
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
    if wanted.mac or wanted.ip or wanted.ip6:
        from pyrun.network import mac_claims

        if _chooses_mac(wanted, template):
            mac = wanted.mac or leases.mac(address6)
            taken.append(mac_claims.take_in(network, mac, record))
        else:
            mac_claims.refuse_derived(network, address, f"--network {network}")
    return _addressed(wire, wanted, address, address6)


def _pool(wanted: Endpoint, template: messages.Template, six: str) -> tuple[str, str, int, str]:
    """Network, gateway, prefix and range of the first subnet of a family; six: "" or "6"."""
    gateway, prefix, within = (template[key + six] for key in ("gateway", "prefix", "range"))
    return wanted.network, gateway, int(prefix), within


def _next(wanted: Endpoint, template: messages.Template, six: str, record: str) -> str:
    """A free address of the first subnet of the family; when that is full, of a further one."""
    pool = _pool(wanted, template, six)
    try:
        return leases.take(*pool, record)
    except NetworkError:
        from pyrun.network import design

        for subnet in design.subnets_of(pool[0], six)[1:]:
            try:
                return leases.take(pool[0], subnet.gateway, subnet.prefix, subnet.range, record)
            except NetworkError:
                continue
        raise


def lines(wanted: Endpoint, name: str, hostname: str, link: str, inside: str, dns: list[str]) -> list[str]:
    """What the claims of an endpoint tell: for `inspect`, for the resolver, for healing."""
    told = [f"name {name}", f"link {link}", f"ifname {inside}"]
    if hostname and hostname != name:
        told.append(f"hostname {hostname}")
    told += [f"alias {alias}" for alias in wanted.aliases]
    if wanted.mac:
        told.append(f"mac {wanted.mac}")
    return told + [f"dns {server}" for server in dns]


def check(wanted: Endpoint, template: messages.Template) -> None:
    """Whether the addresses asked for can be had in this network at all. Raises UsageError."""
    network = wanted.network
    for key, address, gateway, prefix in (
        ("ip", wanted.ip, "gateway", "prefix"),
        ("ip6", wanted.ip6, "gateway6", "prefix6"),
    ):
        if not address:
            continue
        told = f"--{key} {address}"
        if not template[gateway]:
            kind = "IPv4" if key == "ip" else "IPv6"
            raise UsageError(
                f"{told}: network {network} has no {kind}", f"`pyrun network inspect {shell_word(network)}`"
            )
        if address == template[gateway]:
            raise UsageError(
                f"{told}: that is the gateway of network {network}",
                "another address of its subnet, or none: a free one is taken",
            )
        if not _within(address, template[gateway], int(template[prefix])):
            from pyrun.network import design

            design.check_address(network, address, told)


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


def _wire(wanted: Endpoint, template: messages.Template, identifier: str, number: int, inside: str) -> Wire:
    wire = Wire(wanted.network)
    wire.bridge, wire.link = template["bridge"], messages.host_link(identifier, number)
    wire.ifname, wire.aliases = inside, list(wanted.aliases)
    wire.prefix, wire.gateway = int(template["prefix"] or 0), template["gateway"]
    wire.prefix6, wire.gateway6 = int(template["prefix6"] or 0), template["gateway6"]
    wire.internal, wire.gw_priority = template["internal"] == "True", wanted.gw_priority
    wire.asked_for = bool(wanted.ip or wanted.ip6 or wanted.mac)
    wire.mac_asked_for = _chooses_mac(wanted, template)
    return wire


def _chooses_mac(wanted: Endpoint, template: messages.Template) -> bool:
    """Whether the MAC may be one that another lease derives: one that was given, or, where there is no IPv4, that of a
    given address, since many have the same last four bytes."""
    return bool(wanted.mac or (wanted.ip6 and not template["gateway"]))


def _addressed(wire: Wire, wanted: Endpoint, address: str, address6: str) -> Wire:
    if not (address or address6):
        raise NetworkError(
            f"network {wanted.network!r} has no free address left",
            "use another network, or remove containers: `pyrun ps -a`",
        )
    wire.address, wire.address6 = address, address6
    if address and not _same_subnet(address, wire.gateway, wire.prefix):
        wire.gateway, wire.prefix = _of_further(wanted.network, address, "--ip")
    if address6 and not _same_subnet(address6, wire.gateway6, wire.prefix6):
        wire.gateway6, wire.prefix6 = _of_further(wanted.network, address6, "--ip6")
    wire.mac = wanted.mac or leases.mac(address or address6)
    return wire


def _of_further(network: str, address: str, option: str) -> tuple[str, int]:
    """Gateway and prefix of the subnet of *address*, which is outside the first one of its family."""
    from pyrun.network import design

    subnet = design.check_address(network, address, f"{option} {address}")
    return subnet.gateway, subnet.prefix


def first_for(wires: list[Wire], six: bool) -> Wire | None:
    """The interface of the default route of a family: the highest priority, then the first, that leads out at all."""
    out = [wire for wire in wires if wire.gateway_of(six) and not wire.internal]
    if len(out) < 2:
        return out[0] if out else None
    return max(out, key=lambda wire: wire.gw_priority)


def operations(wire: Wire, name: str, default: Wire | None, default6: Wire | None) -> list[Operation]:
    """What connects it, in order; default, default6: the interfaces with the default routes."""
    inside, address, address6 = wire.ifname, wire.address, wire.address6
    done = [Operation("VETH", wire.link, wire.bridge, wire.mac, name, inside, wire.network)]
    if address6:
        done.append(Operation("IPV6", inside))
    done += [Operation("PIN", wire.link, wire.mac, address, address6), Operation("LINK_UP", inside)]
    if address:
        done.append(Operation("ADDRESS", address, wire.prefix, inside))
    if address6:
        done.append(Operation("ADDRESS6", address6, wire.prefix6, inside))
    if wire is default:
        done.append(Operation("ROUTE", wire.gateway, inside))
    if wire is default6:
        done.append(Operation("ROUTE6", wire.gateway6, inside))
    return [*done, Operation("SETTLE", wire.link, wire.bridge)]


def announcement(wire: Wire) -> list[Operation]:
    """What tells the neighbours of it, where they may know a former owner with another MAC. Once it may send."""
    if wire.asked_for or any(leases.mac(each) != wire.mac for each in wire.addresses()):
        return [Operation("ANNOUNCE", wire.ifname, wire.mac, wire.address, wire.address6)]
    return []


def undo(wire: Wire, template: messages.Template, owner: str) -> list[str]:
    """The lines of the undo list: the link goes down first, so that nobody answers for an address that is free."""
    down = messages.filled(template, "down", name=wire.link.encode())
    batch = elements.unpin_batch(template, wire.link, wire.mac, wire.address, wire.address6)
    return [
        f"netlink\t{messages.NETLINK_ROUTE}\t{down.hex()}",
        f"netlink\t{messages.NETLINK_NETFILTER}\t{batch.hex()}",
        *[f"unlink-if\t{leases.path(wire.network, address)}\t{owner}" for address in wire.addresses()],
        *(_mac_given_up(wire, owner) if wire.mac_asked_for else []),
    ]


def _mac_given_up(wire: Wire, owner: str) -> list[str]:
    return [f"unlink-if\t{leases.mac_path(wire.network, wire.mac)}\t{owner}"]


def forget_flows(wire: Wire, template: messages.Template, owner: str) -> list[str]:
    """Undo lines that make connection tracking forget what led to the container: before its addresses are given up,
    since the flows of their next owner are not ours."""
    found = []
    for address in wire.addresses():
        found.append(f"guard\t{leases.path(wire.network, address)}\t{owner}")
        found += [elements.flows_to(template, address), "end"]
    return found


def release(taken: list[str], owner: str) -> None:
    """Give up claims, for a start that fails before its undo list is written."""
    for path in taken:
        claims.release(path, owner)


def perform(link: attach.Attachment | int, todo: list[Operation]) -> None:
    """Carry out operations in order. Raises: StageFailed, Conflict."""
    for operation in todo:
        attach.perform(link, operation)
