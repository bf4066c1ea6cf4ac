"""Egress policies: what a container may open connections to. `pyrun run --egress`, `pyrun network policy`.

    policy.py     what a policy says; its file run/networks/policies/ID; which names it lets resolve
    parse.py      a policy from the words of --egress, and back
    boxes.py      ranges of addresses, protocols and ports that do not overlap, which the kernel's sets insist on
    elements.py   a policy as elements of the firewall's sets; what the resolver's answers add to them
    start.py      a policy's part of a start: operations and undo lines
    interfaces.py   the same when its container is connected to one network more, or taken off one
    bridge_filter.py      what keeps containers from neighbours whom the rules do not see, made again after its loss

    container ──► policies (prerouting) ──► egress: resolver? denied? allowed? a name's address? else rejected

The rules are in firewall/routed.py; here are only elements, keyed by the container's address, which anti-spoofing
makes its own. The resolver asks `load`, `resolves` and, with every answer for a container of a policy, `admit`. So
nothing at this level needs a library.
"""

from __future__ import annotations

from pyrun.network.egress.elements import admit
from pyrun.network.egress.policy import Policy, load, resolves

__all__ = ["Policy", "admit", "load", "resolves"]
