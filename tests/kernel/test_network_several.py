"""Several networks, IPv6, addresses asked for: the network stage against the kernel, on hosts of small_host.py."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from pathlib import Path

import pytest

from pyrun.engine import network as engine
from pyrun.engine import network_inspect
from pyrun.errors import Conflict, NetworkError, NotFound
from pyrun.network import leases, records
from pyrun.plan.catalogue import explain
from small_host import (
    HOST,
    HOST6,
    INTERNET,
    INTERNET6,
    Container,
    Host,
    Namespace,
    connect,
    listening,
    on_host,
    picture,
    reach,
    shell,
)
from waiting import soon

FRONT, BACK = ("10.1.0.0/24", "fd00:1::/64"), ("10.2.0.0/24", "fd00:2::/64")


def routes(container: Namespace) -> list[str]:
    """The default routes, of IPv4 and of IPv6: "via ADDRESS dev NAME" each."""
    lines = container.run(shell, "ip route; ip -6 route").splitlines()
    return [" ".join(line.split()[1:5]) for line in lines if line.startswith("default")]


# ── several networks ───────────────────────────────────────────────────────────────────────────────


@on_host
def test_interfaces_are_in_the_order_given(host: Host) -> None:
    host.create("front", *FRONT)
    host.create("back", "10.2.0.0/24")
    other = host.start("other", "front back")
    one = host.start("one", "back front:ifname=lan0 bridge")
    inside = one.run(shell, "ip -br addr").splitlines()
    assert [line.split()[0].partition("@")[0] for line in inside] == ["lo", "eth0", "lan0", "eth2"]
    assert "10.2.0.3/24" in inside[1]
    assert "10.1.0.3/24" in inside[2] and "fd00:1::a01:3/64" in inside[2]
    assert "10.77.0.2/16" in inside[3]
    assert routes(one) == ["via 10.2.0.1 dev eth0", "via fd00:1::1 dev lan0"]
    for target in ("10.1.0.1", "10.2.0.1", "10.77.0.1", "fd00:1::1", INTERNET, other.address, other.address6):
        one.run(shell, f"ping -c1 -W2 {target}")
    assert [link.split()[1] for link in shell("ip -br link").splitlines() if link.startswith("pyv")].count(
        "UP"
    ) == 5


@on_host
def test_the_highest_priority_has_the_default_route(host: Host) -> None:
    host.create("front", *FRONT)
    host.create("back", *BACK)
    one = host.start("one", "front back:gw-priority=2")
    assert routes(one) == ["via 10.2.0.1 dev eth1", "via fd00:2::1 dev eth1"]
    assert (one.address, one.planned.gateway) == ("10.2.0.2", "10.2.0.1")
    assert one.planned.resolv[0] == "nameserver 10.2.0.1"


@on_host
def test_an_internal_network_leads_nowhere(host: Host) -> None:
    host.six()
    host.create("quiet", *FRONT, internal=True)
    one, two = host.start("one", "quiet"), host.start("two", "quiet")
    assert routes(one) == []
    for target in ("10.1.0.1", "fd00:1::1", two.address, two.address6):
        one.run(shell, f"ping -c1 -W2 {target}")
    for gateway, target in (("10.1.0.1", INTERNET), ("fd00:1::1", INTERNET6)):
        one.run(shell, f"ip route add {target} via {gateway}")
        with pytest.raises(AssertionError):
            one.run(shell, f"ping -c1 -W1 {target}")
    both = host.start("both", "quiet bridge")
    assert routes(both) == ["via 10.77.0.1 dev eth1"]
    both.run(shell, f"ping -c1 -W2 {INTERNET}; ping -c1 -W2 {one.address}")


@on_host
def test_addresses_that_are_asked_for(host: Host) -> None:
    host.create("front", *FRONT)
    one = host.start("one", "bridge:ip=10.77.5.5,mac=02:00:00:00:00:99 front:ip=10.1.0.77,ip6=fd00:1::77")
    inside = one.run(shell, "ip addr")
    for text in ("inet 10.77.5.5/16", "link/ether 02:00:00:00:00:99", "inet 10.1.0.77/24", "fd00:1::77/64"):
        assert text in inside
    other = host.start("other", "bridge front", ip="10.77.5.6")
    for target in ("10.77.5.5", "10.1.0.77", "fd00:1::77"):
        other.run(shell, f"ping -c1 -W2 {target}")
    with pytest.raises(Conflict, match=r"the address 10\.1\.0\.77 of network front is held by container one"):
        host.plan("late", "bridge front:ip=10.1.0.77")
    assert len(leases.held("bridge")) == 2, "a refused start keeps nothing"
    assert sorted(os.listdir("/run/pyrun/netns")) == ["one", "other"]
    with pytest.raises(NotFound, match="no such network: nowhere"):
        host.plan("late", "front nowhere")
    assert len(leases.held("front")) == 4


@on_host
def test_further_subnets_of_a_network(host: Host) -> None:
    host.create("front", "10.1.0.0/30", "10.3.0.0/24", "fd00:1::/64", "fd00:3::/64")
    one, two = host.start("one", "front"), host.start("two", "front:ip6=fd00:3::9")
    assert (one.address, two.address, two.address6) == ("10.1.0.2", "10.3.0.2", "fd00:3::9")
    assert routes(two) == ["via 10.3.0.1 dev eth0", "via fd00:3::1 dev eth0"]
    for target in (INTERNET, "10.3.0.1", "fd00:3::1", one.address):
        two.run(shell, f"ping -c1 -W2 {target}")
    with listening(host.internet, 80) as server:
        assert reach(server, two, INTERNET, 80) == HOST


@on_host
def test_everything_of_several_networks_is_undone(host: Host) -> None:
    host.six()
    before = picture()
    host.create("front", *FRONT)
    host.create("back", *BACK)
    defined = sorted(os.listdir("/run/store/networks"))
    idle = picture()
    one = host.start("one", "front back bridge", ports=[("", 8080, 80, "tcp")])
    with listening(one, 80, family=socket.AF_INET6) as server:
        reach(server, host.internet, HOST, 8080)
        reach(server, host.internet, HOST6, 8080)
    assert any("10.1.0.2" in line for line in shell("nft list set bridge pyrun addresses").splitlines())
    one.stop()
    for name in ("macs", "addresses", "addresses6"):
        assert "elements" not in shell(f"nft list set bridge pyrun {name}")
    assert not [
        name for network in ("front", "back") for name in os.listdir(f"/run/pyrun/networks/{network}/leases")
    ]
    from pyrun.network import bridge  # in this namespace alone

    bridge.remove("bridge")
    # the kernel takes links away some time after their namespace has ended
    soon(lambda: "pyv" not in shell("ip -br link"))
    assert picture()["rules"] == idle["rules"]
    assert sorted(os.listdir("/run/store/networks")) == defined
    assert sorted(path.parent.name for path in Path("/run/pyrun").glob("networks/*/network.json")) == [
        "back",
        "front",
    ]
    rows = engine.prune()
    assert [row.get("name") for row in rows] == ["back", "front", None]
    for key, value in before.items():
        assert picture()[key] == value, key
    assert os.listdir("/run/store/networks") in ([], ["ula"])


# ── IPv6 ───────────────────────────────────────────────────────────────────────────────────────────


@on_host
def test_ipv6_inside_and_out(host: Host) -> None:
    host.six()
    network = host.create("front", *FRONT)
    one, two = host.start("one", "front"), host.start("two", "front")
    inside = one.run(shell, "ip -6 addr show eth0")
    assert f"inet6 {one.address6}/64 scope global" in inside
    assert "tentative" not in inside
    for interface in ("eth0",):
        assert one.run(shell, f"sysctl -n net.ipv6.conf.{interface}.accept_ra") == "0\n"
    assert shell(f"sysctl -n net.ipv6.conf.{network.bridge}.accept_ra") == "0\n"
    assert "tentative" not in shell(f"ip -6 addr show dev {network.bridge}")
    assert "inet6" not in shell(f"ip -6 addr show dev {one.link}"), "nothing reaches the host through a port"
    for target in ("fd00:1::1", two.address6, INTERNET6):
        one.run(shell, f"ping -c1 -W2 {target}")
    with listening(host.internet, 80, family=socket.AF_INET6) as server:
        assert reach(server, one, INTERNET6, 80) == HOST6, "not masqueraded"


@on_host
def test_ipv6_alone(host: Host) -> None:
    """A start on a network whose first interface has no IPv4 route out."""
    host.six()
    host.create("four", "10.1.0.0/24", internal=True)
    host.create("six", "fd00:2::/64")
    one = host.start("one", "four six")
    assert routes(one)[-1] == "via fd00:2::1 dev eth1"
    one.run(shell, f"ping -c1 -W2 {INTERNET6}")


@on_host
def test_no_first_packet_of_ipv6_is_lost(host: Host) -> None:
    host.create("front", *FRONT)
    for number in range(20):
        one = host.start("one", "front")
        for place, address in ((None, one.address6), (one, "fd00:1::1")):
            started = time.monotonic()
            with pytest.raises(ConnectionRefusedError):
                place.run(connect, address, 9) if place else connect(address, 9)
            assert time.monotonic() - started < 0.3, f"start {number}: first packet to {address} was lost"
        one.stop()


@on_host
def test_a_reused_ipv6_address_answers_at_once(host: Host) -> None:
    host.create("front", *FRONT)
    witness = host.start("witness", "front")
    for _ in range(5):
        one = host.start("one", "front:ip6=fd00:1::99")
        with listening(one, 80, family=socket.AF_INET6) as server:
            for place in (None, witness):
                started = time.monotonic()
                reach(server, place, "fd00:1::99", 80)
                assert time.monotonic() - started < 0.3, "a neighbour still knows the former owner"
        one.stop()


@on_host
def test_a_published_port_of_ipv6(host: Host) -> None:
    host.six()
    host.create("front", *FRONT)
    web = host.start("web", "front", ports=[("", 8080, 80, "tcp")])
    other = host.start("other", "front")
    with listening(web, 80, family=socket.AF_INET6) as server:
        assert reach(server, host.internet, HOST6, 8080) == INTERNET6, "the client's address is kept"
        for place in (None, other, web):
            reach(server, place, HOST6, 8080)
        web.stop()
    with pytest.raises(ConnectionRefusedError):
        host.internet.run(connect, HOST6, 8080)


# ── typed by hand ──────────────────────────────────────────────────────────────────────────────────


@on_host
def test_two_networks_by_hand(host: Host) -> None:
    """Every shell equivalent of --explain, typed in, makes the networks that the stage would have made."""
    host.six()
    host.create("front", *FRONT)
    host.create("back", *BACK)
    first = host.start("first", "front back:ifname=lan0", ports=[("", 8081, 80, "tcp")])
    published = [("", 8080, 80, "tcp")]
    planned = host.plan("hand", "front back:ifname=lan0", ports=published)
    container = Container(planned)
    for operation in planned.outside:
        text = explain(operation)[1]
        shell(text.replace("{name}", "hand").replace("{pid}", str(container.pid)))
    assert alike(container) == alike(first)
    assert rules_of(container) == rules_of(first)
    for target in (INTERNET, INTERNET6, first.address, first.address6, "10.2.0.1", "fd00:2::1"):
        container.run(shell, f"ping -c1 -W2 {target}")
    with listening(container, 80, family=socket.AF_INET6) as server:
        reach(server, host.internet, HOST, 8080)
        reach(server, host.internet, HOST6, 8080)
        reach(server, container, HOST, 8080)
    for operation in planned.outside:
        text = explain(operation)[2]
        shell(text.replace("{name}", "hand").replace("{pid}", str(container.pid)))
    container.stop()
    first.stop()
    assert "elements" not in shell("nft list map inet pyrun ports; nft list set bridge pyrun macs")


def alike(container: Container) -> str:
    """The network inside, without what is each container's own."""
    text = container.run(
        shell,
        "ip -o addr show scope global; ip route show default; ip -6 route show default; ip -o link;"
        "sysctl net.ipv6.conf.{default,eth0,lan0}.{accept_ra,disable_ipv6} 2>/dev/null || true;"
        "for key in default eth0 lan0; do sysctl net.ipv6.conf.$key.accept_ra net.ipv6.conf.$key.disable_ipv6; done",
    )
    for wire in container.planned.wires:
        for key in ("address", "address6", "mac"):
            text = re.sub(rf"{getattr(wire, key)}\b", key, text)
    return "\n".join(line.split(" link-netnsid")[0] for line in _numberless(text))


