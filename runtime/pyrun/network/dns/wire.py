"""DNS messages, by dnslib: the only file that knows that library, and the form of a message beyond its first 12 bytes.

Whatever a client sent goes through `question` first, which looks at sizes and counts before the library
does, and a limit on recursion (server.py sets it) ends chains of compression pointers. Source: RFC 1035, 6891 (EDNS).
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop
from _struct import pack, unpack_from
from struct import error

from pyrun import boot

boot.site_packages()

from dnslib.dns import (  # noqa: E402
    AAAA,
    EDNS0,
    PTR,
    QTYPE,
    RR,
    A,
    DNSError,
    DNSHeader,
    DNSQuestion,
    DNSRecord,
)
from dnslib.label import DNSLabelError  # noqa: E402

TYPE_A, TYPE_PTR, TYPE_AAAA, TYPE_ANY, CLASS_IN = 1, 12, 28, 255, 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
# What a server says that will not do: another may know.
FAILURES = (SERVFAIL, REFUSED, NOTIMP, FORMERR)
BADVERS = 16  # of which the OPT record tells the upper bits

HEADER_BYTES = 12
QUESTION_MOST_BYTES = 1024
REPLY_MOST_BYTES = 4096  # a longer one is handed on unread: some 250 addresses
UDP_BYTES, EDNS_BYTES = 512, 1232
_NAME_MOST_BYTES = 255
_CLIENT_BITS = 0x0130  # RD, AD, CD: what a client says about how it wants to be answered

# Everything the library is known to raise over bytes it does not understand.
UNREADABLE = (DNSError, DNSLabelError, ValueError, LookupError, AttributeError, TypeError, RecursionError)


class Malformed(Exception):
    """No question we could answer; rcode: what to say, -1: nothing at all."""

    def __init__(self, rcode: int) -> None:
        super().__init__(rcode)
        self.rcode = rcode


class Question:
    """One question. name: lower case, no dot at the end; end: where the question section ends; room: how long the
    answer by UDP may be; edns: whether it had an OPT record."""

    __slots__ = ("edns", "end", "kind", "name", "raw", "record", "room")

    def __init__(self, raw: bytes, record: DNSRecord, end: int) -> None:
        asked = record.q
        self.raw, self.record, self.end = raw, record, end
        self.name = str(asked.qname).rstrip(".").lower()
        self.kind = int(asked.qtype)
        options = [extra for extra in record.ar if extra.rtype == QTYPE.OPT]
        self.edns = bool(options)
        self.room = max(UDP_BYTES, min(int(options[0].edns_len), EDNS_BYTES)) if options else UDP_BYTES


def question(data: bytes) -> Question:
    """The question in *data*. Raises Malformed."""
    if len(data) < HEADER_BYTES or data[2] & 0x80:  # too short to answer; an answer nobody asked for
        raise Malformed(-1)
    if data[2] & 0x78:
        raise Malformed(NOTIMP)
    if (
        len(data) > QUESTION_MOST_BYTES
        or data[4:10] != b"\0\1\0\0\0\0"
        or data[10:12] not in (b"\0\0", b"\0\1")
    ):
        raise Malformed(FORMERR)
    end = question_end(data)
    try:
        found = Question(data, DNSRecord.parse(data), end)
    except UNREADABLE:
        raise Malformed(FORMERR) from None
    if any(extra.rtype == QTYPE.OPT and extra.edns_ver for extra in found.record.ar):
        raise Malformed(BADVERS)
    if found.record.q.qclass != CLASS_IN:
        raise Malformed(REFUSED)
    return found


def question_end(data: bytes) -> int:
    """Where the only question ends: its name is labels, without pointers. Raises Malformed."""
    at = HEADER_BYTES
    try:
        while data[at]:
            if data[at] > 63:
                raise Malformed(FORMERR)
            at += 1 + data[at]
    except IndexError:
        raise Malformed(FORMERR) from None
    if at - HEADER_BYTES >= _NAME_MOST_BYTES or at + 5 > len(data):
        raise Malformed(FORMERR)
    return at + 5


# ── answers of ours ────────────────────────────────────────────────────────────────────────────────


def answers(asked: Question, addresses: list[str], ttl_s: int) -> list[bytes]:
    """One message for each way round the addresses can be told, without their ids (two bytes less); as many
    addresses as fit into a datagram."""
    count = max(1, (asked.room - asked.end - 11) // (28 if asked.kind == TYPE_AAAA else 16))
    kind, value = (QTYPE.AAAA, AAAA) if asked.kind == TYPE_AAAA else (QTYPE.A, A)
    found = []
    for turn in range(min(len(addresses), 16)):
        turned = (addresses[turn:] + addresses[:turn])[:count]
        found.append(
            _packed(
                asked, NOERROR, [RR(asked.record.q.qname, kind, 1, ttl_s, value(each)) for each in turned]
            )
        )
    return found


def is_name(text: str) -> bool:
    """Whether a message can have *text* as a name, and it is no path: labels of 1 to 63 bytes, 253 with their dots."""
    if not text.isascii() or "/" in text or len(text) >= _NAME_MOST_BYTES - 1:
        return False
    return all(0 < len(label) < 64 for label in text.split("."))


def pointer(asked: Question, name: str, ttl_s: int) -> bytes:
    """A PTR record; without the id."""
    return _packed(asked, NOERROR, [RR(asked.record.q.qname, QTYPE.PTR, 1, ttl_s, PTR(name + "."))])


def empty(asked: Question, rcode: int) -> bytes:
    """Without records: REFUSED, NXDOMAIN, SERVFAIL, or NOERROR when the name has no record of that type."""
    return _packed(asked, rcode, [])


def complaint(data: bytes, rcode: int) -> bytes:
    """An answer to what could not be read: the header alone, without the id; to a later EDNS, which version we know."""
    if rcode == BADVERS:
        option = pack(">BHHBBHH", 0, QTYPE.OPT, EDNS_BYTES, rcode >> 4, 0, 0, 0)
        begin = bytes([0x80 | (data[2] & 0x79), rcode & 15]) + pack(">4H", 1, 0, 0, 1)
        return begin + data[HEADER_BYTES : question_end(data)] + option
    return bytes([0x80 | (data[2] & 0x79), rcode]) + bytes(8)


def _packed(asked: Question, rcode: int, records: list[RR]) -> bytes:
    # what we know ourselves is authoritative; errors over names of others are not
    reply = asked.record.reply(ra=1, aa=int(rcode == NOERROR))
    reply.header.rcode = rcode
    reply.header.ad = reply.header.z = 0
    reply.add_answer(*records)
    if asked.edns:
        reply.add_ar(EDNS0(udp_len=EDNS_BYTES))
    return bytes(reply.pack())[2:]


# ── questions to others, and what they say ─────────────────────────────────────────────────────────


def forwarded(asked: Question) -> bytes:
    """The question as we ask it elsewhere, without an id: nothing of the client's but name, type and wishes."""
    header = DNSHeader(id=0, bitmap=asked.record.header.bitmap & _CLIENT_BITS, q=1)
    again = DNSRecord(header, questions=[DNSQuestion(asked.record.q.qname, asked.kind, CLASS_IN)])
    again.header.rd = 1
    if asked.edns:
        again.add_ar(EDNS0(udp_len=asked.room, flags="do" if asked.record.ar[0].edns_do else ""))
    return bytes(again.pack())[2:]


