"""Connect one container: the operations of its link and how each is performed.

    PLANNER                                    KERNEL
    open /proc/<pid>/ns/net
    setns there: a netlink socket; setns back        (new links have no IPv6: init's doing, or done here)
    RTM_NEWLINK ──────────────────────────►    veth in the bridge, its peer `eth0` born in the container
    one send through the inner socket ────►    lo up, eth0 up, addresses, default route
    RTM_GETLINK x3 ───────────────────────►    answers only after the ports forward: no first packet is lost
    nftables batch ───────────────────────►    what the link may send, published ports: as elements of sets and maps

The peer is made inside the namespace: moving a link there takes the kernel 30 times as long. An inner message
waits until the next `settle` so that all go in one call. Here only system calls and templates, no decisions:
those are in network/endpoint.py and stages/network.py.
"""

from __future__ import annotations

import errno
import posix
from _socket import AF_INET6, inet_aton, inet_pton, socket
from _struct import pack
from time import sleep

from pyrun import linux
from pyrun.errors import StageFailed
from pyrun.network import elements, guard, messages, netns
from pyrun.network.publishing import ports, reservation
from pyrun.plan import performers
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Protocol

    from pyrun.plan.operations import Operation

    class Reached(Protocol):
        """What has a network namespace."""

        namespace_fd: int


# Of an answer about a route: struct rtmsg of linux/rtnetlink.h.
_ROUTE_TYPE_AT, _RTN_LOCAL = 7, 2
_ADDRESS_TRIES = 2000
BY_INIT = "init"


