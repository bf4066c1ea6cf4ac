"""The messages between the planner and init, on a SOCK_SEQPACKET pair: one packet, one message.

        planner (launch.py)                         init (csrc/init.c)
             | ------------- clone3 + exec ------------> |
    state.json, network (outside)                        |  cgroups, root, mounts
             | <------- T + the terminal's master -----  |  (only with a terminal)
             | <----------------- W -------------------  |  mounted
             | ------------------ G ------------------>  |
             |                                           |  pivot, limits, privileges
             | <----------------- R -------------------  |  all but execve is done
             | <------ N number of the listener -------  |  (only with SCMP_ACT_NOTIFY, before or after R:
             | ------------------ N ------------------>  |  engine/oci/seccomp_agent.py)
             | <----------- end of file ---------------  |  execve worked: the socket is close-on-exec
             | <---- F "operation errno detail" -------  |  something failed, before or after R

End of file without R: init was killed. With a user namespace or the systemd driver there is a W and a G more, at
the beginning. `pyrun-oci create` ends with C instead of R; whoever calls `start` then connects to the listening socket
init has, sends G, and hears R, the end, or F, as above. Where others live in the command's pid namespace, a child of
init's goes on from there (birth.py). The first letter of a packet says what it is (csrc/ops.h,
MESSAGE_*).
"""

from __future__ import annotations

import posix
from errno import EPROTO

from . import linux
from .errors import PyrunError

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable

GO, WAITING, CREATED, READY, FAILED, TERMINAL, LISTENER = b"G", b"W", b"C", b"R", b"F", b"T", b"N"
_PACKET_SIZE = 1024
_NO_OPERATION = 1 << 20


def _nobody(_: int, __: int) -> None:
    """A filter with a listener, started by a command that has no agent for it."""
    raise PyrunError("linux.seccomp: SCMP_ACT_NOTIFY is not supported here", "use pyrun-oci for this bundle")


class Outcome:
    """What init reported. created: it waits for `start`; ready: everything but execve worked; failed: (operation
    index, errno, detail) or None; tty_fd: the terminal's master or -1; listener: called for N; inside: others in the
    container may be the ones who speak."""

    __slots__ = ("created", "failed", "inside", "listener", "ready", "tty_fd")

    def __init__(self) -> None:
        self.created = self.inside = self.ready = False
        self.failed: tuple[int, int, str] | None = None
        self.tty_fd = -1
        self.listener: Callable[[int, int], None] = _nobody


def pair() -> tuple[int, int]:
    """Descriptors of (the planner's end, init's end)."""
    return linux.packet_pair()


def go(sync_fd: int, pid: int) -> None:
    """Let init go on. An init that is gone, or of two `start`s has heard the other, shows in `wait`."""
    try:
        posix.write(sync_fd, GO + str(pid).encode())
    except (BrokenPipeError, ConnectionResetError):
        return


def wait(sync_fd: int, outcome: Outcome | None = None) -> Outcome:
    """Read until init's end closes: execve worked, it is created, or it is dead."""
    outcome = outcome or Outcome()
    while _receive(sync_fd, outcome):
        pass
    return outcome


def wait_for(sync_fd: int, outcome: Outcome, kind: bytes) -> bool:
    """Read until a message of *kind*; False if init's end closed before."""
    while packet := _receive(sync_fd, outcome):
        if packet == kind:
            return True
    return False


def _receive(sync_fd: int, outcome: Outcome) -> bytes:
    """Note one packet in *outcome*; returns its first letter, nothing at the end."""
    while True:
        try:
            packet, passed_fd = linux.receive(sync_fd, _PACKET_SIZE)
            break
        except (ConnectionResetError, InterruptedError):
            # init ended with our GO unread: the error comes once, what it sent before is still there; or a signal came
            continue
    if passed_fd >= 0 and outcome.inside:
        posix.close(passed_fd)
    elif passed_fd >= 0:
        if outcome.tty_fd >= 0:
            posix.close(outcome.tty_fd)
        outcome.tty_fd = passed_fd
    letter = packet[:1]
    if letter == READY:
        outcome.ready = True
    elif letter == CREATED:
        outcome.created = True
    elif letter == LISTENER and packet[1:].isdigit() and len(packet) < 8:
        outcome.listener(sync_fd, int(packet[1:]))
    elif letter == FAILED:
        outcome.failed = _failure(packet[1:].decode("utf-8", "replace"))
    return letter


def told(text: bytes) -> Outcome:
    """The outcome that csrc/quick.c heard: what came with F, or nothing for an init that was killed."""
    outcome = Outcome()
    if text:
        outcome.failed = _failure(text.decode("utf-8", "replace"))
    return outcome


def _failure(text: str) -> tuple[int, int, str]:
    """What "operation errno detail" says; no operation and EPROTO, if it is something else."""
    index, number, detail = (text + "  ").split(" ", 2)
    for word in (index, number):
        if not (word.isascii() and word.isdigit() and len(word) < 7):
            return _NO_OPERATION, EPROTO, ""
    return int(index), int(number), detail.strip()
