"""config.json's process as operations: what is planned for each field, and what is refused in which words."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import build_backend
from jobs import job_of
from pyrun import notice
from pyrun.engine.oci import exec_, prepare
from pyrun.errors import CommandError, UsageError
from pyrun.plan.catalogue import explain
from pyrun.plan.job import Job
from pyrun.plan.operations import Operation
from pyrun.spec import capabilities, check, scheduling
from pyrun.spec.capabilities import ALL, DEFAULT, mask_of
from pyrun.spec.defaults import DEFAULT_PATH
from pyrun.stages import hooks, namespaces, process, security
from pyrun.verdict import command_error

CSRC = Path(__file__).resolve().parents[2] / "csrc"
CREATE = job_of(oci=True)
EXEC = job_of(oci=True, entering=True)
NEW = [{"type": kind} for kind in ("mount", "pid", "ipc")]


def made(namespaces: list[dict[str, str]] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "process": {"args": ["sh"], "cwd": "/", **fields},
        "linux": {"namespaces": NEW if namespaces is None else namespaces},
    }


def scheduled(job: Job = CREATE, **fields: Any) -> list[Operation]:
    config = made(
        **{key: value for key, value in fields.items() if key not in ("memoryPolicy", "personality")}
    )
    config["linux"] |= {key: fields[key] for key in ("memoryPolicy", "personality") if key in fields}
    return process.plan_scheduling(config, job)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(notice, "_sinks", [texts.append])
    return texts


# ── scheduling ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"policy": "SCHED_OTHER"}, (0, 0, 0, 0, 0, 0, 0)),
        ({"policy": "SCHED_BATCH", "nice": -20}, (3, -20, 0, 0, 0, 0, 0)),
        ({"policy": "SCHED_FIFO", "priority": 99}, (1, 0, 99, 0, 0, 0, 0)),
        ({"policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, (2, 0, 1, 1, 0, 0, 0)),
        ({"policy": "SCHED_IDLE", "nice": 40}, (5, 40, 0, 0, 0, 0, 0)),
        ({"policy": "SCHED_ISO", "flags": ["SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"]},
         (4, 0, 0, 0x60, 0, 0, 0)),
        ({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3, "flags": ["SCHED_FLAG_RECLAIM"]},
         (6, 0, 0, 2, 1, 2, 3)),
        ({"policy": "SCHED_DEADLINE", "runtime": (1 << 64) - 1}, (6, 0, 0, 0, -1, 0, 0)),
        ({"policy": "SCHED_OTHER", "nice": None, "flags": None}, (0, 0, 0, 0, 0, 0, 0)),
    ],
)  # fmt: skip
def test_scheduler(value: dict[str, object], expected: tuple[int, ...]) -> None:
    assert Operation("SCHEDULER", *expected) in scheduled(scheduler=value)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({}, r"scheduler\.policy: must be one of"),
        ({"policy": "SCHED_FAST"}, r"scheduler\.policy: .*'SCHED_FAST'"),
        ({"policy": ["SCHED_FIFO"]}, r"scheduler\.policy"),
        ({"policy": "SCHED_OTHER", "nice": 20}, r"scheduler\.nice: .* from -20 to 19, not 20"),
        ({"policy": "SCHED_OTHER", "nice": "5"}, r"scheduler\.nice"),
        ({"policy": "SCHED_OTHER", "nice": True}, r"scheduler\.nice"),
        ({"policy": "SCHED_OTHER", "priority": 1}, r"scheduler\.priority: is for SCHED_FIFO and SCHED_RR"),
        ({"policy": "SCHED_FIFO", "priority": -1}, r"scheduler\.priority"),
        ({"policy": "SCHED_FIFO", "period": 5}, r"scheduler\.period: is for SCHED_DEADLINE"),
        ({"policy": "SCHED_DEADLINE", "runtime": 1 << 64}, r"scheduler\.runtime"),
        ({"policy": "SCHED_OTHER", "flags": ["RESET"]}, r"scheduler\.flags\[0\]: .*'RESET'"),
        ("SCHED_OTHER", r"scheduler: must be an object"),
    ],
)
def test_faulty_schedulers_are_named(value: object, named: str) -> None:
    with pytest.raises(UsageError, match=r"config\.json: process\." + named):
        scheduled(scheduler=value)


@pytest.mark.parametrize(
    ("kind", "priority", "expected"),
    [("IOPRIO_CLASS_RT", 0, 0x2000), ("IOPRIO_CLASS_BE", 7, 0x4007), ("IOPRIO_CLASS_IDLE", 4, 0x6004)],
)
def test_io_priority(kind: str, priority: int, expected: int) -> None:
    assert Operation("IO_PRIORITY", expected) in scheduled(ioPriority={"class": kind, "priority": priority})


def test_the_io_priority_idle_has_no_levels() -> None:
    assert Operation("IO_PRIORITY", 0x6000) in scheduled(ioPriority={"class": "IOPRIO_CLASS_IDLE"})


@pytest.mark.parametrize(
    "value", [{"class": "IOPRIO_CLASS_NONE"}, {"class": "IOPRIO_CLASS_BE", "priority": 8}, {}, 4]
)
def test_faulty_io_priorities_are_named(value: object) -> None:
    with pytest.raises(UsageError, match=r"process\.ioPriority"):
        scheduled(ioPriority=value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", [0, 0]), ("0-3,7", [0, 3, 7, 7]), (" 1 , 2-2,", [1, 1, 2, 2]), ("65535", [65535, 65535]), ("", []),
    ],
)  # fmt: skip
def test_ranges(text: str, expected: list[int]) -> None:
    assert scheduling.ranges(text, "x") == expected


@pytest.mark.parametrize(
    "text", ["a", "-1", "1-", "3-1", "65536", "99999999999999", "1;2", ",", "1--2", "٣", 7, "0x1", "1 2"]
)
def test_faulty_ranges(text: object) -> None:
    with pytest.raises(UsageError, match=r"config\.json: place: "):
        scheduling.ranges(text, "place")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"mode": "MPOL_DEFAULT"}, (0,)),
        ({"mode": "MPOL_LOCAL", "nodes": ""}, (4,)),
        ({"mode": "MPOL_PREFERRED"}, (1,)),
        ({"mode": "MPOL_BIND", "nodes": "0-1,3"}, (2, 0, 1, 3, 3)),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "2-3", "flags": ["MPOL_F_STATIC_NODES"]}, (0x8003, 2, 3)),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}, (0x2002, 0, 0)),
        (
            {"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]},
            (0x4006, 0, 0),
        ),
        ({"mode": "MPOL_PREFERRED_MANY", "nodes": "1"}, (5, 1, 1)),
    ],
)
def test_memory_policy(value: dict[str, object], expected: tuple[int, ...]) -> None:
    assert Operation("MEMORY_POLICY", *expected) in scheduled(memoryPolicy=value)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"mode": "MPOL_FAIR"}, "mode"), ({"mode": "MPOL_DEFAULT", "nodes": "0"}, "nodes"),
        ({"mode": "MPOL_BIND"}, "nodes"), ({"mode": "MPOL_BIND", "nodes": "x"}, "nodes"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_X"]}, r"flags\[0\]"), ([1], ""),
    ],
)  # fmt: skip
def test_faulty_memory_policies_are_named(value: object, named: str) -> None:
    with pytest.raises(UsageError, match=r"config\.json: linux\.memoryPolicy\.?" + named):
        scheduled(memoryPolicy=value)


def test_personality(said: list[str]) -> None:
    assert Operation("PERSONALITY", 8) in scheduled(personality={"domain": "LINUX32"})
    assert Operation("PERSONALITY", 0) in scheduled(personality={"domain": "LINUX", "flags": []})
    assert not said
    with pytest.raises(UsageError, match=r"linux\.personality\.flags: .*ADDR_NO_RANDOMIZE"):
        scheduled(personality={"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]})
    with pytest.raises(UsageError, match=r"linux\.personality\.domain"):
        scheduled(personality={"domain": "BSD"})


@pytest.mark.parametrize(
    ("job", "value", "expected"),
    [
        (job_of(), None, []),
        (CREATE, None, [Operation("AFFINITY")]),
        (CREATE, {"initial": "0", "final": "1"}, [Operation("AFFINITY")]),  # not for the first process
        (EXEC, None, [Operation("AFFINITY")]),
        (EXEC, {}, [Operation("AFFINITY")]),
        (EXEC, {"initial": "0", "final": "0-1,3"}, [Operation("AFFINITY", 0, 1, 3, 3)]),
        (EXEC, {"initial": "0"}, []),
        (EXEC, {"final": "5"}, [Operation("AFFINITY", 5, 5)]),
    ],
)
def test_affinity(job: Job, value: object, expected: list[Operation]) -> None:
    assert scheduled(job, execCPUAffinity=value) == expected


def test_the_planner_runs_where_exec_is_to_begin_and_comes_back() -> None:
    before = os.sched_getaffinity(0)
    cpu = min(before)
    kept = process.narrow(made(execCPUAffinity={"initial": f"{cpu}"}))
    try:
        assert os.sched_getaffinity(0) == {cpu}
    finally:
        process.widen(kept)
    assert os.sched_getaffinity(0) == before
    assert process.narrow(made()) == set() == process.narrow(made(execCPUAffinity={"final": "0"}))


# ── limits ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("score", "expected"), [(None, []), (0, ["0"]), (-7, ["-7"]), (1000, ["1000"])])
def test_no_out_of_memory_score_is_not_zero(score: int | None, expected: list[str]) -> None:
    config = made(**({} if score is None else {"oomScoreAdj": score}))
    assert [each.args[0] for each in process.plan_limits(config) if each.kind == "OOM_SCORE"] == expected


def test_limits_of_a_user_namespace_are_the_planners() -> None:
    limits = [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": (1 << 64) - 1}]
    assert process.plan_limits(made(rlimits=limits)) == [Operation("RLIMIT", 7, 10, -1)]
    own = made(namespaces=[*NEW, {"type": "user"}], rlimits=limits)
    assert process.plan_limits(own) == []
    assert process.plan_outside(own)
    assert process.plan_outside(made(namespaces=[{"type": "user"}], oomScoreAdj=0))
    assert not process.plan_outside(made(rlimits=limits))
    assert not process.plan_outside(made(namespaces=[{"type": "user"}]))


# ── who may look at init ───────────────────────────────────────────────────────────────────────────

USER, PID = {"type": "user"}, {"type": "pid"}
OLD_PID, OLD_USER = {"type": "pid", "path": "/x"}, {"type": "user", "path": "/y"}


@pytest.mark.parametrize(
    ("namespaces", "entering", "moment"),
    [
        ([PID], False, "go"),
        ([PID, USER], False, "go"),
        ([], False, "first"),
        ([OLD_PID], False, "first"),
        ([OLD_PID, OLD_USER], False, "first"),
        ([OLD_PID, USER], False, "mapped"),
        ([USER], False, "mapped"),
        ([PID], True, "first"),
        ([PID, USER], True, "first"),
    ],
)
def test_init_is_guarded_once_as_early_as_can_be(
    namespaces: list[dict[str, str]], entering: bool, moment: str
) -> None:
    config = made(namespaces=namespaces)
    found = {
        each: process.plan_guard(config, job_of(entering=entering), each)[:1]
        for each in ("first", "mapped", "go")
    }
    assert found == {each: [Operation("GUARD")] if each == moment else [] for each in found}


def test_a_procfs_is_had_before_it_is_too_late() -> None:
    def kinds(operations: list[Operation]) -> list[str]:
        return [each.kind for each in operations]

    assert kinds(process.plan_session(made(), job_of())) == ["SESSION"]
    assert kinds(process.plan_session(made(oomScoreAdj=1), job_of())) == ["PROCFS", "SESSION"]
    entering = job_of(entering=True)
    assert kinds(process.plan_session(made(oomScoreAdj=1), entering)) == ["SESSION"]
    assert process.plan_guard(made(oomScoreAdj=1), entering, "first")[1:] == [Operation("PROCFS")]
    in_user = made(namespaces=[PID, USER])
    assert process.plan_guard(in_user, entering, "first")[1:] == [Operation("PROCFS", 16)]
    assert entering.descriptors == [("path", ("/proc",))]


# ── session and terminal ───────────────────────────────────────────────────────────────────────────


def test_a_keyring_of_its_own_unless_refused() -> None:
    assert process.plan_session(made(), job_of()) == [Operation("SESSION", 1)]
    assert process.plan_session(made(), job_of(no_new_keyring=True)) == [Operation("SESSION", 0)]


def test_the_keyring_has_the_label_of_the_process() -> None:
    operations = process.plan_session(made(selinuxLabel="a:b:c"), job_of())
    assert operations == [
        Operation("PROCFS"),
        Operation("LABEL", 1, "a:b:c", "keycreate"),
        Operation("SESSION", 1),
        Operation("LABEL", 1, "", "keycreate"),
    ]
    assert process.plan_session(made(selinuxLabel="a:b:c"), job_of(no_new_keyring=True))[1:] == [
        Operation("SESSION", 0)
    ]


@pytest.mark.parametrize(
    ("window", "size", "expected"),
    [
        ((0, 0), None, (0, 0)),
        ((0, 0), {"height": 25, "width": 80}, (25, 80)),
        ((10, 20), {"height": 25, "width": 80}, (10, 20)),
    ],
)
def test_the_size_of_the_terminal(window: tuple[int, int], size: object, expected: tuple[int, int]) -> None:
    config = made(terminal=True, consoleSize=size, user={"uid": 7})
    assert process.plan_session(config, job_of(window=window))[-1] == Operation(
        "TERMINAL", *expected, 7, 1, 1, 0
    )
    born = process.plan_session(config, job_of(window=window, birth=True, entering=True))
    assert born[-1] == Operation("TERMINAL", *expected, 7, 0, 0, 0)
    assert process.plan_session(made(consoleSize=size), job_of(window=window)) == [Operation("SESSION", 1)]


@pytest.mark.parametrize("size", [5, "a", [1], {"height": "x"}, {"height": {}, "width": []}])
def test_a_size_without_a_terminal_is_looked_at_by_nobody(size: object) -> None:
    """It may be anything: neither the config's process nor one that `exec` makes of it has it."""
    assert "consoleSize" not in check.process({"args": ["sh"], "cwd": "/", "consoleSize": size})
    own = made(consoleSize=size)
    executed = exec_._process({"tty": True}, own, ["true"])
    assert prepare.window({"console_socket": "x"}, executed) == (0, 0)


