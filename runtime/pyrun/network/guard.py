"""The guard, as a start sees it: which port names are answered on, and who holds the ports on the host meanwhile.

The guard (csrc/guard.c) is one small process for all networks of a run directory, asked through a socket there:

    need     networks that containers are on now -> the port of their resolver, 53 unless somebody had it
    inside   containers that reach none of these: answered in their own namespace (drivers/naming.py)
    hold     sockets bound to published ports: kept until the claim of the port goes

One datagram there, one back: 0.1 ms. Where nobody answers, it is started, and told what stands (guard_start.py, cold).
A guard may end at any moment, when it has nothing to do or by somebody's hand; then all is asked again of the next,
which the next start makes, or the guard's spare (csrc/guard_spare.c) where containers run.
"""

from __future__ import annotations

import posix
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_SEQPACKET, SOL_SOCKET, socket
from _struct import pack
from errno import EINVAL, ENOENT

from pyrun.errors import NetworkError
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable

# sun_path of a unix socket holds so many bytes; a longer way is gone through /proc/self/fd.
_PATH_BYTES = 100
# One request holds so many networks or ports: the kernel passes at most 253 descriptors at once.
MOST = 200
_ANSWER_BYTES = 65536
_PATIENCE_S = 10
_ATTEMPTS = 20

# (network, gateway or "", IPv6 gateway or ""); without both, a network on a card of the host
Gateway = tuple[str, str, str]
# (name of the claim in run/ports, descriptor of a bound socket, where to relay [::1] to: "ADDRESS PORT", or "")
Hold = tuple[str, int, str]


def need(networks: list[Gateway]) -> dict[str, int]:
    """Have the names of these networks answered: network -> port on its gateways. Raises NetworkError."""
    ports: dict[str, int] = {}
    for at in range(0, len(networks), MOST):
        ports.update(_asked("need", ["\t".join(each) for each in networks[at : at + MOST]], []))
    for name, port in ports.items():
        if port < 0:
            raise NetworkError(
                f"network {name!r}: no socket for its resolver: {posix.strerror(-port)}", _outdated(port)
            )
    return ports


def need_soon(networks: list[Gateway], with_guard: socket | None = None) -> socket | None:
    """Ask the same of a guard that runs, without waiting: `answered` reads what it said. None: ask with `need`.

    with_guard: the connection that `hand_over` left, closed if it is of no use.
    """
    try:
        with_guard = with_guard or connected()
    except OSError:
        return None
    if _say(with_guard, "need", ["\t".join(each) for each in networks[:MOST]], []):
        return with_guard
    with_guard.close()
    return None


def answered(with_guard: socket) -> dict[str, int]:
    """The answer to `need_soon`, {} if there is none: then `need` tells why. Closes *with_guard*.

    Raises: NetworkError.
    """
    try:
        return _hear(with_guard) or {}
    finally:
        with_guard.close()


def inside(identifier: str, port: int, asks: bool, namespace_fd: int) -> int:
    """Have names answered at 127.0.0.11 of a container's own network namespace; the port it became. asks: it has
    servers of its own, which are asked from there. Raises NetworkError."""
    answer = _asked("inside", [f"{identifier}\t{port}\t{int(asks)}"], [namespace_fd])
    became = answer.get(identifier, -EINVAL)
    if became < 0:
        raise NetworkError(f"no socket for its resolver inside: {posix.strerror(-became)}", _outdated(became))
    return became


def _outdated(error: int) -> str:
    """What to do about an answer of the guard's: one of an older version does not know the question."""
    if error == -EINVAL:
        return f"pyrun-guard is of another version: kill {status().get('pid', 'it')}, it is made again"
    return "`pyrun network reload` makes the gateway's address again"


def hold(claim_name: str, fd: int, target: str = "") -> None:
    """Reserve a port: *fd* is bound to it and stays ours to close. *target*: "ADDRESS PORT", where a TCP port of
    0.0.0.0, :: or ::1 also answers on [::1], by a relay. Raises NetworkError."""
    hold_all([(claim_name, fd, target)])


def hold_all(holds: list[Hold]) -> None:
    """The same for many, in few messages. A claim that is gone already holds nothing. Raises NetworkError."""
    for at in range(0, len(holds), MOST):
        some = holds[at : at + MOST]
        lines = [f"{claim}\t{_spaced(target)}" for claim, _, target in some]
        _check_held(_asked("hold", lines, [fd for _, fd, _ in some]))


