"""Containers beside a card of the host: macvlan, l2 and what this kernel lacks of ipvlan, by the command itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import capabilities
from command import Pyrun
from published import SERVE, ask_udp, fetch, udp_server
from segments import CARD, FAR, GATEWAY, HOST, pings, segment, shell

ADDRESS = "192.168.50.9"
SIX = "2001:db8:50"
IPVLAN = "CONFIG_IPVLAN"


@pytest.fixture
def bridged(lab: None) -> Iterator[None]:
    """A card in a bridge that somebody made."""
    with segment(bridged=True):
        yield


def leases(pyrun: Pyrun) -> list[str]:
    return [path.name for path in pyrun.runroot.glob("networks/*/leases/*")]


# ── macvlan ────────────────────────────────────────────────────────────────────────────────────────


def test_macvlan_is_one_more_machine_on_the_segment(card: None, pyrun: Pyrun) -> None:
    script = f"ip -4 -o addr show eth0; ip route; ping -c1 -W1 {GATEWAY}; ping -c1 -W1 {HOST} || echo no host"
    seen = pyrun.ok("run", "--rm", f"--network=macvlan:{CARD}:ip={ADDRESS}", "busybox", "sh", "-c", script)
    assert f"inet {ADDRESS}/24 brd 192.168.50.255" in seen
    assert "1 packets received" in seen
    assert "no host" in seen, "the kernel does not let a macvlan and its card's host speak"
    assert leases(pyrun) == []
    assert not list(pyrun.runroot.glob("networks/macvlan:*")), (
        "the directory of a bare card goes with its last container"
    )


def test_a_host_shim_lets_host_and_container_meet(card: None, pyrun: Pyrun) -> None:
    wanted = f"--network=macvlan:{CARD}:ip={ADDRESS},host-shim=on"
    pyrun.ok("run", "-d", "--name", "web", wanted, "busybox", "sleep", "100")
    assert pings(ADDRESS), "from the host"
    assert pings(ADDRESS, at=FAR), "from the segment"
    assert "1 packets received" in pyrun.ok("exec", "web", "ping", "-c1", "-W1", HOST), "to the host"
    shell(f"ip -n {FAR} neigh flush all")
    assert pings(HOST, at=FAR)
    card_mac = Path(f"/sys/class/net/{CARD}/address").read_text().strip()
    assert f"lladdr {card_mac}" in shell(f"ip -n {FAR} neigh show {HOST}"), "the shim answered for the host"
    pyrun.ok("rm", "-f", "web")
    assert not [link for link in Path("/sys/class/net").iterdir() if link.name.startswith("pym")]


def test_two_containers_never_have_one_address(card: None, pyrun: Pyrun) -> None:
    wanted = f"--network=macvlan:{CARD}:ip={ADDRESS}"
    pyrun.ok("run", "-d", "--name", "web", wanted, "busybox", "sleep", "100")
    error = pyrun.fails(125, "run", "--rm", wanted, "busybox", "true")
    assert error.startswith(
        f"pyrun: the address {ADDRESS} of network macvlan:{CARD} is held by container web"
    )
    pyrun.ok("rm", "-f", "web")
    # at once: the kernel may still be collecting the former
    pyrun.ok("run", "--rm", wanted, "busybox", "true")


def test_a_macvlan_network_leases_its_range_beside_the_host(card: None, pyrun: Pyrun) -> None:
    """Created as with Docker; the subnet is the segment's, where the host has an address that is nobody else's."""
    made = ("--subnet", "192.168.50.0/24", "--ip-range", "192.168.50.0/29")
    pyrun.ok("network", "create", "-d", "macvlan", "-o", f"parent={CARD}", *made, "lan")
    for name in ("one", "two"):
        pyrun.ok("run", "-d", "--name", name, "--network", "lan", "busybox", "sleep", "100")
    inspected = [
        pyrun.ok("exec", name, "sh", "-c", "ip -4 -o addr show eth0; ip route") for name in ("one", "two")
    ]
    found = [text.split("inet ")[1].split("/")[0] for text in inspected]
    assert found == ["192.168.50.3", "192.168.50.4"], "not the gateway's, .1, nor the host's, .2"
    assert f"default via {GATEWAY}" in inspected[0]
    assert "1 packets received" in pyrun.ok("exec", "one", "ping", "-c1", "-W1", found[1])
    assert pyrun.fails(1, "network", "rm", "lan").startswith("pyrun: network lan is used by one, two")
    pyrun.ok("rm", "-f", "one", "two")
    assert pyrun.ok("network", "rm", "lan") == "lan"
    assert leases(pyrun) == []


@pytest.mark.parametrize(("options", "led"), [((), True), (("--internal",), False)])
def test_an_internal_network_on_a_card_has_no_way_out(
    card: None, pyrun: Pyrun, options: tuple[str, ...], led: bool
) -> None:
    words = ("--subnet=192.168.50.0/24", "--ip-range=192.168.50.64/28", *options)
    pyrun.ok("network", "create", "-d", "macvlan", "-o", f"parent={CARD}", *words, "lan")
    routes = pyrun.ok("run", "--rm", "--network=lan", "busybox", "ip", "route")
    assert ("default via 192.168.50.1" in routes) is led
    assert "192.168.50.0/24 dev eth0" in routes
    pyrun.ok("run", "-d", "--name", "web", "busybox", "sleep", "100")
    pyrun.ok("network", "disconnect", "bridge", "web")
    pyrun.ok("network", "connect", "lan", "web")
    assert ("default via 192.168.50.1" in pyrun.ok("exec", "web", "ip", "route")) is led


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
@pytest.mark.parametrize("option", ["--icc=false", "--isolate"])
def test_rules_are_for_bridges(card: None, pyrun: Pyrun, driver: str, option: str) -> None:
    error = pyrun.fails(1, "network", "create", "-d", driver, "-o", f"parent={CARD}", option, "lan")
    assert error.startswith(f"pyrun: network create -d {driver}: {option} has no meaning")
    assert pyrun.fails(1, "network", "inspect", "lan").startswith("pyrun: no such network")


def test_the_hint_about_an_address_beside_the_hosts_works(bridged: None, pyrun: Pyrun) -> None:
    error = pyrun.fails(125, "run", "--rm", f"--network=l2:{CARD}:ip=10.200.0.4", "busybox", "true")
    pyrun.ok("run", "-d", "--name", "web", f"--network=l2:{CARD}", "busybox", "sleep", "100")
    shell(error.rpartition("once it runs: ")[2].replace("CONTAINER", "web"))
    assert "inet 10.200.0.4/24" in pyrun.ok("exec", "web", "ip", "addr", "show", "eth0")


def test_a_card_and_a_bridge_together(card: None, pyrun: Pyrun) -> None:
    """Interfaces are called by their place; the default route is the first's, unless a priority says otherwise."""
    lan, script = f"--network=macvlan:{CARD}:ip={ADDRESS}", "ip -4 -o addr; ip route"
    seen = pyrun.ok("run", "--rm", lan, "--network=bridge", "busybox", "sh", "-c", script)
    assert f"eth0    inet {ADDRESS}/24" in seen
    assert "eth1    inet 10.77." in seen
    assert "default via 10.77.0.1 dev eth1" in seen, "the card has no gateway here"
    shell(f"ip route add default via {GATEWAY} metric 5000")
    try:
        seen = pyrun.ok("run", "--rm", lan, "--network=bridge", "busybox", "sh", "-c", script)
        assert f"default via {GATEWAY} dev eth0" in seen
        first = ("--network=bridge:gw-priority=1",)
        assert "default via 10.77.0.1 dev eth1" in pyrun.ok(
            "run", "--rm", lan, *first, "busybox", "sh", "-c", script
        )
    finally:
        shell(f"ip route del default via {GATEWAY} metric 5000")