@pytest.mark.parametrize("value", [5, "CAP_KILL", [[1]], [{}], {"a": 1}])
def test_a_capability_set_of_another_name_is_ignored(value: object) -> None:
    config = made(capabilities={"bounding": ["CAP_KILL"], "Bounding": value})
    assert Operation("BOUNDING", mask_of(["CAP_KILL"])) in security.plan(config, CREATE)


# ── privileges ─────────────────────────────────────────────────────────────────────────────────────


def sets(**names: list[str]) -> dict[str, list[str]]:
    return {kind: [f"CAP_{name}" for name in each] for kind, each in names.items()}


def privileges(job: Job | None = None, **fields: Any) -> list[Operation]:
    return security.plan(made(**fields), job or job_of())


def held(operations: list[Operation]) -> list[tuple[object, ...]]:
    return [each.args for each in operations if each.kind in ("BOUNDING", "CAPABILITIES")]


KILL, CHOWN, FOWNER = (mask_of([f"CAP_{name}"]) for name in ("KILL", "CHOWN", "FOWNER"))


@pytest.mark.parametrize(
    ("given", "expected", "told"),
    [
        (None, [(0,), (0, 0, 0, 0)], []),
        ({}, [(0,), (0, 0, 0, 0)], []),
        (sets(bounding=["KILL"], effective=["KILL"], permitted=["KILL", "CHOWN"]),
         [(KILL,), (KILL, KILL | CHOWN, 0, 0)], []),
        (sets(bounding=["KILL"], permitted=["KILL"], inheritable=["KILL"], ambient=["KILL"]),
         [(KILL,), (0, KILL, KILL, KILL)], []),
        (sets(bounding=["KILL"], permitted=["KILL"], ambient=["KILL"]), [(KILL,), (0, KILL, 0, 0)], []),
        (sets(bounding=["KILL", "FLY"], effective=["SWIM"], permitted=[]), [(KILL,), (0, 0, 0, 0)],
         ["ignoring unknown or unavailable capabilities: [CAP_FLY CAP_SWIM]"]),
        (sets(effective=["KILL"]), [(0,), (0, 0, 0, 0)], ["ignoring unknown or unavailable capabilities: [CAP_KILL]"]),
        (sets(inheritable=["KILL"]), [(0,), (0, 0, 0, 0)],
         ["ignoring unknown or unavailable capabilities: [CAP_KILL]"]),
    ],
)  # fmt: skip
def test_capabilities(given: Any, expected: list[tuple[int, ...]], told: list[str], said: list[str]) -> None:
    assert held(privileges(capabilities=given)) == expected
    assert said == told