def _numberless(text: str) -> list[str]:
    """Numbers of interfaces differ: N: eth0@ifN."""
    return [re.sub(r"if\d+|^\d+", "N", line) for line in text.splitlines()]


def rules_of(container: Container) -> list[str]:
    """What the firewall knows of the container, its own values left out."""
    found = shell("nft list table bridge pyrun")
    links = {wire.link: number for number, wire in enumerate(container.planned.wires)}
    return sorted(
        f"{links[link]} {key}"
        for link in links
        for wire in container.planned.wires
        for key in ("mac", "address", "address6")
        if f'"{link}" . {getattr(wire, key)}' in found
    )


# ── networks that last ─────────────────────────────────────────────────────────────────────────────


@on_host
def test_a_definition_outlives_a_reboot(host: Host) -> None:
    made = host.create("front", *FRONT, gateways=["10.1.0.9"], ranges=["10.1.0.64/26"], label=["team=a"])
    shell(f"ip link del {made.bridge}; nft flush ruleset; sysctl -qw net.ipv4.ip_forward=0")
    shutil.rmtree("/run/pyrun")
    row = next(row for row in engine.ls() if row["name"] == "front")
    assert (row["subnet"], row["containers"]) == ("10.1.0.0/24", {})
    assert network_inspect.inspect("front")["Pyrun"]["Built"] is False
    dry = host.plan("dry", "front", dry_run=True)
    assert (dry.address, dry.gateway) == ("10.1.0.64", "10.1.0.9")
    assert not Path("/run/pyrun").exists()
    one = host.start("one", "front")
    assert (one.address, one.planned.gateway) == ("10.1.0.64", "10.1.0.9")
    one.run(shell, f"ping -c1 -W2 10.1.0.9; ping -c1 -W2 fd00:1::1; ping -c1 -W2 {INTERNET}")
    again = records.load("front")
    assert again is not None
    assert (again.id, again.bridge, again.labels) == (made.id, made.bridge, made.labels)
    assert network_inspect.inspect(made.id[:12])["Name"] == "front"
    one.stop()
    engine.rm("front")
    assert os.listdir("/run/store/networks") == []


