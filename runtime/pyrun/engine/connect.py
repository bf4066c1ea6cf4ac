"""`pyrun network connect | disconnect`: an interface more, or one less, for a container that runs.

The same steps as at a start (network/endpoint.py), for one interface; what is to be undone at the container's end is
written first (network/later.py). The default route follows: it goes by the network of the highest priority, then the
first in the container's order.
"""

from __future__ import annotations

from _socket import socket

from pyrun import undo
from pyrun.engine import connected, name_files, policy
from pyrun.errors import Conflict, NotFound, PyrunError, UsageError
from pyrun.network import attach, claims, default_route, disconnecting, endpoint, messages, requests, wiring
from pyrun.network import later as later_changes
from pyrun.network.publishing import publication
from pyrun.plan.operations import Operation
from pyrun.stages import network as stage
from pyrun.store import state

Options = dict[str, object]


def connect(network: str, reference: str, options: Options) -> str:
    """Connect the container; returns its id.

    Raises: NotFound, Conflict (it is on that network, an address is held), UsageError, NetworkError, StageFailed.
    """
    identifier = state.resolve(reference)
    _running(identifier, reference)
    wanted = _wanted(network, options)
    with later_changes.locked(identifier):
        container = _running(identifier, reference)
        wires = connected.wires_of(container)
        disconnecting.forget_unnoted(identifier, wires)
        if any(wire["network"] == network for wire in wires):
            raise Conflict(
                f"container {reference} is on network {network} already",
                "to change its settings: `pyrun network disconnect`, then connect",
            )
        number, inside = connected.place(wires, wanted, identifier)
        if _beside_a_card(wanted):
            _connect_to_card(container, wanted, wires, inside)
            return identifier
        netfilter = messages.opened(messages.NETLINK_NETFILTER)
        template, _ = stage.standing(network, netfilter, dry_run=False)
        endpoint.check(wanted, template)
        wire, lines = _claimed(container, wanted, template, number, inside)
        try:
            _refuse_to_turn_ports(container, reference, wires, wire)
            _perform(container, wires, wire, template, netfilter, lines)
            connected.note(container, [*wires, wire])
        except BaseException:
            disconnecting.take_off(identifier, wire, template, lines)
            raise
        finally:
            netfilter.close()
        name_files.follow(identifier)
    return identifier


def _perform(
    container: dict[str, object], wires: list[endpoint.Wire], wire: endpoint.Wire,
    template: messages.Template, netfilter: socket, lines: list[str],
) -> None:  # fmt: skip
    """Make the interface. lines: its undo lines, noted first; those of --net-rate and --net-fault are added."""
    identifier = str(container["id"])
    link = connected.attached(container, {str(wire["network"]): template}, netfilter)
    try:
        slowed, undone = _slowed(container, wire)
        lines += undone
        later_changes.append(identifier, lines)
        covered = policy.extend(identifier, wire)
        endpoint.perform(link, [*_connecting(wire, str(container["name"]), covered), *slowed])
        default_route.turn(link, wires, [*wires, wire])
    finally:
        link.close()


def _connecting(wire: endpoint.Wire, name: str, covered: list[Operation]) -> list[Operation]:
    made, *others = endpoint.operations(wire, name, None, None)
    return [
        Operation("NETNS_ENTER"),
        made,
        *covered,
        *others,
        Operation("COMMIT", 1),
        *endpoint.announcement(wire),
        Operation("RESOLVER", wire["network"], wire["gateway"] or wire["gateway6"]),
    ]


def _take_back(identifier: str, undone: list[str], noted: list[str]) -> list[str]:
    """Execute undo lines now, and note them no longer; returns what failed."""
    complaints = undo.replay_lines(undone)
    if not complaints:
        later_changes.drop(identifier, noted)
    return complaints


def _slowed(container: dict[str, object], wire: endpoint.Wire) -> tuple[list[Operation], list[str]]:
    """--net-rate and --net-fault of the start for one link more: operations and undo lines."""
    if not (container.get("net_rate") or container.get("net_fault")):
        return [], []
    from pyrun.network import shaping

    attach.PERFORM.update(shaping.PERFORM)
    return shaping.plan(container, [wire])


def disconnect(network: str, reference: str, *, force: bool = False) -> str:
    """Take the container off the network; returns its id.

    Raises: NotFound, Conflict (published ports lead there), PyrunError.
    """
    identifier = state.resolve(reference)
    _running(identifier, reference)
    with later_changes.locked(identifier):
        container = _running(identifier, reference)
        wires = connected.wires_of(container)
        disconnecting.forget_unnoted(identifier, wires)
        leaving = [wire for wire in wires if wire["network"] == network]
        if not leaving:
            if force:
                return identifier
            raise NotFound(
                f"container {reference} is not on network {network}", "`pyrun network inspect` shows who is"
            )
        publication.refuse_to_lose(identifier, reference, leaving[0])
        staying = [wire for wire in wires if wire["network"] != network]
        _take_off(container, leaving[0])
        default_route.turn_of(connected.pid_of(container), wires, staying)
        if any(wire.get("driver") for wire in staying):
            _keep_names(container, staying)
        later_changes.change_record(identifier, lambda record: connected.change(record, staying))
        name_files.follow(identifier)
    return identifier