def test_what_pyrun_does_not_have_is_left_out_with_a_notice(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(capabilities, "available", lambda: ALL & ~mask_of(["CAP_SYS_RESOURCE"]))
    names = ["SYS_RESOURCE", "SYS_TIME"]
    wanted = sets(bounding=names, effective=names, permitted=names)
    both, time = mask_of(wanted["bounding"]), mask_of(["CAP_SYS_TIME"])
    assert held(privileges(capabilities=wanted)) == [(both,), (time, time, 0, 0)]
    assert said == ["ignoring unknown or unavailable capabilities: [CAP_SYS_RESOURCE]"]
    # in a user namespace init has them all
    assert held(security.plan(made([USER], capabilities=wanted), job_of()))[1] == (both, both, 0, 0)


def test_the_usual_capabilities_cost_no_look_at_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "available", lambda: pytest.fail("looked"))
    usual = {kind: list(capabilities.DEFAULT_NAMES) for kind in ("bounding", "effective", "permitted")}
    assert held(privileges(capabilities=usual)) == [(DEFAULT,), (DEFAULT, DEFAULT, 0, 0)]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({}, [Operation("STREAMS", 0), Operation("IDENTITY", 0, 0, 0o022)]),
        ({"umask": 0}, [Operation("STREAMS", 0), Operation("IDENTITY", 0, 0, 0)]),
        ({"uid": 5, "gid": 6, "umask": 0o77, "additionalGids": [7, 8]},
         [Operation("STREAMS", 5), Operation("IDENTITY", 5, 6, 0o77, 7, 8)]),
    ],
)  # fmt: skip
def test_identity(user: dict[str, object], expected: list[Operation]) -> None:
    assert [each for each in privileges(user=user) if each.kind in ("STREAMS", "IDENTITY")] == expected


