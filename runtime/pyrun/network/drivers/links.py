"""Netlink, as the drivers need it: what this kernel can make, undo lines, and the dressing of an interface inside.

Everything here goes by pyroute2. A refusal of the kernel becomes one line that says what was tried.
Source: man 7 rtnetlink; the kernel's rtnl_newlink.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_interface
from typing import Any

from pyrun import boot, linux
from pyrun.errors import NetworkError, hint_for
from pyrun.network import attach, host, messages
from pyrun.network.endpoint import Wire
from pyrun.plan.operations import Operation

boot.site_packages()

from pyroute2.iproute import IPRoute as IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError as NetlinkError  # noqa: E402
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: E402

# An address of a container that has just ended stays taken until the kernel has collected its namespace.
_PATIENCE_S = 3.0
_READY_S = 0.5  # a worker of the kernel needs less than a millisecond
_RTN_LOCAL = 2  # of linux/rtnetlink.h
_NEWLINK, _DELLINK, _REQUEST_ACK = 16, 17, 5
_NO_DAD = 0x02  # IFA_F_NODAD

KERNEL_OPTION = {
    "macvlan": "CONFIG_MACVLAN",
    "ipvlan": "CONFIG_IPVLAN",
    "ifb": "CONFIG_IFB",
    "veth": "CONFIG_VETH",
}

_HINTS = {
    errno.EBUSY: "a card carries one kind: either macvlan or ipvlan, and no passthru beside others",
    errno.ENETDOWN: "the card is down",
    errno.EADDRINUSE: "another interface on the card has this address",
}


class Refused(OSError):
    """What the kernel refused. hint: the remedy, where it is one for cards."""

    hint = ""


@contextmanager
def asking() -> Iterator[None]:
    """What the kernel refuses inside becomes a Refused; attach.perform says which operation it was."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        number = error_number(error)
        refused = Refused(number, os.strerror(number))
        refused.hint = _HINTS.get(number, "")
        raise refused from None


@contextmanager
def told(action: str) -> Iterator[None]:
    """The same for what is no operation: a NetworkError, `network: cannot ACTION: reason`."""
    try:
        with asking():
            yield
    except Refused as error:
        number = error_number(error)
        raise NetworkError(
            f"network: cannot {action}: {error.strerror}", error.hint or hint_for("network", number)
        ) from None


def error_number(error: NetlinkError | OSError) -> int:
    """The errno of either kind of error."""
    return int(getattr(error, "code", 0) or getattr(error, "errno", 0) or errno.EIO)


def can_make(route: Any, kind: str) -> bool:
    """Whether this kernel knows links of *kind*: asked for one on top of no other, it refuses in different words.

    Nothing is made: macvlan and ipvlan without a parent are EINVAL where they are known, else EOPNOTSUPP.
    """
    try:
        route.link("add", ifname="pyrprobe", kind=kind)
    except NetlinkError as error:
        return bool(error.code != errno.EOPNOTSUPP)
    route.link("del", ifname="pyrprobe")  # made after all
    return True


def refuse_unknown(kind: str, option: str) -> None:
    """Raises NetworkError where the kernel cannot make links of *kind*. option: what the user wrote."""
    with IPRoute() as route:
        if not can_make(route, kind):
            raise NetworkError(
                f"{option}: this kernel has no {kind} ({KERNEL_OPTION[kind]})",
                f"a kernel with {KERNEL_OPTION[kind]}=m: modprobe {kind}",
            )


def encoded(kind: int, name: str, **fields: int) -> bytes:
    """One message about the link *name* which asks for an acknowledgement."""
    message = ifinfmsg()
    message["header"]["type"] = kind
    message["header"]["flags"] = _REQUEST_ACK
    for key, value in fields.items():
        message[key] = value
    message["attrs"] = [("IFLA_IFNAME", name)]
    message.encode()
    return bytes(message.data)


def undo_down(name: str) -> str:
    """The undo line that sets a link of the host down: nobody answers through it any more."""
    return f"netlink\t{messages.NETLINK_ROUTE}\t{encoded(_NEWLINK, name, flags=0, change=1).hex()}"


def undo_delete(name: str) -> str:
    """The undo line that deletes a link of the host; one that is gone is fine."""
    return f"netlink\t{messages.NETLINK_ROUTE}\t{encoded(_DELLINK, name).hex()}"


