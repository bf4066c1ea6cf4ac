"""What the host's own firewall would let in: rules as ufw, firewalld, administrators and distributions write them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from pyrun import boot
from pyrun.network.publishing import host_firewall
from pyrun.network.publishing.host_rules import iptables, nftables
from pyrun.network.publishing.host_rules.judge import Hook, Packet, refusal


def saved(*rules: str, policy: str = "DROP", chains: tuple[str, ...] = ()) -> Hook:
    lines = ["*nat", ":PREROUTING ACCEPT [0:0]", "-A PREROUTING -j ACCEPT", "COMMIT", "*filter"]
    lines += [f":INPUT {policy} [0:0]", ":FORWARD DROP [0:0]", *[f":{chain} - [0:0]" for chain in chains]]
    hook = iptables.hook("\n".join([*lines, *rules, "COMMIT"]), "the chain INPUT", six=False)
    assert hook
    return hook


def said(hook: Hook, port: int, protocol: str = "tcp", *, six: bool = False, uplink: str = "eth0") -> str:
    return refusal(hook, Packet(protocol, port, six, uplink))


PASSED, REFUSED = "", "the chain INPUT does not let it in"


@pytest.mark.parametrize(
    ("rules", "answer"),
    [
        ([], REFUSED),
        (["-A INPUT -j ACCEPT"], PASSED),
        (["-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT"], PASSED),
        (["-A INPUT -p udp -m udp --dport 8080 -j ACCEPT"], REFUSED),
        (["-A INPUT -p tcp -m tcp --dport 8000:8090 -j ACCEPT"], PASSED),
        (["-A INPUT -p tcp -m multiport --dports 80,443,8080 -j ACCEPT"], PASSED),
        (["-A INPUT -p tcp -m multiport --dports 80,443,9000:9010 -j ACCEPT"], REFUSED),
        (["-A INPUT -p tcp -m tcp ! --dport 22 -j ACCEPT"], PASSED),
        (["-A INPUT -i lo -j ACCEPT"], REFUSED),
        (["-A INPUT ! -i lo -j ACCEPT"], PASSED),
        (["-A INPUT -i eth+ -p tcp -j ACCEPT"], PASSED),
        (["-A INPUT -i eth1 -j ACCEPT"], REFUSED),
        (["-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT"], REFUSED),
        (["-A INPUT -p tcp -m conntrack --ctstate NEW -m tcp --dport 8080 -j ACCEPT"], PASSED),
        (["-A INPUT -p tcp -m tcp --dport 8080 --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT"], PASSED),
        (["-A INPUT -p icmp -m icmp --icmp-type 8 -j ACCEPT"], REFUSED),
        (['-A INPUT -p tcp -m tcp --dport 8080 -m comment --comment "the shop, -j DROP" -j ACCEPT'], PASSED),
        (["-A INPUT -p tcp -m limit --limit 5/sec --limit-burst 10 -j ACCEPT"], PASSED),
        (["-A INPUT -j LOG --log-prefix denied", "-A INPUT -j ACCEPT"], PASSED),
        (["-A INPUT -j REJECT --reject-with icmp-host-prohibited", "-A INPUT -j ACCEPT"], REFUSED),
        (["-A INPUT -m mark --mark 0x1 -j ACCEPT"], "the chain INPUT lets it in from some only"),
        (["-A INPUT -s 10.0.0.0/8 -j ACCEPT"], "the chain INPUT lets it in from 10.0.0.0/8 only"),
        (["-A INPUT -s 0.0.0.0/0 -j ACCEPT"], PASSED),
        (["-A INPUT -s 203.0.113.7/32 -j DROP", "-A INPUT -j ACCEPT"], PASSED),
        (["-A INPUT ! -s 10.0.0.0/8 -j DROP", "-A INPUT -j ACCEPT"], REFUSED),
        (["-A INPUT ! -i eth1 -s 203.0.113.7/32 -j DROP", "-A INPUT -j ACCEPT"], PASSED),
        (["-A INPUT ! -i eth1 -j DROP", "-A INPUT -j ACCEPT"], REFUSED),
        (["-A INPUT ! -i eth0 -j DROP", "-A INPUT -j ACCEPT"], PASSED),
        (["-A INPUT -m mark ! --mark 0x1 -j DROP", "-A INPUT -j ACCEPT"], PASSED),
        (["-A INPUT -d 192.0.2.1/32 -j ACCEPT"], "the chain INPUT lets it in from some only"),
    ],
)
def test_rules_of_iptables(rules: list[str], answer: str) -> None:
    assert said(saved(*rules), 8080) == answer


def test_chains_call_chains_and_return() -> None:
    hook = saved(
        "-A INPUT -j first", "-A INPUT -p tcp -m tcp --dport 9000 -j ACCEPT",
        "-A first -p tcp -m tcp --dport 9000 -j RETURN", "-A first -g second", "-A first -j ACCEPT",
        "-A second -p tcp -m tcp --dport 8080 -j ACCEPT",
        chains=("first", "second"),
    )  # fmt: skip
    assert said(hook, 8080) == PASSED
    assert said(hook, 9000) == PASSED
    assert said(hook, 9001) == REFUSED, "what follows a goto is not come back to"


def test_chains_that_call_one_another_end() -> None:
    hook = saved("-A INPUT -j one", "-A one -j two", "-A two -j one", chains=("one", "two"))
    assert said(hook, 8080) == REFUSED


def test_a_policy_that_accepts() -> None:
    hook = saved("-A INPUT -p tcp -m tcp --dport 8080 -j DROP", policy="ACCEPT")
    assert said(hook, 8080) == REFUSED
    assert said(hook, 8081) == PASSED


# As ufw 0.36 has it in the kernel, shortened:
# `ufw allow 80/tcp; ufw limit 22/tcp; ufw allow from 10.0.0.0/8 to any port 8080`.
UFW = """
-A INPUT -j ufw-before-input
-A INPUT -j ufw-after-input
-A INPUT -j ufw-reject-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny
-A ufw-not-local -j DROP
-A ufw-user-input -p tcp -m tcp --dport 80 -j ACCEPT
-A ufw-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --set --name DEFAULT --mask 255.255.255.255 --rsource
-A ufw-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 6 --name DEFAULT --mask 255.255.255.255 --rsource -j ufw-user-limit
-A ufw-user-input -p tcp -m tcp --dport 22 -j ufw-user-limit-accept
-A ufw-user-input -s 10.0.0.0/8 -p tcp -m tcp --dport 8080 -j ACCEPT
-A ufw-user-limit -m limit --limit 3/min -j LOG --log-prefix "[UFW LIMIT BLOCK] "
-A ufw-user-limit -j REJECT --reject-with icmp-port-unreachable
-A ufw-user-limit-accept -j ACCEPT
""".strip().splitlines()  # noqa: E501


@pytest.mark.parametrize(
    ("port", "protocol", "answer"),
    [
        (80, "tcp", PASSED),
        (80, "udp", "ufw does not let it in"),
        (22, "tcp", PASSED),
        (8080, "tcp", "ufw lets it in from 10.0.0.0/8 only"),
        (443, "tcp", "ufw does not let it in"),
    ],
)
def test_ufw(port: int, protocol: str, answer: str) -> None:
    chains = (
        "ufw-before-input",
        "ufw-user-input",
        "ufw-not-local",
        "ufw-user-limit",
        "ufw-user-limit-accept",
    )
    assert said(saved(*UFW, chains=chains), port, protocol) == answer


# ── nft -j ─────────────────────────────────────────────────────────────────────────────────────────


def match(left: object, right: object, op: str = "==") -> dict[str, object]:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str) -> dict[str, object]:
    return {"payload": {"protocol": protocol, "field": field}}


def table(
    *rules: list[object], policy: str = "drop", name: str = "filter", more: tuple[object, ...] = ()
) -> Hook:
    base = {
        "family": "inet",
        "table": name,
        "name": "input",
        "type": "filter",
        "hook": "input",
        "policy": policy,
    }
    items: list[object] = [
        {"metainfo": {}},
        {"table": {"family": "inet", "name": name}},
        {"chain": base},
        *more,
    ]
    for rule in rules:
        chain = rule.pop(0) if isinstance(rule[0], str) else "input"
        items.append({"rule": {"family": "inet", "table": name, "chain": chain, "expr": rule}})
    (hook,) = nftables.hooks(json.loads(json.dumps({"nftables": items})), set())
    return hook


TCP_8080 = match(payload("tcp", "dport"), 8080)
ACCEPT: dict[str, object] = {"accept": None}
NOT_IN = "chain input of table inet filter (nftables) does not let it in"
SOME = "chain input of table inet filter (nftables) lets it in from some only"
STATE = {"ct": {"key": "state"}}


@pytest.mark.parametrize(
    ("rules", "answer"),
    [
        ([[ACCEPT]], ""),
        ([[TCP_8080, {"counter": {"packets": 0, "bytes": 0}}, ACCEPT]], ""),
        ([[match(payload("tcp", "dport"), {"set": [22, {"range": [8000, 8090]}]}), ACCEPT]], ""),
        ([[match(payload("tcp", "dport"), {"set": [22, 443]}), ACCEPT]], NOT_IN),
        ([[match(payload("tcp", "dport"), 22, "!="), ACCEPT]], ""),
        ([[match({"meta": {"key": "iifname"}}, "lo"), ACCEPT]], NOT_IN),
        ([[match({"meta": {"key": "iifname"}}, "eth*"), ACCEPT]], ""),
        ([[match({"meta": {"key": "l4proto"}}, {"set": [6, 17]}), match(payload("th", "dport"), 8080), ACCEPT]], ""),
        ([[match({"meta": {"key": "l4proto"}}, "udp"), ACCEPT]], NOT_IN),
        ([[match({"ct": {"key": "state"}}, ["established", "related"], "in"), ACCEPT]], NOT_IN),
        ([[match({"ct": {"key": "state"}}, "new", "in"), TCP_8080, ACCEPT]], ""),
        ([[{"vmap": {"key": STATE, "data": {"set": [["established", ACCEPT], ["new", ACCEPT]]}}}]], ""),
        ([[{"vmap": {"key": payload("tcp", "dport"), "data": {"set": [[8080, {"drop": None}]]}}}], [ACCEPT]], NOT_IN),
        ([[{"xt": {"type": "match", "name": "x"}}, ACCEPT]], SOME),
        ([[match(payload("ip", "saddr"), {"prefix": {"addr": "10.0.0.0", "len": 8}}), ACCEPT]],
         SOME.replace("some", "10.0.0.0/8")),
        ([[{"limit": {"rate": 3, "per": "minute", "inv": True}}, {"drop": None}], [ACCEPT]], ""),
        ([[{"log": {"prefix": "x"}}], [{"reject": {"type": "icmpx"}}], [ACCEPT]], NOT_IN),
        ([[match({"meta": {"key": "nfproto"}}, "ipv6"), ACCEPT]], NOT_IN),
        ([[match({"ct": {"key": "status"}}, "dnat", "in"), ACCEPT]], NOT_IN),
        ([[{"jump": {"target": "web"}}], ["web", TCP_8080, ACCEPT]], ""),
        ([[{"goto": {"target": "web"}}], ["web", match(payload("tcp", "dport"), 1), ACCEPT], [ACCEPT]], NOT_IN),
    ],
)  # fmt: skip
def test_rules_of_nftables(rules: list[list[object]], answer: str) -> None:
    assert said(table(*json.loads(json.dumps(rules))), 8080) == answer


def test_a_set_by_its_name() -> None:
    named = {
        "set": {"family": "inet", "table": "filter", "name": "web", "elem": [{"elem": {"val": 8080}}, 443]}
    }
    hook = table([match(payload("tcp", "dport"), "@web"), ACCEPT], more=(named,))
    assert said(hook, 8080) == said(hook, 443) == ""
    assert said(hook, 80) == NOT_IN


def test_firewalld() -> None:
    """Its table accepts by policy and rejects by a last rule; which zone counts is a matter of the interface."""
    hook = table(
        [match({"ct": {"key": "state"}}, {"set": ["established", "related"]}, "in"), ACCEPT],
        [match({"meta": {"key": "iifname"}}, "lo"), ACCEPT],
        [{"jump": {"target": "filter_INPUT_ZONES"}}],
        [{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}],
        ["filter_INPUT_ZONES", match({"meta": {"key": "iifname"}}, "eth0"), {"goto": {"target": "filter_IN_public"}}],
        ["filter_INPUT_ZONES", {"goto": {"target": "filter_IN_trusted"}}],
        ["filter_IN_public", match(payload("tcp", "dport"), 22), ACCEPT],
        ["filter_IN_trusted", ACCEPT],
        policy="accept", name="firewalld",
    )  # fmt: skip
    assert said(hook, 22) == ""
    assert said(hook, 8080) == "firewalld does not let it in"
    assert said(hook, 8080, uplink="eth1") == ""


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        ("-i eth0 -o br666 -j ACCEPT", True),
        ("! -i br666 -o br6+ -j ACCEPT", True),
        ("-o docker0 -j ACCEPT", False),
        ("-d 10.0.0.2/32 -p tcp -m tcp --dport 80 -j ACCEPT", True),
        ("-p tcp -m tcp --dport 8080 -j ACCEPT", False),
        ("-m conntrack --ctstate DNAT -j ACCEPT", True),
        ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", False),
    ],
)
def test_what_is_forwarded(rule: str, passed: bool) -> None:
    """It goes to the container's address and port by now, and its flow is known to be redirected."""
    hook = iptables.hook(
        f"*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n-A FORWARD {rule}\nCOMMIT",
        "FORWARD",
        six=False,
        begins="FORWARD",
    )
    assert hook and (refusal(hook, FORWARDED) == "") is passed


