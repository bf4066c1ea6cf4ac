"""Encodes the messages of a start with pyroute2, with the names of each start's own values where those belong.

`encode` makes every message for given values. To find the places, it is called with values that occur nowhere
else and the result is searched for them; a test calls it with real values and compares with the filled
template, byte for byte, so pyroute2 stays the encoder of record. Cold: runs when a network is made.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from importlib.metadata import version

from pyrun import boot

boot.site_packages()

from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg  # noqa: E402
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: E402
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: E402
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # noqa: E402

from pyrun.network import firewall, host, messages, nft, tags  # noqa: E402
from pyrun.network.records import Network  # noqa: E402

Values = dict[str, bytes]

# What a start wants to know of its network beside the messages.
_KEPT = (
    "name", "bridge", "index", "gateway", "prefix", "range", "gateway6", "prefix6", "range6", "mtu", "internal", "icc",
    "dns_port", "adopted",
)  # fmt: skip

NEWLINK, DELLINK, GETLINK, SETLINK, NEWADDR, NEWROUTE = 16, 17, 18, 19, 20, 24
GETROUTE = 26
REQUEST_ACK = 0x005
_NO_DAD = 0x02  # IFA_F_NODAD: the address is ours by lease, nobody need be asked for a second
CREATE = 0x605  # request, acknowledge, create, fail if it exists
IFF_UP = 1
_DELETE_FLOWS = 1 << 8 | 2
# Which fields of a tuple count: linux/netfilter/nfnetlink_conntrack.h has them as CTA_FILTER_FLAG.
_BY_SOURCE, _BY_PROTOCOL, _BY_TARGET_PORT = 0x01, 0x08, 0x20

# As long as the real values, and not to be found elsewhere in the messages.
MARKS: Values = {
    "name": b"pyvXXXXXXXXXXXX",
    "alias": b"Y" * messages.ALIAS_BYTES,
    "inside": b"pyiZZZZZZZZZZZZ",
    "mac": bytes.fromhex("02a1b2c3d4e5"),
    "namespace": (0x7A7B7C7D).to_bytes(4, "little"),
    "index": (0x6A6B6C6D).to_bytes(4, "little"),
    "address": bytes([171, 205, 239, 17]),
    "broadcast": bytes([173, 207, 241, 19]),
    "gateway": bytes([175, 209, 243, 21]),
    "prefix": b"\x9b",
    "address6": bytes.fromhex("a1ab12cd34ef56a7b8c9dadbdcdddedf"),
    "key": b"\xe1\xe2\xe3\xe4\xe5\xe6\xe7\xe8",
    "key-at": b"\xd1\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xdb\xdc",
    "key6-at": bytes.fromhex("c1cb12cd34ef56a7b8c9cacbcccdcecf") + b"\xd5\xd6\xd7\xd8\xd9\xda\xdb\xdc",
    "target": b"\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8",
    "target6": bytes.fromhex("f1fb12fd34ff56f7b8f9f1f2f3f4f5f6") + b"\xe5\xe6\xe7\xe9",
    "protocol": b"\xb7",
    "port": b"\xc5\xc6",
}
_LEAST_MTU6 = 1280
# Marks of one kind of value that differ in length.
_STANDS_FOR = {"key-at": "key", "key6-at": "key", "target6": "target"}
# Marks so short that they may be elsewhere by chance, in the number of a bridge for one.
_ONLY_IN = {
    "prefix": ("address", "address6"),
    "protocol": ("forget", "forget6"),
    "port": ("forget", "forget6"),
}


def encode(network: Network, values: Values) -> dict[str, bytes]:
    """Every message of a start on *network* (as in network.json), for one set of values."""
    return {**_of_a_start(network, values), **firewall.checks(network)}


def _of_a_start(network: Network, values: Values) -> dict[str, bytes]:
    return {**_links(network, values), **_inside(values), **_firewall(values)}


def text(network: Network) -> str:
    """The content of the template file of *network*."""
    lines = [messages.FORMAT, f"pyroute2\t{version('pyroute2')}"]
    lines += [f"{key}\t{getattr(network, key)}" for key in _KEPT]
    lines.append(f"further\t{' '.join(network.shards)}")
    lines += [messages.line(name, each, _marks(name)) for name, each in _of_a_start(network, MARKS).items()]
    lines += [messages.line(name, each, ()) for name, each in firewall.checks(network).items()]
    return "\n".join([*lines, "end"]) + "\n"


def parsed(network: Network) -> messages.Template:
    """The template of *network*, as a start reads it back."""
    template = messages.parsed(text(network))
    assert template is not None
    return template


def _marks(name: str) -> list[tuple[str, bytes]]:
    """The marks that can be in the message *name*: (value they stand for, mark)."""
    return [
        (_STANDS_FOR.get(mark, mark), value)
        for mark, value in MARKS.items()
        if name in _ONLY_IN.get(mark, (name,))
    ]


def _encoded(
    cls: type, kind: int, flags: int, fields: dict[str, int], attributes: Sequence[tuple[str, object]]
) -> bytes:
    message = cls()
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    for key, value in fields.items():
        message[key] = value
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data)


# Of links that are to be deleted, which nobody else has: those of a removed network, and those whose container has
# ended, where the guard deletes what is in it still (csrc/guard_watch.c).
ENDED_GROUP = 0x70797275

# What a veth has in use if nothing is said. Unsaid, the kernel makes one for each processor and takes them out of use
# again, for which it waits twice, with the lock of all links held, until every processor has noticed.
_ONE_QUEUE = [("IFLA_NUM_TX_QUEUES", 1), ("IFLA_NUM_RX_QUEUES", 1)]

# A bridge port that may send a packet back to where it came from.
_HAIRPIN = {
    "attrs": [
        ("IFLA_INFO_SLAVE_KIND", "bridge"),
        ("IFLA_INFO_SLAVE_DATA", {"attrs": [("IFLA_BRPORT_MODE", 1)]}),
    ]
}


def _links(network: Network, values: Values) -> dict[str, bytes]:
    """Messages sent on the host's side."""
    name = ("IFLA_IFNAME", values["name"].decode())
    mtu = ("IFLA_MTU", network.mtu)
    peer = {
        "attrs": [
            ("IFLA_IFNAME", values["inside"].decode()),
            ("IFLA_ADDRESS", ":".join(f"{byte:02x}" for byte in values["mac"])),
            mtu,
            *_ONE_QUEUE,
            ("IFLA_NET_NS_FD", int.from_bytes(values["namespace"], "little")),
        ]
    }
    kind = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]}
    # No address of its own on a bridge port: nothing may reach the host through it. A kernel without IPv6 refuses this,
    # and so does a link that is too small for it.
    six = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]}
    quiet = [("IFLA_AF_SPEC", six)] if host.has_ipv6() and network.mtu >= _LEAST_MTU6 else []
    alias = ("IFLA_IFALIAS", values["alias"].decode())
    master = ("IFLA_MASTER", network.master_index or network.index)
    up = {"flags": IFF_UP, "change": IFF_UP}
    ended = ("IFLA_GROUP", ENDED_GROUP)
    return {
        "link": _encoded(ifinfmsg, NEWLINK, CREATE, {}, [name, mtu, *_ONE_QUEUE, ("IFLA_LINKINFO", kind)]),
        # Before it is up: of a link that is, these two tell everybody, and IPv6 then looks through all of its routes.
        "label": _encoded(ifinfmsg, SETLINK, REQUEST_ACK, {}, [name, alias, *quiet]),
        "join": _encoded(ifinfmsg, SETLINK, REQUEST_ACK, up, [name, master]),
        "down": _encoded(ifinfmsg, SETLINK, REQUEST_ACK, {"flags": 0, "change": IFF_UP}, [name, ended]),
        "hairpin": _encoded(ifinfmsg, NEWLINK, REQUEST_ACK, {}, [name, ("IFLA_LINKINFO", _HAIRPIN)]),
        "remove": _encoded(ifinfmsg, DELLINK, REQUEST_ACK, {}, [name]),
        "read-name": _encoded(ifinfmsg, GETLINK, 1, {}, [name]),
    }


