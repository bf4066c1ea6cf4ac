"""The process: who may look at init, session and terminal, limits, scheduling, working directory, environment, and the
last execve.

Until execve init is not dumpable: neither may it be traced from inside nor are its descriptors to be seen there, least
of all while it waits for `start` (CVE-2016-9962). That begins where somebody in the container could first see it:
with the first operation if init is born among processes of a container, with GO if its pid namespace is new, for then
the planner, which may lack CAP_SYS_PTRACE, has to look at it until GO; and in a new user namespace not before its maps
are written, since the files of a process that is not dumpable are root's, and whoever writes the maps may not be root.
In a user namespace init cannot raise limits or lower its OOM score; there the planner does it (`outside`).
Source: runtime-spec config.md#process; man 2 prctl (PR_SET_DUMPABLE), setsid, setrlimit, execve. Nothing follows.
"""

from __future__ import annotations

import posix

from pyrun import boot
from pyrun.errors import StageFailed
from pyrun.plan import performers
from pyrun.plan.operations import Operation, descriptor
from pyrun.spec import capabilities
from pyrun.spec.defaults import DEFAULT_PATH
from pyrun.spec.values import RLIMITS, linux_section
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.plan.job import Job
    from pyrun.spec.oci import Config, Process


def _process(config: Config) -> Process:
    return config["process"]


def _namespaces(config: Config) -> dict[str, str]:
    """type -> path, empty for those to be made."""
    return {item["type"]: item.get("path") or "" for item in linux_section(config).get("namespaces") or []}


def plan_guard(config: Config, job: Job, moment: str) -> list[Operation]:
    """Not dumpable, at one of the moments "first", "mapped" (the user namespace's maps are written) and "go"."""
    kinds = _namespaces(config)
    if not job.entering and kinds.get("pid") == "":
        wanted = "go"
    elif not job.entering and kinds.get("user") == "":
        wanted = "mapped"
    else:
        wanted = "first"
    operations = [Operation("GUARD")] if moment == wanted else []
    of_a_user = boot.rootless_uid() >= 0
    if job.entering and moment == "first" and (of_a_user or _writes_proc(config)):
        # in the container it may be too late for a procfs, and in its user namespace too early: then it gets the host's
        given = [descriptor(job, "path", "/proc")] if of_a_user or "user" in kinds else []
        operations.append(Operation("PROCFS", *given))
    return operations


def _writes_proc(config: Config) -> bool:
    """Whether init is going to need files of its own below /proc. Where a user namespace hides parts of /proc, the
    kernel allows no other one: so it is opened before that."""
    process = _process(config)
    return bool(
        "user" in _namespaces(config)
        or process.get("selinuxLabel")
        or process.get("apparmorProfile")
        or process.get("oomScoreAdj") is not None
    )


def plan_session(config: Config, job: Job) -> list[Operation]:
    """A session of its own, and with a terminal its controlling one; a keyring, under the label of the process. By
    job.keyring, its name, an `exec` shares it. job.plain_lines: the terminal adds no carriage returns.

    Here, before the pivot, since the terminal's far end is mounted as /dev/console below the root's descriptor.
    """
    process = _process(config)
    label = str(process.get("selinuxLabel") or "")
    keyring = not job.no_new_keyring
    early = _writes_proc(config) and not job.entering
    kinds = _namespaces(config)
    # in a user namespace that does not own init's own pid namespace init may make none: it gets the host's
    given = [descriptor(job, "path", "/proc")] if early and kinds.get("pid") and "user" in kinds else []
    operations = [Operation("PROCFS", *given)] if early else []
    if label and keyring:  # optional: a kernel without keys
        operations.append(Operation("LABEL", 1, label, "keycreate"))
    name = [job.keyring] if keyring and job.keyring else []
    operations.append(Operation("SESSION", int(keyring), *name))
    if label and keyring:
        operations.append(Operation("LABEL", 1, "", "keycreate"))
    if process.get("terminal"):
        uid = (process.get("user") or {}).get("uid", 0)
        rows, columns = _window(process, job)
        console, controls = int(not job.entering), int(not job.birth)
        operations.append(Operation("TERMINAL", rows, columns, uid, console, controls, int(job.plain_lines)))
    return operations