def test_a_filter_is_loaded_early_with_privilege_or_last_without() -> None:
    job = job_of(seccomp=(5, 4))
    early = privileges(job)
    assert early[:2] == [Operation("STREAMS", 0), Operation("SECCOMP", 5, 4, 0)]
    late = privileges(job, noNewPrivileges=True)
    assert late[-2:] == [Operation("NO_NEW_PRIVILEGES"), Operation("SECCOMP", 5, 4, 1)]


# ── labels ─────────────────────────────────────────────────────────────────────────────────────────


def test_labels_come_before_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "_has_selinux", lambda: True)
    monkeypatch.setattr(security, "_has_apparmor", lambda: True)
    operations = privileges(job_of(seccomp=(5, 4)), selinuxLabel="a:b:c", apparmorProfile="docker-default")
    assert operations[:4] == [
        Operation("LABEL", 0, "a:b:c", "exec"),
        Operation("LABEL", 0, "exec docker-default", "apparmor/exec", "exec"),
        Operation("STREAMS", 0),
        Operation("SECCOMP", 5, 4, 0),
    ]


def test_labels_without_their_module_are_refused_in_runcs_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "_has_selinux", lambda: False)
    monkeypatch.setattr(security, "_has_apparmor", lambda: False)
    with pytest.raises(UsageError, match=r"^apparmor: config provided but apparmor not supported$"):
        privileges(apparmorProfile="x")
    words = r"^selinux label is specified in config, but selinux is disabled or not supported$"
    with pytest.raises(UsageError, match=words):
        privileges(selinuxLabel="x")
    assert not [each for each in privileges(selinuxLabel="", apparmorProfile="") if each.kind == "LABEL"]


