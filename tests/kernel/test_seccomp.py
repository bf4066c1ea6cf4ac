"""The kernel under the compiled filters: a child loads one, makes system calls and reports each one's errno."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from pyrun.errors import PyrunError
from pyrun.spec import seccomp, seccomp_compile
from pyrun.spec.capabilities import DEFAULT, mask_of
from pyrun.spec.seccomp_profile import default_profile

if os.uname().machine != "x86_64":
    pytest.skip("the numbers are those of x86_64", allow_module_level=True)

Sandbox = Callable[..., Any]
NEW_MOUNT_NAMESPACE, NEW_USER_NAMESPACE = 0x00020000, 0x10000000
X32_BIT = 1 << 30
# Arguments that make the kernel itself refuse: whatever a filter lets through by mistake does no harm.
BAD = 0xFFFFFFFF
OK, EPERM, ENOSYS = 0, errno.EPERM, errno.ENOSYS


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load(program: bytes, flags: int = 0) -> None:
    """seccomp(SECCOMP_SET_MODE_FILTER) under no_new_privs, as an unprivileged init would."""
    libc = ctypes.CDLL(None, use_errno=True)
    loaded = _Program(len(program) // 8, program)
    if libc.prctl(38, 1, 0, 0, 0) or libc.syscall(317, 1, flags, ctypes.byref(loaded)):
        raise OSError(ctypes.get_errno(), "seccomp")


def errnos(path: str, flags: int, calls: list[tuple[int, ...]], i386: bool = False) -> list[int]:
    """In the child: the errno of each (number, *arguments), 0 for success. Results that are descriptors stay open."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = int80() if i386 else None
    with open(path, "rb") as file:
        load(file.read(), flags)
    found = []
    for number, *args in calls:
        if call:
            found.append(max(0, -call(number, *[*args, 0, 0][:2])))
        else:
            given = [ctypes.c_ulong(arg) for arg in args + [0] * (6 - len(args))]
            found.append(ctypes.get_errno() if libc.syscall(ctypes.c_long(number), *given) < 0 else 0)
    return found


def int80() -> Callable[..., int]:
    """A function (number, first, second) making an i386 system call from this 64-bit process."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; int 0x80; pop rbx; ret
    code.write(b"\x53\x89\xf8\x89\xf3\x89\xd1\xcd\x80\x5b\xc3")
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)(
        ctypes.addressof(ctypes.c_char.from_buffer(code))
    )
    function.memory = code
    return function


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A cache of its own, and a skip where nothing can be compiled."""
    monkeypatch.setitem(seccomp.posix.environ, b"PYRUN_ROOT", os.fsencode(tmp_path))
    try:
        seccomp_compile.version()
    except PyrunError as error:
        pytest.skip(error.message)


