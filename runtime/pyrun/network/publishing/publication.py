"""Published ports of a container: which, where they lead, how they are published and taken back.

Between the words of `-p` (ports.py) and the elements of the firewall's maps (elements.py). Used by a start
(stages/network.py) and by `port add` alike.
"""

from __future__ import annotations

from _socket import inet_aton, socket
from _struct import pack

from pyrun import notice
from pyrun.errors import Conflict, NetworkError, UsageError
from pyrun.network import claims, elements, endpoint, messages
from pyrun.network.endpoint import Wire
from pyrun.network.publishing import choosing, host_firewall, ports, reservation
from pyrun.plan.operations import Operation
from pyrun.safe import shell_word
from pyrun.store import paths

# In the claims of ports that are published whatever the host's own firewall lets in.
THROUGH_FIREWALL = "through-firewall"

# (host address, port of the host, protocol)
Closed = tuple[str, int, str]


def targets(wires: list[Wire]) -> dict[bool, str]:
    """Where published ports lead: IPv6? -> the container's address."""
    found = {}
    for six in (False, True):
        wire = endpoint.first_for(wires, six)
        if wire:
            found[six] = wire.family(six)[0]
    return found


def settled(asked: list[ports.Port], wires: list[Wire]) -> list[ports.Port]:
    """The ports with every default filled in; one without an address is published for both families."""
    leads = targets(wires)
    if not asked:
        return []
    if not leads:
        notice.say("published ports are ignored: every network of the container is internal")
        return []
    both = [port if port[0] or False in leads else (ports.ANY6, *port[1:]) for port in asked]
    for port in both:
        # what goes to ::1 is relayed, to an address of either family
        if (":" in port[0]) not in leads and port[0] != ports.LOOPBACK6:
            kind = "IPv6" if ":" in port[0] else "IPv4"
            raise UsageError(
                f"-p {ports.spelled(port)}: the container has no {kind} address", "a network with --ipv6"
            )
        if port[0] == ports.LOOPBACK6 and port[3] != "tcp":
            raise UsageError(f"-p {ports.spelled(port)}: only TCP can be published on ::1", "127.0.0.1")
    return choosing.settle(both, six=True in leads)


def closed(published: list[ports.Port], netfilter: socket, *, through_firewall: bool) -> list[Closed] | None:
    """The ports that the host's own firewall would not let in: they are not opened to the outside, and it is said.

    None where there is no such firewall.
    """
    outside = host_firewall.outside(published)
    if not outside or not host_firewall.suspected(netfilter):
        return None
    reasons = {} if through_firewall else host_firewall.closed(outside)
    told = list(dict.fromkeys(map(_told, reasons)))
    if told:
        more = f" and {len(told) - 1} more" if len(told) > 1 else ""
        notice.say(
            f"port {told[0]}{more} is open to this host and its containers only: {next(iter(reasons.values()))}; "
            "allow it there and `pyrun network reload`, or --publish-through-firewall"
        )
    return [(host, number, protocol) for host, number, _, protocol in reasons]


def _told(port: ports.Port) -> str:
    """8080/tcp; of one address with that before it. Of all of them, it is the same for both families."""
    host, number, _, protocol = port
    return f"{number if host in (ports.ANY, ports.ANY6) else ports.place(port)}/{protocol}"


def claim(
    published: list[ports.Port],
    wires: list[Wire],
    name: str,
    owner: str,
    taken: list[str],
    *,
    through_firewall: bool = False,
) -> None:
    """Claim each port for the container; each claim made is added to *taken*. Raises: Conflict.

    That keeps other containers out. `reserve`, or what `reserved` gives, keeps out the host's own programs.
    """
    told = [f"name {name}", *[f"to {address}" for address in targets(wires).values()]]
    told += [THROUGH_FIREWALL] if through_firewall else []
    record = claims.write_record(owner, [*told, *ports.lines(published)])
    try:
        for port in published:
            ports.claim(port, record)
            taken.append(ports.path(port))
    finally:
        claims.forget(record)


def reserve(published: list[ports.Port], leads: dict[bool, str]) -> None:
    """Let the guard hold a bound socket of every port, which are claimed. Of many, only so many are under way."""
    for start in range(0, len(published), reservation.HELD_AT_ONCE):
        held = reserved(published[start : start + reservation.HELD_AT_ONCE], leads)
        if held and len(published) <= reservation.HELD_AT_ONCE:
            with_guard = reservation.hand_over(held)
            if with_guard is not None:
                with_guard.close()
        elif held:
            reservation.hold(held)


def reserved(published: list[ports.Port], leads: dict[bool, str]) -> list[reservation.Held]:
    """A bound socket of every port, for the guard to hold."""
    held = []
    for port in published:
        host, number, inside, protocol = port
        path, lead = ports.path(port), target(port, leads)
        relayed = protocol == "tcp" and host in (ports.ANY, ports.ANY6, ports.LOOPBACK6)
        try:
            sock = reservation.kept(path) or ports.bound(host, number, protocol)
        except (Conflict, NetworkError):
            # It was free a moment ago, and our claim is there: a guard that started meanwhile has it from that.
            continue
        held.append((path.rpartition("/")[2], sock, f"{lead} {inside}" if relayed else ""))
    return held


