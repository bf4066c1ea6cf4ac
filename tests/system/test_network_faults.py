"""What is taken away from under running containers: rules, bridge, guard, resolver. It comes back, and is told.

The guard (csrc/guard_watch.c) notices and has `pyrun network reload` heal; without one the next start does, or reload.
Kill -9 in the middle of a verb: test_network_kill_matrix.py. A host that lacks something: test_network_hosts.py.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import places
import ruleset
from command import Pyrun
from waiting import soon
from yard import SERVE, page, run

pytestmark = pytest.mark.alone

HEALED_S = 4.0
# Asks as often as it can, and tells when it was answered: one line an answer, "lost" for a question without.
CLIENT = """
import http.client, sys, time
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    try:
        connection = http.client.HTTPConnection(sys.argv[1], timeout=0.3)
        connection.request("GET", "/")
        print(connection.getresponse().read().decode().strip(), time.monotonic())
    except OSError:
        print("lost", time.monotonic())
"""


def asks(pyrun: Pyrun, name: str, host: str) -> bool:
    """Whether a container finds a name."""
    return pyrun("exec", name, "timeout", "3", "nslookup", "-type=a", host).returncode == 0


def resolvers(pyrun: Pyrun) -> list[int]:
    """The process id of the resolver of this run directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(pyrun.runroot).encode() in words and b"answer" in words:
            found.append(int(path.parent.name))
    return found


def standing(internet: SimpleNamespace, pyrun: Pyrun) -> list[str]:
    """What does not work: published ports, names, the way out, the way to a neighbour."""
    ask = ("exec", "other", "timeout", "2", "wget", "-q", "-O-")
    checks = {
        "the published port": lambda: page(internet, f"{internet.host}:8080") == "a secret",
        "a name": lambda: asks(pyrun, "other", "web"),
        "the outside": lambda: pyrun(*ask, f"http://{internet.far}/").stdout == f"you are {internet.host}\n",
        "the neighbour": lambda: pyrun(*ask, "http://web/").stdout == "a secret\n",
    }
    return [what for what, works in checks.items() if not works()]


@pytest.fixture
def two(pyrun: Pyrun, internet: SimpleNamespace) -> Iterator[Pyrun]:
    """The containers web (its port 80 is the host's 8080) and other, who have talked to each other."""
    pyrun.ok("run", "-d", "--name=web", "-p", "8080:80", "busybox", *SERVE)
    pyrun.ok("run", "-d", "--name=other", "busybox", "sleep", "1000")
    assert soon(lambda: page(internet, f"{internet.host}:8080") == "a secret", within_s=5)
    assert standing(internet, pyrun) == []
    yield pyrun


def events(pyrun: Pyrun) -> str:
    path = pyrun.runroot / "networks" / "events"
    return path.read_text() if path.exists() else ""


# ── rules ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_ruleset_is_flushed_under_load(two: Pyrun, internet: SimpleNamespace) -> None:
    """Three times, while somebody asks without pause and containers come and go: each time all of it is back."""
    golden = ruleset.whole()
    words = [
        "nsenter",
        "--net=/run/pyrun-lab/neighbour",
        sys.executable,
        "-c",
        CLIENT,
        f"{internet.host}:8080",
        "9",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as client:
        for _ in range(3):
            run("nft", "flush", "ruleset")
            assert two.ok("run", "--rm", "busybox", "echo", "up") == "up"
            assert soon(lambda: page(internet, f"{internet.host}:8080") == "a secret", HEALED_S)
        answered, _ = client.communicate(timeout=30)
    lines = [line.rpartition(" ") for line in answered.splitlines()]
    assert sum(said == "a secret" for said, _, _ in lines) > 50
    assert lines[-1][0] == "a secret"
    assert standing(internet, two) == []
    assert soon(lambda: ruleset.whole() == golden, 3)


@pytest.mark.parametrize(
    "words",
    ["flush ruleset", "delete table inet pyrun", "delete table bridge pyrun", "flush table inet pyrun"],
)
def test_without_any_start_the_guard_heals_and_tells(
    two: Pyrun, internet: SimpleNamespace, words: str
) -> None:
    golden = ruleset.whole()
    run("nft", *words.split())
    assert soon(lambda: "restored" in events(two), HEALED_S), "nobody told of it"
    assert ruleset.whole() == golden
    assert standing(internet, two) == []


# ── the bridge ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("taken", [
    "flush set inet pyrun policed", "flush set inet pyrun denied", "delete element inet pyrun ports { tcp . 8081 }",
    "flush set bridge pyrun macs", "add element inet pyrun ports { tcp . 8099 : 10.77.0.99 . 80 }",
])  # fmt: skip
def test_elements_are_taken_away(two: Pyrun, taken: str) -> None:
    """A policy without its elements lets everything through: `network reload` looks for each of them, and for those of
    ports that are left over, which the next container of that address would get."""
    two.ok(
        "run",
        "-d",
        "--name",
        "held",
        "-p",
        "8081:80",
        "--egress",
        "10.9.0.0/16,deny:10.9.9.0/24",
        "busybox",
        *SERVE,
    )
    assert two.ok("network", "reload") == "nothing was missing"
    before = run("nft", "list", "ruleset")
    run("nft", *taken.split())
    assert run("nft", "list", "ruleset") != before
    assert "restored" in two.ok("network", "reload")
    assert sorted(run("nft", "list", "ruleset").split()) == sorted(before.split())
    assert two.ok("network", "reload") == "nothing was missing"


