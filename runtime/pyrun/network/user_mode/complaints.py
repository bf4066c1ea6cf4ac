"""Why a port cannot be published for a user, in words: which of the user's containers has it, or what pasta lacks.

Nothing is claimed for a user's ports (user_mode/__init__.py): who holds one is looked up when a bind has failed.
"""

from __future__ import annotations

import re

from pyrun.errors import Conflict, NetworkError, NotFound
from pyrun.network.publishing import ports
from pyrun.store import paths, state

# Of pasta's complaint: the option, the address, the port of the host, the port inside.
_BIND_FAILED = re.compile(r"ailed to bind.*-([tu]) (?:([0-9a-f.:]+)/)?(\d+)(?:-\d+)?:(\d+)")


def of_own_container(wanted: list[ports.Port]) -> Conflict | None:
    """The error about a port that another container of this user publishes; None if none of them does."""
    for identifier in state.all_ids():
        try:
            container = state.load(identifier)
        except NotFound:  # removed since the listing
            continue
        listed = container.get("ports")
        if isinstance(listed, list) and state.process_alive(container):
            dual = container.get("mode") == "pasta"
            for port in wanted:
                if any(_in_the_way(port, other, dual=dual) for other in listed):
                    return ports.taken(port, str(container.get("name") or identifier[:12]))
    return None


def _in_the_way(port: ports.Port, other: ports.Port, *, dual: bool) -> bool:
    """dual: without an address, or with that of all, *other* is listened to in IPv6 as well."""
    host, number, _, protocol = port
    if not number or isinstance(number, ports.HostRange) or (number, protocol) != (other[1], other[3]):
        return False
    return ports.overlap(host or ports.ANY, other[0]) or (dual and other[0] == ports.ANY)


def of_pasta(said: str) -> NetworkError | None:
    """The error about a port on which pasta could not listen, from its own words; None if that is not what it said."""
    found = _BIND_FAILED.search(said)
    if found is None:
        return None
    letter, host, number, inside = found.groups()
    port = (host or "", int(number), int(inside), {"t": "tcp", "u": "udp"}[letter])
    hint = f"`ss -{letter}lnp 'sport = :{number}'` names who has the port, if anybody does"
    if ":" in port[0] and not _ipv6_leads_out():
        hint = (
            "this host has no IPv6 default route, and without one pasta has no IPv6: an IPv4 address, or none"
        )
    return NetworkError(f"-p {ports.spelled(port)}: pasta cannot listen there", hint)


def _ipv6_leads_out() -> bool:
    if not paths.exists("/proc/net/ipv6_route"):
        return False
    rows = [line.split() for line in paths.read("/proc/net/ipv6_route").decode().splitlines()]
    return any(row[0] == "0" * 32 and row[1] == "00" and row[9] != "lo" for row in rows)
