"""-d: the start goes on in a forked child, which becomes the monitor; the parent waits until it is known to run."""

from __future__ import annotations

import posix

from pyrun import caller, notice
from pyrun.store import paths

ALL_WELL = b"1"


def fork() -> int:
    """Fork. In the child: a descriptor, to write a byte to once all is well. In the parent: -1, when it has come.

    The pipe closes by itself at the child's exec of the monitor, or when it dies. A child that failed has told the
    user why; the parent then ends with its exit status.
    """
    if caller.hand is not None:  # the launcher is both, and a warm planner goes on for the child
        return caller.fork()
    read_fd, write_fd = posix.pipe2(posix.O_CLOEXEC)
    pid = posix.fork()
    if pid == 0:
        posix.close(read_fd)
        posix.setsid()
        return write_fd
    posix.close(write_fd)
    if posix.read(read_fd, 1):
        posix.close(read_fd)
        return -1
    _, status = posix.waitpid(pid, 0)
    code = posix.waitstatus_to_exitcode(status)
    posix._exit(code if code >= 0 else 128 - code)


def _print(said: str) -> bytes:
    """What the launcher that waits is to hear (csrc/hand.c, fork_for): a container that runs is none that failed."""
    try:
        posix.write(1, f"{said}\n".encode())
    except OSError as error:
        notice.say(f"cannot write to standard output: {error.strerror}")
        return b"-"
    return ALL_WELL


def report(running_fd: int, said: str = "") -> None:
    """All is well: tell the parent, and let go of the caller's terminal, pipes and directory.

    said: what the parent is about to print, which in a warm planner is there for nobody else to do.
    """
    word = ALL_WELL
    if caller.hand is not None:
        word = _print(said) if said else word
        caller.in_background()
    _leave_service()
    try:
        posix.write(running_fd, word)
    except OSError:  # whoever waited has been ended: what runs is looked after all the same
        pass
    null_fd = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    for fd in range(3):
        posix.dup2(null_fd, fd)
    posix.chdir("/")


def _leave_service() -> None:
    """A service manager that stops or has finished the service we were called by would end the monitor with it. A
    shell's session is left alone: what is moved waits some ms, and no session ends its programs as a rule."""
    if b".service\n" in paths.read(f"{caller.place()}/cgroup"):
        from pyrun import leaving

        leaving.cgroups(caller.place(), caller.pid())