@on_host
def test_a_network_that_cannot_be_built_is_not_there(host: Host) -> None:
    """Whatever step of building fails, nothing is left: neither definition, nor link, nor rule."""
    import errno

    from pyrun.network import bridge, firewall
    from pyrun.network import host as settings

    host.create("other", "10.9.0.0/24")
    before = picture()
    files = sorted(str(path) for top in ("/run/pyrun", "/run/store") for path in Path(top).rglob("*"))
    places = [
        (bridge, "make_bridge"), (bridge, "_give_addresses"), (firewall, "open_foreign"), (firewall, "commit"),
        (settings, "enable_forwarding"),
    ]  # fmt: skip
    for module, name in places:
        kept = getattr(module, name)

        def fail_once(
            *args: object, module: object = module, name: str = name, kept: object = kept, **more: object
        ) -> None:
            setattr(module, name, kept)  # what takes it back may need it
            raise OSError(errno.ENOMEM, name)

        setattr(module, name, fail_once)
        try:
            with pytest.raises((NetworkError, OSError)):
                host.create("front", *FRONT)
        finally:
            setattr(module, name, kept)
        left = sorted(str(path) for top in ("/run/pyrun", "/run/store") for path in Path(top).rglob("*"))
        assert left == files, name
        assert picture() == before, name
    host.create("front", *FRONT)


