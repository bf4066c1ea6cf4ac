"""What rules are made of: expressions that load into registers, compare and end in a verdict.

`nft --debug=netlink` prints the same for rules written as text. Registers: 1 is 16 bytes wide, 9 to 11 are the
second to fourth quarter of it, 2 is the next 16 bytes and 12 to 15 their quarters, 3 and 16 the next; what a key
of several parts needs is loaded so that the parts lie one behind the other.

pyroute2 0.9.7 encodes the result of `fib` as a set of bits although it is a number, see `fib_type`.
Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct

from pyrun.network import nft

Expression = nft.Expression
Part = Expression | list[Expression]

STATE, STATUS = 0, 2
_PORT = 12  # NFT_CT_PROTO_DST
ESTABLISHED, RELATED, UNTRACKED = 0x2, 0x4, 0x40
REDIRECTED = 0x20  # IPS_DST_NAT


# linux/netfilter/nf_tables.h: enum nft_meta_keys
_PROPERTIES = {"iifname": 6, "oifname": 7, "nfproto": 15, "l4proto": 16, "pkttype": 19}


def expression(name: str, *pairs: tuple[str, object]) -> Expression:
    """One expression of a rule; the attribute names begin with its own name in capitals."""
    attributes = [(f"NFTA_{name.upper()}_{key}", value) for key, value in pairs]
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": attributes})]}


def meta(key: str, register: int = 1) -> Expression:
    """Load a property of the packet."""
    return expression("meta", ("KEY", _PROPERTIES[key]), ("DREG", register))


def set_meta(key: str, value: bytes) -> list[Expression]:
    """Change a property of the packet."""
    constant = {"attrs": [("NFTA_DATA_VALUE", value)]}
    return [
        expression("immediate", ("DREG", 1), ("DATA", constant)),
        expression("meta", ("KEY", _PROPERTIES[key]), ("SREG", 1)),
    ]


def set_payload(base: int, offset: int, length: int, register: int = 1) -> Expression:
    """Write what is in the register into a header."""
    return expression("payload", ("SREG", register), ("BASE", base), ("OFFSET", offset), ("LEN", length))


def set_payload_checked(base: int, offset: int, value: bytes, checksum_at: int) -> list[Expression]:
    """Write *value* into a header, whose checksum, of the internet's kind, is corrected."""
    constant = {"attrs": [("NFTA_DATA_VALUE", value)]}
    place = [("BASE", base), ("OFFSET", offset), ("LEN", len(value))]
    return [
        expression("immediate", ("DREG", 1), ("DATA", constant)),
        expression("payload", ("SREG", 1), *place, ("CSUM_TYPE", 1), ("CSUM_OFFSET", checksum_at)),
    ]


def payload(base: int, offset: int, length: int, register: int = 1) -> Expression:
    """Load bytes of the link (base 0), network (1) or transport (2) header."""
    return expression("payload", ("DREG", register), ("BASE", base), ("OFFSET", offset), ("LEN", length))


def connection(key: int, register: int = 1) -> Expression:
    """Load what connection tracking knows: STATE or STATUS."""
    return expression("ct", ("KEY", key), ("DREG", register))


def asked_port() -> Expression:
    """Load the port that a flow's first packet was for, before it was redirected: IP_CT_DIR_ORIGINAL."""
    return expression("ct", ("KEY", _PORT), ("DREG", 1), ("DIRECTION", 0))


def compare(value: bytes, register: int = 1, *, different: bool = False) -> Expression:
    """Go on only if the register begins with *value* (or does not)."""
    data = {"attrs": [("NFTA_DATA_VALUE", value)]}
    return expression("cmp", ("SREG", register), ("OP", 1 if different else 0), ("DATA", data))


def interface(key: str, name: str, *, different: bool = False) -> list[Expression]:
    """Go on only if iifname or oifname is *name*, or begins with it if it ends in *."""
    value = name[:-1].encode() if name.endswith("*") else name.encode().ljust(16, b"\0")
    return [meta(key), compare(value, different=different)]


def has_bits(mask: int, register: int = 1) -> list[Expression]:
    """Go on only if one of the bits of *mask* is set."""
    return [masked(struct.pack("=I", mask), register), compare(bytes(4), register, different=True)]


def masked(mask: bytes, register: int = 1) -> Expression:
    """Keep only the bits of *mask*."""
    data = {"attrs": [("NFTA_DATA_VALUE", mask)]}
    none = {"attrs": [("NFTA_DATA_VALUE", bytes(len(mask)))]}
    pairs = [("SREG", register), ("DREG", register), ("LEN", len(mask)), ("MASK", data), ("XOR", none)]
    return expression("bitwise", *pairs)


