"""Names for a container that is on cards of the host alone: no address of this host can be reached from there.

So the resolver listens inside, on a loopback address of the container's own namespace, as Docker's does, and port 53
stays the container's: two rules of a table there lead what it asks to the resolver's port, two more the answers back.

    container ── 127.0.0.11:53 ──► :41503, a socket of the guard's in this namespace ──► the resolver
                 table ip pyrun-names: ports are rewritten as they are sent, without connection tracking

run/resolvers/ID says "PORT NAME ASKS": the container's port, its name in /run/netns, from where the next guard gets
there, and whether it has servers of its own (--dns), which are asked from there. The guard stops when the file goes,
with the container. Source: linux/netfilter/nf_tables.h, NFTA_PAYLOAD_CSUM_*.
"""

from __future__ import annotations

import posix
import struct
from typing import Any

from pyrun import notice
from pyrun.errors import NetworkError
from pyrun.network import attach, firewall, guard, messages, netns, nft
from pyrun.network.dns.names import INSIDE as INSIDE
from pyrun.network.endpoint import Wire
from pyrun.network.firewall import expressions
from pyrun.plan.operations import Operation
from pyrun.store import paths

TABLE = "pyrun-names"
_DNS_PORT = 53
# Of the ports from which the kernel chooses: no service has one for its own.
_FIRST_PORT, _PORTS = 32768, 28000
_BEFORE_TRACKING = -300  # NF_IP_PRI_RAW
_NETWORK, _TRANSPORT = 1, 2
_SOURCE, _DESTINATION = 12, 16  # of the addresses in IPv4's header
# (protocol, where its checksum is)
_PROTOCOLS = ((17, 6), (6, 16))


class _Reached:
    """A namespace of a name in /run/netns, as attach.inside_of wants it."""

    __slots__ = ("namespace_fd",)

    def __init__(self, name: str) -> None:
        self.namespace_fd = posix.open(netns.path(name), posix.O_RDONLY | posix.O_CLOEXEC)


def note_path(identifier: str) -> str:
    """The file that says where a container is answered inside."""
    return f"{paths.run()}/resolvers/{identifier}"


def needed(wires: list[Wire]) -> bool:
    """Whether all its interfaces are on cards, and one has an address by which it can have a name."""
    return all(wire.driver for wire in wires) and any(wire.addresses() for wire in wires)


def is_answered(identifier: str, wires: list[Wire]) -> bool:
    """Whether a container that has *wires* is answered inside."""
    return needed(wires) and paths.exists(note_path(identifier))


def operations(identifier: str, name: str, wires: list[Wire], *, asks: bool) -> list[Operation]:
    """What makes the containers on these cards, this one among them, known by name. asks: it has its own servers."""
    todo = [Operation("NAMES_OF", wire.network) for wire in wires if wire.driver and wire.addresses()]
    if needed(wires):
        todo.append(Operation("NAMES_INSIDE", identifier, name, _port(identifier), int(asks)))
    return todo


def undo(identifier: str, wires: list[Wire]) -> list[str]:
    """The undo line that goes with `operations`; none for who is answered already, and has it."""
    return (
        [f"unlink\t{note_path(identifier)}"]
        if needed(wires) and not paths.exists(note_path(identifier))
        else []
    )


def _port(identifier: str) -> int:
    return _FIRST_PORT + int(identifier[:8], 16) % _PORTS


# ── carried out ────────────────────────────────────────────────────────────────────────────────────


def known(link: attach.Attachment, network: str) -> None:
    """Have the resolver look at the leases of a network on a card."""
    del link
    guard.need([(network, "", "")])


def answer_inside(link: attach.Attachment, identifier: str, name: str, port: int, asks: int) -> None:
    """Have the container answered at 127.0.0.11; where this kernel cannot rewrite ports, at port 53 itself.

    May be repeated. Raises NetworkError.
    """
    port = _noted_port(identifier) or port
    try:
        _lead(link, port)
    except (OSError, NetworkError):
        port = _DNS_PORT
    paths.make(f"{paths.run()}/resolvers")
    _note(identifier, port, name, asks)
    became = guard.inside(identifier, port, bool(asks), link.namespace_fd)
    if became != port:  # somebody inside has it
        _lead_elsewhere(identifier, link, became, name, asks)


