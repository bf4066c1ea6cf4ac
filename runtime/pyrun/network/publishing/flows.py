"""Forgetting the tracked flows of one published port of one container, and no others.

The messages of a start forget by port, or by container. Both at once is what these two say, put together: nothing is
encoded anew.
Source: linux/netfilter/nfnetlink_conntrack.h (CTA_FILTER).
"""

from __future__ import annotations

from _socket import AF_INET6, inet_aton, inet_pton
from _struct import pack

from pyrun.network import messages
from pyrun.network.publishing import ports

# netlink's header and nfnetlink's; the last attribute, CTA_FILTER, with a flag word for each direction.
_HEADER, _FILTER = 20, 20


def published(template: messages.Template, port: ports.Port, address: str) -> bytes:
    """The message that forgets every flow to *port* of the host that *address* answers."""
    _, number, _, protocol = port
    place = {"protocol": pack("=B", ports.PROTOCOLS[protocol]), "port": pack(">H", number)}
    if ":" in address:
        by_port = messages.filled(template, "forget6", **place)
        by_target = messages.filled(template, "forget-target6", address6=inet_pton(AF_INET6, address))
    else:
        by_port = messages.filled(template, "forget", **place)
        by_target = messages.filled(template, "forget-target", address=inet_aton(address))
    both = bytes([one | other for one, other in zip(by_port[-_FILTER:], by_target[-_FILTER:], strict=True)])
    body = by_port[4:-_FILTER] + by_target[_HEADER:-_FILTER] + both
    return pack("=I", len(body) + 4) + body
