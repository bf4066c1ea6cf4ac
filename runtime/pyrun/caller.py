"""The process that was called: the container's first process is its child, and the monitor takes its pid over.

As a rule that is this process. A warm planner (cli/warm.py) works for a launcher at the other end of a socket, and has
it do what only it can: clone, fork for -d, become the monitor, exit. What is not decided here: when a start is none for
a warm planner; whoever knows raises `Unsuited` before anything is done. The messages are drawn in csrc/hand.c, their
layout is in csrc/hand.h: a letter, numbers of eight bytes, text, and descriptors beside it.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence

HELLO, ACCEPTED, COLD, SEAL, CLONE = b"H", b"A", b"C", b"S", b"K"
BLOCK, REAP, FORK, MONITOR, EXIT = b"B", b"W", b"F", b"M", b"X"
# What one message may carry, less than csrc/hand.c takes.
DESCRIPTORS_MAX = 48
_ANSWER_SIZE = 64
_END_MS = 5000
_SOL_SOCKET, _SCM_RIGHTS, _CMSG_SPACE, _MSG_CMSG_CLOEXEC = 1, 1, 64, 0x40000000
SIGIO = 29


class Unsuited(BaseException):
    """This start is not for a warm planner. Nothing was done yet: the launcher makes it by itself."""


# The launcher that waits for us, and its pid; None: this process was called.
hand: socket | None = None
_hand_pid = 0
_away = False


def serve(connection: socket, pid: int) -> None:
    """From now on this process works for the launcher *pid*."""
    global hand, _hand_pid
    hand, _hand_pid = connection, pid


def pid() -> int:
    """Whose child the container's first process is, and who becomes the monitor."""
    return _hand_pid or posix.getpid()


def place() -> str:
    """Its directory in /proc."""
    return f"/proc/{_hand_pid}" if _hand_pid else "/proc/self"


def only_here(reason: object) -> None:
    """Raise Unsuited in a warm planner, if there is a *reason* why the start has to be this process's own."""
    if reason and hand is not None:
        raise Unsuited


def _send(letter: bytes, numbers: list[int], descriptors: list[int], text: bytes = b"") -> None:
    data = letter + b"".join([each.to_bytes(8, "little", signed=True) for each in numbers]) + text
    rights = b"".join([fd.to_bytes(4, "little") for fd in descriptors])
    assert hand is not None
    hand.sendmsg([data], [(_SOL_SOCKET, _SCM_RIGHTS, rights)] if rights else [])


def _answer(letter: bytes) -> tuple[int, int]:
    """(number, descriptor or -1). A launcher that is gone ends this process: whether it has made a child nobody can
    say, and the next command takes away what is there."""
    assert hand is not None
    data, ancillary, _, _ = hand.recvmsg(_ANSWER_SIZE, _CMSG_SPACE, _MSG_CMSG_CLOEXEC)
    if data[:1] != letter:
        posix._exit(1)
    fd = int.from_bytes(ancillary[0][2][:4], "little") if ancillary else -1
    return int.from_bytes(data[1:9], "little", signed=True), fd


def clone_exec(
    flags: int,
    group_fd: int,
    exe_fd: int,
    keep: list[tuple[int, int]],
    user_fd: int = -1,
    pid_fd: int = -1,
    *,
    enter: Sequence[tuple[int, int]] = (),
    hide: bool = False,
) -> tuple[int, int]:
    """linux.clone_exec of init, as a child of the process that was called: (pid, pidfd).

    enter: (descriptor, type) of the namespaces that children are to be in; hide: nobody in them may look into the
    process that clones. Until `heed`, the end of that process interrupts nothing: pid and pidfd are to be noted first.
    Raises OSError.
    """
    if hand is None:
        from . import linux

        if hide:
            linux.prctl(linux.PR_SET_DUMPABLE, 0)
        for fd, kind in enter:
            linux.setns(fd, kind)
        return linux.clone_exec(flags, group_fd, exe_fd, "pyrun-init", keep, user_fd, pid_fd)
    only_here(len(keep) + len(enter) > DESCRIPTORS_MAX)
    if hide:
        _send(SEAL, [], [exe_fd])
    _mask(block=True)
    born_in = (group_fd, user_fd, pid_fd if user_fd >= 0 else -1)
    numbers = [flags, *[int(fd >= 0) for fd in born_in]]
    numbers += [len(enter), *[kind for _, kind in enter], len(keep), *[number for _, number in keep]]
    fds = [exe_fd, *[fd for fd in born_in if fd >= 0], *[fd for fd, _ in enter], *[fd for fd, _ in keep]]
    _send(CLONE, numbers, fds)
    found, pidfd = _answer(CLONE)
    if found < 0:
        raise OSError(-found, posix.strerror(-found))
    return found, pidfd


def heed() -> None:
    """After clone_exec, with its result noted: a launcher that ends is a KeyboardInterrupt again."""
    if hand is not None:
        _mask(block=False)


def _mask(*, block: bool) -> None:
    import _signal  # type: ignore[import-not-found]  # typeshed has no stub for the C half

    _signal.pthread_sigmask(_signal.SIG_BLOCK if block else _signal.SIG_UNBLOCK, {SIGIO})


def block_signals() -> None:
    """From here on a signal waits for the monitor, which forwards it."""
    if hand is not None:
        _send(BLOCK, [], [])
        return
    import _signal

    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())


def reap(child: int, pidfd: int) -> None:
    """Wait for the end of a child of the process that was called. Raises OSError."""
    if hand is None:
        posix.waitpid(child, 0)
        return
    import select

    try:
        _send(REAP, [child], [])
        hand.recv(_ANSWER_SIZE)
    except OSError:  # it is gone; its child ends by itself
        pass
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(_END_MS)


def fork() -> int:
    """-d in a warm planner: the launcher goes on in a child. A descriptor to write a byte to once all is well."""
    global _hand_pid
    read_fd, write_fd = posix.pipe2(posix.O_CLOEXEC)
    _send(FORK, [], [read_fd])
    posix.close(read_fd)
    _hand_pid, _ = _answer(FORK)
    return write_fd


def in_background() -> None:
    """The monitor lets go of the caller's terminal, pipes and directory."""
    global _away
    _away = True


def become(exe_fd: int, words: list[str], inherited: list[int]) -> None:
    """The process that was called becomes the program behind *exe_fd*. Does not return. Raises OSError."""
    if hand is None:
        from . import linux

        for fd in inherited:
            posix.set_inheritable(fd, True)
        linux.execveat(exe_fd, words, [])
    text = "".join([word + "\0" for word in words]).encode("utf-8", "surrogateescape")
    _leave(MONITOR, [int(_away), len(inherited), *inherited], [exe_fd, *inherited], text)


def leave(status: int) -> None:
    """The process that was called ends. Does not return."""
    if hand is not None:
        _leave(EXIT, [status], [], b"")
    posix._exit(status)


def _leave(letter: bytes, numbers: list[int], descriptors: list[int], text: bytes) -> None:
    """The last message: the launcher's end of the pipe, which is a signal to us, is now as it should be."""
    import _signal

    _signal.signal(SIGIO, _signal.SIG_IGN)
    try:
        _send(letter, numbers, descriptors, text)
    except OSError:  # it is gone already, and with it whoever wanted this
        posix._exit(1)
    posix._exit(0)
