"""The catalogue of operations: one row a kind, of init's and of the planner's.

    rows.py       a row: stage, arguments, words, the shell's equivalent, how to see it, who performs it
    process.py    what init does to itself: namespaces, rights, limits, scheduling, the command
    planner.py    what the planner does beside the network: cgroup, clone, hooks
    mounts.py     the container's file system
    network.py    bridge, addresses, firewall, published ports; the network of an ordinary user
    cards.py      the drivers beside a bridge, rates and faults, egress policies

From a row come --explain, --dry-run and the words of an error, so the words are verb phrases: `cannot ...`. All of it
is cold: a start has what performs its kinds from csrc/init.c and plan/performers.py. The check commands run on the
host, some with programs not every host has (conntrack, bpftool, numactl); none is run in the container, whose image may
have it and must not be trusted as root of the host.
"""

from __future__ import annotations

from pyrun.plan.operations import Operation
from pyrun.plan.performers import PERFORMERS, loaded

from .rows import Explanation, Row

# In the order in which a kind is looked for: the network's library takes a tenth of a second, which the failure of a
# mount can do without.
TOPICS = ("process", "mounts", "planner", "network", "cards")


def row(kind: str) -> Row:
    """The row of *kind*. Raises KeyError."""
    for topic in TOPICS:
        rows: dict[str, Row] = loaded(f"{__name__}.{topic}").ROWS
        if kind in rows:
            return rows[kind]
    raise KeyError(kind)


def kinds() -> dict[str, Row]:
    """Every row there is."""
    return {kind: each for topic in TOPICS for kind, each in loaded(f"{__name__}.{topic}").ROWS.items()}


def performer(kind: str) -> str:
    """Who performs it: `init`, or module:function of the planner."""
    return row(kind).by or (":".join(PERFORMERS[kind]) if kind in PERFORMERS else "init")


def explain(operation: Operation) -> Explanation:
    """What it says: its words, the shell's equivalent, how to see it; the last two may be empty."""
    return row(operation.kind).explain(operation)


def action(operation: Operation, detail: str = "") -> str:
    """The operation as the verb phrase of an error: `cannot ...`. detail: what was in the way, if anything."""
    words = explain(operation)[0]
    place = f" ({detail})" if detail and detail not in words else ""
    return words[:1].lower() + words[1:] + place
