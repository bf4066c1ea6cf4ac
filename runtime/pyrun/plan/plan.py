"""The recipe inside: which stage adds its operations when, and how a plan is written down for init.

Everything before WAIT_GO is done while the planner sets up the network; everything after it in the order
the kernel's rules ask for: pivot before the root turns read-only, seccomp while it may still be loaded,
identity before capabilities, execve last. The format is that of csrc/init.c: strings, each ended by a NUL.
"""

from __future__ import annotations

from pyrun import linux
from pyrun.errors import UsageError
from pyrun.stages import cgroup, hooks, mounts, namespaces, process, rootfs, security

from .operations import FIRST_PASSED, Operation


def compose(config: dict[str, object], job: dict[str, object]) -> list[Operation]:
    """The operations init executes for *config*. job: see stages/__init__.py."""
    early = job.get("early")
    return [
        *process.plan_guard(config, job, "first"),
        *([Operation("WAIT_GO")] if early else []),
        *cgroup.plan(job),
        *(namespaces.plan_root_identity(config) if early else []),
        *process.plan_guard(config, job, "mapped"),
        *namespaces.plan_joined(config, job),
        *namespaces.plan_cgroup(config),
        *rootfs.plan_root(config, job),
        *(rootfs.plan_volumes(config, job) if job.get("volumes") else []),
        *mounts.plan(config, job),
        *rootfs.plan_devices(config),
        *process.plan_session(config, job),
        *rootfs.plan_hidden(config),
        *process.plan_directory_made(config),
        *namespaces.plan_names(config),
        *namespaces.plan_sysctls(config, of_links=False),
        *namespaces.plan_loopback(job),
        Operation("WAIT_GO"),
        *process.plan_guard(config, job, "go"),
        *namespaces.plan_sysctls(config, of_links=True),
        *hooks.plan(config, job, "createContainer"),
        *rootfs.plan_pivot(config, job),
        *process.plan_limits(config),
        *process.plan_scheduling(config, job),
        *process.plan_directory(config),
        *_until_start(config, job),
        *security.plan(config, job),
        *hooks.plan(config, job, "startContainer"),
        *plan_preserved(job),
        *process.plan_execute(config, job),
    ]


def without_ipv6(operations: list[Operation], wired: dict[str, object]) -> None:
    """Have init switch IPv6 off for the network plan's "no_ipv6", interfaces that the planner brings meanwhile: at once
    for those that come, and when they are there for one that came before that."""
    interfaces = wired["no_ipv6"]
    if isinstance(interfaces, list) and interfaces:
        last_wait = max(index for index, each in enumerate(operations) if each.kind == "WAIT_GO")
        operations.insert(last_wait + 1, Operation("NO_IPV6", *interfaces))
        operations.insert(0, Operation("NO_IPV6"))


def _until_start(config: dict[str, object], job: dict[str, object]) -> list[Operation]:
    """`pyrun-oci`: what can be known now is found out now; `create` then waits."""
    look_up = process.plan_look_up(config) if job.get("oci") else []
    number = job.get("start_fd")
    return [*look_up, Operation("START", number)] if isinstance(number, int) else look_up


def plan_preserved(job: dict[str, object]) -> list[Operation]:
    """LISTEN_FDS and --preserve-fds: job["preserve"] of the caller's descriptors, from 3 on.

    Notes job["preserved"], (our descriptor, its number in init): the numbers after all others.
    """
    count, passed = job.get("preserve"), job.get("descriptors")
    if not isinstance(count, int) or not count:
        return []
    first = FIRST_PASSED + (len(passed) if isinstance(passed, list) else 0)
    job["preserved"] = [(3 + index, first + index) for index in range(count)]
    return [Operation("PRESERVE", first, count)]


def encode(operations: list[Operation]) -> bytes:
    """The plan as init reads it: number, count of arguments, arguments."""
    numbers = linux.lib
    parts: list[str] = []
    for operation in operations:
        parts.append(str(getattr(numbers, "OP_" + operation.kind)))
        parts.append(str(len(operation.args)))
        parts.extend([str(item) for item in operation.args])
    parts.append("")
    text = "\0".join(parts)
    if text.count("\0") != len(parts) - 1:  # the rest of that string would be read as an operation
        wrong = next(each for each in operations if any("\0" in str(item) for item in each.args))
        raise UsageError(
            f"a NUL byte in what {wrong.kind.lower()} is to get", "strings of the kernel end at one"
        )
    return text.encode("utf-8", "surrogateescape")
