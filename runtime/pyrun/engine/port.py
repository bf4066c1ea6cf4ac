"""`pyrun port | port add | port rm`: the published ports of a container, and a change of them while it runs.

    add   undo lines ─► claims, sockets for the guard ─► elements of the firewall, one transaction ─► the record
    rm    elements out, one transaction ─► flows that led here forgotten ─► the record ─► claims

Killed anywhere in between, all of it is taken back at the container's end; and the next `add` or `rm` of the same port
first takes back what was left half done: a claim of the container's that its record does not tell of.
The steps of publishing are those of a start (publication.py in network/publishing; there reach.py says from where a
port is reachable).
"""

from __future__ import annotations

from _socket import socket

from pyrun import boot, notice, undo
from pyrun.engine import connected, port_words
from pyrun.errors import Conflict, NotFound
from pyrun.network import attach, claims, endpoint, live_undo, messages, wiring
from pyrun.network.endpoint import Wire
from pyrun.network.publishing import option, ports, publication
from pyrun.plan.operations import Operation
from pyrun.safe import shell_word
from pyrun.store import state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.network.publishing.reach import Row
    from pyrun.store.record import Record


def ls(reference: str, private: str = "") -> list[ports.Port]:
    """The published ports of a container, those of a port of its own ("80", "53/udp") alone if that is given.

    Raises: NotFound.
    """
    container = state.load(state.resolve(reference))
    found = ports_of(container) if state.process_alive(container) else []
    published = sorted(found, key=lambda port: (port[2], port[3], ":" in port[0], port[0], port[1]))
    if not private:
        return published
    number, protocol = port_words.private(private)
    found = [port for port in published if port[2:] == (number, protocol)]
    if not found:
        raise NotFound(
            f"container {reference} publishes no port {number}/{protocol} of its own",
            f"`pyrun port {shell_word(reference)}` lists what it does",
        )
    return found


def reach(reference: str, published: list[ports.Port]) -> list[Row]:
    """From where each of a container's ports is reachable, see network/publishing/reach.py."""
    from pyrun.network.publishing import reach as reaching

    container = state.load(state.resolve(reference))
    pid = connected.pid_of(container) if state.process_alive(container) else 0
    return reaching.rows(published, _bridged(container), pid)


def say_shut(published: list[ports.Port]) -> None:
    """Tell which of the ports the host's firewall keeps from the outside; an ordinary user cannot know."""
    if boot.rootless_uid() >= 0 or not published:
        return
    from pyrun.network.publishing import shutting

    for line in shutting.told(published):
        notice.say(line)


def add(reference: str, words: list[str], *, through_firewall: bool = False) -> list[ports.Port]:
    """Publish more; words: as after -p. Returns what was published, with the ports chosen.

    Raises: NotFound, UsageError, Conflict (taken, not running), NetworkError, StageFailed.
    """
    wanted = [port for word in words for port in option.parsed(word)]
    ports.check(wanted)
    identifier = state.resolve(reference)
    with live_undo.locked(identifier):
        container = _running(identifier, reference)
        netfilter = messages.opened(messages.NETLINK_NETFILTER)
        try:
            wires, templates = _wires(container, reference, netfilter)
            _finish_half_done(container, templates, netfilter, wanted)
            return _publish(container, wires, templates, netfilter, wanted, through_firewall=through_firewall)
        finally:
            netfilter.close()


def rm(reference: str, words: list[str]) -> list[ports.Port]:
    """Publish these no longer; words: `8080`, `127.0.0.1:8080/udp`, `8000-8010`, `8080:80`. Returns what was withdrawn.

    Raises: NotFound, UsageError, StageFailed.
    """
    identifier = state.resolve(reference)
    with live_undo.locked(identifier):
        container = _running(identifier, reference)
        published = ports_of(container)
        leaving = [
            port for word in words for port in port_words.chosen(word, published, reference, identifier)
        ]
        netfilter = messages.opened(messages.NETLINK_NETFILTER)
        try:
            _, templates = _wires(container, reference, netfilter)
            _withdraw(container, next(iter(templates.values())), netfilter, list(dict.fromkeys(leaving)))
        finally:
            netfilter.close()
    return leaving


def ports_of(container: Record) -> list[ports.Port]:
    """What a container's record tells of published ports."""
    found = container.get("ports")
    return [tuple(port) for port in found] if isinstance(found, list) else []


def _running(identifier: str, reference: str) -> Record:
    container = state.load(identifier)
    if not state.process_alive(container):
        raise Conflict(
            f"container {reference} does not run", "its ports are chosen when it starts: pyrun run -p"
        )
    return container


