"""Published ports: taken on the host before the start, so that a conflict is told with its owner's name.

A port is claimed by a file run/ports/<protocol>-<host address>-<port> (see claims.py) and tried with a bind: the file
settles it among containers, the bind against every other program of the host. A bound socket then stays with the guard
(reservation.py) as long as the file is there. Nothing listens on it: connections are redirected by the firewall's maps.

A wildcard (0.0.0.0, or :: for IPv6) excludes every address of its family. Whoever claims a port of one address notes
that address in run/ports-at first, then claims, then looks for the wildcard; whoever claims a wildcard claims, then
looks at the noted addresses. So of two that race at least one sees the other, and neither looks through all ports.

What the words of -p mean is in option.py; which port is taken where none was named, in choosing.py.
"""

from __future__ import annotations

import errno
import posix
import time
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton, socket

from pyrun.errors import Conflict, NetworkError, UsageError
from pyrun.network import claims
from pyrun.network.publishing import reservation
from pyrun.store import paths

ANY, ANY6, LOOPBACK6 = "0.0.0.0", "::", "::1"
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}

# (host address, port on the host, port in the container, protocol)
Port = tuple[str, int, int, str]

# The guard lets go of a port a moment after its claim is gone.
_PATIENCE, _PAUSE_S = 10, 0.005


class HostRange(int):
    """Ports of the host of which the first free one is meant: the number of the first, and `last`."""

    last: int

    def __new__(cls, first: int, last: int) -> HostRange:
        made = super().__new__(cls, first)
        made.last = last
        return made


def check(ports: list[Port]) -> None:
    """Raises UsageError for what no host could publish."""
    seen: dict[tuple[str, int], list[Port]] = {}
    for port in ports:
        host, number, inside, protocol = port
        if protocol not in PROTOCOLS:
            raise UsageError(f"-p {spelled(port)}: unknown protocol {protocol!r}", "tcp, udp or sctp")
        if not 0 <= number <= 65535 or not 1 <= inside <= 65535:
            raise UsageError(f"-p {spelled(port)}: a port is a number from 1 to 65535", "-p 8080:80")
        if host:
            _check_address(host, f"-p {spelled(port)}")
        if not number or isinstance(number, HostRange):
            continue
        others = seen.setdefault((protocol, number), [])
        for other in others:
            if overlap(host, other[0]):
                raise UsageError(
                    f"-p {spelled(other)} and -p {spelled(port)} both want port {number}/{protocol} of the host",
                    "a port of the host leads to one place: publish another, or each on its own address",
                )
        others.append(port)


def overlap(host: str, other: str) -> bool:
    """Whether a port of the one address is one of the other; "" means all of both families."""
    if not (host and other):
        return True
    return (":" in host) == (":" in other) and (host == other or bool({host, other} & {ANY, ANY6}))


def _check_address(host: str, told: str) -> None:
    try:
        inet_pton(AF_INET6 if ":" in host else AF_INET, host)
    except (OSError, ValueError):  # the latter: a byte that is no character
        raise UsageError(f"{told}: {host!r} is no IP address", "an address of this host, or none") from None


def spelled(port: Port) -> str:
    """The word after -p that means this port."""
    host, number, inside, protocol = port
    place = f"[{host}]:" if ":" in host else f"{host}:" if host else ""
    chosen = f"{int(number)}-{number.last}" if isinstance(number, HostRange) else str(number or "")
    return f"{place}{chosen}{':' if place or chosen else ''}{inside}{'' if protocol == 'tcp' else '/' + protocol}"


def lines(ports: list[Port]) -> list[str]:
    """How a claim's record tells of them; a range of ports is one line, since every claim of a start has them all."""
    told: list[str] = []
    at = 0
    while at < len(ports):
        host, number, inside, protocol = ports[at]
        more = 1
        while at + more < len(ports) and ports[at + more] == (host, number + more, inside + more, protocol):
            more += 1
        count = f" {more}" if more > 1 else ""
        told.append(f"port {protocol} {host} {number} {inside}{count}")
        at += more
    return told


def parse(record: list[str]) -> list[Port]:
    """The ports a claim's record tells of."""
    found: list[Port] = []
    for line in record:
        if line.startswith("port "):
            _, protocol, host, number, inside, *count = line.split(" ")
            first, first_inside = int(number), int(inside)
            for more in range(int(count[0]) if count else 1):
                found.append((host, first + more, first_inside + more, protocol))
    return found


def leads(record: list[str]) -> dict[bool, str]:
    """Where the ports a claim's record tells of lead to: IPv6? -> the container's address."""
    return {":" in line: line[3:] for line in record if line.startswith("to ")}


def path(port: Port) -> str:
    """The claim file of a published port."""
    host, number, _, protocol = port
    return f"{paths.run()}/ports/{protocol}-{host}-{int(number)}"


