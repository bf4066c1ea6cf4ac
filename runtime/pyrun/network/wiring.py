"""All interfaces of one container at its start: claimed one by one, planned together, undone together.

    claim    addresses, ports and the name in /run/netns, each by a file made in one step (claims.py); a network that is
             missing is made first
    look     what `claim` would give; touches nothing
    plan     the operations and undo lines of what either of them gave

Each interface is planned by endpoint.py; which networks they are in is in the request (requests.py). Used by
stages/network.py, and by drivers/ for what every container has; `network connect` adds a single interface
(engine/connect.py).
"""

from __future__ import annotations

from pyrun.network import attach, claims, endpoint, health, live_undo, messages, netns, requests, resolver
from pyrun.network.publishing import ports, publication, reservation
from pyrun.plan.operations import Operation
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence

    from pyrun.network.drivers.segment import Card
    from pyrun.network.endpoint import Wire
    from pyrun.network.requests import Endpoint, Request


class Claimed:
    """What a container has of the network before anything is planned.

    owner, paths: the first line of its claims, and their files, none where it was only looked; wires: on bridges of
    ours, in the order asked for; on_cards: the others, each with its card; templates: of each network; missing:
    networks that were made for it; ports: published; shut: those the host's firewall lets nobody in by, None without
    one; leads: where ports lead that the guard is still to be given (publication.targets); netfilter: a socket, kept
    open until the planner becomes the monitor, since closing may wait for deletions of others.
    """

    __slots__ = (
        "leads", "missing", "netfilter", "on_cards", "owner", "paths", "ports", "shut", "templates", "wires",
    )  # fmt: skip

    def __init__(self, owner: str = "") -> None:
        self.owner = owner
        self.paths: list[str] = []
        self.wires: list[Wire] = []
        self.on_cards: list[tuple[Wire, Card]] = []
        self.templates: dict[str, messages.Template] = {}
        self.missing: list[messages.Template] = []
        self.ports: list[ports.Port] = []
        self.shut: list[publication.Closed] | None = None
        self.leads: dict[bool, str] = {}
        self.netfilter: socket | None = None

    def release(self) -> None:
        """Give everything up, for a start that fails before its undo list is written."""
        endpoint.release(self.paths, self.owner)


class NetworkPlan:
    """What is decided for a container's network.

    claimed: what it goes by; before, outside: operations of the planner; no_ipv6: interfaces for which init switches
    IPv6 off; undo: lines of the undo list; wires: all of them, in the order asked for; address, address6, gateway, mac:
    of the one with the default route, else of the first; ports: published; resolv: the lines of resolv.conf; program:
    of an ordinary user, that does the wiring.
    """

    __slots__ = (
        "address", "address6", "before", "claimed", "gateway", "mac", "no_ipv6", "outside", "ports", "program",
        "resolv", "undo", "wires",
    )  # fmt: skip

    def __init__(self, claimed: Claimed | None = None) -> None:
        self.claimed = claimed or Claimed()
        self.before: list[Operation] = []
        self.outside: list[Operation] = []
        self.no_ipv6: list[str] = []
        self.undo: list[str] = []
        self.wires: list[Wire] = list(self.claimed.wires)
        self.address = self.address6 = self.gateway = self.mac = ""
        self.ports: list[ports.Port] = self.claimed.ports
        self.resolv: list[str] = []
        self.program = ""

    def tell_of(self, first: Wire) -> None:
        """What the rest of a start wants to know of one interface."""
        self.address, self.address6, self.gateway, self.mac = (
            first.address, first.address6, first.gateway, first.mac,
        )  # fmt: skip


def beside_a_card(wanted: list[Endpoint]) -> bool:
    """Whether one of them is no port of a bridge of ours: said so, or because its network was created so."""
    if not all(each.driver or paths.exists(messages.path(each.network)) for each in wanted):
        from pyrun.network import drivers

        drivers.recognize(wanted)
    return any(each.driver for each in wanted)


def bridged(request: Request) -> list[Endpoint]:
    """The endpoints on bridges of ours."""
    return [each for each in request.endpoints if not each.driver]


# ── claim ──────────────────────────────────────────────────────────────────────────────────────────


