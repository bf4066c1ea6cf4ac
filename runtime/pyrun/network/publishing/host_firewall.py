"""Would the host's own firewall let a published port in? Docker never asks; pyrun does, and leaves it closed if not.

A redirected connection is forwarded and never meets the rules the administrator wrote for what enters this host. So a
port whose original address and number those rules would not let in is put into a set `closed...` of our table: it is
published to this host and its containers only, which is told in a line. --publish-through-firewall overrules.

`suspected` is asked by every start that publishes something: a few files and a dump of tables, of chains too where
somebody else has tables. Only where somebody else filters what enters does `closed` read the rules themselves
(host_rules/, cold): ufw's, firewalld's or anybody's, as the kernel has them at this moment.
"""

from __future__ import annotations

from _socket import socket
from _struct import pack

from pyrun.network import health, messages
from pyrun.network.publishing.ports import ANY, ANY6, Port
from pyrun.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrun.network.publishing.host_rules.judge import Hook, Packet

# Of nftables: a dump of all tables, or chains, of all families, the same bytes for everybody (a test has pyroute2
# encode them).
DUMP_TABLES, DUMP_CHAINS = (pack("=IHHIIBBH", 20, 10 << 8 | kind, 0x301, 0, 0, 0, 0, 0) for kind in (1, 4))
_HOOK, _POLICY, _USE, _TYPE, _HOOK_NUMBER = 4, 5, 6, 7, 1
# How the name of a table of ours begins, whichever run directory's (tags.py), and where: it is the first attribute.
_OURS, _NAME_AT = (b"pyrun\0", b"pyrun-"), 8
INPUT, FORWARD = ((1).to_bytes(4, "big"), (2).to_bytes(4, "big"))  # NF_INET_LOCAL_IN, NF_INET_FORWARD
_LAST = (2, 3)  # NLMSG_ERROR, NLMSG_DONE

_LEGACY = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")


def outside(published: Iterable[Port]) -> list[Port]:
    """Those of the ports that anybody outside this host could reach at all."""
    return [port for port in published if not (port[0].startswith("127.") or port[0] == "::1")]


def suspected(netfilter: socket, hook: bytes = INPUT) -> bool:
    """Whether anybody else filters what enters this host, or with FORWARD what is forwarded: ufw, firewalld, legacy
    iptables, a chain of that hook that drops by policy or has rules."""
    if any(b"filter" in _read(path) for path in _LEGACY):
        return True
    tables = _dumped(netfilter, DUMP_TABLES)
    if all(kind in _LAST or payload.startswith(_OURS, _NAME_AT) for kind, payload in messages.split(tables)):
        return False
    if b"firewalld\0" in tables:
        return True
    for _, payload in messages.split(_dumped(netfilter, DUMP_CHAINS)):
        if payload.startswith(_OURS, _NAME_AT):  # most of them: not worth a closer look
            continue
        told = health.attributes(payload, 4)
        if health.attributes(told.get(_HOOK, b""), 0).get(_HOOK_NUMBER) != hook:
            continue
        # it drops by policy, or has rules of which the last may refuse the rest
        if told.get(_POLICY) == bytes(4) or (
            told.get(_TYPE) == b"filter\0" and told.get(_USE, bytes(4)) != bytes(4)
        ):
            return True
    return False


def _dumped(netfilter: socket, request: bytes) -> bytes:
    """All that the kernel answers."""
    netfilter.send(request)
    collected = b""
    while True:
        # a datagram of a dump is no larger; a buffer like that of messages.dump costs more than all the rest
        data = netfilter.recv(32768)
        collected += data
        if any(kind in _LAST for kind, _ in messages.split(data)):
            return collected


def _read(path: str) -> bytes:
    try:
        return paths.read(path)
    except OSError:
        return b""


def closed(published: Iterable[Port]) -> dict[Port, str]:
    """The ports which the host's firewall would not let in from outside, each with the reason in words."""
    from pyrun.network.publishing.host_rules import reading

    return refused(published, reading.hooks(), reading.uplinks())


def refused(published: Iterable[Port], hooks: list[Hook], uplinks: list[str]) -> dict[Port, str]:
    """The same for rules that have been read: by each of *hooks*, on any of the interfaces *uplinks*."""
    from pyrun.network.publishing.host_rules import judge

    found: dict[Port, str] = {}
    known: dict[tuple[str, int, str], str] = {}
    for port in outside(published):
        host, number, _, protocol = port
        key = (host, number, protocol)
        if key not in known:
            address = "" if host in (ANY, ANY6, "") else host
            packets = [judge.Packet(protocol, number, ":" in host, uplink, address) for uplink in uplinks]
            known[key] = strictest(packets, hooks)
        if known[key]:
            found[port] = known[key]
    return found


def strictest(packets: list[Packet], hooks: list[Hook]) -> str:
    """Why one of the interfaces does not let its packet in; which, if others do. "" if all do."""
    from pyrun.network.publishing.host_rules import judge

    reasons = {
        packet.interface: next((reason for hook in hooks if (reason := judge.refusal(hook, packet))), "")
        for packet in packets
    }
    refusing = [interface for interface, reason in reasons.items() if reason]
    if not refusing:
        return ""
    where = f" on {' and '.join(refusing)}" if len(refusing) < len(reasons) else ""
    return reasons[refusing[0]] + where
