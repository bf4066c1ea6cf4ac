"""Telling the neighbours which MAC an address has now, where they may know another one.

An address that was asked for may have had an owner a moment ago, and so may its neighbours remember: for up to a minute
they would send to a MAC that is gone. Addresses pyrun chooses itself need none of this: their MAC is derived from them.
Cold: a start without --ip, --ip6 and --mac-address does not come here. Source: RFC 5227 (3), RFC 4861 (7.2.6).
"""

from __future__ import annotations

from _socket import AF_INET6, AF_PACKET, SOCK_CLOEXEC, SOCK_RAW, inet_aton, inet_pton, socket
from _struct import pack, unpack

_EVERYBODY, _ALL_NODES_MAC = b"\xff" * 6, b"\x33\x33\0\0\0\x01"
_ALL_NODES = inet_pton(AF_INET6, "ff02::1")
_ARP, _IPV6, _ICMPV6 = 0x0806, 0x86DD, 58
_ADVERTISEMENT, _OVERRIDE, _TARGET_LINK_ADDRESS = 136, 0x20000000, 2


def tell(interface: str, mac: str, address: str, address6: str) -> None:
    """Send from *interface* of the current network namespace. Raises OSError."""
    own = bytes.fromhex(mac.replace(":", ""))
    frames = [_gratuitous_arp(own, inet_aton(address))] if address else []
    frames += [_advertisement(own, inet_pton(AF_INET6, address6))] if address6 else []
    sock = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)
    try:
        sock.bind((interface, 0))
        for frame in frames:
            sock.send(frame)
    finally:
        sock.close()


def _gratuitous_arp(mac: bytes, address: bytes) -> bytes:
    """A question for one's own address, which everybody hears."""
    ethernet = pack(">6s6sH", _EVERYBODY, mac, _ARP)
    return ethernet + pack(">HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, address, bytes(6), address)


def _advertisement(mac: bytes, address: bytes) -> bytes:
    """An answer nobody asked for, which replaces what neighbours know."""
    option = pack(">BB6s", _TARGET_LINK_ADDRESS, 1, mac)
    body = pack(">BBHI16s", _ADVERTISEMENT, 0, 0, _OVERRIDE, address) + option
    covered = address + _ALL_NODES + pack(">II", len(body), _ICMPV6) + body
    body = body[:2] + pack(">H", _checksum(covered)) + body[4:]
    header = pack(">IHBB16s16s", 6 << 28, len(body), _ICMPV6, 255, address, _ALL_NODES)
    return pack(">6s6sH", _ALL_NODES_MAC, mac, _IPV6) + header + body


def _checksum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes. Source: RFC 1071."""
    total: int = sum(unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
