"""Which published ports are closed to the outside, judged anew for all of them: after a flush, and by `network reload`.

The rules of the host's own firewall change, and nobody tells us. At a start they are asked for what it publishes
(publication.closed); here for everything that is published, but for what was to go through the firewall.
"""

from __future__ import annotations

import errno
from _socket import AF_INET, AF_INET6, inet_ntop, socket
from _struct import unpack

from pyrun.network import (
    claims,
    elements,
    firewall,
    health,
    host,
    messages,
    nft,
    records,
    tags,
)
from pyrun.network.publishing import host_firewall, ports, publication

# Of the kernel's answer: an element's key, the bytes of that.
_KEY, _VALUE = 1, 1


def messages_for(template: messages.Template, netfilter: socket) -> list[bytes]:
    """The elements of every port that is to be closed."""
    return [elements.shut(template, "shut", *each) for each in sorted(refused(netfilter))]


def refused(netfilter: socket) -> set[publication.Closed]:
    """The ports that are to be closed, of all that are published."""
    outside = host_firewall.outside(port for port, _ in records.published_ports())
    if not outside or not host_firewall.suspected(netfilter):
        return set()
    obeying = [port for port in outside if not through_firewall(port)]
    return {(host, number, protocol) for host, number, _, protocol in host_firewall.closed(obeying)}


def through_firewall(port: ports.Port) -> bool:
    """Whether the port was published whatever the host's firewall lets in."""
    return publication.THROUGH_FIREWALL in claims.lines(ports.path(port))


def anew() -> list[str]:
    """Judge all again: close what is closed now, open what is open now, in one transaction. A line for each port.

    Raises: OSError.
    """
    with host.locked():
        names = [network.name for network in records.all_networks()]
        template = next((found for name in names if (found := messages.load(name))), None)
        if template is None:
            return []
        sock = messages.opened(messages.NETLINK_NETFILTER)
        before, after = standing(sock), refused(sock)
        changes = [elements.shut(template, "shut", *each) for each in sorted(after - before)]
        changes += [elements.shut(template, "unshut", *each) for each in sorted(before - after)]
        if changes:
            messages.transact(sock, template, changes)
        sock.close()
    return [
        *_told(
            after - before, "closed to the outside: the firewall of this host does not let it in any more"
        ),
        *_told(before - after, "open to the outside: the firewall of this host lets it in now"),
    ]


def _told(changed: set[publication.Closed], what: str) -> list[str]:
    return [
        f"port {ports.place((address, number, 0, protocol))}/{protocol} is {what}"
        for address, number, protocol in sorted(changed)
    ]


def told(published: list[ports.Port]) -> list[str]:
    """A line for each of these ports that is closed at this moment, and by whom."""
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        shut = standing(sock)
    finally:
        sock.close()
    closed = [port for port in published if (port[0], port[1], port[3]) in shut]
    reasons = host_firewall.closed(closed) if closed else {}
    opens = "the firewall of this host lets it in now, and `pyrun network reload` opens it"
    return [
        f"port {ports.place(port)}/{port[3]} is closed to the outside: {reasons.get(port, opens)}"
        for port in closed
    ]


# Set -> the address its elements are of; "" where their keys begin with it.
_SETS = {
    firewall.CLOSED: ports.ANY,
    firewall.CLOSED_AT: "",
    firewall.CLOSED6: ports.ANY6,
    firewall.CLOSED6_AT: "",
}


def standing(netfilter: socket) -> set[publication.Closed]:
    """What is closed at this moment."""
    return {of_key(key, host) for name, host in _SETS.items() for key in _keys(netfilter, name)}


def of_key(key: bytes, host: str) -> publication.Closed:
    """What a key means. host: the address it is of, "" where the key begins with it."""
    address, protocol, number = key[:-8], key[-8], unpack(">H", key[-4:-2])[0]
    names = {number: name for name, number in ports.PROTOCOLS.items()}
    host = host or inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)
    return host, number, names.get(protocol, str(protocol))


def _keys(netfilter: socket, name: str) -> list[bytes]:
    """Of every element of a set; none if it is not there."""
    try:
        answer = messages.dump(netfilter, nft.get_elements(tags.table(), name))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return []
    found = []
    for element in health.set_elements(answer):
        key = health.attributes(health.attributes(element, 0).get(_KEY, b""), 0).get(_VALUE, b"")
        if len(key) >= 8:
            found.append(key)
    return found
