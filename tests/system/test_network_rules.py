"""What the firewall makes of networks: --internal, --isolate, --icc, IPv6, closed ports; seen by packets.

What hostile containers try against these rules is in tests/attacks/test_network_*.py.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import Pyrun
from places import (
    HOST6,
    INTERNET,
    INTERNET6,
    NEIGHBOUR,
    address_of,
    command,
    gateway_of,
    listening,
    page,
    pings,
    setting,
    telling,
    uplink6,
)
from yard import SERVE, SLEEP, run


def start(pyrun: Pyrun, name: str, network: str, *options: str, words: tuple[str, ...] = SLEEP) -> None:
    pyrun.ok("run", "-d", "--name", name, "--network", network, *options, "busybox", *words)
    if words is SERVE:
        listening(name)


@pytest.fixture
def six(lab: None) -> Iterator[None]:
    """IPv6 between the lab host and the internet."""
    with uplink6():
        yield


def test_ports_of_a_container_on_internal_networks_alone(pyrun: Pyrun) -> None:
    """Ignored, as is said: nobody tells of them afterwards."""
    pyrun.ok("network", "create", "--internal", "lonely")
    done = pyrun("run", "-d", "--name", "box", "--net=lonely", "-p", "8080:80", "busybox", "sleep", "600")
    assert (
        done.returncode == 0
        and "ports are ignored: every network of the container is internal" in done.stderr
    )
    assert pyrun.ok("port", "box") == ""
    assert json.loads(pyrun.ok("ps", "--format", "json"))["Ports"] == ""
    pyrun.ok("rm", "-f", "box")
    pyrun.ok("network", "rm", "lonely")


def test_an_internal_network(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """Its containers get no route out; one that makes itself one gets no further, not even by published ports."""
    pyrun.ok("network", "create", "--internal", "inner")
    start(pyrun, "box", "inner")
    start(pyrun, "other", "inner", words=SERVE)
    start(pyrun, "web", "bridge", "-p", "8080:80", words=SERVE)
    gateway = json.loads(pyrun.ok("network", "inspect", "inner"))[0]["IPAM"]["Config"][0]["Gateway"]
    command("box", "ip", "route", "add", "default", "via", gateway)
    for address in (internet.gateway, internet.far, f"{internet.host}:8080", address_of("web")):
        assert page("box", address).startswith("no:"), address
    assert page("box", address_of("other")) == "a secret"
    assert page("web", address_of("other")).startswith("no:")
    run("nft", "delete", "element", "inet", "pyrun", "sources", f"{{ {bridge(pyrun, 'inner')} }}")
    assert page("box", internet.gateway) == f"you are {internet.host}", "it was this element that kept it in"


def bridge(pyrun: Pyrun, network: str) -> str:
    return str(json.loads(pyrun.ok("network", "inspect", network))[0]["Pyrun"]["Bridge"])


def test_an_isolated_network(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok("network", "create", "--isolate", "apart")
    start(pyrun, "in", "apart", "-p", "8080:80", words=SERVE)
    start(pyrun, "beside", "apart")
    start(pyrun, "out", "bridge", "-p", "8081:80", words=SERVE)
    assert page(NEIGHBOUR, f"{internet.host}:8080") == "a secret"
    assert page("beside", f"{internet.host}:8080") == page("beside", address_of("in")) == "a secret"
    assert page("beside", internet.gateway) == f"you are {internet.host}"
    assert page("out", f"{internet.host}:8080").startswith("no:")
    assert page("in", f"{internet.host}:8081").startswith("no:")
    run("nft", "delete", "element", "inet", "pyrun", "isolated", f"{{ {bridge(pyrun, 'apart')} }}")
    assert page("out", f"{internet.host}:8080") == page("in", f"{internet.host}:8081") == "a secret"


@pytest.mark.parametrize("bridged", ["1", "0"])
@pytest.mark.parametrize("version", [4, 6])
def test_no_connections_within_a_network(
    pyrun: Pyrun, internet: SimpleNamespace, version: int, bridged: str
) -> None:
    """With the kernel showing bridged frames to the rules, and without."""
    name = "iptables" if version == 4 else "ip6tables"
    with setting(f"net/bridge/bridge-nf-call-{name}", bridged):
        pyrun.ok("network", "create", "--ipv6", "--icc=false", "quiet")
        start(pyrun, "one", "quiet")
        start(pyrun, "two", "quiet", "-p", "8080:80", words=SERVE)
        there = address_of("two", version)
        assert not pings("one", there)
        assert pings("", there) and pings("one", gateway_of("one", version))
        assert page("one", internet.gateway) == f"you are {internet.host}"
        assert page("one", f"{internet.host}:8080").startswith("no:"), "not by a published port either"
        assert page(NEIGHBOUR, f"{internet.host}:8080") == "a secret"
        pyrun.ok("network", "create", "--ipv6", "loud")
        start(pyrun, "three", "loud")
        start(pyrun, "four", "loud")
        assert pings("three", address_of("four", version))


def test_ipv6_goes_out_under_the_hosts_address(pyrun: Pyrun, six: None) -> None:
    pyrun.ok("network", "create", "--ipv6", "six")
    start(pyrun, "box", "six", "-p", "8080:80", words=SERVE)
    with telling(INTERNET, INTERNET6):
        assert page("box", f"[{INTERNET6}]") == f"you are {HOST6}"
    assert page(INTERNET, f"[{HOST6}]:8080") == "a secret"
    assert page("", f"[{HOST6}]:8080") == "a secret"
    assert page("box", f"[{HOST6}]:8080") == "a secret", "from itself"
    run("nft", "flush", "chain", "inet", "pyrun", "postrouting")
    with telling(INTERNET, INTERNET6):
        assert page("box", f"[{INTERNET6}]").startswith("no:")


def test_who_asks_is_kept_between_networks(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """Masqueraded is only who would be answered past this host."""
    pyrun.ok("network", "create", "other")
    start(pyrun, "web", "bridge", "-p", "8080:80")
    start(pyrun, "far", "other")
    start(pyrun, "near", "bridge")
    with telling("web"):
        assert page("far", f"{internet.host}:8080") == f"you are {address_of('far')}"
        assert page(NEIGHBOUR, f"{internet.host}:8080") == f"you are {internet.neighbour}"
        assert page("near", f"{internet.host}:8080") == "you are 10.77.0.1"
        assert page("web", f"{internet.host}:8080") == "you are 10.77.0.1"


def test_a_closed_port_is_the_hosts_and_its_containers_own(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    start(pyrun, "web", "bridge", "-p", "8080:80", words=SERVE)
    start(pyrun, "other", "bridge")
    places = {"": "127.0.0.1:8080", "other": f"{internet.host}:8080", NEIGHBOUR: f"{internet.host}:8080"}
    assert {place: page(place, address) for place, address in places.items()} == dict.fromkeys(
        places, "a secret"
    )
    run("nft", "add", "element", "inet", "pyrun", "closed", "{ tcp . 8080 }")
    assert page(NEIGHBOUR, places[NEIGHBOUR]).startswith("no:")
    assert page("", places[""]) == page("other", places["other"]) == "a secret"


@pytest.mark.parametrize("value", ["0", "1", "2"])
def test_reverse_path_filters_do_not_matter(pyrun: Pyrun, internet: SimpleNamespace, value: str) -> None:
    """rp_filter is left as it is."""
    with setting("net/ipv4/conf/all/rp_filter", value), setting("net/ipv4/conf/default/rp_filter", value):
        start(pyrun, "web", "bridge", "-p", "8080:80", words=SERVE)
        start(pyrun, "box", "bridge")
        for place, address in (
            (NEIGHBOUR, f"{internet.host}:8080"), ("", "127.0.0.1:8080"), ("box", f"{internet.host}:8080"),
            ("web", f"{internet.host}:8080"), ("box", address_of("web")),
        ):  # fmt: skip
            assert page(place, address) == "a secret", (place, address)
        assert page("box", internet.far) == f"you are {internet.host}"
        assert Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text().strip() == value


DEFAULT_ROUTE = ("ip", "-6", "route", "show", "default", "dev", "eth0")
DAMAGE = (
    "flush chain inet pyrun forward",
    "flush table inet pyrun",
    "delete table inet pyrun",
    "flush table bridge pyrun",
    "delete table bridge pyrun",
    "flush ruleset",
)


@pytest.mark.alone
@pytest.mark.parametrize("damage", DAMAGE)
def test_flushed_rules_come_back(pyrun: Pyrun, internet: SimpleNamespace, damage: str) -> None:
    start(pyrun, "web", "bridge", "-p", "8080:80", words=SERVE)
    before = run("nft", "--stateless", "list", "table", "inet", "pyrun")
    bridged = run("nft", "--stateless", "list", "table", "bridge", "pyrun")
    run("nft", *damage.split())
    pyrun("network", "reload")
    assert run("nft", "--stateless", "list", "table", "inet", "pyrun") == before
    assert run("nft", "--stateless", "list", "table", "bridge", "pyrun") == bridged
    assert page(NEIGHBOUR, f"{internet.host}:8080") == "a secret"


def test_routes_of_an_uplink_that_takes_advertisements(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """IPv6 forwarding makes the host ignore router advertisements, unless the link says accept_ra=2."""
    with setting("net/ipv6/conf/eth0/accept_ra", "1"), setting("net/ipv6/conf/eth0/forwarding", "0"):
        advertise(internet)
        assert "default via" in run(*DEFAULT_ROUTE)
        pyrun.ok("network", "create", "--ipv6", "six")
        assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == "1\n"
        assert Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").read_text() == "2\n"
        assert "default via" in run(*DEFAULT_ROUTE)
        pyrun.ok("network", "rm", "six")
        pyrun.ok("network", "prune")
        assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == "0\n"
        assert Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").read_text() == "1\n"
    run("ip", "-6", "route", "flush", "dev", "eth0", "proto", "ra")
    # the prefix, of which the kernel made a route
    run("ip", "-6", "route", "delete", "2001:db8:77::/64", "dev", "eth0")
    run("ip", "-6", "address", "flush", "dev", "eth0", "scope", "global")


def advertise(internet: SimpleNamespace) -> None:
    """A router advertisement from the internet: a default route and a prefix."""
    program = """
import socket, struct
sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)
sock.setsockopt(41, socket.IPV6_MULTICAST_HOPS, 255)
sock.setsockopt(41, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("lan0"))
prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + socket.inet_pton(socket.AF_INET6, "2001:db8:77::")
sock.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix, ("ff02::1", 0))
"""
    deadline = time.monotonic() + 10
    while "default via" not in run(*DEFAULT_ROUTE) and time.monotonic() < deadline:
        internet.at("internet", sys.executable, "-c", program, check=False)
        time.sleep(0.2)