def reached_from(pyrun: Pyrun, name: str = "web") -> dict[str, dict[str, Any]]:
    """What `pyrun port` says of each protocol at 8080 of every address."""
    rows = map(json.loads, pyrun.ok("port", "--format=json", name).splitlines())
    return {row["Protocol"]: row for row in rows if row["HostIp"] == "0.0.0.0"}


def test_a_published_port_beside_a_card_with_the_default_route(
    card: None, pyrun: Pyrun, internet: SimpleNamespace
) -> None:
    """Connections are answered by the bridge they came in by; of datagrams it is told that they are not."""
    on_the_card(pyrun)
    published = ("-p", "8080:80", "-p", "8080:80/udp")
    pyrun.ok("run", "-d", "--name=web", "--network=lan", "--network=bridge", *published, "busybox", *SERVE)
    place = f"{internet.host}:8080"

    def asked() -> list[str]:
        with udp_server("web", 80):
            by_udp = ask_udp(internet, "neighbour", internet.host, 8080)
        return [fetch(place, "/cgi-bin/who", at="neighbour"), by_udp]

    assert "default via 192.168.50.1" in pyrun.ok("exec", "web", "ip", "route")
    assert asked() == [internet.neighbour, ""]
    found = reached_from(pyrun)
    assert sorted(found["tcp"]["ReachableFrom"]["lan"]) == sorted([internet.host, HOST])
    assert found["udp"]["ReachableFrom"] == {"host": True, "lan": [], "containers": True}
    assert (found["udp"]["AnswersLeaveBy"], found["udp"]["OnlyContainersOf"]) == ("eth0", "bridge")
    assert (found["tcp"]["AnswersLeaveBy"], found["tcp"]["OnlyContainersOf"]) == ("", "")
    assert "no: udp is answered by eth0" in pyrun.ok("port", "--format=table", "web")

    pyrun.ok("network", "disconnect", "lan", "web")
    assert asked() == [internet.neighbour] * 2
    assert reached_from(pyrun)["udp"]["AnswersLeaveBy"] == ""
    pyrun.ok("network", "connect", "--gw-priority=1", "lan", "web")
    assert "default via 192.168.50.1" in pyrun.ok("exec", "web", "ip", "route")
    assert asked() == [internet.neighbour, ""]
    assert reached_from(pyrun)["tcp"]["ReachableFrom"]["lan"]
    # nor is it a matter of pyrun's rule: what the kernel says is told
    shell("ip -n web rule delete priority 1000")
    assert fetch(place, at="neighbour", tries=1) == ""
    found = reached_from(pyrun)
    assert (found["tcp"]["ReachableFrom"]["lan"], found["tcp"]["AnswersLeaveBy"]) == ([], "eth0")


