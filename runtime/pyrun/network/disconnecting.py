"""Taking one interface off a running container, by its undo lines; and what a killed `connect` left of one.

Used by engine/connect.py and engine/policy.py.
"""

from __future__ import annotations

from pyrun import undo
from pyrun.network import claims, endpoint, leases, live_undo, messages
from pyrun.network.egress import interfaces
from pyrun.store import paths


def held(identifier: str, wire: endpoint.Wire) -> endpoint.Wire:
    """The interface with those addresses that are the container's: a killed `disconnect` may have given some up, and
    then they are somebody else's."""
    kept = endpoint.recorded(wire.record())
    kept.address, kept.address6 = (
        address if address and _holder(wire, address).startswith(f"{identifier} ") else ""
        for address in (wire.address, wire.address6)
    )
    return kept


def _holder(wire: endpoint.Wire, address: str) -> str:
    return claims.holder(leases.path(wire.network, address))


def undo_as_held(wire: endpoint.Wire, template: messages.Template) -> list[str]:
    """The undo lines of an interface, each address freed for whoever of the container's planners claimed it."""
    lines: list[str] = []
    for address in wire.addresses():
        undone = endpoint.undo(wire, template, _holder(wire, address))
        lines += [line for line in undone if line not in lines]
    return lines


def forget_unnoted(identifier: str, wires: list[endpoint.Wire]) -> None:
    """Undo what a `connect` or `disconnect` left that was killed: leases of the container which its record does not
    tell of. Call under `live_undo.locked`."""
    noted = {address for wire in wires for address in wire.addresses()}
    for network in claims.names(f"{paths.run()}/networks"):
        template = messages.load(network)
        for address in claims.names(f"{paths.run()}/networks/{network}/leases"):
            lines = claims.lines(leases.path(network, address))
            if template is None or address in noted or not lines or not lines[0].startswith(f"{identifier} "):
                continue
            told = claims.told(lines)
            wire = endpoint.Wire(network)
            wire.link, wire.mac = told.get("link", ""), told.get("mac") or leases.mac(address)
            wire.mac_asked_for = True  # where it was not, there is no claim of it to give up
            wire.give(":" in address, address, 0, "")
            take_off(identifier, wire, template, [*undo_as_held(wire, template), *_detour(wire)])


def _detour(wire: endpoint.Wire) -> list[str]:
    """The line that deletes the device by which what the container sends was slowed down, if there was one."""
    if not paths.exists(f"/sys/class/net/{wire.link}"):
        return []
    from pyrun.network import shaping

    return shaping.undone_of(wire.link)


def take_off(
    identifier: str, wire: endpoint.Wire, template: messages.Template, lines: list[str]
) -> list[str]:
    """Execute the undo lines of an interface now, and note them no longer; returns what failed. Call under
    `live_undo.locked`.

    The link is deleted at once: the namespace, whose end would do it, lives on. Then its egress policy goes: no sooner,
    or the container could send without, and before the addresses are given up, or their next owner had it.
    """
    remove = messages.filled(template, "remove", name=wire.link.encode())
    complaints = undo.replay_lines([*lines[:1], f"netlink\t{messages.NETLINK_ROUTE}\t{remove.hex()}"])
    complaints = complaints or interfaces.uncover(identifier, wire) or undo.replay_lines(lines[1:])
    if not complaints:
        # What is done while an address is the container's can never be due again.
        guards = [f"guard{line[9:]}" for line in lines if line.startswith("unlink-if\t")]
        live_undo.drop(identifier, [*lines, *guards])
    return complaints
