"""What passes each policy of a network: every kind of packet a container can make, sent by its raw sockets.

    plain-net   plain, victim-plain; policed (--egress none)      inner-net   inner, victim-inner    --internal
    apart-net   apart, victim-apart    --isolate                  quiet-net   quiet, victim-quiet    --icc=false

Each packet has a number, in the flow label of IPv6 or the identification of IPv4, which neither routers nor address
translation change. It has passed where a packet with its number and MARK is seen: on the cable of the victim, on the
uplink, or in the host's hook INPUT behind pyrun's own chain. networking_doc.py writes `table` into docs/networking.md.
Source: RFC 791, 792, 4443, 4861, 8200; IANA's registries of protocol numbers and extension headers.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import frames
import hostile
from command import Pyrun
from places import HOST6, INTERNET6, uplink6

MARK = b"-crossing-"
HOST, INTERNET = "198.51.100.2", "198.51.100.1"
NETWORKS = {"plain": (), "inner": ("--internal",), "apart": ("--isolate",), "quiet": ("--icc=false",)}
COLUMNS = ("ICMPv6 types", "IPv6 protocols", "IPv6 headers, pieces", "ICMP types", "IPv4 protocols",
           "IPv4 options, pieces")  # fmt: skip
_OURS, _BYTES = 4711, 64 << 20  # a port; room for what a sniffer has not read yet
_WATCH = """table inet crossings {
    set six { typeof @nh,0,32; flags dynamic; size 65536; }
    set four { typeof @nh,32,16; flags dynamic; size 65536; }
    chain input { type filter hook input priority 500;
        meta nfproto ipv6 update @six { @nh,0,32 }
        meta nfproto ipv4 update @four { @nh,32,16 }
    }
}"""


class Member(NamedTuple):
    """A container: its addresses, MAC and link; and the MACs and addresses of its gateway."""

    name: str
    address: str
    address6: str
    mac: str
    link: str
    router: str
    gateway: str
    gateway6: str


class Way(NamedTuple):
    """From whom, where to: "world", "host", or a container; and how a line of the table calls it."""

    source: str
    target: str
    told: str


WAYS = (
    Way("plain", "world", "no policy, to the outside"),
    Way("plain", "victim-plain", "no policy, to a neighbour"),
    Way("plain", "host", "no policy, to this host"),
    Way("inner", "world", "`--internal`, to the outside"),
    Way("inner", "victim-plain", "`--internal`, to another network"),
    Way("plain", "victim-inner", "from another network into it"),
    Way("inner", "host", "`--internal`, to this host"),
    Way("apart", "victim-plain", "`--isolate`, to another network"),
    Way("plain", "victim-apart", "from another network into it"),
    Way("quiet", "victim-quiet", "`--icc=false`, to a neighbour"),
    Way("policed", "world", "`--egress none`, to the outside"),
    Way("policed", "victim-inner", "`--egress none`, to another network"),
    Way("policed", "victim-plain", "`--egress none`, to a neighbour"),
    Way("policed", "host", "`--egress none`, to this host"),
)  # fmt: skip

# Column, what a cell of the table calls it, the packet
Packet = tuple[str, int | str, bytes]


class Crossings:
    """The networks and containers; `passed` sends, `table` writes. *program*: of attacks/frames.c."""

    def __init__(self, pyrun: Pyrun, program: Path) -> None:
        self.pyrun = pyrun
        hostile.put_image(
            pyrun, "evil", lambda root: shutil.copy(program, root / "frames"), Env=["PATH=/bin:/sbin"]
        )
        self.members: dict[str, Member] = {}
        for network, options in NETWORKS.items():
            pyrun.ok("network", "create", "--ipv6", *options, f"{network}-net")
            self._start(network, network)
            self._start(f"victim-{network}", network)
        self._start("policed", "plain", "--egress", "none")

    def _start(self, name: str, which: str, *options: str) -> None:
        network = f"{which}-net"
        self.pyrun.ok("run", "-d", "--name", name, "--network", network, *options, "evil", "sleep", "1000")
        found: dict[str, Any] = json.loads(self.pyrun.ok("network", "inspect", network))[0]
        (own,) = (each for each in found["Containers"].values() if each["Name"] == name)
        addresses = [own[f"IPv{version}Address"].partition("/")[0] for version in (4, 6)]
        gateways = [each["Gateway"] for each in found["IPAM"]["Config"]]
        router = Path(f"/sys/class/net/{found['Pyrun']['Bridge']}/address").read_text().strip()
        self.members[name] = Member(
            name, *addresses, own["MacAddress"], own["HostInterface"], router, *gateways
        )
        for address in addresses:  # so that this host knows who is where
            assert subprocess.run(["ping", "-c1", "-W2", address], capture_output=True).returncode == 0, (
                address
            )

    def remove(self) -> None:
        self.pyrun.ok("rm", "-f", *self.members)
        self.pyrun.ok("network", "rm", *[f"{each}-net" for each in NETWORKS])

    def passed(self, way: Way) -> dict[str, tuple[list[int | str], int]]:
        """Column -> what of it has passed, in which way ever it was sent; and how many there were."""
        sent = list(self._packets(way))
        words = [frame.hex() for frame, _, _ in sent]
        with Watch() as watch:
            link = self.members[way.target].link if way.target in self.members else "eth0"
            with frames.Sniffer(link, _BYTES) as seen:
                for at in range(0, len(words), 4000):
                    given = "\n".join(words[at : at + 4000]) + "\n"
                    self.pyrun.ok("exec", "-i", way.source, "/frames", "send", "eth0", "1", "0", input=given)
                there = watch.numbers() if way.target == "host" else _numbers(seen.all())
        kinds: dict[str, dict[int | str, bool]] = {column: {} for column in COLUMNS}
        for number, (frame, column, what) in enumerate(sent, 1):
            six = frame[12:14] == b"\x86\xdd"
            kinds[column][what] = kinds[column].get(what, False) or (six, number) in there
        return {
            column: ([what for what, came in each.items() if came], len(each))
            for column, each in kinds.items()
        }

    def _packets(self, way: Way) -> Iterator[tuple[bytes, str, int | str]]:
        """The frames, each with column and kind; the number of one is its place, from 1."""
        own, number = self.members[way.source], 0
        for hardware, target, target6 in self._targets(own, way.target):
            for column, what, packet in (*_four(own, target), *_six(own, target6)):
                number += 1
                kind = frames.IPV6 if packet[0] >> 4 == 6 else frames.IPV4
                yield frames.ethernet(own.mac, hardware, kind, _numbered(packet, number)), column, what

    def _targets(self, own: Member, target: str) -> Iterator[tuple[str, str, str]]:
        """MAC, IPv4 and IPv6 address to send to."""
        if target == "world":
            yield own.router, INTERNET, INTERNET6
        elif target == "host":
            yield own.router, own.gateway, own.gateway6
            yield own.router, HOST, HOST6
            yield own.router, own.gateway, frames.link_local(own.router)
            yield "33:33:00:00:00:01", own.gateway, "ff02::1"
        else:
            victim = self.members[target]
            yield own.router, victim.address, victim.address6
            if victim.router == own.router:
                yield victim.mac, victim.address, victim.address6
                yield victim.mac, victim.address, frames.link_local(victim.mac)
                yield "33:33:00:00:00:01", "224.0.0.1", "ff02::1"

    def table(self) -> Iterator[str]:
        """Lines of Markdown."""
        yield f"| | {' | '.join(COLUMNS)} |"
        yield f"|---|{'---|' * len(COLUMNS)}"
        with uplink6():
            for address in (INTERNET, INTERNET6):
                assert subprocess.run(["ping", "-c1", "-W2", address], capture_output=True).returncode == 0
            for way in WAYS:
                found = self.passed(way)
                yield f"| {way.told} | {' | '.join(_cell(*found[column]) for column in COLUMNS)} |"


class Watch:
    """Which numbers reach this host itself, behind every other chain of the hook."""

    def __enter__(self) -> Watch:
        subprocess.run(["nft", "-f", "-"], input=_WATCH, text=True, check=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["nft", "delete", "table", "inet", "crossings"], check=True)

    def numbers(self) -> set[tuple[bool, int]]:
        """(whether IPv6, number)."""
        found = set()
        for name, six, bits in (("six", True, 0xFFFFF), ("four", False, 0xFFFF)):
            shown = subprocess.run(["nft", "list", "set", "inet", "crossings", name],
                                   capture_output=True, text=True, check=True).stdout  # fmt: skip
            elements = shown.partition("elements = {")[2]
            found |= {(six, int(each, 0) & bits) for each in re.findall(r"\b(?:0x[0-9a-f]+|\d+)\b", elements)}
        return found


def _numbers(seen: list[bytes]) -> set[tuple[bool, int]]:
    found = set()
    for frame in seen:
        if MARK in frame and frame[12:14] == b"\x86\xdd":
            found.add((True, int.from_bytes(frame[14:18], "big") & 0xFFFFF))
        elif MARK in frame and frame[12:14] == b"\x08\0":
            found.add((False, int.from_bytes(frame[18:20], "big")))
    return found


def _numbered(packet: bytes, number: int) -> bytes:
    if packet[0] >> 4 == 6:
        return struct.pack("!I", 6 << 28 | number) + packet[4:]
    length = (packet[0] & 15) * 4
    head = packet[:4] + number.to_bytes(2, "big") + packet[6:10] + b"\0\0" + packet[12:length]
    return head[:10] + frames.checksum(head).to_bytes(2, "big") + head[12:] + packet[length:]


def _six(own: Member, target: str) -> Iterator[Packet]:
    for source in (own.address6, frames.link_local(own.mac)):
        for kind in range(256):
            body = bytes(4) + frames.packed(target if kind == 135 else own.address6) + MARK
            packet = frames.icmpv6(source, target, kind, body)
            for hop_limit in (255, 64, 1):
                yield "ICMPv6 types", kind, packet[:7] + bytes([hop_limit]) + packet[8:]
        for number in range(256):
            yield "IPv6 protocols", number, frames.ip(source, target, number, MARK * 4)
        inner = {
            "UDP": frames.udp((source, _OURS), (target, _OURS), MARK),
            "echo": frames.icmpv6(source, target, 128, bytes(4) + MARK),
            "discovery": frames.icmpv6(source, target, 135, bytes(4) + frames.packed(target) + MARK),
        }
        for told, packet in inner.items():
            for name, number, header in _HEADERS:
                behind = bytes([packet[6]]) + header + packet[40:]
                yield COLUMNS[2], f"{name}: {told}", frames.ip(source, target, number, behind)
            yield COLUMNS[2], f"one piece for all: {told}", _atomic(packet)
            for piece in frames.fragments(packet, 2):
                yield COLUMNS[2], f"a piece: {told}", piece


# Extension headers, without their first byte, which tells what follows: name, number, the rest.
_PAD = bytes([0, 1, 4, 0, 0, 0, 0])
_HEADERS = (
    ("hop-by-hop", 0, _PAD),
    ("router alert", 0, bytes([0, 5, 2, 0, 0, 1, 0])),
    *((f"routing {kind}", 43, bytes([2, kind, 0, 0, 0, 0, 0]) + bytes(16)) for kind in (0, 2, 3, 4, 253)),
    ("options", 60, _PAD),
    ("authentication", 51, bytes([4, 0, 0]) + bytes(20)),
    ("mobility", 135, _PAD),
    ("host identity", 139, _PAD),
    ("shim6", 140, _PAD),
    ("experiment", 253, _PAD),
)


def _atomic(packet: bytes) -> bytes:
    """A packet in one piece that calls itself one of several. Source: RFC 6946."""
    length = struct.pack("!H", len(packet) - 40 + 8)
    return (
        packet[:4]
        + length
        + b"\x2c"
        + packet[7:40]
        + struct.pack("!BBHI", packet[6], 0, 0, 4711)
        + packet[40:]
    )


def _four(own: Member, target: str) -> Iterator[Packet]:
    for kind in range(256):
        message = struct.pack("!BBHI", kind, 0, 0, 0) + MARK
        message = message[:2] + frames.checksum(message).to_bytes(2, "big") + message[4:]
        yield "ICMP types", kind, frames.ip(own.address, target, 1, message)
    for number in range(256):
        yield "IPv4 protocols", number, frames.ip(own.address, target, number, MARK * 4)
    packet = frames.udp((own.address, _OURS), (target, _OURS), MARK * 2)
    for name, option in _OPTIONS:
        words = option.ljust((len(option) + 3) // 4 * 4, b"\0").replace(b"HERE", frames.packed(target))
        head = bytes([0x40 | 5 + len(words) // 4]) + packet[1:2] + struct.pack("!H", len(packet) + len(words))
        yield COLUMNS[5], f"{name}: UDP", head + packet[4:20] + words + packet[20:]
    for offset, more, part in ((0, 1, packet[20:36]), (2, 0, packet[36:])):
        head = packet[:2] + struct.pack("!HHH", 20 + len(part), 0, more << 13 | offset)
        yield COLUMNS[5], "a piece: UDP", head + packet[8:20] + part


_OPTIONS = (
    ("record route", bytes([7, 7, 4]) + bytes(4)),
    ("loose source route", bytes([131, 7, 4]) + b"HERE"),
    ("strict source route", bytes([137, 7, 4]) + b"HERE"),
    ("timestamp", bytes([68, 8, 5, 0]) + bytes(4)),
    ("router alert", bytes([148, 4, 0, 0])),
    ("unknown", bytes([158, 4, 0, 0])),
)


def _cell(what: list[int | str], count: int) -> str:
    if not what:
        return "–"
    if len(what) > count // 2:
        return "all" if len(what) == count else f"{len(what)} of {count}"
    spans: list[list[int]] = []
    for number in (each for each in what if isinstance(each, int)):
        if spans and number == spans[-1][-1] + 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    inner = dict.fromkeys(each.partition(": ")[2] for each in what if isinstance(each, str))
    return ", ".join([*["–".join(map(str, each)) for each in spans], *inner])


@contextmanager
def crossings(pyrun: Pyrun, program: Path) -> Iterator[Crossings]:
    made = Crossings(pyrun, program)
    try:
        yield made
    finally:
        made.remove()