def claim(request: Request, had: Claimed) -> None:
    """Name, addresses and ports, into *had*: each claim at once. Raises NotFound (network), Conflict, NetworkError."""
    wanted = bridged(request)
    if not wanted:
        claim_name(request, had, [f"name {request.name}"])
        return
    reservation.let_go()
    netfilter = had.netfilter = messages.opened(messages.NETLINK_NETFILTER)
    for each in wanted:
        template, was_missing = standing(each.network, netfilter)
        _note_network(had, each, template, missing=was_missing)
    _claim_addresses(request, wanted, had)
    through = request.through_firewall
    had.ports = publication.settled(request.ports, had.wires)
    had.shut = publication.closed(had.ports, netfilter, through_firewall=through)
    if had.ports:
        publication.claim(had.ports, had.wires, request.name, had.owner, had.paths, through_firewall=through)
        had.leads = _reserving(had)


def claim_name(
    request: Request, had: Claimed, lines: list[str], published: Sequence[ports.Port] = ()
) -> None:
    """The name in /run/netns, and ports that another publishes. lines: what the claims tell. Raises Conflict."""
    name_directory()
    record = claims.write_record(had.owner, lines)
    try:
        _take_name(request.name, record, had)
        for port in published:
            ports.claim(port, record)
            had.paths.append(ports.path(port))
    finally:
        claims.forget(record)


def _take_name(name: str, record: str, had: Claimed) -> None:
    netns.claim(name, record)
    had.paths.append(netns.claim_path(name))


def _claim_addresses(request: Request, wanted: list[Endpoint], had: Claimed) -> None:
    name_directory()
    names = requests.interface_names(wanted)
    for number, each in enumerate(wanted):
        link = messages.host_link(request.id, number)
        told = endpoint.lines(each, request.name, request.hostname, link, names[number], request.dns.servers)
        record = claims.write_record(had.owner, told)
        try:
            if number == 0:
                _take_name(request.name, record, had)
            had.wires.append(_claim_one(request.id, each, number, names[number], record, had))
        finally:
            claims.forget(record)
    if any(wire.address.endswith((".0", ".128")) for wire in had.wires):
        _look_for_room()


def _claim_one(
    identifier: str, wanted: Endpoint, number: int, inside: str, record: str, had: Claimed
) -> Wire:
    network = wanted.network
    while True:
        try:
            template = had.templates[network]
            return endpoint.claim(wanted, template, identifier, number, inside, record, had.paths)
        except FileNotFoundError:
            # Somebody pruned the network a moment ago, or died while doing so.
            from pyrun.network import bridge

            had.templates[network] = bridge.ensure(network)


def _reserving(had: Claimed) -> dict[bool, str]:
    """Where published ports lead that the guard is to be given once there is a namespace; of many it has them now."""
    leads = publication.targets(had.wires)
    if len(had.ports) <= reservation.HELD_AT_ONCE:
        return leads
    publication.reserve(had.ports, leads)
    return {}


def standing(network: str, netfilter: socket) -> tuple[messages.Template, bool]:
    """The template of a network that stands, made or healed if need be, and whether it was not there."""
    template = messages.load(network)
    if template is not None:
        ailing = health.ailments(template, netfilter)
        if not ailing:
            return template, False
        if ailing == ["forwarding"]:  # the first one after a pause
            from pyrun.network import forwarding

            if forwarding.resume(template, netfilter):
                return template, False
    from pyrun.network import bridge

    return bridge.ensure(network), template is None


def _note_network(had: Claimed, wanted: Endpoint, template: messages.Template, *, missing: bool) -> None:
    endpoint.check(wanted, template)
    had.templates[wanted.network] = template
    if missing:
        had.missing.append(template)


def _look_for_room() -> None:
    """Asked for every 128th address of a network: do the host's tables, which all containers share, get full?"""
    from pyrun.network import host

    with host.locked():
        host.make_room()


def name_directory() -> None:
    """/run/netns as `ip netns` expects it, made on first use."""
    if not netns.directory_ready():
        from pyrun.network import host

        with host.locked():
            host.make_netns_directory()


# ── look ───────────────────────────────────────────────────────────────────────────────────────────


