"""The frames that tell neighbours of an address: network/announcing.py, byte for byte."""

from __future__ import annotations

import socket
import struct

from pyrun.network import announcing

MAC, ADDRESS = bytes.fromhex("024200000099"), socket.inet_aton("10.1.0.9")
ADDRESS6 = socket.inet_pton(socket.AF_INET6, "fd00:1::99")


def test_a_gratuitous_arp() -> None:
    assert announcing._gratuitous_arp(MAC, ADDRESS) == bytes.fromhex(
        "ffffffffffff 024200000099 0806 0001 0800 06 04 0001"
        "024200000099 0a010009 000000000000 0a010009"
    )  # fmt: skip


def test_an_unsolicited_advertisement() -> None:
    frame = announcing._advertisement(MAC, ADDRESS6)
    assert frame[:14] == bytes.fromhex("333300000001 024200000099 86dd")
    assert frame[14:22] == bytes.fromhex("60000000 0020 3a ff"), "32 bytes of ICMPv6, hop limit 255"
    assert frame[22:54] == ADDRESS6 + socket.inet_pton(socket.AF_INET6, "ff02::1")
    assert (frame[54], frame[58]) == (136, 0x20), "an advertisement that overrides"
    assert frame[62:78] == ADDRESS6
    assert frame[78:] == b"\x02\x01" + MAC


def test_the_checksum_adds_up() -> None:
    frame = announcing._advertisement(MAC, ADDRESS6)
    covered = frame[22:54] + struct.pack(">II", len(frame) - 54, 58) + frame[54:]
    assert announcing._checksum(covered) == 0, "together with its checksum"
    assert announcing._checksum(b"\xff\xff\xff\xff\x00\x01") == 0xFFFE
