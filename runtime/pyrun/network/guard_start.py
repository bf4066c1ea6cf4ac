"""Starting the guard, once among any number who want it, and telling it what stands.

    lock ─► is there one after all? ─► a listening socket in its place ─► spawn, the socket is its descriptor 3
         ─► networks with leases, published ports ─► unlock ─► a resolver that has another port now: noted

The socket listens before the guard runs, so nobody waits for it: a connection waits in the queue. Whoever comes while
another makes one waits for the lock and then finds it. Not part of a start that finds a guard, yet light: a start
after a pause needs it.
"""

from __future__ import annotations

import fcntl
import posix
from _socket import (
    AF_UNIX,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    socket,
)

from pyrun import boot, detach
from pyrun.errors import NetworkError
from pyrun.network import claims, guard, health, messages
from pyrun.network.publishing import reservation
from pyrun.store import paths

_BACKLOG = 4096
_ERRORS = 128  # an exit status above it is an error number
_KEPT_ENVIRONMENT = (b"PATH", b"PYRUN_ROOT", b"PYRUN_RUNROOT", b"PYRUN_BINARY")


def start() -> socket:
    """A connection to the guard, which is started if there is none. Raises NetworkError."""
    paths.make(f"{paths.run()}/networks")
    flags = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
    lock_fd = posix.open(f"{paths.run()}/networks/guard.lock", flags, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        try:
            return guard.connected()
        except OSError:
            pass
        _spawn()
        became = _tell()
    finally:
        posix.close(lock_fd)
    _see_forwarded(list(became))
    _note(became)  # under the lock of networks, which nobody waits for under that of the guard
    try:
        return guard.connected()
    except OSError as error:
        raise NetworkError(f"pyrun-guard cannot be reached: {error}") from None


def _listening() -> socket:
    """A socket in the place of the last guard's, which nobody listens to any more."""
    path, new = guard.socket_path(), f"{guard.socket_path()}.{posix.getpid()}.tmp"
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    mask = posix.umask(0o177)
    try:
        if paths.exists(new):
            posix.unlink(new)
        guard.reached(new, listener.bind)
        listener.listen(_BACKLOG)
        posix.rename(new, path)
    except OSError as error:
        listener.close()
        raise NetworkError(f"pyrun-guard: no socket at {path}: {error.strerror}") from None
    finally:
        posix.umask(mask)
    return listener


def _spawn() -> None:
    """By a child, which leaves the caller's place: the guard is there for others too, and outlives us."""
    listener = _listening()
    program = boot.binary()
    try:
        pid = posix.fork()
        if pid == 0:
            status = 1
            try:
                detach.everything()
                detach.limits()
                status = _born(program, listener.fileno())
            finally:
                posix._exit(status)
        status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    finally:
        listener.close()
    if status > _ERRORS:
        reason = posix.strerror(status - _ERRORS)
        raise NetworkError(
            f"cannot start {program} as pyrun-guard: {reason}", "install pyrun again: make install"
        )
    if status:
        raise NetworkError(f"pyrun-guard ended with status {status}", f"is {program} of this version?")


def _born(program: str, listening_fd: int) -> int:
    """Its status once it is on its own; more than _ERRORS: why it could not be started."""
    files = [(posix.POSIX_SPAWN_OPEN, fd, "/dev/null", posix.O_RDWR, 0) for fd in range(3)]
    # Of our environment only what tells where things are.
    environment = {name: posix.environ[name] for name in _KEPT_ENVIRONMENT if name in posix.environ}
    try:
        pid = posix.posix_spawn(
            program,
            ["pyrun-guard", paths.run()],
            environment,
            file_actions=[*files, (posix.POSIX_SPAWN_DUP2, listening_fd, 3)],
            setsid=True,
            setsigmask=[],
        )
    except OSError as error:
        return _ERRORS + (error.errno or 0)
    return posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])


def _tell() -> dict[str, int]:
    """What the guard before knew: the networks with containers on them, and the ports of these. Returns the port of
    each network's resolver."""
    became: dict[str, int] = {}
    gateways, holds = standing(), reserved()
    inside = claims.names(f"{paths.run()}/resolvers")
    if not (gateways or holds or inside):
        return became
    told = guard.connected()
    try:
        for at in range(0, len(gateways), guard.MOST):
            lines = ["\t".join(each) for each in gateways[at : at + guard.MOST]]
            became.update(guard.exchanged(told, "need", lines, []) or {})
        for at in range(0, len(holds), guard.MOST):
            some = holds[at : at + guard.MOST]
            lines = [f"{claim}\t{target}" for claim, _, target in some]
            guard.exchanged(told, "hold", lines, [sock.fileno() for _, sock, _ in some])
        if inside:
            from pyrun.network.drivers import naming

            naming.resume(told)
    finally:
        told.close()
        for _, sock, _ in holds:
            sock.close()
    return became


def _see_forwarded(networks: list[str]) -> None:
    """A start may have asked for it a moment before the last guard had it put back (forwarding.py)."""
    for template in filter(None, map(messages.load, networks)):
        if not health.forwards(template):
            from pyrun.network import forwarding

            sock = messages.opened(messages.NETLINK_NETFILTER)
            try:
                forwarding.resume(template, sock)
            finally:
                sock.close()


def _note(became: dict[str, int]) -> None:
    """Where somebody has port 53, a guard's resolver has any other: what leads questions there is changed with it."""
    for network, port in became.items():
        template = messages.load(network)
        if port > 0 and template is not None and port != int(template.get("dns_port", 53)):
            from pyrun.network import rebuilding

            try:
                rebuilding.note_resolver(network, port)
            except OSError:  # the table is gone as well: whoever makes it again comes here too (resume)
                continue


def standing() -> list[guard.Gateway]:
    """Every network of which a container has a lease: who was on an adopted bridge before is none."""
    directory = f"{paths.run()}/networks"
    found = []
    for name in sorted(posix.listdir(directory)):
        leased = [each for each in claims.names(f"{directory}/{name}/leases") if "." in each or ":" in each]
        owners = (claims.holder(f"{directory}/{name}/leases/{each}") for each in leased)
        if not any(owner[:1] != "/" and claims.alive(owner) for owner in owners):
            continue
        template = messages.load(name)
        if template:
            found.append((name, template.get("gateway", ""), template.get("gateway6", "")))
        elif not paths.exists(f"{directory}/{name}/network.json"):  # on a card of the host
            found.append((name, "", ""))
    return found


def resume() -> bool:
    """Let there be a guard for the networks that are in use; whether somebody had ended it."""
    networks = standing()
    was_gone = bool(networks) and not guard.status()
    if networks:
        _note(guard.need(networks))
    return was_gone


def reserved() -> list[tuple[str, socket, str]]:
    """(claim, a socket bound to it, where it leads) of every published port of a living container that is free."""
    if not claims.names(f"{paths.run()}/ports"):
        return []
    from pyrun.network import records
    from pyrun.network.publishing import ports

    found = []
    for port, address in records.published_ports():
        try:
            sock = reservation.bound(port[0], port[1], port[3])
        except OSError:
            continue
        found.append((ports.path(port).rpartition("/")[2], sock, f"{address} {port[2]}"))
    return found
