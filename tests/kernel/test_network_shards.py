"""More containers than a bridge has ports: at the kernel's own limit, since filling a bridge takes a second."""

from __future__ import annotations

import os
import socket
import subprocess
from itertools import permutations
from pathlib import Path

import pytest

from pyrun.engine import network as engine
from pyrun.engine import network_inspect
from pyrun.network import rebuilding
from pyrun.network.egress import policy
from small_host import (
    HOST,
    INTERNET,
    Container,
    Host,
    Namespace,
    connect,
    listening,
    on_host,
    picture,
    reach,
    shell,
)

MOST_PORTS = 1023  # of a bridge: BR_MAX_PORTS of the kernel
GROUP = 77


@on_host
def test_a_full_bridge_gets_another_one_beside_it(host: Host) -> None:
    before = picture()
    bridge = host.create("front", "10.1.0.0/21", "fd00:1::/64").bridge
    fill(bridge, MOST_PORTS - 1)
    ports = [("", 8080, 80, "tcp")]
    containers = [host.start(f"c{number}", "front", ports=[] if number else ports) for number in range(4)]
    assert masters(containers) == [f"{bridge}-1"] * 4, "the first made room for what joins both bridges"
    assert shell(f"ls /sys/class/net/{bridge}/brif").count("\n") == MOST_PORTS
    assert network_inspect.inspect("front")["Pyrun"]["Bridges"] == [bridge, f"{bridge}-1"]
    assert_all_talk(containers)
    assert_connections(host, containers[0], containers[3])

    # a bridge deleted under them is put together again
    shell(f"ip link del {bridge}")
    told = (
        engine.reload()[0] or network_inspect.inspect("front")["Pyrun"]["Healed"]
    )  # or the guard was quicker
    assert f"network front: bridge {bridge}" in told[-1]
    assert_all_talk(containers)
    shell(f"ip link del {bridge}-1")
    engine.reload()  # unless the guard was quicker
    assert f"{bridge}-1" in shell("ip -br link"), "a further bridge is missed too"
    assert_all_talk(containers)
    shell(f"ip link del {bridge}-1")
    fifth = host.start("fifth", "front")
    assert_all_talk(containers)
    assert_all_talk([fifth, containers[0]])

    for container in [*containers, fifth]:
        container.stop()
    shell(f"ip link del group {GROUP}")
    engine.prune()
    for key, value in before.items():
        assert picture()[key] == value, key
    assert not list(Path("/run/pyrun").glob("networks/front*"))
    assert os.listdir("/run/store/networks") == []


@on_host
def test_icc_false_holds_on_all_bridges(host: Host) -> None:
    """What is for the host or from it crosses the bridges, what is for neighbours does not."""
    bridge = host.create("front", "10.1.0.0/21", "fd00:1::/64", icc=False).bridge
    first = host.start("first", "front")
    fill(bridge, MOST_PORTS - 2)
    containers = [host.start(f"c{number}", "front") for number in range(2)]
    assert masters([first, *containers]) in (
        [bridge, f"{bridge}-1", f"{bridge}-1"],
        [f"{bridge}-1", bridge, f"{bridge}-1"],
        [f"{bridge}-1"] * 3,
    )
    for one in (first, *containers):
        one.run(
            shell, f"ping -c1 -w3 -i0.2 10.1.0.1; ping -c1 -w3 -i0.2 fd00:1::1; ping -c1 -w3 -i0.2 {INTERNET}"
        )
        shell(f"ping -c1 -w3 -i0.2 {one.address}; ping -c1 -w3 -i0.2 {one.address6}")
    for one, other in permutations((first, *containers), 2):
        for address in (other.address, other.address6):
            with pytest.raises(AssertionError):
                one.run(shell, f"ping -c2 -i0.05 -W0.1 {address}")