def _window(process: Process, job: Job) -> tuple[int, int]:
    """(rows, columns): the caller's terminal if there is one, else process.consoleSize."""
    size = process.get("consoleSize")
    if job.window == (0, 0) and size:
        return size["height"] & 0xFFFF, size["width"] & 0xFFFF
    return job.window


# ── limits ─────────────────────────────────────────────────────────────────────────────────────────


def _limits(config: Config) -> list[tuple[int, int, int]]:
    """(resource, soft, hard) of process.rlimits."""
    return [
        (RLIMITS[limit["type"][7:].lower()], _signed(limit["soft"]), _signed(limit["hard"]))
        for limit in _process(config).get("rlimits") or ()
    ]


def plan_limits(config: Config) -> list[Operation]:
    """Resource limits and the OOM score, while init may still raise them. In a user namespace: plan_outside."""
    if "user" in _namespaces(config):
        return []
    operations = [Operation("RLIMIT", *limit) for limit in _limits(config)]
    score = _process(config).get("oomScoreAdj")
    if score is not None:  # 0 is a wish, too: the caller's may be another
        operations.append(Operation("OOM_SCORE", str(score)))
    return operations


def _signed(value: int) -> int:
    """init reads signed numbers: infinity is -1 there."""
    return value - (1 << 64) if value >= 1 << 63 else value


def plan_outside(config: Config) -> list[Operation]:
    """The same in a user namespace, for the planner: only outside of it are the rights to raise anything."""
    if "user" not in _namespaces(config):
        return []
    score = _process(config).get("oomScoreAdj")
    scores = [] if score is None else [Operation("oom-score", str(score))]
    return scores + [Operation("rlimit", *limit) for limit in _limits(config)]


def outside(config: Config, pid: int) -> None:
    """Execute it for *pid*, before GO. Raises StageFailed."""
    for operation in plan_outside(config):
        try:
            performers.perform(operation, pid)
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None) or 1
            raise StageFailed("process", performers.words(operation), number) from None


def give_oom_score(pid: int, score: str) -> None:
    """Set the OOM score of *pid*. Raises OSError."""
    paths.write(f"/proc/{pid}/oom_score_adj", score.encode())


def give_limit(pid: int, resource: int, soft: int, hard: int) -> None:
    """Set a resource limit of *pid*; -1 is none. Raises OSError, ValueError."""
    from resource import prlimit

    prlimit(pid, resource, (soft, hard))


# ── scheduling ─────────────────────────────────────────────────────────────────────────────────────


def plan_scheduling(config: Config, job: Job, *, born: bool = False) -> list[Operation]:
    """Processors, scheduler, I/O priority, memory nodes, personality: rare, and then their numbers are looked up. born:
    those that a child does not inherit, for after its birth."""
    operations = _all_scheduling(config, job)
    if not job.birth:
        return [] if born else operations
    return [each for each in operations if _inherited(each) is not born]


def _inherited(operation: Operation) -> bool:
    """SCHED_DEADLINE forbids clone, and a flag takes the policy back. Source: man 7 sched."""
    if operation.kind != "SCHEDULER":
        return True
    from pyrun.spec import scheduling

    policy, _, _, flags, *_ = operation.args
    reset = scheduling.SCHEDULER_FLAGS["SCHED_FLAG_RESET_ON_FORK"]
    return policy != scheduling.POLICIES["SCHED_DEADLINE"] and not int(flags) & reset


def _all_scheduling(config: Config, job: Job) -> list[Operation]:
    process, section = _process(config), linux_section(config)
    operations = _plan_affinity(process, job)
    for key, value in (
        ("scheduler", process.get("scheduler")),
        ("ioPriority", process.get("ioPriority")),
        ("memoryPolicy", section.get("memoryPolicy")),
        ("personality", section.get("personality")),
    ):
        if value is not None:
            from pyrun.spec import scheduling

            operations.append(Operation(*scheduling.WORDS[key](value)))
    return operations


def _plan_affinity(process: Process, job: Job) -> list[Operation]:
    """execCPUAffinity is for `exec` alone, says the runtime-spec: final, here where the cgroups are joined. Without
    any, and for the first process, the caller's processors are forgotten, as runc and crun do."""
    value = process.get("execCPUAffinity") if job.entering else None
    if value:
        from pyrun.spec import scheduling

        final = scheduling.cpu_affinity(value, "final")
        if final or scheduling.cpu_affinity(value, "initial"):
            return [Operation("AFFINITY", *final)] if final else []
    return [Operation("AFFINITY")] if job.oci else []


