"""-d: the start goes on in a child (launching.Process.fork); what that does once the container is known to run."""

from __future__ import annotations

import posix

from pyrun import launching
from pyrun.store import paths


def report(running_fd: int, said: str = "") -> None:
    """All is well: tell the parent (launching.Process.fork), and let go of the caller's terminal, pipes and directory.

    said: what the parent is about to print.
    """
    word = launching.process.running(said)
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
    if b".service\n" in paths.read(f"{launching.process.place()}/cgroup"):
        from pyrun import detach

        detach.cgroups(launching.process.place(), launching.process.pid())
