"""Our nftables tables `inet pyrun` and `bridge pyrun`, and the few rules other people's firewalls need.

    names.py        what everything is called, and what it holds (hot)
    sets.py         sets and maps; the elements of a network, a link, a port
    routed.py       the rules of `inet pyrun`, each with its reason
    bridged.py      the rules of `bridge pyrun`, each with its reason
    expressions.py  what rules are made of
    tables.py       both tables: made, changed, removed; the questions of health.py
    foreign.py      chains of others that drop what we forward, and our marked rules in them
    openings.py     what others must let through, as data
    legacy.py       the same rules in the tables of iptables-legacy
    firewalld.py    the same by a zone of firewalld
    words.py        the messages of egress policies, encoded once

The chains are the same whatever runs; networks, links and published ports are elements of sets and maps, so that a
change is one element and a packet costs the same with one port as with thousands. Each table is made in one
transaction. Nothing of other tables is touched, with the exception of foreign.py.
"""

from __future__ import annotations

from pyrun.network.firewall.foreign import open_foreign, remove_foreign
from pyrun.network.firewall.names import (
    ADDRESSES,
    ADDRESSES6,
    ADMITTED,
    ADMITTED6,
    ADMITTED6_AT,
    ADMITTED_AT,
    ALLOWED,
    ALLOWED6,
    ALONE,
    BRIDGES,
    CLOSED,
    CLOSED6,
    CLOSED6_AT,
    CLOSED_AT,
    DENIED,
    DENIED6,
    FURTHER_MAC,
    INSIDE,
    ISOLATED,
    MACS,
    OWN,
    POLICED,
    POLICED6,
    PORTS,
    PORTS6,
    PORTS6_AT,
    PORTS_AT,
    SOURCES,
    SUBNETS,
    SUBNETS6,
    TOWARDS,
    UNPINNED,
)
from pyrun.network.firewall.sets import guest, network_elements, pinned_elements, switch
from pyrun.network.firewall.tables import (
    build,
    checks,
    commit,
    complete,
    differences,
    lacks_policies,
    remove,
    set_gateway,
)

__all__ = [
    "ADDRESSES", "ADDRESSES6", "ADMITTED", "ADMITTED6", "ADMITTED6_AT", "ADMITTED_AT", "ALLOWED", "ALLOWED6",
    "ALONE", "BRIDGES", "CLOSED", "CLOSED6", "CLOSED6_AT", "CLOSED_AT", "DENIED", "DENIED6", "FURTHER_MAC",
    "INSIDE", "ISOLATED", "MACS", "OWN", "POLICED", "POLICED6", "PORTS", "PORTS6", "PORTS6_AT", "PORTS_AT",
    "SOURCES", "SUBNETS", "SUBNETS6", "TOWARDS", "UNPINNED", "build", "checks", "commit", "complete",
    "differences", "guest", "lacks_policies", "network_elements", "open_foreign", "pinned_elements", "remove",
    "remove_foreign",
    "set_gateway", "switch",
]  # fmt: skip