def is_reply(data: bytes, asked: bytes) -> bool:
    """Whether *data* answers the message *asked* of ours: id, question, and that it is an answer at all."""
    if len(data) < HEADER_BYTES or data[:2] != asked[:2] or data[2] & 0xF8 != 0x80:
        return False
    if len(data) == HEADER_BYTES and rcode(data) in FAILURES:  # it could not read the question: EDNS, say
        return True
    if data[4:6] != b"\0\1":
        return False
    try:
        end = question_end(asked)
    except Malformed:
        return False
    return data[HEADER_BYTES:end].lower() == asked[HEADER_BYTES:end].lower()


def rcode(data: bytes) -> int:
    """What a message says about success."""
    return data[3] & 0x0F


def truncated(data: bytes) -> bytes:
    """An answer that is too long for a datagram: what it says of itself, without its records."""
    try:
        end = question_end(data)
    except Malformed:
        return data[:2] + complaint(data, SERVFAIL)
    return data[:2] + bytes([data[2] | 0x02, data[3]]) + b"\0\1" + bytes(6) + data[HEADER_BYTES:end]


def repeated(data: bytes, asked: Question) -> bytes:
    """Somebody's answer for whoever *asked*, without an id. To a header alone the question is added: without it glibc
    goes on waiting."""
    if len(data) != HEADER_BYTES:
        return data[2:]
    return data[2:4] + b"\0\1" + bytes(6) + asked.raw[HEADER_BYTES : question_end(asked.raw)]


def is_truncated(data: bytes) -> bool:
    """Whether more is to be had by TCP."""
    return bool(data[2] & 0x02)


def told(data: bytes) -> tuple[int, list[tuple[str, int]]]:
    """Of somebody's answer: for how many seconds it is true (0: unknown), and the addresses in it with theirs.

    Read here and not by the library, which takes names apart that nobody wants: so many of them, and so deep, as
    somebody likes.
    """
    lives, addresses = list[int](), list[tuple[str, int]]()
    try:
        if len(data) > REPLY_MOST_BYTES:
            return 0, []
        questions, answered, authority, _ = unpack_from(">4H", data, 4)
        at = HEADER_BYTES
        for _ in range(questions):
            at = _name_end(data, at) + 4
        for number in range(answered + authority):
            at = _name_end(data, at)
            kind, _, ttl_s, size = unpack_from(">HHIH", data, at)
            at += 10 + size
            ttl_s = 0 if ttl_s >> 31 else ttl_s  # RFC 2181, 8
            if at > len(data):
                return 0, []
            if number < answered and kind in (TYPE_A, TYPE_AAAA):
                family = AF_INET if kind == TYPE_A else AF_INET6
                addresses.append((inet_ntop(family, data[at - size : at]), ttl_s))
            # RFC 2308: how long there is no such name is told by the SOA record beside it
            lives.append(ttl_s)
    except (IndexError, ValueError, error):
        return 0, []
    return min(lives, default=0), addresses


def _name_end(data: bytes, at: int) -> int:
    """Where a name ends that begins *at*: with an empty label, or a pointer to the rest. Raises IndexError."""
    while data[at]:
        if data[at] > 63:
            return at + 2
        at += 1 + data[at]
    return at + 1


def addressed(name: str) -> str:
    """The address a name below in-addr.arpa or ip6.arpa means; "" if it means none."""
    labels = name.split(".")
    if name.endswith(".in-addr.arpa") and len(labels) == 6:
        parts = labels[3::-1]
        return ".".join(parts) if all(part.isdigit() and len(part) < 4 for part in parts) else ""
    if name.endswith(".ip6.arpa") and len(labels) == 34 and all(len(label) == 1 for label in labels[:32]):
        try:
            return inet_ntop(AF_INET6, bytes.fromhex("".join(labels[31::-1])))
        except ValueError:
            return ""
    return ""
