"""The network stage against the kernel: every test is a small host of its own, forked into new namespaces.

Here a container with one IPv4 network; test_network_several.py has the others. The hosts: small_host.py.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from pyrun.engine import network as engine
from pyrun.errors import Conflict, NetworkError, NotFound
from pyrun.network import leases
from pyrun.plan.catalogue import explain
from pyrun.stages import network as stage
from small_host import (
    HOST,
    INTERNET,
    Container,
    Host,
    Namespace,
    connect,
    listen,
    listening,
    on_host,
    picture,
    reach,
    shell,
)
from waiting import until

# ── a container's network ──────────────────────────────────────────────────────────────────────────


@on_host
def test_a_container_on_the_bridge(host: Host) -> None:
    one, two = host.start("one"), host.start("two")
    assert (one.address, two.address, one.planned.gateway) == ("10.77.0.2", "10.77.0.3", "10.77.0.1")
    inside = one.run(shell, "ip addr show eth0; ip addr show lo; ip route")
    assert "inet 10.77.0.2/16 brd 10.77.255.255" in inside
    assert "link/ether 02:42:0a:4d:00:02" in inside
    assert "default via 10.77.0.1 dev eth0" in inside
    assert "inet6 fe80" not in inside
    assert "inet6 ::1/128" in inside
    outside = shell(f"ip -d link show {one.link}; ip -6 addr show dev {one.link}; ip -6 addr show dev pyrun0")
    assert "master pyrun0" in outside
    assert "alias one" in outside
    assert "inet6" not in outside
    for end in (outside, one.run(shell, "ip -d link show eth0")):  # else the kernel waits for every processor
        assert "numtxqueues 1 numrxqueues 1 " in end
    for target in ("10.77.0.1", two.address, INTERNET):
        one.run(shell, f"ping -c1 -W1 {target}")
    assert "10.77.0.2" in shell("ip netns exec one ip addr")
    assert shell("ip netns list").split()[0::3] and "one" in shell("ip netns list")
    with listening(host.internet, 80) as server:
        assert reach(server, one, INTERNET, 80) == HOST, "not masqueraded"


@on_host
def test_the_mtu_is_the_uplinks(host: Host) -> None:
    shell("ip link set up0 mtu 1400")
    one = host.start()
    assert int(one.planned.claimed.templates["bridge"]["mtu"]) == 1400
    assert "mtu 1400" in one.run(shell, "ip link show eth0")
    assert "mtu 1400" in shell("ip link show pyrun0")


@pytest.mark.parametrize("mtu", [68, 1279, 1280])
@on_host
def test_an_mtu_that_is_too_small_for_ipv6(host: Host, mtu: int) -> None:
    host.create("small", mtu=mtu)
    one = host.start(mode="small")
    assert f"mtu {mtu}" in one.run(shell, "ip link show eth0")
    assert f"mtu {mtu}" in shell(f"ip link show {one.link}")


@on_host
def test_no_first_packet_is_lost(host: Host) -> None:
    """A packet lost to a port that does not forward yet is sent again after a second."""
    for number in range(25):
        one = host.start()
        for place, address in ((None, one.address), (one, "10.77.0.1")):
            started = time.monotonic()
            with pytest.raises(ConnectionRefusedError):
                place.run(connect, address, 9) if place else connect(address, 9)
            assert time.monotonic() - started < 0.3, f"start {number}: first packet to {address} was lost"
        one.stop()


@on_host
def test_a_reused_address_answers_at_once(host: Host) -> None:
    witness = host.start()
    for _ in range(5):
        Path("/run/pyrun/networks/bridge/next").write_text("10.77.0.99")
        one = host.start()
        assert one.address == "10.77.0.100"
        with listening(one, 80) as server:
            for place in (None, witness):
                started = time.monotonic()
                reach(server, place, one.address, 80)
                assert time.monotonic() - started < 0.3, "a neighbour still knows the former owner"
        one.stop()


@on_host
def test_none_has_a_name_and_nothing_else(host: Host) -> None:
    before = picture()
    one = host.start("quiet", mode="none")
    assert one.planned.address == ""
    assert shell("ip netns exec quiet ip -o link").count("\n") == 1
    one.stop()
    engine.prune()
    assert picture() == before


@on_host
def test_host_mode_plans_nothing(host: Host) -> None:
    planned = host.plan(mode="host", ports=[("", 8080, 80, "tcp")])
    assert (planned.outside, planned.undo, planned.before) == ([], [], [])
    assert not Path("/run/pyrun").exists()
    assert host.said == ["published ports are ignored with --network host"]


@on_host
def test_a_dry_run_touches_nothing(host: Host) -> None:
    before = picture()
    planned = host.plan("web", ports=[("", 8080, 80, "tcp")], dry_run=True)
    assert planned.address == "10.77.0.2"
    assert [operation.kind for operation in planned.before] == ["NETWORK", "LEASE", "PORT"]
    assert picture() == before
    assert not Path("/run/pyrun").exists()
    assert host.said == []


@on_host
def test_an_unknown_network_is_named_with_those_there_are(host: Host) -> None:
    for dry_run in (True, False):
        with pytest.raises(NotFound, match="no such network: backend") as caught:
            host.plan(mode="backend", dry_run=dry_run)
        assert caught.value.hint == "there are bridge, host, none"
    assert "pyrun0" not in shell("ip link")


@on_host
def test_somebody_elses_namespace_name_is_refused(host: Host) -> None:
    shell("ip netns add taken")
    for mode in ("bridge", "none"):
        with pytest.raises(Conflict, match="'taken' exists already"):
            host.plan("taken", mode=mode)
    planned = host.plan("late")
    shell("ip netns add late")
    container = Container(planned)
    with pytest.raises(Conflict, match="'late' exists already"):
        stage.outside(planned, container.pid)
    container.stop()
    assert sorted(os.listdir("/run/netns")) == ["late", "taken"]
    shell("ip netns exec late ip link")


# ── published ports ────────────────────────────────────────────────────────────────────────────────


@on_host
def test_a_published_port(host: Host) -> None:
    web = host.start("web", ports=[("", 8080, 80, "tcp")])
    other = host.start("other")
    with listening(web, 80) as server:
        assert reach(server, host.internet, HOST, 8080) == INTERNET, "the client's address is kept"
        assert reach(server, None, "127.0.0.1", 8080) == "10.77.0.1"
        reach(server, None, HOST, 8080)
        reach(server, other, HOST, 8080)
        reach(server, web, HOST, 8080)
        reach(server, other, web.address, 80)
        web.stop()
    for place, address in ((host.internet, HOST), (None, "127.0.0.1")):
        with pytest.raises(ConnectionRefusedError):
            place.run(connect, address, 8080) if place else connect(address, 8080)
    assert list(Path("/run/pyrun/ports").iterdir()) == []
    host.start("next", ports=[("", 8080, 80, "tcp")])


@on_host
def test_a_port_of_loopback_is_the_hosts_own(host: Host) -> None:
    web = host.start("web", ports=[("127.0.0.1", 8080, 80, "tcp"), (HOST, 8081, 80, "tcp")])
    with listening(web, 80) as server:
        reach(server, None, "127.0.0.1", 8080)
        reach(server, host.internet, HOST, 8081)
        with pytest.raises(ConnectionRefusedError):
            host.internet.run(connect, HOST, 8080)
        # A neighbour that sends packets for 127.0.0.1 to this host's address.
        host.internet.run(
            shell,
            "sysctl -qw net.ipv4.conf.all.route_localnet=1; ip addr del 127.0.0.1/8 dev lo;"
            f"ip rule add pref 0 table 9; ip rule add pref 100 lookup local; ip rule del pref 0 table local;"
            f"ip route add 127.0.0.1 via {HOST} table 9",
        )
        with pytest.raises(OSError):
            host.internet.run(connect, "127.0.0.1", 8080)
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


@on_host
def test_an_unpublished_port_is_not_reached_by_routing(host: Host) -> None:
    web = host.start("web", ports=[("", 8080, 80, "tcp")])
    host.internet.run(shell, f"ip route add 10.77.0.0/16 via {HOST}")
    with listening(web, 80) as server, listening(web, 81):
        reach(server, host.internet, HOST, 8080)
        for port in (80, 81):
            with pytest.raises(TimeoutError):
                host.internet.run(connect, web.address, port)


@on_host
def test_a_port_in_use_is_told_with_its_owner(host: Host) -> None:
    host.start("web", ports=[("", 8080, 80, "tcp")])
    for dry_run in (True, False):
        with pytest.raises(Conflict, match=r"port 127.0.0.1:8080/tcp is already published by container web"):
            host.plan("two", ports=[("127.0.0.1", 8080, 80, "tcp")], dry_run=dry_run)
    with listen(9090), pytest.raises(Conflict, match=r"port 0.0.0.0:9090/tcp is in use by another program"):
        host.plan("two", ports=[("", 7070, 70, "tcp"), ("", 9090, 80, "tcp")])
    assert leases.held("bridge").keys() == {"10.77.0.2"}, "a refused start keeps nothing"
    assert sorted(os.listdir("/run/pyrun/ports")) == ["tcp-0.0.0.0-8080"]
    assert sorted(os.listdir("/run/pyrun/netns")) == ["web"]


@on_host
def test_udp_flows_follow_the_port(host: Host) -> None:
    """A client that keeps sending from one port reaches the container as soon as it publishes, and the next one."""
    host.start()
    client = host.internet.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    with listen(5300, socket.SOCK_DGRAM) as own:
        client.sendto(b"host", (HOST, 5300))
        assert own.recv(9) == b"host"
    for name in ("one", "two"):
        container = host.start(name, ports=[("", 5300, 53, "udp")])
        with listening(container, 53, socket.SOCK_DGRAM) as server:
            client.sendto(name.encode(), (HOST, 5300))
            assert server.recv(9) == name.encode()
        container.stop()
    with listen(5300, socket.SOCK_DGRAM) as own:
        client.sendto(b"host again", (HOST, 5300))
        assert own.recv(99) == b"host again"
    client.close()


@on_host
def test_many_ports_in_one_transaction(host: Host) -> None:
    web = host.start("web", ports=[("", 20000 + number, 80, "tcp") for number in range(500)])
    with listening(web, 80) as server:
        for port in (20000, 20250, 20499):
            reach(server, host.internet, HOST, port)
    web.stop()
    assert "elements" not in shell("nft list map inet pyrun ports")


@on_host
def test_the_explained_commands_do_the_same_by_hand(host: Host) -> None:
    """Every shell equivalent of --explain, typed in, makes the network that the stage would have made."""
    host.start("first")
    planned = host.plan("hand", ports=[("", 8080, 80, "tcp"), ("127.0.0.1", 8081, 80, "tcp")])
    container = Container(planned)
    for operation in planned.outside:
        command = explain(operation)[1].replace("{name}", "hand").replace("{pid}", str(container.pid))
        shell(command)
    assert "inet 10.77.0.3/16 brd 10.77.255.255" in shell("ip netns exec hand ip addr show eth0")
    container.run(shell, f"ping -c1 -W2 {INTERNET}")
    with listening(container, 80) as server:
        reach(server, host.internet, HOST, 8080)
        reach(server, None, "127.0.0.1", 8081)
        reach(server, container, HOST, 8080)
    for operation in planned.outside:
        see = explain(operation)[2].replace("{name}", "hand").replace("{pid}", str(container.pid))
        shell(see)
    container.stop()
    assert "elements" not in shell("nft list map inet pyrun ports")


# ── care for the host ──────────────────────────────────────────────────────────────────────────────


@on_host
def test_prune_leaves_everything_as_it_was(host: Host) -> None:
    shell("sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.up0.forwarding=1")
    before = picture()
    one = host.start("one", ports=[("", 8080, 80, "tcp"), ("127.0.0.1", 53, 53, "udp")])
    two = host.start("two", mode="none")
    assert any("ip_forward" in text for text in host.said)
    row = next(row for row in engine.ls() if row["name"] == "bridge")
    assert (row["bridge"], row["subnet"], row["containers"]) == (
        "pyrun0",
        "10.77.0.0/16",
        {"one": "10.77.0.2"},
    )
    assert engine.prune() == []
    with pytest.raises(Conflict, match="network bridge is built in"):
        engine.rm("bridge")
    host.start("three").stop()
    one.stop()
    two.stop()
    assert engine.prune()[0] == {"name": "bridge", "bridge": "pyrun0", "subnet": "10.77.0.0/16"}
    after = picture()
    for key, value in before.items():
        assert after[key] == value, key
    assert engine.prune() == []
    again = host.start("again")
    again.run(shell, f"ping -c1 -W1 {INTERNET}")


@on_host
def test_prune_keeps_the_namespaces_of_others(host: Host) -> None:
    one = host.start("one")
    shell("ip netns add theirs")
    one.stop()
    engine.prune()
    shell("ip netns exec theirs ip link; ip netns delete theirs")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("nft flush ruleset", "table inet pyrun"),
        ("ip link del pyrun0", "bridge pyrun0"),
        (
            "nft flush ruleset; ip link del pyrun0; sysctl -qw net.ipv4.ip_forward=0",
            "bridge pyrun0 and table inet pyrun",
        ),
        ("rm /run/pyrun/networks/bridge/template", ""),
        ("rm -r /run/pyrun/networks/bridge/leases", ""),  # a prune that was killed in the middle
    ],
)
@on_host
def test_what_somebody_removed_is_healed_and_told(host: Host, damage: str, told: str) -> None:
    web = host.start("web", ports=[("", 8080, 80, "tcp")])
    shell(damage)
    host.said.clear()
    two = host.start("two")
    assert [text for text in host.said if "restored" in text] == (
        [f"network bridge: {told} was missing and has been restored"] if told else []
    )[:1]
    two.run(shell, f"ping -c1 -W1 {INTERNET}")
    two.run(shell, f"ping -c1 -W2 {web.address}")
    if "leases" not in damage:
        with listening(web, 80) as server:
            reach(server, host.internet, HOST, 8080)
            reach(server, None, "127.0.0.1", 8080)
    host.said.clear()
    host.start("three")
    assert host.said == []


@pytest.mark.parametrize("chain", ["FORWARD", "DOCKER-USER"])
@on_host
def test_a_firewall_that_drops_what_it_forwards(host: Host, chain: str) -> None:
    shell("iptables -P FORWARD DROP")
    if chain == "DOCKER-USER":
        shell(
            "iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -j DOCKER-USER"
        )
    before = picture()
    web = host.start("web", ports=[("", 8080, 80, "tcp")])
    assert any(f"added to its chain {chain}" in text for text in host.said)
    rules = shell("iptables -S")
    assert [line for line in rules.splitlines() if "pyr+" in line and line.startswith(f"-A {chain} ")]
    two = host.start("two")
    with listening(web, 80) as server, listening(host.internet, 80) as far:
        reach(server, host.internet, HOST, 8080)
        reach(server, two, web.address, 80)
        assert reach(far, two, INTERNET, 80) == HOST
    shell(f"iptables -F {chain}")
    if chain == "DOCKER-USER":
        shell("iptables -A DOCKER-USER -j RETURN")
    three = host.start("three")
    three.run(shell, f"ping -c1 -W1 {INTERNET}")
    for container in (web, two, three):
        container.stop()
    engine.prune()
    assert picture()["rules"] == before["rules"]


@on_host
def test_a_planner_killed_after_its_claims_is_swept(host: Host) -> None:
    host.start("first")
    pid = os.fork()
    if pid == 0:
        namespace = Namespace()  # before the plan, whose sockets a process that does not exec would keep
        planned = host.plan("lost", ports=[("", 8080, 80, "tcp")])
        planned.outside = [each for each in planned.outside if each.kind != "NETNS_NAME"]
        stage.outside(planned, namespace.pid)
        os._exit(0)
    os.waitpid(pid, 0)
    shell("ip netns add lost")  # it died before the name had a file: this one is somebody else's
    freed = engine.sweep()
    assert freed == [
        "address 10.77.0.3 of network bridge",
        "port tcp-0.0.0.0-8080",
        "network namespace name lost",
    ]
    assert shell("ip netns exec lost true; ls /run/netns").split() == ["first", "lost"]
    shell("ip netns delete lost")
    # Its element in the firewall is still there: the next owner replaces it.
    found = host.start("lost", ports=[("", 8080, 81, "tcp")])
    with listening(found, 81) as server:
        reach(server, host.internet, HOST, 8080)


@on_host
def test_two_first_starts_make_one_bridge(host: Host) -> None:
    children = []
    for number in range(6):
        pid = os.fork()
        if pid == 0:
            planned = host.plan(f"racer{number}")
            stage.outside(planned, Namespace().pid)
            Path(f"/run/racer{number}").write_text(str(planned.address))
            signal.pause()
        children.append(pid)
    until(
        lambda: len({path.read_text() for path in Path("/run").glob("racer*")} - {""}) == 6, "six addresses"
    )
    assert shell("ip -o link show type bridge").count("\n") == 1
    assert shell("nft list tables") == "table inet pyrun\ntable bridge pyrun\n"
    for pid in children:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@on_host
def test_a_subnet_in_use_is_passed_over(host: Host) -> None:
    shell(f"ip route add 10.77.4.0/24 via {INTERNET} table 200; ip addr add 10.78.1.1/24 dev up0")
    one = host.start()
    assert one.address == "10.79.0.2"


@on_host
def test_a_link_that_only_has_the_bridges_name(host: Host) -> None:
    shell("ip link add pyrun0 type veth peer name pyrun1")
    with pytest.raises(NetworkError, match="pyrun0 exists and is no bridge"):
        host.plan()


@on_host
def test_a_start_with_the_link_of_its_last_run_still_there(host: Host) -> None:
    host.start("first")
    planned = host.plan("web")
    link = "pyv" + str(planned.claimed.owner)[:12]
    shell(f"ip link add {link} type veth peer name leftover")
    container = Container(planned)
    stage.outside(planned, container.pid)
    container.run(shell, "ping -c1 -W1 10.77.0.1")
