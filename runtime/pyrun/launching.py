"""The launching process: the container's first process is its child, and the monitor takes its pid over.

It is this process as a rule, which the class below is about. A warm planner plans for another, and puts a `Launcher`
(cli/warm_launcher.py) in its place. What has to be this process's own says so by `only_here`, before anything is done.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import NoReturn

ALL_WELL = b"1"


class Process:
    """This process."""

    def place(self) -> str:
        """Its directory in /proc."""
        return "/proc/self"

    def pid(self) -> int:
        """Whose child the container's first process is, and who becomes the monitor."""
        return posix.getpid()

    def only_here(self, reason: object) -> None:
        """Told of a *reason*, if there is any, why only this process itself can launch."""

    def clone_exec(
        self,
        flags: int,
        group_fd: int,
        exe_fd: int,
        keep: list[tuple[int, int]],
        inside: list[int] | None = None,
    ) -> tuple[int, int]:
        """linux.clone_exec of init: (pid, pidfd). Nothing interrupts until `heed`. Raises OSError."""
        from . import linux

        return linux.clone_exec(flags, group_fd, exe_fd, "pyrun-init", keep, inside)

    def heed(self) -> None:
        """After clone_exec, with its result noted."""

    def block_signals(self) -> None:
        """From here on a signal waits for the monitor, which forwards it."""
        import _signal

        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())

    def reap(self, child: int, pidfd: int) -> None:
        """Wait for the end of a child. Raises OSError."""
        posix.waitpid(child, 0)

    def fork(self) -> int:
        """-d: the start goes on in a child, which becomes the monitor. There: a descriptor, to write a byte to once all
        is well. Here: -1, when that has come; a child that fails has told why, and its status is this process's.

        The pipe closes by itself at the child's exec of the monitor, or when it dies.
        """
        read_fd, write_fd = posix.pipe2(posix.O_CLOEXEC)
        child = posix.fork()
        if child == 0:
            posix.close(read_fd)
            posix.setsid()
            return write_fd
        posix.close(write_fd)
        if posix.read(read_fd, 1):
            posix.close(read_fd)
            return -1
        _, status = posix.waitpid(child, 0)
        code = posix.waitstatus_to_exitcode(status)
        posix._exit(code if code >= 0 else 128 - code)

    def running(self, said: str) -> bytes:
        """The byte for whoever waits since `fork`. said: what is printed then."""
        return ALL_WELL

    def become(self, exe_fd: int, words: list[str], inherited: list[int]) -> None:
        """Become the program behind *exe_fd*. Does not return. Raises OSError."""
        from . import linux

        for fd in inherited:
            posix.set_inheritable(fd, True)
        linux.execveat(exe_fd, words, [])

    def leave(self, status: int) -> NoReturn:
        """End. Does not return."""
        posix._exit(status)


process = Process()
