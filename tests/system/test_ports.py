"""Published ports on the lab host: from everywhere they are meant for and nowhere else; conflicts told in a line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import leftovers
from command import Pyrun
from published import SERVE, ask_udp, fetch, refuses, udp_server
from waiting import soon


def published(pyrun: Pyrun, name: str) -> list[str]:
    return [line.split(" -> ")[1] for line in pyrun.ok("port", name).splitlines()]


def cables() -> list[str]:
    """The hosts' ends of links to containers."""
    return [name for name in leftovers.links() if name.startswith("pyv")]


def address_of(pyrun: Pyrun, name: str, network: str = "bridge") -> str:
    rows = [json.loads(line) for line in pyrun.ok("network", "ls", "--format", "json").splitlines()]
    return str(next(row["Containers"][name] for row in rows if row["Name"] == network))


def test_from_everywhere_with_the_clients_address_kept(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", *SERVE)
    assert fetch("127.0.0.1:8080") == "hello"
    assert fetch(f"{internet.host}:8080", "/cgi-bin/who", at="neighbour") == internet.neighbour
    assert fetch(f"{internet.host}:8080", "/cgi-bin/who", at="internet") == internet.gateway
    assert fetch(f"{internet.host}:8080", "/cgi-bin/who") == internet.host, "the host by its own address"
    other = pyrun.ok("run", "--rm", "busybox", "wget", "-qO-", f"http://{internet.host}:8080/")
    assert other == "hello", "another container"
    itself = pyrun.ok("exec", "web", "wget", "-qO-", f"http://{internet.host}:8080/")
    assert itself == "hello", "itself, by the host"


@pytest.mark.needs("ipv6")
def test_localhost_by_either_name_is_served(pyrun: Pyrun) -> None:
    """[::1] cannot be redirected: the guard relays it."""
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "-p", "[::1]:8081:80", "busybox", *SERVE)
    assert fetch("[::1]:8080") == "hello"
    assert fetch("[::1]:8081") == "hello"
    assert refuses("127.0.0.1:8081")


def test_a_port_of_the_loopback_is_the_hosts_alone(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "busybox", *SERVE)
    assert fetch("127.0.0.1:8080") == "hello"
    assert refuses(f"{internet.host}:8080")
    for place in ("neighbour", "internet"):
        assert refuses(f"{internet.host}:8080", at=place)
    # a neighbour that routes 127.0.0.0/8 to us, as in CVE-2020-8558
    internet.at("neighbour", "ip", "link", "set", "lo", "down")
    internet.at("neighbour", "sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1")
    internet.at("neighbour", "ip", "route", "add", "127.0.0.1/32", "via", internet.host, check=False)
    try:
        assert refuses("127.0.0.1:8080", at="neighbour")
    finally:
        internet.at("neighbour", "ip", "route", "del", "127.0.0.1/32", check=False)
        internet.at("neighbour", "sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=0")
        internet.at("neighbour", "ip", "link", "set", "lo", "up")


def test_what_is_not_published_cannot_be_reached_by_a_route(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "-e", "PORT=81", "busybox", *SERVE)
    address = address_of(pyrun, "web")
    assert fetch(f"{address}:81") == "hello"
    internet.at("neighbour", "ip", "route", "add", f"{address}/32", "via", internet.host)
    try:
        assert refuses(f"{address}:81", at="neighbour")
    finally:
        internet.at("neighbour", "ip", "route", "del", f"{address}/32")


