"""What is reached from where it must not be: from the LAN, from other networks, from an --internal one, past --icc.

As in test_network_spoofing.py, each attack is made with pyrun's rules and without the one that stops it. What arrives
is seen on the cable of the container, or by a socket of the host that is bound to 127.0.0.1: the canary.
Rules: network/firewall/routed.py.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

import frames
import hostile
from command import Pyrun
from places import setting
from waiting import soon
from yard import LAN6, SERVE, Yard, connects, page, run

LOCALNET = "127.0.0.0/8 is this host's own, though route_localnet would let neighbours in"
BELIEVED = "a container's address is only believed on its bridge"
UNPUBLISHED = "unpublished ports are reached neither by routing nor from other networks"
INTERNAL = "an --internal network reaches nothing but itself"
THIS_HOST = "an --internal network reaches nothing else of this host"
ALONE = "--icc=false: a container exchanges frames with this host alone"
ADDRESSED = "only what is addressed to this host is redirected"
OPENED = (
    "with --network host the container reaches what listens on this host's loopback, and its abstract sockets"
)
REFUSED = os.strerror(errno.ECONNREFUSED)
MARK = b"-of-an-attacker-"
NUMBER = 0x6B696E67  # of a SYN, to be found by
SYN = NUMBER.to_bytes(4, "big")

# Sends frames, told in hexadecimal, from eth0 of where it runs.
SENDER = """
import socket, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sock.bind(("eth0", 0))
for word in sys.argv[1:]: sock.send(bytes.fromhex(word))
"""


@contextmanager
def canary(port: int = 4711) -> Iterator[socket.socket]:
    """A service of the host's own: UDP on 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
        sock.settimeout(0.4)
        yield sock


def heard(sock: socket.socket) -> bool:
    try:
        return sock.recv(100) == MARK
    except TimeoutError:
        return False


def from_neighbour(internet: SimpleNamespace, packet: bytes, kind: int = frames.IPV4) -> None:
    """Have the LAN neighbour put a packet on the cable, to this host's MAC whatever the packet says."""
    own = json.loads(internet.at("neighbour", "ip", "-j", "link", "show", "eth0"))[0]["address"]
    host = Path("/sys/class/net/eth0/address").read_text().strip()
    frame = frames.ethernet(own, host, kind, packet)
    internet.at("neighbour", sys.executable, "-c", SENDER, frame.hex())


# ── 127.0.0.1 ──────────────────────────────────────────────────────────────────────────────────────


def test_a_container_does_not_reach_the_hosts_loopback(yard: Yard) -> None:
    """CVE-2020-8558: published ports switch route_localnet on, for the bridge."""
    evil = yard.start("evil", options=("-p", "127.0.0.1:8081:80"))
    switch = Path(f"/proc/sys/net/ipv4/conf/{yard.bridge}/route_localnet")
    assert switch.read_text() == "1\n", "the attack has nothing to go through"

    def reached() -> bool:
        with canary() as sock:
            packet = frames.udp((evil.address, 9), ("127.0.0.1", 4711), MARK)
            yard.send(frames.ethernet(evil.mac, yard.mac, frames.IPV4, packet))
            return heard(sock)

    assert not reached()
    yard.take_out(LOCALNET)
    assert reached()


def test_the_lan_does_not_reach_the_hosts_loopback(yard: Yard, internet: SimpleNamespace) -> None:
    """Not even where an administrator has switched route_localnet on for everybody."""
    yard.start("evil", options=("-p", "127.0.0.1:8081:80"))

    def reached() -> bool:
        with canary() as sock, setting("net/ipv4/conf/eth0/route_localnet", "1"):
            from_neighbour(internet, frames.udp((internet.neighbour, 9), ("127.0.0.1", 4711), MARK))
            return heard(sock)

    assert Path("/proc/sys/net/ipv4/conf/eth0/route_localnet").read_text() == "0\n"
    assert not reached()
    yard.take_out(LOCALNET)
    assert reached()


