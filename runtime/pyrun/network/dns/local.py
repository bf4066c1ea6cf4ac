"""Answers from names: of containers that share a network with whoever asks, and of their addresses."""

from __future__ import annotations

from pyrun.network.dns import names, wire

# A container that starts again may get another address: nobody should remember for long.
TTL_S = 1


def answers(asked: wire.Question, view: names.View, known: names.Names) -> list[bytes]:
    """The messages to answer with, in turn; [] when the name is none of ours."""
    if asked.name.endswith(".arpa"):
        return _reverse(asked, view, known)
    leases = known.alive(view.find(asked.name))
    if not leases:
        return []
    six = asked.kind == wire.TYPE_AAAA
    if not six and asked.kind not in (wire.TYPE_A, wire.TYPE_ANY):
        return [wire.empty(asked, wire.NOERROR)]
    addresses = [lease.address for lease in leases if (":" in lease.address) == six]
    if not addresses:
        # the name is there, it has no address of that kind: asking elsewhere would only deny it
        return [wire.empty(asked, wire.NOERROR)]
    return wire.answers(asked, addresses, TTL_S)


def _reverse(asked: wire.Question, view: names.View, known: names.Names) -> list[bytes]:
    address = wire.addressed(asked.name)
    if not address:
        return []
    for network in view.networks:
        lease = network.leases.get(address)
        if lease is not None:
            if asked.kind not in (wire.TYPE_PTR, wire.TYPE_ANY):
                return [wire.empty(asked, wire.NOERROR)]
            return [_pointer(asked, lease, network)]
    # addresses of ours are nobody's business outside, and nobody there knows them
    if any(network.holds(address) for network in known.networks.values()):
        return [wire.empty(asked, wire.NXDOMAIN)]
    return []


def _pointer(asked: wire.Question, lease: names.Lease, network: names.Network) -> bytes:
    """The name of whoever has the address. Names of ours may have 128 characters, and dots side by side, which no name
    in DNS has: then it is the short id, by which it is found as well."""
    short = lease.owner[: names.SHORT_ID]
    for name in (f"{lease.name}.{network.name}", f"{short}.{network.name}", short):
        if wire.is_name(name):
            return wire.pointer(asked, name, TTL_S)
    return wire.empty(asked, wire.NXDOMAIN)