# (what, number, arguments..., expected): x86_64 under Docker's default for a container without options.
DEFAULT_TABLE = [
    ("getpid", 39, OK),
    ("chdir", 80, errno.EFAULT),
    ("socket AF_UNIX", 41, 1, 1, OK),
    ("socket AF_INET", 41, 2, 2, OK),
    ("socket AF_NETLINK", 41, 16, 3, OK),
    ("socket AF_ALG", 41, 38, 5, EPERM),
    ("socket AF_ALG behind a high half the kernel does not read", 41, 1 << 32 | 38, 5, EPERM),
    ("socket AF_VSOCK", 41, 40, 1, EPERM),
    ("socket AF_VSOCK behind a high half", 41, BAD << 32 | 40, 1, EPERM),
    ("socket AF_UNIX behind a high half", 41, 1 << 32 | 1, 1, OK),
    ("socket of family 46", 41, 46, 1, errno.EAFNOSUPPORT),
    ("clone with CLONE_NEWUSER", 56, NEW_USER_NAMESPACE | BAD << 32, EPERM),
    ("clone with CLONE_NEWNS", 56, NEW_MOUNT_NAMESPACE, EPERM),
    ("clone: flags the kernel refuses", 56, 0x00010000, errno.EINVAL),
    ("clone3", 435, 0, 0, ENOSYS),
    ("unshare", 272, NEW_USER_NAMESPACE, EPERM),
    ("setns", 308, BAD, 0, EPERM),
    ("mount", 165, 0, 0, 0, 0, 0, EPERM),
    ("umount2", 166, 0, BAD, EPERM),
    ("pivot_root", 155, 0, 0, EPERM),
    ("fsopen", 430, 0, BAD, EPERM),
    ("open_tree", 428, BAD, 0, BAD, EPERM),
    ("move_mount", 429, BAD, 0, BAD, 0, BAD, EPERM),
    ("mount_setattr", 442, BAD, 0, BAD, 0, 0, EPERM),
    ("bpf", 321, 0, 0, 0, EPERM),
    ("perf_event_open", 298, 0, 0, 0, BAD, BAD, EPERM),
    ("keyctl", 250, BAD, EPERM),
    ("add_key", 248, 0, 0, 0, 0, BAD, EPERM),
    ("request_key", 249, 0, 0, 0, BAD, EPERM),
    ("io_uring_setup", 425, 0, 0, EPERM),
    ("userfaultfd", 323, BAD, EPERM),
    ("open_by_handle_at", 304, BAD, 0, 0, EPERM),
    ("kexec_load", 246, 0, 0, 0, BAD, EPERM),
    ("init_module", 175, 0, 0, 0, EPERM),
    ("finit_module", 313, BAD, 0, BAD, EPERM),
    ("reboot", 169, 0, 0, 0, EPERM),
    ("swapon", 167, 0, BAD, EPERM),
    ("settimeofday", 164, 1, 1, EPERM),
    ("iopl", 172, 9, EPERM),
    ("syslog", 103, BAD, 0, 0, EPERM),
    ("acct", 163, 1, EPERM),
    ("quotactl", 179, BAD, 0, 0, 0, EPERM),
    ("pidfd_getfd", 438, BAD, BAD, BAD, EPERM),
    ("kcmp", 312, 0, 0, BAD, 0, 0, EPERM),
    ("lookup_dcookie", 212, 0, 0, 0, EPERM),
    ("mbind", 237, 1, 0, 0, 0, 0, 0, EPERM),
    ("chroot, since CAP_SYS_CHROOT is a default", 161, 0, errno.EFAULT),
    ("personality PER_LINUX", 135, 0, OK),
    ("personality asked for", 135, 0xFFFFFFFF, OK),
    ("personality ADDR_NO_RANDOMIZE", 135, 0x0040000, EPERM),
    ("personality PER_LINUX32", 135, 8, OK),
    ("personality UNAME26", 135, 0x0020000, OK),
    ("ptrace", 101, BAD, BAD, errno.ESRCH),
    ("openat2", 437, BAD, 0, 0, 0, errno.EINVAL),
    ("a call of the future", 2000, ENOSYS),
    ("an x32 call", X32_BIT | 39, ENOSYS),
    ("an x32 call that is refused", X32_BIT | 272, NEW_USER_NAMESPACE, EPERM),
    ("an x32 call of the future", X32_BIT | 2000, ENOSYS),
]


@pytest.mark.usefixtures("store")
def test_the_default_filter(sandbox_fork: Sandbox) -> None:
    """One row a system call: this is what a container without options may do."""
    path, flags = seccomp.default_filter(DEFAULT)
    found = sandbox_fork(errnos, path, flags, [row[1:-1] for row in DEFAULT_TABLE])
    assert named(DEFAULT_TABLE, found) == {row[0]: name_of(row[-1]) for row in DEFAULT_TABLE}


@pytest.mark.usefixtures("store")
def test_the_default_filter_for_programs_of_32_bits(sandbox_fork: Sandbox) -> None:
    table = [
        ("getpid", 20, OK),
        ("unshare", 310, NEW_USER_NAMESPACE, EPERM),
        ("clone with CLONE_NEWUSER", 120, NEW_USER_NAMESPACE, EPERM),
        ("mount", 21, 0, 0, EPERM),
        ("keyctl", 288, BAD, EPERM),
        ("socket AF_UNIX", 359, 1, 1, OK),
        ("socket AF_ALG", 359, 38, 5, EPERM),
        # its arguments are in memory, where no filter looks
        *[(f"socketcall {number}", 102, number, BAD, ENOSYS) for number in range(1, 21)],
        ("clone3", 435, 0, 0, ENOSYS),
        ("a call of the future", 2000, ENOSYS),
    ]
    if sandbox_fork(lambda: int80()(20, 0, 0)) < 0:
        pytest.skip("needs a kernel with CONFIG_IA32_EMULATION")
    path, flags = seccomp.default_filter(DEFAULT)
    found = sandbox_fork(errnos, path, flags, [row[1:-1] for row in table], True)
    assert named(table, found) == {row[0]: name_of(row[-1]) for row in table}


