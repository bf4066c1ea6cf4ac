"""The PARENT recipe: from a plan to a running container, and back to nothing if a step fails.

    begin      the undo list is written and locked: from here on a crash can be undone
    before     cgroup directories and limits, the container's files
    clone      init starts in its namespaces and mounts while ...
    admit      (a user namespace, the systemd driver) ... it waits for its maps and its cgroup
    outside    ... the planner wires the network from outside, and runs the hooks that are the host's
    GO         init goes on to execve, or with `create` to where it waits for `start`
    READY/end  execve worked; the monitor takes over in this very process

The messages are drawn in handshake.py. A `job` is the dict the stages read: stages/__init__.py has its keys.
"""

from __future__ import annotations

import posix
import time

from . import STARTED_NS, caller, handshake, linux, notice, undo, verdict
from .errors import PyrunError, StageFailed, UsageError
from .plan.operations import Operation
from .plan.plan import encode
from .sealing import seal as seal  # every start begins with it
from .stages import cgroup, namespaces, process
from .store import containers, paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable

FD_PLAN, FD_SYNC = 3, 4
CHILD_FD_SECCOMP, CHILD_FD_START = 5, 7

# (name, monotonic nanoseconds) of each stage reached, for --explain=json
timeline: list[tuple[str, int]] = [("interpreter", STARTED_NS)]


def mark(stage: str) -> None:
    """Note when *stage* was reached."""
    timeline.append((stage, time.monotonic_ns()))


def _nothing() -> None:
    """A bundle has no directory of its own to make."""


class Launch:
    """A start in progress.

    config: the OCI config; job: what the stages read beside it; operations: for init; before: for the planner; network:
    the stage's plan or None; undo: the lines of the undo list; keep_fds: (our descriptor, its number in init); make:
    makes the lasting directory; hooks: runs those that come between mounts and pivot, or None; deliver: hands over what
    was asked for, or None; state: state.json but for the process; running_fd: to tell a waiting parent, or -1; watched:
    this process becomes the monitor. Under way: lock_fd: of the undo list; pid, pidfd: of init; began: when, in ticks
    since boot; sync: its socket; outcome: what it said.
    """

    __slots__ = (
        "before", "began", "config", "deliver", "hooks", "job", "keep_fds", "lock_fd", "make", "network", "operations",
        "outcome", "pid", "pidfd", "running_fd", "state", "sync", "undo", "watched",
    )  # fmt: skip

    def __init__(
        self, config: dict[str, object], job: dict[str, object], operations: list[Operation]
    ) -> None:
        self.config = config
        self.job = job
        self.operations = operations
        self.before: list[Operation] = []
        self.network: dict[str, object] | None = None
        self.undo: list[str] = []
        self.keep_fds: list[tuple[int, int]] = []
        self.lock_fd = self.running_fd = -1
        self.make: Callable[[], None] = _nothing
        self.hooks: Callable[[Launch], None] | None = None
        self.deliver: Callable[[Launch], None] | None = None
        self.state: dict[str, object] = {}
        self.watched = True
        self.pid = self.pidfd = -1
        self.began = 0
        self.sync = -1
        self.outcome = handshake.Outcome()


def need_root(verb: str) -> None:
    """Raise UsageError for anybody else."""
    if posix.geteuid() != 0:
        raise UsageError(f"pyrun {verb} needs root", f"sudo pyrun {verb} ...")


def undo_list(launch: Launch, last: list[str]) -> list[str]:
    """The whole list, in the order of undoing: what still runs ends, then the network (its names are freed while the
    container's is held), the cgroups, and what the store says last."""
    groups = launch.job["cgroups"]
    assert isinstance(groups, list)
    kill, *remove = cgroup.undo(groups, launch.job) or ["#"]
    wired = launch.network["undo"] if launch.network else []
    assert isinstance(wired, list)
    return [kill, *wired, *remove, *last]


def start(launch: Launch, binary_fd: int) -> handshake.Outcome:
    """Run the recipe. Returns once the command is executing; raises after everything was undone."""
    try:
        caller.only_here(launch.hooks)
        oci = bool(launch.job.get("oci"))
        launch.lock_fd = containers.begin(str(launch.job["run_dir"]), launch.undo, oci=oci)
    except BaseException:
        if launch.network:
            from .stages import network

            network.release(launch.network)
        raise
    try:
        launch.make()
        cgroup.perform(launch.before, launch.job, launch.lock_fd)
        _clone(launch, binary_fd)
        if launch.job.get("early"):
            _admit(launch)
        if launch.network:
            _wire(launch)
            mark("network")
        if launch.hooks:
            _until_mounted(launch)
            launch.hooks(launch)
        if launch.watched:  # from here on a signal waits for the monitor, which forwards it
            caller.block_signals()
        handshake.go(launch.sync, launch.pid)
        outcome = handshake.wait(launch.sync, launch.outcome)
        verdict.judge(launch.operations, outcome, launch.job)
        if launch.deliver:
            launch.deliver(launch)
        containers.progress(str(launch.job["run_dir"]), "created" if outcome.created else "started")
        mark("executing")
        return outcome
    except BaseException:
        abandon(launch)
        raise


def check_where(config: dict[str, object]) -> None:
    """Hooks are children of the process that was called, with its limits and its cgroup; and what it clones into it
    has to enter by itself. A warm planner tells so before it has said or done anything."""
    caller.only_here(config.get("hooks") or namespaces.entered(config))