def test_udp(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok("run", "-d", "--name", "echo", "-p", "5353:53/udp", "busybox", "sleep", "60")
    with udp_server("echo", 53):
        assert ask_udp(internet, "neighbour", internet.host, 5353) == internet.neighbour
        assert ask_udp(internet, "internet", internet.host, 5353) == internet.gateway


def test_random_ports_ranges_and_all(pyrun: Pyrun) -> None:
    """-p without a port of the host, -P with --expose, one port for a range of the host's."""
    pyrun.ok("run", "-d", "--name", "one", "-p", "80", "-p", "127.0.0.1::80", "-P", "--expose", "9000-9001",
             "-p", "7000-7002:80", "busybox", *SERVE)  # fmt: skip
    places = published(pyrun, "one")
    assert len(places) == 5 and len(set(places)) == 5
    assert "0.0.0.0:7000" in places
    for line in pyrun.ok("port", "one", "80").splitlines():
        assert fetch(line.replace("0.0.0.0", "127.0.0.1")) == "hello"
    pyrun.ok("run", "-d", "--name", "two", "-p", "7000-7002:80", "busybox", *SERVE)
    assert published(pyrun, "two") == ["0.0.0.0:7001"]
    with socket.create_server(("0.0.0.0", 7002)):
        error = pyrun.fails(125, "run", "--rm", "-p", "7000-7002:80", "busybox", "true")
    assert "no port of these is free" in error


def test_a_range_to_a_range(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "7100-7119:61-80", "busybox", *SERVE)
    assert fetch("127.0.0.1:7119") == "hello"
    assert refuses("127.0.0.1:7118")
    assert "0.0.0.0:7100-7119->61-80/tcp" in pyrun.ok("ps")


@pytest.mark.parametrize("others", [0, 1], ids=["the guard ends too", "the guard lives on"])
def test_open_connections_do_not_keep_the_link(pyrun: Pyrun, internet: SimpleNamespace, others: int) -> None:
    """What is on its way in them keeps a network namespace for minutes; the host's end of its cable goes anyway."""
    for number in range(others):
        pyrun.ok("run", "-d", "--name", f"other{number}", "busybox", "sleep", "1000")
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "nc", "-ll", "-p", "80", "-e", "cat")
    assert len(cables()) == others + 1
    listening = ("exec", "web", "sh", "-c", "cat /proc/net/tcp*")
    assert soon(lambda: ":0050 " in pyrun.ok(*listening), 5), "it listens"
    with socket.create_connection((internet.host, 8080), timeout=5) as connection:
        connection.sendall(b"there?")
        assert connection.recv(10) == b"there?"
        pyrun.ok("rm", "-f", "web")
        assert soon(lambda: len(cables()) == others, 8)