class Attachment:
    """What the operations of one container share: sockets on both sides and messages not yet sent.

    templates: of each of its networks. The operations after a VETH mean that link: template, index, inside.
    """

    __slots__ = (
        "address6", "asked", "handed", "index", "inner", "inside", "namespace_fd", "netfilter", "outer", "pid",
        "resolvers", "rules", "template", "templates", "waiting",
    )  # fmt: skip

    def __init__(self, templates: dict[str, messages.Template], pid: int, netfilter: socket | None) -> None:
        self.templates = templates
        # the messages of the firewall are the same in each
        self.template: messages.Template = next(iter(templates.values()), {})
        self.pid = pid
        self.netfilter = netfilter
        self.namespace_fd = posix.open(f"/proc/{pid}/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
        self.inner: socket | None = None
        self.outer: socket | None = None
        self.waiting: list[bytes] = []
        self.rules: list[bytes] = []
        self.asked: socket | None = None
        self.handed = False
        self.resolvers: dict[str, int] = {}
        self.index = 0
        self.inside = ""
        self.address6 = b""

    def close(self) -> None:
        """Close what was opened. The nftables socket is the caller's."""
        posix.close(self.namespace_fd)
        for sock in (self.inner, self.outer, self.asked):
            if sock is not None:
                sock.close()


def netns_name(link: Attachment, path: str, owner: str) -> None:
    """Let `ip netns` know the namespace by the container's name. Raises: Conflict."""
    netns.make_file(path.rpartition("/")[2], owner)
    linux.mount(f"/proc/{link.pid}/ns/net", path, None, linux.MS_BIND)


def enter(link: Attachment, ipv6: str = "") -> None:
    """A socket inside, and new links there without IPv6 (loopback keeps ::1). ipv6: "init" where init sees to that."""
    with inside_of(link):
        if ipv6 != BY_INIT:
            _conf6("default", "disable_ipv6", b"1")
        link.inner = messages.opened(messages.NETLINK_ROUTE)


class inside_of:
    """In the container's network namespace meanwhile. Source: man 2 setns."""

    __slots__ = ("link", "own_fd")

    def __init__(self, link: Reached) -> None:
        self.link = link

    def __enter__(self) -> None:
        self.own_fd = posix.open("/proc/self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            linux.setns(self.link.namespace_fd, linux.CLONE_NEWNET)
        except BaseException:
            posix.close(self.own_fd)
            raise

    def __exit__(self, *_: object) -> None:
        try:
            linux.setns(self.own_fd, linux.CLONE_NEWNET)
        finally:
            posix.close(self.own_fd)


def _conf6(interface: str, key: str, value: bytes) -> None:
    try:
        paths.write(f"/proc/sys/net/ipv6/conf/{interface}/{key}", value)
    except FileNotFoundError:  # a kernel without IPv6
        pass


def veth(link: Attachment, name: str, bridge: str, mac: str, alias: str, inside: str, network: str) -> None:
    """Make the pair, one end in the bridge, the other inside."""
    del bridge  # its index is in the template; the name is for the reader of the plan
    link.template, link.inside = link.templates[network], inside
    link.outer = link.outer or messages.opened(messages.NETLINK_ROUTE)
    create = messages.filled(
        link.template,
        "link",
        name=name.encode(),
        inside=_padded(inside, 15),
        mac=bytes.fromhex(mac.replace(":", "")),
        namespace=messages.u32(link.namespace_fd),
    )
    _make_pair(link, name, create, network, _padded(alias, messages.ALIAS_BYTES))
    assert link.inner is not None
    link.index = messages.index_of(link.inner, inside)


def _make_pair(link: Attachment, name: str, create: bytes, network: str, alias: bytes) -> None:
    assert link.outer is not None
    remove = messages.filled(link.template, "remove", name=name.encode())
    problem: OSError
    for _ in range(3):
        label = messages.filled(link.template, "label", name=name.encode(), alias=alias)
        join = messages.filled(link.template, "join", name=name.encode())
        try:
            return messages.send(link.outer, [create, label, join])
        except OSError as error:
            # 1,023 ports are the most a bridge takes; or a further bridge, which health.py does not look at, is gone
            if error.errno in (errno.EXFULL, errno.EINVAL):
                from pyrun.network import shards

                link.template = link.templates[network] = shards.with_room(network)
            elif error.errno != errno.EEXIST:
                raise
            problem = error
        # The end of this container's last run, not yet collected by the kernel; or the one that found no room.
        messages.answers(link.outer, [remove], 1)
    raise problem


def _padded(text: str, size: int) -> bytes:
    return text.encode()[:size].ljust(size, b"\0")


def ipv6(link: Attachment, inside: str) -> None:
    """Switch IPv6 on for this link alone, with nothing believed that comes by it: no advertised routers."""
    with inside_of(link):
        for key in ("accept_ra", "accept_dad"):
            _conf6(inside, key, b"0")
        _conf6(inside, "disable_ipv6", b"0")


def link_up(link: Attachment, name: str) -> None:
    """Queue: a link inside goes up."""
    index = 1 if name == "lo" else link.index
    link.waiting.append(messages.filled(link.template, "up", index=messages.u32(index)))


def address(link: Attachment, address: str, prefix: int, inside: str) -> None:
    """Queue: the link gets its address."""
    del inside
    packed = inet_aton(address)
    last = int.from_bytes(packed, "big") | (1 << (32 - prefix)) - 1
    values = {"address": packed, "broadcast": last.to_bytes(4, "big"), "prefix": pack("B", prefix)}
    link.waiting.append(messages.filled(link.template, "address", index=messages.u32(link.index), **values))


def address6(link: Attachment, address: str, prefix: int, inside: str) -> None:
    """Queue: the link gets its IPv6 address, without asking around for a second owner first."""
    del inside
    packed = inet_pton(AF_INET6, address)
    values = {"address6": packed, "prefix": pack("B", prefix)}
    link.waiting.append(messages.filled(link.template, "address6", index=messages.u32(link.index), **values))
    link.address6 = packed


def route(link: Attachment, gateway: str, inside: str) -> None:
    """Queue: the default route."""
    del inside
    values = {"index": messages.u32(link.index), "gateway": inet_aton(gateway)}
    link.waiting.append(messages.filled(link.template, "route", **values))


def route6(link: Attachment, gateway: str, inside: str) -> None:
    """Queue: the default route of IPv6."""
    del inside
    values = {"index": messages.u32(link.index), "address6": inet_pton(AF_INET6, gateway)}
    link.waiting.append(messages.filled(link.template, "route6", **values))


def settle(link: Attachment, name: str, bridge: str) -> None:
    """Send what waits, then read three links back: the kernel finishes their state before it answers."""
    del bridge
    assert link.inner is not None and link.outer is not None
    read = messages.filled(link.template, "read", index=messages.u32(link.index))
    messages.send(link.inner, [*link.waiting, read])
    link.waiting.clear()
    if link.address6:
        _await_address6(link)
        messages.send(link.inner, [read])
    port = messages.filled(link.template, "read-name", name=name.encode())
    bridge_ = messages.filled(link.template, "read", index=messages.u32(int(link.template["index"])))
    messages.send(link.outer, [port, bridge_])


def _await_address6(link: Attachment) -> None:
    """Wait until the kernel takes packets for the new IPv6 address.

    A worker does the rest of adding it, a moment later: joins the group in which neighbours ask for the address, then
    adds its route. What comes before that is lost, and sent again after a second.
    """
    assert link.inner is not None
    question = messages.filled(link.template, "way6", address6=link.address6)
    for _ in range(_ADDRESS_TRIES):
        error, answer = messages.ask(link.inner, question)
        if not error and answer[_ROUTE_TYPE_AT] == _RTN_LOCAL:
            break
        sleep(0.0001)
    link.address6 = b""


def tell_guard(link: Attachment, networks: list[str], held: list[reservation.Held]) -> None:
    """Give the guard the sockets of published ports, and ask it for resolvers; `names` hears what came of that."""
    with_guard = reservation.hand_over(held) if held else None
    link.handed = with_guard is not None
    if networks:  # always, where ports are published
        link.asked = guard.need_soon([_gateways(link, network) for network in networks], with_guard)


def names(link: Attachment, network: str, gateway: str) -> None:
    """Let the resolver listen at the network's gateway; what it knows is in the leases."""
    del gateway  # is in the template; for the reader of the plan
    if link.asked is not None:
        if link.handed:
            reservation.confirm(link.asked)
        link.resolvers, link.asked = guard.answered(link.asked), None
    template = link.templates[network]
    port = link.resolvers.get(network, -1)
    if port < 0:
        port = guard.need([_gateways(link, network)]).get(network, 53)
    if port != int(template["dns_port"]):
        from pyrun.network import rebuilding

        rebuilding.note_resolver(network, port)


def _gateways(link: Attachment, network: str) -> tuple[str, str, str]:
    return network, link.templates[network]["gateway"], link.templates[network]["gateway6"]


def announce(link: Attachment, inside: str, mac: str, address: str, address6: str) -> None:
    """Tell the neighbours, who may know a former owner of the addresses."""
    from pyrun.network import announcing

    with inside_of(link):
        announcing.tell(inside, mac, address, address6)


def perform(link: Attachment | int, operation: Operation) -> None:
    """Perform one operation. link: a pid where an ordinary user's program makes it. Raises: StageFailed."""
    try:
        performers.perform(operation, link)
    except OSError as error:
        failed = StageFailed("network", performers.words(operation), error.errno or 0)
        failed.hint = getattr(error, "hint", "") or failed.hint
        raise failed from None


# ── rules: queued (elements.py), and sent by `commit` as one transaction ──────────────────────────────


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
