"""Stage network: the container's own network, and its name in /run/netns.

The kernel gives a container an empty network namespace. This stage connects it from outside:

    check             the mode, the interfaces and the ports, pure
    plan              addresses, ports and the namespace's name are claimed here, each by a file made in one step
                      (network/claims.py); a network that is missing is made first. With "dry_run" nothing is touched
    outside           name, links, addresses, routes and published ports, once there is a namespace: network/attach.py

Modes: "bridge", with an interface for every entry of "endpoints" (network/requests.py has their keys), in that order;
"none": only the name in /run/netns; "host", "container", "ns": nothing at all, the namespace is somebody else's; "cni":
the plugins of network/drivers/cni.py. What an ordinary user may have instead is in network/user_mode/.
The undo list is complete when `plan` returns: links down, ports and flows, addresses, name. Next: stages/hooks.py.
"""

from __future__ import annotations

from _socket import socket

from pyrun import boot, notice
from pyrun.errors import UsageError
from pyrun.network import attach, claims, endpoint, health, messages, netns, requests, resolver, wiring
from pyrun.network.publishing import ports, publication, reservation
from pyrun.plan.operations import Operation

Request = dict[str, object]
NetworkPlan = dict[str, object]


def check(request: Request) -> None:
    """Raises: UsageError."""
    mode = str(request["mode"])
    if mode in requests.OF_A_USER and boot.rootless_uid() < 0:
        raise requests.of_ordinary_users(mode)
    if boot.rootless_uid() >= 0 and mode not in (*requests.ALONE, "container"):
        named = [str(wanted["network"]) for wanted in wiring.endpoints(request)]
        raise UsageError(
            f"--network={' '.join(named) or mode}: only root can connect a container to a network of the host",
            "an ordinary user has --network=pasta, slirp4netns, host, none or container:NAME",
        )
    if len(wiring.endpoints(request)) > messages.MOST_LINKS:
        raise UsageError(
            f"--network is given {len(wiring.endpoints(request))} times: {messages.MOST_LINKS} at most"
        )
    ports.check(_ports(request))
    if _shaped(request):
        from pyrun.network import shaping

        shaping.check(request)
    if request.get("egress") is not None:
        from pyrun.network.egress import start

        start.check(request)


def plan(request: Request) -> NetworkPlan:
    """Decide everything and claim what is scarce.

    Raises: NotFound (network), Conflict (port, address, namespace name), NetworkError, UsageError.
    """
    mode = str(request["mode"])
    if mode in (*requests.UNWIRED, *requests.OF_OTHERS) and request["ports"]:
        notice.say(f"published ports are ignored with --network {mode}")
    if mode in ("host", *requests.OF_OTHERS):
        return _result({"resolv": resolver.chosen(request, resolver.same_as_host())})
    if boot.rootless_uid() >= 0:
        return _of_a_user(request, mode)
    netns.refuse_foreign(str(request["name"]))
    planned = _wired(request, mode)
    if request.get("egress") is not None:
        from pyrun.network.egress import start

        planned = start.added(request, planned)
    if _shaped(request):
        from pyrun.network import shaping

        return shaping.added(request, planned)
    return planned


def _wired(request: Request, mode: str) -> NetworkPlan:
    if mode == "none":
        return _result(wiring.alone(request, claims.owner(str(request["id"]))))
    beside = mode == "cni" or wiring.beside_a_card(request)
    if any(wanted["mac"] for wanted in wiring.endpoints(request)):
        from pyrun.network import stations

        stations.refuse_taken(request)
    if beside:
        from pyrun.network import drivers

        return _result(drivers.plan(request, _bridged))
    return _bridged(request, alone=True)


def _shaped(request: Request) -> bool:
    return bool(request.get("net_rate") or request.get("net_fault"))


def outside(planned: NetworkPlan, pid: int) -> None:
    """Connect the network namespace of *pid*, which waits for it. Raises: StageFailed, Conflict."""
    todo = _operations(planned, "outside")
    if not todo:
        return
    if planned["program"]:
        from pyrun.network import user_mode

        user_mode.connect(todo, pid)
        return
    link = attach.Attachment(planned["templates"], pid, planned["netfilter"])  # type: ignore[arg-type]
    try:
        networks = [str(operation.args[0]) for operation in todo if operation.kind == "RESOLVER"]
        attach.tell_guard(link, networks, _to_hold(planned))
        endpoint.perform(link, todo)
    finally:
        link.close()


def _to_hold(planned: NetworkPlan) -> list[reservation.Held]:
    """The sockets of published ports that the guard has not been given yet."""
    leads: dict[bool, str] = planned["leads"]  # type: ignore[assignment]
    return publication.reserved(planned["ports"], leads) if leads else []  # type: ignore[arg-type]


def release(planned: NetworkPlan) -> None:
    """Give up what `plan` claimed, for a start that fails before its undo list is written."""
    endpoint.release(list(planned["claims"]), str(planned["owner"]))  # type: ignore[call-overload]


def _of_a_user(request: Request, mode: str) -> NetworkPlan:
    """Nothing is wired on the host, nor named in /run/netns, which is root's."""
    if mode == "none":
        return _result({"resolv": resolver.chosen(request, resolver.reachable(fall_back=False))})
    from pyrun.network import user_mode

    return _result(user_mode.plan(request))


