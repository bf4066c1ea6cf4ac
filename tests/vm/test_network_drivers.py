"""What this machine's kernel lacks and the guest's has: ipvlan, dummy cards, a kernel whose drivers are modules."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from command import Pyrun
from segments import CARD, FAR, GATEWAY, HOST, pings, segment, shell

ADDRESS = "192.168.50.9"


@pytest.fixture
def card(lab: None) -> Iterator[None]:
    """Comes before `pyrun` in a test: it is there before and after."""
    with segment():
        yield


@pytest.mark.needs("ipvlan")
def test_ipvlan_l2_shares_the_cards_mac(card: None, pyrun: Pyrun) -> None:
    pyrun.ok(
        "run", "-d", "--name", "web", f"--network=ipvlan:{CARD}:ip={ADDRESS}", "busybox", "sleep", "1000"
    )
    assert pings(ADDRESS, at=FAR)
    assert "1 packets received" in pyrun.ok("exec", "web", "ping", "-c1", "-W5", GATEWAY)
    macs = [
        shell(f"cat /sys/class/net/{CARD}/address"),
        pyrun.ok("exec", "web", "cat", "/sys/class/net/eth0/address"),
    ]
    assert macs[0].strip() == macs[1].strip()
    assert ADDRESS in pyrun.ok("exec", "web", "nslookup", "-type=a", "web"), "answered inside its namespace"
    pyrun.ok("rm", "-f", "web")
    pyrun.ok("run", "--rm", f"--network=ipvlan:{CARD}:ip={ADDRESS}", "busybox", "true")


@pytest.mark.needs("ipvlan")
def test_ipvlan_l3_routes(card: None, pyrun: Pyrun) -> None:
    """A subnet that is not the segment's; the machine behind the card is told the way."""
    made = ("-o", f"parent={CARD}", "-o", "mode=l3", "--subnet", "10.44.0.0/24")
    pyrun.ok("network", "create", "-d", "ipvlan", *made, "routed")
    shell(f"ip -n {FAR} route add 10.44.0.0/24 via {HOST}")
    pyrun.ok("run", "-d", "--name", "web", "--network", "routed", "busybox", "sleep", "1000")
    routes = pyrun.ok("exec", "web", "ip", "route")
    assert "default dev eth0" in routes
    assert "link" in shell("ip netns exec web ip -d link show eth0 | grep -o 'ipvlan.*mode l3' && echo link")
    pyrun.ok("rm", "-f", "web")
    assert pyrun.ok("network", "rm", "routed") == "routed"


@pytest.mark.needs("ipvlan")
@pytest.mark.parametrize("driver", ["ipvlan", "macvlan"])
def test_a_created_network_has_its_mtu_and_loses_no_packet_of_ipv6(
    card: None, pyrun: Pyrun, driver: str
) -> None:
    six = "2001:db8:50:"
    shell(f"ip -n {FAR} addr add {six}:1/64 dev far nodad")
    subnets = ("--subnet=192.168.50.0/24", f"--subnet={six}:/64", "--mtu=1400")
    pyrun.ok("network", "create", "-d", driver, "-o", f"parent={CARD}", *subnets, "lan")
    pyrun.ok("run", "-d", "--name=web", f"--network=lan:ip={ADDRESS},ip6={six}:9", "busybox", "sleep", "1000")
    assert pings(f"{six}:9", at=FAR), "the first packet"
    shown = pyrun.ok("exec", "web", "ip", "addr", "show", "eth0")
    assert "mtu 1400" in shown and "inet6 fe80::" in shown and "tentative" not in shown
    script = f"ping -6 -c1 -W1 {six}:1"
    assert "1 packets received" in pyrun.ok("run", "--rm", "--network=lan", "busybox", "sh", "-c", script)
    error = pyrun.fails(1, "network", "create", "-d", driver, "-o", f"parent={CARD}", "--mtu=1501", "wide")
    assert f"--mtu 1501: is more than the 1500 of {CARD}" in error


@pytest.mark.needs("ipvlan")
def test_one_card_carries_one_kind(card: None, pyrun: Pyrun) -> None:
    pyrun.ok(
        "run", "-d", "--name", "web", f"--network=macvlan:{CARD}:ip={ADDRESS}", "busybox", "sleep", "1000"
    )
    error = pyrun.fails(125, "run", "--rm", f"--network=ipvlan:{CARD}:ip=192.168.50.10", "busybox", "true")
    assert f"network: cannot make the ipvlan eth0 on {CARD}" in error
    assert "one kind" in error, "the hint"


@pytest.mark.needs("ipvlan")
def test_an_ipvlan_has_no_mac_of_its_own(card: None, pyrun: Pyrun) -> None:
    wanted = f"--network=ipvlan:{CARD}:ip={ADDRESS},mac=02:00:00:00:00:09"
    assert "an ipvlan has the MAC of its card" in pyrun.fails(125, "run", "--rm", wanted, "busybox", "true")


@pytest.mark.needs("dummy")
def test_a_dummy_card_will_do(lab: None, pyrun: Pyrun) -> None:
    """Two containers on a card that leads nowhere."""
    shell("ip link add nowhere type dummy; ip addr add 10.33.0.1/24 dev nowhere; ip link set nowhere up")
    try:
        pyrun.ok(
            "run",
            "-d",
            "--name",
            "web",
            "--network=macvlan:nowhere:ip=10.33.0.2,host-shim=on",
            "busybox",
            "sleep",
            "1000",
        )
        ping = ("busybox", "ping", "-c1", "-W5", "10.33.0.2")
        assert "1 packets received" in pyrun.ok(
            "run", "--rm", "--network=macvlan:nowhere:ip=10.33.0.3", *ping
        )
        assert pings("10.33.0.2"), "the host, by its shim"
        pyrun.ok("rm", "-f", "web")
    finally:
        subprocess.run(["ip", "link", "delete", "nowhere"], check=False)