def _keep_names(container: dict[str, object], staying: list[endpoint.Wire]) -> None:
    """Who is on cards alone from now on asks for names inside."""
    from pyrun.network import drivers
    from pyrun.network.drivers import naming

    identifier = str(container["id"])
    if not naming.needed(staying):
        return
    drivers.register()
    link = connected.attached(container, {}, None)
    try:
        later_changes.append(identifier, naming.undo(identifier, staying))
        told = naming.operations(identifier, str(container["name"]), staying, container.get("dns"))
        endpoint.perform(link, told)
    finally:
        link.close()
    if not state.process_alive(container):  # its undo list may have been executed before our line was in it
        naming.forget(identifier)


def _wanted(network: str, options: Options) -> endpoint.Wanted:
    requests.check_name(network, "network connect")
    if network in requests.RESERVED:
        raise UsageError(
            f"network connect: {network} is no network one can be connected to",
            "`pyrun network ls` lists networks; host and none are chosen at the start: pyrun run --network",
        )
    words = [f"gw-priority={options['gw_priority'] or 0}"]
    if options["ifname"]:
        words.append(f"ifname={options['ifname']}")
    spelled = {**options, "network": [f"{network}:{','.join(words)}"]}
    return requests.parse(spelled, network)[2][0]


def _running(identifier: str, reference: str) -> dict[str, object]:
    connected.refuse_a_user()
    container = state.load(identifier)
    if state.status(container) == "exited":
        raise Conflict(
            f"container {reference} does not run", "networks are chosen at the start: pyrun run --network"
        )
    mode = connected.mode_of(container, reference)
    if mode not in ("bridge", "none"):
        raise Conflict(
            f"container {reference} has --network={mode}: the namespace is not its own",
            "start it anew on the networks it needs: pyrun run --network",
        )
    return container


def _claimed(
    container: dict[str, object],
    wanted: endpoint.Wanted,
    template: messages.Template,
    number: int,
    inside: str,
) -> tuple[endpoint.Wire, list[str]]:
    """The interface, its addresses claimed, and its undo lines."""
    identifier, name = str(container["id"]), str(container["name"])
    owner = claims.owner(identifier)
    link = messages.host_link(identifier, number)
    record = claims.write_record(
        owner, endpoint.lines(wanted, name, str(container["hostname"]), link, inside, _dns(container))
    )
    taken: list[str] = []
    try:
        wire = endpoint.claim(wanted, template, identifier, number, inside, record, taken)
    except FileNotFoundError:
        raise NotFound(
            f"network {wanted['network']} was removed meanwhile", "`pyrun network ls` lists those there are"
        ) from None
    except BaseException:
        endpoint.release(taken, owner)
        raise
    finally:
        claims.forget(record)
    return wire, endpoint.undo(wire, template, owner)


def _dns(container: dict[str, object]) -> list[str]:
    given = container.get("dns")
    return [str(server) for server in given] if isinstance(given, list) else []


def _refuse_to_turn_ports(
    container: dict[str, object], reference: str, wires: list[endpoint.Wire], wire: endpoint.Wire
) -> None:
    """Published ports lead to the interface with the default route, by which is answered: both would have to move."""
    for key in ("gateway", "gateway6"):
        former = endpoint.first_for(wires, key)
        if former is not None and endpoint.first_for([*wires, wire], key) is wire:
            publication.refuse_to_lose(str(container["id"]), reference, former)


def _beside_a_card(wanted: endpoint.Wanted) -> bool:
    return wiring.beside_a_card({"endpoints": [wanted]})


def _connect_to_card(
    container: dict[str, object], wanted: endpoint.Wanted, wires: list[endpoint.Wire], inside: str
) -> None:
    """The same for a network whose driver is macvlan or ipvlan."""
    from pyrun.network.drivers import connecting

    identifier = str(container["id"])
    policy.refuse(identifier, str(container["name"]), str(wanted["network"]))
    wire, lines, todo = connecting.planned(container, wanted, wires, inside)
    link: attach.Attachment | None = None
    try:
        link = connected.attached(container, {}, None)
        later_changes.append(identifier, lines)
        endpoint.perform(link, todo)
        connected.note(container, [*wires, wire])
    except BaseException:
        if link:
            connecting.delete_inside(link, inside)
        _take_back(identifier, lines, lines)
        raise
    finally:
        if link:
            link.close()
    name_files.follow(identifier)
    if container.get("net_rate") or container.get("net_fault"):
        from pyrun.network import shaping

        shaping.say_without(container, [wire])


def _take_off(container: dict[str, object], wire: endpoint.Wire) -> None:
    """Link, what it might send, and addresses: the undo lines of the interface, and the link deleted at once."""
    if wire.get("driver"):
        _take_off_card(container, wire)
        return
    network = str(wire["network"])
    template = messages.load(network)
    if template is None:
        raise NotFound(f"network {network} is not built", "`pyrun network reload` builds it")
    identifier = str(container["id"])
    held = disconnecting.held(identifier, wire)
    lines = [*disconnecting.undo_as_held(held, template), *_slowed(container, wire)[1]]
    _complain(disconnecting.take_off(identifier, held, template, lines))


def _take_off_card(container: dict[str, object], wire: endpoint.Wire) -> None:
    from pyrun.network.drivers import connecting

    link = attach.Attachment({}, connected.pid_of(container), None)
    try:
        connecting.delete_inside(link, str(wire["ifname"]))
    finally:
        link.close()
    lines = connecting.removal(wire)
    _complain(_take_back(str(container["id"]), lines, lines))


def _complain(complaints: list[str]) -> None:
    if complaints:
        raise PyrunError(f"network disconnect: {complaints[0]}")
