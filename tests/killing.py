"""Kill -9 at a chosen system call: what tests/system/test_kill_matrix.py walks with.

`trace(command, environment)` runs a command under ptrace and tells every step, a system call that changes something
or waits for somebody, of the roles it is played in: planner, monitor, init. `trace(..., kill=(role, number))` does
the same, but ends that role's process with SIGKILL as it enters its step of that number: what it has done so far is
done, this call is not. Between two steps there is nothing another process could see, so that all of them together
are every point. Call it in a forked child (sandbox_fork): it waits for any child, and its end frees what it traces.
Source: man 2 ptrace (PTRACE_GET_SYSCALL_INFO, Linux 5.3), man 3 seccomp_syscall_resolve_num_arch.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import struct
import time
from typing import NamedTuple

# What others can see or wait for; opening counts when it may write, a signal mask or a read does not.
STEPS = frozenset(
    "mkdir mkdirat mknod mknodat rmdir unlink unlinkat link linkat symlink symlinkat rename renameat renameat2"
    " write pwrite64 writev sendto sendmsg recvmsg recvfrom flock ftruncate chmod fchmod fchmodat chown fchown fchownat"
    " mount umount2 move_mount open_tree fsopen fsconfig fsmount mount_setattr pivot_root chroot chdir fchdir"
    " fork vfork clone clone3 execve execveat unshare setns setsid sethostname setdomainname setrlimit prlimit64"
    " setgroups setresgid setresuid capset seccomp keyctl close_range bpf pidfd_send_signal kill wait4 waitid"
    " poll ppoll epoll_wait epoll_pwait".split()
)  # fmt: skip
# Which argument is a path, to tell a reader what a step was about.
_PATH = {"mkdir": 0, "rmdir": 0, "unlink": 0, "rename": 1, "link": 1, "symlink": 1, "mount": 1, "umount2": 0,
         "openat": 1, "mkdirat": 1, "mknodat": 1, "unlinkat": 1, "renameat": 3, "linkat": 3, "symlinkat": 2,
         "execve": 0,
         "open": 0, "chdir": 0, "fsopen": 0, "fsconfig": 2, "open_tree": 1, "chmod": 0, "sethostname": 0}  # fmt: skip
_ROLES = {b"pyrun-init": "init", b"pyrun-monitor": "monitor", b"pyrun-undo": "undo"}

CONT, DETACH, SYSCALL = 7, 17, 24
GETEVENTMSG, SEIZE, INTERRUPT, GET_SYSCALL_INFO = 0x4201, 0x4206, 0x4207, 0x420E
OPTIONS = 0x01 | 0x02 | 0x04 | 0x08 | 0x10  # TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC
EVENT_EXEC, EVENT_STOP = 4, 128
WALL = 0x40000000
ENTRY = 1
IDLE_S = 0.15

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class Step(NamedTuple):
    """role, system call, and the path it names if it does."""

    role: str
    name: str
    detail: str


class Traced(NamedTuple):
    """steps in order; status: the command's exit status as a shell has it; output: both streams; killed: the pid."""

    steps: list[Step]
    status: int
    output: str
    killed: int


@functools.cache
def _name(number: int) -> str:
    resolve = _libseccomp().seccomp_syscall_resolve_num_arch
    resolve.restype = ctypes.c_char_p  # leaks some bytes a name
    return (resolve(0, number) or b"?").decode()


@functools.cache
def _libseccomp() -> ctypes.CDLL:
    return ctypes.CDLL("libseccomp.so.2")


def _entered(pid: int) -> tuple[str, tuple[int, ...]] | None:
    """The system call *pid* is about to make, None if it is on its way out of one."""
    buffer = ctypes.create_string_buffer(88)
    if (
        libc.ptrace(GET_SYSCALL_INFO, pid, len(buffer), ctypes.addressof(buffer)) <= 0
        or buffer.raw[0] != ENTRY
    ):
        return None
    number, *arguments = struct.unpack_from("7Q", buffer.raw, 24)
    return _name(number), tuple(arguments)


def _step(name: str, arguments: tuple[int, ...]) -> bool:
    if name in ("open", "openat"):
        flags = arguments[1 if name == "open" else 2]
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and not flags & os.O_PATH
    return name in STEPS


def _text(pid: int, address: int) -> str:
    """The string at an address of *pid*, as far as it can be read."""
    if not address:
        return ""
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            return os.pread(memory.fileno(), 256, address).split(b"\0")[0].decode("utf-8", "replace")
    except OSError:
        return ""


