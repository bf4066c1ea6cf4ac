"""The messages of a start: templates that are filled in, and the kernel's answers."""

from __future__ import annotations

import re
import socket
import struct

import pytest

from pyrun.network import (
    health,
    leases,
    messages,
    records,
    templates,
)
from sample_network import NETWORK, TOLD


def values(seed: int) -> dict[str, bytes]:
    """Values of a start, none of them a mark; for every mark there is."""
    found = {
        "name": f"pyv{seed:012x}".encode(),
        "alias": f"web-{seed}".ljust(messages.ALIAS_BYTES, "x").encode(),
        "inside": b"ethernet.twenty",
        "mac": bytes([2, 0x42, 10, 77, seed % 256, 9]),
        "namespace": messages.u32(seed % 1000 + 3),
        "index": messages.u32(seed % 500 + 2),
        "address": socket.inet_aton(f"10.77.{seed % 256}.9"),
        "broadcast": socket.inet_aton("10.77.255.255"),
        "gateway": socket.inet_aton("10.77.0.1"),
        "prefix": bytes([16 + seed % 8]),
        "address6": socket.inet_pton(socket.AF_INET6, f"fd77:1::{seed % 65536:x}"),
        "key": bytes([6, 0, 0, 0, seed % 256, 80, 0, 0]),
        "key-at": bytes([192, 0, 2, 1, 17, 0, 0, 0, seed % 256, 80, 0, 0]),
        "key6-at": bytes([0x20, 1, 13, 0xB8, *[0] * 12, 17, 0, 0, 0, seed % 256, 80, 0, 0]),
        "target": bytes([10, 77, 0, 9, 0, seed % 256, 0, 0]),
        "target6": bytes([0xFD, 0x77, *[0] * 14, 0, seed % 256, 0, 0]),
        "protocol": bytes([17]),
        "port": bytes([seed % 256, 53]),
    }
    assert set(found) == set(templates.MARKS), "a value for every mark"
    return found


def given(name: str, line: str, real: dict[str, bytes]) -> dict[str, bytes]:
    """The values that the message *name* has places for, as its *line* in the template tells."""
    fields = set(re.findall("<([a-z0-9]+)>", line))
    marks = {field: field for field in fields}
    if name.endswith("-at"):
        marks["key"] = "key6-at" if "6" in name else "key-at"
    if "6" in name:
        marks["target"] = "target6"
    return {field: real[marks[field]] for field in fields}


@pytest.mark.parametrize("seed", [0, 1, 12345, 0xFFFFFFFFFFFF])
def test_a_filled_template_is_what_pyroute2_encodes(template: messages.Template, seed: int) -> None:
    real = values(seed)
    for name, encoded in templates.encode(NETWORK, real).items():
        filled = messages.filled(template, name, **given(name, template[f"message {name}"], real))
        assert filled == encoded, name


def test_every_place_is_as_long_as_its_value(template: messages.Template) -> None:
    """Each message's own length field still tells its length after filling."""
    real = values(7)
    for key in [key for key in template if key.startswith("message ")]:
        filled = messages.filled(
            template, key.removeprefix("message "), **given(key.removeprefix("message "), template[key], real)
        )
        assert 0 <= len(filled) - int.from_bytes(filled[:4], "little") < 4


def test_a_value_that_is_not_given_is_a_mistake(template: messages.Template) -> None:
    with pytest.raises(ValueError):
        messages.filled(template, "route", gateway=b"1234")


@pytest.mark.parametrize("by_chance", ["prefix", "protocol", "port", "index"])
def test_a_mark_by_chance_is_left_alone(by_chance: str) -> None:
    """In the number of a bridge, or in the MTU."""
    number = int.from_bytes(templates.MARKS[by_chance][:2], "little")
    network = records.parsed({**TOLD, "index": number, "mtu": number})
    found = messages.parsed(templates.text(network))
    assert found is not None
    real = values(3)
    for name, encoded in templates.encode(network, real).items():
        assert messages.filled(found, name, **given(name, found[f"message {name}"], real)) == encoded, name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pyrun-template 0\nend\n",
        "pyrun-template 4\nbridge\tpyrun0\nend\n",
        "pyrun-template 7\nbridge\tpyrun0\n",
    ],
)
def test_another_versions_template_is_none(text: str) -> None:
    assert messages.parsed(text) is None


def test_the_mac_of_a_lease_fits_its_place(template: messages.Template) -> None:
    assert len(bytes.fromhex(leases.mac("10.77.0.2").replace(":", ""))) == 6
    assert "<mac>" in template["message link"]


# ── answers ────────────────────────────────────────────────────────────────────────────────────────


def test_netlink_answers_are_split() -> None:
    data = b"".join(
        length.to_bytes(4, "little") + b"\2\0" + bytes(10) + bytes([length] * (length - 16))
        for length in (20, 24)
    )
    assert messages.split(data) == [(2, bytes([20] * 4)), (2, bytes([24] * 8))]


class Socket:
    """Answers with datagrams prepared before."""

    def __init__(self, *datagrams: bytes) -> None:
        self.datagrams = list(datagrams)

    def send(self, data: bytes) -> None:
        """Nobody reads it."""

    def recv(self, size: int) -> bytes:
        return self.datagrams.pop(0)


def test_a_dump_is_whole_wherever_its_end_comes() -> None:
    row, done = (message_of(kind, b"1234") for kind in (20, 3))
    for datagrams in ((row, row, done), (row + row + done,), (row, row + done)):
        assert messages.dump(Socket(*datagrams), b"") == row + row  # type: ignore[arg-type]
    assert messages.dump(Socket(done), b"") == b""  # type: ignore[arg-type]


def message_of(kind: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, 2, 0, 0) + payload


def test_attributes_of_a_torn_answer_do_not_loop() -> None:
    assert health.attributes(b"\0\0\0\0" + b"\0\0\5\0" * 3, 4) == {}
    assert health.policy(b"") == 1