HARNESS = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include "init.h"
static char **words;
int sync_fd = -1, filtered;
const char *text_argument(struct plan *plan) { return plan->arguments-- > 0 ? *words++ : ""; }
int64_t number_argument(struct plan *plan) { return atoll(text_argument(plan)); }
char **list_argument(struct plan *plan, int count) {
    char **list = calloc(count + 1, sizeof *list);
    for (int i = 0; i < count; i++) list[i] = (char *)text_argument(plan);
    return list;
}
int send_message(char kind, const char *payload, size_t length, int fd) { return -1; }
int enter_directory(const char *path) { return -1; }
int private_proc(struct plan *plan) { return plan->proc_fd; }
int main(int argc, char **argv) {
    struct plan plan = {.proc_fd = open(argv[1], O_PATH | O_DIRECTORY), .arguments = argc - 2};
    words = argv + 2;
    int status = op_label(&plan);
    printf("%d %s", status, plan.detail);
    return 0;
}
"""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`labelled(directory, *arguments)`: op_label itself, with *directory* in place of init's procfs. magic: what tells
    a procfs, by default the file system of *directory*; before: words in front of the command.

    AppArmor is not in every kernel, this way its file need not be there: files of the same names are.
    """
    scratch = tmp_path_factory.mktemp("harness")
    (scratch / "harness.c").write_text(HARNESS)

    def call(directory: Path, *arguments: str, magic: str = "", before: tuple[str, ...] = ()) -> str:
        found = (
            magic
            or "0x"
            + subprocess.run(
                ["stat", "-f", "-c", "%t", str(directory)], capture_output=True, text=True, check=True
            ).stdout.strip()
        )
        program = scratch / f"harness-{found}"
        if not program.exists():
            command = [
                build_backend.c_compiler(),
                f"-DPROCFS_MAGIC={found}",
                f"-I{CSRC}",
                "-w",
                "-o",
                str(program),
            ]
            subprocess.run([*command, str(scratch / "harness.c"), str(CSRC / "init_security.c")], check=True)
        done = subprocess.run(
            [*before, str(program), str(directory), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout

    return call


def attributes(tmp_path: Path, *names: str) -> Path:
    for name in names:
        path = tmp_path / "self/attr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path


PROFILE = ("0", "exec docker-default", "apparmor/exec", "exec")


def test_a_profile_goes_into_apparmors_own_file(labelled: Any, tmp_path: Path) -> None:
    directory = attributes(tmp_path, "apparmor/exec", "exec")
    assert labelled(directory, *PROFILE) == "0 apparmor/exec"
    assert (directory / "self/attr/apparmor/exec").read_text() == "exec docker-default"
    assert (directory / "self/attr/exec").read_text() == ""


def test_a_profile_goes_into_the_shared_file_of_older_kernels(labelled: Any, tmp_path: Path) -> None:
    directory = attributes(tmp_path, "exec")
    assert labelled(directory, *PROFILE) == "0 exec"
    assert (directory / "self/attr/exec").read_text() == "exec docker-default"


def test_a_label_that_cannot_be_written_is_an_error_unless_optional(labelled: Any, tmp_path: Path) -> None:
    directory = attributes(tmp_path, "other")
    assert labelled(directory, *PROFILE) == f"{-errno.ENOENT} exec"
    assert labelled(directory, "1", "label", "keycreate") == "0 keycreate"


def test_half_a_label_is_none(labelled: Any, tmp_path: Path) -> None:
    directory = attributes(tmp_path, "exec")
    assert labelled(directory, *PROFILE, before=("prlimit", "--fsize=5")) == f"{-errno.EIO} exec"


def test_a_label_is_written_to_nothing_but_a_procfs(labelled: Any, tmp_path: Path) -> None:
    """CVE-2019-16884: files that only look like it; the real magic number refuses them. A link neither."""
    directory = attributes(tmp_path, "exec")
    assert labelled(directory, *PROFILE, magic="0x9fa0") == f"{-errno.EXDEV} exec"
    assert (directory / "self/attr/exec").read_text() == ""
    (directory / "self/attr/exec").unlink()
    (directory / "self/attr/exec").symlink_to(directory / "self/attr/elsewhere")
    (directory / "self/attr/elsewhere").write_text("")
    assert labelled(directory, *PROFILE) == f"{-errno.ELOOP} exec"


# ── the program ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        (None, DEFAULT_PATH), ([], DEFAULT_PATH), (["A=b"], DEFAULT_PATH),
        (["PATH=/a", "PATH=/b:/c"], "/b:/c"), (["PATH="], ""),
    ],
)  # fmt: skip
def test_where_the_program_is_looked_for(environment: object, path: str) -> None:
    sets = {
        "effective": ["CAP_KILL", "CAP_DAC_OVERRIDE", "CAP_NEW"],
        "permitted": ["CAP_DAC_OVERRIDE", "CAP_NEW"],
    }
    config = made(env=environment, user={"uid": 1, "gid": 2, "additionalGids": [3]}, capabilities=sets)
    assert process.plan_look_up(config, CREATE) == [Operation("LOOK_UP", "sh", 1, 2, 1 << 1, path, 3)]
    del config["process"]["capabilities"]  # type: ignore[attr-defined]
    assert process.plan_look_up(config, CREATE)[0].args[3] == 0