def patiently(action: Callable[[], object]) -> None:
    """Do it, again while what it needs belongs to a container whose end the kernel has not collected yet."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            action()
            return
        except NetlinkError as error:
            if error.code not in (errno.EADDRINUSE, errno.EEXIST) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def make_inside(link: attach.Attachment, parent: str, inside: str, mtu: int, **wanted: Any) -> None:
    """Make an interface on the card *parent*, born in the container's namespace and called *inside* there.

    mtu: in bytes; with 0 it follows the card's. Born under another name: kernels before 6.15 refuse one that an
    interface of the host has.
    """
    newborn = f"pyr{os.urandom(5).hex()}"
    wanted.update({"mtu": mtu} if mtu else {})
    with IPRoute() as route:
        index = route.link_lookup(ifname=parent)[0]
        patiently(
            lambda: route.link("add", ifname=newborn, link=index, net_ns_fd=link.namespace_fd, **wanted)
        )
    with attach.inside_of(link), IPRoute() as route:
        index = route.link_lookup(ifname=newborn)[0]
        try:
            route.link("set", index=index, ifname=inside)
        except NetlinkError:
            route.link("del", index=index)
            raise


# ── an interface gets what it is to have ───────────────────────────────────────────────────────────


def dressing(wire: Wire, default: bool, default6: bool) -> list[Operation]:
    """The operations after the interface is there: IPv6, addresses, up, routes."""
    name, routed = wire.ifname, wire.options.get("mode") in ("l3", "l3s")
    todo = [Operation("CARD_IPV6", name, int(bool(wire.address6)))]
    todo += [
        Operation("CARD_ADDRESS", name, address, prefix)
        for address, prefix, _ in map(wire.family, (False, True))
        if address
    ]
    todo.append(Operation("CARD_UP", name))
    todo += [
        Operation("CARD_ROUTE", name, "" if routed else gateway)
        for wanted, gateway in ((default, wire.gateway), (default6, wire.gateway6))
        if wanted
    ]
    return [*todo, Operation("CARD_READY", name, wire.link if wire.driver == "l2" else "", wire.address6)]


def ipv6(link: attach.Attachment, name: str, wanted: int) -> None:
    """IPv6 for this link or not at all; with it, nothing is believed that comes by it: no advertised routers.

    Nobody is asked for a second owner of its own link-local address first: meanwhile it would send nothing from there.
    """
    with attach.inside_of(link):
        for key in ("accept_ra", "accept_dad"):
            host.write_sysctl(f"net/ipv6/conf/{name}/{key}", "0")
        host.write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0" if wanted else "1")


def address(link: attach.Attachment, name: str, address: str, prefix: int) -> None:
    """Give it an address; of IPv6, without asking around for a second owner first."""
    with asking(), attach.inside_of(link), IPRoute() as route:
        index = route.link_lookup(ifname=name)[0]
        network = ip_interface(f"{address}/{prefix}").network
        more: dict[str, Any] = (
            {"flags": _NO_DAD} if ":" in address else {"broadcast": str(network.broadcast_address)}
        )
        patiently(lambda: route.addr("add", index=index, address=address, prefixlen=prefix, **more))


def up(link: attach.Attachment, name: str) -> None:
    """Bring it up."""
    with asking(), attach.inside_of(link), IPRoute() as route:
        index = route.link_lookup(ifname=name)[0]
        patiently(lambda: route.link("set", index=index, state="up"))


def default_route(link: attach.Attachment, name: str, gateway: str) -> None:
    """The default route, to a gateway or, where the card itself routes, straight out of the interface."""
    with asking(), attach.inside_of(link), IPRoute() as route:
        index = route.link_lookup(ifname=name)[0]
        target = "::/0" if ":" in gateway else "0.0.0.0/0"
        more: dict[str, Any] = {"gateway": gateway} if gateway else {"scope": "link"}
        route.route("replace", dst=target, oif=index, **more)


def ready(link: attach.Attachment, name: str, outside: str, address6: str) -> None:
    """Read the links back: the kernel finishes their state before it answers, so no first packet is lost; then wait
    until packets for the IPv6 address are taken (network/attach.py has the reason)."""
    with asking():
        if outside:
            with IPRoute() as route:
                route.get_links(route.link_lookup(ifname=outside)[0])
        with attach.inside_of(link), IPRoute() as route:
            route.get_links(route.link_lookup(ifname=name)[0])
            deadline = time.monotonic() + _READY_S
            while address6 and not _is_local(route, address6) and time.monotonic() < deadline:
                time.sleep(0.001)


def _is_local(route: Any, address6: str) -> bool:
    try:
        (way,) = route.route("get", dst=address6, family=socket.AF_INET6)
    except NetlinkError:  # no route at all
        return False
    return bool(way["type"] == _RTN_LOCAL)


def in_scratch_namespace(question: Callable[[Any], object]) -> None:
    """Ask something that makes things, in a network namespace which nobody sees and which ends with the answer."""
    own_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.unshare(linux.CLONE_NEWNET)
        with IPRoute() as route:
            question(route)
    finally:
        linux.setns(own_fd, linux.CLONE_NEWNET)
        os.close(own_fd)
