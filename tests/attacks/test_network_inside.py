"""A container whose first process holds CAP_NET_ADMIN: its network namespace is its own, and nobody else's.

It takes the addresses of others, changes its MAC, makes a bridge of its own, becomes a router, floods. Meanwhile the
victim's page is there for the host and for its neighbour, which reaches the internet, and nothing of the host changes.
What harms somebody without pyrun's rules says so: the control.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

import leftovers
from yard import GET, SERVE, Member, Yard, meet, run, shared

CHECKED = "what comes out of a container"


class Place(NamedTuple):
    """The network and who is on it."""

    yard: Yard
    evil: Member
    victim: Member
    third: Member


@pytest.fixture
def place(static_binary: Path, prepared_store: Path, frames_program: Path, tmp_path: Path) -> Iterator[Place]:
    with shared(static_binary, prepared_store, tmp_path) as pyrun:
        yard = Yard(pyrun, frames_program)
        evil = yard.start("evil", options=("--cap-add=NET_ADMIN", "--sysctl=net.ipv4.ip_forward=1"))
        yield Place(yard, evil, yard.start("victim", *SERVE), yard.start("third"))


# What it does; whether that harms others where nobody looks at what comes out of a container.
DEEDS = {
    "the victim's address": (
        "ip addr add {victim.address}/24 dev eth0; arping -U -c 2 -w 2 -I eth0 {victim.address} >/dev/null || true",
        True,
    ),
    "the gateway's address": (
        "ip addr add {yard.gateway}/24 dev eth0; arping -U -c 2 -w 2 -I eth0 {yard.gateway} >/dev/null || true",
        True,
    ),
    "the gateway's MAC": (
        "ip link set eth0 down; ip link set eth0 address {yard.mac}; ip link set eth0 up;"
        " ping -c 3 -W 1 {third.address} >/dev/null || true",
        False,
    ),
    "the victim's MAC": (
        "ip link set eth0 down; ip link set eth0 address {victim.mac}; ip link set eth0 up;"
        " ping -c 2 -W 1 {third.address} >/dev/null & sleep 1",
        True,
    ),
    "a bridge with a spanning tree": (
        "ip link add br0 type bridge; ip link set br0 up; ip link set eth0 master br0;"
        " echo 1 >/sys/class/net/br0/bridge/stp_state 2>/dev/null; ip link show br0 >/dev/null",
        False,
    ),
    "a tunnel, rules and routes of its own": (
        "ip link add dummy9 type dummy 2>/dev/null; ip rule add prio 7 lookup main;"
        " ip route add blackhole 203.0.113.0/24; ip link set lo down; ip link set eth0 mtu 900 promisc on",
        False,
    ),
    "another name for its interface, none at the end": (
        "ip link set eth0 down; ip link set eth0 name pyrun0; ip link set pyrun0 up; ip link delete pyrun0",
        False,
    ),
}  # fmt: skip


def harm(place: Place, internet: SimpleNamespace) -> list[str]:
    """What the others notice: nothing, if all is well."""
    meets = {
        "the host does not get the victim's page": [sys.executable, "-c", GET, place.victim.address],
        "its neighbour does not": [*_exec(place), "wget", "-q", "-O-", f"http://{place.victim.address}/"],
        "its neighbour does not reach the internet": [*_exec(place), "wget", "-q", "-O-", f"http://{internet.far}/"],
    }  # fmt: skip
    expected = ("a secret", "a secret", f"you are {internet.host}")
    found = []
    for (what, words), wanted in zip(meets.items(), expected, strict=True):
        done = subprocess.run(words, capture_output=True, text=True, env=place.yard.pyrun.env, check=False)
        if done.stdout.strip() != wanted:
            found.append(f"{what}: {done.stdout}{done.stderr[-200:]}")
    return found


def _exec(place: Place) -> list[str]:
    return [str(place.yard.pyrun.binary), "exec", "third", "timeout", "1"]


def unchecked(place: Place, internet: SimpleNamespace, words: tuple[str, ...]) -> list[str]:
    """The harm without the rules that check the sender; the guard may have healed them before it is done."""
    place.yard.take_out(CHECKED)
    for address in (place.victim.address, place.yard.gateway):
        place.yard.pyrun("exec", "evil", "ip", "addr", "del", f"{address}/24", "dev", "eth0")
    place.yard.pyrun.ok(*words)
    return harm(place, internet)


@pytest.mark.parametrize("name", DEEDS)
def test_what_it_does_is_its_own_affair(place: Place, internet: SimpleNamespace, name: str) -> None:
    script, harmful = DEEDS[name]
    words = ("exec", "evil", "sh", "-c", script.format(**place._asdict()))
    meet(place.yard, place.victim.address, place.yard.gateway)
    if harmful:
        before = place.yard.pyrun.ok("exec", "evil", "ip", "addr")
    host = leftovers.picture()
    place.yard.pyrun.ok(*words)
    assert harm(place, internet) == []
    different = leftovers.difference(host, leftovers.picture())
    assert [line for line in different if place.evil.link not in line] == []
    if harmful:
        assert place.yard.pyrun.ok("exec", "evil", "ip", "addr") != before
        assert any(unchecked(place, internet, words) for _ in range(3))


def test_a_flood_keeps_nobody_from_anything(place: Place, internet: SimpleNamespace) -> None:
    """Three seconds of forged broadcasts as fast as one process can: they end at its own cable."""
    words = ("exec", "-i", "evil", "/frames", "flood", "eth0", "3")
    sent: list[str] = []
    flood = threading.Thread(target=lambda: sent.append(place.yard.pyrun.ok(*words, input="ff" * 60)))
    flood.start()
    try:
        for _ in range(3):
            assert harm(place, internet) == []
        shown = run("ping", "-c20", "-i0.02", "-W1", place.victim.address)
    finally:
        flood.join()
    assert " 0% packet loss" in shown and int(sent[0]) > 1000, (sent, shown)
    assert float(shown.rpartition("=")[2].split("/")[1]) < 100, shown
