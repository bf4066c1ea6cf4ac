"""All interfaces of one container at its start: claimed one by one, undone together.

Each of them is planned by endpoint.py; which networks they are in is in the request (requests.py). Used by
stages/network.py, and by drivers/ for what every container has; `network connect` adds a single interface
(engine/connect.py).
"""

from __future__ import annotations

from pyrun.network import claims, endpoint, later, messages, netns, requests, resolver
from pyrun.network.endpoint import Wanted, Wire
from pyrun.network.publishing import ports, publication
from pyrun.plan.operations import Operation
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

Request = dict[str, object]


def endpoints(request: Request) -> list[Wanted]:
    """What is asked of each interface, in order."""
    return list(request.get("endpoints") or ())  # type: ignore[call-overload, no-any-return]


def beside_a_card(request: Request) -> bool:
    """Whether one of them is no port of a bridge of ours: said so, or because its network was created so."""
    wanted = endpoints(request)
    if not all(each["driver"] or paths.exists(messages.path(str(each["network"]))) for each in wanted):
        from pyrun.network import drivers

        drivers.recognize(wanted)
    return any(each["driver"] for each in wanted)


def claimed(
    request: Request, templates: dict[str, messages.Template], owner: str, taken: list[str]
) -> list[Wire]:
    """Name and addresses: looked up for a dry run, claimed otherwise."""
    wanted, identifier = endpoints(request), str(request["id"])
    names = requests.interface_names(wanted)
    if request["dry_run"]:
        return [
            endpoint.look(each, templates[str(each["network"])], identifier, number, names[number])
            for number, each in enumerate(wanted)
        ]
    name_directory()
    wires = []
    for number, each in enumerate(wanted):
        link = messages.host_link(identifier, number)
        record = claims.write_record(
            owner, endpoint.lines(each, *_told(request), link, names[number], _dns(request))
        )
        try:
            if number == 0:
                netns.claim(str(request["name"]), record)
                taken.append(netns.claim_path(str(request["name"])))
            wires.append(_claim_one(each, templates, identifier, number, names[number], record, taken))
        finally:
            claims.forget(record)
    if any(str(wire["address"]).endswith((".0", ".128")) for wire in wires):
        _look_for_room()
    return wires


def alone(request: Request, owner: str) -> dict[str, Any]:
    """The plan of a container without any interface of a bridge: its name in /run/netns. Raises: Conflict."""
    name = str(request["name"])
    if not request["dry_run"]:
        name_directory()
        record = claims.write_record(owner, [f"name {name}"])
        try:
            netns.claim(name, record)
        finally:
            claims.forget(record)
    return {
        "owner": owner,
        "claims": [] if request["dry_run"] else [netns.claim_path(name)],
        "before": [],
        "outside": [Operation("NETNS_NAME", netns.path(name), owner)],
        "undo": [later.undo_line(str(request["id"])), *netns.undo(name, owner)],
        "wires": [],
        "resolv": resolver.chosen(request, resolver.reachable(fall_back=False)),
    }


def _look_for_room() -> None:
    """Asked for every 128th address of a network: do the host's tables, which all containers share, get full?"""
    from pyrun.network import host

    with host.locked():
        host.make_room()


def _claim_one(
    wanted: Wanted, templates: dict[str, messages.Template], identifier: str, number: int, inside: str,
    record: str, taken: list[str],
) -> Wire:  # fmt: skip
    network = str(wanted["network"])
    while True:
        try:
            return endpoint.claim(wanted, templates[network], identifier, number, inside, record, taken)
        except FileNotFoundError:
            # Somebody pruned the network a moment ago, or died while doing so.
            from pyrun.network import bridge

            templates[network] = bridge.ensure(network)


def _told(request: Request) -> tuple[str, str]:
    return str(request["name"]), str(request.get("hostname") or "")


def _dns(request: Request) -> list[str]:
    return [str(server) for server in request.get("dns") or ()]  # type: ignore[attr-defined]


def name_directory() -> None:
    """/run/netns as `ip netns` expects it, made on first use."""
    if not netns.directory_ready():
        from pyrun.network import host

        with host.locked():
            host.make_netns_directory()


def undo(
    request: Request,
    templates: dict[str, messages.Template],
    wires: list[Wire],
    published: list[ports.Port],
    owner: str,
) -> list[str]:
    """The network's part of the undo list: the links go down, what came later is undone, then link by link, the name.

    Down before all else: with `--network container:` somebody else may be sending on, whom no egress policy holds once
    the container's own is gone.
    """
    downs, lines = list[str](), [later.undo_line(str(request["id"]))]
    template = templates[str(wires[0]["network"])]
    lines += publication.withdrawal(template, published, publication.targets(wires), owner)
    for wire in wires:
        down, *rest = endpoint.undo(wire, templates[str(wire["network"])], owner)
        downs.append(down)
        lines += [*(endpoint.forget_flows(wire, template, owner) if published else []), *rest]
    return [*downs, *lines, *netns.undo(str(request["name"]), owner)]