def target(port: ports.Port, leads: dict[bool, str]) -> str:
    """The container's address that a port leads to; what goes to ::1 is relayed, to whichever there is."""
    return leads.get(":" in port[0]) or leads[False]


def operations(
    wires: list[Wire], published: list[ports.Port], first: Wire, shut: list[Closed] | None = None
) -> list[Operation]:
    """The operations of published ports, and the transaction that carries out what is queued.

    shut: as `closed` gives it. Where a firewall was asked, what it lets in is opened too: the port may have been closed
    for somebody before.
    """
    leads = targets(wires)
    todo: list[Operation] = []
    if any(host == ports.ANY or host.startswith("127.") for host, _, _, _ in published):
        todo.append(Operation("LOCALNET", first.bridge))
    if published:  # what leads there may differ by family
        leading = [endpoint.first_for(wires, six) for six in (False, True)]
        links = dict.fromkeys(wire.link for wire in leading if wire)
        todo += [Operation("HAIRPIN", link) for link in links]
    todo += [
        Operation("PUBLISH", host, number, protocol, leads[":" in host], inside)
        for host, number, inside, protocol in published
        if host != ports.LOOPBACK6
    ]
    if shut is not None:
        refused = set(shut)
        todo += [
            Operation("CLOSE" if (host, number, protocol) in refused else "OPEN", host, number, protocol)
            for host, number, _, protocol in host_firewall.outside(published)
        ]
    todo.append(Operation("COMMIT", len(published) + len(wires)))
    flows = [(number, protocol) for _, number, _, protocol in published if protocol == "udp"]
    return todo + [Operation("FORGET_FLOWS", number, protocol) for number, protocol in dict.fromkeys(flows)]


def withdrawal(
    template: messages.Template, published: list[ports.Port], leads: dict[bool, str], owner: str
) -> list[str]:
    """Undo lines that take published ports back; leads: as `targets` gives it.

    Each port for itself: `port rm` may take away any of them, and then somebody else may publish it.
    """
    lines = []
    for port in published:
        claimed = f"{ports.path(port)}\t{owner}"
        if changes := taking_back(template, port, leads):
            batch = messages.transaction(template, changes)
            lines += [f"guard\t{claimed}", f"netlink\t{messages.NETLINK_NETFILTER}\t{batch.hex()}", "end"]
        lines.append(f"unlink-if\t{claimed}")
    return lines


def taking_back(template: messages.Template, port: ports.Port, leads: dict[bool, str]) -> list[bytes]:
    """Changes that take one port back: out of the map, and out of what is closed to the outside."""
    if port[0] == ports.LOOPBACK6:
        return []
    changes = elements.published_and_back(template, [port], leads)
    for host, number, _, protocol in host_firewall.outside([port]):
        changes += [elements.shut(template, action, host, number, protocol) for action in ("shut", "unshut")]
    return changes


def refuse_to_lose(identifier: str, reference: str, wire: Wire) -> None:
    """Raises Conflict when a port that the container publishes leads to this interface."""
    own = wire.addresses()
    for name in sorted(claims.names(f"{paths.run()}/ports")):
        path = f"{paths.run()}/ports/{name}"
        lines = claims.lines(path)
        if not lines or not lines[0].startswith(f"{identifier} "):
            continue
        leads = ports.leads(lines)
        # its record tells of all that were published at once, some of which may have been withdrawn
        for port in [each for each in ports.parse(lines) if ports.path(each) == path]:
            if target(port, leads) in own:
                told = f"{ports.place(port)}/{port[3]}"
                raise Conflict(
                    f"published ports of {reference} lead to network {wire.network} ({told})",
                    f"pyrun port rm {shell_word(reference)} {int(port[1])}/{port[3]}",
                )


# ── flows of ports ─────────────────────────────────────────────────────────────────────────────────


# netlink's header and nfnetlink's; the last attribute, CTA_FILTER, with a flag word for each direction.
_HEADER, _FILTER = 20, 20


def flows_of(template: messages.Template, port: ports.Port, address: str) -> str:
    """The undo line that forgets every flow to *port* of the host that *address* answers."""
    _, number, _, protocol = port
    if ":" in address:
        return f"flows6\tto\t{address}\t{ports.PROTOCOLS[protocol]}\t{number}"
    place = {"protocol": pack("=B", ports.PROTOCOLS[protocol]), "port": pack(">H", number)}
    by_port = messages.filled(template, "forget", **place)
    by_target = messages.filled(template, "forget-target", address=inet_aton(address))
    both = bytes([one | other for one, other in zip(by_port[-_FILTER:], by_target[-_FILTER:], strict=True)])
    body = by_port[4:-_FILTER] + by_target[_HEADER:-_FILTER] + both
    message = pack("=I", len(body) + 4) + body
    return f"netlink\t{messages.NETLINK_NETFILTER}\t{message.hex()}"
