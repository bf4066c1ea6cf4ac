"""A policy as elements of the firewall's sets, and what the resolver's answers add to them.

The messages are templates, as those of a start (network/messages.py): encoded once by pyroute2 (firewall/words.py)
and kept in run/networks/policies/words, so that neither a start nor the resolver needs it.
"""

from __future__ import annotations

import posix
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton, socket
from _struct import pack
from collections.abc import Iterable

from pyrun.network import health, messages
from pyrun.network.egress import boxes
from pyrun.network.egress.policy import Policy, covers, is_open
from pyrun.store import paths

# Of the file of templates: another number is another pyrun's.
VERSION = "2"

# An answer counts as long as its TTL says, and at least so long: programs keep an address for a while.
LEAST_S, _MOST_S = 60, 7 * 86_400
# A name somebody else is master of must not lead into the host or the metadata service of a cloud: where that is not of
# the link, it is named by its cloud.
NEVER = (
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure
    "192.0.0.192/32",  # Oracle
    "224.0.0.0/3",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",  # IPv4 by another name
    "fd00:ec2::/32",  # Amazon: instance data, credentials of pods
    "fd20:ce::254/128",  # Google
    "fd00:c1::a9fe:a9fe/128",  # Oracle
    "fd00:100::100:200/128",  # Alibaba
    "fd00:42::42/128",  # Scaleway
    "fd00:a9fe:a9fe::1/128",  # Akamai
    "fe80::/10",
    "ff00::/8",
)
_KEY, _KEY_END, _VALUE = 1, 10, 1

Answer = tuple[str, int]


def _file() -> str:
    return f"{paths.run()}/networks/policies/words"


def in_use() -> bool:
    """Whether anybody here has had a policy since boot: without the templates there can be no element."""
    return paths.exists(_file())


def forget_words() -> None:
    """Have the templates encoded anew by the next that needs them; fine if there are none."""
    try:
        posix.unlink(_file())
    except FileNotFoundError:
        pass


def words() -> messages.Template:
    """The templates of the messages; encoded now if that was not done since boot."""
    file = _file()
    try:
        found = messages.parsed(paths.read(file).decode("ascii"))
    except (OSError, ValueError):
        found = None
    if found is None or found.get("words") != VERSION:
        from pyrun.network.firewall import words as encoding

        text = encoding.text()
        paths.make(file.rpartition("/")[0])
        paths.replace(file, text.encode())
        found = messages.parsed(text)
        assert found is not None
    return found


def standing(template: messages.Template, policy: Policy, *, delete: bool = False) -> list[bytes]:
    """The messages that add (or delete) what a policy allows and denies; in the order in which each may be repeated."""
    prefix = "un" if delete else ""
    found = []
    for address in policy.addresses:
        six = ":" in address
        own = _packed(address)
        allowed = [("0.0.0.0/0", "*", "*"), ("::/0", "*", "*")] if is_open(policy) else policy.allow
        for (low, high), protocol, port in boxes.of_rules(allowed, six=six):
            ends = [own + _bytes(end, six) + _tail(number, at) for end, number, at in (
                (low, protocol[0], port[0]), (high, protocol[1], port[1])
            )]  # fmt: skip
            found.append(_filled(template, f"{prefix}allow", six, key=ends[0], end=ends[1]))
        for low, high in boxes.spans(policy.deny, six=six):
            key, end = own + _bytes(low, six), own + _bytes(high, six)
            found.append(_filled(template, f"{prefix}deny", six, key=key, end=end))
    return found


def policed(template: messages.Template, policy: Policy, *, delete: bool = False) -> list[bytes]:
    """The messages that put (or take) the container's addresses under the rules of policies."""
    name = "unpolice" if delete else "police"
    return [_filled(template, name, ":" in each, key=_packed(each)) for each in policy.addresses]