def test_a_port_that_is_published_when_the_bridge_comes_after_the_card(
    six: None, pyrun: Pyrun, internet: SimpleNamespace
) -> None:
    on_the_card(pyrun)
    pyrun.ok("network", "create", "--ipv6", "both")
    pyrun.ok("run", "-d", "--name=web", "--network=lan", "busybox", *SERVE)
    assert "is on no network that ports" in pyrun.fails(1, "port", "add", "web", "8080:80")
    pyrun.ok("network", "connect", "both", "web")
    pyrun.ok("port", "add", "web", "8080:80")
    assert fetch(f"{internet.host}:8080", "/cgi-bin/who", at="neighbour") == internet.neighbour
    for family in ("-4", "-6"):
        assert len(shell(f"ip -n web {family} rule show priority 1000").splitlines()) == 1
    for other in ("both", "bridge"):  # a neighbour is answered straight, another network by the gateway
        asking = ("busybox", "wget", "-qO-", f"http://{internet.host}:8080/")
        assert pyrun.ok("run", "--rm", f"--network={other}", *asking) == "hello"
    pyrun.ok("port", "rm", "web", "8080")
    pyrun.ok("network", "disconnect", "both", "web")
    pyrun.ok("network", "connect", "both", "web")
    pyrun.ok("port", "add", "web", "8080:80")
    assert fetch(f"{internet.host}:8080", at="neighbour") == "hello"


def test_connect_and_disconnect_a_running_container(card: None, pyrun: Pyrun) -> None:
    pyrun.ok(
        "network", "create", "-d", "macvlan", "-o", f"parent={CARD}", "--subnet", "192.168.50.0/24", "lan"
    )
    pyrun.ok("run", "-d", "--name", "web", "busybox", "sleep", "100")
    pyrun.ok("network", "connect", "--ip", ADDRESS, "lan", "web")
    assert pings(ADDRESS, at=FAR)
    pyrun.ok("network", "disconnect", "bridge", "web")
    assert f"default via {GATEWAY} dev eth1" in pyrun.ok("exec", "web", "ip", "route")
    pyrun.ok("network", "connect", "bridge", "web")
    pyrun.ok("network", "disconnect", "lan", "web")
    assert "eth1" not in pyrun.ok("exec", "web", "ip", "link")
    assert leases(pyrun)[:1] and ADDRESS not in leases(pyrun)
    assert "default via 10.77.0.1" in pyrun.ok("exec", "web", "ip", "route")
    pyrun.ok("network", "connect", "--ip", ADDRESS, "lan", "web")
    pyrun.ok("rm", "-f", "web")
    assert ADDRESS not in leases(pyrun)


def on_the_card(pyrun: Pyrun, *options: str, name: str = "lan") -> None:
    """A macvlan network with the segment's two subnets."""
    subnets = ("--subnet=192.168.50.0/24", "--ip-range=192.168.50.64/26", f"--subnet={SIX}::/64")
    pyrun.ok("network", "create", "-d", "macvlan", "-o", f"parent={CARD}", *subnets, *options, name)


