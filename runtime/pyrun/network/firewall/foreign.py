"""Other people's chains that drop what containers send and receive, and our marked rules in them.

Accepting a packet in our table is not final: every chain of the same hook is asked. So where a chain of somebody
else drops by its policy, or by a last rule without conditions, a few rules for the bridges go in front:

    hook forward   from a bridge of ours, to a bridge of ours                    our own table decides about these
    hook input     from a bridge of ours: the resolver's port; ICMPv6            a resolver listens on each gateway

They go to the head of that chain, or where Docker is, into its chain for the rules of others, DOCKER-USER. iptables
and ip6tables (ufw, too) keep their chains in the nft tables `ip filter` and `ip6 filter`, and list our rules as
their own; what iptables-legacy keeps is in legacy.py, and firewalld, whose table is nobody else's, in firewalld.py.
Each rule has a comment that begins with health.MARK; by it they are found again, and removed by prune.
"""

from __future__ import annotations

import errno
from _socket import socket

from pyrun import notice
from pyrun.network import health, messages, nft, tags
from pyrun.network.firewall import firewalld, legacy, openings, tables
from pyrun.network.firewall.expressions import Part, compare, counter, interface, payload, protocol, verdict
from pyrun.network.records import Network, Place

_FAMILIES = {nft.IPV4: "ip", nft.IPV6: "ip6", nft.INET: "inet"}
_HOOKS = {nft.FORWARD: "FORWARD", nft.INPUT: "INPUT"}
_DOCKERS = "DOCKER-USER"

# Of a chain and of a rule, in the kernel's answers.
_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE = 1, 3, 4, 7
_RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_COMMENT = 2, 3, 4, 7


def open_foreign(sock: socket, networks: list[Network]) -> tuple[list[Place], list[str]]:
    """Let traffic of *networks* through whatever firewall of this host drops it.

    Returns the places our rules are needed in, for `tables.checks`, and what was done, a line each. Raises OSError.
    """
    told = []
    found = places(sock, ipv6=openings.any_ipv6(networks))
    for place in found:
        try:
            added = _add(sock, place, networks)
        except PermissionError:
            notice.say(f"{_named(place)} drops what containers send, and belongs to another program alone")
            continue
        place.handle = max(handle for _, _, handle in marked_rules(sock, *_key(place)))
        if added:
            ours = " and ".join(dict.fromkeys(bridge for _, _, bridge, _, _ in _openings(place, networks)))
            told.append(
                f"{_named(place)} drops packets: {added} rules for {ours} added to its chain {place.chain}"
            )
    told += legacy.let_through(networks)
    told += firewalld.trust(sock, networks)
    return found, told


def places(sock: socket, *, ipv6: bool) -> list[Place]:
    """Where somebody drops what is forwarded, or what comes in."""
    found = []
    chains = list(_chains(sock))
    for family, table, name, hook, dropped in chains:
        if (
            hook not in _HOOKS
            or (family == nft.IPV6 and not ipv6)
            or tags.is_table(table)
            or table == firewalld.TABLE
        ):
            continue
        if not (dropped or _ends_in_drop(sock, family, table, name)):
            continue
        to_docker = hook == nft.FORWARD and any(other[:3] == (family, table, _DOCKERS) for other in chains)
        chain = _DOCKERS if to_docker else name
        found.append(Place(family, table, name, chain, hook, by_policy=dropped))
    return found


def remove_foreign(sock: socket) -> int:
    """Delete our marked rules wherever they are; returns how many."""
    removed = 0
    for family in _FAMILIES:
        rules = marked_rules(sock, family)
        if rules:
            tables.commit(sock, [nft.delete_rule(family, *rule) for rule in rules])
        removed += len(rules)
    return removed + legacy.remove() + firewalld.forget(sock)


def marked_rules(sock: socket, family: int, table: str = "", chain: str = "") -> list[tuple[str, str, int]]:
    """Our rules in the chains of others: table, chain, handle."""
    return [place for place, _ in _marked(sock, family, table, chain)]


