"""What a launcher asks of the warm planner, and whether it may: who it is, and taking on what it was called with.

A request is one message of csrc/warm_client.c. Who asks must be in every respect what the planner is: see `standing`.
Not here: waiting for launchers and serving them (warm.py). Source: man 7 unix, man 5 proc.
"""

from __future__ import annotations

import _signal
import _socket
import fcntl
import posix
import select
import sys
import time

from pyrun import boot, launch
from pyrun.store import paths

from .warm_launcher import SIGIO, Unsuited

_NAMESPACES = (
    "cgroup",
    "ipc",
    "mnt",
    "net",
    "pid",
    "pid_for_children",
    "time",
    "time_for_children",
    "user",
    "uts",
)
_STATUS = (
    b"Uid", b"Gid", b"Groups", b"CapInh", b"CapPrm", b"CapEff", b"CapBnd", b"CapAmb", b"NoNewPrivs", b"Seccomp",
    b"Seccomp_filters",
)  # fmt: skip
_REQUEST_SIZE = 1 << 18
_REQUEST_DESCRIPTORS = 5
_SO_PEERCRED, _CREDENTIALS_SIZE, _SO_PEERPIDFD = 17, 12, 77
_MSG_CMSG_CLOEXEC = 0x40000000


def peer(connection: _socket.socket) -> int:
    """The pid of the launcher; 0 if it is not root's or not in our pid namespace."""
    answer = connection.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, _CREDENTIALS_SIZE)
    pid, uid = int.from_bytes(answer[:4], "little"), int.from_bytes(answer[4:8], "little")
    return 0 if uid else pid


def standing(place: str) -> tuple[object, ...]:
    """What a process of *place* (/proc/PID) may do, and where: namespaces, root, ids, capabilities, filters, label and
    limits. Of filters the kernel tells how many, not which; of Landlock nothing."""
    root = posix.stat(f"{place}/root")
    status = [
        line for line in paths.read(f"{place}/status").split(b"\n") if line.partition(b":")[0] in _STATUS
    ]
    try:
        label = paths.read(f"{place}/attr/current")
    except OSError:  # no security module has one
        label = b""
    spaces = [_link(f"{place}/ns/{name}") for name in _NAMESPACES]
    return spaces, root.st_dev, root.st_ino, status, label, paths.read(f"{place}/limits")


def _link(path: str) -> str:
    try:
        return posix.readlink(path)
    except FileNotFoundError:  # a kernel without time namespaces
        return ""


def pidfd_of(connection: _socket.socket, pid: int) -> int:
    """A descriptor of the launcher: since Linux 6.5 of the process that connected, before of who has its pid now."""
    try:
        answer = connection.getsockopt(_socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
    except OSError:
        return posix.pidfd_open(pid)
    return int.from_bytes(answer, "little")


def same_standing(connection: _socket.socket, pid: int, own: object) -> bool:
    """Whether the launcher is what we are, and is still there after it was looked at."""
    try:
        pidfd = pidfd_of(connection, pid)
        theirs = standing(f"/proc/{pid}")
    except OSError:
        return False
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = poll.poll(0)
    posix.close(pidfd)
    return theirs == own and not ended


def holds_pipe(pid: int, pipe_fd: int) -> bool:
    """Whether the process has an end of the pipe it sent: so it is the one that asked, whatever became of a pid."""
    number = posix.fstat(pipe_fd).st_ino
    names = posix.listdir(f"/proc/{pid}/fd")
    return any(_link(f"/proc/{pid}/fd/{name}") == f"pipe:[{number}]" for name in names)


def files() -> list[str]:
    """What tells an installation from another: the program's files."""
    binary = boot.binary().rpartition("/")[0]
    return [identity(path) for path in (f"{binary}/pyrun", f"{binary}/pyrun-oci", sys.argv[0])]


def identity(path: str) -> str:
    """Of a file, as the launcher says that of its own; "" where there is none."""
    try:
        status = posix.stat(path)
    except OSError:
        return ""
    seconds, rest = divmod(status.st_mtime_ns, 1_000_000_000)
    return f"{status.st_dev}:{status.st_ino}:{seconds}.{rest:09d}"


def adopt(connection: _socket.socket, known: list[str], pid: int) -> list[str]:
    """Take on the launcher's arguments (returned), environment, directory, umask and streams.

    known: what `files` said at the beginning. Raises Unsuited for a launcher of another installation.
    """
    size = _socket.CMSG_SPACE(4 * _REQUEST_DESCRIPTORS)
    text, ancillary, _, _ = connection.recvmsg(_REQUEST_SIZE, size, _MSG_CMSG_CLOEXEC)
    rights = ancillary[0][2] if ancillary else b""
    fds = [int.from_bytes(rights[at : at + 4], "little") for at in range(0, len(rights), 4)]
    said, mask, count, *words = text.split(b"\0")[:-1]
    if len(fds) != _REQUEST_DESCRIPTORS or said.decode() not in known or known != files():
        raise Unsuited
    directory_fd, pipe_fd, *streams = fds
    if identity(f"/proc/{pid}/exe") != said.decode() or not holds_pipe(pid, pipe_fd):
        raise Unsuited
    _end_with(pipe_fd)
    posix.fchdir(directory_fd)
    posix.close(directory_fd)
    posix.umask(int(mask, 8))
    for number, fd in enumerate(streams):
        posix.dup2(fd, number)
        posix.close(fd)
    _take_environment(words[int(count) :])
    launch.timeline[:] = [("warm planner", time.monotonic_ns())]
    argv = [word.decode("utf-8", "surrogateescape") for word in words[: int(count)]]
    sys.argv = argv
    return argv


def _take_environment(items: list[bytes]) -> None:
    """As the interpreter reads its own: the first of a name counts."""
    for name in list(posix.environ):
        posix.unsetenv(name)
    posix.environ.clear()
    for item in items:
        name, equals, value = item.partition(b"=")
        if name and equals and name not in posix.environ:
            posix.environ[name] = value
            posix.putenv(name, value)


def _end_with(pipe_fd: int) -> None:
    """When the launcher ends, so does what is done for it: as by Ctrl-C, with everything undone."""
    _signal.signal(SIGIO, _signal.default_int_handler)
    fcntl.fcntl(pipe_fd, fcntl.F_SETOWN, posix.getpid())
    fcntl.fcntl(pipe_fd, fcntl.F_SETFL, posix.O_NONBLOCK | posix.O_ASYNC)
    poll = select.poll()
    poll.register(pipe_fd, 0)
    if poll.poll(0):  # it has ended already
        posix._exit(1)
