"""What pyrun reads of a host before it changes it: the pure parts of host.py, firewall/openings.py and legacy.py."""

from __future__ import annotations

import posix
from pathlib import Path

import pytest

from pyrun import notice
from pyrun.network import health, host, records
from pyrun.network.firewall import firewalld, legacy, openings


def route(destination: str, flags: str, link: str) -> str:
    """A line of /proc/net/ipv6_route."""
    nowhere = 32 * "0"
    return f"{destination:0<32} 40 {nowhere} 00 {nowhere} 00000100 00000001 00000000 {flags} {link:>8}"


ROUTES = [
    route("20010db80077", "00040001", "eth0"),
    route("20010db8001a", "00000001", "eth1"),
    route("", "00450003", "wlan0"),
    route("", "00200200", "lo"),
]


def test_links_with_routes_from_advertisements() -> None:
    assert host.advertised_links(ROUTES) == ["eth0", "wlan0"]
    assert host.advertised_links([]) == []
    assert host.advertised_links(["nonsense"]) == []


@pytest.fixture
def sysctls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A host with these settings."""
    monkeypatch.setitem(posix.environ, b"PYRUN_RUNROOT", str(tmp_path).encode())
    (tmp_path / "networks").mkdir()
    values: dict[str, str] = {}
    monkeypatch.setattr(host, "read_sysctl", lambda name: values.get(name, ""))
    monkeypatch.setattr(host, "write_sysctl", values.__setitem__)
    monkeypatch.setattr(notice, "_sinks", [lambda text: None])
    return values


def test_tables_of_the_host_grow_only_when_they_get_full(sysctls: dict[str, str]) -> None:
    names = [f"net/ipv4/neigh/default/gc_thresh{number}" for number in (1, 2, 3)]
    sysctls.update(zip(names, ("128", "512", "1024"), strict=True))
    sysctls.update({"net/netfilter/nf_conntrack_max": "65536", "net/netfilter/nf_conntrack_count": "1000"})
    before = dict(sysctls)
    host.make_room(100)
    assert sysctls == before
    host.make_room(1000)
    assert [int(sysctls[name]) for name in names] == [2000, 4000, 8000]
    assert sysctls["net/netfilter/nf_conntrack_max"] == "65536"
    sysctls["net/netfilter/nf_conntrack_count"] = "60000"
    host.make_room(1000)
    assert sysctls["net/netfilter/nf_conntrack_max"] == "131072"
    sysctls["net/netfilter/nf_conntrack_count"] = "1000"
    host.make_room(3000)
    told = host.restore()
    assert sysctls == before, "as they were before the first change"
    assert "net.netfilter.nf_conntrack_max = 65536" in told


def test_a_host_without_ipv6_is_left_alone(sysctls: dict[str, str]) -> None:
    sysctls[host.FORWARD] = "1"
    host.enable_forwarding(ipv6=True)
    assert sysctls == {host.FORWARD: "1"}


def test_firewalld_trusts_the_further_bridges_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(firewalld, "running", lambda _: True)
    monkeypatch.setattr(firewalld, "_command", lambda *words: (asked.append(words[1]), "success")[1])
    networks = [records.parsed({"bridge": "pyrun0", "shards": ["pyrun0-1"]}), records.parsed({"bridge": ""})]
    assert len(firewalld.trust(None, networks)) == 2  # type: ignore[arg-type]
    assert [each for each in asked if "change" in each] == [
        "--change-interface=pyrun0", "--change-interface=pyrun0-1",
    ]  # fmt: skip


def test_what_others_must_let_through() -> None:
    told: list[dict[str, object]] = [
        {"bridge": "pyrun0", "dns_port": 53}, {"bridge": "pyrx", "dns_port": 5353, "subnet6": "fd00::/64"},
        {"bridge": "br-hand", "adopted": True}, {"bridge": "", "driver": "macvlan"},
    ]  # fmt: skip
    networks = [records.parsed(each) for each in told]
    assert openings.bridges(networks) == ["pyr*", "br-hand"]
    # about what goes through an adopted bridge the rules made with it decide
    assert [(direction, bridge) for _, direction, bridge, _, _ in openings.forwarded(networks)] == [
        ("oifname", "pyr*"), ("iifname", "pyr*")
    ]  # fmt: skip
    seen = {
        (bridge, protocol, port) for _, _, bridge, protocol, port in openings.incoming(networks, ipv6=True)
    }
    assert seen == {
        (bridge, protocol, port)
        for bridge in ("pyr*", "br-hand")
        for protocol, port in ((17, 53), (6, 53), (17, 5353), (6, 5353), (58, 0))
    }
    assert not [each for each in openings.incoming(networks, ipv6=False) if each[3] == 58]
    without = [each for each in networks if not each.subnet6]  # no network has it: ICMPv6 stays closed
    assert not [each for each in openings.incoming(without, ipv6=True) if each[3] == 58]
    comments = [each[0] for each in openings.incoming(networks, ipv6=True)]
    assert len(set(comments)) == len(comments) and all(each.startswith(health.MARK) for each in comments)


@pytest.mark.parametrize(
    ("lines", "drops"),
    [
        (["-P FORWARD DROP"], True),
        (["-P FORWARD ACCEPT"], False),
        (["-P FORWARD ACCEPT", "-A FORWARD -i eth0 -j DROP"], False),
        (["-P FORWARD ACCEPT", "-A FORWARD -i eth0 -j DROP", "-A FORWARD -j DROP"], True),
        (["-P FORWARD ACCEPT", "-A FORWARD -j REJECT --reject-with icmp-host-prohibited"], True),
        (["-P FORWARD ACCEPT", "-A FORWARD -j DOCKER-USER"], False),
        (["-P INPUT DROP"], False),
    ],
)
def test_whether_a_legacy_chain_drops(lines: list[str], drops: bool) -> None:
    assert legacy._drops(lines, "FORWARD") is drops