def _check_held(answer: dict[str, int]) -> None:
    for claim, error in answer.items():
        if error < 0 and error != -ENOENT:
            raise NetworkError(f"port {claim} cannot be reserved: {posix.strerror(-error)}")


def hand_over(some: list[Hold]) -> socket:
    """`hold_all` of a few, without waiting for the answer: what is under way holds the ports already. Returns the
    connection, for `confirm`. Raises OSError, NetworkError."""
    try:
        with_guard = connected()
    except OSError:
        from pyrun.network import guard_start

        with_guard = guard_start.start()
    try:
        lines = [f"{claim}\t{_spaced(target)}" for claim, _, target in some]
        rights = [(SOL_SOCKET, SCM_RIGHTS, pack(f"={len(some)}i", *[fd for _, fd, _ in some]))]
        with_guard.sendmsg(["\n".join(["hold", *lines]).encode()], rights)
    except BaseException:
        with_guard.close()
        raise
    return with_guard


def confirm(with_guard: socket) -> None:
    """Hear what became of `hand_over`. Raises NetworkError. A guard that has ended is none: the next one takes the
    ports by their claims."""
    _check_held(_hear(with_guard) or {})


def status() -> dict[str, int]:
    """Of a guard that runs: pid, spare (the pid of whom its death is told, 0: none), resolver (the same, 0: nobody has
    asked yet), ports (how many are held) and the port of every network by name. {} when there is none; starts nothing.
    """
    try:
        with_guard = connected()
    except OSError:
        return {}
    try:
        return exchanged(with_guard, "status", [], []) or {}
    finally:
        with_guard.close()


def _spaced(target: str) -> str:
    """`ADDRESS PORT` of that or of ADDRESS:PORT, [ADDRESS]:PORT."""
    if not target or " " in target:
        return target
    address, _, port = target.rpartition(":")
    return f"{address.strip('[]')} {port}"


def _asked(verb: str, lines: list[str], fds: list[int]) -> dict[str, int]:
    """The guard's answer: what each line begins with -> a number. Starts a guard if need be. Raises NetworkError."""
    for _ in range(_ATTEMPTS):
        try:
            with_guard = connected()
        except OSError:
            from pyrun.network import guard_start

            with_guard = guard_start.start()
        try:
            answer = exchanged(with_guard, verb, lines, fds)
        finally:
            with_guard.close()
        if answer is not None:
            return answer
    raise NetworkError("pyrun-guard ends whenever it is asked", f"see {socket_path()}")


def exchanged(with_guard: socket, verb: str, lines: list[str], fds: list[int]) -> dict[str, int] | None:
    """Ask once; None when it ended meanwhile. Raises NetworkError when it is silent."""
    return _hear(with_guard) if _say(with_guard, verb, lines, fds) else None


def _say(with_guard: socket, verb: str, lines: list[str], fds: list[int]) -> bool:
    rights = [(SOL_SOCKET, SCM_RIGHTS, pack(f"={len(fds)}i", *fds))] if fds else []
    try:
        with_guard.sendmsg(["\n".join([verb, *lines]).encode()], rights)
    except OSError:
        return False
    return True


def _hear(with_guard: socket) -> dict[str, int] | None:
    try:
        answer = with_guard.recv(_ANSWER_BYTES).decode()
    except TimeoutError:
        raise NetworkError(
            f"pyrun-guard does not answer within {_PATIENCE_S} s", "kill it: it is made again"
        ) from None
    except OSError:
        return None
    if not answer:
        return None
    fields = [line.partition("\t") for line in answer.splitlines()]
    return {name: int(value) for name, _, value in fields}


def socket_path() -> str:
    """Where the guard of this run directory listens."""
    return f"{paths.run()}/networks/guard.sock"


def connected() -> socket:
    """A connection to the guard. Raises OSError when none listens."""
    sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    try:
        sock.settimeout(_PATIENCE_S)
        reached(socket_path(), sock.connect)
    except BaseException:
        sock.close()
        raise
    return sock


def reached(path: str, call: Callable[[str], object]) -> None:
    """Call bind or connect of a unix socket with *path*, however long that is."""
    if len(path.encode()) <= _PATH_BYTES:
        call(path)
        return
    directory, _, name = path.rpartition("/")
    fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{fd}/{name}")
    finally:
        posix.close(fd)