def admit(sock: socket, source: str, policy: Policy, name: str, answers: Iterable[Answer]) -> None:
    """Let the container reach what *name* resolved to, for the time of each answer: (address, TTL in seconds).

    To be called before the answer is sent. source: who asked; all addresses of its container count. Raises OSError.
    """
    rules = [rule for rule in policy.domains if covers(rule[0], name)]
    if policy.mode != "list" or not rules:
        return
    template = words()
    changes: list[bytes] = []
    for address, ttl_s in answers:
        if not _is_never(address):
            time = pack(">Q", min(max(ttl_s, LEAST_S), _MOST_S) * 1000)
            for own in policy.addresses or [source]:
                if (":" in own) == (":" in address):
                    for _, port, protocol in rules:
                        changes += _admission(template, own, address, port, protocol, time)
    if changes:
        messages.transact(sock, template, changes)


def _admission(
    template: messages.Template, own: str, address: str, port: str, protocol: str, time: bytes
) -> list[bytes]:
    """Added, deleted and added again: so that an answer that is there already gets the new time."""
    six = ":" in own
    key = _packed(own) + _packed(address)
    keys, name = [key], "admit"
    if port != "*":
        (first, last), name = boxes.ports(port), "admit-at"
        numbers = [number for number, _ in boxes.protocols(port, protocol, six=six)]
        keys = [key + _tail(number, at) for number in numbers for at in range(first, last + 1)]
    changes = []
    for each in keys:
        new = _filled(template, name, six, key=each, time=time)
        changes += [new, _filled(template, f"un{name}", six, key=each), new]
    return changes


def leftovers(sock: socket, template: messages.Template, addresses: Iterable[str]) -> list[bytes]:
    """The messages that delete whatever the sets still hold for *addresses*: of an older policy, of a former owner.

    What has a time may be gone by then: it is added before it is deleted.
    """
    found = []
    for address in addresses:
        six, own = ":" in address, _packed(address)
        for name in ("allow", "deny", "admit", "admit-at"):
            for key, end in _listed(messages.dump(sock, _filled(template, f"list-{name}", six))):
                if key.startswith(own):
                    more = {"end": end} if end else {}
                    if name.startswith("admit"):
                        found.append(_filled(template, name, six, key=key, time=pack(">Q", LEAST_S * 1000)))
                    found.append(_filled(template, f"un{name}", six, key=key, **more))
    return found


def holders(sock: socket) -> set[str]:
    """The addresses the sets hold a policy for; what has a time, and goes by itself, left out. Raises OSError."""
    template, found = words(), set[str]()
    for six, family, size in ((False, AF_INET, 4), (True, AF_INET6, 16)):
        for name in ("police", "allow", "deny"):
            try:
                listed = _listed(messages.dump(sock, _filled(template, f"list-{name}", six)))
            except FileNotFoundError:  # no table
                continue
            found.update([inet_ntop(family, key[:size]) for key, _ in listed])
    return found


def forget_flows(template: messages.Template, addresses: list[str]) -> tuple[list[bytes], list[str]]:
    """What makes connection tracking forget what the container began, so that it is judged anew: messages for IPv4, and
    for IPv6 undo lines (csrc/flows.c)."""
    sent = [_filled(template, "forget", False, key=_packed(each)) for each in addresses if ":" not in each]
    return sent, [f"flows6\tfrom\t{each}\t0\t0" for each in addresses if ":" in each]


def _listed(dump: bytes) -> list[tuple[bytes, bytes]]:
    """Key and end of every element of a dumped set."""
    found = []
    for element in health.set_elements(dump):
        told = health.attributes(element, 0)
        ends = [health.attributes(told.get(kind, b""), 0).get(_VALUE, b"") for kind in (_KEY, _KEY_END)]
        found.append((ends[0], ends[1]))
    return found


def _is_never(address: str) -> bool:
    number = int.from_bytes(_packed(address), "big")
    six = ":" in address
    return any(low <= number <= high for low, high in boxes.spans(NEVER, six=six))


def _filled(template: messages.Template, name: str, six: bool, **values: bytes) -> bytes:
    return messages.filled(template, f"{name}6" if six else name, **values)


def _packed(address: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)


def _bytes(number: int, six: bool) -> bytes:
    return number.to_bytes(16 if six else 4, "big")


def _tail(protocol: int, port: int) -> bytes:
    """Protocol and port as the last parts of a key."""
    return pack(">BxxxHxx", protocol, port)
