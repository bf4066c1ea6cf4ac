"""The MAC of a bridge that was made by hand, held as it is, with what this host knows of its neighbours there.

A bridge nobody gave a MAC has the lowest of its ports', and another one when a lower comes or that one goes: everybody
on it would lose their gateway for a while. Said aloud, it is kept. But whenever a MAC is said, be it the same, the
kernel forgets all neighbours on that link, those for good (`ip neigh add ... nud permanent`) too. Most are found again
at once; but for a packet that is forwarded over IPv6 this host asks under the bridge's address of the link, and while
that one is itself asked about (RFC 4862, 5.4: tentative for up to 2 s after the bridge came up), it asks nobody.
So they are told to it again.
Source: net/core/neighbour.c neigh_changeaddr, net/ipv6/ndisc.c ndisc_send_ns, net/bridge/br_stp_if.c of Linux.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pyrun import boot

boot.site_packages()

from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

_UNICAST = 1  # RTN_UNICAST
_LEARNED = 0x02 | 0x04 | 0x08 | 0x10  # NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE
_STALE, _STATIC = 0x04, 0x40 | 0x80  # NUD_NOARP, NUD_PERMANENT


def hold(route: Any, index: int) -> None:
    """The bridge keeps its MAC whatever ports come and go, and the host its neighbours on it."""
    known = [
        message
        for message in route.get_neighbours(ifindex=index)
        if message["ndm_type"] == _UNICAST and message["state"] & (_LEARNED | _STATIC)
    ]
    route.link("set", index=index, address=route.get_links(index)[0].get_attr("IFLA_ADDRESS"))
    for message in known:
        with suppress(NetlinkError):  # then it is asked for
            route.neigh("replace", ifindex=index, **_again(message))


def _again(message: Any) -> dict[str, Any]:
    """What was known of a neighbour. One that was learned is used at once, and asked whether it is still there."""
    static = message["state"] & _STATIC
    told = {key: message.get_attr(f"NDA_{key.upper()}") for key in ("dst", "lladdr", "protocol", "flags_ext")}
    return {
        "family": message["family"], "state": static or _STALE, "flags": message["flags"],
        **{key: value for key, value in told.items() if value is not None},
    }  # fmt: skip