@pytest.mark.parametrize(
    ("kind", "command", "number", "detail", "words", "status"),
    [
        ("LOOK_UP", "nosuch", errno.ENOENT, "$PATH", 'exec: "nosuch": executable file not found in $PATH', 127),
        ("LOOK_UP", "/nosuch", errno.ENOENT, "stat",
         'exec: "/nosuch": stat /nosuch: no such file or directory', 127),
        ("LOOK_UP", "/etc/passwd/x", errno.ENOTDIR, "stat",
         'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory', 127),
        ("LOOK_UP", "/etc/passwd", errno.EACCES, "", 'exec: "/etc/passwd": permission denied', 126),
        ("LOOK_UP", "/etc", errno.EISDIR, "", 'exec: "/etc": is a directory', 126),
        ("LOOK_UP", "x", errno.EACCES, ".",
         'exec: "x": cannot run executable found relative to current directory', 126),
        ("LOOK_UP", 'a"\\\n\x01\udcff\u00e9\u2028', errno.ENOENT, "$PATH",
         'exec: "a\\"\\\\\\n\\x01\\xff\u00e9\\u2028": executable file not found in $PATH', 127),
        ("LOOK_UP", "", errno.ENOENT, "$PATH", 'exec: "": executable file not found in $PATH', 127),
        ("EXECUTE", "x", errno.ENOEXEC, "/bin/x", "exec /bin/x: exec format error", 126),
        ("EXECUTE", "x", errno.ENOENT, "/bin/x", "exec /bin/x: no such file or directory", 127),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_had_in_runcs_words(
    kind: str, command: str, number: int, detail: str, words: str, status: int
) -> None:
    error = command_error(Operation(kind, command, 0, 0, "/bin"), number, detail)
    assert isinstance(error, CommandError)
    assert (error.message, error.status) == (words, status)


# ── explained ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (Operation("GUARD"), "keep processes in the container from tracing this one"),
        (Operation("SCHEDULER", 1, 0, 9, 1, 0, 0, 0), "be scheduled as fifo, priority 9, flags 0x1"),
        (Operation("SCHEDULER", 3, 5, 0, 0, 0, 0, 0), "be scheduled as batch, nice 5"),
        (Operation("SCHEDULER", 6, 0, 0, 0, 1, 2, 3), "deadline, runtime 1 ns, deadline 2 ns, period 3 ns"),
        (Operation("IO_PRIORITY", 0x4003), "have the I/O priority best-effort 3"),
        (Operation("AFFINITY"), "run on every processor"),
        (Operation("AFFINITY", 0, 1, 3, 3), "run on the processors 0-1,3"),
        (Operation("MEMORY_POLICY", 0x8003, 2, 3), "by the policy interleave from the nodes 2-3"),
        (Operation("PERSONALITY", 8), "have the personality 8"),
        (Operation("LABEL", 0, "exec x", "apparmor/exec", "exec"), "label the program exec x"),
        (Operation("LABEL", 1, "", "keycreate"), "label the next key as usual"),
        (Operation("LOOK_UP", "sh", 5, 6, 0, "/bin:/x"), "look for the program sh in /bin:/x, as user 5"),
        (Operation("STREAMS", 5), "give user 5 the pipes among standard input, output and error"),
        (Operation("PROCFS"), "open a /proc of its own"),
        (Operation("PROCFS", 16), "open a /proc of its own"),
        (Operation("SESSION", 0), "begin a session of its own"),
        (Operation("SESSION", 1), "begin a session and a keyring of its own"),
        (
            Operation("SESSION", 1, "_ses.c1"),
            "begin a session of its own, with the container's keyring _ses.c1",
        ),
        (Operation("SECCOMP", 5, 4, 0), "load the system call filter"),
        (
            Operation("SECCOMP", 5, 12, 1),
            "just before the command is executed, and hand its listener to the seccomp agent",
        ),
    ],
)
def test_every_operation_says_what_it_is(operation: Operation, said: str) -> None:
    sentence, shell, see = explain(operation)
    assert said in sentence
    assert "\n" not in sentence + shell + see


