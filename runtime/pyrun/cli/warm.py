"""The warm planner: an interpreter with the planner loaded, which a start finds ready instead of starting one.

The launcher leaves it behind when PYRUN_WARM=SECONDS is set and there is none (csrc/warm_client.c). It ends when no
request has come for that long. Children wait in accept(): each serves one launcher and ends, and another is forked in
its place. So nothing of one start is there in another, and what is in memory here is only code.

It acts with its own rights, so it serves only those who have the same: a process of the host's root in the same
namespaces and root directory, with the same capabilities, filters and label. Everybody else, and every start that needs
to be the launcher's own (launching.py, only_here), is told to do without. The socket is root's alone.
"""

from __future__ import annotations

import _signal
import _socket
import fcntl
import posix
import select
import sys
import time

from pyrun import detach, launching, linux
from pyrun.store import paths

from . import warm_request
from .warm_launcher import ACCEPTED, COLD, HELLO, SIGIO, Launcher, Unsuited

_MODULES = (
    "linux", "network.attach", "network.guard", "engine.run", "engine.bundle", "engine.exec_", "engine.oci.create",
    "engine.oci.run", "engine.oci.exec_", "spec.seccomp", "stages.network", "cgroups.systemd", "descriptors",
)  # fmt: skip
_BACKLOG = 128
_TAKEN = b"+"
_DEATHS_MAX = 10
_READY = 2
_IDLE_MAX_MS = (1 << 31) - 1
_ALONE_MS = 20
# What it is, what tells its installation from another, and the lock that only it has.
Known = tuple[tuple[object, ...], list[str], int]


def serve() -> None:
    """Wait for launchers until none has come for PYRUN_WARM seconds. Does not return."""
    given = posix.environ.get(b"PYRUN_WARM", b"")
    directory = f"{paths.run()}/warm"
    paths.make(directory)
    own, files = warm_request.standing("/proc/self"), warm_request.files()
    path = f"{directory}/{_inode('mnt')}-{_inode('net')}"
    lock_fd = posix.open(f"{path}.lock", posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # there is one
        posix._exit(0)
    from . import warm_rehearsal

    for name in _MODULES:
        __import__(f"pyrun.{name}")
    _load_functions()
    warm_rehearsal.rehearse(directory)
    detach.everything()  # what was the first caller's has no part in the starts of others
    listening = _listen(path)
    number = posix.stat(path).st_ino
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # nobody waits for those who have served
    idle_ms = min(1000 * int(given), _IDLE_MAX_MS) if given.isdigit() and len(given) < 10 else 60_000
    _keep_ready(listening, (own, files, lock_fd), idle_ms)
    if posix.access(path, posix.F_OK) and posix.stat(path).st_ino == number:
        _remove(path)
        _remove(f"{path}.lock")
    listening.shutdown(_socket.SHUT_RDWR)  # the last child hears of it, unless it was taken meanwhile
    posix._exit(0)


def _load_functions() -> None:
    """Those the bundle leaves out until they are called (csrc/bundle_main.py, Cold): once for all children."""
    for name, module in list(sys.modules.items()):
        left_out = [each for each in vars(module).values() if type(each).__name__ == "Cold"]
        if name.startswith("pyrun.") and left_out:
            left_out[0].load()


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
    while died < _DEATHS_MAX and known[1] == warm_request.files():
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
    own_pid = posix.getpid()
    if posix.fork() == 0:
        _serve_one(listening, known, write_fd, own_pid)
    posix.close(write_fd)
    poll.register(read_fd, select.POLLIN)
    return read_fd


# ── one launcher ───────────────────────────────────────────────────────────────────────────────────


def _serve_one(listening: _socket.socket, known: Known, taken_fd: int, planner: int) -> None:
    """Wait for a launcher, do what it was called for, and end."""
    from .main import main

    own, files, lock_fd = known
    posix.close(lock_fd)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    linux.prctl(linux.PR_SET_PDEATHSIG, _signal.SIGKILL)  # while it waits, it is nothing without the planner
    if posix.getppid() != planner:
        posix._exit(0)
    _own_memory()
    try:
        fd, _ = listening._accept()  # type: ignore[attr-defined]  # what socket.accept is made of
    except OSError:  # the planner has ended
        posix._exit(0)
    linux.prctl(linux.PR_SET_PDEATHSIG, 0)
    posix.write(taken_fd, _TAKEN)
    connection = _socket.socket(fileno=fd)
    listening.close()
    argv = _accept(connection, own, files)
    try:
        main(argv)
    except Unsuited:
        _decline(connection)
    except KeyboardInterrupt:  # the launcher is gone
        posix._exit(1)


def _accept(connection: _socket.socket, own: object, files: list[str]) -> list[str]:
    """What the launcher was called with, and all that is its own taken on; one that is not to be served is told so."""
    try:
        pid = warm_request.peer(connection)
        if not pid or not warm_request.same_standing(connection, pid, own):
            raise Unsuited
        connection.send(HELLO)
        argv = warm_request.adopt(connection, files, pid)
        launching.process = Launcher(connection, pid)
        connection.send(ACCEPTED)
    except (Unsuited, OSError, ValueError, KeyboardInterrupt):
        _decline(connection)
    return argv


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
    _signal.signal(SIGIO, _signal.SIG_IGN)
    try:
        connection.send(COLD)
    except OSError:
        posix._exit(1)
    posix._exit(0)
