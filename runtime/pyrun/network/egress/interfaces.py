"""A policy follows the addresses of a running container: one comes with `network connect`, one goes with `disconnect`.

The file of the policy tells which addresses it covers. It is changed before the firewall's sets: whoever makes the
tables anew reads it, and reads it again when he is done (network/rebuilding.py).
"""

from __future__ import annotations

from _socket import socket

from pyrun.network import attach, claims, endpoint, leases, live_undo, messages
from pyrun.network.egress import elements, policy, start
from pyrun.network.endpoint import Wire
from pyrun.plan.operations import Operation
from pyrun.store import paths

# Between the listing of elements and their deletion somebody may have made the tables anew.
_TRIES = 5


def cover(identifier: str, wire: Wire) -> list[Operation]:
    """Hold the container's policy, if it has one, for an interface that is about to come.

    Call under `live_undo.locked`. Returns what is to be done once the link is there and before it is up. The
    container's other addresses, what they were admitted to and their flows stay as they are. Raises OSError.
    """
    known = policy.load(identifier)
    if known is None:
        return []
    noted = [*downs([wire]), *start.finishing(identifier, known), *start.undo_of(known, wire)]
    live_undo.precede(identifier, noted)
    fresh = wire.addresses()
    known.addresses = [each for each in known.addresses if each not in fresh] + fresh
    policy.save(identifier, known)
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        start.enforce(sock, policy.at(known, fresh), fresh)
    except FileNotFoundError:  # somebody flushed the rules a moment ago; the file is there now
        from pyrun.network import rebuilding

        rebuilding.rebuild()
    finally:
        sock.close()
    return [Operation("APART", wire.bridge, wire.link)]


def downs(wires: list[Wire]) -> list[str]:
    """The undo lines that take links down, which comes before their policy goes."""
    found = []
    for wire in wires:
        template = messages.load(wire.network)
        found += endpoint.undo(wire, template, "")[:1] if template is not None else []
    return found


def uncover(identifier: str, wire: Wire) -> list[str]:
    """Take the addresses of an interface out of the policy and of every set, whoever put them there; what failed.

    Call under `live_undo.locked`, when the link is gone and before the addresses are given up: then nothing is sent
    without a policy, and the next owner is none of its business.
    """
    if not elements.in_use():
        return []
    gone = wire.addresses()
    known = policy.load(identifier)
    if known is not None and not set(gone).isdisjoint(known.addresses):
        known.addresses = [each for each in known.addresses if each not in gone]
        policy.save(identifier, known)
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        _forget(sock, gone)
        start.let_join(sock, [wire.link])
    except OSError as error:
        return [f"the egress policy of {' and '.join(gone)} cannot be taken away: {error.strerror}"]
    finally:
        sock.close()
    return []


def finish(file: str) -> list[str]:
    """For the undo list: delete what the sets hold for a container that has ended, the answers of names above all, as
    long as its addresses are its own; returns what failed, a line each. file: that of its policy.

    The resolver cannot note what it adds: it may not write to any file (csrc/launcher.c).
    """
    identifier = file.rpartition("/")[2]
    try:
        known = policy.load(identifier)
    except (OSError, ValueError) as error:
        return [f"{file}: {error.strerror if isinstance(error, OSError) else 'is torn'}"]
    own = [each for each in known.addresses if _is_held(identifier, each)] if known else []
    if not own:
        return []
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        _forget(sock, own)
    except OSError as error:
        return [f"what names let {' and '.join(own)} reach cannot be taken away: {error.strerror}"]
    finally:
        sock.close()
    return []


def _is_held(identifier: str, address: str) -> bool:
    """Whether the container has a lease of the address, on whichever network."""
    networks = claims.names(f"{paths.run()}/networks")
    return any(claims.holder(leases.path(each, address)).startswith(f"{identifier} ") for each in networks)


def _forget(sock: socket, addresses: list[str]) -> None:
    """Delete all elements of *addresses*. Raises OSError."""
    template = elements.words()
    one = policy.at(policy.Policy("none"), addresses)
    # Added before it is deleted: so it succeeds whether it is there or not.
    police = elements.policed(template, one) + elements.policed(template, one, delete=True)
    for left in reversed(range(_TRIES)):
        try:
            listed = elements.leftovers(sock, template, addresses)
        except FileNotFoundError:  # no table, no elements
            return
        try:
            messages.transact(sock, template, police + listed)
            break
        except FileNotFoundError:
            if not left:
                raise


def apart(link: attach.Attachment, bridge: str, name: str) -> None:
    """Carry out the operation."""
    assert link.netfilter is not None
    start.set_apart(link.netfilter, [bridge], [name])