@pytest.fixture
def six(card: None) -> None:
    """IPv6 for the machine behind the card, and for the host on it."""
    shell(
        f"ip -n {FAR} addr add {SIX}::1/64 dev far nodad",
        f"ip addr add {SIX}::2/64 dev {CARD} nodad",
    )


def test_the_first_packet_of_ipv6_arrives(six: None, pyrun: Pyrun) -> None:
    """The address is taken packets for when `run` returns, and nothing of the interface is still being asked about."""
    on_the_card(pyrun)
    script = f"ip addr; ping -6 -c1 -W1 {SIX}::1"
    seen = pyrun.ok("run", "--rm", "--network=lan", "busybox", "sh", "-c", script)
    assert "inet6 fe80::" in seen and "tentative" not in seen
    assert "1 packets received" in seen
    for number in range(20):
        address = f"{SIX}::a{number}"
        pyrun.ok("run", "-d", "--name=web", f"--network=lan:ip6={address}", "busybox", "sleep", "100")
        assert pings(address, at=FAR), f"the packet of start {number}"
        pyrun.ok("rm", "-f", "web")


def test_a_host_shim_has_ipv6_as_well(six: None, pyrun: Pyrun) -> None:
    on_the_card(pyrun, "-o", "host-shim=on")
    pyrun.ok("run", "-d", "--name=web", f"--network=lan:ip6={SIX}::9", "busybox", "sleep", "100")
    assert pings(f"{SIX}::9"), "from the host, its first packet"
    seen = pyrun.ok("exec", "web", "ping", "-6", "-c1", "-W1", f"{SIX}::2")
    assert "1 packets received" in seen, "to the host"
    assert pings(f"{SIX}::9", at=FAR), "from the segment"
    shell(f"ip -n {FAR} neigh flush all")
    assert pings(f"{SIX}::2", at=FAR)
    card_mac = Path(f"/sys/class/net/{CARD}/address").read_text().strip()
    assert f"lladdr {card_mac}" in shell(f"ip -n {FAR} neigh show {SIX}::2"), "the shim answered for the host"
    pyrun.ok("rm", "-f", "web")
    assert f"{SIX}::9" not in shell("ip -6 route") + shell("ip -6 neigh show nud permanent")


def test_an_mtu_is_the_interfaces_own(card: None, pyrun: Pyrun) -> None:
    on_the_card(pyrun, "--mtu=1400", "-o", "host-shim=on")
    pyrun.ok("run", "-d", "--name=web", "--network=lan", "busybox", "sleep", "100")
    mtu = ("cat", "/sys/class/net/eth0/mtu")
    assert pyrun.ok("exec", "web", *mtu) == "1400"
    (shim,) = Path("/sys/class/net").glob("pym*")
    assert (shim / "mtu").read_text() == "1400\n", "more would be dropped on its way in"
    pyrun.ok("network", "disconnect", "lan", "web")
    pyrun.ok("network", "connect", "lan", "web")
    assert pyrun.ok("exec", "web", *mtu) == "1400"
    pyrun.ok("rm", "-f", "web")
    assert pyrun.ok("run", "--rm", f"--network=macvlan:{CARD}:ip={ADDRESS}", "busybox", *mtu) == "1500"
    pyrun.ok("network", "rm", "lan")
    on_the_card(pyrun, "-o", "com.docker.network.driver.mtu=1450")
    assert pyrun.ok("run", "--rm", "--network=lan", "busybox", *mtu) == "1450"
    assert " mtu 1450 " in pyrun.ok("run", "--rm", "--dry-run", "--network=lan", "busybox", "true")


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_an_mtu_greater_than_the_cards(card: None, pyrun: Pyrun, driver: str) -> None:
    made = ("-d", driver, "-o", f"parent={CARD}", "--mtu=1600")
    error = pyrun.fails(1, "network", "create", *made, "lan")
    first, hint = error.splitlines()
    assert first == f"pyrun: network create -d {driver}: --mtu 1600: is more than the 1500 of {CARD}"
    assert "--mtu 1500" in hint
    assert pyrun.fails(1, "network", "inspect", "lan").startswith("pyrun: no such network")
    shell(hint.partition("carries more: ")[2])
    pyrun.ok("network", "create", *made, "lan")
    shell(f"ip link set {CARD} mtu 1500")
    if driver == "macvlan":
        error = pyrun.fails(125, "run", "--rm", "--network=lan", "busybox", "true")
        assert f"--mtu 1600: is more than the 1500 of {CARD}" in error