def _role(pid: int) -> str:
    """Of a process that has just executed something: by its first argument."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return ""
    if words[0] in _ROLES:
        return _ROLES[words[0]]
    return "planner" if b"-I" in words[1:3] or words[0].endswith((b"/pyrun", b"/pyrun-oci")) else ""


class _Tracer:
    """One traced run; `roles` knows every living process of it."""

    def __init__(self, kill: tuple[str, int] | None) -> None:
        self.kill = kill
        self.killed = 0
        self.roles: dict[int, str] = {}
        self.steps: list[Step] = []
        self.counts: dict[str, int] = {}

    def resume(self, pid: int, signal_number: int = 0) -> None:
        watched = self.roles.get(pid) and not self.killed
        libc.ptrace(SYSCALL if watched else CONT, pid, 0, signal_number)

    def system_call(self, pid: int) -> None:
        role = self.roles.get(pid, "")
        entered = _entered(pid) if role and not self.killed else None
        if entered and _step(*entered):
            name, arguments = entered
            number = self.counts[role] = self.counts.get(role, 0) + 1
            path = _text(pid, arguments[_PATH[name]]) if name in _PATH and self.kill is None else ""
            self.steps.append(Step(role, name, path))
            if self.kill == (role, number):
                os.kill(pid, signal.SIGKILL)
                self.killed = pid
                return
        self.resume(pid)

    def stopped(self, pid: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        if number == signal.SIGTRAP | 0x80:
            self.system_call(pid)
        elif event == EVENT_EXEC:
            self.roles[pid] = _role(pid)
            if self.roles[pid]:
                self.resume(pid)
            else:  # the container's own program
                del self.roles[pid]
                libc.ptrace(DETACH, pid, 0, 0)
        elif event == EVENT_STOP:  # a child begins; its parent may not have told of it yet
            self.roles.setdefault(pid, "planner")
            self.resume(pid)
        elif event:  # a child is born
            child = ctypes.c_ulong()
            libc.ptrace(GETEVENTMSG, pid, 0, ctypes.addressof(child))
            self.roles.setdefault(child.value, self.roles.get(pid, ""))
            self.resume(pid)
        else:
            self.resume(pid, 0 if number == signal.SIGTRAP else number)


def trace(command: list[str], environment: dict[str, str], kill: tuple[str, int] | None = None) -> Traced:
    """Run *command* to its end, or until nothing of it moves any more after its end (a monitor that waits)."""
    output_fd = os.memfd_create("output")
    ready_fd, go_fd = os.pipe()
    main = os.fork()
    if main == 0:
        os.read(ready_fd, 1)
        null_fd = os.open("/dev/null", os.O_RDONLY)
        for fd, number in ((null_fd, 0), (output_fd, 1), (output_fd, 2)):
            os.dup2(fd, number)
        os.execve(command[0], command, environment)
    # seized, not attached: a child that begins when the tracer ends must not stay stopped
    if libc.ptrace(SEIZE, main, 0, OPTIONS) or libc.ptrace(INTERRUPT, main, 0, 0):
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(main, WALL)
    tracer = _Tracer(kill)
    tracer.roles[main] = ""  # until it executes
    tracer.resume(main)
    os.write(go_fd, b"1")
    status = _loop(tracer, main)
    os.lseek(output_fd, 0, os.SEEK_SET)
    return Traced(tracer.steps, status, os.read(output_fd, 1 << 20).decode("utf-8", "replace"), tracer.killed)


def _loop(tracer: _Tracer, main: int) -> int:
    """Until all have ended, or the main process has and the others rest; its exit status."""
    exit_status, moved, deadline = -1, time.monotonic(), time.monotonic() + 30
    while tracer.roles and time.monotonic() < deadline:
        try:
            pid, status = os.waitpid(-1, WALL | (os.WNOHANG if exit_status >= 0 else 0))
        except ChildProcessError:
            break
        if pid == 0:
            if tracer.killed or time.monotonic() - moved > IDLE_S:
                break
            time.sleep(0.001)
            continue
        moved = time.monotonic()
        if os.WIFSTOPPED(status):
            tracer.stopped(pid, status)
            continue
        tracer.roles.pop(pid, None)
        if pid == main:
            code = os.waitstatus_to_exitcode(status)
            exit_status = code if code >= 0 else 128 - code
    return exit_status
