"""Forgetting the tracked flows of one published port of one container, and no others: as undo lines.

The messages of a start forget by port, or by container. Both at once is what these two say, put together: nothing is
encoded anew. Those of IPv6 are found one by one (csrc/flows.c).
Source: linux/netfilter/nfnetlink_conntrack.h (CTA_FILTER).
"""

from __future__ import annotations

from _socket import inet_aton
from _struct import pack

from pyrun.network import messages
from pyrun.network.publishing import ports

# netlink's header and nfnetlink's; the last attribute, CTA_FILTER, with a flag word for each direction.
_HEADER, _FILTER = 20, 20


def published(template: messages.Template, port: ports.Port, address: str) -> str:
    """The undo line that forgets every flow to *port* of the host that *address* answers."""
    _, number, _, protocol = port
    if ":" in address:
        return f"flows6\tto\t{address}\t{ports.PROTOCOLS[protocol]}\t{number}"
    place = {"protocol": pack("=B", ports.PROTOCOLS[protocol]), "port": pack(">H", number)}
    by_port = messages.filled(template, "forget", **place)
    by_target = messages.filled(template, "forget-target", address=inet_aton(address))
    both = bytes([one | other for one, other in zip(by_port[-_FILTER:], by_target[-_FILTER:], strict=True)])
    body = by_port[4:-_FILTER] + by_target[_HEADER:-_FILTER] + both
    message = pack("=I", len(body) + 4) + body
    return f"netlink\t{messages.NETLINK_NETFILTER}\t{message.hex()}"