def test_two_starts_at_once_never_have_one_mac(card: None, pyrun: Pyrun) -> None:
    """On two networks of one card, where neither knows of the other's addresses."""
    on_the_card(pyrun)
    mac, bare = "02:00:00:00:00:77", f"macvlan:{CARD}"

    def start(number: int) -> subprocess.CompletedProcess[str]:
        wanted = f"lan:mac={mac}" if number % 2 else f"{bare}:ip=192.168.50.{200 + number},mac={mac}"
        return pyrun("run", "-d", "--name", f"c{number}", f"--network={wanted}", "busybox", "sleep", "100")

    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(start, range(6)))
    started = [number for number, each in enumerate(done) if each.returncode == 0]
    assert len(started) == 1, [each.stderr for each in done]
    told = f"the MAC address {mac} is that of container c{started[0]} on "
    assert [told in each.stderr for each in done].count(True) == len(done) - 1
    assert [path.name for path in pyrun.runroot.glob("macs/*")] == [f"{CARD}-{mac}"]
    pyrun.ok("network", "disconnect", "lan" if started[0] % 2 else bare, f"c{started[0]}")
    assert not list(pyrun.runroot.glob("macs/*"))
    pyrun.ok("run", "--rm", f"--network=lan:mac={mac}", "busybox", "true")


# ── l2 ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.alone
def test_l2_puts_the_container_on_the_cards_segment(bridged: None, pyrun: Pyrun) -> None:
    script = f"ip -4 -o addr show eth0; ping -c1 -W1 {GATEWAY} && ping -c1 -W1 {HOST} && echo all reached"
    seen = pyrun.ok("run", "--rm", f"--network=l2:{CARD}:ip={ADDRESS}", "busybox", "sh", "-c", script)
    assert f"inet {ADDRESS}/24" in seen
    assert "all reached" in seen, "the first packets, too"
    links = json.loads(shell("ip -j link show master br0"))
    assert [link["ifname"] for link in links if "UP" in link["flags"]] == [CARD]


@pytest.mark.alone
def test_l2_below_a_firewall_that_drops_what_is_forwarded(bridged: None, pyrun: Pyrun) -> None:
    """As Docker sets it up. The bridge is not pyrun's: it says which rule is missing, and that rule is enough."""
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not switch.exists():
        pytest.skip(capabilities.missing("br_netfilter"))
    before = switch.read_text()
    ping = (f"--network=l2:{CARD}:ip={ADDRESS}", "busybox", "ping", "-c1", "-W1", GATEWAY)
    try:
        switch.write_text("1")
        shell("iptables -P FORWARD DROP")
        done = pyrun("run", "--rm", *ping)
        assert done.returncode == 1, "dropped"
        assert "drops what passes the bridge br0" in done.stderr
        shell(done.stderr.strip().rpartition("through: ")[2])
        assert "1 packets received" in pyrun.ok("run", "--rm", *ping)
    finally:
        subprocess.run(
            ["sh", "-c", "iptables -P FORWARD ACCEPT; iptables -F; nft delete table ip filter"], check=False
        )
        switch.write_text(before)


@pytest.mark.alone
def test_l2_leaves_the_address_to_dhcp(bridged: None, pyrun: Pyrun, tmp_path: Path) -> None:
    """A DHCP server of the segment's own, and a client in the container."""
    server = tmp_path / "udhcpd.conf"
    server.write_text(
        f"start 192.168.50.100\nend 192.168.50.110\ninterface far\nlease_file {tmp_path}/leases\n"
        f"opt subnet 255.255.255.0\nopt router {GATEWAY}\n"
    )
    (tmp_path / "leases").touch()
    words = ["ip", "netns", "exec", FAR, "busybox", "udhcpd", "-f", str(server)]
    daemon = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    script = tmp_path / "bound"
    script.write_text('#!/bin/sh\n[ "$1" = bound ] && ip addr add $ip/24 dev $interface\nexit 0\n')
    script.chmod(0o755)
    try:
        done = pyrun(
            "run", "--rm", "--cap-add=NET_ADMIN", "-v", f"{script}:/bound", f"--network=l2:{CARD}", "busybox",
            "sh", "-c",
            f"udhcpc -i eth0 -n -q -s /bound && ip -4 -o addr show eth0 && ping -c1 -W1 {GATEWAY}",
        )  # fmt: skip
    finally:
        daemon.kill()
        daemon.wait(10)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "inet 192.168.50.1" in done.stdout
    assert "eth0 has no address" in done.stderr, "it is said that none is handed out"


