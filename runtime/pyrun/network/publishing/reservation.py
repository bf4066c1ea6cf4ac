"""Reserved ports: a socket bound to every published port, held by the guard as long as the port's claim is there.

    bound   a socket on the port; it neither listens nor reads
    keep    sockets of ports that were chosen a moment ago, until the guard is given them
    hold    give them to the guard; hand_over: without waiting for it

So a program of the host that wants a published port is told so, and so is a container that wants a program's. On [::1]
of a published TCP port the guard listens and relays: the kernel cannot redirect what goes to ::1 itself.
No guard, no reservation: the claims alone keep containers apart, and nothing else depends on it.
"""

from __future__ import annotations

import errno
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SO_REUSEADDR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

from pyrun import notice
from pyrun.errors import NetworkError
from pyrun.store import paths

_SCTP = 132
# What a kernel says that has no such protocol, or no such family: nobody of this host can have the port then.
_NOT_HERE = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EAFNOSUPPORT)

# So many descriptors are open at once, and fit into one message to the guard.
HELD_AT_ONCE = 200

# (name of the claim in run/ports, bound socket, where to relay [::1] to: "ADDRESS PORT", or "")
Held = tuple[str, socket, str]

# claim path -> the socket of a port that was chosen by a bind
_kept: dict[str, socket] = {}


def bound(host: str, number: int, protocol: str) -> socket:
    """A socket bound to the port (0: a free one). Raises OSError."""
    family = AF_INET6 if ":" in host else AF_INET
    kind = SOCK_DGRAM if protocol == "udp" else SOCK_STREAM
    sock = _opened(family, kind, protocol)
    if protocol == "sctp" and sock.proto != _SCTP:
        # of its own ports nobody can have any: the number is free, whoever has it in another protocol
        number = 0
    try:
        if family == AF_INET6 and sock.family == AF_INET6:
            sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        try:
            sock.bind((host, number))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or protocol == "udp":
                raise
            # Connections that linger after a close do not matter; a listener, or another reservation, still refuses.
            sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            sock.bind((host, number))
    except OSError:
        sock.close()
        raise
    return sock


def _opened(family: int, kind: int, protocol: str) -> socket:
    try:
        return socket(family, kind | SOCK_CLOEXEC, _SCTP if protocol == "sctp" else 0)
    except OSError as error:
        if protocol != "sctp" or error.errno not in _NOT_HERE:
            raise
        # Some number has to come out of it when any will do.
        return socket(family, kind | SOCK_CLOEXEC, 0)


def keep(chosen: list[tuple[str, socket]]) -> None:
    """Hold on to the sockets of ports that were chosen, by the paths of their claims-to-be."""
    _kept.update(chosen)


def kept(path: str) -> socket | None:
    """The socket of a port that was chosen, which is the caller's from now on."""
    return _kept.pop(path, None)


def guarded() -> bool:
    """Whether there is a guard, which may hold a port a moment longer than its claim is there."""
    return paths.exists(f"{paths.run()}/networks/guard.sock")


def let_go() -> None:
    """Close what is kept still: of a start of this process that failed."""
    for sock in _kept.values():
        sock.close()
    _kept.clear()


def hold(some: list[Held]) -> None:
    """Let the guard hold bound sockets, which are closed here, and wait until it has them. A guard that cannot be had
    is told, and no error."""
    from pyrun.network import guard

    try:
        guard.hold_all(_numbered(some))
    except (OSError, NetworkError) as error:
        _tell(error)
    finally:
        _close(some)


def hand_over(some: list[Held]) -> socket | None:
    """The same of a few, without waiting: the connection to the guard, for `confirm`; None if it cannot be had."""
    from pyrun.network import guard

    try:
        return guard.hand_over(_numbered(some))
    except (OSError, NetworkError) as error:
        _tell(error)
        return None
    finally:
        _close(some)


def confirm(with_guard: socket) -> None:
    """Hear what became of `hand_over`."""
    from pyrun.network import guard

    try:
        guard.confirm(with_guard)
    except NetworkError as error:
        _tell(error)


def _numbered(some: list[Held]) -> list[tuple[str, int, str]]:
    return [(name, sock.fileno(), target) for name, sock, target in some]


def _tell(error: Exception) -> None:
    notice.say(f"{error}; other programs of this host could take the published ports")


def _close(some: list[Held]) -> None:
    for _, sock, _ in some:
        sock.close()