def _wires(
    container: Record, reference: str, netfilter: socket
) -> tuple[list[Wire], dict[str, messages.Template]]:
    """Its interfaces on bridges, and the templates of the networks that published ports lead to; healed if need be."""
    wires = _bridged(container)
    leading = [wire for six in (False, True) if (wire := endpoint.first_for(wires, six))]
    if not leading:
        raise port_words.unchangeable(container, reference)
    names = dict.fromkeys(wire.network for wire in leading)
    return wires, {name: wiring.standing(name, netfilter)[0] for name in names}


def _bridged(container: Record) -> list[Wire]:
    """The interfaces that ports can be published from; those on a card have addresses of their own there."""
    return [wire for wire in connected.wires_of(container) if not wire.driver]


def _publish(
    container: Record,
    wires: list[Wire],
    templates: dict[str, messages.Template],
    netfilter: socket,
    wanted: list[ports.Port],
    *,
    through_firewall: bool,
) -> list[ports.Port]:
    identifier, template = str(container["id"]), next(iter(templates.values()))
    published = publication.settled(wanted, wires)
    shut = publication.closed(published, netfilter, through_firewall=through_firewall)
    owner, taken = claims.owner(identifier), list[str]()
    lines = publication.withdrawal(template, published, publication.targets(wires), owner)
    first = endpoint.first_for(wires, False) or endpoint.first_for(wires, True)
    assert first is not None
    live_undo.append(identifier, lines)
    try:
        publication.claim(
            published, wires, str(container["name"]), owner, taken, through_firewall=through_firewall
        )
        publication.reserve(published, publication.targets(wires))
        _perform(container, templates, netfilter, publication.operations(wires, published, first, shut))
        rows = [list(port) for port in published]
        live_undo.change_record(
            identifier, lambda record: record.update({"ports": [*map(list, ports_of(record)), *rows]})
        )
        if not state.process_alive(container):  # its undo list may have been executed before ours was in it
            raise NotFound(f"container {identifier[:12]} has ended")
    except BaseException:
        if taken:
            undo.replay_lines(lines)
        live_undo.drop(identifier, lines)
        raise
    return published


def _perform(
    container: Record,
    templates: dict[str, messages.Template],
    netfilter: socket,
    todo: list[Operation],
) -> None:
    link = attach.Attachment(templates, connected.pid_of(container), netfilter)
    link.outer = messages.opened(messages.NETLINK_ROUTE)
    try:
        endpoint.perform(link, todo)
    finally:
        link.close()


def _finish_half_done(
    container: Record, templates: dict[str, messages.Template], netfilter: socket, wanted: list[ports.Port]
) -> None:
    """Take back what an `add` or `rm` that was killed left of these ports."""
    known = {ports.path(port) for port in ports_of(container)}
    left = [
        port
        for asked in wanted
        for host in ([asked[0]] if asked[0] else [ports.ANY, ports.ANY6])
        if asked[1] and not isinstance(asked[1], ports.HostRange)
        for port in port_words.claimed(str(container["id"]), (host, asked[1], asked[2], asked[3]))
        if ports.path(port) not in known
    ]
    if left:
        _withdraw(container, next(iter(templates.values())), netfilter, left)


def _withdraw(
    container: Record, template: messages.Template, netfilter: socket, leaving: list[ports.Port]
) -> None:
    changes, forgotten, claimed = list[bytes](), list[str](), list[tuple[str, str]]()
    for port in leaving:
        path = ports.path(port)
        lines = claims.lines(path)
        if not lines or not lines[0].startswith(f"{container['id']} "):
            continue  # not ours any more: killed between the claim and the record
        claimed.append((path, lines[0]))
        leads = ports.leads(lines)
        if taken_back := publication.taking_back(template, port, leads):
            changes += taken_back
            forgotten.append(publication.flows_of(template, port, publication.target(port, leads)))
    if changes:
        messages.transact(netfilter, template, changes)
        for complaint in undo.replay_lines(forgotten):
            notice.say(complaint)
    gone = {ports.path(port) for port in leaving}
    live_undo.change_record(
        str(container["id"]),
        lambda record: record.update(
            {"ports": [list(port) for port in ports_of(record) if ports.path(port) not in gone]}
        ),
    )
    for path, owner in claimed:
        claims.release(path, owner)
    held = [f"{path}\t{owner}" for path, owner in claimed]
    live_undo.drop(
        str(container["id"]), [f"{verb}\t{each}" for verb in ("guard", "unlink-if") for each in held]
    )
