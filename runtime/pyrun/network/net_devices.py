"""linux.netDevices: interfaces of the host that a container takes over, with the addresses they have.

Cold, and by pyroute2: who asks for this moves a physical card or a virtual function. The kernel itself hands a
physical device back when the namespace ends; a virtual one ends with it, and nothing here moves one back.
Source: runtime-spec config-linux.md#network-devices (1.3).
"""

from __future__ import annotations

import os
from typing import Any

from pyrun import boot, linux
from pyrun.errors import NetworkError

boot.site_packages()

from pyroute2.iproute import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

_PERMANENT = 0x80  # IFA_F_PERMANENT
_UNIVERSE = 0  # RT_SCOPE_UNIVERSE: not a link-local address, which the new name gets anew


def take(devices: dict[str, dict[str, Any]], pid: int) -> None:
    """Move each {host name: {"name": name inside}} into the network namespace of *pid*, and switch it on there.

    Raises: NetworkError naming the device.
    """
    for name, wanted in devices.items():
        try:
            _take(name, str(wanted.get("name") or name), pid)
        except (NetlinkError, OSError) as error:
            number = getattr(error, "code", None) or error.errno or 0
            raise NetworkError(f"linux.netDevices.{name}: cannot be moved: {os.strerror(number)}") from error


def _take(name: str, inside: str, pid: int) -> None:
    own_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    theirs_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.setns(theirs_fd, linux.CLONE_NEWNET)
        _refuse_taken(name, inside)
        linux.setns(own_fd, linux.CLONE_NEWNET)
        addresses = _send(name, inside, pid)
        linux.setns(theirs_fd, linux.CLONE_NEWNET)
        _dress(inside, addresses)
    finally:
        linux.setns(own_fd, linux.CLONE_NEWNET)
        os.close(own_fd)
        os.close(theirs_fd)


def _refuse_taken(name: str, inside: str) -> None:
    """Looked at before the move: the kernel moves first and renames then, and a device that cannot have its name ends
    with the namespace it does not belong to."""
    with IPRoute() as route:
        if route.link_lookup(ifname=inside):
            raise NetworkError(f"linux.netDevices.{name}.name: {inside!r} is taken in the container")


def _send(name: str, inside: str, pid: int) -> list[Any]:
    """Down, and into the namespace under its new name; returns the addresses it had."""
    with IPRoute() as route:
        found = route.link_lookup(ifname=name)
        if not found:
            raise NetworkError(f"linux.netDevices.{name}: no such interface here", "`ip link` lists them")
        index = found[0]
        addresses = [each for each in route.get_addr(index=index) if _kept(each)]
        route.link("set", index=index, state="down")
        route.link("set", index=index, net_ns_pid=pid, ifname=inside)
    return addresses


def _kept(address: Any) -> bool:
    flags = address.get_attr("IFA_FLAGS") or address["flags"]
    return bool(flags & _PERMANENT) and address["scope"] == _UNIVERSE


def _dress(name: str, addresses: list[Any]) -> None:
    """In the container's namespace: up, with the addresses it had. The kernel may have filled in a %d of the name."""
    with IPRoute() as route:
        pattern = name.partition("%d")
        links = [link for link in route.get_links() if _fits(link.get_attr("IFLA_IFNAME"), pattern)]
        index = max(link["index"] for link in links)
        for address in addresses:
            route.addr(
                "add", index=index, address=address.get_attr("IFA_ADDRESS"), prefixlen=address["prefixlen"]
            )
        route.link("set", index=index, state="up")


def _fits(name: str, pattern: tuple[str, str, str]) -> bool:
    before, marker, after = pattern
    if not marker:
        return name == before
    middle = name.removeprefix(before).removesuffix(after)
    return name.startswith(before) and name.endswith(after) and middle.isdigit()