def test_a_port_published_on_loopback_is_not_reached_from_the_lan(
    yard: Yard, internet: SimpleNamespace
) -> None:
    """moby#45610: a neighbour sends to 127.0.0.1 behind this host's MAC, and the redirection takes it for local."""
    victim = yard.start("victim", *SERVE, options=("-p", "127.0.0.1:8081:80"))
    assert soon(lambda: connects(internet, "neighbour", "127.0.0.1", 8081) is False)
    assert not connects(internet, "neighbour", internet.host, 8081)

    def reached() -> bool:
        with frames.Sniffer(victim.link) as seen:
            from_neighbour(internet, frames.syn((internet.neighbour, 999), ("127.0.0.1", 8081), NUMBER))
            return bool(seen.has(SYN))

    assert not reached()
    yard.take_out(LOCALNET)
    assert reached()


@contextmanager
def greeting(sock: socket.socket) -> Iterator[None]:
    """A service of the host's own that says the same to whoever connects."""
    sock.listen()

    def greet() -> None:
        with suppress(OSError):  # shut down below
            while True:
                connection, _ = sock.accept()
                connection.sendall(MARK + b"\n")
                connection.close()

    thread = threading.Thread(target=greet)
    thread.start()
    try:
        yield
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_what_the_hosts_network_opens_is_said(pyrun: Pyrun, attacker: Path) -> None:
    """Abstract sockets are of the network namespace and have no mode: with --net=host nothing of ours is between them
    and the container, nor before the loopback. So it is said, and no other network is like that."""
    hostile.put_image(pyrun, "evil", lambda root: shutil.copy(attacker, root / "attacker"))
    mark, name = MARK.decode(), f"canary-{os.getpid()}"
    with socket.socket() as service, socket.socket(socket.AF_UNIX) as abstract:
        service.bind(("127.0.0.1", 0))
        abstract.bind(f"\0{name}")
        script = f"nc 127.0.0.1 {service.getsockname()[1]} </dev/null; exec /attacker abstract {name}"
        with greeting(service), greeting(abstract):
            for network, answers in (("host", [mark, mark]), ("bridge", [REFUSED]), ("none", [REFUSED])):
                done = pyrun("run", "--rm", f"--net={network}", "evil", "sh", "-c", script)
                assert done.stdout.split("\n")[:-1] == answers, (network, done)
                assert (OPENED in done.stderr.splitlines()) is (network == "host"), done.stderr


# ── the subnet ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_an_unpublished_port_is_not_reached_by_routing(
    yard: Yard, routed: None, internet: SimpleNamespace, family: str
) -> None:
    """moby#14041."""
    victim = yard.start("victim", *SERVE)
    address = victim.address if family == "IPv4" else victim.address6
    assert soon(lambda: Pyrun.ok(yard.pyrun, "exec", "victim", "netstat", "-ltn").count(":80"))
    assert not connects(internet, "neighbour", address, 80)
    yard.take_out(UNPUBLISHED)
    assert connects(internet, "neighbour", address, 80)


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_another_networks_containers_are_not_reached(yard: Yard, family: str) -> None:
    victim = yard.start("victim", *SERVE)
    yard.pyrun.ok("network", "create", "--ipv6", "other")
    yard.pyrun.ok("run", "-d", "--name", "stranger", "--network", "other", "busybox", "sleep", "1000")
    address = victim.address if family == "IPv4" else f"[{victim.address6}]"

    def page() -> str:
        words = ("exec", "stranger", "timeout", "1", "wget", "-q", "-O-", f"http://{address}/")
        return yard.pyrun(*words).stdout

    assert page() == ""
    yard.take_out(UNPUBLISHED)
    assert page() == "a secret\n"


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_containers_address_is_not_believed_outside(
    yard: Yard, internet: SimpleNamespace, family: str
) -> None:
    """A neighbour that calls itself a container is not one, to whom a published port would talk as to its like."""
    victim = yard.start("victim", options=("-p", "8081:80/udp"))
    third = yard.start("third")
    if family == "IPv4":
        packet = frames.udp((third.address, 9), (internet.host, 8081), MARK)
    else:
        run("ip", "address", "add", f"{LAN6}2/64", "dev", "eth0", "nodad")
        packet = frames.udp((third.address6, 9), (f"{LAN6}2", 8081), MARK)

    def reached() -> bool:
        with frames.Sniffer(victim.link) as seen, setting("net/ipv4/conf/all/rp_filter", "0"), \
                setting("net/ipv4/conf/eth0/rp_filter", "0"):  # fmt: skip
            from_neighbour(internet, packet, frames.IPV4 if family == "IPv4" else frames.IPV6)
            return bool(seen.has(MARK))

    try:
        assert not reached()
        yard.take_out(BELIEVED)
        assert reached()
    finally:
        if family == "IPv6":
            run("ip", "address", "delete", f"{LAN6}2/64", "dev", "eth0")


