"""Egress policies as a user meets them: what a container reaches, and what becomes of it when the policy changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import Pyrun
from places import (
    HOST6,
    INTERNET,
    INTERNET6,
    REFUSED,
    address_of,
    command,
    entering,
    gateway_of,
    listening,
    page,
    pings,
    setting,
    telling,
    uplink6,
)
from waiting import soon
from yard import SERVE, SLEEP, run

HOST_PORT = """
import socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True: server.accept()[0].close()
"""


def start(pyrun: Pyrun, name: str, policy: str, *options: str) -> None:
    pyrun.ok("run", "-d", "--name", name, "--egress", policy, *options, "busybox", *SLEEP)


def elements(kind: str) -> str:
    return (
        run("nft", "list", "set", "inet", "pyrun", kind)
        .partition("elements = {")[2]
        .partition("}")[0]
        .strip()
    )


# Gives up a moment before the kernel would make an error of an ICMP answer that came while it was asking.
HASTY = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
sock = socket.socket(family)
sock.settimeout(0.8)
try: sock.connect((sys.argv[1], 80)); print("reached")
except OSError as error: print(type(error).__name__)
"""


def test_a_refused_connection_ends_at_once(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """Of both families, out and to a neighbour; what is no connection is told by ICMP."""
    with uplink6():
        pyrun.ok("network", "create", "--ipv6", "dual")
        pyrun.ok("run", "-d", "--name", "near", "--net=dual", "busybox", *SLEEP)
        start(pyrun, "box", "none", "--net=dual")
        for address in (internet.far, INTERNET6, address_of("near"), address_of("near", 6)):
            assert command("box", sys.executable, "-c", HASTY, address) == "ConnectionRefusedError", address
        assert "Packet filtered" in command("box", "ping", "-c1", "-W1", internet.far)


# ── what a policy allows ───────────────────────────────────────────────────────────────────────────


def test_an_address_and_a_port(pyrun: Pyrun, internet: SimpleNamespace, neighbour: str) -> None:
    start(pyrun, "box", f"{internet.gateway}:80/tcp")
    assert page("box", internet.gateway) == f"you are {internet.host}"
    assert page("box", internet.far) == REFUSED
    assert page("box", f"{internet.gateway}:53") == REFUSED
    assert page("box", neighbour) == REFUSED, "its neighbours are not exempt"
    assert not pings("box", internet.gateway)
    assert pings("neighbour", address_of("box")), "what others begin is none of its policy"


def test_nothing_at_all(pyrun: Pyrun, internet: SimpleNamespace, neighbour: str) -> None:
    start(pyrun, "box", "none")
    for address in (internet.gateway, internet.far, internet.host, neighbour, "10.77.0.1"):
        assert page("box", address) == REFUSED, address
    seen = pyrun("exec", "box", "nslookup", internet.name)
    assert seen.returncode and "NXDOMAIN" in seen.stdout + seen.stderr


def test_only_names(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    start(pyrun, "box", "dns")
    assert internet.far in pyrun.ok("exec", "box", "nslookup", internet.name)
    assert page("box", internet.far) == REFUSED


def test_all_but_one(pyrun: Pyrun, internet: SimpleNamespace, neighbour: str) -> None:
    start(pyrun, "box", f"deny:{internet.far}")
    assert page("box", internet.far) == REFUSED
    assert page("box", internet.gateway) == f"you are {internet.host}"
    assert page("box", neighbour) == "a secret"
    assert pings("box", internet.gateway)


def test_a_denied_container_behind_a_published_port(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", *SERVE)
    web = address_of("web")
    listening("web")
    start(pyrun, "box", f"deny:{web}")
    start(pyrun, "other", f"{internet.host}:8080")
    assert page("box", f"{internet.host}:8080") == "no: No route to host"
    assert page("other", f"{internet.host}:8080") == "a secret", (
        "a policy means the address that was asked for"
    )
    assert page("other", web) == REFUSED


def test_the_hosts_own_services(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    server = subprocess.Popen([sys.executable, "-c", HOST_PORT, "4711"])
    try:
        start(pyrun, "box", f"{internet.gateway}")
        for address in ("10.77.0.1", internet.host):
            assert page("box", f"{address}:4711") == REFUSED
        pyrun.ok("network", "policy", "box", f"{internet.host}:4711/tcp")
        assert page("box", f"{internet.host}:4711") != REFUSED
        assert page("box", "10.77.0.1:4711") == REFUSED
    finally:
        server.kill()
        server.wait()


def test_no_name_leads_into_the_host_or_to_neighbours(
    pyrun: Pyrun, internet: SimpleNamespace, neighbour: str
) -> None:
    """Whoever answers for an allowed name says what its address is: here that of the gateway, and of a container."""
    start(pyrun, "box", "name.example")
    own = address_of("box")
    for address in (internet.gateway, internet.host, gateway_of("box"), neighbour):
        run("nft", "add", "element", "inet", "pyrun", "admitted", f"{{ {own} . {address} timeout 60s }}")
    assert page("box", internet.gateway) == f"you are {internet.host}", "the answers do count"
    assert page("box", neighbour) == REFUSED
    with subprocess.Popen([sys.executable, "-c", HOST_PORT, "8077"]) as server:
        try:
            for address in (internet.host, gateway_of("box")):
                assert page("box", f"{address}:8077") == REFUSED, address
        finally:
            server.kill()


def test_names_and_their_time(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    start(pyrun, "box", "internet.test:80/tcp,*.internet.test")
    assert page("box", internet.far) == REFUSED, "nobody has asked yet"
    assert internet.far in pyrun.ok("exec", "box", "nslookup", internet.name)
    assert page("box", internet.far) == f"you are {internet.host}"
    assert page("box", f"{internet.far}:53") == REFUSED, "the policy names a port"
    assert "timeout" in elements("admitted_at")
    assert internet.far in pyrun.ok("exec", "box", "nslookup", "www.internet.test")
    assert page("box", f"{internet.far}:53") != REFUSED
    seen = pyrun("exec", "box", "nslookup", "gateway.test")
    assert seen.returncode and "NXDOMAIN" in seen.stdout + seen.stderr
    assert page("box", internet.gateway) == REFUSED


def test_ipv6(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok("network", "create", "--ipv6", "six")
    start(pyrun, "box", f"[{INTERNET6}]:80/tcp", "--network", "six")
    start(pyrun, "open", f"deny:{internet.far}", "--network", "six")
    with uplink6(), telling(INTERNET, INTERNET6):
        assert page("box", f"[{INTERNET6}]") == page("open", f"[{INTERNET6}]") == f"you are {HOST6}"
    gateway = gateway_of("box", 6)
    assert not pings("box", gateway) and pings("open", gateway)
    assert page("box", internet.gateway) == REFUSED, "a policy of IPv6 addresses allows none of IPv4"
    pyrun.ok("network", "policy", "box", "fc00::/7/icmp")
    assert pings("box", gateway)


# ── changed while it runs ──────────────────────────────────────────────────────────────────────────


def test_shown_and_changed(pyrun: Pyrun, internet: SimpleNamespace, neighbour: str) -> None:
    start(pyrun, "box", "192.0.2.0/24:443/tcp,deny:169.254.169.254")
    assert pyrun.ok("network", "policy", "box") == "192.0.2.0/24:443/tcp,deny:169.254.169.254"
    # ranges that overlap each other and the older ones
    pyrun.ok(
        "network",
        "policy",
        "box",
        f"{internet.far}/32,10.0.0.0/8:80-90/tcp,10.0.0.0/8:85-100,10.77.0.0/16:80/tcp",
    )
    assert (page("box", internet.far), page("box", neighbour)) == (f"you are {internet.host}", "a secret")
    assert page("box", internet.gateway) == REFUSED
    pyrun.ok("network", "policy", "box", "all")
    assert pyrun.ok("network", "policy", "box") == "all"
    assert page("box", internet.gateway) == f"you are {internet.host}"
    assert elements("policed") == elements("allowed") == elements("denied") == ""
    pyrun.ok("network", "policy", "box", "none")
    assert page("box", internet.gateway) == REFUSED
    assert "no protocol" in pyrun.fails(1, "network", "policy", "box", "10.0.0.0/8/foo")
    assert pyrun.ok("network", "policy", "box") == "none", "a mistake changes nothing"


def test_a_change_holds_for_what_is_connected(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """A transfer that runs is cut off, not only new ones."""
    start(pyrun, "box", f"{internet.gateway}")
    script = f"""
import http.client
connection = http.client.HTTPConnection("{internet.gateway}", timeout=3)
connection.request("GET", "/"); connection.getresponse().read()
print("first", flush=True); input()
try:
    connection.request("GET", "/"); print("second", connection.getresponse().status)
except OSError as error: print("cut", error)
"""
    words = [*entering("box"), sys.executable, "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin and client.stdout
        assert client.stdout.readline() == "first\n"
        pyrun.ok("network", "policy", "box", "none")
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.stdout.readline().startswith("cut")


def test_it_holds_on_a_network_that_comes_later(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    start(pyrun, "box", f"{internet.gateway}")
    pyrun.ok("network", "create", "later")
    pyrun.ok("network", "connect", "later", "box")
    pyrun.ok("run", "-d", "--name", "web", "--network", "later", "busybox", *SERVE)
    web = address_of("web")
    assert page("box", web) == REFUSED
    listening("web")
    pyrun.ok("network", "policy", "box", web)
    assert page("box", web) == "a secret"


# ── its end, and what others do to it ──────────────────────────────────────────────────────────────


def test_nothing_of_it_stays(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    start(pyrun, "keeper", "dns")
    start(pyrun, "box", "10.0.0.0/8,deny:10.9.0.0/16,internet.test")
    own = address_of("box")
    pyrun.ok("network", "policy", "box", "192.0.2.0/24:80-90,deny:192.0.2.7,internet.test")
    pyrun.ok("rm", "-f", "box")
    assert elements("allowed") == elements("denied") == ""
    assert own not in elements("policed") and address_of("keeper") in elements("policed")
    kept = sorted(each.name for each in (pyrun.runroot / "networks/policies").iterdir())
    assert len(kept) == 2 and kept[1] == "words"


# Sends as fast as it can; counts what comes until nothing has for a moment.
SEND = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("sending", flush=True)
while True:
    try: sock.sendto(b"x", (sys.argv[1], 9))
    except OSError: pass
"""
COUNT = """
import socket, sys
sock, count = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0
sock.bind(("", 9))
print("listening", flush=True); input()
sock.settimeout(0.3)
try:
    while sock.recv(9): count += 1
except TimeoutError: print(count)
"""


def test_it_outlives_nobody_in_the_same_namespace(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """Who shares the container's network namespace sends on when that ends, and gets nothing out without its policy."""
    start(pyrun, "box", "example.org")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    ends = [(INTERNET, COUNT), ("box", SEND)]
    words = [[*entering(place), sys.executable, "-c", script, internet.far] for place, script in ends]
    with subprocess.Popen(words[0], **pipes) as counter, subprocess.Popen(words[1], **pipes) as sender:
        assert counter.stdout and sender.stdout
        try:
            assert (counter.stdout.readline(), sender.stdout.readline()) == ("listening\n", "sending\n")
            pyrun.ok("rm", "-f", "box")
            assert counter.communicate("\n", timeout=20)[0] == "0\n"
        finally:
            sender.kill()
            counter.kill()


def test_the_next_owner_of_the_address_inherits_nothing(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    start(pyrun, "box", "internet.test", "--ip", "10.77.0.99")
    pyrun.ok("exec", "box", "nslookup", internet.name)
    assert page("box", internet.far) == f"you are {internet.host}"
    pyrun.ok("rm", "-f", "box")
    # as if its end had not taken them away
    answered = f"10.77.0.99 . {internet.far} timeout 60s"
    run("nft", "add", "element", "inet", "pyrun", "admitted", f"{{ {answered} }}")
    start(pyrun, "next", f"{internet.gateway}", "--ip", "10.77.0.99")
    assert elements("admitted") == ""
    assert page("next", internet.far) == REFUSED


@pytest.mark.parametrize("how", ["rm -f", "stop", "exit", "all killed", "policy changed"])
def test_nothing_of_a_name_stays(pyrun: Pyrun, internet: SimpleNamespace, how: str) -> None:
    """What the resolver let in goes with the container, though its time is not over; what a neighbour has stays."""
    start(pyrun, "keeper", "internet.test")
    start(pyrun, "box", "internet.test:80/tcp,*.internet.test", *["--rm"] * (how in ("stop", "exit")))
    own, kept = address_of("box"), address_of("keeper")
    for name in ("keeper", "box"):
        pyrun.ok("exec", name, "nslookup", internet.name)
    pyrun.ok("exec", "box", "nslookup", "www.internet.test")
    assert own in elements("admitted") and own in elements("admitted_at") and kept in elements("admitted")
    if how == "all killed":
        state = pyrun.state("box")
        for key in ("monitor_pid", "pid"):
            os.kill(int(str(state[key])), signal.SIGKILL)
        assert soon(lambda: not os.path.exists(f"/proc/{state['pid']}/ns/net"), 5)
        assert own in elements("admitted")
        pyrun.ok("system", "reconcile")
    elif how == "exit":
        pyrun.ok("kill", "box")
    elif how == "policy changed":
        pyrun.ok("network", "policy", "box", "none")
    else:
        pyrun.ok(*how.split(), *["-t", "0"] * (how == "stop"), "box")
    assert soon(lambda: own not in elements("admitted") + elements("admitted_at"), 5.0)
    assert kept in elements("admitted")


def test_reconcile_finds_what_nobody_holds(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    start(pyrun, "box", internet.gateway)
    run("nft", "add", "element", "inet", "pyrun", "policed", "{ 10.77.0.99 }")
    told = pyrun.ok("system", "reconcile")
    assert told == "the egress policy of 10.77.0.99 was left over and has been removed"
    assert elements("policed") == address_of("box")
    assert pyrun.ok("system", "reconcile") == "nothing to clean up"
    assert (page("box", internet.gateway), page("box", internet.far)) == (f"you are {internet.host}", REFUSED)


@pytest.mark.alone
def test_it_comes_back_after_a_flush(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    start(pyrun, "box", f"{internet.gateway}")
    run("nft", "flush", "ruleset")
    pyrun("network", "reload")
    assert page("box", internet.gateway) == f"you are {internet.host}"
    assert page("box", internet.far) == REFUSED


@pytest.mark.alone
@pytest.mark.parametrize("words", ["delete table inet pyrun", "flush ruleset"])
def test_changed_while_somebody_flushes(pyrun: Pyrun, internet: SimpleNamespace, words: str) -> None:
    start(pyrun, "box", "dns")
    run("nft", *words.split())
    pyrun.ok("network", "policy", "box", f"{internet.gateway}")
    assert page("box", internet.gateway) == f"you are {internet.host}"
    assert page("box", internet.far) == REFUSED


@pytest.mark.parametrize("switch", ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"])
def test_neighbours_where_the_host_does_not_look_at_bridged_frames(
    pyrun: Pyrun, neighbour: str, switch: str
) -> None:
    with setting(f"net/bridge/{switch}", "0"):
        start(pyrun, "free", "10.0.0.0/8")
        start(pyrun, "box", "192.0.2.1")
        assert page("box", neighbour) == REFUSED
        assert page("free", neighbour) == "a secret"


def test_neighbours_where_the_kernel_has_no_such_switch(
    pyrun: Pyrun, internet: SimpleNamespace, neighbour: str, tmp_path: Path
) -> None:
    """Without br_netfilter a container with a policy exchanges no frames with its neighbours."""
    run("mount", "--bind", str(tmp_path), "/proc/sys/net/bridge")
    try:
        begun = pyrun("run", "-d", "--name", "box", "--egress", "0.0.0.0/0", "busybox", *SLEEP)
        assert begun.returncode == 0 and "cut off from its neighbours" in begun.stderr
        own = address_of("box")
        assert not pings("box", neighbour) and not pings("neighbour", own)
        assert page("box", internet.gateway) == f"you are {internet.host}" and pings("", own)
        pyrun.ok("network", "policy", "box", "all")
        # whom nobody answered is asked again after a second
        assert soon(lambda: pings("box", neighbour), 5) and soon(lambda: pings("neighbour", own), 5)
    finally:
        run("umount", "/proc/sys/net/bridge")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--egress", "10.0.0.0/8/foo"), "--egress '10.0.0.0/8/foo': 'foo' is no protocol"),
        (("--egress", ""), "--egress ''"),
        (("--egress", "none", "--network", "none"), "has no meaning with --network none"),
        (("--egress", "none", "--network", "host"), "has no meaning with --network host"),
    ],
)
def test_what_is_refused(pyrun: Pyrun, words: tuple[str, ...], told: str) -> None:
    assert told in pyrun.fails(125, "run", "--rm", *words, "busybox", "true")


def test_a_container_without_bridge_has_no_policy(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name", "box", "--network", "none", "busybox", *SLEEP)
    assert "--network=none" in pyrun.fails(1, "network", "policy", "box", "none")
    assert pyrun.ok("network", "policy", "box") == "all"
