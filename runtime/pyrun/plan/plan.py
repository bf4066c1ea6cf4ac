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

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.plan.job import Job
    from pyrun.spec.oci import Config


def compose(config: Config, job: Job) -> list[Operation]:
    """The operations init executes for *config*."""
    early, kept = job.early, rootfs.kept(config, job)
    mounted, late = mounts.plan(config, job, kept)
    return [
        *process.plan_guard(config, job, "first"),
        *namespaces.plan_pid(config, job),
        *([Operation("WAIT_GO")] if early else []),
        *cgroup.plan(job),
        *(namespaces.plan_root_identity(config) if early else []),
        *process.plan_guard(config, job, "mapped"),
        *namespaces.plan_joined(config, job),
        *namespaces.plan_cgroup(config),
        *rootfs.plan_root(config, job),
        *rootfs.plan_volumes(config, job, kept),
        *mounted,
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
        *rootfs.plan_pivot(config, job, late),
        *process.plan_limits(config),
        *process.plan_scheduling(config, job),
        *process.plan_directory(config),
        *process.plan_look_up(config, job),
        *namespaces.plan_pid_entered(config, job),
        *(process.plan_start(job) if job.start_early else []),
        *security.plan(config, job),
        *plan_command(config, job, hooks.plan(config, job, "startContainer")),
    ]


def plan_command(config: Config, job: Job, before: list[Operation]) -> list[Operation]:
    """What is left when every privilege is gone: the birth, the wait for `start`, what comes *before* the command.

    `create` waits here and not earlier: meanwhile others may enter its pid namespace, and they must find nothing there
    that the container has not. Only where the filter forbids waiting it waits before that one is loaded (start_early),
    and `exec` is refused.
    """
    preserve = plan_preserved(job)
    return [
        *process.plan_birth(config, job),
        *([] if job.start_early else process.plan_start(job)),
        *before,
        *preserve,
        *process.plan_execute(config, job),
    ]


def without_ipv6(operations: list[Operation], interfaces: list[str]) -> None:
    """Have init switch IPv6 off for *interfaces*, which the planner brings meanwhile: at once for those that come, and
    when they are there for one that came before that."""
    if interfaces:
        last_wait = max(index for index, each in enumerate(operations) if each.kind == "WAIT_GO")
        operations.insert(last_wait + 1, Operation("NO_IPV6", *interfaces))
        operations.insert(0, Operation("NO_IPV6"))


def plan_preserved(job: Job) -> list[Operation]:
    """LISTEN_FDS and --preserve-fds: job.preserve of the caller's descriptors, from 3 on.

    Notes job.preserved, (our descriptor, its number in init): the numbers after all others.
    """
    if not job.preserve:
        return []
    first = FIRST_PASSED + len(job.descriptors)
    job.preserved = [(3 + index, first + index) for index in range(job.preserve)]
    return [Operation("PRESERVE", first, job.preserve)]


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
