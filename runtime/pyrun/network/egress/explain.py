"""What the operation of an egress policy says to a reader; network/explain.py adds it to the others."""

from __future__ import annotations

from collections.abc import Callable

from pyrun.network.egress import parse
from pyrun.network.egress.policy import is_open
from pyrun.network.firewall import names
from pyrun.plan.operations import Operation


def _egress(operation: Operation) -> tuple[str, str, str]:
    _, text, addresses, _, _ = (str(item) for item in operation.args)
    elements = [each for own in addresses.split(" ") for each in _elements(own, text)]
    return (
        f"let the container open connections only as its policy says: {text}",
        "; ".join(f"nft add element inet {names.TABLE} {name} '{{ {key} }}'" for name, key in elements),
        f"nft list chain inet {names.TABLE} egress; nft list set inet {names.TABLE} {names.ALLOWED}",
    )


def _elements(own: str, text: str) -> list[tuple[str, str]]:
    """(set, key) of what the policy says of one address; what names resolve to comes with the resolver's answers."""
    policy, six = parse.parse(text), ":" in own
    if policy is None:
        return []
    found = [(names.POLICED6 if six else names.POLICED, own)]
    everybody = "::/0" if six else "0.0.0.0/0"
    for network, port, protocol in [(everybody, "*", "*")] if is_open(policy) else policy.allow:
        if (":" in network) == six:
            ports, number = ("0-65535" if port == "*" else port), _number(protocol, six=six)
            found.append(
                (names.ALLOWED6 if six else names.ALLOWED, f"{own} . {network} . {number} . {ports}")
            )
    denied = names.DENIED6 if six else names.DENIED
    return found + [(denied, f"{own} . {network}") for network in policy.deny if (":" in network) == six]


def _number(protocol: str, *, six: bool) -> str:
    if protocol == "*":
        return "0-255"
    return "ipv6-icmp" if six and protocol == "icmp" else protocol


def _apart(operation: Operation) -> tuple[str, str, str]:
    bridge, link = (str(item) for item in operation.args)
    return (
        f"have what {link} says to its neighbours on {bridge} meet the rules",
        f"echo 1 >/sys/class/net/{link}/brport/bridge/bridge/nf_call_iptables",
        f"cat /sys/class/net/{link}/brport/bridge/bridge/nf_call_iptables",
    )


EXPLAIN: dict[str, Callable[[Operation], tuple[str, str, str]]] = {"EGRESS": _egress, "APART": _apart}
