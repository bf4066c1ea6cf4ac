"""The launcher a warm planner works for, at the other end of a socket: it is told to do what only it can.

It clones, forks for -d, becomes the monitor, exits. The messages are drawn in csrc/warm_client.c, their layout is in
csrc/warm_client.h: a letter, numbers of eight bytes, text, and descriptors beside it.
"""

from __future__ import annotations

import _signal
import posix
import select
from _socket import socket

from pyrun import launching, notice

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import NoReturn

HELLO, ACCEPTED, COLD, CLONE = b"H", b"A", b"C", b"K"
BLOCK, REAP, FORK, MONITOR, EXIT = b"B", b"W", b"F", b"M", b"X"
# What one message may carry, less than csrc/warm_client.c takes.
DESCRIPTORS_MAX = 48
_ANSWER_SIZE = 64
_END_MS = 5000
_SOL_SOCKET, _SCM_RIGHTS, _CMSG_SPACE, _MSG_CMSG_CLOEXEC = 1, 1, 64, 0x40000000
SIGIO = 29


class Unsuited(BaseException):
    """This start is not for a warm planner. Nothing was done yet: the launcher makes it by itself."""


class Launcher(launching.Process):
    """The process at the other end of *connection*."""

    def __init__(self, connection: socket, pid: int) -> None:
        self._connection, self._pid = connection, pid
        self._away = False

    def place(self) -> str:
        return f"/proc/{self._pid}"

    def pid(self) -> int:
        return self._pid

    def only_here(self, reason: object) -> None:
        if reason:
            raise Unsuited

    def clone_exec(
        self,
        flags: int,
        group_fd: int,
        exe_fd: int,
        keep: list[tuple[int, int]],
        inside: list[int] | None = None,
    ) -> tuple[int, int]:
        entered = inside or []
        self.only_here(len(keep) + len(entered) > DESCRIPTORS_MAX)
        _mask(block=True)
        numbers = [flags, int(group_fd >= 0), len(entered), len(keep), *[number for _, number in keep]]
        fds = [exe_fd, *([group_fd] if group_fd >= 0 else []), *entered, *[fd for fd, _ in keep]]
        self._send(CLONE, numbers, fds)
        found, pidfd = self._answer(CLONE)
        if found < 0:
            raise OSError(-found, posix.strerror(-found))
        return found, pidfd

    def heed(self) -> None:
        """A launcher that ends is a KeyboardInterrupt again."""
        _mask(block=False)

    def block_signals(self) -> None:
        self._send(BLOCK, [], [])

    def reap(self, child: int, pidfd: int) -> None:
        try:
            self._send(REAP, [child], [])
            self._connection.recv(_ANSWER_SIZE)
        except OSError:  # it is gone; its child ends by itself
            pass
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(_END_MS)

    def fork(self) -> int:
        """The launcher goes on in a child, and this process for that one."""
        read_fd, write_fd = posix.pipe2(posix.O_CLOEXEC)
        self._send(FORK, [], [read_fd])
        posix.close(read_fd)
        self._pid, _ = self._answer(FORK)
        return write_fd

    def running(self, said: str) -> bytes:
        """Print it here: the launcher waits with nothing loaded (csrc/warm_client.c, fork_for). The monitor lets go of
        the caller's terminal, pipes and directory. A container runs whether or not its id could be printed."""
        self._away = True
        try:
            if said:
                posix.write(1, f"{said}\n".encode())
        except OSError as error:
            notice.say(f"cannot write to standard output: {error.strerror}")
            return b"-"
        return launching.ALL_WELL

    def become(self, exe_fd: int, words: list[str], inherited: list[int]) -> None:
        text = "".join([word + "\0" for word in words]).encode("utf-8", "surrogateescape")
        self._leave(MONITOR, [int(self._away), len(inherited), *inherited], [exe_fd, *inherited], text)

    def leave(self, status: int) -> NoReturn:
        self._leave(EXIT, [status], [], b"")

    def _send(self, letter: bytes, numbers: list[int], descriptors: list[int], text: bytes = b"") -> None:
        data = letter + b"".join([each.to_bytes(8, "little", signed=True) for each in numbers]) + text
        rights = b"".join([fd.to_bytes(4, "little") for fd in descriptors])
        self._connection.sendmsg([data], [(_SOL_SOCKET, _SCM_RIGHTS, rights)] if rights else [])

    def _answer(self, letter: bytes) -> tuple[int, int]:
        """(number, descriptor or -1). A launcher that is gone ends this process: whether it has made a child is not to
        be known, and the next command takes away what is there."""
        data, ancillary, _, _ = self._connection.recvmsg(_ANSWER_SIZE, _CMSG_SPACE, _MSG_CMSG_CLOEXEC)
        if data[:1] != letter:
            posix._exit(1)
        fd = int.from_bytes(ancillary[0][2][:4], "little") if ancillary else -1
        return int.from_bytes(data[1:9], "little", signed=True), fd

    def _leave(self, letter: bytes, numbers: list[int], descriptors: list[int], text: bytes) -> NoReturn:
        """The last message: the launcher's end of the pipe, which is a signal to us, is now as it should be."""
        _signal.signal(SIGIO, _signal.SIG_IGN)
        try:
            self._send(letter, numbers, descriptors, text)
        except OSError:  # it is gone already
            posix._exit(1)
        posix._exit(0)


def _mask(*, block: bool) -> None:
    _signal.pthread_sigmask(_signal.SIG_BLOCK if block else _signal.SIG_UNBLOCK, {SIGIO})
