"""`pyrun network policy CONTAINER [POLICY]`: what a running container may reach, shown or changed.

A change holds for what is already connected, too: its flows are forgotten and judged anew. What is to be undone at the
container's end is written before anything is changed.
"""

from __future__ import annotations

from pyrun.engine import connected
from pyrun.errors import Conflict, PyrunError
from pyrun.network import disconnecting, live_undo, messages, tags
from pyrun.network.egress import interfaces, policy, start
from pyrun.network.egress.parse import parse, spelled
from pyrun.network.endpoint import Wire
from pyrun.plan.operations import Operation
from pyrun.store import state


def show(reference: str) -> str:
    """The words of the container's policy, "all" without one. Raises NotFound."""
    return spelled(policy.load(state.resolve(reference)))


def change(reference: str, text: str) -> str:
    """Give the container another policy; returns its words.

    Raises: UsageError, NotFound, Conflict (it does not run, or has no bridge), PyrunError.
    """
    wanted = parse(text, "network policy")
    identifier = state.resolve(reference)
    with live_undo.locked(identifier):
        container = state.load(identifier)
        wires = connected.wires_of(container)
        if state.status(container) == "exited":
            raise Conflict(
                f"container {reference} does not run", "a policy is chosen at the start: pyrun run --egress"
            )
        mode = connected.mode_of(container, reference)
        # without any network at the moment: the next one is to have the policy
        nowhere = not wires and mode != "bridge" and policy.load(identifier) is None
        past = next((wire for wire in wires if not tags.is_host_link(wire.link)), None)
        if nowhere or past:
            where = f"is on network {past.network}" if past else f"has --network={mode}"
            raise Conflict(
                f"container {reference} {where}: nothing it sends there meets our rules",
                "policies work on bridges of pyrun",
            )
        disconnecting.forget_unnoted(identifier, wires)
        _set(identifier, [disconnecting.held(identifier, wire) for wire in wires], wanted)
        if not state.process_alive(container):  # its undo list may have been executed before ours was in it
            _forget(identifier)
            raise live_undo.ended(identifier)
    return spelled(wanted)


def extend(identifier: str, wire: Wire) -> list[Operation]:
    """Hold the policy of a container for an interface that is about to come. Call under `live_undo.locked`.

    Returns what is to be done once the link is there and before it is up. Raises NotFound, PyrunError.
    """
    try:
        return interfaces.cover(identifier, wire)
    except OSError as error:
        raise _failed(error) from error


def refuse(identifier: str, reference: str, network: str) -> None:
    """For a network whose packets meet no rules of ours. Raises Conflict when the container has a policy."""
    if policy.load(identifier) is not None:
        raise Conflict(
            f"container {reference} has an egress policy, and network {network} does not pass the rules of this host",
            "policies work on bridges of pyrun; `pyrun network policy` lifts it: all",
        )


def _set(identifier: str, wires: list[Wire], wanted: policy.Policy | None) -> None:
    wires = [wire for wire in wires if wire.addresses()]
    addresses = start.addresses(wires)
    # Of links that were connected later nobody else says so early that they go down.
    noted = [*interfaces.downs(wires), *start.undo(identifier, wanted, wires)] if wanted is not None else []
    if noted:
        live_undo.precede(identifier, noted)
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        bridges, links = [wire.bridge for wire in wires], [wire.link for wire in wires]
        start.apply(sock, identifier, wanted, addresses)
        if wanted is None:
            start.let_join(sock, links)
        else:
            start.set_apart(sock, bridges, links)
    except FileNotFoundError:
        from pyrun.network import rebuilding

        rebuilding.rebuild()  # with the policy, whose file is there already
    except OSError as error:
        raise _failed(error) from error
    finally:
        sock.close()
    if noted:  # what the former policy had is gone
        live_undo.precede(identifier, noted, instead=True)


def _forget(identifier: str) -> None:
    """Take away the policy of a container that has ended: its addresses are, or soon will be, somebody else's."""
    from pyrun.network import rebuilding

    policy.forget(identifier)
    rebuilding.forget_strays()


def _failed(error: OSError) -> PyrunError:
    return PyrunError(f"the policy cannot be set: {error.strerror}", "`pyrun network reload`")
