"""nftables messages by pyroute2's message classes: tables, chains, sets, elements and rules.

What is here says how a piece of a ruleset is encoded; the expressions rules are made of are in
firewall/expressions.py, and which pieces there are is in firewall/. Where a piece belongs to another table than
`inet`, its family is given.

pyroute2 0.9.7 has no place for the lengths of a key's parts (`_Set`), which sets of ranges need.
Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pyrun import boot

boot.site_packages()

from pyroute2.netlink import nla  # noqa: E402
from pyroute2.netlink.nfnetlink import nfgen_msg  # noqa: E402
from pyroute2.netlink.nfnetlink.nftsocket import (  # noqa: E402
    nft_chain_msg,
    nft_rule_msg,
    nft_set_elem_list_msg,
    nft_set_msg,
    nft_table_msg,
)

REQUEST, ACK, DUMP, CREATE, EXCLUSIVE, APPEND = 0x001, 0x004, 0x300, 0x400, 0x200, 0x800
_SUBSYSTEM = 10 << 8
NEW_TABLE, GET_TABLE, DELETE_TABLE = 0, 1, 2
NEW_CHAIN, GET_CHAIN = 3, 4
NEW_RULE, GET_RULE, DELETE_RULE = 6, 7, 8
NEW_SET = 9
NEW_ELEMENT, GET_ELEMENT, DELETE_ELEMENT = 12, 13, 14

ANY_FAMILY, INET, IPV4, BRIDGE, IPV6 = 0, 1, 2, 7, 10
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = 0, 1, 2, 3, 4
DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5

# Data types as `nft list` needs them to print keys; several in one key are joined by six bits each.
VERDICT, PROTOCOL_FAMILY, ADDRESS, ADDRESS6, ETHER, PROTOCOL, SERVICE, INTERFACE = (
    0xFFFFFF00,
    2,
    7,
    8,
    9,
    12,
    13,
    41,
)
# Bytes of a value in a key; each part of a key begins at a multiple of four.
_BYTES = {PROTOCOL_FAMILY: 1, ADDRESS: 4, ADDRESS6: 16, ETHER: 6, PROTOCOL: 1, SERVICE: 2, INTERFACE: 16}

Expression = dict[str, object]
Item = dict[str, object]


class _Set(nft_set_msg):  # type: ignore[misc]
    class set_desc(nla):  # type: ignore[misc]
        nla_map = (
            ("NFTA_SET_DESC_UNSPEC", "none"),
            ("NFTA_SET_DESC_SIZE", "be32"),
            ("NFTA_SET_DESC_CONCAT", "*part"),
        )

        class part(nla):  # type: ignore[misc]
            header_type = 1
            nla_map = (("NFTA_SET_FIELD_UNSPEC", "none"), ("NFTA_SET_FIELD_LEN", "be32"))


def message(
    cls: type, kind: int, flags: int, attributes: Sequence[tuple[str, object]], family: int = INET
) -> bytes:
    """One message of the nftables subsystem, encoded."""
    encoded = cls()
    encoded["header"]["type"] = _SUBSYSTEM | kind
    encoded["header"]["flags"] = flags
    encoded["nfgen_family"] = family
    encoded["version"] = 0
    encoded["res_id"] = 0
    encoded["attrs"] = attributes
    encoded.encode()
    return bytes(encoded.data)


def marker(begin: bool) -> bytes:
    """The first or last message of a transaction."""
    encoded = nfgen_msg()
    encoded["header"]["type"] = 0x10 if begin else 0x11
    encoded["header"]["flags"] = REQUEST
    encoded["res_id"] = _SUBSYSTEM >> 8
    encoded.encode()
    return bytes(encoded.data)


def table(kind: int, name: str, family: int = INET, comment: str = "") -> bytes:
    """Make (NEW_TABLE), delete or ask for a table."""
    flags = REQUEST if kind == GET_TABLE else REQUEST | ACK | (CREATE if kind == NEW_TABLE else 0)
    attributes: list[tuple[str, object]] = [("NFTA_TABLE_NAME", name)]
    if comment and kind == NEW_TABLE:
        attributes.append(("NFTA_TABLE_USERDATA", comment))
    return message(nft_table_msg, kind, flags, attributes, family)


def chain(
    table_name: str,
    name: str,
    hook: int | None = None,
    priority: int = 0,
    kind: str = "filter",
    family: int = INET,
) -> bytes:
    """A chain; with *hook* the kernel calls it."""
    attributes: list[tuple[str, object]] = [("NFTA_CHAIN_TABLE", table_name), ("NFTA_CHAIN_NAME", name)]
    if hook is not None:
        place = {"attrs": [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", priority)]}
        attributes += [("NFTA_CHAIN_HOOK", place), ("NFTA_CHAIN_TYPE", kind)]
    return message(nft_chain_msg, NEW_CHAIN, REQUEST | ACK | CREATE | EXCLUSIVE, attributes, family)


def get_chain(family: int, table_name: str, name: str) -> bytes:
    """Ask for one chain: its policy, and how many rules are in it, among others."""
    attributes = [("NFTA_CHAIN_TABLE", table_name), ("NFTA_CHAIN_NAME", name)]
    return message(nft_chain_msg, GET_CHAIN, REQUEST, attributes, family)


def get_chains() -> bytes:
    """Ask for every chain of every table."""
    return message(nft_chain_msg, GET_CHAIN, REQUEST | DUMP, [], ANY_FAMILY)


def set_(table_name: str, name: str, key: list[int], number: int, **more: object) -> bytes:
    """A set, or with data=[types] a map.

    more: interval=True (elements are ranges), timeout=True (elements may end by themselves), family.
    """
    data, family = more.get("data"), more.get("family", INET)
    flags = {flag for flag in ("interval", "timeout") if more.get(flag)} | ({"map"} if data else set())
    concatenated = {"NFT_SET_CONCAT"} if "interval" in flags and len(key) > 1 else set[str]()
    attributes: list[tuple[str, object]] = [
        ("NFTA_SET_TABLE", table_name),
        ("NFTA_SET_NAME", name),
        ("NFTA_SET_FLAGS", {f"NFT_SET_{flag.upper()}" for flag in flags} | concatenated),
        ("NFTA_SET_KEY_TYPE", _joined(key)),
        ("NFTA_SET_KEY_LEN", sum(_lengths(key))),
    ]
    if isinstance(data, list):
        attributes.append(("NFTA_SET_DATA_TYPE", _joined(data)))
        if data != [VERDICT]:
            attributes.append(("NFTA_SET_DATA_LEN", sum(_lengths(data))))
    attributes.append(("NFTA_SET_ID", number))
    if concatenated:
        parts = [{"attrs": [("NFTA_SET_FIELD_LEN", _BYTES[part])]} for part in key]
        attributes.append(("NFTA_SET_DESC", {"attrs": [("NFTA_SET_DESC_CONCAT", parts)]}))
    if INTERFACE in key:
        # Only for `nft list`: names are printed from their first byte on.
        attributes.append(("NFTA_SET_USERDATA", [("NFTNL_UDATA_SET_KEYBYTEORDER", struct.pack("=I", 1))]))
    assert isinstance(family, int)
    return message(_Set, NEW_SET, REQUEST | ACK | CREATE | EXCLUSIVE, attributes, family)


def _joined(types: list[int]) -> int:
    """One number for a key made of several types."""
    number = 0
    for one in types:
        number = number << 6 | one
    return number


def _lengths(types: list[int]) -> list[int]:
    return [_BYTES[one] + 3 & ~3 for one in types]


def elements(kind: int, table_name: str, name: str, items: list[Item], family: int = INET) -> bytes:
    """Add, ask for or delete elements. Each item:

    {"key": bytes, "data": bytes | verdict, "timeout_ms": int} and either "end": True for the end of a range of a
    simple key, or "key_end": bytes for the range of a key of several parts.
    """
    whole = [
        ("NFTA_SET_ELEM_LIST_TABLE", table_name),
        ("NFTA_SET_ELEM_LIST_SET", name),
        ("NFTA_SET_ELEM_LIST_ELEMENTS", [_item(item) for item in items]),
    ]
    flags = REQUEST | ACK | (CREATE if kind == NEW_ELEMENT else 0)
    return message(nft_set_elem_list_msg, kind, flags, whole, family)


def _item(item: Item) -> dict[str, object]:
    attributes: list[tuple[str, object]] = [("NFTA_SET_ELEM_KEY", _value(item["key"]))]
    if "key_end" in item:
        attributes.append(("NFTA_SET_ELEM_KEY_END", _value(item["key_end"])))
    if "data" in item:
        attributes.append(("NFTA_SET_ELEM_DATA", _value(item["data"])))
    if item.get("end"):
        attributes.append(("NFTA_SET_ELEM_FLAGS", {1}))  # NFT_SET_ELEM_INTERVAL_END
    if "timeout_ms" in item:
        attributes.append(("NFTA_SET_ELEM_TIMEOUT", item["timeout_ms"]))
    return {"attrs": attributes}


def get_elements(table_name: str, name: str, family: int = INET) -> bytes:
    """Ask for every element of a set."""
    names = [("NFTA_SET_ELEM_LIST_TABLE", table_name), ("NFTA_SET_ELEM_LIST_SET", name)]
    return message(nft_set_elem_list_msg, GET_ELEMENT, REQUEST | DUMP, names, family)


def _value(data: object) -> object:
    return {"attrs": [("NFTA_DATA_VALUE", data)]} if isinstance(data, bytes) else data


def verdict_value(code: int, chain_name: str = "") -> dict[str, object]:
    """A verdict as the data of a map's element; JUMP and GOTO name a chain."""
    attributes: list[tuple[str, object]] = [("NFTA_VERDICT_CODE", code)]
    if chain_name:
        attributes.append(("NFTA_VERDICT_CHAIN", chain_name))
    return {"attrs": [("NFTA_DATA_VERDICT", {"attrs": attributes})]}


