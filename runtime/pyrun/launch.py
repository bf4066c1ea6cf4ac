"""The PARENT recipe: from a plan to a running container, and back to nothing if a step fails.

    begin      the undo list is written and locked: from here on a crash can be undone
    before     cgroup directories and limits, the container's files
    clone      init starts in its namespaces and mounts while ...
    admit      (a user namespace, the systemd driver) ... it waits for its maps and its cgroup
    outside    ... the planner wires the network from outside, and runs the hooks that are the host's
    GO         init goes on to execve, or with `create` to where it waits for `start`
    READY/end  execve worked; the monitor takes over in this very process

The messages are drawn in handshake.py, what a start is about in plan/job.py.
"""

from __future__ import annotations

import posix
import time

from . import STARTED_NS, handshake, launching, linux, notice, undo, verdict
from .errors import CgroupRemoved, PyrunError, StageFailed, UsageError
from .plan.operations import Operation
from .plan.plan import compose, encode, without_ipv6
from .sealing import seal as seal  # every start begins with it
from .stages import cgroup, namespaces, process, rootfs
from .store import containers, paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrun.plan.job import Job
    from pyrun.spec.oci import Config

    from .birth import Birth
    from .network.requests import Request
    from .network.wiring import NetworkPlan

FD_PLAN, FD_SYNC = 3, 4
CHILD_FD_SECCOMP, CHILD_FD_START = 5, 7

# (name, monotonic nanoseconds) of each stage reached, for --explain=json
timeline: list[tuple[str, int]] = [("interpreter", STARTED_NS)]


# Told of each stage as it is reached, and what it is about: a pid, a plan. `pyrun-oci --debug` (cli/oci_trail.py).
trail: Callable[[str, object], None] | None = None


def mark(stage: str, about: object = "") -> None:
    """Note when *stage* was reached."""
    timeline.append((stage, time.monotonic_ns()))
    if trail:
        trail(stage, about)


def _birth() -> Birth:
    from . import birth  # few containers join a pid namespace

    return birth.Birth()


def _nothing() -> None:
    """A bundle has no directory of its own to make."""


class Launch:
    """A start in progress.

    config: the OCI config; job: what the stages read beside it; operations: for init; before: for the planner; request:
    what is asked of its network, None where that is not pyrun's to wire; network: the stage's plan or None; undo: the
    lines of the undo list; keep_fds: (our descriptor, its number in init); make: makes the lasting directory; hooks:
    runs those that come between mounts and pivot, or None; deliver: hands over what was asked for, or None; state:
    state.json but for the process; running_fd: to tell a waiting parent, or -1; watched: this process becomes the
    monitor; birth: of the command in a pid namespace that it joins, or None. Under way: lock_fd: of the undo list; pid,
    pidfd: of init; began: when, in ticks since boot; sync: its socket; outcome: what it said.
    """

    __slots__ = (
        "before", "began", "birth", "config", "deliver", "hooks", "job", "keep_fds", "lock_fd", "make", "network",
        "operations", "outcome", "pid", "pidfd", "request", "running_fd", "state", "sync", "undo", "watched",
    )  # fmt: skip

    def __init__(self, config: Config, job: Job, operations: list[Operation]) -> None:
        self.config = config
        self.job = job
        self.operations = operations
        self.before: list[Operation] = []
        self.request: Request | None = None
        self.network: NetworkPlan | None = None
        self.undo: list[str] = []
        self.keep_fds: list[tuple[int, int]] = []
        self.lock_fd = self.running_fd = -1
        self.make: Callable[[], None] = _nothing
        self.hooks: Callable[[Launch], None] | None = None
        self.deliver: Callable[[Launch], None] | None = None
        self.state: dict[str, object] = {}
        self.watched = True
        self.birth = _birth() if job.birth else None
        self.pid = self.pidfd = -1
        self.began = 0
        self.sync = -1
        self.outcome = handshake.Outcome()


