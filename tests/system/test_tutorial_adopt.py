"""The tutorial's network, made by hand around a container with --net=none, and then taken over by `network adopt`.

First its own commands (test_tutorial.py has them one by one and looks at each); then the bridge becomes a network of
pyrun's: others get addresses beside those that are there, and its removal leaves what was made by hand as it was.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import Pyrun
from places import HOST6, INTERNET, INTERNET6, page, setting, telling, uplink6
from published import fetch, refuses
from segments import pings, shell

pytestmark = pytest.mark.alone

NAME, BRIDGE, ADDRESS = "netns666", "br666", "10.0.0.2"
SERVE = ["sh", "-c", "mkdir -p /www; echo hello >/www/index.html; exec httpd -f -p 80 -h /www"]


def wire_by_hand(uplink: str) -> None:
    """The tutorial, from the namespace that has a name to the internet."""
    shell(
        "ip link add name veth_d366 type veth peer name veth_d366_peer",
        f"ip link set veth_d366_peer netns {NAME}",
        f"ip netns exec {NAME} ip link set veth_d366_peer name eth0",
        f"ip netns exec {NAME} ip addr add {ADDRESS}/24 dev eth0",
        f"ip netns exec {NAME} ip link set eth0 up",
        f"ip link add {BRIDGE} type bridge",
        f"ip link set veth_d366 master {BRIDGE} up",
        f"ip addr add 10.0.0.1/24 dev {BRIDGE}",
        f"ip link set {BRIDGE} up",
        f"iptables -t nat -A POSTROUTING -s 10.0.0.0/24 -o {uplink} -j MASQUERADE",
        "sysctl -q -w net.ipv4.ip_forward=1",
        f"iptables -A FORWARD -i {BRIDGE} -o {BRIDGE} -j ACCEPT",
        f"iptables -A FORWARD -i {BRIDGE} ! -o {BRIDGE} -j ACCEPT",
        f"iptables -A FORWARD ! -i {BRIDGE} -o {BRIDGE} -j ACCEPT",
        f"ip netns exec {NAME} ip route add default via 10.0.0.1",
    )


@pytest.fixture
def by_hand(pyrun: Pyrun, internet: SimpleNamespace) -> Iterator[Pyrun]:
    """A container wired as in the tutorial; afterwards what that leaves on the host is taken away."""
    pyrun.ok("run", "-d", "--name", NAME, "--net=none", "busybox", "sleep", "1000")
    wire_by_hand(internet.uplink)
    yield pyrun
    pyrun("rm", "-f", *pyrun("ps", "-aq").stdout.split())
    pyrun("network", "prune", "-f")
    undo = f"""ip link delete {BRIDGE}; iptables -t nat -F; iptables -F
               nft delete table ip nat; nft delete table ip filter
               sysctl -q -w net.ipv4.ip_forward=0; ip netns delete blue"""
    subprocess.run(["sh", "-c", undo], capture_output=True, check=False)


def pinged(pyrun: Pyrun, name: str, *targets: str) -> list[str]:
    """Those of *targets* that answer the container."""
    script = "; ".join(f"ping -c1 -W2 {target} >/dev/null && echo {target}" for target in targets)
    return str(pyrun("exec", name, "sh", "-c", script).stdout).split()


def picture() -> list[str]:
    """What somebody made by hand: link, address, rules."""
    return [
        shell("iptables-save | sed 's/^#.*//; s/\\[[0-9:]*\\]//'"),
        shell(f"ip -br link show {BRIDGE}; ip -br addr show {BRIDGE}"),
        shell(f"ls /sys/class/net/{BRIDGE}/brif"),
        shell(
            f"sysctl net.ipv4.ip_forward net.ipv4.conf.{BRIDGE} net.ipv6.conf.{BRIDGE} 2>/dev/null || true"
        ),
    ]


def leases(pyrun: Pyrun, network: str = BRIDGE) -> list[str]:
    return sorted(path.name for path in (pyrun.runroot / f"networks/{network}/leases").glob("*"))


def test_adopted_used_and_let_go(by_hand: Pyrun, internet: SimpleNamespace) -> None:
    far = (internet.far, "10.0.0.1")
    assert pinged(by_hand, NAME, *far) == [*far], "the tutorial itself"
    before = picture()

    done = by_hand("network", "adopt", BRIDGE)
    assert (done.returncode, done.stdout) == (0, f"{BRIDGE}\n"), done.stderr
    assert f"bridge {BRIDGE} adopted, 10.0.0.0/24; {NAME} has {ADDRESS}" in done.stderr
    assert leases(by_hand) == [ADDRESS]
    assert pinged(by_hand, NAME, *far) == [*far], "nobody on it notices"

    mac = Path(f"/sys/class/net/{BRIDGE}/address").read_text()
    by_hand.ok("run", "-d", "--name", "web", "--network", BRIDGE, "-p", "8080:80", "busybox", *SERVE)
    shell(
        f"ip link add low address 02:00:00:00:00:01 type veth peer name low2; ip link set low master {BRIDGE}"
    )
    assert Path(f"/sys/class/net/{BRIDGE}/address").read_text() == mac, (
        "else nobody finds the gateway for a while"
    )
    shell("ip link delete low")
    assert leases(by_hand) == [ADDRESS, "10.0.0.3"]
    assert pinged(by_hand, "web", ADDRESS, *far, internet.name, NAME) == [ADDRESS, *far, internet.name, NAME]
    assert pinged(by_hand, NAME, "10.0.0.3") == ["10.0.0.3"]
    page = internet.at("neighbour", "busybox", "wget", "-qO-", f"http://{internet.host}:8080/")
    assert page == "hello\n"
    inspected = json.loads(by_hand.ok("network", "inspect", BRIDGE))[0]
    assert NAME in json.dumps(inspected)
    switches = [Path(f"/sys/class/net/{BRIDGE}/bridge/nf_call_{each}tables") for each in ("ip", "ip6")]
    by_hand.ok("run", "--rm", "--network", BRIDGE, "--egress", "none", "busybox", "true")
    assert [each.read_text() for each in switches] == ["1\n", "1\n"]

    assert by_hand.fails(1, "network", "rm", BRIDGE).startswith(f"pyrun: network {BRIDGE} is used by web")
    assert leases(by_hand) == [ADDRESS, "10.0.0.3"], "a refusal changes nothing"
    by_hand.ok("rm", "-f", "web")
    assert by_hand.ok("network", "rm", BRIDGE) == BRIDGE
    assert picture() == before, "only what pyrun added is gone"
    assert [each.read_text() for each in switches] == ["0\n", "0\n"]
    assert pinged(by_hand, NAME, *far) == [*far]
    assert "inet pyrun" not in shell("nft list tables")


def test_the_way_in_stays_as_the_hand_made_rules_have_it(by_hand: Pyrun, internet: SimpleNamespace) -> None:
    """The third FORWARD rule lets everybody in; a bridge of pyrun's own would not."""
    internet.at("neighbour", "ip", "route", "add", "10.0.0.0/24", "via", internet.host)
    try:
        assert "1 received" in internet.at("neighbour", "ping", "-c1", "-W1", ADDRESS)
        by_hand.ok("network", "adopt", BRIDGE)
        assert "1 received" in internet.at("neighbour", "ping", "-c1", "-W1", ADDRESS)
        shell(f"iptables -D FORWARD ! -i {BRIDGE} -o {BRIDGE} -j ACCEPT", "iptables -P FORWARD DROP")
        by_hand.ok("run", "--rm", "--network", BRIDGE, "busybox", "true")
        lost = internet.at("neighbour", "ping", "-c1", "-W1", ADDRESS, check=False)
        assert "0 received" in lost, "what their rules shut, pyrun does not open"
    finally:
        internet.at("neighbour", "ip", "route", "delete", "10.0.0.0/24")
        shell("iptables -P FORWARD ACCEPT")