@pytest.mark.parametrize("who", ["guard", "start", "reload"])
def test_the_bridge_is_deleted(two: Pyrun, internet: SimpleNamespace, who: str) -> None:
    """By the guard, without one by the next start, or when asked: the running containers are on it again."""
    if who != "guard":
        ruleset.end_guard(two.runroot)
    run("ip", "link", "delete", "pyrun0")
    if who == "start":
        assert (
            "bridge pyrun0 was missing and has been restored" in two("run", "--rm", "busybox", "true").stderr
        )
    elif who == "reload":
        assert "bridge pyrun0 was missing and has been restored" in two.ok("network", "reload")
        assert two.ok("network", "reload") == "nothing was missing"
    assert soon(lambda: page(internet, f"{internet.host}:8080") == "a secret", HEALED_S)
    assert soon(lambda: standing(internet, two) == [], HEALED_S), standing(internet, two)


def test_the_bridge_is_set_down(two: Pyrun, internet: SimpleNamespace) -> None:
    run("ip", "link", "set", "pyrun0", "down")
    assert soon(lambda: page(internet, f"{internet.host}:8080") == "a secret", HEALED_S)
    assert standing(internet, two) == []


def test_the_gateways_address_is_taken_away(two: Pyrun, internet: SimpleNamespace) -> None:
    run("ip", "address", "flush", "dev", "pyrun0")
    assert soon(lambda: page(internet, f"{internet.host}:8080") == "a secret", HEALED_S)
    assert standing(internet, two) == []


@pytest.mark.parametrize(
    "loss",
    [
        "link set {} down",
        "address flush dev {}",
        "-6 address flush dev {} scope global",
        "link set {0} down; ip link set {0} up",
    ],
)
def test_what_is_lost_while_nobody_watches_is_found_by_the_next_start(pyrun: Pyrun, loss: str) -> None:
    """No container, no guard."""
    pyrun.ok("network", "create", "--ipv6", "dual")
    network = json.loads(pyrun.ok("network", "inspect", "dual"))[0]
    gateways = [each["Gateway"] for each in network["IPAM"]["Config"]]
    run("sh", "-c", f"ip {loss.format(network['Pyrun']['Bridge'])}")
    pings = "; ".join(f"ping -c1 -W2 {each}" for each in [*gateways, "198.51.100.1"])
    done = pyrun("run", "--rm", "--net=dual", "busybox", "sh", "-c", pings)
    assert done.stdout.count("1 packets received") == 3, done.stdout
    again = pyrun("run", "--rm", "--net=dual", "busybox", "true")
    assert (again.returncode, again.stderr) == (0, ""), "a network that stands is not restored"


def test_an_adopted_bridge_that_is_gone_keeps_nothing_from_being_healed(
    two: Pyrun, internet: SimpleNamespace
) -> None:
    golden = ruleset.whole()
    run("ip", "link", "add", "br666", "type", "bridge")
    run("ip", "address", "add", "10.6.6.1/24", "dev", "br666")
    two.ok("network", "adopt", "br666", "--name=another")
    ruleset.end_guard(two.runroot)
    run("ip", "link", "delete", "br666")
    run("ip", "link", "delete", "pyrun0")
    run("nft", "flush", "ruleset")
    done = two("network", "reload")
    assert (
        done.returncode == 1
        and "network another: its bridge br666, which was adopted, is gone" in done.stderr
    )
    assert "bridge pyrun0 was missing and has been restored" in done.stdout
    assert "pyrun-guard was missing and has been started" in done.stdout
    assert soon(lambda: standing(internet, two) == [], HEALED_S), standing(internet, two)
    two.ok("network", "rm", "another")
    assert ruleset.whole() == golden
    assert two.ok("network", "reload") == "nothing was missing"


# ── the processes ──────────────────────────────────────────────────────────────────────────────────


