"""Ways to be wired other than a bridge of pyrun's own. Cold: all of it may use pyroute2.

    segment.py    the host's card a container goes beside: its bridge, subnets and gateway
    links.py      the messages and questions the drivers share
    macvlan.py    an interface with a MAC of its own on a card of the host; ipvlan.py  the same with the card's MAC
    l2.py         a veth into the bridge that already holds a card
    joined.py     the network namespace of another container, or one made by hand
    nowhere.py    no interface at all: a network of the driver none
    answering.py  which way answers go when a card has the default route
    asked.py      what `network create -o` asks for
    leasing.py    which addresses and which MAC it gets
    naming.py     names inside the namespace of a container that is on cards alone
    connecting.py what `network connect` needs
    cni.py        the plugins of a configuration in /etc/cni/net.d; cni_config.py  reading it

`plan` is what stages/network.py calls when an endpoint has a driver: the bridged ones, if there are any, are planned
as ever, the others here, and both come together as one plan. A driver is a module with

    check(wanted, card, told)       whether this kernel and this card can do it. Raises UsageError, NetworkError
    settings(options, told)         what can be set of it, complete
    operations(wire, card)          what makes the interface inside; addresses and routes follow from here
    afterwards(wire, card)          what is done once it is up
    undo(wire)                      the lines that take back what is on the host
    PERFORM                         {kind: (function(link, *arguments), verb phrase of its error)}
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from pyrun import notice
from pyrun.errors import UsageError
from pyrun.network import attach, claims, endpoint, later, records, requests, resolver, wiring
from pyrun.network.drivers import answering, asked, leasing, links, naming, nowhere, segment
from pyrun.plan.operations import Operation

Request = dict[str, Any]
Plan = dict[str, Any]
Wire = dict[str, Any]

ON_A_CARD = ("macvlan", "ipvlan", "l2")
# Options of a network that are no settings of its driver.
_NO_SETTINGS = ("parent", asked.MTU)


def module(driver: str) -> Any:
    """The module of *driver*."""
    return import_module(f"{__name__}.{driver}")


def recognize(wanted: list[dict[str, Any]]) -> None:
    """Fill in driver and parent of endpoints whose network was created with another driver than bridge, and the name
    where an id was given. Raises UsageError."""
    for each in wanted:
        if not each["driver"]:
            each["network"] = records.named(str(each["network"]))
        network = records.definition(str(each["network"])) or records.DEFAULTS
        if network["driver"] in ON_A_CARD:
            each.update(driver=network["driver"], parent=parent_of(network))
        elif network["driver"] == nowhere.DRIVER:
            each["driver"] = nowhere.DRIVER
    names = [str(each["network"]) for each in wanted]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--network: {name} is given twice", "once for each network")


def parent_of(network: records.Network) -> str:
    """The card of a created network. Raises UsageError."""
    parent = str(network["parent"] or network["options"].get("parent") or "")
    if not parent:
        raise UsageError(
            f"network {network['name']}: the driver {network['driver']} needs a card of the host",
            f"pyrun network create -d {network['driver']} -o parent=eth0 ...",
        )
    return parent


def check_network(network: records.Network) -> None:
    """Whether a network that is being created can be had: its card, its options. Raises UsageError, NotFound."""
    told = f"network create -d {network['driver']}"
    parent = parent_of(network)
    for option, given in (("--icc=false", not network["icc"]), ("--isolate", network["isolate"])):
        if given:
            raise UsageError(
                f"{told}: {option} has no meaning: what the containers send goes out by {parent}, past all rules of "
                "pyrun",
                "it works on networks of the driver bridge",
            )
    module(str(network["driver"])).settings(_settings(network["options"]), told)
    _refuse_greater(segment.card(parent, told), int(network["mtu"]), told)


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in _NO_SETTINGS}


def _refuse_greater(card: segment.Card, mtu: int, told: str) -> None:
    """Raises UsageError for an MTU that the card would not carry."""
    if mtu > card.mtu:
        raise UsageError(
            f"{told}: --mtu {mtu}: is more than the {card.mtu} of {card.name}",
            f"--mtu {card.mtu}; or a card that carries more: ip link set {card.name} mtu {mtu}",
        )


def plan(request: Request, bridged: Callable[[Request], Plan]) -> Plan:
    """The whole plan of a container with `cni`, or with at least one endpoint that has a driver.

    bridged: plans the others (stages/network.py). Raises: UsageError, NotFound, Conflict, NetworkError.
    """
    register()
    if request["mode"] == "cni":
        return dict(module("cni").plan(request))
    if any(each["driver"] == nowhere.DRIVER for each in request["endpoints"]):
        nowhere.check(request)
        owner = claims.owner(str(request["id"]))
        return nowhere.joined(request, _alone(request, owner), owner)
    wanted = [dict(each) for each in request["endpoints"]]
    for each, name in zip(wanted, requests.interface_names(wanted), strict=True):
        each["ifname"] = name
    ours = [each for each in wanted if each["driver"]]
    cards = [checked(each) for each in ours]  # before anything is claimed
    others = [each for each in wanted if not each["driver"]]
    if request["ports"] and not others:
        notice.say(
            "published ports are ignored: the container has addresses of its own on the card's segment"
        )
    owner = claims.owner(str(request["id"]))
    planned = bridged({**request, "endpoints": others}) if others else _alone(request, owner)
    try:
        wires = _wires(request, ours, cards, owner, planned["claims"])
    except BaseException:
        endpoint.release(planned["claims"], owner)
        raise
    return _together(request, planned, wanted, wires, cards, owner)


def register() -> None:
    """Make the operations of the drivers known to what performs them."""
    for name in (*ON_A_CARD, "cni"):
        attach.PERFORM.update(module(name).PERFORM)
    attach.PERFORM.update(links.PERFORM | answering.PERFORM | naming.PERFORM)


def checked(wanted: dict[str, Any]) -> segment.Card:
    """The card of an endpoint, after asking kernel, card and driver; its options and subnets are noted in *wanted*."""
    told = f"--network {wanted['network']}"
    network = records.definition(str(wanted["network"])) or {}
    if network:
        told += f" (a {wanted['driver']} network on {wanted['parent']})"
    driver = module(str(wanted["driver"]))
    given = {**network.get("options", {}), **dict(wanted.get("options") or {})}
    wanted["options"] = driver.settings(_settings(given), told)
    wanted["mtu"] = int(network.get("mtu", 0))
    card = segment.card(str(wanted["parent"]), told)
    _refuse_greater(card, wanted["mtu"], told)  # it may have changed since the network was created
    leasing.check(wanted, card, network, told)
    driver.check(wanted, card, told)
    return card


def _alone(request: Request, owner: str) -> Plan:
    """The plan of a container without a bridged interface: its name in /run/netns, and its lo."""
    planned = wiring.alone(request, owner)
    return {**planned, "outside": [*planned["outside"], Operation("CARD_UP", "lo")]}


def _wires(
    request: Request, ours: list[dict[str, Any]], cards: list[segment.Card], owner: str, taken: list[str]
) -> list[Wire]:
    wires = []
    for number, (wanted, card) in enumerate(zip(ours, cards, strict=True)):
        wires.append(addressed(request, wanted, card, number, owner, taken))
    return wires


def addressed(
    request: Request, wanted: dict[str, Any], card: segment.Card, number: int, owner: str, taken: list[str]
) -> Wire:
    """The wire of one endpoint, its addresses claimed. Raises: Conflict, NetworkError."""
    wire = leasing.addressed(request, wanted, card, number, owner, taken)
    wire["options"], wire["mtu"] = wanted["options"], wanted["mtu"]
    if not (wire["address"] or wire["address6"] or request["dry_run"]):
        notice.say(
            f"{wire['ifname']} has no address: on the segment of {card.name} pyrun hands none out; give one with "
            f"--network {wanted['network']}:ip=..., or leave it to a DHCP client in the container"
        )
    return wire


def _together(
    request: Request, planned: Plan, wanted: list[dict[str, Any]], wires: list[Wire], cards: list[segment.Card],
    owner: str,
) -> Plan:  # fmt: skip
    """One plan: the bridged interfaces first, the others after them; one default route a family."""
    places = [str(each["ifname"]) for each in wanted]
    everything = sorted([*planned["wires"], *wires], key=lambda wire: places.index(str(wire["ifname"])))
    defaults = [endpoint.first_for(everything, key) for key in ("gateway", "gateway6")]
    kept = [each for each in planned["outside"] if not _overruled(each, defaults)]
    made = []
    for wire, card in zip(wires, cards, strict=True):
        made += complete(wire, card, [default is wire for default in defaults])
    made += answering.operations(everything)
    made += naming.operations(str(request["id"]), str(request["name"]), everything, request.get("dns"))
    undone = naming.undo(str(request["id"]), everything) + [
        line
        for wire in wires
        for line in [*module(str(wire["driver"])).undo(wire), *leasing.undo(wire, owner)]
    ]
    first = defaults[0] or defaults[1] or everything[0]
    return {
        **planned,
        "before": planned["before"] + [Operation("LEASE", wire[key], wire["network"])
                                       for wire in wires for key in ("address", "address6") if wire[key]],
        "outside": kept + made,
        "undo": later.inserted(planned["undo"], undone),
        "resolv": resolver.at(naming.INSIDE, request) if naming.needed(everything) else planned["resolv"],
        "wires": everything,
        **{key: first[key] for key in ("address", "address6", "gateway", "prefix", "mac")},
    }  # fmt: skip


def complete(wire: Wire, card: segment.Card, defaults: list[bool]) -> list[Operation]:
    """Everything that makes one interface. defaults: whether it has the default route, of IPv4 and of IPv6."""
    driver = module(str(wire["driver"]))
    return [*driver.operations(wire, card), *links.dressing(wire, *defaults), *driver.afterwards(wire, card)]


def _overruled(operation: Operation, defaults: list[Any]) -> bool:
    """Whether this is a default route of an interface that is not to have it."""
    for kind, default in zip(("ROUTE", "ROUTE6"), defaults, strict=True):
        if operation.kind == kind:
            return default is None or operation.args[1] != default["ifname"]
    return False
