"""The rules of `nft -j list ruleset` that filter what enters or is forwarded, for judge.py.

Source: man 5 libnftables-json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyrun.network import tags
from pyrun.network.publishing.host_rules.judge import (
    ACCEPT,
    DROP,
    GOTO,
    JUMP,
    RETURN,
    Hook,
    Rule,
    Test,
    networks,
)

_FAMILIES = {"inet": (False, True), "ip": (False,), "ip6": (True,)}
_VERDICTS = {"accept": ACCEPT, "drop": DROP, "reject": DROP, "return": RETURN, "queue": DROP}
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp", 1: "icmp", 58: "ipv6-icmp"}
# Statements that change or tell something and leave the decision to what follows.
_IDLE = (
    "counter",
    "log",
    "limit",
    "mangle",
    "notrack",
    "comment",
    "quota",
    "last",
    "set",
    "meter",
    "ct helper",
    "secmark",
)
_STATES = {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}


def _is_ours(table: tuple[str, str]) -> bool:
    return table[0] == "inet" and tags.is_table(table[1])


def hooks(document: dict[str, Any], skipped: set[tuple[str, str]], where: str = "input") -> list[Hook]:
    """Every chain of the hook *where*, but for those in the tables *skipped*: (family, name)."""
    items: list[dict[str, Any]] = document["nftables"]
    chains: dict[tuple[str, str], dict[str, list[Rule]]] = {}
    sets = {_place(item, kind): item[kind] for item in items for kind in ("set", "map") if kind in item}
    for item in items:
        if "rule" in item:
            rule = item["rule"]
            listed = chains.setdefault((rule["family"], rule["table"]), {}).setdefault(rule["chain"], [])
            listed += _rules(rule, sets)
    found = []
    for item in items:
        chain = item.get("chain", {})
        table = (chain.get("family"), chain.get("table"))
        if (
            chain.get("hook") == where
            and table[0] in _FAMILIES
            and not _is_ours(table)
            and table not in skipped
        ):
            policy = ACCEPT if chain.get("policy", "accept") == "accept" else DROP
            name = (
                "firewalld"
                if table[1] == "firewalld"
                else f"chain {chain['name']} of table {' '.join(table)} (nftables)"
            )
            found.append(Hook(name, chain["name"], policy, chains.get(table, {}), _FAMILIES[table[0]]))
    return found


def _place(item: dict[str, Any], kind: str) -> tuple[str, str, str]:
    told = item[kind]
    return told["family"], told["table"], told["name"]


def _rules(rule: dict[str, Any], sets: dict[tuple[str, str, str], Any]) -> list[Rule]:
    """The rule, or several for a verdict map."""
    tests: list[Test] = []
    place = (rule["family"], rule["table"])
    for statement in rule.get("expr", ()):
        kind, value = next(iter(statement.items()))
        if kind == "match":
            tests.append(_test(value["left"], _listed(value["right"], place, sets), value["op"]))
        elif kind in _VERDICTS:
            return [Rule(tuple(tests), _VERDICTS[kind])]
        elif kind in (JUMP, GOTO):
            return [Rule(tuple(tests), kind, value["target"])]
        elif kind == "vmap":
            return _of_map(tests, value, place, sets)
        elif kind not in _IDLE or (kind == "limit" and isinstance(value, dict) and value.get("inv")):
            tests.append(Test("other"))
    return []


def _of_map(
    tests: list[Test], vmap: dict[str, Any], place: tuple[str, str], sets: dict[tuple[str, str, str], Any]
) -> list[Rule]:
    found = []
    for pair in _listed(vmap["data"], place, sets):
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], dict):
            continue
        key, decision = pair
        ((kind, value),) = decision.items()
        test = _test(vmap["key"], _listed(key, place, sets), "==")
        if kind in _VERDICTS:
            found.append(Rule((*tests, test), _VERDICTS[kind]))
        elif kind in (JUMP, GOTO):
            found.append(Rule((*tests, test), kind, value["target"]))
    return found


def _listed(right: Any, place: tuple[str, str], sets: dict[tuple[str, str, str], Any]) -> list[Any]:
    """The values on the right side: of one, of a set, of a set by name."""
    if isinstance(right, str) and right.startswith("@"):
        right = {"set": sets.get((*place, right[1:]), {}).get("elem", [])}
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    elif not isinstance(right, list):
        right = [right]
    return [value["elem"]["val"] if isinstance(value, dict) and "elem" in value else value for value in right]


def _test(left: Any, values: list[Any], operator: str) -> Test:
    negated = operator == "!="
    if operator not in ("==", "!=", "in") or not isinstance(left, dict):
        return Test("other", (), negated)
    ((kind, told),) = left.items()
    key = str(told.get("key") or told.get("field") or told.get("result")) if isinstance(told, dict) else ""
    if (kind, key) == ("payload", "dport"):
        return _ports(values, negated)
    if kind == "payload" and key in ("saddr", "daddr"):
        found = networks([_network(value) for value in values])
        what = {"saddr": "source", "daddr": "address"}[key]
        return Test(what if found is not None else "other", found or (), negated)
    what, meaning = _KINDS.get((kind, key), ("other", str))
    if kind == "fib" and told.get("flags") not in ("daddr", ["daddr"]):
        what = "other"
    return Test(what, tuple(map(meaning, values)), negated)


def _protocol(value: Any) -> str:
    return _PROTOCOLS.get(value, str(value))


def _state(value: Any) -> str:
    return _STATES.get(value, str(value))


def _status(value: Any) -> str:
    return {32: "dnat"}.get(value, str(value))


def _is_six(value: Any) -> bool:
    return str(value) in ("ipv6", "ip6", "10")


# What a rule looks at -> (the test of judge.py, the meaning of its values)
_KINDS: dict[tuple[str, str], tuple[str, Callable[[Any], object]]] = {
    ("meta", "iifname"): ("interface", str),
    ("meta", "iif"): ("interface", str),
    ("meta", "oifname"): ("outgoing", str),
    ("meta", "oif"): ("outgoing", str),
    ("meta", "l4proto"): ("protocol", _protocol),
    ("payload", "protocol"): ("protocol", _protocol),
    ("payload", "nexthdr"): ("protocol", _protocol),
    ("payload", "type"): ("protocol", lambda _: "icmp"),
    ("meta", "nfproto"): ("six", _is_six),
    ("meta", "protocol"): ("six", _is_six),
    ("ct", "state"): ("state", _state),
    ("ct", "status"): ("status", _status),
    ("fib", "type"): ("local", str),
}


def _ports(values: list[Any], negated: bool) -> Test:
    pairs = []
    for value in values:
        low, high = value["range"] if isinstance(value, dict) and "range" in value else (value, value)
        if not (isinstance(low, int) and isinstance(high, int)):
            return Test("other", (), negated)
        pairs.append((low, high))
    return Test("port", tuple(pairs), negated)


def _network(value: Any) -> str:
    if isinstance(value, dict) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    return str(value)