def test_the_same_network_past_icc(pyrun: Pyrun, frames_program: Path) -> None:
    """--icc=false: neither straight to the victim's MAC nor by way of the gateway."""
    yard = Yard(pyrun, frames_program, "--icc=false")
    evil, victim = yard.start("evil"), yard.start("victim")
    packet = frames.udp((evil.address, 9), (victim.address, 9), MARK)

    def reached(target: str) -> bool:
        with frames.Sniffer(victim.link) as seen:
            yard.send(frames.ethernet(evil.mac, target, frames.IPV4, packet))
            return bool(seen.has(MARK))

    assert not reached(victim.mac) and not reached(yard.mac) and not reached(frames.EVERYBODY)
    run("ping", "-c1", "-W2", victim.address)  # the host itself may
    yard.take_out(ALONE)
    with setting("net/bridge/bridge-nf-call-iptables", "0"):
        assert reached(victim.mac) and not reached(yard.mac)


# ── --internal ─────────────────────────────────────────────────────────────────────────────────────


def test_an_internal_network_leaks_no_question(
    pyrun: Pyrun, frames_program: Path, internet: SimpleNamespace
) -> None:
    """CVE-2024-29018: neither by the resolver, which is asked for names outside, nor by a packet of its own."""
    yard = Yard(pyrun, frames_program, "--internal")
    evil = yard.start("evil")
    packet = frames.udp((evil.address, 9), (internet.gateway, 53), MARK)

    def leaked() -> bool:
        with frames.Sniffer("eth0") as seen:
            yard.send(frames.ethernet(evil.mac, yard.mac, frames.IPV4, packet))
            return bool(seen.has(MARK))

    with frames.Sniffer("eth0") as seen:
        asked = pyrun("exec", "evil", "nslookup", "secret.internet.test")
        assert "NXDOMAIN" in asked.stdout + asked.stderr
        assert not seen.has(b"\6secret")
    assert not leaked()
    yard.take_out(INTERNAL)
    assert leaked()


@pytest.mark.parametrize("taken", [False, True], ids=["", "port 53 is another's"])
def test_an_internal_network_does_not_reach_this_host(
    pyrun: Pyrun, frames_program: Path, internet: SimpleNamespace, taken: bool
) -> None:
    """Neither by the gateway nor by another address; the resolver, a ping and its own ports are what is left."""
    with (
        socket.socket() as resolver,
        socket.create_server(("::", 4713), family=socket.AF_INET6, dualstack_ipv6=True),
    ):
        if taken:
            resolver.bind(("0.0.0.0", 53))
            resolver.listen()
        yard = Yard(pyrun, frames_program, "--internal")
        yard.start("evil")
        yard.start("victim", *SERVE, options=("--network", "bridge", "-p", "8081:80"))
        entered = f"ip route add default via {yard.gateway}; ip -6 route add default via {yard.gateway6}"
        run("nsenter", "--net=/run/netns/evil", "sh", "-c", entered)
        addresses = (yard.gateway, yard.gateway6, internet.host)

        def reached() -> list[str]:
            return [each for each in addresses if connects(internet, "../netns/evil", each, 4713)]

        assert reached() == []
        for address in addresses[:2]:
            run("nsenter", "--net=/run/netns/evil", "ping", "-c1", "-W2", address)
        assert yard.member("victim").address in pyrun.ok("exec", "evil", "nslookup", "-type=a", "victim")
        assert page(internet, f"{internet.host}:8081") == "a secret", "from the LAN"
        run("ping", "-c1", "-W2", yard.member("evil").address)
        yard.take_out(THIS_HOST)
        assert reached() == list(addresses)


def test_a_network_that_is_not_internal_does_ask(yard: Yard) -> None:
    """The control of the one before: the same question, and where it goes."""
    yard.start("evil")
    with frames.Sniffer("eth0") as seen:
        yard.pyrun("exec", "evil", "nslookup", "secret.internet.test")
        assert seen.has(b"\6secret")
