"""An interface on a card, more or less, for a container that runs: what `network connect` and `disconnect` need.

What a start does (drivers/__init__.py), for one interface, in the namespace of a process. engine/connect.py holds the
container's lock meanwhile, writes the undo lines before anything is done, and notes what came of it.
"""

from __future__ import annotations

from typing import Any

from pyrun.network import attach, claims, drivers, endpoint, messages
from pyrun.network.drivers import answering, leasing, links, naming, nowhere
from pyrun.plan.operations import Operation

Wire = dict[str, Any]


def planned(
    container: dict[str, Any], wanted: dict[str, Any], wires: list[Wire], inside: str
) -> tuple[Wire, list[str], list[Operation]]:
    """The interface with its addresses claimed, its undo lines, and what makes it. Raises as a start does."""
    if wanted["driver"] == nowhere.DRIVER:
        raise nowhere.refuse_connection(str(wanted["network"]))
    drivers.register()
    wanted["ifname"] = inside
    card = drivers.checked(wanted)
    request = {key: container[key] for key in ("id", "name", "hostname")} | {"dry_run": False}
    request["dns"] = container.get("dns")
    owner = claims.owner(str(container["id"]))
    used = {str(wire["link"]) for wire in wires}
    number = next(
        n
        for n in range(messages.MOST_LINKS)
        if leasing.host_end(str(wanted["driver"]), str(container["id"]), n) not in used - {""}
    )
    taken: list[str] = []
    try:
        wire = drivers.addressed(request, wanted, card, number, owner, taken)
    except BaseException:
        endpoint.release(taken, owner)
        raise
    defaults = [endpoint.first_for([*wires, wire], key) is wire for key in ("gateway", "gateway6")]
    todo = [*drivers.complete(wire, card, defaults), *answering.operations([*wires, wire])]
    named = str(container["id"]), str(container["name"])
    todo += naming.operations(*named, [*wires, wire], container.get("dns"))
    undone = naming.undo(str(container["id"]), [*wires, wire])
    return wire, [*undone, *drivers.module(str(wire["driver"])).undo(wire), *leasing.undo(wire, owner)], todo


def removal(wire: Wire) -> list[str]:
    """Undo lines that take it off now, but for the interface inside (`delete_inside`)."""
    owner = leasing.owner_of(wire)
    return [*drivers.module(str(wire["driver"])).undo(wire), *leasing.undo(wire, owner)]


def delete_inside(link: attach.Attachment, name: str) -> None:
    """Delete the container's interface. One that it renamed or deleted itself is left."""
    with links.told(f"delete {name}"), attach.inside_of(link), links.IPRoute() as route:
        for index in route.link_lookup(ifname=name):
            route.link("del", index=index)


def turn_default(link: attach.Attachment, wire: Wire, key: str) -> None:
    """Let a default route go by this interface. key: "gateway" or "gateway6"."""
    links.default_route(link, str(wire["ifname"]), str(wire[key]))