FORWARDED = Packet("tcp", 80, False, "eth0", "10.0.0.2", outgoing="br666")


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        ([match({"ct": {"key": "status"}}, 32, "in")], True),
        ([match({"ct": {"key": "status"}}, ["snat", "dnat"], "in")], True),
        ([match({"meta": {"key": "oifname"}}, "br6*")], True),
        ([match({"meta": {"key": "oif"}}, "docker0")], False),
    ],
)
def test_what_is_forwarded_by_nftables(rule: list[object], passed: bool) -> None:
    base = {"family": "inet", "table": "t", "name": "fwd", "hook": "forward", "policy": "drop"}
    rules = {"family": "inet", "table": "t", "chain": "fwd", "expr": [*rule, ACCEPT]}
    document = {"nftables": [{"chain": base}, {"rule": rules}]}
    (hook,) = nftables.hooks(document, set(), "forward")
    assert (refusal(hook, FORWARDED) == "") is passed and nftables.hooks(document, set()) == []


def test_the_strictest_of_all_hooks_and_uplinks_counts() -> None:
    open_hook = saved("-A INPUT -j ACCEPT")
    one_card = saved("-A INPUT -i eth0 -j ACCEPT")
    ports = [("0.0.0.0", 8080, 80, "tcp"), ("127.0.0.1", 8081, 80, "tcp"), ("::", 8082, 80, "tcp")]
    assert host_firewall.refused(ports, [open_hook], ["eth0"]) == {}
    assert host_firewall.refused(ports, [open_hook, one_card], ["eth0"]) == {}
    # the loopback's port is nobody's business, and these rules are not about IPv6
    assert host_firewall.refused(ports, [open_hook, one_card], ["eth0", "eth1"]) == {
        ports[0]: f"{REFUSED} on eth1"
    }