def look(request: Request, had: Claimed) -> None:
    """What `claim` would give, into *had*. Raises as that."""
    wanted = bridged(request)
    if not wanted:
        return
    netfilter = had.netfilter = messages.opened(messages.NETLINK_NETFILTER)
    for each in wanted:
        template = messages.load(each.network)
        _note_network(had, each, template or _proposed(each.network), missing=template is None)
    names = requests.interface_names(wanted)
    had.wires = [
        endpoint.look(each, had.templates[each.network], request.id, number, names[number])
        for number, each in enumerate(wanted)
    ]
    had.ports = publication.settled(request.ports, had.wires)
    had.shut = publication.closed(had.ports, netfilter, through_firewall=request.through_firewall)
    ports.refuse_taken(had.ports)


def _proposed(network: str) -> messages.Template:
    from pyrun.network import bridge

    return bridge.proposal(network)


# ── plan ───────────────────────────────────────────────────────────────────────────────────────────


def plan(request: Request, had: Claimed) -> NetworkPlan:
    """Everything but what the drivers add."""
    if not had.wires:
        return _named_only(request, had)
    wires, planned = had.wires, NetworkPlan(had)
    planned.no_ipv6 = _silent(wires) if not had.on_cards and not request.early else []
    planned.before = [*map(_made, had.missing), *_reserved(wires, had.ports)]
    planned.outside = _connecting(request.name, had, planned.no_ipv6)
    planned.undo = undo(request.id, request.name, had.templates, wires, had.ports, had.owner)
    first = endpoint.first_for(wires, False) or endpoint.first_for(wires, True) or wires[0]
    planned.tell_of(first)
    planned.resolv = resolver.at(first.gateway or first.gateway6, request.dns)
    return planned


def _named_only(request: Request, had: Claimed) -> NetworkPlan:
    """The plan of a container without any interface of a bridge: its name in /run/netns."""
    planned = NetworkPlan(had)
    planned.outside = [Operation("NETNS_NAME", netns.path(request.name), had.owner)]
    planned.undo = [live_undo.undo_line(request.id), *netns.undo(request.name, had.owner)]
    planned.resolv = resolver.chosen(request.dns, resolver.reachable(fall_back=False))
    return planned


def _silent(wires: list[Wire]) -> list[str]:
    """The interfaces for which init switches IPv6 off. None where some have it: then it is the planner's to do, as
    where init first waits for its identity."""
    return [] if any(wire.address6 for wire in wires) else [wire.ifname for wire in wires]


def _connecting(name: str, had: Claimed, no_ipv6: list[str]) -> list[Operation]:
    """Everything that is done once there is a namespace, in order."""
    wires = had.wires
    default, default6 = (endpoint.first_for(wires, six) for six in (False, True))
    return [
        Operation("NETNS_NAME", netns.path(name), had.owner),
        Operation("NETNS_ENTER", *([attach.BY_INIT] if no_ipv6 else [])),
        Operation("LINK_UP", "lo"),
        *[each for wire in wires for each in endpoint.operations(wire, name, default, default6)],
        *publication.operations(wires, had.ports, default or default6 or wires[0], had.shut),
        *[each for wire in wires for each in endpoint.announcement(wire)],
        *[Operation("RESOLVER", wire.network, wire.gateway or wire.gateway6) for wire in wires],
    ]


def _reserved(wires: list[Wire], published: list[ports.Port]) -> list[Operation]:
    leased = [Operation("LEASE", address, wire.network) for wire in wires for address in wire.addresses()]
    return leased + [Operation("PORT", host, number, protocol) for host, number, _, protocol in published]


def _made(template: messages.Template) -> Operation:
    address, prefix = (template["gateway"], template["prefix"])
    if not address:
        address, prefix = (template["gateway6"], template["prefix6"])
    return Operation("NETWORK", template["bridge"], address, int(prefix))


def undo(
    identifier: str,
    name: str,
    templates: dict[str, messages.Template],
    wires: list[Wire],
    published: list[ports.Port],
    owner: str,
) -> list[str]:
    """The network's part of the undo list: the links go down, what came later is undone, then link by link, the name.

    Down before all else: with `--network container:` somebody else may be sending on, whom no egress policy holds once
    the container's own is gone.
    """
    downs, lines = list[str](), [live_undo.undo_line(identifier)]
    template = templates[wires[0].network]
    lines += publication.withdrawal(template, published, publication.targets(wires), owner)
    for wire in wires:
        down, *rest = endpoint.undo(wire, templates[wire.network], owner)
        downs.append(down)
        lines += [*(endpoint.forget_flows(wire, template, owner) if published else []), *rest]
    return [*downs, *lines, *netns.undo(name, owner)]
