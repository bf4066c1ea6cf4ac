"""Published ports in the hands of the guard: held as long as their claims, and relayed from ::1."""

from __future__ import annotations

import contextlib
import os
import posix
import random
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import weakened
from name_server import GATEWAY6, WEB, WEB_ID, Inside, Site, bind, guards, is_taken, processes, pss_kb
from pyrun.errors import NetworkError
from pyrun.network import guard
from ruleset import end_guard
from waiting import until

pytestmark = pytest.mark.needs("ipv6")


def claim(site: Site, name: str) -> Path:
    path = site.run / "ports" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{WEB_ID} 1 1\n")
    return path


def test_a_port_is_held_as_long_as_its_claim(site: Site) -> None:
    site.need()
    path = claim(site, "udp-0.0.0.0-8053")
    with bind("0.0.0.0", 8053, socket.SOCK_DGRAM) as sock:
        guard.hold("udp-0.0.0.0-8053", sock.fileno())
    assert guard.status()["ports"] == 1 and is_taken("0.0.0.0", 8053, socket.SOCK_DGRAM)
    path.unlink()
    until(lambda: not is_taken("0.0.0.0", 8053, socket.SOCK_DGRAM), timeout_s=1.0)
    with bind("0.0.0.0", 8054, socket.SOCK_DGRAM) as sock:
        guard.hold("udp-0.0.0.0-8054", sock.fileno())  # no such claim
    assert not is_taken("0.0.0.0", 8054, socket.SOCK_DGRAM) and guard.status()["ports"] == 0


def test_a_thousand_ports_are_held_in_few_messages(site: Site) -> None:
    site.need()
    socks = [bind("0.0.0.0", 0, socket.SOCK_DGRAM) for _ in range(1000)]
    names = [f"udp-0.0.0.0-{sock.getsockname()[1]}" for sock in socks]
    paths = [claim(site, name) for name in names]
    guard.hold_all([(name, sock.fileno(), "") for name, sock in zip(names, socks, strict=True)])
    for sock in socks:
        sock.close()
    assert guard.status()["ports"] == 1000
    (own,) = guards(site)
    assert pss_kb(own) < 600
    for path in paths:
        path.unlink()
    until(lambda: guard.status()["ports"] == 0, timeout_s=2.0)


def serve_in(place: Inside, port: int, handle: Callable[[socket.socket], None]) -> threading.Thread:
    """One connection of a TCP server in a namespace."""
    listener = place.socket(kind=socket.SOCK_STREAM)
    listener.bind(("0.0.0.0", port))
    listener.listen()

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                handle(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_the_loopback_of_ipv6_leads_to_the_container(site: Site, host: str) -> None:
    """Megabytes both ways, ended one way after the other."""
    site.need()
    payload = random.Random(6).randbytes(3_000_000)
    heard = bytearray()

    def echo(connection: socket.socket) -> None:
        connection.settimeout(10)
        while data := connection.recv(1 << 16):
            heard.extend(data)
        connection.sendall(bytes(heard)[::-1])

    name = f"tcp-{host}-8081"
    path = claim(site, name)
    thread = serve_in(site.web, 80, echo)
    with bind(host, 8081) as sock:
        guard.hold(name, sock.fileno(), f"{WEB}:80")
    with socket.create_connection(("::1", 8081), 10) as sock:
        sock.sendall(payload)
        sock.shutdown(socket.SHUT_WR)
        back = bytearray()
        while data := sock.recv(1 << 16):
            back.extend(data)
    assert bytes(heard) == payload and bytes(back) == payload[::-1]
    thread.join(5)
    path.unlink()
    until(lambda: not is_taken("::1", 8081), timeout_s=2.0)
    until(lambda: not processes("pyrun-relay"), timeout_s=2.0)


def test_only_the_loopback_is_relayed(site: Site) -> None:
    """A port of :: whose redirection is missing must not turn into a way in by another address."""
    site.need()
    claim(site, "tcp-::-8082")
    with bind("::", 8082) as sock:
        guard.hold("tcp-::-8082", sock.fileno(), f"{WEB} 80")
    with site.client.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.connect((GATEWAY6, 8082))
        try:
            assert sock.recv(10) == b""
        except ConnectionResetError:
            pass
    (site.run / "ports/tcp-::-8082").unlink()


# ── as many as can be ──────────────────────────────────────────────────────────────────────────────


# Of one port: csrc/guard_ports.c.
SHARE = 128
QUICKLY_IDLE = ("guard_ports.c", r"IDLE_MS = 600 \* 1000", "IDLE_MS = 1000")


def relays() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if path.read_text() == "pyrun-relay\n":
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def patient(site: Site) -> Iterator[socket.socket]:
    """A server of the container that lets everybody wait; ports 8083 and 8084 lead to it."""
    site.need()
    with site.web.socket(kind=socket.SOCK_STREAM) as server:
        server.bind(("0.0.0.0", 80))
        server.listen(1024)
        for port in (8083, 8084):
            claim(site, f"tcp-0.0.0.0-{port}")
            with bind("0.0.0.0", port) as sock:
                guard.hold(f"tcp-0.0.0.0-{port}", sock.fileno(), f"{WEB}:80")
        yield server
    for port in (8083, 8084):
        (site.run / f"ports/tcp-0.0.0.0-{port}").unlink()


def knocking(port: int, count: int = 1) -> list[socket.socket]:
    return [socket.create_connection(("::1", port), 10) for _ in range(count)]


@pytest.mark.usefixtures("patient")
def test_every_relay_beyond_the_most_waits_its_turn(site: Site) -> None:
    """The last place of a port, and two connections that are told of at once: the count is true afterwards."""
    (own,) = guards(site)
    clients = knocking(8083, SHARE - 1)
    until(lambda: len(relays()) == SHARE - 1, timeout_s=5)
    os.kill(own, signal.SIGSTOP)
    clients += knocking(8083, 2)
    os.kill(own, signal.SIGCONT)
    until(lambda: len(relays()) == SHARE, timeout_s=5)
    there = relays()
    os.kill(there[0], signal.SIGKILL)
    until(lambda: len(relays()) == SHARE and set(relays()) != set(there), timeout_s=5)
    for client in clients:
        client.close()
    for pid in relays():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not relays(), timeout_s=5)
    clients = knocking(8083, SHARE)
    until(lambda: len(relays()) == SHARE, timeout_s=5)
    for client in clients:
        client.close()


