"""What init's report means for the user: which error, in which words, with which exit status."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pyrun import handshake, verdict
from pyrun.errors import CommandError, EndedSilently, PyrunError, StageFailed
from pyrun.plan.operations import Operation

HOOK = Operation("HOOK", "/bin/first", 3)
PLAN = [HOOK, Operation("HOOK", "/bin/second", 3), Operation("PIVOT", "/new"), Operation("HOOK", "/bin/inside", 5),
        Operation("SYSCTL", "net.core.somaxconn", "x"), Operation("LOOK_UP", "sh"),
        Operation("EXECUTE", "sh")]  # fmt: skip


def heard(index: int, number: int, detail: str = "") -> handshake.Outcome:
    """As from an init that had come as far as R: of what failed afterwards, that counts."""
    outcome = handshake.told(f"{index} {number} {detail}".encode())
    outcome.ready = True
    return outcome


def judged(
    outcome: handshake.Outcome, operations: list[Operation] = PLAN, *, oci: bool = False
) -> PyrunError:
    with pytest.raises(PyrunError) as caught:
        verdict.judge(operations, outcome, oci=oci, run_dir="", groups=[])
    return caught.value


def test_real_time_is_not_a_limit(tmp_path: Path) -> None:
    """The cgroup may have no real-time runtime; then CAP_SYS_NICE is no help, and CAP_SYS_RESOURCE never is."""
    fifo, other = Operation("SCHEDULER", 1, 0, 5, 0, 0, 0, 0), Operation("SCHEDULER", 0, -5, 0, 0, 0, 0, 0)
    groups = [("memory", str(tmp_path / "none")), ("cpu,cpuacct", str(tmp_path))]

    def hint(operation: Operation, number: int = errno.EPERM) -> str:
        with pytest.raises(StageFailed) as caught:
            verdict.judge([operation], heard(0, number), oci=True, run_dir="", groups=groups)
        assert "CAP_SYS_RESOURCE" not in caught.value.hint
        return caught.value.hint

    assert "CAP_SYS_NICE" in hint(fifo)
    (tmp_path / "cpu.rt_runtime_us").write_text("0\n")
    assert "linux.resources.cpu.realtimeRuntime" in hint(fifo) and "CAP_SYS_NICE" not in hint(fifo)
    assert "CAP_SYS_NICE" in hint(other)
    (tmp_path / "cpu.rt_runtime_us").write_text("950000\n")
    assert "CAP_SYS_NICE" in hint(fifo)
    assert "IOPRIO_CLASS_RT" in hint(Operation("IO_PRIORITY", 0x2000))
    assert "CAP_SYS_NICE" not in hint(fifo, errno.EINVAL)


@pytest.mark.parametrize("word", ["ready", "created"])
def test_one_that_came_so_far_has_not_failed(word: str) -> None:
    outcome = handshake.Outcome()
    setattr(outcome, word, True)
    verdict.judge(PLAN, outcome, oci=False, run_dir="", groups=[])


def test_one_that_says_nothing_was_killed() -> None:
    assert isinstance(judged(handshake.Outcome()), EndedSilently)
    assert isinstance(judged(handshake.told(b"")), EndedSilently)


@pytest.mark.parametrize(
    ("command", "number", "status", "message"),
    [
        ("sh", errno.ENOENT, 127, "sh: no such command in the container's $PATH"),
        ("/bin/sh", errno.ENOENT, 127, "/bin/sh: no such command in the container"),
        ("/etc/passwd/sh", errno.ENOTDIR, 127, "/etc/passwd/sh: no such command in the container"),
        ("/etc/passwd", errno.EACCES, 126, "/etc/passwd: not executable"),
        ("sh", errno.ENOEXEC, 126, "sh: not a program (no #! line, or another architecture)"),
        ("sh", errno.ETXTBSY, 126, "sh: Text file busy"),
    ],
)
def test_a_command_that_cannot_be_started(command: str, number: int, status: int, message: str) -> None:
    error = judged(heard(0, number), [Operation("EXECUTE", command)])
    assert isinstance(error, CommandError)
    assert (error.status, error.message) == (status, message)
    assert error.hint


def test_with_runc_s_words_where_callers_look_for_them() -> None:
    execute = judged(heard(6, errno.ENOENT, "/bin/sh"), oci=True)
    assert (execute.status, execute.message) == (127, "exec /bin/sh: no such file or directory")
    for oci in (False, True):  # who looks it up first is an OCI container, whatever started it
        look_up = judged(heard(5, errno.ENOENT, "$PATH"), oci=oci)
        assert (look_up.status, look_up.message) == (127, 'exec: "sh": executable file not found in $PATH')


def test_an_operation_there_is_none_of() -> None:
    assert judged(heard(len(PLAN), errno.EACCES)).message == "?: not executable"
    assert judged(handshake.told(b"nonsense")).message == "?: Protocol error"


@pytest.mark.parametrize(
    ("index", "number", "detail", "message"),
    [
        (0, errno.ECANCELED, "exit status 3: no", "createContainer hook #0: /bin/first: exit status 3: no"),
        (1, errno.ECANCELED, "signal 9", "createContainer hook #1: /bin/second: signal 9"),
        (3, errno.ETIMEDOUT, "", "startContainer hook #0: /bin/inside: no end within its timeout of 5 s"),
        (3, errno.ENOENT, "execve", "startContainer hook #0: /bin/inside: No such file or directory"),
    ],
)
def test_a_hook_is_named_by_its_kind_and_number(index: int, number: int, detail: str, message: str) -> None:
    """Those after the change of root are the other kind, and are counted anew."""
    moved_otherwise = [Operation("ROOT_MOVE", "/new") if each.kind == "PIVOT" else each for each in PLAN]
    for operations in (PLAN, moved_otherwise):
        assert judged(heard(index, number, detail), operations).message == f"hooks: error running {message}"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EINVAL, "the kernel does not take that value"),
        (errno.ENOENT, "this kernel has no such parameter"),
        (errno.EACCES, ""),
    ],
)
def test_a_sysctl_that_is_refused(number: int, hint: str) -> None:
    """The hints of its stage speak of namespaces."""
    error = judged(heard(4, number))
    assert isinstance(error, StageFailed)
    assert (error.stage, error.number, error.hint) == ("namespaces", number, hint)
    assert "net.core.somaxconn" in error.message


def test_a_step_without_a_stage_of_its_own_is_of_the_root() -> None:
    error = judged(heard(2, errno.EINVAL))
    assert isinstance(error, StageFailed) and error.stage == "rootfs" and error.hint


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        (
            {"linux": {"resources": {"memory": {"limit": 4096}}}},
            "; config.json: linux.resources.memory.limit is 4096",
        ),
        ({"linux": {"resources": {"memory": {"limit": -1}}}}, ""),
        (
            {"linux": {"resources": {"memory": {"limit": 1}}}},
            "; config.json: linux.resources.memory.limit is 1",
        ),
        ({"linux": {"resources": {"memory": {"limit": 0}}}}, ""),
        ({"linux": {"resources": None}}, ""),
        ({}, ""),
    ],
)
def test_a_limit_that_may_have_killed_it_is_named(config: dict[str, object], hint: str) -> None:
    error = verdict.silent(config)
    assert error.message == verdict.SILENT
    assert error.hint == f"see dmesg{hint}"
