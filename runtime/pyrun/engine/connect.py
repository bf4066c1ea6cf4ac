"""`pyrun network connect | disconnect`: an interface more, or one less, for a container that runs.

The same steps as at a start (network/endpoint.py), for one interface; what is to be undone at the container's end is
written first (network/live_undo.py). The default route follows: it goes by the network of the highest priority, then
the first in the container's order.
"""

from __future__ import annotations

from _socket import socket

from pyrun import undo
from pyrun.engine import connected, name_files, policy
from pyrun.errors import Conflict, NotFound, PyrunError, UsageError
from pyrun.network import attach, claims, default_route, disconnecting, endpoint, messages, requests, wiring
from pyrun.network import live_undo as later_changes
from pyrun.network.publishing import publication
from pyrun.plan.operations import Operation
from pyrun.store import state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options
    from pyrun.store.record import Record


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
        if any(wire.network == network for wire in wires):
            raise Conflict(
                f"container {reference} is on network {network} already",
                "to change its settings: `pyrun network disconnect`, then connect",
            )
        number, inside = connected.place(wires, wanted, identifier)
        if wiring.beside_a_card([wanted]):
            _connect_to_card(container, wanted, wires, inside)
            return identifier
        netfilter = messages.opened(messages.NETLINK_NETFILTER)
        template, _ = wiring.standing(network, netfilter)
        endpoint.check(wanted, template)
        wire, lines = _claimed(connected.request_of(container), wanted, template, number, inside)
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
    container: Record, wires: list[endpoint.Wire], wire: endpoint.Wire,
    template: messages.Template, netfilter: socket, lines: list[str],
) -> None:  # fmt: skip
    """Make the interface. lines: its undo lines, noted first; those of --net-rate and --net-fault are added."""
    identifier = str(container["id"])
    link = connected.attached(container, {wire.network: template}, netfilter)
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
        Operation("RESOLVER", wire.network, wire.gateway or wire.gateway6),
    ]


def _take_back(identifier: str, undone: list[str], noted: list[str]) -> list[str]:
    """Execute undo lines now, and note them no longer; returns what failed."""
    complaints = undo.replay_lines(undone)
    if not complaints:
        later_changes.drop(identifier, noted)
    return complaints


def _slowed(container: Record, wire: endpoint.Wire) -> tuple[list[Operation], list[str]]:
    """--net-rate and --net-fault of the start for one link more: operations and undo lines."""
    request = connected.request_of(container)
    if not (request.net_rate or request.net_fault):
        return [], []
    from pyrun.network import shaping

    return shaping.plan(request.net_rate, request.net_fault, [wire])


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
        leaving = [wire for wire in wires if wire.network == network]
        if not leaving:
            if force:
                return identifier
            raise NotFound(
                f"container {reference} is not on network {network}", "`pyrun network inspect` shows who is"
            )
        publication.refuse_to_lose(identifier, reference, leaving[0])
        staying = [wire for wire in wires if wire.network != network]
        _take_off(container, leaving[0])
        default_route.turn_of(connected.pid_of(container), wires, staying)
        if any(wire.driver for wire in staying):
            _keep_names(container, staying)
        later_changes.change_record(identifier, lambda record: connected.change(record, staying))
        name_files.follow(identifier)
    return identifier


def _keep_names(container: Record, staying: list[endpoint.Wire]) -> None:
    """Who is on cards alone from now on asks for names inside."""
    from pyrun.network.drivers import naming

    identifier = str(container["id"])
    if not naming.needed(staying):
        return
    link = connected.attached(container, {}, None)
    try:
        later_changes.append(identifier, naming.undo(identifier, staying))
        asks = bool(connected.dns_of(container).servers)
        told = naming.operations(identifier, str(container["name"]), staying, asks=asks)
        endpoint.perform(link, told)
    finally:
        link.close()
    if not state.process_alive(container):  # its undo list may have been executed before our line was in it
        naming.forget(identifier)


def _wanted(network: str, options: Options) -> requests.Endpoint:
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


def _running(identifier: str, reference: str) -> Record:
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
    request: requests.Request,
    wanted: requests.Endpoint,
    template: messages.Template,
    number: int,
    inside: str,
) -> tuple[endpoint.Wire, list[str]]:
    """The interface, its addresses claimed, and its undo lines."""
    identifier, owner = request.id, claims.owner(request.id)
    link = messages.host_link(identifier, number)
    told = endpoint.lines(wanted, request.name, request.hostname, link, inside, request.dns.servers)
    record = claims.write_record(owner, told)
    taken: list[str] = []
    try:
        wire = endpoint.claim(wanted, template, identifier, number, inside, record, taken)
    except FileNotFoundError:
        raise NotFound(
            f"network {wanted.network} was removed meanwhile", "`pyrun network ls` lists those there are"
        ) from None
    except BaseException:
        endpoint.release(taken, owner)
        raise
    finally:
        claims.forget(record)
    return wire, endpoint.undo(wire, template, owner)


def _refuse_to_turn_ports(
    container: Record, reference: str, wires: list[endpoint.Wire], wire: endpoint.Wire
) -> None:
    """Published ports lead to the interface with the default route, by which is answered: both would have to move."""
    for six in (False, True):
        former = endpoint.first_for(wires, six)
        if former is not None and endpoint.first_for([*wires, wire], six) is wire:
            publication.refuse_to_lose(str(container["id"]), reference, former)


def _connect_to_card(
    container: Record, wanted: requests.Endpoint, wires: list[endpoint.Wire], inside: str
) -> None:
    """The same for a network whose driver is macvlan or ipvlan."""
    from pyrun.network.drivers import connecting

    identifier, request = str(container["id"]), connected.request_of(container)
    policy.refuse(identifier, request.name, wanted.network)
    wire, lines, todo = connecting.planned(request, wanted, wires, inside)
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
    if request.net_rate or request.net_fault:
        from pyrun.network import shaping

        shaping.say_without(request.net_rate, request.net_fault, [wire])


def _take_off(container: Record, wire: endpoint.Wire) -> None:
    """Link, what it might send, and addresses: the undo lines of the interface, and the link deleted at once."""
    if wire.driver:
        _take_off_card(container, wire)
        return
    network = wire.network
    template = messages.load(network)
    if template is None:
        raise NotFound(f"network {network} is not built", "`pyrun network reload` builds it")
    identifier = str(container["id"])
    held = disconnecting.held(identifier, wire)
    lines = [*disconnecting.undo_as_held(held, template), *_slowed(container, wire)[1]]
    _complain(disconnecting.take_off(identifier, held, template, lines))


def _take_off_card(container: Record, wire: endpoint.Wire) -> None:
    from pyrun.network.drivers import connecting

    link = attach.Attachment({}, connected.pid_of(container), None)
    try:
        connecting.delete_inside(link, wire.ifname)
    finally:
        link.close()
    lines = connecting.removal(wire)
    _complain(_take_back(str(container["id"]), lines, lines))


def _complain(complaints: list[str]) -> None:
    if complaints:
        raise PyrunError(f"network disconnect: {complaints[0]}")
