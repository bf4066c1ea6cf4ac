"""Which port of the host is taken where a range was named, or none; and whether those that were named are free.

A port that is chosen here stays bound until the guard has it (reservation.py), so that of two starts at the same moment
only one chooses it. Nothing is claimed: that is ports.claim's.
"""

from __future__ import annotations

import errno
from _socket import socket

from pyrun.errors import Conflict
from pyrun.network import claims
from pyrun.network.publishing import ports, reservation


def settle(asked: list[ports.Port], *, six: bool = False, keep: bool = True) -> list[ports.Port]:
    """The same ports with every default filled in: the wildcard address, and a free port where none was chosen.

    six: a port without an address is published for IPv6 too, as the entry after it. keep: a port that was chosen here
    stays bound until the guard has it, so that no other start chooses it too; others as well, if they are few.
    Raises: Conflict when another program of this host has the port, NetworkError for a foreign address.
    """
    fixed = {(port[3], port[1]) for port in asked if port[1] and not isinstance(port[1], ports.HostRange)}
    settled: list[ports.Port] = []
    for host, port, inside, protocol in asked:
        hosts = [host] if host else [ports.ANY, ports.ANY6] if six else [ports.ANY]
        if isinstance(port, ports.HostRange):
            port = _first_free(hosts, port, protocol, fixed, keep=keep)
        elif port == 0:
            port = _any_free(hosts, protocol, fixed, keep=keep)
        else:
            for each in hosts:
                sock = ports.bound(each, port, protocol)
                if keep and len(asked) <= reservation.HELD_AT_ONCE // 2:  # there may be one in each family
                    reservation.keep([(ports.path((each, port, 0, protocol)), sock)])
                else:
                    sock.close()
        fixed.add((protocol, port))
        settled += [(each, port, inside, protocol) for each in hosts]
    return settled


def _first_free(
    hosts: list[str], span: ports.HostRange, protocol: str, fixed: set[tuple[str, int]], *, keep: bool
) -> int:
    for number in range(int(span), span.last + 1):
        if (protocol, number) not in fixed and _choose(hosts, number, protocol, keep=keep):
            return number
    raise Conflict(
        f"-p {int(span)}-{span.last}: no port of these is free ({protocol})",
        "a wider range, or no port of the host",
    )


def _any_free(hosts: list[str], protocol: str, fixed: set[tuple[str, int]], *, keep: bool) -> int:
    while True:
        # The kernel knows the ports of the host's programs, and those of containers which the guard holds.
        first = ports.bound(hosts[0], 0, protocol)
        number = int(first.getsockname()[1])
        first.close()
        if (protocol, number) not in fixed and _choose(hosts, number, protocol, keep=keep):
            return number


def _choose(hosts: list[str], number: int, protocol: str, *, keep: bool) -> bool:
    """Whether the port is free everywhere; bound meanwhile, so that of two starts only one chooses it."""
    found: list[socket] = []
    try:
        for host in hosts:
            found.append(reservation.bound(host, number, protocol))
            port = (host, number, 0, protocol)
            if any(
                claims.alive(claims.holder(each)) for each in [ports.path(port), *ports.overlapping(port)]
            ):
                return False
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise ports.unusable(error, hosts[0], number, protocol) from None
        return False
    else:
        if keep:
            reservation.keep(
                [
                    (ports.path((host, number, 0, protocol)), sock)
                    for host, sock in zip(hosts, found, strict=True)
                ]
            )
            found = []
        return True
    finally:
        for sock in found:
            sock.close()
