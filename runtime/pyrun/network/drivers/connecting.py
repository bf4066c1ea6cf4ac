"""An interface on a card, more or less, for a container that runs: what `network connect` and `disconnect` need.

What a start does (drivers/__init__.py), for one interface, in the namespace of a process. engine/connect.py holds the
container's lock meanwhile, writes the undo lines before anything is done, and notes what came of it.
"""

from __future__ import annotations

from pyrun.network import attach, claims, drivers, endpoint, messages
from pyrun.network.drivers import leasing, links, naming, none_driver, return_routes
from pyrun.network.endpoint import Wire
from pyrun.network.requests import Endpoint, Request
from pyrun.plan.operations import Operation


def planned(
    request: Request, wanted: Endpoint, wires: list[Wire], inside: str
) -> tuple[Wire, list[str], list[Operation]]:
    """The interface with its addresses claimed, its undo lines, and what makes it. Raises as a start does."""
    if wanted.driver == none_driver.DRIVER:
        raise none_driver.refuse_connection(wanted.network)
    wanted.ifname = inside
    there = drivers.checked(wanted)
    owner = claims.owner(request.id)
    used = {wire.link for wire in wires}
    number = next(
        n
        for n in range(messages.MOST_LINKS)
        if leasing.host_end(wanted.driver, request.id, n) not in used - {""}
    )
    taken: list[str] = []
    try:
        wire = drivers.addressed(request, there, number, owner, taken)
    except BaseException:
        endpoint.release(taken, owner)
        raise
    every = [*wires, wire]
    defaults = [endpoint.first_for(every, six) is wire for six in (False, True)]
    todo = [*drivers.complete(wire, there.card, defaults), *return_routes.operations(every)]
    todo += naming.operations(request.id, request.name, every, asks=bool(request.dns.servers))
    undone = naming.undo(request.id, every)
    return wire, [*undone, *drivers.module(wire.driver).undo(wire), *leasing.undo(wire, owner)], todo


def removal(wire: Wire) -> list[str]:
    """Undo lines that take it off now, but for the interface inside (`delete_inside`)."""
    owner = leasing.owner_of(wire)
    return [*drivers.module(wire.driver).undo(wire), *leasing.undo(wire, owner)]


def delete_inside(link: attach.Attachment, name: str) -> None:
    """Delete the container's interface. One that it renamed or deleted itself is left."""
    with links.told(f"delete {name}"), attach.inside_of(link), links.IPRoute() as route:
        for index in route.link_lookup(ifname=name):
            route.link("del", index=index)