def test_a_published_port_that_these_rules_do_not_forward(by_hand: Pyrun, internet: SimpleNamespace) -> None:
    """It is the host's and its containers' own, and `pyrun port` says so."""

    def told() -> tuple[object, str]:
        row = json.loads(by_hand.ok("port", "--format=json", "web"))
        return row["ReachableFrom"], row["Firewall"]

    by_hand.ok("network", "adopt", BRIDGE)
    by_hand.ok("run", "-d", "--name", "web", "--network", BRIDGE, "-p", "8080:80", "busybox", *SERVE)
    assert fetch(f"{internet.host}:8080", at="neighbour") == "hello"
    everywhere = {"host": True, "lan": [internet.host], "containers": True}
    assert told()[0] == everywhere
    shell(f"iptables -D FORWARD ! -i {BRIDGE} -o {BRIDGE} -j ACCEPT", "iptables -P FORWARD DROP")
    try:
        assert refuses(f"{internet.host}:8080", at="neighbour")
        assert fetch(f"{internet.host}:8080") == "hello"
        assert told() == (
            {**everywhere, "lan": []},
            "the chain FORWARD of iptables does not let it in: `network adopt` leaves that to it",
        )
        shell(f"iptables -A FORWARD -o {BRIDGE} -p tcp --dport 80 -j ACCEPT")
        assert fetch(f"{internet.host}:8080", at="neighbour") == "hello"
        assert told()[0] == everywhere
    finally:
        shell("iptables -P FORWARD ACCEPT")