def test_rules_of_legacy_iptables_for_ipv6_alone_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that has loaded nothing else; then nothing more is asked."""
    names = [tmp_path / "ip_tables_names", tmp_path / "ip6_tables_names"]
    names[1].write_text("filter\n")
    monkeypatch.setattr(host_firewall, "_LEGACY", tuple(map(str, names)))
    with socket.socket() as nobody:
        assert host_firewall.suspected(nobody)


def test_a_rule_for_an_address_counts_for_a_port_of_that_address() -> None:
    hook = saved("-A INPUT -d 192.0.2.1/32 -p tcp -j ACCEPT")
    mine, other = ("192.0.2.1", 8080, 80, "tcp"), ("192.0.2.2", 8080, 80, "tcp")
    assert host_firewall.refused([mine, other], [hook], ["eth0"]) == {other: REFUSED}


@pytest.mark.parametrize("what", ["table", "chain"])
def test_the_dumps_are_what_pyroute2_encodes(what: str) -> None:
    from pyrun.network import nft

    boot.site_packages()
    from pyroute2.netlink.nfnetlink import nftsocket

    encoded = getattr(nftsocket, f"nft_{what}_msg")()
    encoded["header"]["type"] = 10 << 8 | getattr(nftsocket, f"NFT_MSG_GET{what.upper()}")
    encoded["header"]["flags"] = nft.REQUEST | nft.DUMP
    encoded["nfgen_family"] = encoded["version"] = encoded["res_id"] = 0
    encoded.encode()
    assert bytes(encoded.data) == getattr(host_firewall, f"DUMP_{what.upper()}S")
