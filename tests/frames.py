"""Frames written by hand, for tests of what a container may send: Ethernet, ARP, IPv4, IPv6, ICMPv6.

Addresses are text, everything else bytes; what is built is sent by attacks/frames.c from inside, or by `send` from a
link of the lab. `Sniffer` sees what goes over a link of this host. Source: RFC 826, 791, 8200, 4861, IEEE 802.1D.
"""

from __future__ import annotations

import socket
import struct
import time
from types import TracebackType

EVERYBODY = "ff:ff:ff:ff:ff:ff"
ALL_NODES = "ff02::1"
ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
TCP, UDP, ICMPV6, FRAGMENT, OPTIONS = 6, 17, 58, 44, 60
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, SOLICITATION, ADVERTISEMENT, REDIRECT = 133, 134, 135, 136, 137
_SOURCE_MAC, _TARGET_MAC = 1, 2  # options of neighbour discovery
_ALL_PROTOCOLS, _RCVBUFFORCE = 3, 33


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def ethernet(source: str, target: str, kind: int, payload: bytes) -> bytes:
    """A frame, padded to the least size."""
    return (mac(target) + mac(source) + kind.to_bytes(2, "big") + payload).ljust(60, b"\0")


def tagged(frame: bytes, vlan: int) -> bytes:
    """The same frame in a VLAN."""
    return frame[:12] + struct.pack("!HH", VLAN, vlan) + frame[12:]


def arp(operation: int, sender: tuple[str, str], target: tuple[str, str]) -> bytes:
    """operation: 1 asks, 2 answers; sender, target: (MAC, address)."""
    both = b"".join(mac(hardware) + packed(address) for hardware, address in (sender, target))
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + both


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data + b'0') // 2}H", data + bytes(len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """A packet of the family of the addresses."""
    if ":" in source:
        head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255)
        return head + packed(source) + packed(target) + payload
    start = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol)
    ends = packed(source) + packed(target)
    return start + struct.pack("!H", checksum(start + b"\0\0" + ends)) + ends + payload


def _sum(source: str, target: str, protocol: int, payload: bytes) -> int:
    """The checksum over payload and pseudo header; a sum of 0 is written the other way."""
    pseudo = packed(source) + packed(target) + struct.pack("!II", len(payload), protocol)
    return checksum(pseudo + payload) or 0xFFFF


def udp(source: tuple[str, int], target: tuple[str, int], data: bytes) -> bytes:
    """An IP packet with a datagram."""
    ports = struct.pack("!HHH", source[1], target[1], 8 + len(data))
    total = _sum(source[0], target[0], UDP, ports + b"\0\0" + data)
    return ip(source[0], target[0], UDP, ports + struct.pack("!H", total) + data)


def syn(source: tuple[str, int], target: tuple[str, int], number: int) -> bytes:
    """An IP packet that opens a TCP connection; *number*, its sequence number, is a mark to be found by."""
    head = struct.pack("!HHIIBBH", source[1], target[1], number, 0, 5 << 4, 2, 1024)
    total = _sum(source[0], target[0], TCP, head + bytes(4))
    return ip(source[0], target[0], TCP, head + struct.pack("!HH", total, 0))


def icmpv6(source: str, target: str, kind: int, body: bytes) -> bytes:
    """An ICMPv6 packet; body: what follows the checksum."""
    total = _sum(source, target, ICMPV6, bytes([kind, 0, 0, 0]) + body)
    return ip(source, target, ICMPV6, struct.pack("!BBH", kind, 0, total) + body)


def advertisement(source: str, target: str, address: str, hardware: str) -> bytes:
    """A neighbour advertisement that overrides what is known: *address* is at *hardware*."""
    body = struct.pack("!I", 0x20000000) + packed(address) + bytes([_TARGET_MAC, 1]) + mac(hardware)
    return icmpv6(source, target, ADVERTISEMENT, body)