def test_what_is_told_of_foreign_chains_is_what_was_added(by_hand: Pyrun) -> None:
    shell("iptables -P FORWARD DROP; iptables -P INPUT DROP")
    try:
        told = by_hand("network", "adopt", BRIDGE).stderr
        assert "2 rules for pyr* added to its chain FORWARD" in told
        assert f"4 rules for pyr* and {BRIDGE} added to its chain INPUT" in told
        assert shell(f"iptables -S INPUT | grep -c 'pyrun: .* {BRIDGE}'") == "2\n"
    finally:
        shell("iptables -P FORWARD ACCEPT; iptables -P INPUT ACCEPT")


def told_by(place: str, address: str) -> str:
    """As whom somebody there goes out."""
    return page(place, address).removeprefix("you are ")


def ways_back(internet: SimpleNamespace, do: str) -> None:
    for subnet, via in (("10.0.0.0/24", internet.host), ("fd10::/64", HOST6)):
        internet.at("internet", "ip", "route", do, subnet, "via", via)


@contextmanager
def routed(internet: SimpleNamespace) -> Iterator[None]:
    """The bridge with addresses of both families and without MASQUERADE, since others know the way back."""
    shell(
        f"iptables -t nat -F; ip addr add fd10::1/64 dev {BRIDGE} nodad",
        f"ip -n {NAME} addr add fd10::2/64 dev eth0 nodad; ip -n {NAME} -6 route add default via fd10::1",
    )
    with uplink6(), telling(INTERNET, INTERNET6), setting("net/ipv6/conf/all/forwarding", "1"):
        ways_back(internet, "add")
        try:
            yield
        finally:
            ways_back(internet, "delete")


def test_who_was_routed_goes_out_as_before(by_hand: Pyrun, internet: SimpleNamespace) -> None:
    """Only containers of ours are behind this host's address."""
    four, six = internet.far, f"[{INTERNET6}]"
    with routed(internet):
        assert (told_by(NAME, four), told_by(NAME, six)) == (ADDRESS, "fd10::2")
        by_hand.ok("network", "adopt", BRIDGE)
        by_hand.ok("run", "-d", "--name", "web", "--network", BRIDGE, "busybox", "sleep", "1000")
        for broken in ("true", "nft flush ruleset"):
            shell(broken)
            by_hand.ok("network", "reload")
            assert (told_by(NAME, four), told_by(NAME, six)) == (ADDRESS, "fd10::2")
            assert (told_by("web", four), told_by("web", six)) == (internet.host, HOST6)
        assert by_hand.ok("network", "reload") == "nothing was missing"
        guests = "nft list set inet pyrun guests; nft list set inet pyrun guests6"
        assert "10.0.0.3" in shell(guests) and "fd10::" in shell(guests)
        by_hand.ok("rm", "-f", "web")
        assert "elements" not in shell(guests)


def known_neighbours() -> dict[str, dict[str, object]]:
    """What this host knows of each neighbour on the bridge; of the state, whether somebody said it for good."""
    rows = [row for row in json.loads(shell(f"ip -j neigh show dev {BRIDGE}")) if "lladdr" in row]
    return {row["dst"]: row | {"state": "PERMANENT" in row["state"]} for row in rows}


def test_whom_the_host_knows_there_it_goes_on_knowing(by_hand: Pyrun, internet: SimpleNamespace) -> None:
    """Else what is forwarded to them over IPv6 is lost while the bridge's address of the link is tentative: meanwhile
    the host asks for nobody. Here that takes a minute, by hand up to 2 s."""
    shell(
        f"ip link set {BRIDGE} down; sysctl -q -w net.ipv6.conf.{BRIDGE}.dad_transmits=60",
        f"ip link set {BRIDGE} up",
        f"ip neigh add 10.0.0.77 lladdr 02:00:00:00:00:77 dev {BRIDGE}",
        f"ip neigh add fd10::77 lladdr 02:00:00:00:00:77 dev {BRIDGE} router extern_learn protocol zebra",
    )
    with routed(internet):
        assert told_by(NAME, internet.far) == ADDRESS
        assert told_by(NAME, f"[{INTERNET6}]") == "fd10::2"
        known = known_neighbours()
        assert known.keys() >= {ADDRESS, "fd10::2", "10.0.0.77", "fd10::77"}
        by_hand.ok("network", "adopt", BRIDGE)
        assert (now := known_neighbours()) == now | known
        assert told_by(NAME, f"[{INTERNET6}]") == "fd10::2"
        assert "tentative" in shell(f"ip address show dev {BRIDGE} scope link"), (
            "the host could not have asked"
        )


