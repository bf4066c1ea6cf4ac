"""How near to this host an address is: a server may not lead pyrun nearer than it is itself.

A realm or a Location is chosen by a server, which may be hostile, and what it names is asked by this host: its own
loopback, the metadata of its cloud, and what else of a private network listens to it alone. So each such request has
a limit, the zone of the server that caused it; a server that was named by the user or the mirror table has none.

What counts is the address a socket is connected to, not the answer to an earlier question: names are resolved here,
once, and what is too near is not connected to. By a proxy only addresses can be judged; names are the proxy's own.
Source: the IANA special-purpose address registries (RFC 6890); RFC 6052 and RFC 3056 for IPv4 within IPv6.
"""

from __future__ import annotations

import ipaddress
import socket
from enum import IntEnum

from pyrun.errors import RegistryError

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Global by their numbers, but answered by the cloud this host is in: Azure, Oracle.
_METADATA = ("168.63.129.16", "192.0.0.192")

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Zone(IntEnum):
    """The larger, the nearer."""

    PUBLIC = 0
    PRIVATE = 1
    LINK_LOCAL = 2
    LOOPBACK = 3

    @property
    def words(self) -> str:
        """As in "the ... address ADDRESS"."""
        return self.name.lower().replace("_", "-")


def zone_of(address: str) -> Zone:
    """The zone of an address in digits, as getaddrinfo(3) returns it. Raises ValueError."""
    ip: _IPAddress = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        ip = _within(ip)
    if ip.is_loopback or ip.is_unspecified:  # Linux connects 0.0.0.0 and :: to the host itself
        return Zone.LOOPBACK
    if ip.is_link_local or str(ip) in _METADATA:
        return Zone.LINK_LOCAL
    return Zone.PUBLIC if ip.is_global and not ip.is_multicast else Zone.PRIVATE


def _within(ip: ipaddress.IPv6Address) -> _IPAddress:
    """The IPv4 address that an IPv6 one stands for, else itself."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(ip.packed[12:])
    return ip.ipv4_mapped or ip.sixtofour or ip


def refuse_literal(host: str, port: int, limit: Zone) -> Zone:
    """The zone of a host that a proxy connects to: of an address its own, of a name PUBLIC. Raises RegistryError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return Zone.PUBLIC
    zone = max(zone_of(str(where[0])) for *_, where in found)
    if zone > limit:
        raise _too_near(host, str(found[0][4][0]), zone, limit)
    return zone


def dial(host: str, port: int, timeout_s: float, limit: Zone) -> socket.socket:
    """A connection to the first address of *host* that answers and is in the zone *limit* or farther away.

    timeout_s: for each address. Raises RegistryError if all are nearer, OSError (also gaierror).
    """
    refused = failure = None
    for *_, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        address = str(where[0])
        zone = zone_of(address)
        if zone > limit:
            refused = _too_near(host, address, zone, limit)
            continue
        try:
            return socket.create_connection((address, port), timeout_s)
        except OSError as error:
            failure = error
    raise failure or refused or OSError(f"{host} has no address")


def _too_near(host: str, address: str, zone: Zone, limit: Zone) -> RegistryError:
    shown = address if host == address else f"{address} of {host}"
    return RegistryError(
        f"{shown} is a {zone.words} address: a server at a {limit.words} one may not send pyrun there",
        "the registry is set up wrongly, or hostile",
    )
