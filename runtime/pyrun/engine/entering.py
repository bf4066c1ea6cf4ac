"""One more process in a running container: what `pyrun exec` and `pyrun-oci exec` share.

init joins the cgroups, enters all namespaces through one pidfd and takes on identity, capabilities and seccomp while it
cannot be seen inside, since it is in the host's pid namespace still. The command is its child, born in the container's
with nothing that the container has not (birth.py). No Python and no descriptor of the host's enters the container
(CVE-2016-9962, CVE-2024-21626). Source: man 2 setns, man 2 pidfd_open.
"""

from __future__ import annotations

import posix
from errno import EBUSY

from pyrun import birth, handshake, launch, launching, linux, verdict
from pyrun.errors import Conflict, EndedSilently, PyrunError, StageFailed
from pyrun.plan.operations import Operation
from pyrun.plan.plan import plan_command
from pyrun.spec import seccomp
from pyrun.stages import cgroup, namespaces, process, security
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.plan.job import Job
    from pyrun.spec.oci import Config

CHILD_FD_CONTAINER = 6
_PATIENCE_MS = 200  # a container's namespaces and cgroups go a moment before it counts as ended


class Entered:
    """A process in the container. Until its birth (None where init becomes it) pid and pidfd are init's.

    operations: its plan; sync: who tells of it; outcome: what was told.
    """

    __slots__ = ("birth", "operations", "outcome", "pid", "pidfd", "sync")

    def __init__(self, operations: list[Operation], sync: int, born: birth.Birth | None) -> None:
        self.pid = self.pidfd = -1
        self.operations = operations
        self.sync = sync
        self.birth = born
        self.outcome = handshake.Outcome()


def enter(
    config: Config,
    job: Job,
    binary_fd: int,
    container_fd: int,
    keep: list[tuple[int, int]],
    listener: Callable[[int, int, Entered], None] | None = None,
) -> Entered:
    """Start config["process"] in the container of the pidfd *container_fd*; returns once it is executing.

    listener: for SCMP_ACT_NOTIFY, see engine/oci/seccomp_agent.py. Raises what init failed with; Conflict if that is
    the container's end.
    """
    try:
        return _enter(config, job, binary_fd, container_fd, keep, listener)
    except (StageFailed, EndedSilently) as error:
        entered = isinstance(error, StageFailed) and error.stage not in ("namespaces", "cgroup")
        if _has_ended(container_fd, 0 if entered else _PATIENCE_MS):
            raise not_running(job.reference, oci=job.oci) from None
        if isinstance(error, EndedSilently) and job.oci:
            raise verdict.silent(config) from None
        raise


def not_running(reference: str, *, oci: bool = False) -> Conflict:
    """The error for a container that has stopped. reference: what the user calls it."""
    if oci:
        return Conflict("cannot exec in a stopped container")
    return Conflict(f"container {reference} is not running", "`pyrun ps -a` tells what became of it", 1)


def _has_ended(container_fd: int, patience_ms: int) -> bool:
    import select

    poll = select.poll()
    poll.register(container_fd, select.POLLIN)
    return bool(poll.poll(patience_ms))


def _enter(
    config: Config,
    job: Job,
    binary_fd: int,
    container_fd: int,
    keep: list[tuple[int, int]],
    listener: Callable[[int, int, Entered], None] | None,
) -> Entered:
    launching.process.only_here(process.narrows(config))
    job.birth = "pid" in job.namespaces
    operations, passed = _planned(config, job)
    ours, theirs = handshake.pair()
    entered = Entered(operations, ours, birth.Birth() if job.birth else None)
    standing = [*keep, (container_fd, CHILD_FD_CONTAINER), (theirs, launch.FD_SYNC)]
    standing += entered.birth.passed() if entered.birth else []
    standing += job.preserved
    processors = process.narrow(config)
    launch.mark("planned", operations)
    entered.pid, entered.pidfd = _cloned(job, binary_fd, standing + passed)
    process.widen(processors)
    for fd in (theirs, *[fd for fd, _ in passed]):
        posix.close(fd)
    launching.process.heed()
    launch.mark("cloned", entered.pid)
    if listener:
        entered.outcome.listener = lambda sync, number: listener(sync, number, entered)
    try:
        if _waits(config, job):
            _outside(config, job, entered.pid)
            handshake.go(ours, entered.pid)
        _until_executing(entered)
        verdict.judge(operations, entered.outcome, oci=job.oci)
        launch.mark("executing")
    except PyrunError:
        abandon(entered)
        raise
    return entered