def need_root(verb: str) -> None:
    """Raise UsageError for anybody else."""
    if posix.geteuid() != 0:
        raise UsageError(f"pyrun {verb} needs root", f"sudo pyrun {verb} ...")


def assemble(config: Config, job: Job) -> Launch:
    """Decided, nothing touched: what init does, and what the planner does before. `claim` or `look` make it whole."""
    prepared = Launch(config, job, compose(config, job))
    prepared.before = cgroup.before(config, job)
    return prepared


def claim(launch: Launch, last: list[str]) -> None:
    """Between deciding and doing: take what is scarce (stages/network.py), so that the undo list can be written.

    last: its end, which is the store's. Raises with nothing claimed.
    """
    if launch.request:
        from .stages import network  # a bundle has no need of it

        had = network.claim(launch.request)
        try:
            launch.network = network.plan(launch.request, had)
        except BaseException:
            had.release()
            raise
    _complete(launch, last)


def look(launch: Launch, last: list[str]) -> None:
    """What `claim` would make of it: for --dry-run."""
    if launch.request:
        from .stages import network

        launch.network = network.plan(launch.request, network.look(launch.request))
    _complete(launch, last)


def _complete(launch: Launch, last: list[str]) -> None:
    """The undo list, in the order of undoing: what still runs ends, then mounts of the caller's namespace, the network
    (its names are freed while the container's is held), the cgroups, and what the store says last."""
    wired = []
    if launch.network:
        without_ipv6(launch.operations, launch.network.no_ipv6)
        wired = launch.network.undo
    kill, *remove = cgroup.undo(launch.job.cgroup) or ["#"]
    launch.undo = [kill, *rootfs.undo(launch.job), *wired, *remove, *last]
    mark("decided")


def add_filter(launch: Launch, program: str) -> None:
    """Hand the compiled filter to init. program: its path, "" for none."""
    if program:
        program_fd = posix.open(program, posix.O_RDONLY | posix.O_CLOEXEC)
        launch.keep_fds.append((program_fd, CHILD_FD_SECCOMP))


def start(launch: Launch, binary_fd: int) -> handshake.Outcome:
    """Run the recipe. Returns once the command is executing; raises after everything was undone."""
    try:
        launching.process.only_here(launch.hooks)
        oci = launch.job.oci
        launch.lock_fd = containers.begin(launch.job.run_dir, launch.undo, oci=oci)
    except BaseException:
        if launch.network:
            launch.network.claimed.release()
        raise
    try:
        launch.make()
        cgroup.perform(launch.before, launch.job.cgroup, launch.lock_fd)
        _clone(launch, binary_fd)
        if launch.job.early:
            _admit(launch)
            mark("admitted")
        if launch.network:
            _wire(launch, launch.network)
            mark("network")
        if launch.hooks:
            _call_hooks(launch, launch.hooks)
        if launch.watched:  # from here on a signal waits for the monitor, which forwards it
            launching.process.block_signals()
        handshake.go(launch.sync, launch.pid)
        outcome = _until_executing(launch)
        _judge(launch, outcome)
        if launch.deliver:
            launch.deliver(launch)
        containers.progress(launch.job.run_dir, "created" if outcome.created else "started")
        mark("created" if outcome.created else "executing")
        return outcome
    except BaseException as error:
        _give_up(launch, error)
        raise


def _give_up(launch: Launch, error: BaseException) -> None:
    """Undo what was done; raises CgroupRemoved where that is why the start failed with *error*."""
    from .cgroups import failures

    gone = failures.removed(launch.job.cgroup, error)  # seen before the undo list removes the others
    abandon(launch)
    if gone:
        raise gone from error


def persistently(begin: Callable[[], Any]) -> Any:
    """Call *begin*, a whole start: once more if a cgroup was taken away in its midst, which undid it."""
    try:
        return begin()
    except CgroupRemoved as error:
        notice.say(f"{error.message}; it is made again")
    return begin()


