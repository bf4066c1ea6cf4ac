"""init executing the plan of a process section: what `create`, `start` and `exec` plan of it, without the rest.

The root is an empty directory with the host's programs bound in, in mount, pid and ipc namespaces of its own; call
`run` in a forked child (`sandbox_fork`), whose mount namespace is private.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jobs import job_of
from pyrun import handshake, linux
from pyrun.plan.job import Job
from pyrun.plan.operations import Operation
from pyrun.plan.plan import encode
from pyrun.stages import process, security

NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC
FD_SECCOMP = 5
ALL_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


class Report(NamedTuple):
    """What became of it. failed: (operation index, errno, detail) or None; output: of its standard output and error."""

    ready: bool
    failed: tuple[int, int, str] | None
    status: int
    output: str


def config(script: str = "true", **fields: Any) -> dict[str, Any]:
    """A config.json with nothing but a process, which runs *script*; `linux_...` fields go to its linux section."""
    section = {key.removeprefix("linux_"): value for key, value in fields.items() if key.startswith("linux_")}
    own = {key: value for key, value in fields.items() if not key.startswith("linux_")}
    return {
        "process": {"args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/usr/bin:/bin"], **own},
        "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc")], **section},
    }


def operations(wanted: dict[str, Any], root: Path, job: Job, *before_security: Operation) -> list[Operation]:
    """The plan, in the order of plan.compose."""
    root.mkdir(exist_ok=True)
    programs = [f"/{name}" for name in ("usr", "bin", "lib", "lib64", "etc") if Path("/", name).exists()]
    return [
        *process.plan_guard(wanted, job, "first"),
        Operation("PROPAGATION", linux.MS_PRIVATE),
        Operation("ROOT_BIND", str(root)),
        *(Operation("BIND", path, path, 1, 1, 0) for path in programs),
        Operation("MOUNT", "/proc", "proc", "proc", 0, ""),
        *process.plan_session(wanted, job),
        Operation("WAIT_GO"),
        *process.plan_guard(wanted, job, "go"),
        Operation("PIVOT"),
        *process.plan_limits(wanted),
        *process.plan_scheduling(wanted, job),
        *process.plan_directory(wanted),
        *process.plan_look_up(wanted, job_of(oci=True, entering=job.entering)),
        *before_security,
        *security.plan(wanted, job),
        *process.plan_execute(wanted, job),
    ]


def run(
    binary: str,
    plan: list[Operation],
    keep: list[tuple[int, int]] | None = None,
    listener: Callable[[Any, int, tuple[int, int]], None] | None = None,
    flags: int = NAMESPACES,
) -> Report:
    """Execute *plan*. keep: further (our descriptor, its number in init); listener: called for SCMP_ACT_NOTIFY."""
    binary_fd = linux.open_tree(linux.AT_FDCWD, binary, linux.OPEN_TREE_CLONE)
    plan_fd = os.memfd_create("plan")
    os.write(plan_fd, encode(plan))
    ours, theirs = handshake.pair()
    reading_fd, writing_fd = os.pipe()
    streams = [(writing_fd, 1), (writing_fd, 2), (plan_fd, 3), (theirs, 4)]
    pid, pidfd = linux.clone_exec(flags, -1, binary_fd, "pyrun-init", [*(keep or []), *streams])
    for fd in (writing_fd, plan_fd, binary_fd, theirs):
        os.close(fd)
    outcome = handshake.Outcome()
    if listener:
        outcome.listener = lambda sync_fd, number: listener(sync_fd, number, (pid, pidfd))
    handshake.go(ours, pid)
    try:
        handshake.wait(ours, outcome)
    except BaseException:
        linux.pidfd_send_signal(pidfd, linux.SIGKILL)
        raise
    with os.fdopen(reading_fd, "rb") as stream:
        output = stream.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(pidfd)
    return Report(outcome.ready, outcome.failed, status, output)


def execute(binary: str, root: Path, wanted: dict[str, Any], job: Job | None = None, **more: Any) -> Report:
    """Plan and execute in one."""
    return run(binary, operations(wanted, root, job or job_of()), **more)