def solicitation(source: str, target: str, address: str, hardware: str) -> bytes:
    """A neighbour solicitation: who is *address*? By the way, *source* is at *hardware*."""
    body = bytes(4) + packed(address) + bytes([_SOURCE_MAC, 1]) + mac(hardware)
    return icmpv6(source, target, SOLICITATION, body)


def router_advertisement(source: str, prefix: str, hardware: str) -> bytes:
    """*source* is a router for half an hour, and *prefix*/64 is where everybody takes an address from."""
    told = bytes([3, 4, 64, 0xC0]) + struct.pack("!III", 3600, 3600, 0) + packed(prefix)
    body = struct.pack("!BBHII", 64, 0, 1800, 0, 0) + bytes([_SOURCE_MAC, 1]) + mac(hardware) + told
    return icmpv6(source, ALL_NODES, ROUTER_ADVERTISEMENT, body)


def redirect(source: str, target: str, better: str, destination: str) -> bytes:
    """*source* says: *destination* is better reached by *better*."""
    return icmpv6(source, target, REDIRECT, bytes(4) + packed(better) + packed(destination))


def fragments(packet: bytes, first: int) -> list[bytes]:
    """An IPv6 packet in two pieces, behind a header of options, of which the first ends after *first* octets (of 8)."""
    head, kind, rest = bytearray(packet[:40]), packet[6], packet[40:]
    rest = bytes([kind, 0, 1, 4, 0, 0, 0, 0]) + rest
    pieces = []
    for offset, more, part in ((0, 1, rest[: first * 8]), (first, 0, rest[first * 8 :])):
        head[6] = FRAGMENT
        head[4:6] = struct.pack("!H", 8 + len(part))
        pieces.append(bytes(head) + struct.pack("!BBHI", OPTIONS, 0, offset << 3 | more, 4711) + part)
    return pieces


def bpdu(source: str) -> bytes:
    """A configuration message of the spanning tree: *source* is the root of it."""
    told = bytes(4) + b"\0" + bytes(2) + mac(source) + bytes(4) + bytes(2) + mac(source) + b"\x80\1"
    told += bytes(2) + b"\x14\0\2\0\x0f\0"
    length = 3 + len(told)
    return ethernet(source, "01:80:c2:00:00:00", length, b"\x42\x42\3" + told)


def link_local(hardware: str) -> str:
    """The address an interface gives itself. Source: RFC 4291, appendix A."""
    some = bytearray(mac(hardware))
    some[0] ^= 2
    return socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + bytes(6) + some[:3] + b"\xff\xfe" + some[3:])


# ── links of this host ─────────────────────────────────────────────────────────────────────────────


def send(link: str, *frames: bytes) -> None:
    """Put frames on a link of this network namespace."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((link, 0))
        for frame in frames:
            sock.send(frame)


class Sniffer:
    """What goes over *link* while it is open: `with Sniffer(link) as seen: ...; seen.has(mark)`.

    queue_bytes: room for what was not read yet, where it is more than a few frames.
    """

    def __init__(self, link: str, queue_bytes: int = 0) -> None:
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        if queue_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, queue_bytes)
        self.sock.bind((link, _ALL_PROTOCOLS))
        self.frames: list[bytes] = []

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def all(self, quiet_s: float = 0.2) -> list[bytes]:
        """Every frame, as soon as none came for *quiet_s*."""
        self.sock.settimeout(quiet_s)
        try:
            while True:
                self.frames.append(self.sock.recv(65536))
        except TimeoutError:
            return self.frames

    def has(self, mark: bytes, within_s: float = 0.4) -> list[bytes]:
        """The frames with *mark* in them; waits for the first until *within_s* have passed."""
        deadline = time.monotonic() + within_s
        while (left := deadline - time.monotonic()) > 0:
            if found := [frame for frame in self.frames if mark in frame]:
                return found
            self.sock.settimeout(left)
            try:
                self.frames.append(self.sock.recv(65536))
            except TimeoutError:
                break
        return [frame for frame in self.frames if mark in frame]