def _judge(launch: Launch, outcome: handshake.Outcome) -> None:
    """Raise what init failed with."""
    job = launch.job
    verdict.judge(launch.operations, outcome, oci=job.oci, run_dir=job.run_dir, groups=job.cgroup.groups)


def check_where(config: Config) -> None:
    """Hooks are children of the process that was called, with its limits and its cgroup; and what it clones into it
    has to enter by itself. A warm planner tells so before it has said or done anything."""
    launching.process.only_here(config.get("hooks") or namespaces.entered(config))


def _admit(launch: Launch) -> None:
    """What init waits for before anything else: the maps of its user namespace, the scope systemd makes for it."""
    if namespaces.user_is_inits(launch.config) and not handshake.wait_for(
        launch.sync, launch.outcome, handshake.WAITING
    ):
        _judge(launch, launch.outcome)
    namespaces.write_maps(launch.config, launch.pid)
    process.outside(launch.config, launch.pid)
    if launch.job.cgroup.late:
        cgroup.after_clone(launch.config, launch.job, launch.pid)
    handshake.go(launch.sync, launch.pid)


def _call_hooks(launch: Launch, hooks: Callable[[Launch], None]) -> None:
    """With init at its last WAIT_GO: a hook of the host's may look at the mounts. Raises what init failed with."""
    first_heard = not launch.job.early or namespaces.user_is_inits(launch.config)
    for _ in range(1 if first_heard else 2):
        if not handshake.wait_for(launch.sync, launch.outcome, handshake.WAITING):
            _judge(launch, launch.outcome)
    mark("mounted")
    hooks(launch)
    mark("hooks")


def _until_executing(launch: Launch) -> handshake.Outcome:
    """Hear the rest; from the command's own process where it is another than init's."""
    if launch.birth:
        pid, pidfd = launch.birth.wait(launch.sync, launch.outcome, launch.pid, launch.pidfd)
        if not pid:
            return launch.outcome
        launch.pid, launch.pidfd, launch.sync = pid, pidfd, launch.birth.report
        mark("born", pid)
        _note_process(launch)
    return handshake.wait(launch.sync, launch.outcome)


def _wire(launch: Launch, planned: NetworkPlan) -> None:
    """The network from outside. If init has failed meanwhile there is nothing to wire, and its own report says why."""
    from .stages import network  # a bundle has no need of it

    try:
        network.outside(planned, launch.pid)
    except (OSError, PyrunError) as error:
        import select

        poll = select.poll()
        poll.register(launch.pidfd, select.POLLIN)
        # its namespaces go a moment before it counts as ended: a long one, on a busy machine
        if poll.poll(5000 if isinstance(error, FileNotFoundError) else 200):
            _judge(launch, handshake.wait(launch.sync, launch.outcome))
        raise


def plan_file(operations: list[Operation]) -> int:
    """The encoded plan in a file of memory, for init to read."""
    plan_fd = posix.memfd_create("pyrun-plan")
    view = memoryview(encode(operations))
    while view:
        view = view[posix.write(plan_fd, view) :]
    return plan_fd


def opened(job: Job) -> list[tuple[int, int]]:
    """(our descriptor, its number in init) of what the plan names by number; for most containers that is nothing."""
    if not job.descriptors:
        return []
    from . import descriptors

    return descriptors.open_all(job)


def cgroup_fd(job: Job) -> int:
    """The unified hierarchy's directory, to be born in (CLONE_INTO_CGROUP); -1 where there is none."""
    if job.cgroup.unit:  # a scope is made by systemd, around the process
        return -1
    for names, directory in job.cgroup.groups:
        if names == "unified":
            return posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    return -1


