"""Connect one container: what the firewall is told of its link and of its published ports.

Each operation queues messages (elements.py); `commit` sends all of them as one transaction. The rest of the
operations is in attach.py.
"""

from __future__ import annotations

from _struct import pack

from pyrun.network import elements, messages
from pyrun.network.publishing import ports
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.network.attach import Attachment


def pin(link: Attachment, name: str, mac: str, address: str, address6: str) -> None:
    """Queue: what the link may send as its own, and nothing else."""
    link.rules += elements.pins(link.template, "pin", name, mac, address, address6)
    link.rules += elements.guests(link.template, "pin", address, address6)


def localnet(link: Attachment, bridge: str) -> None:
    """Let the host's own 127.0.0.1 be redirected to this bridge; the rule that guards it is in the table. By a further
    bridge of its network enters what a container there answers."""
    further = [each.get("further", "") for each in link.templates.values() if each["bridge"] == bridge]
    for each in (bridge, *" ".join(further).split()):
        paths.write(f"/proc/sys/net/ipv4/conf/{each}/route_localnet", b"1")


def hairpin(link: Attachment, name: str) -> None:
    """Let the container reach its own published port: the bridge sends the packet back by the port it came from."""
    assert link.outer is not None
    messages.send(link.outer, [messages.filled(link.template, "hairpin", name=name.encode())])


def publish(link: Attachment, host: str, port: int, protocol: str, address: str, inside: int) -> None:
    """Queue an element of the map of published ports."""
    link.rules.append(elements.element(link.template, "publish", (host, port, inside, protocol), address))


def close_port(link: Attachment, host: str, port: int, protocol: str) -> None:
    """Queue an element that closes a published port to the outside, since the host's firewall would not let it in."""
    link.rules.append(elements.shut(link.template, "shut", host, port, protocol))


def open_port(link: Attachment, host: str, port: int, protocol: str) -> None:
    """Queue the opposite: the element is not there afterwards, whether it was or not."""
    link.rules += [
        elements.shut(link.template, action, host, port, protocol) for action in ("shut", "unshut")
    ]


def commit(link: Attachment, count: int) -> None:
    """Send the waiting elements as one transaction."""
    del count
    assert link.netfilter is not None
    try:
        messages.transact(link.netfilter, link.template, link.rules)
    except (FileExistsError, FileNotFoundError):
        # Elements of a dead owner, since the ports are ours; or the table was flushed a moment ago.
        from pyrun.network import rebuilding

        rebuilding.rebuild()
    link.rules.clear()


def forget_flows(link: Attachment, port: int, protocol: str) -> None:
    """Forget what connection tracking remembers of a port, else old UDP flows keep their old way."""
    assert link.netfilter is not None
    place = {"protocol": pack("=B", ports.PROTOCOLS[protocol]), "port": pack(">H", port)}
    towards = [messages.filled(link.template, name, **place) for name in ("forget", "forget6")]
    messages.answers(link.netfilter, towards, 2)


# As in attach.py
PERFORM = {
    "PIN": (pin, "say what the link may send"),
    "LOCALNET": (localnet, "redirect 127.0.0.1 to the bridge"),
    "HAIRPIN": (hairpin, "let the bridge port answer itself"),
    "PUBLISH": (publish, "publish a port"),
    "CLOSE": (close_port, "close a port to the outside"),
    "OPEN": (open_port, "open a port to the outside"),
    "COMMIT": (commit, "change the firewall"),
    "FORGET_FLOWS": (forget_flows, "forget old flows of a port"),
}