@on_host
def test_reload_heals_every_network(host: Host) -> None:
    host.six()
    front, back = host.create("front", *FRONT), host.create("back", *BACK)
    one = host.start("one", "front back", ports=[("", 8080, 80, "tcp")])
    two = host.start("two", "back")
    assert engine.reload() == ([], [])
    shell(
        f"ip link del {front.bridge}; ip addr del 10.2.0.1/24 dev {back.bridge}; nft flush ruleset;"
        "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0"
    )
    told, failed = engine.reload()
    assert failed == []
    assert any(f"bridge {front.bridge}" in line for line in told) and any(
        "table inet pyrun" in line for line in told
    )
    assert engine.reload() == ([], [])
    for target in (
        "10.1.0.1",
        "fd00:1::1",
        "10.2.0.1",
        "fd00:2::1",
        two.address,
        two.address6,
        INTERNET,
        INTERNET6,
    ):
        one.run(shell, f"ping -c1 -W2 {target}")
    with listening(one, 80, family=socket.AF_INET6) as server:
        for address in (HOST, HOST6):
            reach(server, host.internet, address, 8080)
    one.stop()
    two.stop()
    assert "elements" not in shell("nft list set bridge pyrun macs; nft list map inet pyrun ports")


# ── inspect ────────────────────────────────────────────────────────────────────────────────────────


@on_host
def test_inspect_counts_what_went_through(host: Host) -> None:
    host.create("front", *FRONT)
    one = host.start("one", "front:alias=db")
    before = network_inspect.inspect("front")["Containers"][one.identifier]
    assert before["Name"] == "one" and before["Aliases"] == ["db"] and before["Interface"] == "eth0"
    assert (before["IPv4Address"], before["IPv6Address"]) == (f"{one.address}/24", f"{one.address6}/64")
    one.run(shell, "ping -c20 -i0.002 -s1000 -W1 10.1.0.1")
    after = network_inspect.inspect("front")["Containers"][one.identifier]["Counters"]
    for way in ("sent", "received"):
        packets, octets = (
            after[f"{way}_{what}"] - before["Counters"][f"{way}_{what}"] for what in ("packets", "bytes")
        )
        assert 20 <= packets <= 30 and 20 * 1042 <= octets <= 30 * 1042, way