def narrows(config: Config) -> bool:
    """Whether the planner itself has to change its processors for `narrow`."""
    return bool(_process(config).get("execCPUAffinity"))


def narrow(config: Config) -> set[int]:
    """execCPUAffinity.initial: the planner goes there before it clones the process of an `exec`, which inherits it
    until it has joined its cgroups. Returns what to `widen` to afterwards, nothing if nothing was changed."""
    if not narrows(config):
        return set()
    from pyrun.spec import scheduling

    value = _process(config)["execCPUAffinity"]
    initial = scheduling.cpu_affinity(value, "initial")
    before = posix.sched_getaffinity(0) if initial else set()
    wanted = [
        cpu for first, last in zip(initial[::2], initial[1::2], strict=True) for cpu in range(first, last + 1)
    ]
    try:
        if wanted:
            posix.sched_setaffinity(0, wanted)
    except OSError as error:
        raise StageFailed(
            "process", "run on the processors of execCPUAffinity.initial", error.errno
        ) from None
    return before


def widen(before: set[int]) -> None:
    """The end of `narrow`."""
    if before:
        posix.sched_setaffinity(0, before)


def plan_birth(config: Config, job: Job) -> list[Operation]:
    """The command's own process, if it is another than init: its descriptors are what comes after it in the plan."""
    if not job.birth:
        return []
    from pyrun import birth

    terminal = bool(_process(config).get("terminal"))
    return [birth.plan(_kept(job), terminal=terminal), *plan_scheduling(config, job, born=True)]


def plan_start(job: Job) -> list[Operation]:
    """The wait for `start`. What init has open for its own use (a procfs without masks) is closed before."""
    if job.start_fd < 0:
        return []
    return [Operation("START", job.start_fd, *([] if job.start_early else _kept(job)))]


def _kept(job: Job) -> list[int]:
    """The numbers of the descriptors that are still needed at the end of the plan."""
    return [*([job.start_fd] if job.start_fd >= 0 else []), *[number for _, number in job.preserved]]


# ── the end ────────────────────────────────────────────────────────────────────────────────────────


def plan_directory_made(config: Config) -> list[Operation]:
    """The working directory, as root, before the root may turn read-only: Docker makes it when the image has none."""
    path = str(_process(config)["cwd"])
    return [Operation("DIRECTORY", path, 0o755, 0, 0)] if path != "/" else []


def plan_directory(config: Config) -> list[Operation]:
    """Go there, while root: a directory its user may not enter is still a working directory."""
    return [Operation("DIRECTORY_CURRENT", str(_process(config)["cwd"]))]


def plan_look_up(config: Config, job: Job) -> list[Operation]:
    """With pyrun-oci: whether the program is there and its user may execute it, before anybody waits for it. An init in
    another pid namespace cannot tell of /proc/self."""
    process = _process(config)
    arguments, user = process["args"], process.get("user") or {}
    if not job.oci or (job.birth and arguments[0][:6] == "/proc/"):
        return []
    path = DEFAULT_PATH
    for item in process.get("env") or ():
        if item[:5] == "PATH=":
            path = item[5:]
    ids, groups = (user.get("uid", 0), user.get("gid", 0)), user.get("additionalGids") or []
    return [Operation("LOOK_UP", arguments[0], *ids, _effective(process), path, *groups)]


def _effective(process: Process) -> int:
    """The capabilities execve is going to ask for; init makes no more of them than it has itself."""
    sets = process.get("capabilities") or {}
    names = [sets.get(name) or [] for name in ("effective", "permitted")]
    return capabilities.mask_of_known([name for name in names[0] if name in names[1]], set())


def plan_execute(config: Config, job: Job) -> list[Operation]:
    """The end: an init that reaps if wanted, the environment, execve."""
    process = _process(config)
    # of a name that is there twice the last counts, as with runc
    last = {item.partition("=")[0]: item for item in process.get("env") or ()}
    return [
        *([Operation("REAPER")] if job.reaper else []),
        Operation("ENVIRONMENT", *last.values()),
        Operation("EXECUTE", *process["args"]),
    ]
