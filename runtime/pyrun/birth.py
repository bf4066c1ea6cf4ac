"""The last clone of a command that lives in a pid namespace where others live already, as the planner sees it.

        planner                       init, outside that namespace           its child, inside
           | ------ clone3 + exec ------> |                                       |
           |                              |  all but the end of the plan          |
           | <------ end of file -------- |  (FD_SYNC is closed)                  |
           |                              | -------------- clone ---------------> |
           | <---------- exit ----------- |                                       |
           |  its pid is in the mailbox                                           |
           | <----------------- R, then the end of file, or F ------------------- |  (FD_REPORT)

Those in that namespace may control the child, so what it says is taken for no more than a word about itself: no
descriptor is accepted from it. csrc/init_birth.c has the reason for all this and the other side.
"""

from __future__ import annotations

import posix

from . import handshake, launching
from .plan.operations import Operation

FD_REPORT, FD_MAILBOX = 8, 9
_PID_SIZE = 4


def plan(kept: list[int], *, terminal: bool) -> Operation:
    """BIRTH. kept: the numbers of the descriptors that the child has beside its streams."""
    return Operation("BIRTH", FD_REPORT, FD_MAILBOX, int(terminal), *sorted([*kept, FD_REPORT]))


class Birth:
    """mailbox_fd: where the kernel writes the child's pid; report: our end of its connection, theirs: its own."""

    __slots__ = ("mailbox_fd", "report", "theirs")

    def __init__(self) -> None:
        self.mailbox_fd = posix.memfd_create("pyrun-mailbox")
        posix.ftruncate(self.mailbox_fd, _PID_SIZE)
        self.report, self.theirs = handshake.pair()

    def passed(self) -> list[tuple[int, int]]:
        """(our descriptor, its number in init)."""
        return [(self.theirs, FD_REPORT), (self.mailbox_fd, FD_MAILBOX)]

    def wait(self, sync_fd: int, outcome: handshake.Outcome, pid: int, pidfd: int) -> tuple[int, int]:
        """(pid, pidfd) of the child, of which handshake.wait(self.report) hears the rest; (0, -1) if init failed or was
        killed, which *outcome* tells. pid, pidfd: of init, which has ended then."""
        posix.close(self.theirs)
        handshake.wait(sync_fd, outcome)
        if outcome.failed:
            return 0, -1
        launching.process.reap(pid, pidfd)
        outcome.inside = True
        child = int.from_bytes(posix.pread(self.mailbox_fd, _PID_SIZE, 0), "little")
        if child:
            return child, posix.pidfd_open(child)
        handshake.wait(self.report, outcome)
        return 0, -1
