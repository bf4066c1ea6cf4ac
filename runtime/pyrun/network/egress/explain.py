"""What the operation of an egress policy says to a reader; network/explain.py adds it to the others."""

from __future__ import annotations

from collections.abc import Callable

from pyrun.network.firewall import names
from pyrun.plan.operations import Operation


def _egress(operation: Operation) -> tuple[str, str, str]:
    _, text, addresses, _, _ = (str(item) for item in operation.args)
    sets = {names.POLICED6 if ":" in address else names.POLICED: address for address in addresses.split(" ")}
    return (
        f"let the container open connections only as its policy says: {text}",
        "; ".join(f"nft add element inet {names.TABLE} {name} '{{ {own} }}'" for name, own in sets.items()),
        f"nft list chain inet {names.TABLE} egress; nft list set inet {names.TABLE} {names.ALLOWED}",
    )


def _apart(operation: Operation) -> tuple[str, str, str]:
    bridge, link = (str(item) for item in operation.args)
    return (
        f"have what {link} says to its neighbours on {bridge} meet the rules",
        f"echo 1 >/sys/class/net/{link}/brport/bridge/bridge/nf_call_iptables",
        "cat /proc/sys/net/bridge/bridge-nf-call-iptables",
    )


EXPLAIN: dict[str, Callable[[Operation], tuple[str, str, str]]] = {"EGRESS": _egress, "APART": _apart}