@pytest.mark.usefixtures("store")
def test_capabilities_open_what_they_stand_for(sandbox_fork: Sandbox) -> None:
    calls = {
        "CAP_SYS_ADMIN": (272, 0xFF, errno.EINVAL),
        "CAP_SYS_BOOT": (169, 0, 0, 0, errno.EINVAL),
        "CAP_DAC_READ_SEARCH": (304, BAD, 0, 0, errno.EFAULT),
        "CAP_SYS_NICE": (237, 1, 0, 0, 0, 0, 0, errno.EINVAL),
        "CAP_BPF": (321, BAD, 0, 0, errno.EINVAL),
        "CAP_SYSLOG": (103, BAD, 0, 0, errno.EINVAL),
    }
    for name, (*call, expected) in calls.items():
        for mask, wanted in ((DEFAULT, EPERM), (DEFAULT | mask_of([name]), expected)):
            path, flags = seccomp.default_filter(mask)
            assert sandbox_fork(errnos, path, flags, [tuple(call)]) == [wanted], (name, hex(mask))


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "names",
    [
        None,
        [],
        ["SECCOMP_FILTER_FLAG_TSYNC"],
        ["SECCOMP_FILTER_FLAG_LOG"],
        ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
    ],
)
def test_the_kernel_takes_every_flag(sandbox_fork: Sandbox, names: list[str] | None) -> None:
    path, flags = seccomp.profile_filter({**default_profile(DEFAULT), "flags": names})
    assert sandbox_fork(errnos, path, flags, [(272, NEW_USER_NAMESPACE), (39,)]) == [EPERM, OK]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("rule", "number", "i386", "killer"),
    [
        ({"action": "SCMP_ACT_KILL_PROCESS"}, 110, False, signal.SIGSYS),
        ({"action": "SCMP_ACT_KILL"}, 110, False, signal.SIGSYS),
        ({"action": "SCMP_ACT_TRAP"}, 110, False, signal.SIGSYS),
        ({"action": "SCMP_ACT_ERRNO", "errnoRet": 71}, 110, False, 0),
        # a profile of x86_64 alone: other architectures' calls are no way around it
        ({"action": "SCMP_ACT_ERRNO", "errnoRet": 71}, 64, True, signal.SIGSYS),
    ],
)
def test_actions(rule: dict[str, object], number: int, i386: bool, killer: int) -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], **rule}]}
    path, flags = seccomp.profile_filter(profile)
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(errnos(path, flags, [(number,)], i386)[0])
        finally:
            os._exit(255)
    status = os.waitpid(pid, 0)[1]
    assert (os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0) == killer
    assert killer or os.WEXITSTATUS(status) == 71


@pytest.mark.usefixtures("store")
def test_ordinary_python_works_under_it(sandbox_fork: Sandbox) -> None:
    """Threads (clone3, then clone), processes, files, sockets, time."""
    path, flags = seccomp.default_filter(DEFAULT)

    def ordinary() -> list[object]:
        import subprocess
        import threading
        import time

        with open(path, "rb") as file:
            load(file.read(), flags)
        said: list[object] = []
        thread = threading.Thread(target=lambda: said.append(threading.get_native_id() != os.getpid()))
        thread.start()
        thread.join()
        said.append(subprocess.run(["/bin/echo", "hello"], capture_output=True, text=True, check=True).stdout)
        one, other = socket.socketpair()
        one.send(b"x")
        said.append(other.recv(1))
        time.sleep(0.001)
        return said

    assert sandbox_fork(ordinary) == [True, "hello\n", b"x"]


def named(table: list[tuple[Any, ...]], found: list[int]) -> dict[str, str]:
    return {row[0]: name_of(number) for row, number in zip(table, found, strict=True)}


def name_of(number: int) -> str:
    return errno.errorcode.get(number, "success")
