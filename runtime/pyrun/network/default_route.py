"""Which interface of a running container the default routes go by: it changes as networks come and go.

Where they go by a card of the host, what comes in by a bridge is still answered by that (drivers/return_routes.py).
"""

from __future__ import annotations

from _struct import pack

from pyrun.network import attach, endpoint, messages

# request, acknowledge, create, replace: for the flags of a message that insists on "new"
_REPLACE = pack("=H", 0x505)


def turn(link: attach.Attachment, before: list[endpoint.Wire], after: list[endpoint.Wire]) -> None:
    """Let the default routes go by the interface that is to have them now, if that is another one."""
    assert link.inner is not None
    for six, kind in ((False, attach.route), (True, attach.route6)):
        former, now = endpoint.first_for(before, six), endpoint.first_for(after, six)
        if now is None or (former and former.ifname == now.ifname):
            continue
        if now.driver:
            from pyrun.network.drivers import links

            links.default_route(link, now.ifname, now.gateway_of(six))
            continue
        link.index = messages.index_of(link.inner, now.ifname)
        kind(link, now.gateway_of(six), now.ifname)
        replaced = [message[:6] + _REPLACE + message[8:] for message in link.waiting]
        link.waiting.clear()
        messages.send(link.inner, replaced)
    if any(wire.driver for wire in after):
        from pyrun.network.drivers import return_routes

        return_routes.keep(link, after)


def turn_of(pid: int, before: list[endpoint.Wire], after: list[endpoint.Wire]) -> None:
    """The same from outside, for a container that loses one."""
    if not after:
        return
    templates = {wire.network: messages.load(wire.network) for wire in after}
    known = {name: template for name, template in templates.items() if template}
    if not known:  # all that stay are on cards of the host
        from pyrun.network import records
        from pyrun.network import templates as encoder

        known[""] = encoder.parsed(records.Network())
    link = attach.Attachment(known, pid, None)
    try:
        attach.enter(link)
        turn(link, before, after)
    finally:
        link.close()
