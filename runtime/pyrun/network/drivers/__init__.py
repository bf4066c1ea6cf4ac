"""Ways to be wired other than a bridge of pyrun's own. Cold: all of it may use pyroute2.

    segment.py    the host's card a container goes beside: its bridge, subnets and gateway
    links.py      the messages and questions the drivers share
    macvlan.py    an interface with a MAC of its own on a card of the host; ipvlan.py  the same with the card's MAC
    l2.py         a veth into the bridge that already holds a card
    joined.py     the network namespace of another container, or one made by hand
    none_driver.py    no interface at all: a network of the driver none
    return_routes.py  which way answers go when a card has the default route
    driver_options.py      what `network create -o` asks for
    leasing.py    which addresses and which MAC it gets
    naming.py     names inside the namespace of a container that is on cards alone
    connecting.py what `network connect` needs
    cni.py        the plugins of a configuration in /etc/cni/net.d; cni_config.py  reading it

`claim`, `look` and `plan` are what stages/network.py calls when an endpoint has a driver: the bridged ones, if there
are any, are wired as ever, the others here, and both come together as one plan. A driver is a module with

    check(there, told)              whether this kernel and this card can do it. Raises UsageError, NetworkError
    settings(options, told)         what can be set of it, complete
    operations(wire, card)          what makes the interface inside; addresses and routes follow from here
    afterwards(wire, card)          what is done once it is up
    undo(wire)                      the lines that take back what is on the host
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pyrun import notice
from pyrun.errors import UsageError
from pyrun.network import endpoint, live_undo, records, requests, resolver, wiring
from pyrun.network.drivers import driver_options, leasing, links, naming, none_driver, return_routes, segment
from pyrun.network.endpoint import Wire
from pyrun.network.requests import Endpoint, Request
from pyrun.network.wiring import Claimed, NetworkPlan
from pyrun.plan.operations import Operation
from pyrun.safe import shell_word

ON_A_CARD = ("macvlan", "ipvlan", "l2")
# Options of a network that are no settings of its driver.
_NO_SETTINGS = ("parent", driver_options.MTU)


def module(driver: str) -> Any:
    """The module of *driver*."""
    return import_module(f"{__name__}.{driver}")


def recognize(wanted: list[Endpoint]) -> None:
    """Fill in driver and parent of endpoints whose network was created with another driver than bridge, and the name
    where an id was given. Raises UsageError."""
    for each in wanted:
        if not each.driver:
            each.network = records.named(each.network)
        network = records.definition(each.network) or records.Network()
        if network.driver in ON_A_CARD:
            each.driver, each.parent = network.driver, parent_of(network)
        elif network.driver == none_driver.DRIVER:
            each.driver = none_driver.DRIVER
    names = [each.network for each in wanted]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--network: {name} is given twice", "once for each network")


def parent_of(network: records.Network) -> str:
    """The card of a created network. Raises UsageError."""
    parent = str(network.parent or network.options.get("parent") or "")
    if not parent:
        raise UsageError(
            f"network {network.name}: the driver {network.driver} needs a card of the host",
            f"pyrun network create -d {shell_word(network.driver)} -o parent=eth0 ...",
        )
    return parent


def check_network(network: records.Network) -> None:
    """Whether a network that is being created can be had: its card, its options. Raises UsageError, NotFound."""
    told = f"network create -d {network.driver}"
    parent = parent_of(network)
    for option, given in (("--icc=false", not network.icc), ("--isolate", network.isolate)):
        if given:
            raise UsageError(
                f"{told}: {option} has no meaning: what the containers send goes out by {parent}, past all rules of "
                "pyrun",
                "it works on networks of the driver bridge",
            )
    module(network.driver).settings(_settings(network.options), told)
    _refuse_greater(segment.card(parent, told), network.mtu, told)


def _settings(options: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in options.items() if key not in _NO_SETTINGS}


def _refuse_greater(card: segment.Card, mtu: int, told: str) -> None:
    """Raises UsageError for an MTU that the card would not carry."""
    if mtu > card.mtu:
        raise UsageError(
            f"{told}: --mtu {mtu}: is more than the {card.mtu} of {card.name}",
            f"--mtu {card.mtu}; or a card that carries more: ip link set {shell_word(card.name)} mtu {mtu}",
        )


def claim(request: Request, had: Claimed) -> None:
    """Of a container with an endpoint that has a driver: addresses, ports and names. Raises UsageError, NotFound,
    Conflict, NetworkError."""
    ours = _placements(request)  # before anything is claimed
    wiring.claim(request, had)
    if _is_nowhere(request):
        none_driver.claim(request, had)
    for number, there in enumerate(ours):
        had.on_cards.append((addressed(request, there, number, had.owner, had.paths), there.card))


def look(request: Request, had: Claimed) -> None:
    """What `claim` would give. Raises as that."""
    ours = _placements(request)
    wiring.look(request, had)
    had.on_cards = [(leasing.look(request, there, number), there.card) for number, there in enumerate(ours)]


def plan(request: Request, had: Claimed) -> NetworkPlan:
    """The whole plan: the bridged interfaces as ever, and the others."""
    planned = wiring.plan(request, had)
    if not had.wires:
        planned.outside.append(Operation("CARD_UP", "lo"))
    if _is_nowhere(request):
        planned.undo += none_driver.undo(request, had)
    else:
        _add(request, planned)
    return planned


def _is_nowhere(request: Request) -> bool:
    return any(each.driver == none_driver.DRIVER for each in request.endpoints)


def _placements(request: Request) -> list[leasing.Placement]:
    """Of the endpoints on cards, after asking kernel, card and driver."""
    if _is_nowhere(request):
        none_driver.check(request)
        return []
    for each, name in zip(request.endpoints, requests.interface_names(request.endpoints), strict=True):
        each.ifname = name
    ours = [checked(each) for each in request.endpoints if each.driver]
    if request.ports and not wiring.bridged(request):
        notice.say(
            "published ports are ignored: the container has addresses of its own on the card's segment"
        )
    return ours


def checked(wanted: Endpoint) -> leasing.Placement:
    """The place of an endpoint on its card, after asking kernel, card and driver."""
    told = f"--network {wanted.network}"
    network = records.definition(wanted.network)
    if network:
        told += f" (a {wanted.driver} network on {wanted.parent})"
    driver = module(wanted.driver)
    settings = driver.settings(_settings({**(network.options if network else {}), **wanted.options}), told)
    card = segment.card(wanted.parent, told)
    if network:
        _refuse_greater(card, network.mtu, told)  # it may have changed since the network was created
    there = leasing.placed(wanted, card, network, told)
    there.settings = settings
    driver.check(there, told)
    return there


def addressed(request: Request, there: leasing.Placement, number: int, owner: str, taken: list[str]) -> Wire:
    """The wire of one endpoint, its addresses claimed. Raises: Conflict, NetworkError."""
    wire = leasing.claim(request, there, number, owner, taken)
    if not wire.addresses():
        notice.say(
            f"{wire.ifname} has no address: on the segment of {there.card.name} pyrun hands none out; give one with "
            f"--network {wire.network}:ip=..., or leave it to a DHCP client in the container"
        )
    return wire


def _add(request: Request, planned: NetworkPlan) -> None:
    """To the plan of the bridged interfaces the others, after them; one default route a family."""
    places, had = [each.ifname for each in request.endpoints], planned.claimed
    wires = [wire for wire, _ in had.on_cards]
    everything = sorted([*had.wires, *wires], key=lambda wire: places.index(wire.ifname))
    defaults = [endpoint.first_for(everything, six) for six in (False, True)]
    planned.outside = [each for each in planned.outside if not _overruled(each, defaults)]
    for wire, card in had.on_cards:
        planned.outside += complete(wire, card, [default is wire for default in defaults])
    planned.outside += return_routes.operations(everything)
    asks = bool(request.dns.servers)
    planned.outside += naming.operations(request.id, request.name, everything, asks=asks)
    undone = naming.undo(request.id, everything)
    for wire in wires:
        undone += [*module(wire.driver).undo(wire), *leasing.undo(wire, had.owner)]
        planned.before += [Operation("LEASE", address, wire.network) for address in wire.addresses()]
    planned.undo = live_undo.inserted(planned.undo, undone)
    if naming.needed(everything):
        planned.resolv = resolver.at(naming.INSIDE, request.dns)
    planned.wires = everything
    planned.tell_of(defaults[0] or defaults[1] or everything[0])


def complete(wire: Wire, card: segment.Card, defaults: list[bool]) -> list[Operation]:
    """Everything that makes one interface. defaults: whether it has the default route, of IPv4 and of IPv6."""
    driver = module(wire.driver)
    return [*driver.operations(wire, card), *links.dressing(wire, *defaults), *driver.afterwards(wire, card)]


def _overruled(operation: Operation, defaults: list[Wire | None]) -> bool:
    """Whether this is a default route of an interface that is not to have it."""
    for kind, default in zip(("ROUTE", "ROUTE6"), defaults, strict=True):
        if operation.kind == kind:
            return default is None or operation.args[1] != default.ifname
    return False