@pytest.mark.needs("ipv6")
def test_ipv6(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """Published on both families where the container has both."""
    subprocess.run("ip -6 address add 2001:db8::1/64 dev eth0 nodad".split(), check=True)
    internet.at("neighbour", *"ip -6 address add 2001:db8::2/64 dev eth0 nodad".split())
    try:
        pyrun.ok("network", "create", "--ipv6", "six")
        pyrun.ok("run", "-d", "--network", "six", "--name", "web", "-p", "8080:80", "-p", "[2001:db8::1]:8081:80",
                 "busybox", *SERVE)  # fmt: skip
        assert sorted(published(pyrun, "web")) == ["0.0.0.0:8080", "[2001:db8::1]:8081", "[::]:8080"]
        assert fetch("[2001:db8::1]:8080", at="neighbour") == "hello"
        assert fetch("[2001:db8::1]:8081", "/cgi-bin/who", at="neighbour").endswith("2001:db8::2")
        assert fetch(f"{internet.host}:8080", at="neighbour") == "hello"
        assert refuses(f"{internet.host}:8081", at="neighbour")
        assert fetch("[2001:db8::1]:8080") == "hello"
        assert fetch("[::1]:8080") == "hello"
    finally:
        subprocess.run("ip -6 address del 2001:db8::1/64 dev eth0".split(), check=True)
        internet.at("neighbour", *"ip -6 address del 2001:db8::2/64 dev eth0".split())


# ── conflicts ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["-p", "8080:80", "-p", "8080:81"],
            "pyrun: -p 8080:80 and -p 8080:81 both want port 8080/tcp of the host",
        ),
        (["-p", "8000-8002:80-81"], "pyrun: -p 8000-8002:80-81: 3 ports of the host for 2 of the container"),
        (["-p", "70000:80"], "pyrun: -p 70000:80: '70000' is no port"),
        (["-p", "192.0.2.7:80:80"], "pyrun: -p 192.0.2.7:80: this host has no address 192.0.2.7"),
        (["-p", "[::]:8080:80"], "pyrun: -p [::]:8080:80: the container has no IPv6 address"),
        (["-P", "--expose", "x"], "pyrun: --expose x: 'x' is no port"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(pyrun: Pyrun, options: list[str], message: str) -> None:
    # what is told of a network that is made is not what is meant here
    pyrun.ok("run", "--rm", "busybox", "true")
    assert pyrun.fails(125, "run", "--rm", *options, "busybox", "true").startswith(message)
    assert not list(pyrun.runroot.glob("containers/*"))
    assert not list(pyrun.runroot.glob("networks/*/leases/*"))
    assert not list(pyrun.runroot.glob("ports/*"))


@pytest.mark.needs("ipv6")
def test_ipv6_beside_another_container(pyrun: Pyrun) -> None:
    """Who has a port of all IPv4 addresses answers on [::1] too."""
    pyrun.ok("network", "create", "--ipv6", "six")
    pyrun.ok("run", "-d", "--name", "web", "-p", "0.0.0.0:8080:80", "busybox", *SERVE)
    error = pyrun.fails(125, "run", "--rm", "--network=six", "-p", "[::]:8080:80", "busybox", "true")
    assert error.startswith(
        "pyrun: port [::]:8080/tcp: container web has 0.0.0.0:8080, and with it [::1]:8080"
    )
    pyrun.ok("rm", "-f", "web")
    pyrun.ok("run", "--rm", "--network=six", "-p", "[::]:8080:80", "busybox", "true")


def test_a_conflict_names_the_container(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "busybox", *SERVE)
    for word, told in (
        ("8080:1", "0.0.0.0:8080"),
        ("127.0.0.2:8080:1", "127.0.0.2:8080"),
        ("8081:1", "0.0.0.0:8081"),
    ):
        error = pyrun.fails(125, "run", "--rm", "-p", word, "busybox", "true")
        assert error.startswith(f"pyrun: port {told}/tcp is already published by container web")
    pyrun.ok("run", "--rm", "-p", "127.0.0.2:8081:1", "-p", "8080:1/udp", "busybox", "true")
    pyrun.ok("rm", "-f", "web")
    pyrun.ok("run", "--rm", "-p", "8080:80", "-p", "8081:80", "busybox", "true")


def test_a_conflict_with_a_program_of_the_host(pyrun: Pyrun) -> None:
    pyrun.ok("run", "--rm", "busybox", "true")
    with socket.create_server(("127.0.0.1", 8080)):
        error = pyrun.fails(125, "run", "--rm", "-p", "8080:80", "busybox", "true")
    told = "pyrun: port 0.0.0.0:8080/tcp is in use by another program of this host"
    name = Path("/proc/self/comm").read_text().strip()
    assert error == f"{told}: {name} (pid {os.getpid()})\nhint: end it, or publish another port"


def test_a_program_of_the_host_cannot_take_a_published_port(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "-p", "5353:53/udp", "busybox", *SERVE)
    for kind, number in ((socket.SOCK_STREAM, 8080), (socket.SOCK_DGRAM, 5353)):
        with socket.socket(type=kind) as other, pytest.raises(OSError, match="in use"):
            other.bind(("0.0.0.0", number))
    pyrun.ok("rm", "-f", "web")
    eventually(lambda: socket.create_server(("0.0.0.0", 8080)).close())


def eventually(action: Callable[[], None], tries: int = 40) -> None:
    for attempt in range(tries):
        try:
            action()
            break
        except OSError:
            if attempt == tries - 1:
                raise
            time.sleep(0.05)


def test_starts_side_by_side_never_share_a_port(pyrun: Pyrun) -> None:
    """Twelve want any of ten ports: ten get one each, two are told; and -p without a port is never doubled."""
    starts = [
        pyrun.start(
            "run", "-d", "--name", f"c{number:02}", "-p", "7200-7209:80", "-p", "80", "busybox", "sleep", "60"
        )
        for number in range(12)
    ]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in starts]
    assert sorted(status for _, status in ended) == [0] * 10 + [125] * 2
    for error, status in ended:
        assert status == 0 or "no port of these is free" in error
    places = [
        place for number in range(12) if ended[number][1] == 0 for place in published(pyrun, f"c{number:02}")
    ]
    assert len(places) == len(set(places)) == 20


def test_five_thousand_ports_of_one_container(pyrun: Pyrun) -> None:
    pyrun.ok(
        "run", "-d", "--name", "web", "-p", "20000-24999:20000-24999", "-e", "PORT=24999", "busybox", *SERVE
    )
    assert fetch("127.0.0.1:24999") == "hello"
    assert len(list((pyrun.runroot / "ports").iterdir())) == 5000
    assert len(published(pyrun, "web")) == 5000
    subprocess.run(["nft", "delete", "table", "inet", "pyrun"], check=True)
    pyrun.ok("network", "reload")
    assert fetch("127.0.0.1:24999") == "hello"
    pyrun.ok("rm", "-f", "web")
    assert not list((pyrun.runroot / "ports").iterdir())
    listed = subprocess.run(
        "nft list map inet pyrun ports".split(), capture_output=True, text=True, check=True
    )
    assert "elements" not in listed.stdout
