"""Standard input, output and error of a container's process: pipes to the monitor, a terminal, or /dev/null.

As in Docker: without -t the process gets pipes, so that its output can be both shown and logged; without -i its
input is /dev/null. With -t all three become a terminal of the container's own (csrc/init_process.c).
"""

from __future__ import annotations

import fcntl
import posix

from pyrun.errors import UsageError

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options


def check(options: Options) -> None:
    """-i -t with an input that is no terminal: Docker refuses too, with status 1."""
    if (
        options.get("tty")
        and options.get("interactive")
        and not options.get("detach")
        and not posix.isatty(0)
    ):
        raise UsageError("the input is not a terminal", "leave -t out, or run it from a terminal", 1)


def window() -> tuple[int, int]:
    """(rows, columns) of the caller's terminal, (0, 0) without one. Source: man 4 tty_ioctl (TIOCGWINSZ)."""
    try:
        answer = fcntl.ioctl(0, 0x5413, bytes(8))
    except OSError:
        return (0, 0)
    return (int.from_bytes(answer[0:2], "little"), int.from_bytes(answer[2:4], "little"))


class Stdio:
    """The descriptors of one process: `child_fds` go into it, `monitor_fds` stay with the monitor."""

    __slots__ = ("_child", "_interactive", "_monitor", "_tty")

    def __init__(self, *, tty: bool, interactive: bool) -> None:
        self._tty = tty
        self._interactive = interactive
        self._child: list[int] = []
        self._monitor: dict[str, int] = {}
        if not tty and interactive:
            ours_in, ours_out = posix.pipe2(posix.O_CLOEXEC)
            self._child.append(ours_in)
            self._monitor["stdin"] = ours_out
        else:
            self._child.append(posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC))
        for name in ("stdout", "stderr"):
            if tty:
                self._child.append(self._child[0])
            else:
                ours_out, theirs_in = posix.pipe2(posix.O_CLOEXEC)
                self._child.append(theirs_in)
                self._monitor[name] = ours_out

    def child_fds(self) -> list[tuple[int, int]]:
        """(our descriptor, 0 to 2)."""
        return [(fd, number) for number, fd in enumerate(self._child)]

    def close_child_ends(self) -> None:
        """Close what only the child needs: the pipes' ends must be its alone, or nobody ever sees an end of file."""
        for fd in set(self._child):
            posix.close(fd)

    def monitor_settings(self, tty_fd: int, *, detach: bool) -> list[str]:
        """The monitor's key=value words for these descriptors."""
        words = [f"{name}={fd}" for name, fd in self._monitor.items()]
        if self._tty:
            words.append(f"tty={tty_fd}")
            words.append(f"interactive={int(self._interactive)}")
        if detach:
            words.append("detach=1")
        return words

    def monitor_fds(self, tty_fd: int) -> list[int]:
        """What the monitor inherits."""
        return [*self._monitor.values(), *([tty_fd] if tty_fd >= 0 else [])]
