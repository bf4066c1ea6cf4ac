"""A container speaks under the addresses of others: ARP and ND, MAC and IP sources, router advertisements, DHCP.

Each attack is made twice: with pyrun's rules, where it must not work, and without the one that stops it, where it must.
What happens then is seen by those who are lied to. Rules: network/firewall/bridged.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import frames
import ruleset
from waiting import soon
from yard import Member, Yard, meet, run, shared

LOOKED_S = 0.5  # an attack that does not work is waited for as well
MARK = b"-of-an-attacker-"  # in what would be too short to be found
PREFIX = "2001:db8:bad::"


class Place(NamedTuple):
    """The yard and who is on it."""

    yard: Yard
    evil: Member
    victim: Member
    third: Member


Worked = Callable[[Place, frames.Sniffer, list[bytes]], object]


class Attack(NamedTuple):
    """frames: what evil sends; worked: what shows that it worked, asked afterwards with what came out of the victim's
    cable and with what was sent; rules: those without which it does."""

    frames: Callable[[Place], list[bytes]]
    worked: Worked
    rules: tuple[str, ...]


# ── what shows that it worked ──────────────────────────────────────────────────────────────────────


def arrives(place: Place, seen: frames.Sniffer, sent: list[bytes]) -> object:
    return any(seen.has(tail(frame)) for frame in sent)


def tail(frame: bytes) -> bytes:
    """The end of a frame, by which it is known behind a bridge that takes away tags and padding."""
    return frame.rstrip(b"\0")[-16:]


def host_is_fooled(place: Place, *_: object) -> object:
    return soon(lambda: place.yard.known_to_host(place.victim.address) == place.evil.mac, LOOKED_S)


def host_is_fooled6(place: Place, *_: object) -> object:
    return soon(lambda: place.yard.known_to_host(place.victim.address6) == place.evil.mac, LOOKED_S)


def third_is_fooled(place: Place, *_: object) -> object:
    return soon(lambda: place.yard.known_to("third", place.yard.gateway) == place.evil.mac, LOOKED_S)


def bridge_is_fooled(place: Place, *_: object) -> object:
    return soon(lambda: place.yard.learned(place.victim.mac) == place.evil.link, LOOKED_S)


# ── what is sent ───────────────────────────────────────────────────────────────────────────────────


def of(place: Place, kind: int, payload: bytes, to: str = frames.EVERYBODY) -> bytes:
    return frames.ethernet(place.evil.mac, to, kind, payload)


def announces(address: str, place: Place) -> list[bytes]:
    """Gratuitous ARP, asking and answering: *address* is here."""
    here = (place.evil.mac, address)
    asks, answers = (frames.arp(number, here, (frames.EVERYBODY, address)) for number in (1, 2))
    return [of(place, frames.ARP, asks), of(place, frames.ARP, answers)]


def arp_under_a_foreign_mac(place: Place) -> list[bytes]:
    told = frames.arp(1, (place.victim.mac, place.evil.address), (frames.EVERYBODY, place.third.address))
    return [of(place, frames.ARP, told + MARK)]


def arp_of_another_make(place: Place) -> list[bytes]:
    """As many bytes as ever, but said to be of another kind."""
    told = frames.arp(2, (place.evil.mac, place.evil.address), (frames.EVERYBODY, place.victim.address))
    return [of(place, frames.ARP, b"\0\6" + told[2:] + MARK)]


def frame_of_the_victim(place: Place) -> list[bytes]:
    packet = frames.udp((place.evil.address, 9), (place.yard.gateway, 9), MARK)
    return [frames.ethernet(place.victim.mac, place.yard.mac, frames.IPV4, packet)]


def datagram_of_third(place: Place) -> list[bytes]:
    packet = frames.udp((place.third.address, 9), (place.victim.address, 9), MARK)
    return [of(place, frames.IPV4, packet, place.victim.mac)]


def datagram6_of_third(place: Place) -> list[bytes]:
    packet = frames.udp((place.third.address6, 9), (place.victim.address6, 9), MARK)
    return [of(place, frames.IPV6, packet, place.victim.mac)]


def answers_for_the_victim(place: Place) -> list[bytes]:
    told = frames.advertisement(
        place.evil.address6, place.yard.gateway6, place.victim.address6, place.evil.mac
    )
    return [of(place, frames.IPV6, told, place.yard.mac)]


def asks_as_the_victim(place: Place) -> list[bytes]:
    told = frames.solicitation(
        place.victim.address6, place.yard.gateway6, place.yard.gateway6, place.evil.mac
    )
    return [of(place, frames.IPV6, told, place.yard.mac)]


def asks_as_the_victim_on_the_link(place: Place) -> list[bytes]:
    source = frames.link_local(place.victim.mac)
    told = frames.solicitation(source, place.yard.gateway6, place.yard.gateway6, place.evil.mac)
    return [of(place, frames.IPV6, told, place.yard.mac)]


def advertises_a_router(place: Place) -> list[bytes]:
    source = frames.link_local(place.evil.mac)
    return [of(place, frames.IPV6, frames.router_advertisement(source, PREFIX, place.evil.mac))]


def advertises_a_router_in_pieces(place: Place) -> list[bytes]:
    """The first piece has nothing but options: whoever looks only there sees no ICMPv6 (RFC 7113)."""
    packet = frames.router_advertisement(frames.link_local(place.evil.mac), PREFIX, place.evil.mac)
    return [of(place, frames.IPV6, piece) for piece in frames.fragments(packet, 1)]


def echo_on_the_link(place: Place) -> list[bytes]:
    """Under an address that is in no policy, with something to tell."""
    source, target = (frames.link_local(each.mac) for each in (place.evil, place.victim))
    told = frames.icmpv6(source, target, 128, bytes(4) + MARK)
    return [of(place, frames.IPV6, told, place.victim.mac)]


def sends_elsewhere(place: Place) -> list[bytes]:
    told = frames.redirect(
        place.evil.address6, place.victim.address6, place.evil.address6, place.yard.gateway6
    )
    return [of(place, frames.IPV6, told)]


def hands_out_addresses(place: Place) -> list[bytes]:
    packet = frames.udp((place.evil.address, 67), ("255.255.255.255", 68), MARK)
    return [of(place, frames.IPV4, packet)]


def hands_out_addresses6(place: Place) -> list[bytes]:
    return [of(place, frames.IPV6, frames.udp((place.evil.address6, 547), (frames.ALL_NODES, 546), MARK))]


def is_a_switch(place: Place) -> list[bytes]:
    return [frames.bpdu(place.evil.mac)]


def hides_in_a_vlan(place: Place) -> list[bytes]:
    return [frames.tagged(frame, 0) for frame in announces(place.victim.address, place)]


def speaks_another_protocol(place: Place) -> list[bytes]:
    return [of(place, 0x88B5, MARK)]


OTHERS = "no VLAN tags and no other protocols, which nothing here could check"
NO_ROUTER = "a container is no router: it advertises nothing"
NO_SWITCH = "no spanning tree, no pause frames: a container is no switch"
OWN_MAC = "under its own MAC alone"
OF_THE_LINK = "its address of the link is for looking for neighbours"
NEIGHBOURS = "and nothing else, which would be past every egress policy"
OWN6 = "under its own addresses alone"
OWN_ARP = "an ARP sender tells its own address"

ATTACKS = {
    "ARP: the victim is here": Attack(lambda place: announces(place.victim.address, place), host_is_fooled, (OWN_ARP,)),
    "ARP: the gateway is here": Attack(lambda place: announces(place.yard.gateway, place), third_is_fooled, (OWN_ARP,)),
    "ARP: told under another MAC": Attack(arp_under_a_foreign_mac, arrives, ("an ARP sender tells its own MAC",)),
    "ARP: of another make": Attack(
        arp_of_another_make, arrives, ("ARP between Ethernet and IPv4: the fields lie where the next rules look",)),
    "Ethernet: under the victim's MAC": Attack(frame_of_the_victim, bridge_is_fooled, (OWN_MAC,)),
    "Ethernet: in a VLAN": Attack(hides_in_a_vlan, arrives, (OTHERS,)),
    "Ethernet: another protocol": Attack(speaks_another_protocol, arrives, (OTHERS,)),
    "Ethernet: root of the spanning tree": Attack(is_a_switch, arrives, (NO_SWITCH, OTHERS)),
    "IPv4: under somebody else's address": Attack(datagram_of_third, arrives, ("under its own address alone",)),
    "IPv4: a DHCP server": Attack(hands_out_addresses, arrives, ("a container is no DHCP server",)),
    "IPv6: under somebody else's address": Attack(datagram6_of_third, arrives, (OWN6,)),
    "IPv6: a DHCPv6 server": Attack(hands_out_addresses6, arrives, ("a container is no DHCPv6 server",)),
    "ND: the victim is here": Attack(
        answers_for_the_victim, host_is_fooled6, ("it answers for its own addresses alone",)),
    "ND: the victim asks from here": Attack(asks_as_the_victim, host_is_fooled6, (OWN6,)),
    "ND: a router": Attack(advertises_a_router, arrives, (NO_ROUTER, OWN6, NEIGHBOURS)),
    "ND: a router, in pieces": Attack(advertises_a_router_in_pieces, arrives, (OWN6, OF_THE_LINK, NEIGHBOURS)),
    "ICMPv6: an echo past an egress policy": Attack(echo_on_the_link, arrives, (NEIGHBOURS,)),
    "ND: a better way": Attack(sends_elsewhere, arrives, ("nor does it send anybody elsewhere",)),
}  # fmt: skip


# ── the tests ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def standing(static_binary: Path, prepared_store: Path, frames_program: Path,
             tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:  # fmt: skip
    """One yard for all tests here: each puts the rules back that it took out."""
    with shared(static_binary, prepared_store, tmp_path_factory.mktemp("spoofing")) as pyrun:
        yard = Yard(pyrun, frames_program)
        yield Place(yard, yard.start("evil"), yard.start("victim"), yard.start("third"))


@pytest.fixture
def place(standing: Place) -> Iterator[Place]:
    whole = ruleset.whole()
    yield standing
    if ruleset.whole() != whole:
        standing.yard.forget()
        ruleset.delete()
        standing.yard.pyrun.ok("network", "reload")
        assert ruleset.whole() == whole


def attempt(place: Place, attack: Attack) -> object:
    """Make the attack on people who know each other; returns what shows that it worked."""
    meet(place.yard, place.victim.address, place.victim.address6, place.yard.gateway)
    with frames.Sniffer(place.victim.link) as seen:
        sent = attack.frames(place)
        place.yard.send(*sent)
        return attack.worked(place, seen, sent)


def on_the_link(place: Place, *_: object) -> object:
    address = frames.link_local(place.victim.mac)
    return soon(lambda: place.yard.known_to_host(address) == place.evil.mac, LOOKED_S)


def test_the_victims_address_of_the_link(place: Place) -> None:
    """What an interface gives itself is as much its own as what it was given, and can be talked to."""
    attack = Attack(asks_as_the_victim_on_the_link, on_the_link, ())
    assert not attempt(place, attack)
    run("ping", "-6", "-c1", "-W2", f"{frames.link_local(place.victim.mac)}%{place.yard.bridge}")


@pytest.mark.parametrize("name", ATTACKS)
def test_under_the_addresses_of_others(place: Place, name: str) -> None:
    attack = ATTACKS[name]
    assert not attempt(place, attack)
    place.yard.take_out(*attack.rules)
    assert attempt(place, attack), "the attack does not work without the rule either"


def test_what_is_its_own_passes(place: Place) -> None:
    """The control: all of the same kinds, told as they are."""
    evil, victim = place.evil, place.victim
    own = (evil.mac, evil.address)
    sent = [
        of(place, frames.ARP, frames.arp(1, own, (frames.EVERYBODY, evil.address))),
        of(place, frames.IPV4, frames.udp((evil.address, 9), (victim.address, 9), MARK), victim.mac),
        of(place, frames.IPV6, frames.udp((evil.address6, 9), (victim.address6, 9), MARK), victim.mac),
        of(place, frames.IPV6,
           frames.advertisement(evil.address6, victim.address6, evil.address6, evil.mac), victim.mac),
    ]  # fmt: skip
    with frames.Sniffer(victim.link) as seen:
        place.yard.send(*sent)
        missing = [frame for frame in sent if not seen.has(tail(frame))]
    assert not missing


def test_a_router_nobody_believes(place: Place) -> None:
    """CVE-2020-13401, CVE-2020-10749: should an advertisement come through, this host does not listen to it."""

    def believed() -> bool:
        place.yard.send(*advertises_a_router(place))
        return bool(soon(lambda: PREFIX in run("ip", "-6", "route"), LOOKED_S))

    place.yard.take_out(NO_ROUTER, OWN6, NEIGHBOURS)
    setting = Path(f"/proc/sys/net/ipv6/conf/{place.yard.bridge}/accept_ra")
    assert setting.read_text() == "0\n" and not believed()
    inside = place.yard.pyrun.ok("exec", "third", "ip", "-6", "route")
    setting.write_text("2")
    assert believed(), "the advertisement itself is at fault"
    assert "default via fe80" not in inside and PREFIX not in inside, inside
    run("ip", "-6", "route", "flush", "dev", place.yard.bridge, "proto", "ra")
    setting.write_text("0")


def test_a_flood_of_macs(place: Place) -> None:
    """The bridge learns nothing from it, and the victim is reached all the while."""

    def learned() -> int:
        words = ("exec", "-i", "evil", "/frames", "flood", "eth0", "2")
        sent = int(place.yard.pyrun.ok(*words, input=announces(place.evil.address, place)[0].hex()))
        assert sent > 1000, sent
        return len(run("bridge", "fdb", "show", "br", place.yard.bridge).splitlines())

    assert learned() < 50
    meet(place.yard, place.victim.address)
    place.yard.take_out(OWN_MAC)
    assert learned() > 500