def _marked(sock: socket, family: int, table: str, chain: str) -> list[tuple[tuple[str, str, int], str]]:
    try:
        dump = messages.dump(sock, nft.get_rules(family, table, chain))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            raise
        return []
    found = []
    for _, payload_ in messages.split(dump):
        told = health.attributes(payload_, 4)
        comment = told.get(_RULE_COMMENT, b"")
        if health.MARK.encode() in comment and not tags.is_table(_text(told[_TABLE])):
            handle = int.from_bytes(told[_RULE_HANDLE], "big")
            found.append(((_text(told[_TABLE]), _text(told[_RULE_CHAIN]), handle), _text(comment[2:])))
    return found


def _key(place: Place) -> tuple[int, str, str]:
    return place.family, place.table, place.chain


def _add(sock: socket, place: Place, networks: list[Network]) -> int:
    """Add what is missing of our rules in one place; returns how many."""
    family, table, chain = _key(place)
    there = {comment for _, comment in _marked(sock, family, table, chain)}
    missing = [(why, parts) for why, parts in _wanted(place, networks) if why not in there]
    tables.commit(
        sock,
        [
            nft.rule(
                table, chain, *parts, counter(), verdict(nft.ACCEPT), comment=why, head=True, family=family
            )
            for why, parts in missing
        ],
    )
    return len(missing)


def _wanted(place: Place, networks: list[Network]) -> list[tuple[str, list[Part]]]:
    rules: list[tuple[str, list[Part]]] = []
    for why, direction, bridge, number, port in _openings(place, networks):
        parts: list[Part] = [interface(direction, bridge)]
        if number:
            parts.append(protocol(number))
        if port:
            parts += [payload(2, 2, 2), compare(port.to_bytes(2, "big"))]
        rules.append((why, parts))
    return rules


def _openings(place: Place, networks: list[Network]) -> list[openings.Opening]:
    if place.hook == nft.FORWARD:
        return list(openings.forwarded(networks))
    return list(openings.incoming(networks, ipv6=place.family != nft.IPV4))


def _chains(sock: socket) -> list[tuple[int, str, str, int, bool]]:
    """Every filter chain of others: family, table, name, hook (-1 for none), whether its policy is to drop."""
    found = []
    for _, payload_ in messages.split(messages.dump(sock, nft.get_chains())):
        told = health.attributes(payload_, 4)
        if payload_[0] not in _FAMILIES or _CHAIN_NAME not in told:
            continue
        hook = -1
        if told.get(_CHAIN_TYPE, b"").startswith(b"filter"):
            hook = int.from_bytes(health.attributes(told[_CHAIN_HOOK], 0)[1], "big")
        dropped = health.policy(payload_) == nft.DROP
        found.append((payload_[0], _text(told[_TABLE]), _text(told[_CHAIN_NAME]), hook, dropped))
    return found


def _ends_in_drop(sock: socket, family: int, table: str, chain: str) -> bool:
    """Whether the last rule drops or rejects whatever gets there."""
    last: list[tuple[str, bytes]] = []
    for _, payload_ in messages.split(messages.dump(sock, nft.get_rules(family, table, chain))):
        listed = health.attributes_in_order(health.attributes(payload_, 4).get(_RULE_EXPRESSIONS, b""))
        parts = [health.attributes(expression, 0) for expression in listed]
        last = [(_text(part[1]), part.get(2, b"")) for part in parts]
    kinds = [name for name, _ in last if name not in ("counter", "log")]
    if kinds == ["reject"]:
        return True
    if kinds == ["target"]:
        return any(b"REJECT" in data for _, data in last)
    return kinds == ["immediate"] and any(_is_drop(data) for name, data in last if name == "immediate")


def _is_drop(immediate: bytes) -> bool:
    value = health.attributes(health.attributes(immediate, 0).get(2, b""), 0).get(2)
    code = health.attributes(value, 0).get(1) if value else None
    return code is not None and int.from_bytes(code, "big") == nft.DROP


def _named(place: Place) -> str:
    family = _FAMILIES[place.family]
    return f"the chain {place.base} of another firewall's table {family} {place.table}"


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")
