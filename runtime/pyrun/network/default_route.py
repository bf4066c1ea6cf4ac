"""Which interface of a running container the default routes go by: it changes as networks come and go.

Where they go by a card of the host, what comes in by a bridge is still answered by that (drivers/answering.py).
"""

from __future__ import annotations

from _struct import pack

from pyrun.network import attach, endpoint, messages

# request, acknowledge, create, replace: for the flags of a message that insists on "new"
_REPLACE = pack("=H", 0x505)


def turn(link: attach.Attachment, before: list[endpoint.Wire], after: list[endpoint.Wire]) -> None:
    """Let the default routes go by the interface that is to have them now, if that is another one."""
    assert link.inner is not None
    for key, kind in (("gateway", attach.route), ("gateway6", attach.route6)):
        former, now = endpoint.first_for(before, key), endpoint.first_for(after, key)
        if now is None or (former and former["ifname"] == now["ifname"]):
            continue
        if now.get("driver"):
            from pyrun.network.drivers import connecting

            connecting.turn_default(link, now, key)
            continue
        link.index = messages.index_of(link.inner, str(now["ifname"]))
        kind(link, str(now[key]), str(now["ifname"]))
        replaced = [message[:6] + _REPLACE + message[8:] for message in link.waiting]
        link.waiting.clear()
        messages.send(link.inner, replaced)
    if any(wire.get("driver") for wire in after):
        from pyrun.network.drivers import answering

        answering.keep(link, after)


def turn_of(pid: int, before: list[endpoint.Wire], after: list[endpoint.Wire]) -> None:
    """The same from outside, for a container that loses one."""
    if not after:
        return
    templates = {str(wire["network"]): messages.load(str(wire["network"])) for wire in after}
    known = {name: template for name, template in templates.items() if template}
    if not known:  # all that stay are on cards of the host
        from pyrun.network import records
        from pyrun.network import templates as encoder

        known[""] = encoder.parsed({**records.DEFAULTS, "name": ""})
    link = attach.Attachment(known, pid, None)
    try:
        attach.enter(link)
        turn(link, before, after)
    finally:
        link.close()
