"""`pyrun network policy CONTAINER [POLICY]`: what a running container may reach, shown or changed.

A change holds for what is already connected, too: its flows are forgotten and judged anew. What is to be undone at the
container's end is written before anything is changed.
"""

from __future__ import annotations

from pyrun.errors import Conflict, PyrunError
from pyrun.network import claims, later, leases, messages
from pyrun.network.egress import policy, start
from pyrun.network.egress.parse import parse, spelled
from pyrun.network.endpoint import Wire
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
    with later.locked(identifier):
        container = state.load(identifier)
        found = container.get("networks")
        wires = list(found) if isinstance(found, list) else []
        if state.status(container) == "exited":
            raise Conflict(
                f"container {reference} does not run", "a policy is chosen at the start: pyrun run --egress"
            )
        if not wires or any(not wire["link"].startswith(messages.HOST_LINK_PREFIX) for wire in wires):
            raise Conflict(
                f"container {reference} has --network={container.get('mode')}: nothing it sends meets our rules",
                "policies work on bridges of pyrun",
            )
        _set(identifier, wires, wanted)
    return spelled(wanted)


def extend(identifier: str, wires: list[Wire]) -> None:
    """Hold the policy of a container for all of *wires*, one of which is new. Call under `later.locked`."""
    known = policy.load(identifier)
    if known is not None:
        _set(identifier, wires, known)


def _set(identifier: str, wires: list[Wire], wanted: policy.Policy | None) -> None:
    addresses = start.addresses(wires)
    if wanted is not None:
        owner = claims.holder(leases.path(str(wires[0]["network"]), addresses[0]))
        later.append(identifier, start.undo(identifier, wanted, wires, owner))
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        bridges, links = ([str(wire[key]) for wire in wires] for key in ("bridge", "link"))
        start.apply(sock, identifier, wanted, addresses)
        if wanted is None:
            start.let_join(sock, links)
        else:
            start.set_apart(sock, bridges, links)
    except FileNotFoundError:
        from pyrun.network import rebuilding

        rebuilding.rebuild()  # with the policy, whose file is there already
    except OSError as error:
        raise PyrunError(f"the policy cannot be set: {error.strerror}", "`pyrun network reload`") from error
    finally:
        sock.close()