def _bridged(request: Request, *, alone: bool = False) -> NetworkPlan:
    """alone: no other drivers' interfaces beside them."""
    dry_run = bool(request["dry_run"])
    reservation.let_go()
    netfilter = messages.opened(messages.NETLINK_NETFILTER)
    templates, made = _standing_all(request, netfilter, dry_run=dry_run)
    name, owner = str(request["name"]), claims.owner(str(request["id"]))
    taken: list[str] = []
    try:
        wires = wiring.claimed(request, templates, owner, taken)
        published = publication.settled(_ports(request), wires)
        through = bool(request.get("through_firewall"))
        shut = publication.closed(published, netfilter, through_firewall=through)
        if dry_run:
            ports.refuse_taken(published)
        elif published:
            publication.claim(published, wires, name, owner, taken, through_firewall=through)
        leads = _reserving(published, wires, dry_run=dry_run)
    except BaseException:
        endpoint.release(taken, owner)
        raise
    silent = _silent(request, wires) if alone else []
    return _result(
        {
            "owner": owner,
            "claims": taken,
            "before": made + _reserved(wires, published),
            "outside": _connecting(name, owner, wires, published, shut, silent),
            "no_ipv6": silent,
            "undo": wiring.undo(request, templates, wires, published, owner),
            "wires": wires,
            "ports": published,
            "leads": leads,
            "templates": templates,
            # Kept open until the planner becomes the monitor: closing may wait for deletions of others.
            "netfilter": netfilter,
            **_told_of_first(request, wires, templates),
        }
    )


def _reserving(published: list[ports.Port], wires: list[endpoint.Wire], *, dry_run: bool) -> dict[bool, str]:
    """Where published ports lead that the guard is to be given once there is a namespace; of many it has them now."""
    if not published or dry_run:
        return {}
    leads = publication.targets(wires)
    if len(published) <= reservation.HELD_AT_ONCE:
        return leads
    publication.reserve(published, leads)
    return {}


def _silent(request: Request, wires: list[endpoint.Wire]) -> list[str]:
    """The interfaces for which init switches IPv6 off. None where some have it or init first waits for its identity:
    then it is the planner's to do."""
    if request.get("early") or any(wire["address6"] for wire in wires):
        return []
    return [str(wire["ifname"]) for wire in wires]


def _standing_all(
    request: Request, netfilter: socket, *, dry_run: bool
) -> tuple[dict[str, messages.Template], list[Operation]]:
    """The template of each network asked for, and the operations of those that are missing."""
    templates: dict[str, messages.Template] = {}
    made: list[Operation] = []
    for wanted in wiring.endpoints(request):
        template, missing = standing(str(wanted["network"]), netfilter, dry_run=dry_run)
        endpoint.check(wanted, template)
        templates[str(wanted["network"])] = template
        made += [_made(template)] if missing else []
    return templates, made


def _connecting(
    name: str,
    owner: str,
    wires: list[endpoint.Wire],
    published: list[ports.Port],
    shut: list[publication.Closed] | None,
    no_ipv6: list[str],
) -> list[Operation]:
    """Everything that is done once there is a namespace, in order."""
    default, default6 = (endpoint.first_for(wires, key) for key in ("gateway", "gateway6"))
    return [
        Operation("NETNS_NAME", netns.path(name), owner),
        Operation("NETNS_ENTER", *([attach.BY_INIT] if no_ipv6 else [])),
        Operation("LINK_UP", "lo"),
        *[each for wire in wires for each in endpoint.operations(wire, name, default, default6)],
        *publication.operations(wires, published, default or default6 or wires[0], shut),
        *[each for wire in wires for each in endpoint.announcement(wire)],
        *[Operation("RESOLVER", wire["network"], wire["gateway"] or wire["gateway6"]) for wire in wires],
    ]


def _told_of_first(
    request: Request, wires: list[endpoint.Wire], templates: dict[str, messages.Template]
) -> NetworkPlan:
    """What the rest of a start wants to know: of the interface with the default route, else of the first one."""
    first = endpoint.first_for(wires, "gateway") or endpoint.first_for(wires, "gateway6") or wires[0]
    return {
        **{key: first[key] for key in ("address", "address6", "gateway", "prefix", "mac")},
        "mtu": int(templates[str(first["network"])]["mtu"]),
        "resolv": resolver.at(str(first["gateway"] or first["gateway6"]), request),
    }


def standing(network: str, netfilter: socket, *, dry_run: bool) -> tuple[messages.Template, bool]:
    """The template of a network that stands, made or healed if need be, and whether it was not there."""
    template = messages.load(network)
    if template is not None and (dry_run or not health.ailments(template, netfilter)):
        return template, False
    from pyrun.network import bridge

    missing = template is None
    return (bridge.proposal(network) if dry_run else bridge.ensure(network)), missing


def _reserved(wires: list[endpoint.Wire], published: list[ports.Port]) -> list[Operation]:
    leased = [
        Operation("LEASE", wire[key], wire["network"])
        for wire in wires
        for key in ("address", "address6")
        if wire[key]
    ]
    return leased + [Operation("PORT", host, number, protocol) for host, number, _, protocol in published]


def _made(template: messages.Template) -> Operation:
    address, prefix = (template["gateway"], template["prefix"])
    if not address:
        address, prefix = (template["gateway6"], template["prefix6"])
    return Operation("NETWORK", template["bridge"], address, int(prefix))


def _ports(request: Request) -> list[ports.Port]:
    return list(request["ports"])  # type: ignore[call-overload, no-any-return]


def _operations(planned: NetworkPlan, key: str) -> list[Operation]:
    return list(planned[key])  # type: ignore[call-overload, no-any-return]


_NOTHING: NetworkPlan = {
    "owner": "", "claims": [], "before": [], "outside": [], "no_ipv6": [], "undo": [], "wires": [], "address": "",
    "address6": "", "gateway": "", "prefix": 0, "mac": "", "mtu": 0, "ports": [], "leads": {}, "resolv": [],
    "templates": {}, "netfilter": None, "program": "",
}  # fmt: skip


def _result(given: NetworkPlan) -> NetworkPlan:
    return {**_NOTHING, **given}
