"""One more process in a running container: what `pyrun exec` and `pyrun-oci exec` share.

The planner enters the pid namespace (so that its child is born there), init enters the others through one
pidfd, joins the cgroups first and takes on identity, capabilities and seccomp last. With a user namespace a helper
of the shim's enters both: whoever is in one does not come back. No Python and no descriptor of the host's enters the
container (CVE-2016-9962, CVE-2024-21626). Source: man 2 setns, man 2 pidfd_open.
"""

from __future__ import annotations

import posix
from errno import EBUSY

from pyrun import caller, handshake, launch, linux, verdict
from pyrun.errors import Conflict, EndedSilently, PyrunError, StageFailed
from pyrun.plan.operations import Operation
from pyrun.plan.plan import plan_preserved
from pyrun.spec import seccomp
from pyrun.stages import cgroup, namespaces, process, security
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable

CHILD_FD_CONTAINER = 6
_PATIENCE_MS = 200  # a container's namespaces and cgroups go a moment before it counts as ended


class Entered:
    """A process in the container. operations: its plan; outcome: what its init reported."""

    __slots__ = ("operations", "outcome", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int, operations: list[Operation]) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.operations = operations
        self.outcome = handshake.Outcome()


def enter(
    config: dict[str, object],
    job: dict[str, object],
    binary_fd: int,
    container_fd: int,
    keep: list[tuple[int, int]],
    listener: Callable[[int, int, Entered], None] | None = None,
) -> Entered:
    """Start config["process"] in the container of the pidfd *container_fd*; returns once it is executing.

    job: id, cgroups, hierarchies, namespaces (kinds), entering, window, no_seccomp, preserve, keyring, rdt; reference:
    what the user calls the container, if not id. listener: for SCMP_ACT_NOTIFY, see engine/oci/seccomp_agent.py. Raises
    what init failed with; Conflict if that is the container's end.
    """
    try:
        return _enter(config, job, binary_fd, container_fd, keep, listener)
    except (StageFailed, EndedSilently) as error:
        entered = isinstance(error, StageFailed) and error.stage not in ("namespaces", "cgroup")
        if _has_ended(container_fd, 0 if entered else _PATIENCE_MS):
            raise not_running(job) from None
        if isinstance(error, EndedSilently) and job.get("oci"):
            raise verdict.silent(config) from None
        raise


def not_running(job: dict[str, object]) -> Conflict:
    """The error for a container that has stopped. job: oci, id, reference."""
    if job.get("oci"):
        return Conflict("cannot exec in a stopped container")
    reference = job.get("reference") or job["id"]
    return Conflict(f"container {reference} is not running", "`pyrun ps -a` tells what became of it", 1)


def _has_ended(container_fd: int, patience_ms: int) -> bool:
    import select

    poll = select.poll()
    poll.register(container_fd, select.POLLIN)
    return bool(poll.poll(patience_ms))


def _enter(
    config: dict[str, object],
    job: dict[str, object],
    binary_fd: int,
    container_fd: int,
    keep: list[tuple[int, int]],
    listener: Callable[[int, int, Entered], None] | None,
) -> Entered:
    caller.only_here(process.narrows(config))
    operations, passed = _planned(config, job)
    ours, theirs = handshake.pair()
    standing = [*keep, (container_fd, CHILD_FD_CONTAINER), (theirs, launch.FD_SYNC)]
    preserved = job.get("preserved")
    standing += preserved if isinstance(preserved, list) else []
    processors = process.narrow(config)
    pid, pidfd = _born(job, binary_fd, container_fd, standing + passed)
    process.widen(processors)
    for fd in (theirs, *[fd for fd, _ in passed]):
        posix.close(fd)
    entered = Entered(pid, pidfd, operations)
    caller.heed()
    if listener:
        entered.outcome.listener = lambda sync, number: listener(sync, number, entered)
    try:
        if _waits(config, job):
            _outside(config, job, pid)
            handshake.go(ours, pid)
        handshake.wait(ours, entered.outcome)
        verdict.judge(operations, entered.outcome, job)
    except PyrunError:
        abandon(entered)
        raise
    return entered


def abandon(entered: Entered) -> None:
    """End the process: nobody is going to hear of it."""
    linux.pidfd_send_signal(entered.pidfd, linux.SIGKILL)
    caller.reap(entered.pid, entered.pidfd)


