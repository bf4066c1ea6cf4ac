"""What a launcher asks of the warm planner, and whether it may: who it is, and taking on what it was called with.

A request is one message of csrc/hand.c. Whoever asks has to be in every respect what the planner is: see `standing`.
Not here: waiting for launchers and serving them (warm.py). Source: man 7 unix, man 5 proc.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has no stub for the C half
import _socket
import fcntl
import posix
import select
import sys
import time

from pyrun import boot, caller, launch
from pyrun.store import paths

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
)  # fmt: skip
_REQUEST_SIZE = 1 << 18
_REQUEST_DESCRIPTORS = 5
_SO_PEERCRED, _CREDENTIALS_SIZE = 17, 12


def peer(connection: _socket.socket) -> int:
    """The pid of the launcher; 0 if it is not root's or not in our pid namespace."""
    answer = connection.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, _CREDENTIALS_SIZE)
    pid, uid = int.from_bytes(answer[:4], "little"), int.from_bytes(answer[4:8], "little")
    return 0 if uid else pid


def standing(place: str) -> tuple[object, ...]:
    """What a process of *place* (/proc/PID) may do, and where: namespaces, root, ids, capabilities, filters, label."""
    root = posix.stat(f"{place}/root")
    status = [
        line for line in paths.read(f"{place}/status").split(b"\n") if line.partition(b":")[0] in _STATUS
    ]
    try:
        label = paths.read(f"{place}/attr/current")
    except OSError:  # no security module has one
        label = b""
    spaces = [_link(f"{place}/ns/{name}") for name in _NAMESPACES]
    return spaces, root.st_dev, root.st_ino, status, label


def _link(path: str) -> str:
    try:
        return posix.readlink(path)
    except FileNotFoundError:  # a kernel without time namespaces
        return ""


def same_standing(pid: int, own: object) -> bool:
    """Looked at through a descriptor of the process: at the end it is still the same one."""
    try:
        pidfd = posix.pidfd_open(pid)
        theirs = standing(f"/proc/{pid}")
    except OSError:
        return False
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = poll.poll(0)
    posix.close(pidfd)
    return theirs == own and not ended


def files() -> list[str]:
    """What tells an installation from another: the program's files, as the launcher says its own."""
    binary = boot.binary().rpartition("/")[0]
    found = []
    for path in (f"{binary}/pyrun", f"{binary}/pyrun-oci", sys.argv[0]):
        try:
            status = posix.stat(path)
        except OSError:
            continue
        seconds, rest = divmod(status.st_mtime_ns, 1_000_000_000)
        found.append(f"{status.st_dev}:{status.st_ino}:{seconds}.{rest:09d}")
    return found


def adopt(connection: _socket.socket, known: list[str]) -> list[str]:
    """Take on the launcher's arguments (returned), environment, directory, umask and streams.

    known: what `files` said at the beginning. Raises Unsuited for a launcher of another installation.
    """
    size = _socket.CMSG_SPACE(4 * _REQUEST_DESCRIPTORS)
    text, ancillary, _, _ = connection.recvmsg(_REQUEST_SIZE, size)
    rights = ancillary[0][2] if ancillary else b""
    fds = [int.from_bytes(rights[at : at + 4], "little") for at in range(0, len(rights), 4)]
    identity, mask, count, *words = text.split(b"\0")[:-1]
    if len(fds) != _REQUEST_DESCRIPTORS or identity.decode() not in known:
        raise caller.Unsuited
    directory_fd, pipe_fd, *streams = fds
    _end_with(pipe_fd)
    posix.fchdir(directory_fd)
    posix.close(directory_fd)
    posix.umask(int(mask, 8))
    for number, fd in enumerate(streams):
        posix.dup2(fd, number)
        posix.close(fd)
    posix.environ.clear()
    for item in words[int(count) :]:
        name, _, value = item.partition(b"=")
        posix.environ[name] = value
        posix.putenv(name, value)
    launch.timeline[:] = [("warm planner", time.monotonic_ns())]
    argv = [word.decode("utf-8", "surrogateescape") for word in words[: int(count)]]
    sys.argv = argv
    return argv


def _end_with(pipe_fd: int) -> None:
    """When the launcher ends, so does what is done for it: as by Ctrl-C, with everything undone."""
    _signal.signal(caller.SIGIO, _signal.default_int_handler)
    fcntl.fcntl(pipe_fd, fcntl.F_SETOWN, posix.getpid())
    fcntl.fcntl(pipe_fd, fcntl.F_SETFL, posix.O_NONBLOCK | posix.O_ASYNC)
    poll = select.poll()
    poll.register(pipe_fd, 0)
    if poll.poll(0):  # it has ended already
        posix._exit(1)