def rule(table_name: str, chain_name: str, *parts: Expression | list[Expression], **more: object) -> bytes:
    """A rule at the end of its chain; head=True puts it first; comment and family as wanted."""
    expressions: list[Expression] = []
    for part in parts:
        expressions += part if isinstance(part, list) else [part]
    attributes: list[tuple[str, object]] = [
        ("NFTA_RULE_TABLE", table_name),
        ("NFTA_RULE_CHAIN", chain_name),
        ("NFTA_RULE_EXPRESSIONS", expressions),
    ]
    if more.get("comment"):
        attributes.append(("NFTA_RULE_USERDATA", str(more["comment"])))
    flags = REQUEST | ACK | CREATE | (0 if more.get("head") else APPEND)
    family = more.get("family", INET)
    assert isinstance(family, int)
    return message(nft_rule_msg, NEW_RULE, flags, attributes, family)


def get_rules(family: int, table_name: str = "", chain_name: str = "") -> bytes:
    """Ask for all rules of one chain, or of all tables of a family."""
    names = [("NFTA_RULE_TABLE", table_name), ("NFTA_RULE_CHAIN", chain_name)]
    attributes = [(key, value) for key, value in names if value]
    return message(nft_rule_msg, GET_RULE, REQUEST | DUMP, attributes, family)


def get_rule(family: int, table_name: str, chain_name: str, handle: int) -> bytes:
    """Ask for one rule by the handle the kernel gave it."""
    attributes = [
        ("NFTA_RULE_TABLE", table_name),
        ("NFTA_RULE_CHAIN", chain_name),
        ("NFTA_RULE_HANDLE", handle),
    ]
    return message(nft_rule_msg, GET_RULE, REQUEST, attributes, family)


def delete_rule(family: int, table_name: str, chain_name: str, handle: int) -> bytes:
    """Delete one rule by the handle the kernel gave it."""
    attributes = [
        ("NFTA_RULE_TABLE", table_name),
        ("NFTA_RULE_CHAIN", chain_name),
        ("NFTA_RULE_HANDLE", handle),
    ]
    return message(nft_rule_msg, DELETE_RULE, REQUEST | ACK, attributes, family)