@on_host
def test_a_policy_on_a_further_bridge(host: Host) -> None:
    """A link that makes room for the joint: the rules see its frames, though the host shows them none of other bridges,
    and it may ask the resolver."""
    for switch in ("iptables", "ip6tables"):
        Path(f"/proc/sys/net/bridge/bridge-nf-call-{switch}").write_text("0")
    bridge = host.create("front", "10.1.0.0/21").bridge
    first = host.start("first", "front")
    asked = policy.Policy("none")
    asked.addresses = [first.address]
    policy.save(first.identifier, asked)
    Path("/run/pyrun/containers", first.identifier).mkdir(parents=True)
    fill(bridge, MOST_PORTS - 1)
    host.start("second", "front")
    assert masters([first]) == [f"{bridge}-1"]
    for switch in ("iptables", "ip6tables"):
        assert Path(f"/sys/class/net/{bridge}-1/bridge/nf_call_{switch}").read_text() == "1\n"
    rebuilding.rebuild()
    with pytest.raises(ConnectionRefusedError):
        first.run(connect, INTERNET, 80)
    with first.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        sock.connect(("10.1.0.1", 53))
        sock.send(b"\1\2" + b"\1\0" + b"\0\1" + bytes(6) + b"\6second\0" + b"\0\1\0\1")
        assert sock.recv(512)[:2] == b"\1\2"


@on_host
def test_cut_off_from_neighbours_on_all_bridges(host: Host) -> None:
    """Where the kernel shows the rules no bridged frames: as with icc=false, for one container alone."""
    bridge = host.create("front", "10.1.0.0/21", "fd00:1::/64").bridge
    first = host.start("first", "front")
    fill(bridge, MOST_PORTS - 2)
    far = [host.start(f"c{number}", "front") for number in range(2)]
    apart = {first: far[-1], far[-1]: first}
    assert len(set(masters([first, far[-1]]))) == 2, "one on either bridge"
    for mute, other in apart.items():
        shell(f'nft add element bridge pyrun mute {{ "{mute.link}" }}')
        for one, gone in ((mute, other), (other, mute)):
            for address in (gone.address, gone.address6):
                with pytest.raises(AssertionError):
                    one.run(shell, f"ping -c2 -i0.05 -W0.1 {address}")
        for one in (first, *far):
            one.run(
                shell,
                f"ping -c1 -w3 -i0.2 10.1.0.1; ping -c1 -w3 -i0.2 fd00:1::1; ping -c1 -w3 -i0.2 {INTERNET}",
            )
            shell(f"ping -c1 -w3 -i0.2 {one.address}; ping -c1 -w3 -i0.2 {one.address6}")
        shell(f'nft delete element bridge pyrun mute {{ "{mute.link}" }}')


def assert_connections(host: Host, web: Container, other: Container) -> None:
    """Out, and in by a published port, from 127.0.0.1 too: frames between the bridges are not tracked twice."""
    with listening(host.internet, 80) as server:
        assert reach(server, web, INTERNET, 80) == HOST
        assert echoed(other, server, INTERNET, 80) == 100_000
    with listening(web, 80) as server:
        for place in (None, host.internet, other, web):
            reach(server, place, HOST, 8080)
        reach(server, None, "127.0.0.1", 8080)
        assert echoed(host.internet, server, HOST, 8080) == 100_000


def echoed(client_in: Namespace, server: socket.socket, address: str, port: int) -> int:
    """How many bytes come back of 100,000 that were sent."""
    client = client_in.run(connect, address, port)
    served, _ = server.accept()
    client.settimeout(2)
    served.settimeout(2)
    client.sendall(bytes(50_000))
    count = 0
    while count < 50_000:
        count += len(served.recv(65536))
    served.sendall(bytes(50_000))
    while count < 100_000:
        count += len(client.recv(65536))
    served.close()
    client.close()
    return count


def fill(bridge: str, ports: int) -> None:
    """Links of others in the bridge. They stay down: both ends of each pair are in it."""
    lines = [
        line
        for number in range(0, ports, 2)
        for line in (
            f"link add fill{number} type veth peer name fill{number + 1}",
            *(
                f"link set fill{end} group {GROUP} master {bridge}"
                for end in (number, number + 1)
                if end < ports
            ),
        )
    ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join([*lines, ""]), text=True, check=True)


def masters(containers: list[Container]) -> list[str]:
    return [os.readlink(f"/sys/class/net/{each.link}/master").rpartition("/")[2] for each in containers]


def assert_all_talk(containers: list[Container]) -> None:
    """Each with each, with the gateway and with the outside, of both families."""
    for one, other in permutations(containers, 2):
        one.run(shell, f"ping -c1 -w3 -i0.2 {other.address}; ping -c1 -w3 -i0.2 {other.address6}")
    for one in containers:
        one.run(
            shell, f"ping -c1 -w3 -i0.2 10.1.0.1; ping -c1 -w3 -i0.2 fd00:1::1; ping -c1 -w3 -i0.2 {INTERNET}"
        )