def test_everybody_on_the_bridge_keeps_the_address(by_hand: Pyrun) -> None:
    """A namespace without a container, one without a name, and a name that is none of pyrun's to give away."""
    shell(
        "ip netns add blue",
        f"ip link add vb type veth peer name eth7 netns blue; ip link set vb master {BRIDGE} up",
        "ip -n blue addr add 10.0.0.3/24 dev eth7; ip -n blue link set eth7 up",
    )
    nameless = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    try:
        shell(
            f"while [ $(readlink /proc/{nameless.pid}/ns/net) = $(readlink /proc/self/ns/net) ]; do sleep 0.05; done",
            f"ip link add vn type veth peer name eth0 netns {nameless.pid}; ip link set vn master {BRIDGE} up",
            f"nsenter -t {nameless.pid} -n ip addr add 10.0.0.4/24 dev eth0",
            f"nsenter -t {nameless.pid} -n ip link set eth0 up",
        )
        by_hand.ok("network", "adopt", BRIDGE, "--name", "old")
        assert leases(by_hand, "old") == [ADDRESS, "10.0.0.3", "10.0.0.4"]
        script = ["sh", "-c", "ip -4 -o addr show eth0; ping -c1 -W1 10.0.0.4"]
        seen = by_hand.ok("run", "--rm", "--network", "old", "busybox", *script)
        assert "inet 10.0.0.5/24" in seen and "1 packets received" in seen
        error = by_hand.fails(125, "run", "--rm", "--network", "old:ip=10.0.0.3", "busybox", "true")
        assert error.startswith("pyrun: the address 10.0.0.3 of network old is held by container blue")
    finally:
        nameless.kill()
        nameless.wait(10)
    shell("ip netns delete blue")
    seen = by_hand.ok(
        "run", "--rm", "--network", "old:ip=10.0.0.3", "busybox", "ip", "-4", "-o", "addr", "show", "eth0"
    )
    assert "10.0.0.3/24" in seen, "whoever is gone has no address any more"
    assert by_hand.ok("network", "rm", "old") == "old"
    assert pings(ADDRESS)


def test_a_flushed_ruleset_comes_back_and_a_deleted_bridge_is_told(by_hand: Pyrun) -> None:
    by_hand.ok("network", "adopt", BRIDGE)
    shell("nft delete table inet pyrun")
    by_hand.ok("run", "--rm", "--network", BRIDGE, "busybox", "ping", "-c1", "-W1", ADDRESS)
    shell(f"ip link delete {BRIDGE}")
    error = by_hand.fails(125, "run", "--rm", "--network", BRIDGE, "busybox", "true")
    assert error.startswith(f"pyrun: network {BRIDGE}: its bridge {BRIDGE}, which was adopted, is gone")
    assert not Path(f"/sys/class/net/{BRIDGE}").exists(), "it is not pyrun's to make"
    assert by_hand.ok("network", "rm", BRIDGE) == BRIDGE


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        ("true", ["nope"], "this host has no bridge of that name"),
        ("true", ["eth0"], "eth0 is no bridge"),
        ("ip link add brx type bridge", ["brx"], "brx has no address, so its subnet is unknown"),
        ("true", [BRIDGE, "--name", "bridge"], "the name bridge is pyrun's own"),
        ("true", [BRIDGE, "--name", "a/b"], "is no name of a network"),
        (
            "ip link add brx type bridge; ip addr add 10.0.0.9/25 dev brx; $P network adopt brx",
            [BRIDGE],
            "overlaps 10.0.0.0/25",
        ),
        ("$P network adopt $B", [BRIDGE], f"it is the bridge of network {BRIDGE} already"),
        (
            "ip route add default via 10.0.0.77 metric 4000",
            [BRIDGE],
            "this host's own default route leaves there",
        ),
    ],
)
def test_what_cannot_be_adopted(by_hand: Pyrun, make: str, words: list[str], message: str) -> None:
    subprocess.run(["sh", "-c", make], env=by_hand.env | {"P": str(by_hand.binary), "B": BRIDGE}, check=True,
                   capture_output=True)  # fmt: skip
    try:
        there = sorted(by_hand.runroot.glob("networks/*/network.json"))
        error = by_hand.fails(1, "network", "adopt", *words)
        assert message in error
        assert sorted(by_hand.runroot.glob("networks/*/network.json")) == there
    finally:
        undo = "ip link delete brx; ip route del default via 10.0.0.77"
        subprocess.run(["sh", "-c", undo], capture_output=True, check=False)
