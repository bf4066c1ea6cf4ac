"""Encodes the messages of egress policies with pyroute2, with marks where each use puts its own values.

The same as templates.py does for a start; what uses them is in network/egress/elements.py. Cold: once after a boot.
"""

from __future__ import annotations

import socket
from importlib.metadata import version

from pyrun import boot

boot.site_packages()

from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg  # noqa: E402

from pyrun.network import messages, nft, tags  # noqa: E402
from pyrun.network.egress.elements import VERSION  # noqa: E402
from pyrun.network.firewall import names  # noqa: E402

_REQUEST_ACK = 0x005
_DELETE_FLOWS = 1 << 8 | 2
_BY_SOURCE = 0x01  # CTA_FILTER_FLAG(CTA_IP_SRC)

Values = dict[str, bytes]


def marks(size: int) -> Values:
    """Values that occur nowhere else in a message, a key of *size* bytes among them."""
    return {
        "key": bytes(0x80 | (number * 29 + 5) % 128 for number in range(size)),
        "end": bytes(0x80 | (number * 31 + 64) % 128 for number in range(size)),
        "time": bytes.fromhex("00a7b3c9d5e1f7fb"),
    }


# Message -> (set without and with IPv6, parts of the key beside the container's address, a range?, a time?)
_SETS = {
    "police": (names.POLICED, names.POLICED6, 0, 0, False, False),
    "allow": (names.ALLOWED, names.ALLOWED6, 1, 8, True, False),
    "deny": (names.DENIED, names.DENIED6, 1, 0, True, False),
    "admit": (names.ADMITTED, names.ADMITTED6, 1, 0, False, True),
    "admit-at": (names.ADMITTED_AT, names.ADMITTED6_AT, 1, 8, False, True),
}


def encode(name: str, six: bool, values: Values) -> dict[str, bytes]:
    """The messages that add, delete and list elements of the set of *name*."""
    set_, _, _, _, is_range, is_timed = _chosen(name, six)
    item: nft.Item = {"key": values["key"]}
    if is_range:
        item["key_end"] = values["end"]
    timed: nft.Item = {**item, "timeout_ms": int.from_bytes(values["time"], "big")} if is_timed else item
    suffix = "6" if six else ""
    return {
        f"{name}{suffix}": nft.elements(nft.NEW_ELEMENT, tags.table(), set_, [timed]),
        f"un{name}{suffix}": nft.elements(nft.DELETE_ELEMENT, tags.table(), set_, [item]),
        f"list-{name}{suffix}": nft.get_elements(tags.table(), set_),
    }


def key_bytes(name: str, six: bool) -> int:
    """How long a key of the set of *name* is."""
    _, _, others, tail, _, _ = _chosen(name, six)
    return (16 if six else 4) * (1 + others) + tail


def _chosen(name: str, six: bool) -> tuple[str, str, int, int, bool, bool]:
    four_name, six_name, others, tail, is_range, is_timed = _SETS[name]
    return six_name if six else four_name, six_name, others, tail, is_range, is_timed


def forget(address: bytes) -> bytes:
    """Forget every flow that came from *address*, of IPv4; those of IPv6 are csrc/flows.c's to find."""
    family = socket.AF_INET
    source = ("CTA_IP_V4_SRC", socket.inet_ntop(family, address))
    message = nfct_msg()
    message["header"]["type"], message["header"]["flags"] = _DELETE_FLOWS, _REQUEST_ACK
    message["nfgen_family"], message["version"], message["res_id"] = family, 0, 0
    message["attrs"] = [
        ("CTA_TUPLE_ORIG", {"attrs": [("CTA_TUPLE_IP", {"attrs": [source]})]}),
        ("CTA_FILTER", {"attrs": [("CTA_FILTER_ORIG_FLAGS", _BY_SOURCE), ("CTA_FILTER_REPLY_FLAGS", 0)]}),
    ]
    message.encode()
    return bytes(message.data)


def text() -> str:
    """The content of the file of templates."""
    lines = [messages.FORMAT, f"words\t{VERSION}", f"pyroute2\t{version('pyroute2')}"]
    encoded = {"begin": nft.marker(begin=True), "end": nft.marker(begin=False)}
    values: dict[str, Values] = {name: {} for name in encoded}
    for six in (False, True):
        for name in _SETS:
            these = marks(key_bytes(name, six))
            made = encode(name, six, these)
            encoded.update(made)
            values.update(dict.fromkeys(made, these))
    values["forget"] = marks(4)
    encoded["forget"] = forget(values["forget"]["key"])
    values[names.MUTE] = values[f"un{names.MUTE}"] = marks(16)
    for name, kind in ((names.MUTE, nft.NEW_ELEMENT), (f"un{names.MUTE}", nft.DELETE_ELEMENT)):
        item: nft.Item = {"key": values[name]["key"]}
        encoded[name] = nft.elements(kind, tags.table(), names.MUTE, [item], nft.BRIDGE)
    lines += [messages.line(name, message, values[name].items()) for name, message in encoded.items()]
    return "\n".join([*lines, "end"]) + "\n"
