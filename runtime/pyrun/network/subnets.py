"""Which subnet a network gets: private, and in nobody's way.

A candidate is refused if it overlaps any address of this host, any route of any table (a VPN keeps its own
tables), a name server, or another network of pyrun; so is a subnet somebody asks for. The first candidates are ranges
that Docker, podman and libvirt do not hand out. Pure but for `taken`, which asks the kernel.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from pyrun.errors import NetworkError
from pyrun.network import resolver
from pyrun.network.records import Network
from pyrun.store import paths

Subnet = IPv4Network | IPv6Network
CANDIDATES = [
    *[IPv4Network(f"10.{number}.0.0/16") for number in range(77, 87)],
    *[IPv4Network(f"172.{number}.0.0/16") for number in range(30, 23, -1)],
    *[IPv4Network(f"192.168.{number}.0/20") for number in range(240, 127, -16)],
]
# Default routes, and the halves or eighths some VPNs and tunnels write for one, are in everybody's way and in nobody's.
_EVERYWHERE = {4: 1, 6: 3}
# RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT: what a router does with the rest of a prefix that was delegated to it,
# out of which networks are made. Source: linux/rtnetlink.h, RFC 7084.
_NOWHERE = (6, 7, 8)


def choose(taken_by: Iterable[Subnet]) -> IPv4Network:
    """The first candidate that overlaps nothing. Raises: NetworkError."""
    obstacles = [each for each in taken_by if isinstance(each, IPv4Network)]
    for candidate in CANDIDATES:
        if not any(candidate.overlaps(obstacle) for obstacle in obstacles):
            return candidate
    raise NetworkError(
        "no private subnet is free for the network: routes or addresses overlap all of them",
        "see `ip route show table all` and `ip addr`",
    )


def choose_small(taken_by: Iterable[Subnet]) -> IPv4Network:
    """A /24, for a network a user makes without --subnet: from the last candidate, so that the /16 of the default one
    stays whole. Raises: NetworkError."""
    obstacles = [each for each in taken_by if isinstance(each, IPv4Network)]
    for candidate in reversed(CANDIDATES):
        # one look at the whole first: most obstacles are elsewhere
        near = [obstacle for obstacle in obstacles if candidate.overlaps(obstacle)]
        for subnet in candidate.subnets(new_prefix=24):
            if not any(subnet.overlaps(obstacle) for obstacle in near):
                return subnet
    raise NetworkError(
        "no private /24 is free for the network: routes, addresses and networks overlap all of them",
        "choose one with --subnet, or remove networks: `pyrun network prune`",
    )


def choose6(taken_by: Iterable[Subnet]) -> IPv6Network:
    """The first free /64 of this host's own unique local /48, which is drawn once and kept. Source: RFC 4193."""
    path = f"{paths.root()}/networks/ula"
    try:
        prefix = paths.read(path)
    except OSError:
        prefix = b"\xfd" + os.urandom(5)
        paths.make(path.rpartition("/")[0])
        paths.replace(path, prefix, lasting=True)
    whole = IPv6Network((prefix + bytes(10), 48))
    # a route for more than the /48 is somebody's for all unique local addresses, and leads elsewhere than to ours
    near = [each for each in taken_by if isinstance(each, IPv6Network) and each.subnet_of(whole)]
    for subnet in whole.subnets(new_prefix=64):
        if not any(subnet.overlaps(each) for each in near):
            return subnet
    raise NetworkError(f"every /64 of {whole} is used", "choose one with --subnet")


def taken(route: Any, networks: Iterable[Network]) -> list[Subnet]:
    """Everything a new subnet must not overlap. route: a pyroute2 IPRoute."""
    found: list[Subnet] = [ip_network(each.subnet) for network in networks for each in network.pools()]
    for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        for message in route.get_routes(family=family):
            destination, length = message.get_attr("RTA_DST"), message["dst_len"]
            delegated = version == 6 and message["type"] in _NOWHERE
            if destination and length > _EVERYWHERE[version] and not delegated:
                found.append(ip_network(f"{destination}/{length}", strict=False))
        for message in route.get_addr(family=family):
            found.append(
                ip_network(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}", strict=False)
            )
    for path in (resolver.HOST_FILE, resolver.BEHIND_STUB):
        found += _servers(path)
    return found


def _servers(path: str) -> list[Subnet]:
    try:
        lines = paths.read(path).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    found = []
    for server in resolver.servers([line for line in lines if line.split()]):
        try:
            found.append(ip_network(server.partition("%")[0]))
        except ValueError:  # no address, which resolvers overlook as well
            continue
    return found