def claim(port: Port, record: str) -> None:
    """Take the port for the owner of *record*. Raises: Conflict naming the container that has it."""
    mine = path(port)
    if port[0] not in (ANY, ANY6):
        _note_address(port[0])
    if not claims.take_over(record, mine):
        raise _taken(port, mine)
    for other in overlapping(port):
        if claims.alive(claims.holder(other)):
            claims.release(mine, claims.holder(record))
            raise _taken(port, other)


def refuse_taken(ports: list[Port]) -> None:
    """What `claim` would refuse, without claiming. Raises: Conflict."""
    for port in ports:
        if claimed := _holder(port):
            raise _taken(port, claimed)


def _holder(port: Port) -> str:
    """The claim of a living container that is in the way of *port*, "" if there is none; dead ones are removed."""
    for claimed in [path(port), *overlapping(port)]:
        holder = claims.holder(claimed)
        if claims.alive(holder):
            return claimed
        if holder:
            claims.reclaim(claimed)
    return ""


def _note_address(host: str) -> None:
    noted = f"{paths.run()}/ports-at/{host}"
    if not paths.exists(noted):
        paths.make(f"{paths.run()}/ports-at")
        paths.write(noted, b"")


def overlapping(port: Port) -> list[str]:
    """The claims, whether they are there or not, that exclude this one."""
    host, number, inside, protocol = port
    six = ":" in host
    if host not in (ANY, ANY6):
        return [path((ANY6 if six else ANY, number, inside, protocol))]
    try:
        addresses = posix.listdir(f"{paths.run()}/ports-at")
    except FileNotFoundError:
        return []
    return [path((address, number, inside, protocol)) for address in addresses if (":" in address) == six]


def _taken(port: Port, claim_path: str) -> Conflict:
    return taken(port, claims.name_of(claim_path))


def taken(port: Port, name: str) -> Conflict:
    """The error about a port that the container *name* publishes."""
    return Conflict(
        f"port {place((port[0] or ANY, *port[1:]))}/{port[3]} is already published by container {name}",
        "stop that container, or publish another port",
    )


def place(port: Port) -> str:
    """Address and port of the host, as one writes them: 0.0.0.0:8080, [::1]:8080."""
    return f"[{port[0]}]:{int(port[1])}" if ":" in port[0] else f"{port[0]}:{int(port[1])}"


def bound(host: str, number: int, protocol: str) -> socket:
    """A socket on the port. Raises: Conflict with the name of who has it, NetworkError."""
    for tries in range(_PATIENCE):
        try:
            return reservation.bound(host, number, protocol)
        except OSError as error:
            problem = error
        if problem.errno != errno.EADDRINUSE:
            break
        port = (host, number, 0, protocol)
        if claimed := _holder(port):
            raise _taken(port, claimed)
        if host == ANY6 and protocol == "tcp" and (claimed := _holder((ANY, number, 0, protocol))):
            raise Conflict(
                f"port {place(port)}/tcp: container {claims.name_of(claimed)} has 0.0.0.0:{number}, and with it"
                f" [::1]:{number}",
                "publish another port, or both on that container",
            )
        if reservation.guarded():
            if host in (ANY, ANY6) and (beside := _beside_resolver(host, number, protocol)):
                return beside
        elif tries:  # once more: a start that has just chosen it claims it a moment later
            break
        time.sleep(_PAUSE_S)
    raise unusable(problem, host, number, protocol)


def _beside_resolver(host: str, number: int, protocol: str) -> socket | None:
    from pyrun.network.publishing import occupant

    return occupant.bound(host, number, protocol) if protocol in ("tcp", "udp") else None


def _of_a_program(host: str, number: int, protocol: str) -> Conflict:
    from pyrun.network.publishing import occupant

    told = f"port {place((host, number, 0, protocol))}/{protocol} is in use by another program of this host"
    if who := occupant.named(host, number, protocol):
        return Conflict(f"{told}: {who}", "end it, or publish another port")
    letter = {"tcp": "t", "udp": "u", "sctp": "S"}[protocol]
    return Conflict(
        told, f"`ss -{letter}anp 'sport = :{number}'` as root may name it; or publish another port"
    )


def unusable(error: OSError, host: str, number: int, protocol: str) -> Conflict | NetworkError:
    """What a bind's error means for the user."""
    where = place((host, number, 0, protocol))
    if error.errno == errno.EADDRINUSE:
        return _of_a_program(host, number, protocol)
    if error.errno == errno.EADDRNOTAVAIL:
        return NetworkError(
            f"-p {where}: this host has no address {host}", "`ip -br addr` lists those it has"
        )
    if error.errno == errno.EAFNOSUPPORT and ":" in host:
        return NetworkError(f"-p {where}: this kernel has no IPv6", "an IPv4 address, or none")
    return NetworkError(f"-p {where}: {posix.strerror(error.errno or 0)}")


def normal(address: str) -> str:
    """An address of either family in its one spelling. Raises OSError."""
    family = AF_INET6 if ":" in address else AF_INET
    return inet_ntop(family, inet_pton(family, address))
