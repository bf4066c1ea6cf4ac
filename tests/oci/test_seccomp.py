"""config.json: `linux.seccomp`: actions, arguments, flags, the listener."""

from __future__ import annotations

import array
import json
import struct
from collections.abc import Sequence
from fcntl import ioctl
from typing import Any

import pytest

from oci import terminal
from oci.box import TIMEOUT_S, Box
from oci.marks import rows, shows
from waiting import until

SECCOMP = "config: linux.seccomp."
ACTION = f"{SECCOMP}syscalls[].action="
MKDIR = ["mkdir", "mkdirat"]
ENOTSUP, EPERM = 95, 1
# linux/seccomp.h
SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND = 0xC0502100, 0xC0182101


def _profile(box: Box, *rules: dict[str, object], **fields: object) -> None:
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [*rules]} | fields


# ── actions ────────────────────────────────────────────────────────────────────────────────────────


@shows(
    f"{SECCOMP}defaultAction",
    f"{SECCOMP}syscalls[].names[]",
    f"{SECCOMP}syscalls[].action",
    f"{ACTION}SCMP_ACT_ERRNO",
)
def test_errno(box: Box) -> None:
    _profile(box, {"names": MKDIR, "action": "SCMP_ACT_ERRNO"})
    assert "not permitted" in box.sh("mkdir /data/x 2>&1; ls -d /data/x 2>&1; true")
    assert not (box.rootfs / "data/x").exists()


@shows(f"{SECCOMP}syscalls[].errnoRet")
def test_errno_ret(box: Box) -> None:
    _profile(box, {"names": MKDIR, "action": "SCMP_ACT_ERRNO", "errnoRet": ENOTSUP})
    assert "not supported" in box.sh("mkdir /data/x 2>&1; true")


@shows(f"{SECCOMP}defaultErrnoRet", f"{SECCOMP}defaultAction=SCMP_ACT_ERRNO", f"{ACTION}SCMP_ACT_ALLOW")
def test_default_errno_ret(box: Box) -> None:
    allowed = [name for name in _names() if name not in MKDIR]
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": ENOTSUP,
                            "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]}  # fmt: skip
    assert "not supported" in box.sh("mkdir /data/x 2>&1; true")


def _names() -> Sequence[str]:
    """More than a shell and mkdir need."""
    return """access arch_prctl brk capget capset chdir clone clone3 close close_range dup dup2 dup3 epoll_create1
    epoll_ctl epoll_pwait execve execveat exit exit_group fchdir fchmod fchown fcntl fstat fstatfs futex getcwd
    getdents64
    getegid geteuid getgid getgroups getpgrp getpid getppid getrandom getresgid getresuid getrlimit gettid getuid ioctl
    kill lseek lstat madvise mmap mprotect mremap munmap nanosleep newfstatat open openat openat2 pipe pipe2 poll
    ppoll prctl pread64 prlimit64 read readlink readlinkat rseq rt_sigaction rt_sigprocmask rt_sigreturn
    sched_getaffinity sched_yield seccomp sendmsg set_robust_list set_tid_address setgid setgroups setpgid setresgid
    setresuid setsid setuid sigaltstack stat statfs statx sysinfo tgkill time umask uname vfork wait4 waitid write
    writev faccessat faccessat2 eventfd2 epoll_wait sendto recvfrom recvmsg socket connect sched_getparam clock_gettime
    clock_nanosleep mkdir_absent""".split()


@shows(f"{SECCOMP}syscalls[].names[]", "seccomp: names that no architecture has are ignored")
def test_unknown_names(box: Box) -> None:
    """Profiles name calls of newer kernels."""
    _profile(box, {"names": [*MKDIR, "no_such_call"], "action": "SCMP_ACT_ERRNO"})
    assert "not permitted" in box.sh("mkdir /data/x 2>&1; true")


