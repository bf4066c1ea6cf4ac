"""Beside other people's firewalls: what they drop is let through by a few marked rules, which prune takes away again.

Those of iptables, of iptables-legacy, and tables somebody wrote for nft; Docker is in tests/peers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from command import Pyrun
from places import NEIGHBOUR, address_of, gateway_of, listening, page, pings
from yard import SERVE, SLEEP, run

pytestmark = pytest.mark.alone

MARK = "pyrun: containers"
ANSWERS = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
LOOPBACK = "-i lo -j ACCEPT"


WANTED = "-p tcp --dport 8080 -j ACCEPT"


def iptables(command: str, *last: str) -> list[str]:
    """A strict firewall that lets in port 8080 and answers, and forwards nothing."""
    return [
        f"{command} {words}"
        for words in (f"-A INPUT {ANSWERS}", f"-A INPUT {LOOPBACK}", f"-A INPUT {WANTED}", *last)
    ]


POLICY = ("-P INPUT DROP", "-P FORWARD DROP")
NFT = """
table inet mine {
    chain input {
        type filter hook input priority 10; policy drop;
        ct state established,related accept
        iifname lo accept
        tcp dport 8080 accept
    }
    chain forward {
        type filter hook forward priority 10; policy drop;
    }
}
"""
FIREWALLS = {
    "iptables": [*iptables("iptables", *POLICY), *iptables("ip6tables", *POLICY)],
    "iptables-legacy": [*iptables("iptables-legacy", *POLICY), *iptables("ip6tables-legacy", *POLICY)],
    "rejecting": iptables(
        "iptables", "-A INPUT -j REJECT", "-A FORWARD -j REJECT --reject-with icmp-host-prohibited"
    ),
    "dropping": iptables("iptables", "-A INPUT -j DROP", "-A FORWARD -j DROP"),
    "nft": [f"nft -f - <<'X'\n{NFT}\nX"],
}


def rules() -> str:
    """Everything filtered on this host, without counters."""
    shown = [run("nft", "--stateless", "list", "ruleset")]
    shown += [run(f"{command}-legacy", "-S") for command in ("iptables", "ip6tables")]
    return re.sub(r"counter packets \d+ bytes \d+", "counter", "".join(shown))


@pytest.fixture(params=sorted(FIREWALLS))
def firewall(request: pytest.FixtureRequest, lab: None) -> Iterator[str]:
    for command in ("iptables", "ip6tables"):  # the tables are there from now on, empty
        run(f"{command}-legacy", "-S")
    for line in FIREWALLS[request.param]:
        run("sh", "-c", line)
    yield request.param
    run("nft", "flush", "ruleset")
    for command in ("iptables-legacy", "ip6tables-legacy"):
        run("sh", "-c", f"{command} -P INPUT ACCEPT; {command} -P FORWARD ACCEPT; {command} -F")


def works(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """Everything of a network but nothing else."""
    pyrun.ok("run", "-d", "--name", "web", "--network", "six", "-p", "8080:80", "busybox", *SERVE)
    pyrun.ok("run", "-d", "--name", "box", "--network", "six", "busybox", *SLEEP)
    listening("web")
    address, address6 = address_of("web"), address_of("web", 6)
    assert page(NEIGHBOUR, f"{internet.host}:8080") == "a secret"
    assert page("", "127.0.0.1:8080") == page("", f"[{address6}]") == "a secret"
    assert page("box", address) == page("box", f"[{address6}]") == "a secret"
    assert page("box", internet.far) == f"you are {internet.host}"
    assert pings("box", gateway_of("box", 6)), "IPv6 finds nobody"
    assert internet.far in pyrun.ok("exec", "box", "nslookup", internet.name), "the resolver is not reached"
    assert "web" in pyrun.ok("exec", "box", "nslookup", "web")
    assert "no:" in page(NEIGHBOUR, f"{address}")
    pyrun.ok("rm", "-f", "web", "box")


def test_containers_beside_a_strict_firewall(pyrun: Pyrun, internet: SimpleNamespace, firewall: str) -> None:
    before = rules()
    made = pyrun("network", "create", "--ipv6", "six")
    assert made.returncode == 0 and "rules" in made.stderr and "prune" in made.stderr, made.stderr
    assert MARK in rules()
    works(pyrun, internet)
    again = rules()
    assert "nothing was missing" in pyrun.ok("network", "reload")
    assert rules() == again, "added twice"
    pyrun.ok("network", "rm", "six")
    pyrun.ok("network", "prune")
    assert rules() == before


def test_its_rules_are_read_again(pyrun: Pyrun, internet: SimpleNamespace, firewall: str) -> None:
    """The other firewall is loaded anew: ours come back with the next reload, or the next start."""
    pyrun.ok("network", "create", "--ipv6", "six")
    before = rules()
    for command in ("iptables", "ip6tables"):
        for kind in ("", "-legacy"):
            run("sh", "-c", f"{command}{kind} -S >/dev/null; {command}{kind} -F")
    run("sh", "-c", "nft delete table inet mine 2>/dev/null || true")
    for line in FIREWALLS[firewall]:
        run("sh", "-c", line)
    pyrun("network", "reload")
    assert sorted(rules().splitlines()) == sorted(before.splitlines())
    works(pyrun, internet)


def test_a_firewall_that_comes_later(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """Noticed by the next start."""
    pyrun.ok("network", "create", "--ipv6", "six")
    pyrun.ok("run", "-d", "--name", "first", "--network", "six", "busybox", *SLEEP)
    for line in FIREWALLS["iptables"]:
        run("sh", "-c", line)
    try:
        works(pyrun, internet)
        assert MARK in rules()
    finally:
        run("nft", "flush", "ruleset")