def _planned(
    config: dict[str, object], job: dict[str, object]
) -> tuple[list[Operation], list[tuple[int, int]]]:
    """The plan, and the descriptors made for it alone."""
    seccomp_fd = _seccomp(config, job)
    operations = _operations(config, job)
    passed = launch.opened(job)
    passed.append((launch.plan_file(operations), launch.FD_PLAN))
    if seccomp_fd >= 0:
        passed.append((seccomp_fd, launch.CHILD_FD_SECCOMP))
    return operations, passed


def note_unit(job: dict[str, object], container: dict[str, object]) -> None:
    """A user may not move a process into the container's scope from just anywhere: then systemd is asked to, see
    job["unit"]."""
    groups, hierarchies = job["cgroups"], job["hierarchies"]
    if not container.get("unit") or not groups or not hierarchies or not paths.is_user():
        return
    from pyrun.cgroups import rootless

    assert isinstance(groups, list) and isinstance(hierarchies, list)
    if not rootless.may_use(groups[0][1], hierarchies[0]):
        job["unit"] = container["unit"]


def _waits(config: dict[str, object], job: dict[str, object]) -> bool:
    return process.needs_outside(config) or bool(job.get("unit") or job.get("rdt"))


def _outside(config: dict[str, object], job: dict[str, object], pid: int) -> None:
    process.outside(config, pid)
    if job.get("unit"):
        from pyrun.cgroups import systemd

        systemd.attach(job, pid)
    if isinstance(found := job.get("rdt"), dict):
        from pyrun.cgroups import rdt

        rdt.enter(found, pid)


def _kinds(job: dict[str, object]) -> list[str]:
    kinds = job["namespaces"]
    return kinds if isinstance(kinds, list) else []


def _born(
    job: dict[str, object], binary_fd: int, container_fd: int, keep: list[tuple[int, int]]
) -> tuple[int, int]:
    """(pid, pidfd) of init in the container's pid namespace."""
    kinds = _kinds(job)
    user_fd = container_fd if "user" in kinds else -1
    pid_fd = container_fd if "pid" in kinds else -1
    enter = []
    if user_fd >= 0 and "time" in kinds:
        # the planner made it: from inside the user namespace it cannot be joined
        enter.append((container_fd, linux.CLONE_NEWTIME))
    if user_fd < 0 and pid_fd >= 0:
        enter.append((pid_fd, linux.CLONE_NEWPID))
    try:
        try:
            return _cloned(job, binary_fd, keep, user_fd, pid_fd, enter)
        except OSError as error:
            if error.errno != EBUSY:
                raise
        from pyrun.cgroups import processes

        # the container's own init has moved its processes down, to hand controllers to them
        job["cgroups"] = processes.entrance(job["cgroups"], int(str(job["pid"])))  # type: ignore[arg-type]
        return _cloned(job, binary_fd, keep, user_fd, pid_fd, enter)
    except OSError as error:
        raise StageFailed("namespaces", "enter those of the container", error.errno) from None


def _cloned(
    job: dict[str, object],
    binary_fd: int,
    keep: list[tuple[int, int]],
    user_fd: int,
    pid_fd: int,
    enter: list[tuple[int, int]],
) -> tuple[int, int]:
    """Nobody in the container may look into the process that enters it, so that one hides."""
    group_fd = launch.cgroup_fd(job)
    try:
        return caller.clone_exec(0, group_fd, binary_fd, keep, user_fd, pid_fd, enter=enter, hide=True)
    finally:
        if group_fd >= 0:
            posix.close(group_fd)


def _operations(config: dict[str, object], job: dict[str, object]) -> list[Operation]:
    flags, kinds = 0, _kinds(job)
    for kind in kinds:
        if kind not in ("pid", "user") and not (kind == "time" and "user" in kinds):
            flags |= namespaces.FLAGS[kind]
    return [
        *process.plan_guard(config, job, "first"),
        *([Operation("WAIT_GO")] if _waits(config, job) else []),
        *cgroup.plan(job),
        *([Operation("ENTER", CHILD_FD_CONTAINER, flags)] if flags else []),
        *process.plan_session(config, job),
        *process.plan_limits(config),
        *process.plan_scheduling(config, job),
        *process.plan_directory(config),
        *(process.plan_look_up(config) if job.get("oci") else []),
        *security.plan(config, job),
        *plan_preserved(job),
        *process.plan_execute(config, job),
    ]


def _seccomp(config: dict[str, object], job: dict[str, object]) -> int:
    """The program the container itself runs under: a descriptor, or -1."""
    filter_ = None if job.get("no_seccomp") else seccomp.of_config(config)
    if filter_ is None:
        return -1
    job["seccomp"] = (launch.CHILD_FD_SECCOMP, filter_[1])
    return posix.open(filter_[0], posix.O_RDONLY | posix.O_CLOEXEC)
