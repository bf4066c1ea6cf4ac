"""Filters as init loads them: a real agent that answers SCMP_ACT_NOTIFY, and how few calls of init a filter sees."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

import planned
from jobs import job_of
from planned import Report
from pyrun.engine.oci import seccomp_agent
from pyrun.errors import PyrunError
from pyrun.plan.operations import Operation
from pyrun.spec import seccomp, seccomp_compile
from sandbox import in_child

if os.uname().machine != "x86_64":
    pytest.skip("the numbers are those of x86_64", allow_module_level=True)

MKDIR, WRITE, SENDMSG = 83, 1, 46
STATE = {
    "ociVersion": "1.3.0",
    "id": "c1",
    "status": "creating",
    "pid": 1,
    "bundle": "/b",
    "annotations": {"a": "b"},
}

# linux/seccomp.h
RECEIVE, SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
NOTIFICATION, RESPONSE = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of its own, and a skip where nothing can be compiled."""
    monkeypatch.setitem(seccomp.posix.environ, b"PYRUN_ROOT", os.fsencode(tmp_path / "store"))
    try:
        seccomp_compile.version()
    except PyrunError as error:
        pytest.skip(error.message)


class Agent:
    """A seccomp agent: takes one listener, refuses mkdir with EREMOTEIO, lets everything else go on.

    told: what came with the listener; seen: the system calls it was asked about.
    """

    def __init__(self, path: Path) -> None:
        self.told: list[dict[str, Any]] = []
        self.seen: list[int] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        fds = array.array("i")
        data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_LEN(8))
        for level, kind, content in ancillary:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            fds.frombytes(content)
        while more := connection.recv(1 << 16):
            data += more
        self.told.append(json.loads(data))
        (listener,) = fds
        try:
            while True:
                self._answer(listener)
        except OSError:
            return

    def _answer(self, listener: int) -> None:
        buffer = bytearray(NOTIFICATION.size)
        fcntl.ioctl(listener, RECEIVE, buffer)
        identifier, _, _, number, *_ = NOTIFICATION.unpack(bytes(buffer))
        self.seen.append(number)
        refused = number == MKDIR
        answer = RESPONSE.pack(identifier, 0, -errno.EREMOTEIO if refused else 0, 0 if refused else CONTINUE)
        try:
            fcntl.ioctl(listener, SEND, bytearray(answer))
        except FileNotFoundError:
            return  # whoever asked is gone

    def end(self) -> None:
        self._thread.join(5)


