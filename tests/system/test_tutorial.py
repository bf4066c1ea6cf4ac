"""The network, step by step, as a tutorial makes it by hand: its own commands find each step done by pyrun.

The way is the one of countless introductions to Docker's network: a named network namespace, a veth pair, an address
inside, a bridge with the other end in it, masquerading, forwarding, a default route. First every step is looked for
under a container on the bridge. Then the steps are done by hand for a container with --net=none, to show that the
two are the same thing. brctl, ifconfig and route are those of the host's busybox.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import Pyrun

pytestmark = pytest.mark.alone

NAME = "netns666"


def shell(line: str, status: int = 0) -> str:
    """A line of the tutorial, typed on the host."""
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{line}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def container(pyrun: Pyrun) -> SimpleNamespace:
    """A container on the bridge: pid, address, gateway, subnet, host_end (its veth on the host)."""
    ident = pyrun.ok("run", "-d", "--name", NAME, "--net=bridge", "busybox", "sleep", "1000")
    rows = map(json.loads, pyrun.ok("network", "ls", "--format", "json").splitlines())
    network = next(row for row in rows if row["Name"] == "bridge")
    return SimpleNamespace(
        pyrun=pyrun, pid=int(str(pyrun.state(NAME)["pid"])), address=network["Containers"][NAME],
        gateway=network["Gateway"], subnet=network["Subnet"], host_end=f"pyv{ident[:12]}",
    )  # fmt: skip


def inside(container: SimpleNamespace, line: str) -> str:
    """A line typed in the container."""
    return str(container.pyrun.ok("exec", NAME, "sh", "-c", line))


# ── every step is found ────────────────────────────────────────────────────────────────────────────


def test_a_named_namespace_with_the_container_in_it(container: SimpleNamespace) -> None:
    assert NAME in shell("ip netns ls").split()
    assert shell(f"ip netns pids {NAME}").split() == [str(container.pid)]
    assert Path(f"/var/run/netns/{NAME}").stat().st_ino == Path(f"/proc/{container.pid}/ns/net").stat().st_ino


def test_one_end_of_a_veth_pair_inside_as_eth0(container: SimpleNamespace) -> None:
    links = shell(f"ip netns exec {NAME} ip link")
    peer = int(re.search(r"eth0@if(\d+): <[^>]*\bUP,LOWER_UP>", links)[1])  # type: ignore[index]
    assert shell(f"ip -o link show {container.host_end}").startswith(f"{peer}: {container.host_end}@if")
    assert NAME in shell(f"ip link show {container.host_end}").rpartition("alias")[2], "the alias is the name"
    assert "1: lo: <LOOPBACK,UP,LOWER_UP>" in links


def test_its_address(container: SimpleNamespace) -> None:
    prefix = container.subnet.partition("/")[2]
    assert f"inet {container.address}/{prefix} brd" in shell(f"ip netns exec {NAME} ip addr show eth0")
    assert f"inet addr:{container.address}  Bcast:" in inside(container, "ifconfig eth0")
    assert "1 packets received" in inside(container, f"ping -c1 -W2 {container.address}")


def test_the_other_end_is_in_the_bridge(container: SimpleNamespace) -> None:
    assert f"{container.host_end}@" in shell("bridge link show")
    assert "master pyrun0 state forwarding" in shell(f"bridge link show dev {container.host_end}")
    # what `brctl show` prints (busybox's cannot)
    assert shell("ls /sys/class/net/pyrun0/brif").split() == [container.host_end]
    assert f"inet addr:{container.gateway}  Bcast:" in shell("busybox ifconfig pyrun0")


def test_ping_both_ways(container: SimpleNamespace) -> None:
    assert "1 received" in shell(f"ping -c1 -W2 {container.address}")
    assert "1 packets received" in inside(container, f"ping -c1 -W2 {container.gateway}")


def test_the_masquerade_rule(container: SimpleNamespace, internet: SimpleNamespace) -> None:
    """`iptables -t nat -A POSTROUTING -s SUBNET -o UPLINK -j MASQUERADE`, here for a set of subnets."""
    rules = shell("nft list chain inet pyrun postrouting")
    assert "ip saddr @subnets oifname != @bridges masquerade" in rules
    assert container.subnet in shell("nft list set inet pyrun subnets")
    assert inside(container, f"wget -qO- http://{internet.gateway}/") == f"you are {internet.host}"


def test_forwarding_is_on(container: SimpleNamespace) -> None:
    assert shell("sysctl net.ipv4.ip_forward") == "net.ipv4.ip_forward = 1\n"


def test_the_three_forward_rules(container: SimpleNamespace, internet: SimpleNamespace) -> None:
    """From the bridge to itself, from it to elsewhere, and from elsewhere to it: the last for answers alone."""
    rules = shell("nft list table inet pyrun")
    assert 'elements = { "pyrun0" . "pyrun0" : accept }' in rules
    assert "iifname . oifname vmap @inside" in rules
    assert "ct state established,related accept" in rules
    assert 'elements = { "pyrun0" : drop }' in rules
    other = ("run", "--rm", "busybox", "ping", "-c1", "-W2", container.address)
    assert "1 packets received" in container.pyrun.ok(*other)
    assert "1 packets received" in inside(container, f"ping -c1 -W2 {internet.far}")
    internet.at("neighbour", "ip", "route", "add", container.subnet, "via", internet.host)
    try:
        lost = internet.at("neighbour", "ping", "-c1", "-W1", container.address, check=False)
    finally:
        internet.at("neighbour", "ip", "route", "delete", container.subnet)
    assert "0 received" in lost, "what nobody asked for came in"


def test_the_default_route(container: SimpleNamespace) -> None:
    assert shell(f"ip netns exec {NAME} ip route").startswith(f"default via {container.gateway} dev eth0")
    assert ["0.0.0.0", container.gateway, "0.0.0.0", "UG"] in [
        line.split()[:4] for line in shell(f"ip netns exec {NAME} busybox route -n").splitlines()
    ]
    # The tutorial notes that the container itself may not do this, and why it takes `ip netns exec`.
    refused = container.pyrun("exec", NAME, "route", "add", "default", "gw", container.gateway)
    assert (refused.returncode, "Operation not permitted" in refused.stderr) == (1, True), refused.stderr


def test_the_internet_by_name(container: SimpleNamespace, internet: SimpleNamespace) -> None:
    assert "1 packets received" in inside(container, f"ping -c1 -W2 {internet.name}")


# ── every step by hand ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def by_hand(pyrun: Pyrun) -> Iterator[Pyrun]:
    """A container with --net=none, and afterwards what the tutorial leaves on the host taken away."""
    pyrun.ok("run", "-d", "--name", NAME, "--net=none", "busybox", "sleep", "1000")
    yield pyrun
    undo = """ip link delete br666; iptables -t nat -F; iptables -F; nft delete table ip nat; nft delete table ip filter
              sysctl -q -w net.ipv4.ip_forward=0"""
    subprocess.run(["sh", "-c", undo], capture_output=True, check=False)


def test_the_tutorial_by_hand(by_hand: Pyrun, internet: SimpleNamespace) -> None:
    """Its commands one after the other, with pyrun where it says docker."""
    links = shell(f"ip netns exec {NAME} ip -o link")
    assert [line.split()[1] for line in links.splitlines()] == ["lo:"], "--net=none has the loopback alone"
    for step in (
        "ip link add name veth_d366 type veth peer name veth_d366_peer",
        f"ip link set veth_d366_peer netns {NAME}",
        f"ip netns exec {NAME} ip link set veth_d366_peer name eth0",
        f"ip netns exec {NAME} busybox ifconfig eth0 10.0.0.2 netmask 255.255.255.0",
    ):
        shell(step)
    assert "100% packet loss" in shell("ping -c1 -W1 10.0.0.2", status=1)
    assert "1 packets received" in by_hand.ok("exec", NAME, "ping", "-c1", "10.0.0.2")
    for step in (
        "busybox brctl addbr br666",
        "busybox brctl addif br666 veth_d366",
        "busybox ifconfig br666 10.0.0.1 netmask 255.255.255.0",
        "ip link set veth_d366 up",
    ):
        shell(step)
    assert "received" in shell("ping -c2 -W2 10.0.0.2")
    assert "1 packets received" in by_hand.ok("exec", NAME, "ping", "-c1", "-W2", "10.0.0.1")
    for step in (
        f"iptables -t nat -A POSTROUTING -s 10.0.0.0/24 -o {internet.uplink} -j MASQUERADE",
        "sysctl -w net.ipv4.ip_forward=1",
        "iptables -A FORWARD -i br666 -o br666 -j ACCEPT",
        "iptables -A FORWARD -i br666 ! -o br666 -j ACCEPT",
        "iptables -A FORWARD ! -i br666 -o br666 -j ACCEPT",
        f"ip netns exec {NAME} busybox route add default gw 10.0.0.1",
    ):
        shell(step)
    assert "1 packets received" in by_hand.ok("exec", NAME, "ping", "-c1", "-W2", internet.far)
    seen = by_hand.ok("exec", NAME, "wget", "-qO-", f"http://{internet.far}/")
    assert seen == f"you are {internet.host}"