def greets(server: socket.socket, port: int) -> bool:
    """Whether a connection to the port arrives at the container's server, which greets everybody."""
    with socket.create_connection(("::1", port), 5) as sock:
        server.settimeout(2)
        with contextlib.suppress(TimeoutError):
            while True:
                connection, _ = server.accept()
                connection.sendall(b"hello")
                connection.close()
                sock.settimeout(1)
                if sock.recv(5) == b"hello":
                    return True
    return False


def test_a_port_whose_relays_are_taken_keeps_no_other_waiting(site: Site, patient: socket.socket) -> None:
    clients = knocking(8083, 2 * SHARE)  # the second half waits in the queue
    until(lambda: len(relays()) >= SHARE, timeout_s=5)
    held = [patient.accept()[0] for _ in range(SHARE)]
    assert greets(patient, 8084) and len(relays()) <= SHARE + 1
    for sock in (*clients, *held):
        sock.close()


def test_a_connection_nobody_uses_keeps_no_place(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes are made one second; a byte now and then keeps it."""
    end_guard(site.run)
    binary = weakened.install(tmp_path / "quick", QUICKLY_IDLE).with_name("pyrun")
    monkeypatch.setitem(posix.environ, b"PYRUN_BINARY", str(binary).encode())
    monkeypatch.setenv("PYRUN_BINARY", str(binary))
    site.need()
    with site.web.socket(kind=socket.SOCK_STREAM) as server:
        server.bind(("0.0.0.0", 80))
        server.listen()
        path = claim(site, "tcp-0.0.0.0-8085")
        with bind("0.0.0.0", 8085) as sock:
            guard.hold("tcp-0.0.0.0-8085", sock.fileno(), f"{WEB}:80")
        idle, used = knocking(8085, 2)
        until(lambda: len(relays()) == 2, timeout_s=5)
        for _ in range(5):
            time.sleep(0.5)  # one of the two is used
            used.sendall(b"x")
        idle.settimeout(2)
        assert idle.recv(1) == b"" and len(relays()) == 1
        idle.close()
        used.close()
        path.unlink()


def processor_ticks(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


@pytest.mark.usefixtures("patient")
def test_a_guard_without_descriptors_rests_and_says_so(site: Site) -> None:
    (own,) = guards(site)
    fds = Path(f"/proc/{own}/fd")
    kept = max(int(fd.name) for fd in fds.iterdir() if "eventpoll" in os.readlink(fd))
    waiting = []
    while len([fd for fd in fds.iterdir() if int(fd.name) < kept]) < kept:
        waiting.append(guard.connected())
        guard.exchanged(waiting[-1], "status", [], [])
    before = resource.prlimit(own, resource.RLIMIT_NOFILE)
    resource.prlimit(own, resource.RLIMIT_NOFILE, (kept + 1, before[1]))
    clients = knocking(8083)
    began = processor_ticks(own)
    assert guard.status()["ports"] == 2
    claim(site, "tcp-0.0.0.0-8086")
    with bind("0.0.0.0", 8086) as sock, pytest.raises(NetworkError, match="Too many open files"):
        guard.hold("tcp-0.0.0.0-8086", sock.fileno())
    time.sleep(0.5)  # in which it hardly works
    assert processor_ticks(own) - began < 20 and not relays()
    resource.prlimit(own, resource.RLIMIT_NOFILE, before)
    until(lambda: len(relays()) == 1, timeout_s=5)
    for sock in (*clients, *waiting):
        sock.close()


def test_ports_are_held_again_after_the_guard_was_killed(site: Site) -> None:
    site.need()
    path = claim(site, "udp-0.0.0.0-8055")
    path.write_text(f"{WEB_ID} 1 1\nname web\nto {WEB}\nport udp 0.0.0.0 8055 53\n")
    with bind("0.0.0.0", 8055, socket.SOCK_DGRAM) as sock:
        guard.hold("udp-0.0.0.0-8055", sock.fileno())
    (own,) = guards(site)
    os.kill(own, signal.SIGKILL)
    until(lambda: not is_taken("0.0.0.0", 8055, socket.SOCK_DGRAM), timeout_s=1.0)
    site.need()
    assert is_taken("0.0.0.0", 8055, socket.SOCK_DGRAM)
    path.unlink()