def lookup(name: str, register: int = 1, into: int | None = None, *, absent: bool = False) -> Expression:
    """Go on only if the key is in the set (or is not); of a map, load the data *into* a register (0: verdict)."""
    pairs: list[tuple[str, object]] = [("SET", name), ("SREG", register)]
    if into is not None:
        pairs.append(("DREG", into))
    if absent:
        pairs.append(("FLAGS", ("NFT_LOOKUP_F_INV",)))
    return expression("lookup", *pairs)


def verdict(code: int, chain_name: str = "") -> Expression:
    """End the rule: DROP, ACCEPT, RETURN, or JUMP or GOTO a chain."""
    return expression("immediate", ("DREG", 0), ("DATA", nft.verdict_value(code, chain_name)))


def jump(chain_name: str) -> Expression:
    """Go through another chain and come back."""
    return verdict(nft.JUMP, chain_name)


def goto(chain_name: str) -> Expression:
    """Leave this chain for another."""
    return verdict(nft.GOTO, chain_name)


def reject() -> Expression:
    """Drop, and tell the sender that an administrator forbids it."""
    return expression("reject", ("TYPE", 2), ("ICMP_CODE", 3))


def reset() -> Expression:
    """Drop, and refuse the connection in the name of whom it was for."""
    return expression("reject", ("TYPE", 1))


def counter() -> Expression:
    """Count packets and bytes."""
    return expression("counter", ("BYTES", 0), ("PACKETS", 0))


def untracked() -> Expression:
    """Connection tracking takes no notice of the packet."""
    return {"attrs": [("NFTA_EXPR_NAME", "notrack")]}


def masquerade() -> Expression:
    """Give the packet the sender address of the interface it leaves by."""
    return expression("masq")


def redirect(family: int, address_register: int, port_register: int) -> Expression:
    """Rewrite the destination to the address and port in the registers."""
    pairs = [("FAMILY", family), ("REG_ADDR_MIN", address_register), ("REG_PROTO_MIN", port_register)]
    return expression("nat", ("TYPE", 1), *pairs)


def fib_type(flags: int, kind: int) -> list[Expression]:
    """Go on only if the destination is of a *kind* (2: local, RTN_LOCAL).

    flags: 2 for the whole host, 2 | 8 for the link the packet came by alone.
    """
    # NFT_FIB_RESULT_ADDRTYPE is the number 3, which pyroute2 takes for bits 0 and 1.
    number_three = {"NFT_FIB_RESULT_UNSPEC", "NFT_FIB_RESULT_OIF"}
    fib = [("NFTA_FIB_DREG", 1), ("NFTA_FIB_RESULT", number_three), ("NFTA_FIB_FLAGS", flags)]
    one: Expression = {"attrs": [("NFTA_EXPR_NAME", "fib"), ("NFTA_EXPR_DATA", {"attrs": fib})]}
    return [one, compare(struct.pack("=I", kind))]


def to_this_host() -> list[Expression]:
    """Go on only if the destination is an address of this host."""
    return fib_type(2, 2)


def ipv4() -> list[Expression]:
    """Go on only for IPv4, in a table that sees both."""
    return [meta("nfproto"), compare(bytes([nft.IPV4]))]


def ipv6() -> list[Expression]:
    """Go on only for IPv6, in a table that sees both."""
    return [meta("nfproto"), compare(bytes([nft.IPV6]))]


def protocol(number: int) -> list[Expression]:
    """Go on only for a transport protocol: 6 TCP, 17 UDP, 58 ICMPv6."""
    return [meta("l4proto"), compare(bytes([number]))]


def icmpv6(kind: int) -> list[Expression]:
    """Go on only for this type of ICMPv6."""
    return [*protocol(58), payload(2, 0, 1), compare(bytes([kind]))]


def neighbour_discovery(kind: int, *, routed: bool = False) -> list[Expression]:
    """Go on only for this type of it, from a neighbour: each router takes one off the hop limit. routed: only if that
    was done, or pretended. Source: RFC 4861, 6.1 and 7.1."""
    return [*icmpv6(kind), payload(1, 7, 1), compare(b"\xff", different=routed)]


def group_membership(kind: int) -> list[Expression]:
    """Go on only for this type of multicast listener report, to a group and with the hop limit 1: it is never routed.
    Source: RFC 2710, 3; RFC 3810, 5."""
    return [
        *icmpv6(kind), payload(1, 7, 1), compare(b"\x01"), payload(1, 24, 1), compare(b"\xff")
    ]  # fmt: skip
