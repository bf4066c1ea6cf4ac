"""Tracked flows of both families: a container's own are forgotten when they have to be, and nobody else's ever.

The kernel's filter for IPv6 addresses means the others (csrc/flows.c): so every test has bystanders.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import capabilities
from command import Pyrun
from places import HOST6, INTERNET6, address_of, command, uplink6

TRACKED = Path("/proc/net/nf_conntrack")
HOST, INTERNET = "198.51.100.2", "198.51.100.1"
PAIR = ("one", "other")
# (IP version, address of the lab host, of somebody outside)
FAMILIES = ((4, HOST, INTERNET), (6, HOST6, INTERNET6))

_SEND = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (sys.argv[1], int(sys.argv[2])))
"""


def send(place: str, address: str, port: int) -> None:
    command(place, sys.executable, "-c", _SEND, address, str(port))


def spelled(address: str) -> str:
    """As the kernel's list has it."""
    if ":" not in address:
        return address
    head, _, tail = address.partition("::")
    words = [head.split(":"), tail.split(":") if tail else []]
    zeros = ["0"] * (8 - len(words[0]) - len(words[1]))
    return ":".join(f"{int(word, 16):04x}" for word in [*words[0], *zeros, *words[1]])


def tracked(*words: str) -> int:
    """How many flows there are with all these words."""
    lines = [line.split() for line in TRACKED.read_text().splitlines()]
    return sum(all(word in line for word in words) for line in lines)


@dataclass
class Two:
    """Two containers of both families, each with ports of its own and flows in and out; the host has flows as well."""

    pyrun: Pyrun
    asked: int  # the port outside
    addresses: dict[tuple[str, int], str]

    def flows(self) -> dict[tuple[str, int], tuple[int, int]]:
        """(container, IP version): how many flows it answers, how many it began."""
        port = f"dport={self.asked}"
        for _, here, outside in FAMILIES:
            assert tracked(f"src={spelled(here)}", f"dst={spelled(outside)}", port) == 1, "the host's own"
        return {
            key: (
                sum(tracked(f"src={address}", f"sport={inside}") for inside in (70, 71)),
                tracked(f"src={address}", port),
            )
            for key, address in self.addresses.items()
        }


# What is asked outside: another port in every test, since flows of one that has ended stay for a while.
_asked = itertools.count(9000)


@pytest.fixture
def two(pyrun: Pyrun) -> Iterator[Two]:
    if not TRACKED.exists():
        pytest.skip(capabilities.missing("conntrack_list"))
    with uplink6():
        pyrun.ok("network", "create", "--ipv6", "dual")
        for number, name in enumerate(PAIR):
            ports = ("-p", f"{7000 + number}:70/udp", "-p", f"{7010 + number}:71/udp")
            pyrun.ok("run", "-d", "--name", name, "--net=dual", *ports, "busybox", "sleep", "60")
        keys = [(name, version) for name in PAIR for version in (4, 6)]
        found = Two(pyrun, next(_asked), {key: spelled(address_of(*key)) for key in keys})
        for _, here, outside in FAMILIES:
            for place in ("", *PAIR):
                send(place, outside, found.asked)
            for port in (7000, 7001, 7010, 7011):
                send("", here, port)
        assert found.flows() == dict.fromkeys(keys, (2, 1))
        yield found
        pyrun.ok("rm", "-f", *PAIR)
        pyrun.ok("network", "rm", "dual")


def test_a_policy_cuts_what_its_container_began(two: Two) -> None:
    two.pyrun.ok("network", "policy", "one", "none")
    assert two.flows() == {("one", 4): (2, 0), ("one", 6): (2, 0), ("other", 4): (2, 1), ("other", 6): (2, 1)}
    two.pyrun.ok("network", "policy", "one", "all")
    assert two.flows()["other", 6] == (2, 1)


def test_a_port_that_is_withdrawn(two: Two) -> None:
    two.pyrun.ok("port", "rm", "one", "7000/udp")
    assert two.flows() == {("one", 4): (1, 1), ("one", 6): (1, 1), ("other", 4): (2, 1), ("other", 6): (2, 1)}


def test_the_end_of_a_container(two: Two) -> None:
    """The next owner of its addresses gets nothing that was for it."""
    two.pyrun.ok("rm", "-f", "one")
    after = two.flows()
    assert (after["one", 4][0], after["one", 6][0]) == (0, 0)
    assert (after["other", 4], after["other", 6]) == ((2, 1), (2, 1))


def test_a_container_with_a_port_that_came_and_went(two: Two) -> None:
    """Its end is nobody else's business."""
    before = two.flows()
    for _ in range(3):
        two.pyrun.ok("run", "--rm", "--net=dual", "-p", "7020:70/udp", "busybox", "true")
    assert two.flows() == before
