"""The filter table as iptables-save prints it, for judge.py. Source: man 8 iptables-save, iptables-extensions."""

from __future__ import annotations

import shlex

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

_VERDICTS = {"ACCEPT": ACCEPT, "DROP": DROP, "REJECT": DROP, "RETURN": RETURN, "QUEUE": DROP, "NFQUEUE": DROP}
# Targets that change or tell something and let the next rule decide.
_GOING_ON = ("LOG", "NFLOG", "MARK", "CONNMARK", "TRACE", "AUDIT", "SET", "TCPMSS", "CHECKSUM", "CLASSIFY")
# What says nothing about whether a packet passes: names of extensions, comments, how often.
_IDLE = ("-m", "--match", "--comment", "--limit", "--limit-burst", "-c", "--set-counters", "--reject-with",
         "--log-prefix", "--log-level", "--queue-num", "--mask", "--rsource", "--name")  # fmt: skip


def hook(text: str, name: str, *, six: bool, begins: str = "INPUT") -> Hook | None:
    """The chain *begins* of the table filter and all it may call; None when there is none."""
    chains: dict[str, list[Rule]] = {}
    policy = table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif table != "filter":
            continue
        elif line.startswith(":"):
            chain, word, *_ = line[1:].split(" ")
            chains[chain] = []
            policy = word.lower() if chain == begins else policy
        elif line.startswith("-A "):
            chain, rule = _rule(line)
            if rule:
                chains.setdefault(chain, []).append(rule)
    if begins not in chains:
        return None
    ufw = "ufw-user-input" in chains or "ufw6-user-input" in chains
    return Hook("ufw" if ufw else name, begins, ACCEPT if policy == "accept" else DROP, chains, (six,))


def _rule(line: str) -> tuple[str, Rule | None]:
    """The chain and the rule; None for a rule that decides nothing."""
    words = shlex.split(line)
    tests: list[Test] = []
    verdict = target = ""
    negated, at = False, 2
    while at < len(words):
        option = words[at]
        at += 1
        if option == "!":
            negated = True
            continue
        values = []
        while (
            at < len(words) and (not words[at].startswith("-") or _is_number(words[at])) and words[at] != "!"
        ):
            values.append(words[at])
            at += 1
        if option in ("-j", "-g"):
            verdict, target = _verdict(values[0], goto=option == "-g")
        elif option not in _IDLE:
            tests.append(_test(option, values, negated))
        negated = False
    if not verdict:
        return words[1], None
    return words[1], Rule(tuple(tests), verdict, target)


def _is_number(word: str) -> bool:
    return word[1:].isdigit()


def _verdict(word: str, *, goto: bool) -> tuple[str, str]:
    if word in _VERDICTS:
        return _VERDICTS[word], ""
    if word in _GOING_ON:
        return "", ""
    return (GOTO if goto else JUMP), word


def _test(option: str, values: list[str], negated: bool) -> Test:
    word = values[0] if values else ""
    if option in ("-s", "-d"):
        found = networks([word])
        return Test({"-s": "source", "-d": "address"}[option] if found else "other", found or (), negated)
    if option in ("--dport", "--dports"):
        return _ports(word, negated)
    what, said = "other", tuple(word.lower().split(","))
    if option in ("-i", "-o"):
        what, said = (
            "interface" if option == "-i" else "outgoing",
            (word[:-1] + "*" if word.endswith("+") else word,),
        )
    elif option in ("-p", "--protocol"):
        what = "protocol"
    elif option in ("--ctstate", "--state"):
        what = "state"
    elif option == "--dst-type":
        what = "local"
    elif option == "--syn" or (option == "--tcp-flags" and values[-1:] == ["SYN"]):
        what, said = "protocol", ("tcp",)
    elif option.startswith("--icmp"):
        what, said = "protocol", ("icmp", "ipv6-icmp")
    return Test(what, said, negated)


def _ports(text: str, negated: bool) -> Test:
    pairs = []
    for word in text.split(","):
        low, colon, high = word.partition(":")
        if not (low.isdigit() and (not colon or high.isdigit())):
            return Test("other")
        pairs.append((int(low), int(high or low)))
    return Test("port", tuple(pairs), negated)
