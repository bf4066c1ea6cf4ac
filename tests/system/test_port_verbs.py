"""`pyrun port`, `port add` and `port rm`: what is published of a container that runs, told, added to and taken away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import capabilities
import hostile
from command import Pyrun
from published import SERVE, ask_udp, fetch, refuses, udp_server
from waiting import emptied


def elements(kind: str = "map", name: str = "ports") -> str:
    return subprocess.run(
        ["nft", "list", kind, "inet", "pyrun", name], capture_output=True, text=True, check=True
    ).stdout


def record(pyrun: Pyrun, name: str) -> dict[str, object]:
    identifier = (pyrun.root / "names" / name).read_text().splitlines()[0]
    found: dict[str, object] = json.loads(
        (pyrun.root / "containers" / identifier / "container.json").read_text()
    )
    return found


def test_what_docker_would_print(pyrun: Pyrun) -> None:
    pyrun.ok(
        "run", "-d", "--name", "web", "-p", "8080:80", "-p", "127.0.0.1:53:53/udp", "busybox", "sleep", "60"
    )
    assert pyrun.ok("port", "web") == "53/udp -> 127.0.0.1:53\n80/tcp -> 0.0.0.0:8080"
    assert pyrun.ok("port", "web", "80") == "0.0.0.0:8080"
    assert pyrun.ok("port", "web", "53/udp") == "127.0.0.1:53"
    assert pyrun.ok("container", "port", "web", "80/tcp") == "0.0.0.0:8080"
    assert pyrun.fails(1, "port", "web", "53").startswith(
        "pyrun: container web publishes no port 53/tcp of its own"
    )
    assert pyrun.fails(1, "port", "nobody").startswith("pyrun: no such container: nobody")
    assert "no port of a container" in pyrun.fails(1, "port", "web", "x")


def test_to_a_terminal_it_is_told_from_where_each_is_reachable(pyrun: Pyrun) -> None:
    """Elsewhere scripts read Docker's lines."""
    pyrun.ok("run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "busybox", "sleep", "60")
    shown = hostile.on_a_terminal([str(pyrun.binary), "port", "web"], pyrun.env | {"TERM": "dumb"})
    assert shown.replace("\r\n", "\n").strip() == pyrun.ok("port", "--format=table", "web")
    assert "FROM THE LAN" in shown


def test_from_where_each_is_reachable(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok(
        "run", "-d", "--name", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "busybox", "sleep", "60"
    )
    rows = {
        row["HostPort"]: row
        for row in map(json.loads, pyrun.ok("port", "--format", "json", "web").splitlines())
    }
    assert rows[8080]["ReachableFrom"] == {"host": True, "lan": [internet.host], "containers": True}
    assert rows[8081]["ReachableFrom"] == {"host": True, "lan": [], "containers": False}
    # a table of iptables-legacy is never unloaded: after the tests that need one, somebody filters here and lets all in
    legacy = Path("/proc/net/ip_tables_names")
    asked = legacy.exists() and "filter" in legacy.read_text().split()
    assert (rows[8080]["Firewall"], rows[8081]["Firewall"]) == ("lets it in" if asked else "", "")
    assert "FROM THE LAN" in pyrun.ok("port", "web", "--format", "table")


def test_an_address_that_the_host_has_no_more(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """As after another lease of its DHCP server: nobody reaches it until the host has it again."""
    change = ["ip", "address", "add", "198.51.100.9/24", "dev", internet.uplink]
    subprocess.run(change, check=True)
    pyrun.ok("run", "-d", "--name=web", "-p", "198.51.100.9:8080:80", "busybox", *SERVE)
    subprocess.run([*change[:2], "delete", *change[3:]], check=True)
    row = json.loads(pyrun.ok("port", "--format=json", "web"))
    assert row["ReachableFrom"] == {"host": False, "lan": [], "containers": False}
    assert "no: not its address" in pyrun.ok("port", "--format=table", "web")
    subprocess.run(change, check=True)
    try:
        row = json.loads(pyrun.ok("port", "--format=json", "web"))
        assert row["ReachableFrom"] == {"host": True, "lan": ["198.51.100.9"], "containers": True}
        assert fetch("198.51.100.9:8080", at="neighbour") == "hello"
    finally:
        subprocess.run([*change[:2], "delete", *change[3:]], check=True)


@pytest.mark.parametrize("icc", [True, False])
def test_an_isolated_network_is_not_reached_from_others(
    pyrun: Pyrun, internet: SimpleNamespace, icc: bool
) -> None:
    pyrun.ok("network", "create", "--isolate", *[] if icc else ["--icc=false"], "walled")
    pyrun.ok("run", "-d", "--name=web", "--network=walled", "-p", "8080:80", "busybox", *SERVE)
    row = json.loads(pyrun.ok("port", "--format=json", "web"))
    assert row["ReachableFrom"] == {"host": True, "lan": [internet.host], "containers": icc}
    assert row["OnlyContainersOf"] == "walled"
    assert fetch(f"{internet.host}:8080", at="neighbour") == "hello"
    # the shell stays: as the first process of a container, wget would not heed the signal of timeout
    asking = ("busybox", "sh", "-c", f"timeout 1 wget -qO- http://{internet.host}:8080/; true")
    heard = {
        other: pyrun("run", "--rm", f"--network={other}", *asking).stdout.strip()
        for other in ("bridge", "walled")
    }
    assert heard == {"bridge": "", "walled": "hello" if icc else ""}
    assert ("of walled alone" in pyrun.ok("port", "--format=table", "web")) is icc


def test_bridges_of_others_are_not_the_lan(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """docker0 and virbr0 have addresses too; a bridge that holds a card, or leads to a gateway, is a way in."""
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sleep", "60")

    def lan() -> list[str]:
        return list(json.loads(pyrun.ok("port", "--format", "json", "web"))["ReachableFrom"]["lan"])

    def ip(words: str) -> None:
        subprocess.run(["ip", *words.split()], check=True)

    ip("link add others type bridge")
    try:
        for words in ("link add cable type veth peer name plug", "link set cable master others",
                      "address add 10.44.0.1/24 dev others", "link set cable up", "link set others up"):  # fmt: skip
            ip(words)
        assert lan() == [internet.host]
        ip("route add 198.51.99.0/24 via 10.44.0.2 dev others")
        assert sorted(lan()) == sorted([internet.host, "10.44.0.1"])
        ip("route del 198.51.99.0/24")
        ip("link add card link plug type macvlan")
        ip("link set card master others")
        assert sorted(lan()) == sorted([internet.host, "10.44.0.1"])
    finally:
        for name in ("card", "cable", "others"):
            subprocess.run(["ip", "link", "delete", name], stderr=subprocess.DEVNULL, check=False)


def test_add_and_rm_while_it_runs(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok("run", "-d", "--name", "web", "busybox", *SERVE)
    assert pyrun.ok("port", "add", "web", "8080:80", "127.0.0.1:8081:80") == (
        "80/tcp -> 0.0.0.0:8080\n80/tcp -> 127.0.0.1:8081"
    )
    assert fetch(f"{internet.host}:8080", "/cgi-bin/who", at="neighbour") == internet.neighbour
    assert fetch("127.0.0.1:8080") == fetch("127.0.0.1:8081") == "hello"
    assert fetch("[::1]:8080") == "hello"
    itself = pyrun.ok("exec", "web", "wget", "-qO-", f"http://{internet.host}:8080/")
    assert itself == "hello", "the bridge port answers itself now"
    assert refuses(f"{internet.host}:8081", at="neighbour")
    assert pyrun.ok("port", "rm", "web", "8080") == "0.0.0.0:8080/tcp"
    assert refuses(f"{internet.host}:8080", at="neighbour")
    assert fetch("127.0.0.1:8081") == "hello"
    # it is free for anybody now
    pyrun.ok("run", "-d", "--name", "two", "-p", "8080:80", "busybox", *SERVE)
    pyrun.ok("rm", "-f", "web")
    assert fetch(f"{internet.host}:8080", at="neighbour") == "hello", (
        "the first one's end took the second one's port"
    )
    assert refuses("127.0.0.1:8081")


def test_all_forms_of_add_and_rm(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "8000-8009:80-89", "busybox", "sleep", "60")
    pyrun.ok(
        "port", "add", "web", "80", "7000-7001:80", "53:53/udp", "127.0.0.1:9000:80", "127.0.0.2:9000:80"
    )
    assert pyrun.ok("port", "rm", "web", "8000-8003", "53/udp") == (
        "\n".join([f"0.0.0.0:{number}/tcp" for number in range(8000, 8004)]) + "\n0.0.0.0:53/udp"
    )
    assert pyrun.ok("port", "rm", "web", "127.0.0.2:9000:80") == "127.0.0.2:9000/tcp"
    assert pyrun.ok("port", "rm", "web", "8009:89") == "0.0.0.0:8009/tcp"
    for word in ("8009", "8008:80", "127.0.0.2:9000", "53", "7000/udp", "1-7"):
        assert pyrun.fails(1, "port", "rm", "web", word).startswith(
            f"pyrun: container web publishes no port {word}"
        )
    for word in ("", "x", "80-70", "1.2.3:80", "80/icmp", "[::x]:80"):
        assert "pyrun: port rm" in pyrun.fails(1, "port", "rm", "web", word)
    left = {line.split(" -> ")[1] for line in pyrun.ok("port", "web").splitlines()}
    assert {"0.0.0.0:7000", "127.0.0.1:9000", *[f"0.0.0.0:{number}" for number in range(8004, 8009)]} < left
    assert len(left) == 8


def test_one_number_in_every_protocol(pyrun: Pyrun) -> None:
    """Also where this kernel has no SCTP of its own and cannot hold the port."""
    pyrun.ok("run", "-d", "--name", "web", "-p", "9000:80", "busybox", "sleep", "60")
    pyrun.ok("port", "add", "web", "9000:80/udp", "9000:80/sctp")
    assert sorted(pyrun.ok("port", "web").splitlines()) == [
        f"80/{protocol} -> 0.0.0.0:9000" for protocol in ("sctp", "tcp", "udp")
    ]
    assert "9000/sctp is already published by container web" in pyrun.fails(
        125, "run", "-p", "9000:80/sctp", "busybox"
    )


def test_one_transaction_or_nothing(pyrun: Pyrun) -> None:
    """Of several ports one is taken: none is published, and nothing is left of them."""
    pyrun.ok("run", "-d", "--name", "other", "-p", "8082:80", "busybox", "sleep", "60")
    pyrun.ok("run", "-d", "--name", "web", "busybox", "sleep", "60")
    before = elements(), record(pyrun, "web"), sorted((pyrun.runroot / "ports").iterdir())
    error = pyrun.fails(1, "port", "add", "web", "8080-8083:80-83")
    assert error.startswith("pyrun: port 0.0.0.0:8082/tcp is already published by container other")
    assert (elements(), record(pyrun, "web"), sorted((pyrun.runroot / "ports").iterdir())) == before
    pyrun.ok("port", "add", "web", "8080:80")
    again = pyrun.fails(1, "port", "add", "web", "8080:81")
    assert again.startswith("pyrun: port 0.0.0.0:8080/tcp is already published by container web")


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (["--net=none"], "`pyrun network connect` puts it on one"),
        (["--net=host"], "on the host's network, what it listens to is a port of the host already"),
        (["--net=container:other"], "a port is published where its network namespace is made"),
    ],
)
def test_containers_that_cannot_publish(pyrun: Pyrun, run: list[str], said: str) -> None:
    """Told with a remedy that works: only a namespace of its own can be connected to a network."""
    pyrun.ok("run", "-d", "--name", "other", "--net=none", "busybox", "sleep", "60")
    pyrun.ok("run", "-d", "--name", "web", *run, "busybox", "sleep", "60")
    error = pyrun.fails(1, "port", "add", "web", "8080:80")
    assert error.splitlines() == [
        "pyrun: container web is on no network that ports could be published from",
        f"hint: {said}",
    ]


def test_a_container_that_has_ended(pyrun: Pyrun) -> None:
    pyrun.ok("run", "--name", "web", "busybox", "true")
    assert pyrun.fails(1, "port", "add", "web", "8080:80").startswith("pyrun: container web is not running")


def test_flows_of_a_port_that_is_published_no_longer_are_forgotten(
    pyrun: Pyrun, internet: SimpleNamespace
) -> None:
    """A client that goes on from the same port is neither served any more, nor kept from the port's next owner."""
    for name in ("one", "two"):
        pyrun.ok("run", "-d", "--name", name, "busybox", "sleep", "60")
    pyrun.ok("port", "add", "one", "5353:53/udp")
    with udp_server("one", 53):
        assert ask_udp(internet, "neighbour", internet.host, 5353, 40000) == internet.neighbour
        pyrun.ok("port", "rm", "one", "5353/udp")
        assert ask_udp(internet, "neighbour", internet.host, 5353, 40000) == ""
    pyrun.ok("port", "add", "two", "5353:53/udp")
    with udp_server("two", 53):
        assert ask_udp(internet, "neighbour", internet.host, 5353, 40000) == internet.neighbour


def test_a_name_server_on_53_does_not_get_the_questions_to_our_own(
    pyrun: Pyrun, internet: SimpleNamespace
) -> None:
    """Both orders: the resolver has the port on the gateway already, or somebody else has it everywhere."""
    pyrun.ok("run", "-d", "--name", "web", "busybox", "sleep", "60")
    for _ in range(2):
        pyrun.ok(
            "run", "-d", "--name", "server", "-p", "53:53/udp", "-p", "53:53/tcp", "busybox", "sleep", "60"
        )
        assert "Address: 10.77.0." in pyrun.ok("exec", "web", "nslookup", "server")
        with udp_server("server", 53):
            assert ask_udp(internet, "neighbour", internet.host, 53) == internet.neighbour
        pyrun.ok("rm", "-f", "web")
        pyrun.ok("run", "-d", "--name", "web", "busybox", "sleep", "60")
        assert "Address: 10.77.0." in pyrun.ok("exec", "web", "nslookup", "server")
        pyrun.ok("rm", "-f", "server")


def test_other_flows_are_left_alone(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """`port rm` of 53/udp forgets what led to this container, not what containers ask outside on port 53."""
    pyrun.ok("run", "-d", "--name", "one", "-p", "53:53/udp", "busybox", "sleep", "60")
    pyrun.ok("exec", "one", "nslookup", "internet.test", internet.gateway)
    seen = Path("/proc/net/nf_conntrack")
    if not seen.exists():
        pytest.skip(capabilities.missing("conntrack_list"))
    before = [
        line
        for line in seen.read_text().splitlines()
        if f"dst={internet.gateway}" in line and "dport=53" in line
    ]
    assert before
    pyrun.ok("port", "rm", "one", "53/udp")
    after = [
        line
        for line in seen.read_text().splitlines()
        if f"dst={internet.gateway}" in line and "dport=53" in line
    ]
    assert len(after) == len(before)


def test_everything_added_goes_with_the_container(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sleep", "60")
    pyrun.ok("port", "add", "web", "9000-9099:100-199", "53:53/udp")
    ident = str(pyrun.state("web")["id"])
    list_ = pyrun.runroot / "containers" / ident / "more.undo"
    assert list_.read_text().count("unlink-if\t") == 101
    pyrun.ok("port", "rm", "web", "9000-9049")
    assert list_.read_text().count("unlink-if\t") == list_.read_text().count("guard\t") == 51
    pyrun.ok("port", "rm", "web", "8080")  # of the start: in the other list
    assert list_.read_text().count("unlink-if\t") == 51
    os.kill(int(str(pyrun.state("web")["pid"])), signal.SIGKILL)
    assert not emptied(lambda: list((pyrun.runroot / "ports").iterdir()), 10)
    assert "elements" not in elements()


@pytest.mark.parametrize("verb", ["add", "rm"])
def test_killed_at_any_moment_nothing_is_half_made(pyrun: Pyrun, verb: str) -> None:
    """kill -9 in the middle: the same again succeeds, and the container's end leaves nothing."""
    pyrun.ok("run", "-d", "--name", "web", "busybox", *SERVE)
    for delay_ms in range(4, 24):
        if verb == "rm":
            pyrun("port", "add", "web", "8080:80")
        words = ("port", verb, "web", "8080:80" if verb == "add" else "8080")
        process = pyrun.start(*words)
        time.sleep(delay_ms / 1000)  # the moment it is killed in
        process.kill()
        process.wait(10)
        again = pyrun(*words)
        if verb == "add":
            assert again.returncode == 0 or "already published by container web" in again.stderr, again.stderr
            assert "8080" in elements()
            assert pyrun.ok("port", "web") == "80/tcp -> 0.0.0.0:8080"
            pyrun.ok("port", "rm", "web", "8080")
        else:
            assert again.returncode == 0 or "publishes no port" in again.stderr, again.stderr
        assert "8080" not in elements()
        assert pyrun.ok("port", "web") == ""
        assert not (pyrun.runroot / "ports" / "tcp-0.0.0.0-8080").exists()
    process = pyrun.start("port", "add", "web", "8080:80")
    time.sleep(0.012)  # in the middle of it
    process.kill()
    process.wait(10)
    pyrun.ok("rm", "-f", "web")
    assert not list((pyrun.runroot / "ports").iterdir())
    assert "elements" not in elements()


def test_many_at_the_same_time(pyrun: Pyrun) -> None:
    """Additions to one container and to another, of ports some of which are the same: each port has one owner."""
    for name in ("one", "two"):
        pyrun.ok("run", "-d", "--name", name, "busybox", "sleep", "60")
    started = [
        pyrun.start("port", "add", name, f"{8080 + number}:80")
        for number in range(6)
        for name in ("one", "two")
    ]
    failed = 0
    for process in started:
        _, error = process.communicate(timeout=60)
        failed += process.returncode != 0
        assert process.returncode == 0 or "is already published by container" in error or "in use" in error
    assert failed == 6
    places = pyrun.ok("port", "one").splitlines() + pyrun.ok("port", "two").splitlines()
    assert sorted(places) == [f"80/tcp -> 0.0.0.0:{8080 + number}" for number in range(6)]