def _clone(launch: Launch, binary_fd: int) -> None:
    """init in its namespaces, and state.json: a planner that dies from now on leaves a trace to find it by."""
    ours, theirs = handshake.pair()
    plan_fd = plan_file(launch.operations)
    group_fd = cgroup_fd(launch.job)
    passed = opened(launch.job)
    keep = [*launch.keep_fds, *passed, (plan_fd, FD_PLAN), (theirs, FD_SYNC)]
    keep += launch.birth.passed() if launch.birth else []
    mark("planned", launch.operations)
    launch.pid, launch.pidfd = _born(launch, group_fd, binary_fd, keep)
    launching.process.heed()
    mark("cloned", launch.pid)
    for fd in (theirs, plan_fd, group_fd, *[fd for fd, _ in passed]):
        if fd >= 0:
            posix.close(fd)
    launch.sync = ours
    launch.state = launch.state or _state(launch)
    _note_process(launch)


def _note_process(launch: Launch) -> None:
    """state.json with the process that is, or is going to be, the container's."""
    launch.began = _start_time(launch.pid)
    process = {"pid": launch.pid, "start_time": launch.began}
    containers.write_state(launch.job.run_dir, {**launch.state, **process})


def _born(launch: Launch, group_fd: int, binary_fd: int, keep: list[tuple[int, int]]) -> tuple[int, int]:
    """(pid, pidfd) of init. What is only for children (clocks) is taken back."""
    config = launch.config
    inside = namespaces.open_born_in(config)
    namespaces.enter_for_children(config)
    flags = namespaces.clone_flags(config)
    try:
        return launching.process.clone_exec(flags, group_fd, binary_fd, keep, inside)
    except OSError as error:
        raise _stillborn(launch, error.errno) from None
    finally:
        for fd in inside:
            posix.close(fd)
        namespaces.leave_for_children(config)


def _stillborn(launch: Launch, number: int | None) -> Exception:
    """Why clone3 failed: a cgroup that may not be entered, or the namespaces."""
    if launch.job.cgroup.groups:
        from .cgroups import failures

        if found := failures.of_clone(launch.job.cgroup.groups, number or 0):
            return found
    joined = ", ".join(namespaces.born_in(launch.config))
    action = f"join the {joined} namespace, or " if joined else ""
    return StageFailed("namespaces", f"{action}make the container's namespaces", number)


def _start_time(pid: int) -> int:
    """In clock ticks since boot, of our child, even if it has ended. Source: man 5 proc_pid_stat, field 22."""
    return int(paths.read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()[19])


def _state(launch: Launch) -> dict[str, object]:
    """state.json of an image's container, without its process."""
    return {
        "ociVersion": launch.config.get("ociVersion", ""),
        "id": launch.job.id,
        "name": launch.job.name,
        "status": "created",
        "bundle": launch.job.bundle or launch.job.keep,
        "created": time.time(),
        "monitor_pid": launching.process.pid(),
        "cgroups": [directory for _, directory in launch.job.cgroup.groups],
        "unit": launch.job.cgroup.unit,
    }


def abandon(launch: Launch) -> None:
    """A start that failed: end init, then let the undo list take away what was made."""
    if launch.pid > 0:
        try:
            linux.pidfd_send_signal(launch.pidfd, linux.SIGKILL)
            launching.process.reap(launch.pid, launch.pidfd)
        except OSError:
            pass
    if launch.lock_fd >= 0:
        for complaint in undo.replay(launch.lock_fd):  # the lock stays ours meanwhile
            notice.say(f"undo: {complaint}")


def identity(launch: Launch) -> list[str]:
    """The monitor's words for which container it is; it inherits pidfd and lock_fd."""
    return [
        f"id={launch.job.id}",
        f"pid={launch.pid}",
        f"pidfd={launch.pidfd}",
        f"undo_fd={launch.lock_fd}",
        f"run={launch.job.run_dir}",
    ]


def become_monitor(binary_fd: int, settings: list[str], inherited: list[int]) -> None:
    """The monitor replaces the process that was called: the container stays its child. Does not return."""
    launching.process.become(binary_fd, ["pyrun-monitor", *settings], inherited)