def _inside(values: Values) -> dict[str, bytes]:
    """Messages sent in the container's namespace."""
    index, prefix = int.from_bytes(values["index"], "little"), values["prefix"][0]
    address, broadcast = socket.inet_ntoa(values["address"]), socket.inet_ntoa(values["broadcast"])
    own = [("IFA_LOCAL", address), ("IFA_ADDRESS", address), ("IFA_BROADCAST", broadcast)]
    way = [("RTA_GATEWAY", socket.inet_ntoa(values["gateway"])), ("RTA_OIF", index)]
    address6 = socket.inet_ntop(socket.AF_INET6, values["address6"])
    way6 = [("RTA_GATEWAY", address6), ("RTA_OIF", index)]
    up = {"index": index, "flags": IFF_UP, "change": IFF_UP}
    everywhere = {"family": socket.AF_INET, "table": 254, "proto": 3, "scope": 0, "type": 1}
    subnet = {"family": socket.AF_INET, "prefixlen": prefix, "index": index}
    subnet6 = {"family": socket.AF_INET6, "prefixlen": prefix, "index": index, "flags": _NO_DAD}
    return {
        "up": _encoded(ifinfmsg, NEWLINK, REQUEST_ACK, up, []),
        "address": _encoded(ifaddrmsg, NEWADDR, CREATE, subnet, own),
        "route": _encoded(rtmsg, NEWROUTE, CREATE, everywhere, way),
        "address6": _encoded(
            ifaddrmsg, NEWADDR, CREATE, subnet6, [("IFA_LOCAL", address6), ("IFA_ADDRESS", address6)]
        ),
        "route6": _encoded(rtmsg, NEWROUTE, CREATE, {**everywhere, "family": socket.AF_INET6}, way6),
        "read": _encoded(ifinfmsg, GETLINK, 1, {"index": index}, []),
        "way6": _encoded(
            rtmsg, GETROUTE, 1, {"family": socket.AF_INET6, "dst_len": 128}, [("RTA_DST", address6)]
        ),
    }


