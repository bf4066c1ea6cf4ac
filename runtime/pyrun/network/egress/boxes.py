"""Ranges of addresses, protocols and ports that do not overlap: the kernel's sets of ranges refuse what does. Pure.

A box is a range in each of three directions, ends included. A box that overlaps others is cut into those parts of it
that none of them has yet.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton
from collections.abc import Iterable

from pyrun.network.egress.policy import Rule

Span = tuple[int, int]
Box = tuple[Span, Span, Span]

_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_WITH_PORTS = tuple(_NUMBERS.values())
_ICMP = {False: 1, True: 58}
ANY_PROTOCOL, ANY_PORT = (0, 255), (0, 65535)


def of_rules(rules: Iterable[Rule], *, six: bool) -> list[Box]:
    """The boxes of the rules of one family, none overlapping another."""
    found: list[Box] = []
    for cidr, port, protocol in rules:
        if (":" in cidr) == six:
            for number in protocols(port, protocol, six=six):
                found += _beyond((span(cidr), number, ports(port)), found)
    return found


def spans(cidrs: Iterable[str], *, six: bool) -> list[Span]:
    """The ranges of addresses of one family, none overlapping another."""
    whole: list[Box] = []
    for cidr in cidrs:
        if (":" in cidr) == six:
            whole += _beyond((span(cidr), (0, 0), (0, 0)), whole)
    return [box[0] for box in whole]


def protocols(port: str, protocol: str, *, six: bool) -> list[Span]:
    """The ranges of protocol numbers a rule means; a port without a protocol means all that have ports."""
    if protocol == "icmp":
        return [(_ICMP[six], _ICMP[six])]
    if protocol != "*":
        return [(_NUMBERS[protocol], _NUMBERS[protocol])]
    return [ANY_PROTOCOL] if port == "*" else [(number, number) for number in _WITH_PORTS]


def ports(text: str) -> Span:
    """The range of ports a rule means."""
    if text == "*":
        return ANY_PORT
    first, dash, last = text.partition("-")
    return int(first), int(last if dash else first)


def span(cidr: str) -> Span:
    """First and last address of a network, as numbers."""
    address, _, length = cidr.partition("/")
    family, bits = (AF_INET6, 128) if ":" in address else (AF_INET, 32)
    first = int.from_bytes(inet_pton(family, address), "big")
    return first, first + (1 << (bits - int(length))) - 1


def _beyond(box: Box, others: list[Box]) -> list[Box]:
    """The parts of *box* that none of the others has."""
    parts = [box]
    for other in others:
        parts = [piece for part in parts for piece in _without(part, other)]
    return parts


def _without(box: Box, other: Box) -> list[Box]:
    if any(mine[1] < its[0] or its[1] < mine[0] for mine, its in zip(box, other, strict=True)):
        return [box]
    pieces: list[Box] = []
    rest = list(box)
    for axis, (low, high) in enumerate(other):
        mine = rest[axis]
        for piece in ((mine[0], low - 1), (high + 1, mine[1])):
            if piece[0] <= piece[1]:
                rest[axis] = piece
                pieces.append((rest[0], rest[1], rest[2]))
        rest[axis] = (max(mine[0], low), min(mine[1], high))
    return pieces
