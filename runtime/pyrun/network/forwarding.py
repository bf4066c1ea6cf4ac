"""Forwarding, switched on while containers need it: this host is no router for others meanwhile.

Where ip_forward, or what IPv6 has for it, was off before pyrun, it is on from the first start on and off again when the
last container of the last network is gone (the guard then calls `rest`, `system reconcile` does the same, and `network
prune`). In between the set `switched` of the firewall has the family, and new flows between links that are not pyrun's
are dropped (firewall/routed.py). Where it was on before, it is the administrator's: nothing is dropped or put back.

    PYRUN_FORWARD=accept   of a start that switches, or of `network reload`: others may be routed, until `network prune`

A start claims its addresses and then asks the guard; `rest` looks for claims once more after it has switched off. So
one of them sees the other. Cold, and without the libraries that make networks: a start after a pause needs it.
"""

from __future__ import annotations

import posix
from _socket import socket

from pyrun.network import guard_start, host, messages
from pyrun.store import paths

_FAMILIES = (4, 6)


def elements(template: messages.Template) -> list[bytes]:
    """The elements of the set `switched`, by the messages of any network."""
    return [messages.filled(template, f"switch{family}") for family in host.shut_to_others()]


def changes(template: messages.Template) -> list[bytes]:
    """What gives the set these elements and no others; added before they are deleted, so that this never fails."""
    every = [
        messages.filled(template, f"{verb}{family}")
        for verb in ("switch", "unswitch")
        for family in _FAMILIES
    ]
    return every + elements(template)


def resume(template: messages.Template, sock: socket) -> bool:
    """Switch forwarding on for a network that lacks nothing else. False: it has to be healed (bridge.py)."""
    with host.locked():
        try:
            switch_on(template, sock, ipv6=bool(template.get("gateway6")))
        except (KeyError, OSError):  # of an older version; or the table has gone this moment
            return False
    return True


def switch_on(template: messages.Template, sock: socket, *, ipv6: bool) -> bool:
    """Have the host forward, the rules first; whether it did not. Call under `host.locked`. Raises OSError, and then
    what is not switched is not pyrun's."""
    host.note_forwarding(ipv6=ipv6)
    try:
        messages.transact(sock, template, changes(template))
        return host.enable_forwarding(ipv6=ipv6)
    except OSError:
        host.forget_unswitched()
        messages.transact(sock, template, changes(template))
        raise


def needed() -> bool:
    """Whether a container lives on any network."""
    return paths.exists(f"{paths.run()}/networks") and bool(guard_start.standing())


def rest() -> None:
    """Put back what was switched on, if no container needs it. Raises OSError."""
    if not host.switched() or needed():
        return
    with host.locked():
        put_back = host.rest_forwarding()
        if needed():  # one came this moment, and may have found it switched on
            for each in guard_start.standing():
                host.enable_forwarding(ipv6=bool(each[2]))
        elif put_back:
            _forget()


def _forget() -> None:
    """What is put back is not pyrun's: whoever switches it on from now on has not asked for rules."""
    base = f"{paths.run()}/networks"
    template = next(filter(None, map(messages.load, sorted(posix.listdir(base)))), None)
    if template is None:
        return
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        messages.transact(sock, template, changes(template))
    except (KeyError, FileNotFoundError):  # no table, or one of an older version without the set
        pass
    finally:
        sock.close()