# What follows the name of a message of a published port -> (map, set of the closed, mark of the key, of where it leads)
_PUBLISHED = {
    "": (firewall.PORTS, firewall.CLOSED, "key", "target"),
    "-at": (firewall.PORTS_AT, firewall.CLOSED_AT, "key-at", "target"),
    "6": (firewall.PORTS6, firewall.CLOSED6, "key", "target6"),
    "6-at": (firewall.PORTS6_AT, firewall.CLOSED6_AT, "key6-at", "target6"),
}


def _firewall(values: Values) -> dict[str, bytes]:
    """Elements of published ports, what a link may send, and the flows to forget."""
    done: dict[str, bytes] = {}
    for more, (map_, closed, key, target) in _PUBLISHED.items():
        bare: list[nft.Item] = [{"key": values[key]}]
        leading: list[nft.Item] = [{"key": values[key], "data": values[target]}]
        for action, name, items in (("publish", map_, leading), ("shut", closed, bare)):
            done[action + more] = nft.elements(nft.NEW_ELEMENT, tags.table(), name, items)
            done[f"un{action}{more}"] = nft.elements(nft.DELETE_ELEMENT, tags.table(), name, bare)
    link = values["name"].decode()
    mac = ":".join(f"{byte:02x}" for byte in values["mac"])
    address = socket.inet_ntoa(values["address"])
    address6 = socket.inet_ntop(socket.AF_INET6, values["address6"])
    for name, kind in (("pin", nft.NEW_ELEMENT), ("unpin", nft.DELETE_ELEMENT)):
        (done[f"{name}-mac"],) = firewall.pinned_elements(kind, link, mac, [], [])
        (done[f"{name}-address"],) = firewall.pinned_elements(kind, link, "", [address], [])
        (done[f"{name}-address6"],) = firewall.pinned_elements(kind, link, "", [], [address6])
        done[f"{name}-guest"] = firewall.guest(kind, address)
        done[f"{name}-guest6"] = firewall.guest(kind, address6)
        (done[f"{name}-alone"],) = firewall.pinned_elements(kind, link, "", [], [], alone=True)
    for name, kind in (("switch", nft.NEW_ELEMENT), ("unswitch", nft.DELETE_ELEMENT)):
        done |= {f"{name}{version}": firewall.switch(kind, version) for version in (4, 6)}
    return {"begin": nft.marker(begin=True), **done, **_forgetting(values), "end": nft.marker(begin=False)}


def _forgetting(values: Values) -> dict[str, bytes]:
    """Flows to a published port, and flows that a container answers; those of IPv6 are csrc/flows.c's to find."""
    port = int.from_bytes(values["port"], "big")
    protocol = ("CTA_PROTO_NUM", values["protocol"][0])
    towards = [("CTA_TUPLE_PROTO", {"attrs": [protocol, ("CTA_PROTO_DST_PORT", port)]})]
    source = ("CTA_IP_V4_SRC", socket.inet_ntoa(values["address"]))
    return {
        "forget": _flows(socket.AF_INET, "ORIG", towards, _BY_PROTOCOL | _BY_TARGET_PORT),
        "forget6": _flows(socket.AF_INET6, "ORIG", towards, _BY_PROTOCOL | _BY_TARGET_PORT),
        "forget-target": _flows(socket.AF_INET, "REPLY", [("CTA_TUPLE_IP", {"attrs": [source]})], _BY_SOURCE),
    }


def _flows(family: int, direction: str, tuple_: Sequence[tuple[str, object]], by: int) -> bytes:
    """Delete every flow whose tuple in one direction agrees in what *by* tells."""
    other = "REPLY" if direction == "ORIG" else "ORIG"
    wanted = [(f"CTA_FILTER_{direction}_FLAGS", by), (f"CTA_FILTER_{other}_FLAGS", 0)]
    attributes = [(f"CTA_TUPLE_{direction}", {"attrs": tuple_}), ("CTA_FILTER", {"attrs": sorted(wanted)})]
    fields = {"nfgen_family": family, "version": 0, "res_id": 0}
    return _encoded(nfct_msg, _DELETE_FLOWS, REQUEST_ACK, fields, attributes)