@pytest.mark.parametrize(
    ("scheduler", "late"),
    [
        ({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3}, True),
        ({"policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, True),
        ({"policy": "SCHED_FIFO", "priority": 1}, False),
    ],
)
def test_what_a_child_does_not_inherit_comes_after_its_birth(scheduler: object, late: bool) -> None:
    def kinds(operations: list[Operation]) -> list[str]:
        return [each.kind for each in operations]

    config = made(scheduler=scheduler, ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 1})
    before = process.plan_scheduling(config, job_of(birth=True))
    assert kinds(before) == (["IO_PRIORITY"] if late else ["SCHEDULER", "IO_PRIORITY"])
    assert kinds(process.plan_scheduling(config, job_of(birth=True), born=True)) == (
        ["SCHEDULER"] if late else []
    )
    assert kinds(process.plan_scheduling(config, job_of())) == ["SCHEDULER", "IO_PRIORITY"]
    assert kinds(process.plan_birth(config, job_of(birth=True))) == [
        "BIRTH",
        *(["SCHEDULER"] if late else []),
    ]


# ── namespaces ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("owned", [True, False])
def test_joined_namespaces_are_entered_the_mount_namespace_last(
    monkeypatch: pytest.MonkeyPatch, owned: bool
) -> None:
    """Paths are the host's. Of the pid and the user namespace below. What root of the user namespace has no rights over
    init is born in."""
    monkeypatch.setattr(namespaces, "_rules", lambda user, path, kind: owned or kind == "ipc")
    joined = [{"type": kind, "path": f"/ns/{kind}"} for kind in ("mount", "pid", "network", "user", "ipc")]
    config, job = made([*joined, {"type": "uts"}, {"type": "cgroup"}, {"type": "time"}]), job_of()
    entered = namespaces.plan_joined(config, job)
    late = ("network", "ipc", "mount") if owned else ("ipc", "mount")
    assert [each.kind for each in entered] == ["ENTER"] * len(late)
    assert [each.args[1] for each in entered] == [namespaces.FLAGS[each] for each in late]
    assert job.descriptors == [("namespace", (f"/ns/{kind}", kind)) for kind in late]
    assert namespaces.born_in(config) == ([] if owned else ["network"])
    assert namespaces.made(config) == ["uts", "cgroup", "time"]
    assert namespaces.path_of(config, "network") == "/ns/network" and namespaces.path_of(config, "uts") == ""
    assert [each.args for each in namespaces.plan_cgroup(config)] == [(namespaces.FLAGS["cgroup"],)]
    assert namespaces.plan_cgroup(made([{"type": "cgroup", "path": "/x"}])) == []


@pytest.mark.parametrize("owned", [True, False])
def test_a_pid_namespace_that_its_user_namespace_owns_is_entered_late(
    monkeypatch: pytest.MonkeyPatch, owned: bool
) -> None:
    """Before the hooks only where there is no right to it later."""
    monkeypatch.setattr(namespaces, "_rules", lambda user, path, kind: owned)
    config = made([{"type": "pid", "path": "/p"}, {"type": "user", "path": "/u"}, {"type": "uts"}])
    first, late = namespaces.plan_pid(config, job_of()), namespaces.plan_pid_entered(config, job_of())
    assert [each.kind for each in first] == ["PID_NAMESPACE", "ENTER", "UNSHARE"]
    assert first[0].args[1] == int(not owned) and first[2].args == (namespaces.FLAGS["uts"],)
    assert [each.args[1] for each in late] == ([namespaces.FLAGS["pid"]] if owned else [])
    assert namespaces.clone_flags(config) == 0


def test_a_new_user_namespace_beside_a_joined_pid_namespace_is_made_by_init() -> None:
    config = made([{"type": "pid", "path": "/p"}, {"type": "user"}, {"type": "cgroup"}])
    first = namespaces.plan_pid(config, job_of())
    assert [each.args[-1] for each in first] == [1, namespaces.FLAGS["user"]]
    assert namespaces.clone_flags(config) == 0 and not namespaces.plan_pid_entered(config, job_of())
    alone = made([{"type": "pid", "path": "/p"}, {"type": "uts"}])
    assert namespaces.clone_flags(alone) == namespaces.FLAGS["uts"]
    assert [each.args[1] for each in namespaces.plan_pid(alone, job_of())] == [0]


# ── hooks ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "status"), [("createContainer", "creating"), ("startContainer", "created")])
def test_a_hook_that_init_runs(kind: str, status: str) -> None:
    """Its state is written where its pid is known, between two pieces; without args its path is its first word."""
    given = [{"path": "/bin/a"}, {"path": "/bin/b", "args": ["b", "1"], "env": ["X=y"], "timeout": 4}]
    config = made(env=["PATH=/inside"]) | {
        "hooks": {kind: given, "poststop": [{"path": "/no"}]},
        "annotations": {"k": str(hooks._PID)},
    }
    job = job_of(bundle="/bundle", root="/bundle/rootfs")
    first, second = hooks.plan(config, job, kind)
    assert (first.kind, first.args[:2], first.args[5:7]) == ("HOOK", ("/bin/a", 0), (1, "/bin/a"))
    names = {str(each).partition("=")[0] for each in first.args[7:]}
    assert "PATH" in names and names <= {*hooks.INHERITED}
    assert ("PATH=/inside" in first.args) is (kind == "startContainer")
    assert (second.args[:2], second.args[5:]) == (("/bin/b", 4), (2, "b", "1", "X=y"))
    assert second.args[2] == ("/bundle/rootfs" if kind == "createContainer" else ""), "where it runs"
    state = json.loads(f"{second.args[3]}77{second.args[4]}")
    assert (state["id"], state["pid"], state["status"], state["bundle"]) == ("c1", 77, status, "/bundle")
    assert state["annotations"] == {"k": str(hooks._PID)}
    assert hooks.plan(made(), job, kind) == []
