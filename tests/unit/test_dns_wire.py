"""What is read of a message, and that nothing in one does harm."""

from __future__ import annotations

import random
import socket
import struct
import sys
import time
from collections.abc import Iterator

import pytest

from name_server import FORMERR, NOTIMP, REFUSED, TYPE_AAAA, Answer, edns, question
from pyrun.network.dns import server, wire


@pytest.fixture(autouse=True)
def recursion() -> Iterator[None]:
    """As in the resolver, with room for pytest."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(server._RECURSION + 150)
    yield
    sys.setrecursionlimit(limit)


def rcode(data: bytes) -> int:
    """What the sender of *data* is told."""
    with pytest.raises(wire.Malformed) as problem:
        wire.question(data)
    return problem.value.rcode


def test_a_question() -> None:
    asked = wire.question(question("Web.Front", TYPE_AAAA))
    assert (asked.name, asked.kind, asked.room, asked.edns) == ("web.front", TYPE_AAAA, 512, False)
    assert wire.question(question("web", extra=edns(4096))).room == wire.EDNS_BYTES
    assert wire.question(question("web", extra=edns(0))).room == 512
    assert wire.question(question("")).name == ""


def header(flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0)) -> bytes:
    return struct.pack(">HH4H", 7, flags, *counts)


A_IN = b"\0\1\0\1"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", -1),
        (header()[:11], -1),
        (question("web", flags=0x8180), -1),  # an answer: to answer it might go on for ever
        (question("web", flags=0x2800), NOTIMP),  # an update
        (header(), FORMERR),
        (header(counts=(0, 0, 0, 0)), FORMERR),
        (header(counts=(2, 0, 0, 0)) + b"\0" + A_IN + b"\0" + A_IN, FORMERR),
        (header(counts=(1, 1, 0, 0)) + b"\0" + A_IN, FORMERR),
        (header(counts=(1, 0, 0, 65535)) + b"\0" + A_IN, FORMERR),
        (header() + b"\xc0\x0c" + A_IN, FORMERR),  # a name that points to itself
        (header() + b"\xc0\x00" + A_IN, FORMERR),
        (header() + b"\x01a\xc0\x0c" + A_IN, FORMERR),
        (header() + b"\x40" + b"a" * 64 + b"\0" + A_IN, FORMERR),
        (header() + b"\x3f" + b"a" * 20, FORMERR),
        (header() + (b"\x3f" + b"a" * 63) * 4 + b"\0" + A_IN, FORMERR),  # 257 bytes
        (header() + b"\x03web\0", FORMERR),
        (header() + b"\x03web\0\0", FORMERR),
        (header() + b"\x02\xff\xfe\0" + A_IN, FORMERR),
        (header() + b"\x03web\0\0\1\0\3", REFUSED),  # class CHAOS
        (question("web") + b"x" * 2000, FORMERR),
        (header(counts=(1, 0, 0, 1)) + b"\0" + A_IN, FORMERR),  # a record is promised
        (question("web", extra=b"\0" + struct.pack(">HHIH", 41, 512, 0, 9) + b"\0\1\0\xff"), FORMERR),
    ],
)
def test_malformed(data: bytes, expected: int) -> None:
    assert rcode(data) == expected
    if expected >= 0:
        told = Answer(data[:2] + wire.complaint(data, expected))
        assert (told.ident, told.rcode) == (int.from_bytes(data[:2], "big"), expected)


def test_a_later_edns_is_told_which_we_know() -> None:
    """RFC 6891, 6.1.3: BADVERS, and an OPT record of version 0, so that it asks again."""
    later = question("web", extra=b"\0" + struct.pack(">HHIH", 41, 4096, 1 << 16, 0))
    assert rcode(later) == wire.BADVERS
    told = later[:2] + wire.complaint(later, wire.BADVERS)
    assert told[12 : len(question("web"))] == question("web")[12:] and Answer(told).rcode == 0
    assert told[-11:] == b"\0" + struct.pack(">HHIH", 41, wire.EDNS_BYTES, 1 << 24, 0)


def test_any_bytes_are_read_or_refused() -> None:
    """Changed and random messages raise what is expected and nothing else, and quickly."""
    chance = random.Random(53)
    good = question("some.name.example", extra=edns(1400))
    began = time.monotonic()
    for _ in range(5000):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        for message in (
            bytes(data),
            chance.randbytes(chance.randrange(80)),
            bytes(data[: chance.randrange(60)]),
        ):
            try:
                asked = wire.question(message)
            except wire.Malformed:
                continue
            assert Answer(message[:2] + wire.empty(asked, 2)).rcode == 2
            wire.forwarded(asked)
    assert time.monotonic() - began < 10


# ── answers ────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_never_outgrows_the_datagram() -> None:
    many = [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(600)]
    for name in ("web", ".".join(["a" * 63] * 3 + ["a" * 55])):
        for extra, room in ((b"", 512), (edns(1232), 1232)):
            for message in wire.answers(wire.question(question(name, extra=extra)), many, 1):
                answer = Answer(b"\0\0" + message)
                assert len(answer.data) <= room and len(answer.values) > 5 and not answer.truncated
    six = wire.answers(
        wire.question(question("web", TYPE_AAAA)), [f"fd00::{each:x}" for each in range(1, 99)], 1
    )
    assert six and all(120 < len(each) <= 510 for each in six)


def test_an_answer_echoes_the_question_letter_by_letter() -> None:
    data = question("wEb.FrOnT")
    message = wire.empty(wire.question(data), 0)
    assert data[12:] in message
    assert Answer(b"\x12\x34" + message).ident == 0x1234


def test_what_is_forwarded_is_ours_and_not_the_clients() -> None:
    cookie = b"\0" + struct.pack(">HHIH", 41, 4096, 0x8000, 12) + struct.pack(">HH", 10, 8) + b"trackme!"
    data = question("x.example", extra=cookie, flags=0x0130)
    sent = b"\0\1" + wire.forwarded(wire.question(data))
    assert b"trackme" not in sent and sent[12:27] == data[12:27]
    assert sent[2:4] == b"\x01\x30" and sent[-6:-2] == b"\0\0\x80\0", (
        "RD, AD, CD and DO are what a client may ask for"
    )
    assert wire.forwarded(wire.question(question("x.example", flags=0)))[0] == 1, "we want recursion"


def test_only_the_answer_to_the_question_is_one() -> None:
    asked = b"\xab\xcd" + wire.forwarded(wire.question(question("Bank.example")))
    good = asked[:2] + b"\x81\x80" + asked[4:]
    assert wire.is_reply(good, asked)
    assert wire.is_reply(good[:12] + good[12:].lower(), asked)
    for bad in (
        b"",
        good[:11],
        b"\xab\xce" + good[2:],  # another id
        asked,  # the question itself
        good[:2] + b"\xa9\x80" + good[4:],  # another opcode
        good.replace(b"Bank", b"Rank"),
        good[:-1] + b"\x02",  # another class
        good[:4] + b"\0\0" + good[6:],
        good[:4] + bytes(8),  # a success that does not say of what
    ):
        assert not wire.is_reply(bad, asked)


@pytest.mark.parametrize("code", [FORMERR, NOTIMP, REFUSED])
def test_a_server_may_refuse_without_the_question(code: int) -> None:
    """As one does that has not read it: an old one that was asked with EDNS (RFC 6891, 7)."""
    asked = b"\xab\xcd" + wire.forwarded(wire.question(question("x.example", extra=edns(1232))))
    assert wire.is_reply(asked[:2] + bytes([0x81, code]) + bytes(8), asked)
    assert not wire.is_reply(b"\xab\xce" + bytes([0x81, code]) + bytes(8), asked)


def reply(*records: bytes, authority: bytes = b"", name: str = "x.example") -> bytes:
    body = question(name)[12:]
    counts = struct.pack(">HH4H", 1, 0x8180, 1, len(records), int(bool(authority)), 0)
    return counts + body + b"".join(records) + authority


def record(kind: int, data: bytes, ttl_s: int = 60, owner: bytes = b"\xc0\x0c") -> bytes:
    return owner + struct.pack(">HHIH", kind, 1, ttl_s, len(data)) + data


def test_what_an_answer_tells() -> None:
    message = reply(record(1, bytes([192, 0, 2, 1]), 30), record(28, bytes(15) + b"\1", 20))
    assert wire.told(message) == (20, [("192.0.2.1", 30), ("::1", 20)])
    soa = record(6, b"\0\0" + bytes(20), 7)
    assert wire.told(reply(authority=soa)) == (7, [])
    assert wire.told(reply()) == (0, []), "nothing says how long it is true"
    assert wire.told(reply(record(1, bytes(4), 1 << 31))) == (0, [("0.0.0.0", 0)]), (
        "no time at all (RFC 2181)"
    )


def test_a_name_with_many_addresses_tells_all_of_them() -> None:
    many = [f"203.0.113.{number}" for number in range(250)]
    owner = question("x.example")[12:-4]  # a server that compresses nothing has room for fewer
    for some, own in ((many, b"\xc0\x0c"), (many[:150], owner)):
        message = reply(*[record(1, socket.inet_aton(each), 60, own) for each in some])
        assert wire.told(message) == (60, [(each, 60) for each in some])


def test_an_answer_that_cannot_be_read_tells_nothing() -> None:
    assert wire.told(reply(record(1, b"\1\2\3"))) == (0, [])
    assert wire.told(reply(record(1, bytes(4)))[:-2]) == (0, [])
    assert wire.told(reply(record(1, bytes(4)))[:12]) == (0, [])
    assert wire.told(reply(record(16, bytes(5000)))) == (0, [])


def test_pointers_that_go_round_end_soon() -> None:
    """Of names in answers: a chain of pointers costs at most some milliseconds, however it is laid."""
    start = 12 + len(question("x.example")[12:])
    round_about = record(
        5, b"\x0a" + b"a" * 3 + b"\xc0" + bytes([start + 12]) + b"a" * 5 + b"\xc0" + bytes([start + 12])
    )
    chain = b"".join(struct.pack(">H", 0xC000 | (start + 12 + max(0, 2 * at - 2))) for at in range(1500))
    deep = [record(5, chain), *[record(5, struct.pack(">H", 0xC000 | (start + 12 + 2990)))] * 60]
    for message in (reply(round_about), reply(*deep)):
        began = time.monotonic()
        wire.told(message)
        assert time.monotonic() - began < 0.1


def test_any_answer_is_read_or_not() -> None:
    chance = random.Random(35)
    good = reply(record(5, b"\xc0\x0c"), record(1, bytes(4)), record(15, b"\0\1\xc0\x0c"), record(46, bytes(30)),
                 record(65, bytes(20)), authority=record(6, b"\0\0" + bytes(20)))  # fmt: skip
    asked = b"\0\1" + wire.forwarded(wire.question(question("x.example")))
    for _ in range(5000):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        life_s, _ = wire.told(bytes(data))
        assert life_s >= 0
        wire.is_reply(bytes(data), asked)
        assert len(wire.truncated(bytes(data))) <= 300
