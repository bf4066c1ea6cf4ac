"""systemd's two protocols across a container's wall: NOTIFY_SOCKET ("I am ready") and LISTEN_FDS ("take these").

A service that is a container tells `READY=1` on a socket of the caller's that it cannot reach. So the container gets
one of its own, and whoever starts it passes the word on:

    create   make(directory); additions(directory) into the config: a bind mount of DIRECTORY/notify on /run/notify
    start    socket = listen(directory) before init goes on; afterwards forward(socket, host, pid, pidfd)
    run      the same, with the monitor's pid (it is this process's) for the service manager to watch

`forward` blocks until the container is ready or has ended: `start` returns when the service is up, as with runc. What a
container writes is not passed on as it is: only that it is ready. Source: sd_notify(3), sd_listen_fds(3);
runc docs/systemd.md (behaviour).
"""

from __future__ import annotations

import _socket
import _struct
import posix
import select

from pyrun import notice
from pyrun.errors import PyrunError

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Mount

Environment = dict[bytes, bytes]

INSIDE = "/run/notify"
NAME = "notify.sock"
DATAGRAM_BYTES_MAX = 4096
BARRIER_LIMIT_S = 30.0


def host_socket(environ: Environment) -> str:
    """$NOTIFY_SOCKET, "" when nobody wants to know."""
    path = environ.get(b"NOTIFY_SOCKET", b"").decode("utf-8", "surrogateescape")
    return path if path[:1] in ("/", "@") else ""


def additions(directory: str) -> tuple[Mount, str]:
    """The mount and the variable that a container with a notify socket gets; *directory* is its state directory."""
    options = ["bind", "nosuid", "noexec", "nodev", "ro"]
    mount: Mount = {
        "destination": INSIDE,
        "type": "bind",
        "source": f"{directory}/notify",
        "options": options,
    }
    return mount, f"NOTIFY_SOCKET={INSIDE}/{NAME}"


def make(directory: str) -> None:
    """The directory that is mounted; users of the container have to get at the socket in it."""
    posix.mkdir(f"{directory}/notify", 0o755)
    posix.chmod(f"{directory}/notify", 0o755)


def listen(directory: str) -> _socket.socket | None:
    """The container's socket, bound. None for one that was created without NOTIFY_SOCKET."""
    try:
        directory_fd = posix.open(f"{directory}/notify", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return None
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    path = f"/proc/self/fd/{directory_fd}/{NAME}"  # a socket's path has room for 107 bytes
    try:
        socket.bind(path)
        posix.chmod(path, 0o777)
    except OSError as error:
        socket.close()
        raise PyrunError(f"notify socket in {directory}: {error.strerror}") from None
    finally:
        posix.close(directory_fd)
    return socket


def forward(socket: _socket.socket, host: str, main_pid: int, pidfd: int) -> bool:
    """Wait for the container to be ready and tell *host*; False when it ended before (*pidfd* tells).

    main_pid: whom the service manager shall watch. Raises PyrunError if the host's socket cannot be used.
    """
    while True:
        readable, _, _ = select.select([socket.fileno(), pidfd], [], [])
        if socket.fileno() not in readable:
            return False
        for line in socket.recv(DATAGRAM_BYTES_MAX).split(b"\n"):
            if line == b"READY=1":
                _tell(host, main_pid)
                return True


def _tell(host: str, main_pid: int) -> None:
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    name = host.encode("utf-8", "surrogateescape")
    try:
        socket.connect(b"\0" + name[1:] if name[:1] == b"@" else name)
        socket.send(b"READY=1\n")
        socket.send(b"MAINPID=%d\n" % main_pid)
        _barrier(socket)
    except OSError as error:
        raise PyrunError(f"NOTIFY_SOCKET {host}: {error.strerror}") from None
    finally:
        socket.close()


def _barrier(socket: _socket.socket) -> None:
    """Wait until what was sent has been read: this process is the proof that the messages are the service's.

    The other side closes the descriptor it gets. Source: sd_notify_barrier(3).
    """
    reading_fd, writing_fd = posix.pipe2(posix.O_CLOEXEC)
    try:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _struct.pack("i", writing_fd))
        socket.sendmsg([b"BARRIER=1"], [rights])
    finally:
        posix.close(writing_fd)
    ended, _, _ = select.select([reading_fd], [], [], BARRIER_LIMIT_S)
    posix.close(reading_fd)
    if not ended:
        notice.say(f"what was sent to NOTIFY_SOCKET was not read within {BARRIER_LIMIT_S:.0f} s")


def listen_fds(environ: Environment, pid: int = 0) -> tuple[int, list[str]]:
    """How many descriptors from 3 on are sockets for the container, and the variables that tell it.

    They are ours only if LISTEN_PID is this process (*pid*, for tests): variables are inherited by accident. The
    container's process is 1 in its namespace, and is told so. Source: sd_listen_fds(3).
    """
    count = environ.get(b"LISTEN_FDS", b"")
    if environ.get(b"LISTEN_PID", b"") != b"%d" % (pid or posix.getpid()) or not (
        count.isdigit() and len(count) < 10 and int(count)
    ):
        return 0, []
    added = [f"LISTEN_FDS={int(count)}", "LISTEN_PID=1"]
    if names := environ.get(b"LISTEN_FDNAMES", b""):
        added.append("LISTEN_FDNAMES=" + names.decode("utf-8", "surrogateescape"))
    return int(count), added
