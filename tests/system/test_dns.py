"""What the resolver answers, on the lab host: bridges, namespaces and leases are made by hand (name_server.Site), so
that nothing of a start is in the way. What a container sees is in test_network_*.py."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from name_server import (
    GATEWAY,
    GATEWAY6,
    NXDOMAIN,
    TYPE_AAAA,
    TYPE_PTR,
    WEB,
    WEB6,
    Answer,
    Inside,
    Site,
    question,
    received,
)
from pyrun.network import guard

pytestmark = pytest.mark.needs("ipv6")


def test_names_from_a_container_on_the_default_port(site: Site) -> None:
    assert site.need() == {"dnsa": 53}
    assert guard.status()["resolver"] == 0, "nobody has asked: nobody answers"
    assert site.client.ask(GATEWAY, "web").values == [WEB]
    assert site.client.ask(GATEWAY6, "web.dnsa", TYPE_AAAA).values == [WEB6]
    assert site.client.ask(GATEWAY, "2.0.99.10.in-addr.arpa", TYPE_PTR).values == ["web.dnsa"]
    assert site.client.ask_stream(GATEWAY, "web").values == [WEB]
    firsts = {site.client.ask(GATEWAY, "all").values[0] for _ in range(6)}
    assert firsts == {WEB, "10.99.0.3", "10.99.0.4"}
    assert site.client.ask(GATEWAY, "internet.test").values == ["203.0.113.80"]
    assert site.client.ask_stream(GATEWAY, "internet.test").values == ["203.0.113.80"]
    assert site.client.ask(GATEWAY, "nothing.test").rcode == NXDOMAIN


# ── the host's own names ───────────────────────────────────────────────────────────────────────────


def test_the_hosts_port_53_is_left_to_whoever_has_it(site: Site) -> None:
    """Another port for our gateway, which is told; the program that was there first hears what it heard."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 53))
        port = site.need()["dnsa"]
        assert port not in (0, 53)
        assert site.client.ask(GATEWAY, "web", port=port).values == [WEB]
        assert site.client.ask_stream(GATEWAY, "web", port=port).values == [WEB]
        assert site.client.ask(GATEWAY6, "web", port=port).values == [WEB]
        with site.client.socket() as sock:
            sock.sendto(b"for the other", (GATEWAY, 53))
            taken.settimeout(2)
            assert taken.recv(100) == b"for the other"


class Elsewhere(threading.Thread):
    """A name server on an address of the host that answers everything with 192.0.2.99."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        family, kind, _, _, place = socket.getaddrinfo(address, 53, type=socket.SOCK_DGRAM)[0]
        self.sock = socket.socket(family, kind)
        self.sock.bind(place)
        self.heard = 0
        self.start()

    def run(self) -> None:
        while True:
            try:
                data, peer = self.sock.recvfrom(4096)
            except OSError:
                return
            if not data:
                return
            self.heard += 1
            end = data.index(b"\0", 12) + 5
            record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\xc0\0\2\x63"
            self.sock.sendto(data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:end] + record, peer)

    def stop(self) -> None:
        with socket.socket(self.sock.family, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self.sock.getsockname())
        self.join(2)
        self.sock.close()


def test_servers_on_the_hosts_loopback_are_asked_for_the_container(site: Site) -> None:
    """--dns of a container; a loopback address means the host's, where the resolver is."""
    elsewhere = Elsewhere("127.0.0.77")
    try:
        site.networks.lease("dnsa", "10.99.0.9", "e" * 64, "name nine", "dns 127.0.0.77")
        site.networks.namespace("dnsnine", "dnsa", "10.99.0.9")
        site.need()
        assert Inside("dnsnine").ask(GATEWAY, "internet.test").values == ["192.0.2.99"]
        assert site.client.ask(GATEWAY, "internet.test").values == ["203.0.113.80"]
    finally:
        elsewhere.stop()


def test_a_server_by_its_address_on_a_link_is_asked(site: Site) -> None:
    """As a router advertises itself; without the link the address means nothing."""
    file = Path("/etc/resolv.conf")
    whole = file.read_text()
    subprocess.run("ip address add fe80::53/64 dev eth0 nodad".split(), check=True)
    elsewhere = Elsewhere("fe80::53%eth0")
    try:
        file.write_text("nameserver fe80::53%nowhere\nnameserver fe80::53%eth0\n")
        site.need()
        assert site.client.ask(GATEWAY, "internet.test").values == ["192.0.2.99"]
    finally:
        elsewhere.stop()
        file.write_text(whole)
        subprocess.run("ip address delete fe80::53/64 dev eth0".split(), check=True)


