"""Would a new connection from outside to a port of this host be let in by these rules, or to where that leads be
forwarded? Said with three values.

A test of a rule is passed, not passed, or depends on what nobody knows beforehand: who connects, how often. A rule that
accepts only some is no reason to open a port to all; one that refuses some is no reason to close it, unless it refuses
everybody *but* some. What the rules say of established connections, of other protocols and so on, is never passed.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

ACCEPT, DROP, RETURN, JUMP, GOTO = "accept", "drop", "return", "jump", "goto"
_DEPTH = 16


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection from outside. address: the host's that it goes to, "" for any of them.

    outgoing: the interface it is forwarded to, redirected to that address by us; "" for what is the host's own.
    """

    protocol: str
    port: int
    six: bool
    interface: str
    address: str = ""
    outgoing: str = ""


@dataclass(frozen=True)
class Test:
    """One condition: interface, outgoing, protocol, port, address (it goes to), source, state, status, six, "other".

    values: words (interface patterns, protocols, states), pairs (ports), networks (addresses).
    """

    what: str
    values: tuple[object, ...] = ()
    negated: bool = False


@dataclass(frozen=True)
class Rule:
    """What is done with a packet that passes all tests; target: the chain of a jump or goto."""

    tests: tuple[Test, ...]
    verdict: str
    target: str = ""


@dataclass
class Hook:
    """A chain the kernel asks about what enters, and those it calls. name: whose it is, for the user."""

    name: str
    chain: str
    policy: str
    chains: dict[str, list[Rule]]
    families: tuple[bool, ...] = (False, True)  # six?
    some: list[str] = field(default_factory=list)  # who is let in, while judging


def refusal(hook: Hook, packet: Packet) -> str:
    """Why *hook* does not let the packet in, in words; "" if it does."""
    if packet.six not in hook.families:
        return ""
    hook.some.clear()
    if (_walk(hook, hook.chain, packet, _DEPTH) or hook.policy) == ACCEPT:
        return ""
    if hook.some:
        return f"{hook.name} lets it in from {', '.join(dict.fromkeys(hook.some))} only"
    return f"{hook.name} does not let it in"


def _walk(hook: Hook, chain: str, packet: Packet, depth: int, *, sure: bool = True) -> str:
    """accept, drop, or "" when the chain ends without either. sure: False below a jump that depends."""
    for rule in hook.chains.get(chain, ()) if depth else ():
        passed, conditions = _passed(rule, packet)
        if passed is False:
            continue
        certain = sure and passed is True
        if rule.verdict == ACCEPT and not certain:
            hook.some += conditions or ["some"]
        elif rule.verdict == DROP and (certain or any(_all_but(test) for test in rule.tests)):
            return DROP
        elif rule.verdict == ACCEPT:
            return ACCEPT
        elif rule.verdict == RETURN and certain:
            return ""
        elif rule.verdict in (JUMP, GOTO):
            found = _walk(hook, rule.target, packet, depth - 1, sure=certain)
            if found or (rule.verdict == GOTO and certain):
                return found
    return ""


def _all_but(test: Test) -> bool:
    return test.what == "source" and test.negated


def _passed(rule: Rule, packet: Packet) -> tuple[bool | None, list[str]]:
    """Whether the packet passes all tests of the rule, and the sources of which it depends."""
    result: bool | None = True
    conditions = []
    for test in rule.tests:
        passed = _one(test, packet)
        if passed is False:
            return False, []
        if passed is None:
            result = None
            if test.what == "source" and not test.negated:
                conditions += [str(value) for value in test.values]
    return result, conditions


def _one(test: Test, packet: Packet) -> bool | None:
    if test.what in ("interface", "outgoing"):
        name = packet.interface if test.what == "interface" else packet.outgoing
        passed: bool | None = any(fnmatchcase(name, str(pattern)) for pattern in test.values)
    elif test.what == "protocol":
        passed = packet.protocol in test.values or "all" in test.values
    elif test.what == "port":
        passed = any(isinstance(span, tuple) and span[0] <= packet.port <= span[1] for span in test.values)
    elif test.what in ("state", "status"):  # answered: not what comes to the port for the first time
        passed = (test.what == "state" and "new" in test.values) or (
            "dnat" in test.values and bool(packet.outgoing)
        )
    elif test.what == "six":
        passed = packet.six in test.values
    elif test.what == "local":
        passed = "local" in test.values
    elif test.what == "address":
        passed = _within(packet.address, test.values)
    elif test.what == "source" and any(str(value).endswith("/0") for value in test.values):
        passed = True
    else:
        return None
    return passed if passed is None else passed != test.negated


def _within(address: str, networks: tuple[object, ...]) -> bool | None:
    if any(str(network).endswith("/0") for network in networks):
        return True
    if not address:
        return None
    parsed = ipaddress.ip_address(address)
    known = (ipaddress.IPv4Network, ipaddress.IPv6Network)
    return any(parsed in network for network in networks if isinstance(network, known))


def networks(words: list[str]) -> tuple[object, ...] | None:
    """Networks from their spelling, None when one of them is none."""
    try:
        return tuple(ipaddress.ip_network(word, strict=False) for word in words)
    except ValueError:
        return None
