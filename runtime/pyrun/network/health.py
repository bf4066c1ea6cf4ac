"""Does a network still stand as it was made? Asked at every start, in some 50 microseconds.

Somebody may have deleted the bridge, set it down or taken the gateway's address from it, flushed the ruleset, switched
forwarding off or set up a firewall that drops what it forwards, or what comes in for the resolver. What is asked of the
firewall is part of the network's template (firewall/tables.py: checks); healing is in bridge.py.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton, socket
from _struct import pack, unpack_from

from pyrun.network import messages
from pyrun.store import paths

# In the comment of every rule we put into somebody else's table.
MARK = "pyrun: containers"

# Where the kernel tells whether there are tables of iptables-legacy, which nft does not show.
LEGACY_TABLES = "/proc/net/ip_tables_names"
LEGACY_TABLES6 = "/proc/net/ip6_tables_names"

_CHAIN_POLICY, _CHAIN_USE = 5, 6
_DROP = 0
_SET_ELEMENTS = 3  # NFTA_SET_ELEM_LIST_ELEMENTS

# Of linux/netconf.h: what is set for all interfaces together, and whether that is to forward.
_RTM_GETNETCONF, _NETCONFA_IFINDEX, _NETCONFA_FORWARDING = 82, 1, 2
_NLM_F_REQUEST, _NLMSG_ERROR = 1, 2
_NETCONFA_IFINDEX_ALL = -1
_NETCONF_HEADER_BYTES = 4

# Of linux/rtnetlink.h: the way to an address; that it is one of this host's own.
_RTM_GETROUTE, _RTA_DST, _ROUTE_TYPE_AT, _RTN_LOCAL = 26, 1, 7, 2


def ailments(template: messages.Template, sock: socket) -> list[str]:
    """What is wrong: any of "bridge", "table", "forwarding", "policy"; empty when all is well.

    sock: a netfilter socket in the network namespace of the host.
    """
    found = []
    own = template.get("adopted") != "True"  # its owner sees to the bridge itself
    try:
        name = template["bridge"]
        if messages.index_of(sock, name) != int(template["index"]) or (
            own and not messages.is_up(sock, name)
        ):
            found.append("bridge")
    except OSError:
        found.append("bridge")
    if not standing_table(template, sock):
        found.append("table")
    forwards, addressed = _routed(template)
    if own and not addressed and "bridge" not in found:
        found.append("bridge")
    if not forwards:
        found.append("forwarding")
    if not standing_forward(template, sock):
        found.append("policy")
    return found


def forwards(template: messages.Template) -> bool:
    """Whether this host forwards what the network sends."""
    return _routed(template)[0]


def _routed(template: messages.Template) -> tuple[bool, bool]:
    """Whether ip_forward, and what IPv6 has for it, are on; and the gateways are this host's addresses.

    Asked all at once, and not read from /proc/sys/net: finding a file there takes the longer the more network
    namespaces there are. Source: man 7 rtnetlink.
    """
    gateways = [template[key] for key in ("gateway", "gateway6") if template.get(key)]
    families = (AF_INET, AF_INET6) if template.get("gateway6") else (AF_INET,)
    questions = [*map(_forwarding, families), *map(_way, gateways)]
    sock = messages.opened(messages.NETLINK_ROUTE)
    try:
        sock.send(b"".join(questions))
        answers = [messages.split(sock.recv(65536))[0] for _ in questions]
    finally:
        sock.close()
    forwards = [
        attributes(answer, _NETCONF_HEADER_BYTES).get(_NETCONFA_FORWARDING) == pack("=i", 1)
        for kind, answer in answers[: len(families)]
        if kind != _NLMSG_ERROR
    ]
    ways = [
        kind != _NLMSG_ERROR and way[_ROUTE_TYPE_AT] == _RTN_LOCAL for kind, way in answers[len(families) :]
    ]
    return len(forwards) == len(families) and all(forwards), all(ways)


def _forwarding(family: int) -> bytes:
    all_ = pack("=HHi", 8, _NETCONFA_IFINDEX, _NETCONFA_IFINDEX_ALL)
    return pack("=IHHIIB3x", 28, _RTM_GETNETCONF, _NLM_F_REQUEST, 0, 0, family) + all_


def _way(address: str) -> bytes:
    family = AF_INET6 if ":" in address else AF_INET
    packed = inet_pton(family, address)
    size = len(packed)
    header = pack("=IHHIIBB10x", 32 + size, _RTM_GETROUTE, _NLM_F_REQUEST, 0, 0, family, 8 * size)
    return header + pack("=HH", 4 + size, _RTA_DST) + packed


def standing_table(template: messages.Template, sock: socket) -> bool:
    """Whether our chains are there, with rules in them."""
    for name in ("table", "bridge-table"):
        if f"message {name}" not in template:
            continue
        number, answer = messages.ask(sock, messages.filled(template, name))
        # What uses a chain are its rules, and a rule that leads to it.
        if number or int.from_bytes(attributes(answer, 4).get(_CHAIN_USE, b""), "big") < 2:
            return False
    return True


def standing_forward(template: messages.Template, sock: socket) -> bool:
    """Whether nobody drops what containers send or the resolver is asked, or our marked rules are in front of that."""
    for name in template:
        if name.startswith("message rules") and not _passed(template, sock, name[len("message rules") :]):
            return False
    return not _unseen(LEGACY_TABLES) and not (template.get("gateway6") and _unseen(LEGACY_TABLES6))


def _passed(template: messages.Template, sock: socket, place: str) -> bool:
    """Whether one place of another firewall lets us through: a rule of ours is there, or the chain drops nothing."""
    if (
        f"message rule{place}" in template
        and not messages.ask(sock, messages.filled(template, f"rule{place}"))[0]
    ):
        return True
    if f"message policy{place}" in template:
        number, answer = messages.ask(sock, messages.filled(template, f"policy{place}"))
        if number or policy(answer) != _DROP:
            return True
    try:
        # A rule of ours with another handle: somebody healed the place meanwhile, for another network.
        return MARK.encode() in messages.dump(sock, messages.filled(template, f"rules{place}"))
    except OSError:
        return False


def _unseen(listed: str) -> bool:
    """Whether there is a table filter of iptables-legacy which nobody here has looked after (firewall/legacy.py)."""
    try:
        if b"filter\n" not in paths.read(listed):
            return False
    except OSError:
        return False
    try:
        paths.read(legacy_note(listed))
    except OSError:
        return True
    return False


def legacy_note(listed: str) -> str:
    """The file that says that the tables of iptables-legacy or ip6tables-legacy were looked after."""
    return f"{paths.run()}/networks/.legacy-{listed.rpartition('/')[2]}"


def policy(chain: bytes) -> int:
    """The policy in the kernel's answer about a chain; accept (1) if it is no base chain."""
    value = attributes(chain, 4).get(_CHAIN_POLICY)
    return int.from_bytes(value, "big") if value else 1


def attributes(payload: bytes, offset: int) -> dict[int, bytes]:
    """The netlink attributes after *offset* bytes of header: type without flags -> value."""
    found = {}
    while offset + 4 <= len(payload):
        length, kind = unpack_from("=HH", payload, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = payload[offset + 4 : offset + length]
        offset += length + 3 & ~3
    return found


def set_elements(dump: bytes) -> list[bytes]:
    """The elements of a set that was dumped, each as its attributes."""
    return [
        element
        for _, payload in messages.split(dump)
        for element in attributes_in_order(attributes(payload, 4).get(_SET_ELEMENTS, b""))
    ]


def attributes_in_order(payload: bytes) -> list[bytes]:
    """The values of attributes that are a list."""
    found = []
    offset = 0
    while offset + 4 <= len(payload):
        (length,) = unpack_from("=H", payload, offset)
        if length < 4:
            break
        found.append(payload[offset + 4 : offset + length])
        offset += length + 3 & ~3
    return found