def test_the_guard_is_killed(two: Pyrun, internet: SimpleNamespace) -> None:
    """What is published goes on; names come back with the next start, with `network reload`, and by themselves."""
    for heal in (("run", "--rm", "busybox", "true"), ("network", "reload"), ()):
        (guard,) = ruleset.guards(two.runroot)
        os.kill(guard, signal.SIGKILL)
        assert page(internet, f"{internet.host}:8080") == "a secret"
        if heal:
            two.ok(*heal)
        else:
            assert soon(lambda: bool(ruleset.guards(two.runroot)), HEALED_S + 3)
        assert soon(lambda: standing(internet, two) == [], HEALED_S)
        assert ruleset.guards(two.runroot) not in ([], [guard])
    error = two.fails(125, "run", "--rm", "-p", "8080:80", "busybox", "true")
    assert "already published by container web" in error
    listening = run("ss", "-Hlnt", "sport = :8080")
    assert "[::1]:8080" in listening, listening


@pytest.mark.parametrize(
    "heal", [("network", "reload"), ("run", "--rm", "--network=second", "busybox", "true")]
)
def test_a_guard_beside_another_name_server_is_gone(pyrun: Pyrun, heal: tuple[str, ...]) -> None:
    """Its resolvers have other ports each time: those who ask are led to the new ones, whoever made the new guard."""
    held = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
    for sock in held:
        sock.bind(("0.0.0.0", 53))
    try:
        for network in ("first", "second"):
            pyrun.ok("network", "create", network)
            pyrun.ok("run", "-d", "--name", network, f"--network={network}", "busybox", "sleep", "1000")
        assert asks(pyrun, "first", "first") and asks(pyrun, "second", "second")
        ruleset.end_guard(pyrun.runroot)
        pyrun.ok(*heal)
        assert asks(pyrun, "first", "first") and asks(pyrun, "second", "second")
    finally:
        for sock in held:
            sock.close()
    ruleset.end_guard(pyrun.runroot)
    pyrun.ok("network", "reload")
    assert run("ss", "-Hlnu", "sport = :53").count(":53 ") == 2, "the port that is free again"
    assert asks(pyrun, "first", "first") and asks(pyrun, "second", "second")


def test_the_resolver_is_killed(two: Pyrun, internet: SimpleNamespace) -> None:
    """Whoever asks next is answered, by another one."""
    (first,) = resolvers(two)
    os.kill(first, signal.SIGKILL)
    assert soon(lambda: asks(two, "other", "web"), 5)
    assert resolvers(two) not in ([], [first])
    assert asks(two, "other", internet.name)


def test_resolver_and_guard_are_gone_with_the_last_container(two: Pyrun) -> None:
    two.ok("rm", "-f", "web", "other")
    assert soon(lambda: not ruleset.guards(two.runroot) and not resolvers(two), 5)


def test_what_somebody_changed_by_hand(pyrun: Pyrun) -> None:
    """`network reload` puts it back and says what it was; a second time there is nothing to say."""
    pyrun.ok("network", "create", "--ipv6", "dual")
    pyrun.ok("run", "-d", "--name", "web", "--net=dual", "-p", "8080:80", "busybox", *SERVE)
    network = json.loads(pyrun.ok("network", "inspect", "dual"))[0]
    bridge = network["Pyrun"]["Bridge"]
    (link,) = (each.name for each in Path(f"/sys/class/net/{bridge}/brif").iterdir())
    gateway = next(each["Gateway"] for each in network["IPAM"]["Config"] if ":" in each["Gateway"])
    assert pyrun.ok("network", "reload") == "nothing was missing"
    assert places.page("", "127.0.0.1:8080") == places.page("web", "198.51.100.2:8080") == "a secret"
    by_hand = {
        f"ip link set {link} nomaster": f"the cable {link}",
        f"ip link set {link} down": f"the cable {link}",
        f"sysctl -qw net.ipv4.conf.{bridge}.route_localnet=0": "route_localnet",
        "sysctl -qw net.ipv4.ip_forward=0": "forwarding",
        f"sysctl -qw net.ipv6.conf.{bridge}.disable_ipv6=1": f"net/ipv6/conf/{bridge}/disable_ipv6 and {gateway}"
        f" of bridge {bridge}",
    }
    for command, what in by_hand.items():
        run("sh", "-c", command)
        told = pyrun.ok("network", "reload")
        if told == "nothing was missing":  # the guard was quicker
            told = json.loads(pyrun.ok("network", "inspect", "dual"))[0]["Pyrun"]["Healed"][-1]
        assert told.endswith(f"network dual: {what} was missing and has been restored"), command
        assert pyrun.ok("network", "reload") == "nothing was missing", command
        for place, address in (
            ("", "127.0.0.1:8080"),
            ("web", "198.51.100.2:8080"),
            ("", f"[{gateway}]:8080"),
        ):
            assert places.page(place, address) == "a secret", (command, place, address)
    ruleset.end_guard(pyrun.runroot)
    assert pyrun.ok("network", "reload") == "pyrun-guard was missing and has been started"
    assert pyrun.ok("network", "reload") == "nothing was missing"