def _admit(launch: Launch) -> None:
    """What init waits for before anything else: the maps of its user namespace, the scope systemd makes for it."""
    namespaces.write_maps(launch.config, launch.pid)
    process.outside(launch.config, launch.pid)
    if cgroup.joined_late(launch.job):
        cgroup.after_clone(launch.config, launch.job, launch.pid)
    handshake.go(launch.sync, launch.pid)


def _until_mounted(launch: Launch) -> None:
    """Wait for init at its last WAIT_GO: a hook of the host's may look at the mounts. Raises what init failed with."""
    for _ in range(2 if launch.job.get("early") else 1):
        if not handshake.wait_for(launch.sync, launch.outcome, handshake.WAITING):
            verdict.judge(launch.operations, launch.outcome, launch.job)


def _wire(launch: Launch) -> None:
    """The network from outside. If init has failed meanwhile there is nothing to wire, and its own report says why."""
    from .stages import network  # a bundle has no need of it

    try:
        network.outside(launch.network, launch.pid)  # type: ignore[arg-type]
    except (OSError, PyrunError) as error:
        import select

        poll = select.poll()
        poll.register(launch.pidfd, select.POLLIN)
        # its namespaces go a moment before it counts as ended: a long one, on a busy machine
        if poll.poll(5000 if isinstance(error, FileNotFoundError) else 200):
            verdict.judge(launch.operations, handshake.wait(launch.sync, launch.outcome), launch.job)
        raise


def plan_file(operations: list[Operation]) -> int:
    """The encoded plan in a file of memory, for init to read."""
    plan_fd = posix.memfd_create("pyrun-plan")
    view = memoryview(encode(operations))
    while view:
        view = view[posix.write(plan_fd, view) :]
    return plan_fd


def opened(job: dict[str, object]) -> list[tuple[int, int]]:
    """(our descriptor, its number in init) of what the plan names by number; for most containers that is nothing."""
    if not job.get("descriptors"):
        return []
    from . import descriptors

    return descriptors.open_all(job)


def cgroup_fd(job: dict[str, object]) -> int:
    """The unified hierarchy's directory, to be born in (CLONE_INTO_CGROUP); -1 where there is none."""
    groups = [] if job.get("unit") else job["cgroups"]  # a scope is made by systemd, around the process
    for names, directory in groups if isinstance(groups, list) else []:
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
    mark("planned")
    launch.pid, launch.pidfd = _born(launch, group_fd, binary_fd, keep)
    caller.heed()
    mark("cloned")
    for fd in (theirs, plan_fd, group_fd, *[fd for fd, _ in passed]):
        if fd >= 0:
            posix.close(fd)
    launch.sync = ours
    launch.began = _start_time(launch.pid)
    born = {"pid": launch.pid, "start_time": launch.began}
    state = launch.state or _state(launch)
    containers.write_state(str(launch.job["run_dir"]), {**state, **born})


def _born(launch: Launch, group_fd: int, binary_fd: int, keep: list[tuple[int, int]]) -> tuple[int, int]:
    """(pid, pidfd) of init. What is only for children (pid and time namespaces by path, clocks) is taken back."""
    config = launch.config
    namespaces.enter_for_children(config)
    user = namespaces.path_of(config, "user")
    user_fd = namespaces.open_namespace(user, "user") if user else -1
    flags = namespaces.clone_flags(config)
    try:
        return caller.clone_exec(flags, group_fd, binary_fd, keep, user_fd)
    except OSError as error:
        raise _stillborn(launch.job, error.errno) from None
    finally:
        namespaces.leave_for_children(config)


def _stillborn(job: dict[str, object], number: int | None) -> Exception:
    """Why clone3 failed: a cgroup that may not be entered, or the namespaces."""
    groups = job["cgroups"]
    if isinstance(groups, list) and groups:
        from .cgroups import failures

        if found := failures.of_clone(groups, number or 0):
            return found
    return StageFailed("namespaces", "make the container's namespaces", number)


def _start_time(pid: int) -> int:
    """In clock ticks since boot, of our child, even if it has ended. Source: man 5 proc_pid_stat, field 22."""
    return int(paths.read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()[19])


def _state(launch: Launch) -> dict[str, object]:
    """state.json of an image's container, without its process."""
    return {
        "ociVersion": launch.config.get("ociVersion", ""),
        "id": launch.job["id"],
        "name": launch.job["name"],
        "status": "created",
        "bundle": launch.job.get("bundle") or launch.job["keep"],
        "created": time.time(),
        "monitor_pid": caller.pid(),
        "cgroups": [directory for _, directory in launch.job["cgroups"]],  # type: ignore[attr-defined]
        "unit": launch.job.get("unit", ""),
    }


def abandon(launch: Launch) -> None:
    """A start that failed: end init, then let the undo list take away what was made."""
    if launch.pid > 0:
        try:
            linux.pidfd_send_signal(launch.pidfd, linux.SIGKILL)
            caller.reap(launch.pid, launch.pidfd)
        except OSError:
            pass
    if launch.lock_fd >= 0:
        for complaint in undo.replay(launch.lock_fd):  # the lock stays ours meanwhile
            notice.say(f"undo: {complaint}")


def identity(launch: Launch) -> list[str]:
    """The monitor's words for which container it is; it inherits pidfd and lock_fd."""
    return [
        f"id={launch.job['id']}",
        f"pid={launch.pid}",
        f"pidfd={launch.pidfd}",
        f"undo_fd={launch.lock_fd}",
        f"run={launch.job['run_dir']}",
    ]


def become_monitor(binary_fd: int, settings: list[str], inherited: list[int]) -> None:
    """The monitor replaces the process that was called: the container stays its child. Does not return."""
    caller.become(binary_fd, ["pyrun-monitor", *settings], inherited)