# ── what cannot be ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("network", "message", "hint"),
    [
        (f"l2:{CARD}", f"{CARD} is in no bridge, and none is made for you", "ip link add br0 type bridge"),
        ("macvlan:nope", "this host has no interface nope", "lan1"),
        (f"macvlan:{CARD}:ip=10.1.1.1", "ip=10.1.1.1 is in none of its subnets", "network create"),
        (f"macvlan:{CARD}:ip={HOST}", f"ip={HOST} is the host's own address", ""),
        (f"macvlan:{CARD}:mode=odd", "mode=odd: no mode of macvlan", "bridge, private, vepa, passthru"),
        (f"macvlan:{CARD}:host-shim=on", "host-shim needs an address that pyrun knows", ""),
        (f"l2:{CARD}:mode=x", "mode=x: no setting of l2", ""),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    card: None, pyrun: Pyrun, network: str, message: str, hint: str
) -> None:
    error = pyrun.fails(125, "run", "--rm", f"--network={network}", "busybox", "true")
    assert error.startswith(
        f"pyrun: --network {network.partition(':ip')[0].partition(':mode')[0].partition(':host')[0]}"
    )
    assert message in error
    assert hint in error
    assert leases(pyrun) == []


@pytest.mark.alone
def test_the_commands_of_the_hint_make_the_bridge(card: None, pyrun: Pyrun) -> None:
    error = pyrun.fails(125, "run", "--rm", f"--network=l2:{CARD}", "busybox", "true")
    shell(error.rpartition(f"not by way of {CARD}: ")[2])
    try:
        seen = pyrun.ok(
            "run", "--rm", f"--network=l2:{CARD}:ip={ADDRESS}", "busybox", "ping", "-c1", "-W1", GATEWAY
        )
        assert "1 packets received" in seen
    finally:
        shell("ip link delete br0")


def test_a_card_that_belongs_to_a_bridge(bridged: None, pyrun: Pyrun) -> None:
    error = pyrun.fails(125, "run", "--rm", f"--network=macvlan:{CARD}", "busybox", "true")
    assert f"{CARD} belongs to br0" in error
    assert f"hint: --network l2:{CARD}" in error


def test_a_kernel_without_ipvlan_is_told_by_its_option(card: None, pyrun: Pyrun) -> None:
    if (
        subprocess.run(
            ["ip", "link", "add", "probe", "link", CARD, "type", "ipvlan"], capture_output=True
        ).returncode
        == 0
    ):
        shell("ip link delete probe")
        assert (
            pyrun.ok("run", "--rm", f"--network=ipvlan:{CARD}:ip={ADDRESS}", "busybox", "echo", "it works")
            == "it works"
        )
        return
    error = pyrun.fails(125, "run", "--rm", f"--network=ipvlan:{CARD}", "busybox", "true")
    assert error.startswith(f"pyrun: --network ipvlan:{CARD}: this kernel has no ipvlan ({IPVLAN})")


def test_a_plan_tells_every_step(card: None, pyrun: Pyrun) -> None:
    wanted = f"--network=macvlan:{CARD}:ip={ADDRESS},host-shim=on"
    told = pyrun.ok("run", "--rm", "--dry-run", wanted, "busybox", "true")
    assert f"ip link add eth0 link {CARD} netns" in told
    assert f"ip route add {ADDRESS} dev pym" in told
    assert leases(pyrun) == []


def test_a_killed_planner_leaves_no_lease_for_long(card: None, pyrun: Pyrun) -> None:
    """Its claims are dead, and the next who wants that very address takes it."""
    directory = pyrun.runroot / f"networks/macvlan:{CARD}/leases"
    directory.mkdir(parents=True)
    mac, other = f"{CARD}-02:42:c0:a8:32:09", f"{CARD}-02:42:00:00:00:01"
    macs = pyrun.runroot / "macs"
    macs.mkdir()
    for file in (directory / ADDRESS, macs / mac, macs / other):
        file.write_text(f"{'0' * 64} 999999 1\nname gone\n")
    pyrun.ok("run", "--rm", f"--network=macvlan:{CARD}:ip={ADDRESS}", "busybox", "true")
    assert [path.name for path in macs.iterdir()] == [other]
    assert pyrun.ok("system", "reconcile") == f"MAC address {other}: freed"
    assert not list(macs.iterdir())