def profile(names: list[str], path: Path, default: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    rules = [{"names": names, "action": "SCMP_ACT_NOTIFY"}] if names else []
    return {"defaultAction": default, "syscalls": rules, "listenerPath": str(path), **more}


def start(binary: str, root: Path, wanted: dict[str, Any], **more: object) -> Report:
    """Run *wanted* under its linux.seccomp, forwarding the listener as `start` does. more: of the job."""
    found = seccomp.of_config(wanted)
    assert found is not None
    job = job_of(seccomp=(planned.FD_SECCOMP, found[1]), **more)
    plan = planned.operations(wanted, root, job)

    def listener(sync: Any, number: int, process: tuple[int, int]) -> None:
        seccomp_agent.forward(sync, number, process, wanted, STATE)

    return planned.run(
        binary, plan, keep=[(os.open(found[0], os.O_RDONLY), planned.FD_SECCOMP)], listener=listener
    )


MAKE = "mkdir /made 2>&1; test -d /made && echo there"
# whatever init does after loading a filter early, and what it does when it is loaded late
EVERYTHING = [
    "mkdir", "read", "write", "sendmsg", "close", "close_range", "execve", "prctl", "capset", "setgroups", "setresuid",
    "setresgid", "umask", "recvfrom", "poll", "openat", "mmap", "exit_group",
]  # fmt: skip


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("reaper", [False, True])
@pytest.mark.parametrize("no_new_privileges", [False, True])
@pytest.mark.parametrize("names", [["mkdir"], EVERYTHING, []])
@pytest.mark.timeout(30)
@in_child
def test_an_agent_answers(
    static_binary: Path, tmp_path: Path, names: list[str], no_new_privileges: bool, reaper: bool
) -> None:
    """One call, every call init makes, and all there are (the default action): no way to wait for one another."""
    agent = Agent(tmp_path / "agent")
    default = "SCMP_ACT_ALLOW" if names else "SCMP_ACT_NOTIFY"
    filter_ = profile(names, tmp_path / "agent", default, listenerMetadata="MKDIR=no")
    wanted = planned.config(MAKE, linux_seccomp=filter_, noNewPrivileges=no_new_privileges)
    report = start(str(static_binary), tmp_path / "root", wanted, reaper=reaper)
    agent.end()
    assert (report.ready, report.failed) == (True, None)
    assert "Remote I/O error" in report.output and "there" not in report.output
    (document,) = agent.told
    assert document.pop("pid") > 0
    assert document == {"ociVersion": "1.3.0", "fds": ["seccompFd"], "metadata": "MKDIR=no", "state": STATE}
    assert MKDIR in agent.seen and SENDMSG not in agent.seen
    assert (WRITE in agent.seen) == (names != ["mkdir"])


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("flags", [["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], ["SECCOMP_FILTER_FLAG_LOG"], [],
                                   ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]])  # fmt: skip
@in_child
def test_a_listener_and_every_flag(static_binary: Path, tmp_path: Path, flags: list[str]) -> None:
    agent = Agent(tmp_path / "agent")
    wanted = planned.config(MAKE, linux_seccomp=profile(["mkdir"], tmp_path / "agent", flags=flags))
    report = start(str(static_binary), tmp_path / "root", wanted)
    agent.end()
    assert "Remote I/O error" in report.output


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("no_new_privileges", [False, True])
@in_child
def test_without_its_agent_the_container_does_not_start(
    static_binary: Path, tmp_path: Path, no_new_privileges: bool
) -> None:
    filter_ = profile(["mkdir"], tmp_path / "nobody")
    wanted = planned.config("echo started >&2", linux_seccomp=filter_, noNewPrivileges=no_new_privileges)
    with pytest.raises(
        PyrunError, match=r"listenerPath: cannot tell the seccomp agent at .*/nobody: no such file"
    ):
        start(str(static_binary), tmp_path / "root", wanted)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("no_new_privileges", [False, True])
@in_child
def test_a_second_listener_is_refused_by_the_kernel_and_nobody_waits(
    static_binary: Path, tmp_path: Path, no_new_privileges: bool
) -> None:
    """The planner, which is looking for a descriptor that never comes, hears why."""
    agent = Agent(tmp_path / "agent")
    filter_ = profile(["mkdir"], tmp_path / "agent")
    wanted = planned.config(linux_seccomp=filter_, noNewPrivileges=no_new_privileges)
    found = seccomp.of_config(wanted)
    assert found is not None
    fd = os.open(found[0], os.O_RDONLY)

    job = job_of(seccomp=(planned.FD_SECCOMP, found[1]))
    plan = planned.operations(wanted, tmp_path / "root", job)
    first = Operation("SECCOMP", planned.FD_SECCOMP + 1, found[1], 0)
    plan.insert(plan.index(Operation("WAIT_GO")) + 1, first)

    def listener(sync: Any, number: int, process: tuple[int, int]) -> None:
        seccomp_agent.forward(sync, number, process, wanted, STATE)

    keep = [(fd, planned.FD_SECCOMP), (fd, planned.FD_SECCOMP + 1)]
    report = planned.run(str(static_binary), plan, keep=keep, listener=listener)
    agent.end()
    assert report.failed is not None and report.failed[1] == errno.EBUSY
    assert plan[report.failed[0]].kind == "SECCOMP" and report.failed[0] != plan.index(first)


# ── how little of init a filter sees ───────────────────────────────────────────────────────────────

# what a static program that ends at once needs, and execve
ALMOST_NOTHING = ["execve", "exit_group", "exit", "write", "brk", "arch_prctl", "set_tid_address", "set_robust_list",
                  "rseq", "prlimit64", "readlink", "readlinkat", "getrandom", "mprotect", "newfstatat", "fstat",
                  "rt_sigaction", "getuid", "getpid", "getppid", "uname", "prctl", "rt_sigprocmask"]  # fmt: skip


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("no_new_privileges", "works"), [(True, True), (False, False)])
@in_child
def test_execve_is_all_a_late_filter_sees(
    static_binary: Path, tmp_path: Path, no_new_privileges: bool, works: bool
) -> None:
    """With no_new_privs a profile need not allow what init does; without, it is loaded while init has privilege."""
    allowed = [name for name in ALMOST_NOTHING if name != "prctl" or no_new_privileges]
    filter_ = {"defaultAction": "SCMP_ACT_KILL_PROCESS",
               "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]}  # fmt: skip
    wanted = planned.config(linux_seccomp=filter_, noNewPrivileges=no_new_privileges)
    wanted["process"]["args"] = ["/bin/busybox", "true"]
    report = start(str(static_binary), tmp_path / "root", wanted)
    assert report.ready == works
    assert (report.status == 0) == works


@pytest.mark.usefixtures("store")
@in_child
def test_an_early_filter_may_know_nothing_of_close_range(static_binary: Path, tmp_path: Path) -> None:
    """Profiles older than the call: for them it is unknown, and descriptors are marked before."""
    rule = {"names": ["close_range"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}
    filter_ = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    wanted = planned.config("echo /proc/self/fd/*", linux_seccomp=filter_)
    report = start(str(static_binary), tmp_path / "root", wanted)
    numbers = {word.rpartition("/")[2] for word in report.output.split()}
    assert numbers - {"3"} == {"0", "1", "2"}  # 3 is the shell's own look at the directory


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ({"action": "SCMP_ACT_ERRNO"}, "Operation not permitted"),
        ({"action": "SCMP_ACT_ERRNO", "errnoRet": errno.EREMOTEIO}, "Remote I/O error"),
        ({"action": "SCMP_ACT_LOG"}, "there"),
        ({"action": "SCMP_ACT_ALLOW"}, "there"),
        ({"action": "SCMP_ACT_TRACE"}, "Function not implemented"),  # nobody traces
        ({"action": "SCMP_ACT_TRAP"}, "31"),
        ({"action": "SCMP_ACT_KILL"}, "31"),
        ({"action": "SCMP_ACT_KILL_THREAD"}, "31"),
        ({"action": "SCMP_ACT_KILL_PROCESS"}, "31"),
    ],
)
@in_child
def test_every_action_in_a_container(
    static_binary: Path, tmp_path: Path, action: dict[str, object], expected: str
) -> None:
    default = "SCMP_ACT_LOG" if action["action"] == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
    filter_ = {"defaultAction": default, "syscalls": [{"names": ["mkdir"], **action}]}
    script = "LC_ALL=C mkdir /made 2>&1; echo $(($? & 127)); test -d /made && echo there"
    wanted = planned.config(script, linux_seccomp=filter_)
    report = start(str(static_binary), tmp_path / "root", wanted)
    assert expected in report.output


def test_the_numbers_of_the_ioctls() -> None:
    """_IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp)."""
    made = [3 << 30 | each.size << 16 | ord("!") << 8 for each in (NOTIFICATION, RESPONSE)]
    assert (made[0], made[1] | 1) == (RECEIVE, SEND)