def test_nothing_is_forwarded_for_internal_networks(site: Site) -> None:
    elsewhere = Elsewhere("127.0.0.78")
    try:
        inner = site.networks.network("dnsi", "10.97.0.1", internal=True)
        site.networks.lease("dnsi", "10.97.0.2", "e" * 64, "name hidden", "dns 127.0.0.78")
        site.networks.namespace("dnshid", "dnsi", "10.97.0.2")
        guard.need([inner])
        assert Inside("dnshid").ask("10.97.0.1", "leak.example").rcode == NXDOMAIN
        assert Inside("dnshid").ask_stream("10.97.0.1", "leak.example").rcode == NXDOMAIN
        assert Inside("dnshid").ask("10.97.0.1", "hidden").values == ["10.97.0.2"]
        assert elsewhere.heard == 0
    finally:
        elsewhere.stop()


# ── hostile containers ─────────────────────────────────────────────────────────────────────────────


def wait_ms(site: Site, during: Callable[[], bool], most: int = 200) -> float:
    """How long `other` waits for a name while *during* holds: 19 of 20 answers come sooner, and none is lost.

    The slowest one alone would tell of the machine's own pauses.
    """
    waits = []
    with site.other.socket() as sock:
        sock.connect((GATEWAY, 53))
        for ident in range(most):
            if not during():
                break
            began = time.perf_counter()
            sock.send(question("web", ident=ident))
            assert Answer(sock.recv(600)).ident == ident
            waits.append(time.perf_counter() - began)
            time.sleep(0.005)
    return sorted(waits)[len(waits) * 19 // 20] * 1000


FLOODER = """
import socket, sys, time
kind, seconds, server = sys.argv[1], float(sys.argv[2]), sys.argv[3]
question = lambda name: b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + bytes([len(name)]) + name + b"\\0\\0\\1\\0\\1"
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect((server, 53))
sock.setblocking(False)
end = time.monotonic() + seconds
number = 0
while time.monotonic() < end:
    for _ in range(64):
        number += 1
        message = {"same": question(b"web"), "new": question(b"n%d" % number), "broken": b"\\xff" * 40}[kind]
        try:
            sock.send(message)
        except OSError:
            pass
"""


@pytest.mark.needs("two_processors")
@pytest.mark.parametrize("kind", ["same", "new", "broken"])
def test_a_flood_of_one_container_does_not_keep_another_waiting(site: Site, kind: str) -> None:
    site.need()
    site.other.ask(GATEWAY, "web")
    words = [
        "ip",
        "netns",
        "exec",
        "dnsclient",
        "/usr/bin/python3",
        "-I",
        "-c",
        FLOODER,
        kind,
        "2.5",
        GATEWAY,
    ]
    flooder = subprocess.Popen(words)
    try:
        time.sleep(0.6)  # it has begun, and was noticed
        assert wait_ms(site, lambda: flooder.poll() is None) < 100
    finally:
        flooder.wait(10)
    if kind == "same":
        time.sleep(4.1)  # the second time it is muted for so long
        assert site.client.ask(GATEWAY, "web").values == [WEB], "it is forgiven"


def test_slow_and_silent_connections_keep_nobody_waiting(site: Site) -> None:
    site.need()
    with contextlib.ExitStack() as connections:
        for at in range(100):
            sock = connections.enter_context(site.client.socket(kind=socket.SOCK_STREAM))
            with contextlib.suppress(ConnectionError):  # one of too many is reset, at times while it connects
                sock.connect((GATEWAY, 53))
                sock.send((b"\0\x1d\0", b"\0\0", b"\0", b"")[at % 4])
        assert wait_ms(site, lambda: True, 100) < 100
        assert site.other.ask_stream(GATEWAY, "web").values == [WEB]


def test_one_message_of_a_connection_that_is_cut_short(site: Site) -> None:
    """A client of the resolver that goes in the middle: the next one is served."""
    site.need()
    for cut in range(1, 25, 6):
        with site.client.socket(kind=socket.SOCK_STREAM) as sock:
            sock.connect((GATEWAY, 53))
            message = question("web")
            sock.send((len(message).to_bytes(2, "big") + message)[:cut])
    with site.client.socket(kind=socket.SOCK_STREAM) as sock:
        sock.connect((GATEWAY, 53))
        message = question("web")
        sock.send(len(message).to_bytes(2, "big") + message)
        assert Answer(received(sock)).values == [WEB]
