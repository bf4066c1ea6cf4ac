"""Which subnet a network gets: private, and in nobody's way.

A candidate is refused if it overlaps any address of this host, any route of any table (a VPN keeps its own
tables), a name server, or another network of pyrun. The first candidates are ranges that Docker, podman and
libvirt do not hand out. Pure but for `taken`, which asks the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from pyrun.errors import NetworkError
from pyrun.network import resolver
from pyrun.store import paths

CANDIDATES = [
    *[IPv4Network(f"10.{number}.0.0/16") for number in range(77, 87)],
    *[IPv4Network(f"172.{number}.0.0/16") for number in range(30, 23, -1)],
    *[IPv4Network(f"192.168.{number}.0/20") for number in range(240, 127, -16)],
]


def choose(taken_by: Iterable[IPv4Network]) -> IPv4Network:
    """The first candidate that overlaps nothing. Raises: NetworkError."""
    obstacles = list(taken_by)
    for candidate in CANDIDATES:
        if not any(candidate.overlaps(obstacle) for obstacle in obstacles):
            return candidate
    raise NetworkError(
        "no private subnet is free for the network: routes or addresses overlap all of them",
        "see `ip route show table all` and `ip addr`",
    )


def choose_small(taken_by: Iterable[IPv4Network]) -> IPv4Network:
    """A /24, for a network a user makes without --subnet: from the last candidate, so that the /16 of the default one
    stays whole. Raises: NetworkError."""
    obstacles = list(taken_by)
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


def choose6(networks: Iterable[dict[str, object]]) -> IPv6Network:
    """The first free /64 of this host's own unique local /48, which is drawn once and kept. Source: RFC 4193."""
    path = f"{paths.root()}/networks/ula"
    try:
        prefix = paths.read(path)
    except OSError:
        prefix = b"\xfd" + os.urandom(5)
        paths.make(path.rpartition("/")[0])
        paths.replace(path, prefix, lasting=True)
    used = {str(each["subnet"]) for network in networks for each in network["subnets6"]}  # type: ignore[attr-defined]
    for number in range(65536):
        subnet = IPv6Network((prefix + number.to_bytes(2, "big") + bytes(8), 64))
        if str(subnet) not in used:
            return subnet
    raise NetworkError(
        f"every /64 of {IPv6Network((prefix + bytes(10), 48))} is used", "choose one with --subnet"
    )


def taken(route: Any, networks: Iterable[dict[str, object]]) -> list[IPv4Network]:
    """Everything a new subnet must not overlap. route: a pyroute2 IPRoute."""
    found = [
        IPv4Network(str(each["subnet"]))
        for network in networks
        for each in network["subnets4"]  # type: ignore[attr-defined]
    ]
    for message in route.get_routes(family=2):
        destination = message.get_attr("RTA_DST")
        # Default routes, and the two halves some VPNs write for one, are in everybody's way and in nobody's.
        if destination and message["dst_len"] > 1:
            found.append(IPv4Network(f"{destination}/{message['dst_len']}", strict=False))
    for message in route.get_addr(family=2):
        found.append(IPv4Network(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}", strict=False))
    for path in (resolver.HOST_FILE, resolver.BEHIND_STUB):
        found += [IPv4Network(server) for server in _servers(path)]
    return found


def _servers(path: str) -> list[str]:
    try:
        lines = paths.read(path).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    named = resolver.servers([line for line in lines if line.split()])
    return [server for server in named if server.count(".") == 3 and server.replace(".", "").isdigit()]