@pytest.mark.parametrize("action", rows(ACTION, "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                                        "SCMP_ACT_TRAP"))  # fmt: skip
def test_fatal_actions(box: Box, action: str) -> None:
    """SIGSYS ends the process."""
    _profile(box, {"names": MKDIR, "action": action})
    assert box.sh("mkdir /data/x; echo $?", status=0).splitlines()[-1] == "159"


@pytest.mark.parametrize("action", rows(ACTION, "SCMP_ACT_LOG"))
def test_log(box: Box, action: str) -> None:
    """Allowed, and noted by the kernel."""
    _profile(box, {"names": MKDIR, "action": action})
    box.sh("mkdir /data/x")
    assert (box.rootfs / "data/x").is_dir()


@pytest.mark.parametrize("action", rows(ACTION, "SCMP_ACT_TRACE"))
def test_trace(box: Box, action: str) -> None:
    """Without a tracer: ENOSYS."""
    _profile(box, {"names": MKDIR, "action": action, "errnoRet": 7})
    assert "not implemented" in box.sh("mkdir /data/x 2>&1; true")


@pytest.mark.parametrize(
    "action",
    rows(
        f"{SECCOMP}defaultAction=",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_KILL_THREAD",
    ),
)
def test_fatal_default(box: Box, action: str) -> None:
    box.linux["seccomp"] = {
        "defaultAction": action,
        "syscalls": [{"names": [*_names(), "mkdir"], "action": "SCMP_ACT_ALLOW"}],
    }
    assert box.sh("chmod 700 /data; echo $?").splitlines()[-1] == "159"


@pytest.mark.parametrize("action", rows(f"{SECCOMP}defaultAction=", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG"))
def test_harmless_default(box: Box, action: str) -> None:
    box.linux["seccomp"] = {"defaultAction": action}
    assert box.run("echo", "x") == "x"


@pytest.mark.parametrize("action", rows(f"{SECCOMP}defaultAction=", "SCMP_ACT_TRACE"))
def test_trace_default(box: Box, action: str) -> None:
    box.linux["seccomp"] = {
        "defaultAction": action,
        "syscalls": [{"names": [*_names(), "chmod", "fchmodat"], "action": "SCMP_ACT_ALLOW"}],
    }
    assert "not implemented" in box.sh("mkdir /data/x 2>&1; true")


@shows(f"{SECCOMP}defaultAction", "errors: seccomp")
@pytest.mark.parametrize("profile", [
    {"defaultAction": "SCMP_ACT_NOPE"}, {"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]},
    {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "NOPE"}]},
    {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOPE"]},
    {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["NOPE"]},
    {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]},
    {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 5}]},
    {"defaultAction": "SCMP_ACT_NOTIFY"},
], ids=json.dumps)  # fmt: skip
def test_bad_profiles(box: Box, profile: dict[str, object]) -> None:
    """A profile that cannot be had as it is written is an error, at create or at start; never a weaker one."""
    if profile.get("defaultAction") == "SCMP_ACT_NOTIFY":
        box.known_to_differ("crun", "no listener is no error")
    if "syscalls" in profile or "flags" in profile or "architectures" in profile:
        box.known_to_differ("runc", "some are taken")
        box.known_to_differ("crun", "some are taken")
    box.linux["seccomp"] = profile
    box.write("true")
    if box.call("create", box.id).status == 0:
        box.fails("start", box.id)


@shows(f"{SECCOMP}defaultAction", "seccomp: an empty profile allows everything")
def test_empty_profile(box: Box) -> None:
    """Engines write it for "no seccomp"."""
    box.known_to_differ("crun", "an error")
    box.linux["seccomp"] = {"syscalls": []}
    assert box.sh("mkdir /data/x && linux32 echo x") == "x"


# ── arguments ──────────────────────────────────────────────────────────────────────────────────────

ARGS = tuple(f"{SECCOMP}syscalls[].args[].{name}" for name in ("index", "value", "valueTwo", "op"))
# personality() is called with 8 by linux32 and with 0 by linux64: which of them the rule hits
OPERATORS: dict[str, tuple[dict[str, int], bool, bool]] = {
    "SCMP_CMP_NE": ({"value": 0}, True, False),
    "SCMP_CMP_LT": ({"value": 8}, False, True),
    "SCMP_CMP_LE": ({"value": 0}, False, True),
    "SCMP_CMP_EQ": ({"value": 8}, True, False),
    "SCMP_CMP_GE": ({"value": 8}, True, False),
    "SCMP_CMP_GT": ({"value": 0}, True, False),
    "SCMP_CMP_MASKED_EQ": ({"value": 8, "valueTwo": 8}, True, False),
}


@shows(*ARGS)
@pytest.mark.parametrize("op", rows(f"{SECCOMP}syscalls[].args[].op=", *OPERATORS))
def test_arguments(box: Box, op: str) -> None:
    values, hits_8, hits_0 = OPERATORS[op]
    _profile(
        box, {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "op": op} | values]}
    )
    out = box.sh("linux32 true 2>/dev/null && echo 8; linux64 true 2>/dev/null && echo 0; true").split()
    assert (("8" not in out), ("0" not in out)) == (hits_8, hits_0)