def _until_executing(entered: Entered) -> None:
    if entered.birth:
        init = entered.pidfd
        pid, pidfd = entered.birth.wait(entered.sync, entered.outcome, entered.pid, init)
        if not pid:
            return
        entered.pid, entered.pidfd, entered.sync = pid, pidfd, entered.birth.report
        launch.mark("born", pid)
        posix.close(init)
    handshake.wait(entered.sync, entered.outcome)


def abandon(entered: Entered) -> None:
    """End the process: nobody is going to hear of it."""
    linux.pidfd_send_signal(entered.pidfd, linux.SIGKILL)
    launching.process.reap(entered.pid, entered.pidfd)


def _planned(config: Config, job: Job) -> tuple[list[Operation], list[tuple[int, int]]]:
    """The plan, and the descriptors made for it alone."""
    seccomp_fd = _seccomp(config, job)
    operations = _operations(config, job)
    passed = launch.opened(job)
    passed.append((launch.plan_file(operations), launch.FD_PLAN))
    if seccomp_fd >= 0:
        passed.append((seccomp_fd, launch.CHILD_FD_SECCOMP))
    return operations, passed


def note_unit(job: Job, unit: str) -> None:
    """A user may not move a process into the container's scope from just anywhere: then systemd is asked to, see
    job.cgroup.unit."""
    groups, hierarchies = job.cgroup.groups, job.cgroup.hierarchies
    if not unit or not groups or not hierarchies or not paths.is_user():
        return
    from pyrun.cgroups import rootless

    if not rootless.may_use(groups[0][1], hierarchies[0]):
        job.cgroup.unit = unit


def _waits(config: Config, job: Job) -> bool:
    return bool(process.plan_outside(config) or job.cgroup.unit or job.cgroup.rdt)


def _outside(config: Config, job: Job, pid: int) -> None:
    process.outside(config, pid)
    if job.cgroup.unit:
        from pyrun.cgroups import systemd

        systemd.attach(job.cgroup.unit, pid)
    if job.cgroup.rdt:
        from pyrun.cgroups import rdt

        rdt.enter(job.cgroup.rdt, pid)


def _cloned(job: Job, binary_fd: int, keep: list[tuple[int, int]]) -> tuple[int, int]:
    """(pid, pidfd) of init, in the container's cgroup where that is possible."""
    try:
        try:
            return _clone_into(job, binary_fd, keep)
        except OSError as error:
            if error.errno != EBUSY:
                raise
        from pyrun.cgroups import processes

        # the container's own init has moved its processes down, to hand controllers to them
        job.cgroup.groups = processes.entrance(job.cgroup.groups, job.pid)
        return _clone_into(job, binary_fd, keep)
    except OSError as error:
        raise StageFailed("namespaces", "enter those of the container", error.errno) from None


def _clone_into(job: Job, binary_fd: int, keep: list[tuple[int, int]]) -> tuple[int, int]:
    group_fd = launch.cgroup_fd(job)
    try:
        return launching.process.clone_exec(0, group_fd, binary_fd, keep)
    finally:
        if group_fd >= 0:
            posix.close(group_fd)


def _operations(config: Config, job: Job) -> list[Operation]:
    return [
        *process.plan_guard(config, job, "first"),
        *([Operation("WAIT_GO")] if _waits(config, job) else []),
        *cgroup.plan(job),
        *_enter_all(job.namespaces, job.chroot),
        *process.plan_session(config, job),
        *process.plan_limits(config),
        *process.plan_scheduling(config, job),
        *process.plan_directory(config),
        *process.plan_look_up(config, job),
        *security.plan(config, job),
        *plan_command(config, job, []),
    ]


def _enter_all(kinds: list[str], chroot: str) -> list[Operation]:
    """All at once, in the order the kernel knows; but the planner made the time namespace, and from inside the user
    namespace it cannot be joined. Without a mount namespace of the container's the one that its init is in, whose root
    is the host's: so chroot follows. To the place that is ours, wherever the container's own processes have got to."""
    kinds = [*kinds, "mount"] if chroot else kinds
    first = ["time"] if {"time", "user"} <= set(kinds) else []
    groups = (first, [kind for kind in kinds if kind not in first])
    entered = [
        Operation("ENTER", CHILD_FD_CONTAINER, sum([namespaces.FLAGS[kind] for kind in group]))
        for group in groups
        if group
    ]
    return [*entered, Operation("CHROOT", chroot)] if chroot else entered


def _seccomp(config: Config, job: Job) -> int:
    """The program the container itself runs under: a descriptor, or -1."""
    filter_ = None if job.no_seccomp else seccomp.of_config(config)
    if filter_ is None:
        return -1
    job.seccomp = (launch.CHILD_FD_SECCOMP, filter_[1])
    return posix.open(filter_[0], posix.O_RDONLY | posix.O_CLOEXEC)
