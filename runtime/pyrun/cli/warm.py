"""The warm planner: an interpreter with the planner loaded, which a start finds ready instead of starting one.

The launcher leaves it behind when PYRUN_WARM=SECONDS is set and there is none (csrc/hand.c); it ends when nobody has
come for that long. Children wait in accept(): each serves one launcher and ends, and another is forked in its place. So
nothing of one start is there in another, and what is in memory here is only code.

It acts with its own rights, so it serves only those who have the same: a process of the host's root in the same
namespaces and root directory, with the same capabilities, filters and label. Everybody else, and every start that needs
to be the launcher's own (caller.only_here), is told to do without. The socket is root's alone.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has no stub for the C half
import _socket
import fcntl
import posix
import select
import sys
import time

from pyrun import boot, caller, linux
from pyrun.store import paths

_MODULES = (
    "linux", "network.attach", "network.guard", "engine.run", "engine.bundle", "engine.exec_", "engine.oci.create",
    "engine.oci.run", "engine.oci.exec_", "spec.seccomp", "stages.network", "cgroups.systemd", "descriptors",
)  # fmt: skip
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
_BACKLOG = 128
_TAKEN = b"+"
_DEATHS_MAX = 10
_READY = 2
_ALONE_MS = 20
# What it is, what tells its installation from another, and the lock that only it has.
Known = tuple[tuple[object, ...], list[str], int]


def serve() -> None:
    """Wait for launchers until none has come for PYRUN_WARM seconds. Does not return."""
    given = posix.environ.get(b"PYRUN_WARM", b"")
    directory = f"{paths.run()}/warm"
    paths.make(directory)
    own, files = standing("/proc/self"), _files()
    path = f"{directory}/{_inode('mnt')}-{_inode('net')}"
    lock_fd = posix.open(f"{path}.lock", posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # there is one
        posix._exit(0)
    for name in _MODULES:
        __import__(f"pyrun.{name}")
    listening = _listen(path)
    number = posix.stat(path).st_ino
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # nobody waits for those who have served
    idle_ms = 1000 * (int(given) if given.isdigit() and len(given) < 8 else 60)
    _keep_ready(listening, (own, files, lock_fd), idle_ms)
    if posix.access(path, posix.F_OK) and posix.stat(path).st_ino == number:
        _remove(path)
        _remove(f"{path}.lock")
    listening.shutdown(_socket.SHUT_RDWR)  # the last child hears of it, unless it was taken meanwhile
    posix._exit(0)


def _inode(kind: str) -> int:
    """Of our namespace of this kind: there is a planner for every place where somebody starts something."""
    return posix.stat(f"/proc/self/ns/{kind}").st_ino


def _listen(path: str) -> _socket.socket:
    """A socket at *path*, in the place of one that somebody left there who was killed."""
    listening = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    _remove(path)
    mask = posix.umask(0o177)
    listening.bind(path)
    posix.umask(mask)
    listening.listen(_BACKLOG)
    return listening


def _remove(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        return


def _keep_ready(listening: _socket.socket, known: Known, idle_ms: int) -> None:
    """Have children wait for launchers, until none has come for so long, or the program's files are others.

    While one works the machine is its: meanwhile another is forked only if nobody waits any more.
    """
    waiting: set[int] = set()
    busy: dict[int, int] = {}  # the pipe of one that was taken: until when it is left alone
    poll = select.poll()
    died = 0  # in a row, before anybody came: then something is wrong, and forking more is no remedy
    while died < _DEATHS_MAX and known[1] == _files():
        while len(waiting) < (1 if busy else _READY):
            waiting.add(_fork(listening, known, poll))
        events = poll.poll(_ALONE_MS if busy else idle_ms)
        if not events and not busy:
            return
        now = time.monotonic_ns()
        over = {fd for fd, until in busy.items() if until < now}
        for fd, _ in events:
            if posix.read(fd, 1) == _TAKEN:
                died = 0
                waiting.discard(fd)
                busy[fd] = now + _ALONE_MS * 1_000_000
                continue
            over.add(fd)
            died += fd in waiting
        for fd in over:
            waiting.discard(fd)
            busy.pop(fd, None)
            poll.unregister(fd)
            posix.close(fd)


def _fork(listening: _socket.socket, known: Known, poll: select.poll) -> int:
    """A child that waits for a launcher: a pipe from which _TAKEN comes when it has one, and which ends with it."""
    read_fd, write_fd = posix.pipe2(posix.O_CLOEXEC)
    if posix.fork() == 0:
        _serve_one(listening, known, write_fd)
    posix.close(write_fd)
    poll.register(read_fd, select.POLLIN)
    return read_fd


# ── one launcher ───────────────────────────────────────────────────────────────────────────────────


def _serve_one(listening: _socket.socket, known: Known, taken_fd: int) -> None:
    """Wait for a launcher, do what it was called for, and end."""
    from .main import main

    own, files, lock_fd = known
    posix.close(lock_fd)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _own_memory()
    try:
        fd, _ = listening._accept()  # type: ignore[attr-defined]  # what socket.accept is made of
    except OSError:  # the planner has ended
        posix._exit(0)
    posix.write(taken_fd, _TAKEN)
    connection = _socket.socket(fileno=fd)
    listening.close()
    pid = _peer(connection)
    if not pid or not _same_standing(pid, own):
        _decline(connection)
    argv = _adopt(connection, files, pid)
    caller.serve(connection, pid)
    connection.send(caller.ACCEPTED)
    try:
        main(argv)
    except caller.Unsuited:
        _decline(connection)
    except KeyboardInterrupt:  # the launcher is gone
        posix._exit(1)


def _own_memory() -> None:
    """Have the pages copied now that are shared since the fork, and not one by one when a start writes to them."""
    for line in paths.read("/proc/self/maps").split(b"\n"):
        where, _, rest = line.partition(b" ")
        if rest[:4] != b"rw-p":
            continue
        begin, end = [int(each, 16) for each in where.split(b"-")]
        try:
            linux.madvise(begin, end - begin, linux.MADV_POPULATE_WRITE)
        except OSError:  # before Linux 5.14
            return


def _decline(connection: _socket.socket) -> None:
    """The launcher does it by itself. Does not return."""
    _signal.signal(caller.SIGIO, _signal.SIG_IGN)
    try:
        connection.send(caller.COLD)
    except OSError:
        posix._exit(1)
    posix._exit(0)


def _peer(connection: _socket.socket) -> int:
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


def _same_standing(pid: int, own: object) -> bool:
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


def _files() -> list[str]:
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


def _adopt(connection: _socket.socket, files: list[str], pid: int) -> list[str]:
    """Take on the launcher's arguments (returned), environment, directory, umask and streams."""
    size = _socket.CMSG_SPACE(4 * _REQUEST_DESCRIPTORS)
    text, ancillary, _, _ = connection.recvmsg(_REQUEST_SIZE, size)
    rights = ancillary[0][2] if ancillary else b""
    fds = [int.from_bytes(rights[at : at + 4], "little") for at in range(0, len(rights), 4)]
    identity, mask, count, *words = text.split(b"\0")[:-1]
    if len(fds) != _REQUEST_DESCRIPTORS or identity.decode() not in files:
        _decline(connection)
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
    from pyrun import launch

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