@shows(*ARGS)
def test_several_arguments(box: Box) -> None:
    """All of one entry must match; entries are alternatives."""
    both = [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 12345, "op": "SCMP_CMP_EQ"}]
    _profile(box, {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": both})
    assert box.sh("linux32 true && echo passed") == "passed"
    only = [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]
    _profile(box, {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": both},
             {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": only})  # fmt: skip
    assert box.sh("linux64 true 2>/dev/null || echo stopped") == "stopped"


@shows(f"{SECCOMP}syscalls[].args[].value", "seccomp: values of 64 bits")
def test_large_values(box: Box) -> None:
    big = 2**64 - 1
    _profile(box, {"names": ["personality"], "action": "SCMP_ACT_ERRNO",
                   "args": [{"index": 0, "value": big, "op": "SCMP_CMP_EQ"}]})  # fmt: skip
    assert box.sh("linux32 true && echo passed") == "passed"


# ── architectures, flags ───────────────────────────────────────────────────────────────────────────


@shows(f"{SECCOMP}architectures[]")
@pytest.mark.parametrize(
    "more",
    rows(
        f"{SECCOMP}architectures[]=",
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_AARCH64",
    ),
)
def test_architectures(box: Box, more: str) -> None:
    """Those beside the native one are filtered too; one of another machine does no harm."""
    _profile(box, {"names": MKDIR, "action": "SCMP_ACT_ERRNO"}, architectures=["SCMP_ARCH_X86_64", more])
    assert "not permitted" in box.sh("mkdir /data/x 2>&1; true")


@shows(f"{SECCOMP}flags[]")
@pytest.mark.parametrize(
    "flag",
    [
        *rows(
            f"{SECCOMP}flags[]=",
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        ),
    ],
)
def test_flags(box: Box, flag: str) -> None:
    box.known_to_differ("runc", "1.1 has no flags")
    _profile(box, {"names": MKDIR, "action": "SCMP_ACT_ERRNO"}, flags=[flag])
    out = box.sh("mkdir /data/x 2>&1; grep -E '^(Seccomp|Speculation_Store)' /proc/self/status")
    assert "not permitted" in out and "Seccomp:\t2" in out


@shows(f"{SECCOMP}syscalls[].names[]", "seccomp: it holds for exec too")
def test_exec(box: Box) -> None:
    _profile(box, {"names": MKDIR, "action": "SCMP_ACT_ERRNO"})
    box.detach()
    assert "not permitted" in box.exec("sh", "-c", "mkdir /data/x 2>&1; true")


@shows(f"{SECCOMP}defaultAction", "seccomp: with and without noNewPrivileges")
@pytest.mark.parametrize("value", [True, False])
def test_no_new_privileges(box: Box, value: bool) -> None:
    box.process["noNewPrivileges"] = value
    _profile(box, {"names": MKDIR, "action": "SCMP_ACT_ERRNO"})
    out = box.sh("mkdir /data/x 2>&1; grep NoNewPrivs /proc/self/status")
    assert "not permitted" in out and out.endswith(str(int(value)))


@shows(f"{SECCOMP}defaultAction", "seccomp: a filter without what the runtime alone would need")
@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
def test_a_filter_knows_nothing_of_messages(box: Box, action: str) -> None:
    """Without noNewPrivileges it is loaded while the runtime still has something to do and to say."""
    box.known_to_differ("crun", "needs some of them")
    box.process["noNewPrivileges"] = False
    names = [name for name in _names() if name not in ("sendmsg", "sendto", "recvmsg", "recvfrom")]
    box.linux["seccomp"] = {
        "defaultAction": action,
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    }
    box.create("echo", "x")
    box.start()
    assert box.output() == "x"
    box.ok("delete", "--force", box.id)
    box.process["args"] = ["/bin/absent"]
    assert "absent" in box.refuses()


@shows(f"{SECCOMP}defaultAction", "seccomp: a startContainer hook runs under a filter without pidfd_open")
@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
@pytest.mark.parametrize(("script", "words"), [
    ('read -r s; echo "$s" >/data/state', ""), ("echo why; exit 3", "why"), ("exec sleep 100", "no end"),
])  # fmt: skip
def test_a_filter_knows_nothing_of_pidfds(box: Box, action: str, script: str, words: str) -> None:
    if words or action == "SCMP_ACT_KILL_PROCESS":
        box.known_to_differ("runc", "needs more")
    box.known_to_differ("crun", "needs more")
    box.process["noNewPrivileges"] = False
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1}
    box.config["hooks"] = {"startContainer": [hook]}
    box.linux["seccomp"] = {
        "defaultAction": action,
        "syscalls": [{"names": _names(), "action": "SCMP_ACT_ALLOW"}],
    }
    box.create("echo", "x")
    if words:
        assert words in box.fails("start", box.id)
    else:
        box.start()
        assert box.output() == "x"
        assert json.loads((box.rootfs / "data/state").read_text())["id"] == box.id


# ── the listener ───────────────────────────────────────────────────────────────────────────────────

LISTENER: dict[str, Any] = {"since": {"runc": "1.1", "crun": "0.20"}}


def _notified(box: Box, **fields: object) -> dict[str, Any]:
    """Run mkdir under a listener that answers ENOTSUP; returns the container process state it was sent."""
    with terminal.Listener(box.directory / "listener") as listener:
        _profile(
            box, {"names": MKDIR, "action": "SCMP_ACT_NOTIFY"}, listenerPath=str(listener.path), **fields
        )
        box.write("sh", "-c", "mkdir /data/x 2>&1; sleep 1000")
        out = box.directory / "container.out"
        with open(out, "wb") as stream:
            process = box.background("run", "-d", box.id, stdout=stream)
        fd = listener.receive()
        notification = array.array("B", bytes(80))
        while True:
            ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, notification)
            ident, pid, _, number = struct.unpack_from("=QIIi", notification)
            assert number in (83, 258) and pid
            ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, array.array("B", struct.pack("=QqiI", ident, 0, -ENOTSUP, 0)))
            break
        assert process.wait(TIMEOUT_S) == 0
        until(lambda: "not supported" in out.read_text(), "the answer inside")
        state: dict[str, Any] = json.loads(listener.message)
        return state


@shows(f"{SECCOMP}listenerPath", f"{SECCOMP}listenerMetadata", f"{ACTION}SCMP_ACT_NOTIFY", **LISTENER)
def test_listener(box: Box) -> None:
    """The state of the container's process arrives with one descriptor, over which the kernel asks."""
    box.config["annotations"] = {"a": "b"}
    state = _notified(box, listenerMetadata="some words")
    assert state["fds"] == ["seccompFd"]
    assert state["metadata"] == "some words"
    assert state["pid"] == box.pid
    assert state["ociVersion"]
    assert state["state"]["id"] == box.id
    assert state["state"]["status"] in ("creating", "created")
    assert state["state"]["annotations"] == {"a": "b"}
    assert state["state"]["bundle"] == str(box.bundle)


@pytest.mark.parametrize("flag", rows(f"{SECCOMP}flags[]=", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                                      since={"runc": "1.2", "crun": "1.19"}))  # fmt: skip
def test_wait_killable(box: Box, flag: str) -> None:
    _notified(box, flags=[flag])


@shows(f"{SECCOMP}listenerPath", "errors: nobody listens", **LISTENER)
def test_nobody_listens(box: Box) -> None:
    _profile(box, {"names": MKDIR, "action": "SCMP_ACT_NOTIFY"}, listenerPath=str(box.directory / "absent"))
    box.write("true")
    if box.call("create", box.id).status == 0:
        box.fails("start", box.id)


@shows(f"{SECCOMP}listenerPath", "seccomp: without a notify action the path does not matter", **LISTENER)
def test_listener_path_alone(box: Box) -> None:
    _profile(box, {"names": MKDIR, "action": "SCMP_ACT_ERRNO"}, listenerPath=str(box.directory / "absent"))
    box.known_to_differ("runc", "an error")
    box.known_to_differ("crun", "an error")
    assert box.run("echo", "x") == "x"


@shows(f"{SECCOMP}listenerMetadata", "errors: metadata without a path", **LISTENER,
       differs={"crun": "no check"})  # fmt: skip
def test_metadata_alone(box: Box) -> None:
    _profile(box, listenerMetadata="words")
    box.known_to_differ("runc", "no check")
    box.refuses("true")