def _note(identifier: str, port: int, name: str, asks: int) -> None:
    """Over the old one, which is as long: the guard watches the file itself, and nobody finds half of it."""
    fd = posix.open(note_path(identifier), posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
    try:
        posix.pwrite(fd, f"{port:5d} {name} {asks}\n".encode(), 0)
    finally:
        posix.close(fd)


def _noted_port(identifier: str) -> int:
    try:
        return int(paths.read(note_path(identifier)).split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def resume(with_guard: Any) -> None:
    """Tell a new guard of every container that is answered inside."""
    for identifier in sorted(posix.listdir(f"{paths.run()}/resolvers")):
        try:
            port, name, asks = paths.read(note_path(identifier)).decode().split()
            reached = _Reached(name)
        except (OSError, ValueError):  # it is just ending
            continue
        try:
            line = f"{identifier}\t{int(port)}\t{asks}"
            answer = guard.exchanged(with_guard, "inside", [line], [reached.namespace_fd]) or {}
            became = answer.get(identifier, 0)
            if became > 0 and became != int(port):  # somebody inside has taken the port meanwhile
                _lead_elsewhere(identifier, reached, became, name, int(asks))
        finally:
            posix.close(reached.namespace_fd)


def sweep() -> list[str]:
    """Remove the notes of containers that are gone, which would keep their namespaces; their ids."""
    try:
        noted = posix.listdir(f"{paths.run()}/resolvers")
    except OSError:
        return []
    gone = [each for each in noted if not paths.exists(f"{paths.run()}/containers/{each}")]
    for identifier in gone:
        forget(identifier)
    return gone


def forget(identifier: str) -> None:
    """Answer a container inside no more."""
    try:
        posix.unlink(note_path(identifier))
    except FileNotFoundError:
        pass


def _lead_elsewhere(
    identifier: str, link: attach.Attachment | _Reached, port: int, name: str, asks: int
) -> None:
    try:
        _lead(link, port)
        _note(identifier, port, name, asks)
    except (OSError, NetworkError) as error:
        notice.say(f"container {name} is not answered by name: {error}")


def _lead(link: attach.Attachment | _Reached, port: int) -> None:
    """Make the table in the container's namespace, or anew. Raises OSError."""
    table = (TABLE, nft.IPV4)
    with attach.inside_of(link):
        sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        firewall.commit(
            sock,
            [
                nft.table(nft.NEW_TABLE, *table),
                nft.table(nft.DELETE_TABLE, *table),
                nft.table(nft.NEW_TABLE, *table),
                nft.chain(TABLE, "output", nft.OUTPUT, _BEFORE_TRACKING, family=nft.IPV4),
                *[
                    _rewriting(protocol, checksum, *way)
                    for way in ((_DESTINATION, 2, _DNS_PORT, port), (_SOURCE, 0, port, _DNS_PORT))
                    for protocol, checksum in _PROTOCOLS
                ],
            ],
        )
    finally:
        sock.close()


def _rewriting(protocol: int, checksum: int, address_at: int, port_at: int, port: int, instead: int) -> bytes:
    """The rule: what has INSIDE at *address_at* and *port* at *port_at* gets *instead* there."""
    return nft.rule(
        TABLE,
        "output",
        expressions.payload(_NETWORK, address_at, 4),
        expressions.compare(bytes(map(int, INSIDE.split(".")))),
        expressions.protocol(protocol),
        expressions.payload(_TRANSPORT, port_at, 2),
        expressions.compare(struct.pack("!H", port)),
        expressions.set_payload_checked(_TRANSPORT, port_at, struct.pack("!H", instead), checksum),
        family=nft.IPV4,
    )
