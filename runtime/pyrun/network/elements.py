"""Elements of the firewall's sets and maps, by the templates: published ports, and what a link may send.

Those of a container are added when it starts or publishes something later, and deleted by its undo list.
"""

from __future__ import annotations

from _socket import AF_INET6, inet_aton, inet_pton
from _struct import pack

from pyrun.network import messages
from pyrun.network.publishing import ports


def pins(
    template: messages.Template, action: str, name: str, mac: str, address: str, address6: str
) -> list[bytes]:
    """The messages that allow ("pin") a link its addresses, or take that back ("unpin")."""
    link = name.encode()
    found = [messages.filled(template, f"{action}-mac", name=link, mac=bytes.fromhex(mac.replace(":", "")))]
    if address:
        found.append(messages.filled(template, f"{action}-address", name=link, address=inet_aton(address)))
    if address6:
        for packed in (inet_pton(AF_INET6, address6), of_the_link(mac)):
            found.append(messages.filled(template, f"{action}-address6", name=link, address6=packed))
    if template.get("icc") == "False":
        found.append(messages.filled(template, f"{action}-alone", name=link))
    return found


def guests(template: messages.Template, action: str, address: str, address6: str) -> list[bytes]:
    """The messages that let a container on an adopted bridge out under this host's address ("pin"), or take that back;
    none elsewhere, where the whole subnet goes out so."""
    if template.get("adopted") != "True":
        return []
    found = [messages.filled(template, f"{action}-guest", address=inet_aton(address))] if address else []
    if address6:
        found.append(messages.filled(template, f"{action}-guest6", address6=inet_pton(AF_INET6, address6)))
    return found


def of_the_link(mac: str) -> bytes:
    """The IPv6 address a link gives itself by its MAC, under which it asks for neighbours. Source: RFC 4291, app. A."""
    one, *rest = bytes.fromhex(mac.replace(":", ""))
    return b"\xfe\x80" + bytes(6) + bytes([one ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]])


def element(template: messages.Template, action: str, port: ports.Port, address: str) -> bytes:
    """The message that adds ("publish") or deletes ("unpublish") one published port of the family of *address*."""
    host, number, inside, protocol = port
    more = {"target": _packed(address) + pack(">Hxx", inside)} if action == "publish" else {}
    return _of_port(template, action, host, number, protocol, **more)


def shut(template: messages.Template, action: str, host: str, number: int, protocol: str) -> bytes:
    """The message that closes a published port to the outside ("shut"), or takes that back ("unshut")."""
    return _of_port(template, action, host, number, protocol)


def _of_port(
    template: messages.Template, action: str, host: str, number: int, protocol: str, **more: bytes
) -> bytes:
    """An element keyed by a port of the host, of one address or of all of a family: four messages an action."""
    key = pack(">BxxxHxx", ports.PROTOCOLS[protocol], number)
    name = f"{action}6" if ":" in host else action
    if host not in (ports.ANY, ports.ANY6):
        name, key = f"{name}-at", _packed(host) + key
    return messages.filled(template, name, key=key, **more)


def _packed(address: str) -> bytes:
    return inet_pton(AF_INET6, address) if ":" in address else inet_aton(address)


def published_and_back(
    template: messages.Template, published: list[ports.Port], targets: dict[bool, str]
) -> list[bytes]:
    """Changes that take published ports back; targets: IPv6? -> the container's address.

    Each element is added before it is deleted: so the transaction succeeds however many of them are there.
    """
    changes = []
    for port in published:
        target = targets[":" in port[0]]
        changes += [element(template, "publish", port, target), element(template, "unpublish", port, target)]
    return changes


def unpin_batch(template: messages.Template, name: str, mac: str, address: str, address6: str) -> bytes:
    """The same for what a link may send."""
    changes = []
    for action in ("pin", "unpin"):
        changes += pins(template, action, name, mac, address, address6)
        changes += guests(template, action, address, address6)
    return messages.transaction(template, changes)


def flows_to(template: messages.Template, address: str) -> str:
    """The undo line that forgets every flow that led to the container."""
    if ":" in address:
        return f"flows6\tto\t{address}\t0\t0"
    message = messages.filled(template, "forget-target", address=inet_aton(address))
    return f"netlink\t{messages.NETLINK_NETFILTER}\t{message.hex()}"
