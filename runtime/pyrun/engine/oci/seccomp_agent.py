"""SCMP_ACT_NOTIFY: the listener of a container's system call filter goes to the agent at linux.seccomp.listenerPath.

The listener is born with the filter, in init, and init needs system calls to hand it over: any of them may be one the
filter stops until the agent, which has no listener yet, lets it go. So init does nothing after loading but to read one
answer; all else is done from outside:

        init                                        this module (the planner, or `start`)                  agent
          | -- N "number": what the listener will be -> |                                                     |
          |  loads the filter                           |  fetches that descriptor (pidfd_getfd) as soon      |
          |  reads the answer: perhaps stopped there    |  as it exists                                       |
          | <----------------- N ---------------------- |                                                     |
          |                                             | -- JSON and the descriptor -----------------------> |
          |  goes on as the agent says                  |                                                     |

The number is known in advance because init has one thread, and the kernel takes the lowest free one. runc lets init
write the number after loading, and therefore refuses SCMP_ACT_NOTIFY for `write` and as the default; here every call
may be given to the agent, as the runtime-spec has it. Fetching needs CAP_SYS_PTRACE over init, which is not dumpable;
root has it, and so has the owner of its user namespace. Cold: imported when init says N, never before.
Source: runtime-spec config-linux.md#containerprocessstate; man 2 seccomp_unotify, man 2 pidfd_getfd.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket as sockets
import time
from collections.abc import Mapping

from pyrun import handshake, linux
from pyrun.errors import PyrunError
from pyrun.spec.values import linux_section

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Config, Seccomp

FD_NAME = "seccompFd"
_FETCH_TIMEOUT_S, _PAUSE_S = 10.0, 0.00005
_AGENT_TIMEOUT_S = 10.0  # to accept the connection and to read a kilobyte


def forward(
    sync_fd: int,
    number: int,
    process: tuple[int, int],
    config: Config,
    state: Mapping[str, object],
) -> None:
    """What Outcome.listener is to do: fetch, let init go on, tell the agent.

    sync_fd: to init; number: of the message N; process: its (pid, pidfd); config: the container's; state: the
    container's, as the runtime-spec has it. Raises PyrunError: then the process must not live.
    """
    pid, pidfd = process
    profile = linux_section(config).get("seccomp") or {}
    listener_fd = _fetch(sync_fd, number, pidfd)
    if listener_fd < 0:
        return  # init has failed, and says so itself
    try:
        os.write(sync_fd, handshake.LISTENER)
        _send(str(profile.get("listenerPath")), _message(pid, profile, state), listener_fd)
    except BrokenPipeError:
        return
    finally:
        os.close(listener_fd)


def _fetch(sync_fd: int, number: int, pidfd: int) -> int:
    """A copy of init's descriptor *number* once it exists; -1 if init speaks or ends instead."""
    last = time.monotonic() + _FETCH_TIMEOUT_S
    poll = select.poll()
    poll.register(sync_fd, select.POLLIN)
    while time.monotonic() < last:
        try:
            return linux.pidfd_getfd(pidfd, number)
        except OSError as error:
            if error.errno == errno.ESRCH:
                return -1
            if error.errno != errno.EBADF:
                raise PyrunError(
                    f"cannot take the seccomp listener from init: {os.strerror(error.errno or 0)}",
                    "pidfd_getfd needs CAP_SYS_PTRACE, and kernel.yama.ptrace_scope below 3",
                ) from None
        if poll.poll(0):
            return -1
        time.sleep(_PAUSE_S)
    raise PyrunError("init did not load its seccomp filter in time")


def _message(pid: int, profile: Seccomp, state: Mapping[str, object]) -> bytes:
    """The container process state of the runtime-spec, one descriptor."""
    version = state.get("ociVersion", "")
    document = {"ociVersion": version, "fds": [FD_NAME], "pid": pid}
    if profile.get("listenerMetadata"):
        document["metadata"] = profile["listenerMetadata"]
    return json.dumps({**document, "state": dict(state)}).encode()


def _send(path: str, message: bytes, listener_fd: int) -> None:
    """Exactly one message over a connection of its own, the descriptor with its first byte."""
    agent = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    agent.settimeout(_AGENT_TIMEOUT_S)
    try:
        agent.connect(path)
        sent = sockets.send_fds(agent, [message], [listener_fd])
        if sent < len(message):  # to send nothing fails too, once the agent has closed its end
            agent.sendall(message[sent:])
    except OSError as error:
        reason = error.strerror or "no answer in time"
        raise PyrunError(
            f"linux.seccomp.listenerPath: cannot tell the seccomp agent at {path}: {reason.lower()}",
            "is the agent running?",
        ) from None
    finally:
        agent.close()
