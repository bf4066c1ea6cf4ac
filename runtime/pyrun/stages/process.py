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
from pyrun.plan.operations import Operation, descriptor
from pyrun.spec.defaults import DEFAULT_PATH
from pyrun.spec.values import RLIMITS, linux_section
from pyrun.store import paths


def _process(config: dict[str, object]) -> dict[str, object]:
    process = config["process"]
    assert isinstance(process, dict)
    return process


def _namespaces(config: dict[str, object]) -> dict[str, str]:
    """type -> path, empty for those to be made."""
    return {item["type"]: item.get("path") or "" for item in linux_section(config).get("namespaces") or []}


def plan_guard(config: dict[str, object], job: dict[str, object], moment: str) -> list[Operation]:
    """Not dumpable, at one of the moments "first", "mapped" (the user namespace's maps are written) and "go"."""
    kinds = _namespaces(config)
    if not job.get("entering") and kinds.get("pid") == "":
        wanted = "go"
    elif not job.get("entering") and kinds.get("user") == "":
        wanted = "mapped"
    else:
        wanted = "first"
    operations = [Operation("GUARD")] if moment == wanted else []
    of_a_user = boot.rootless_uid() >= 0
    if job.get("entering") and moment == "first" and (of_a_user or _writes_proc(config)):
        # in the container it may be too late for a procfs, and in its user namespace too early: then it gets the host's
        given = [descriptor(job, "path", "/proc")] if of_a_user or "user" in kinds else []
        operations.append(Operation("PROCFS", *given))
    return operations


def _writes_proc(config: dict[str, object]) -> bool:
    """Whether init is going to need files of its own below /proc. Where a user namespace hides parts of /proc, the
    kernel allows no other one: so it is opened before that."""
    process = _process(config)
    return bool(
        "user" in _namespaces(config)
        or process.get("selinuxLabel")
        or process.get("apparmorProfile")
        or process.get("oomScoreAdj") is not None
    )


def plan_session(config: dict[str, object], job: dict[str, object]) -> list[Operation]:
    """A session of its own, and with a terminal its controlling one; a keyring, under the label of the process. By
    job["keyring"], its name, an `exec` shares it.

    Here, before the pivot, since the terminal's far end is mounted as /dev/console below the root's descriptor.
    """
    process = _process(config)
    label = str(process.get("selinuxLabel") or "")
    keyring = not job.get("no_new_keyring")
    early = _writes_proc(config) and not job.get("entering")
    operations = [Operation("PROCFS")] if early else []
    if label and keyring:  # optional: a kernel without keys
        operations.append(Operation("LABEL", 1, label, "keycreate"))
    name = [str(job["keyring"])] if keyring and job.get("keyring") else []
    operations.append(Operation("SESSION", int(keyring), *name))
    if label and keyring:
        operations.append(Operation("LABEL", 1, "", "keycreate"))
    if process.get("terminal"):
        user = process.get("user")
        uid = user.get("uid", 0) if isinstance(user, dict) else 0
        rows, columns = _window(process, job)
        operations.append(Operation("TERMINAL", rows, columns, uid, int(not job.get("entering"))))
    return operations


def _window(process: dict[str, object], job: dict[str, object]) -> tuple[int, int]:
    """(rows, columns): the caller's terminal if there is one, else process.consoleSize."""
    window, size = job.get("window"), process.get("consoleSize")
    if isinstance(window, tuple) and window != (0, 0):
        return window[0], window[1]
    if isinstance(size, dict):
        return int(size.get("height") or 0) & 0xFFFF, int(size.get("width") or 0) & 0xFFFF
    return (0, 0)


# ── limits ─────────────────────────────────────────────────────────────────────────────────────────


def _limits(config: dict[str, object]) -> list[tuple[int, int, int]]:
    """(resource, soft, hard) of process.rlimits."""
    limits = _process(config).get("rlimits")
    return [
        (RLIMITS[limit["type"][7:].lower()], limit["soft"], limit["hard"])
        for limit in (limits if isinstance(limits, list) else [])
    ]


def plan_limits(config: dict[str, object]) -> list[Operation]:
    """Resource limits and the OOM score, while init may still raise them. In a user namespace: see `outside`."""
    if "user" in _namespaces(config):
        return []
    operations = [
        Operation("RLIMIT", number, _signed(soft), _signed(hard)) for number, soft, hard in _limits(config)
    ]
    score = _process(config).get("oomScoreAdj")
    if score is not None:  # 0 is a wish, too: the caller's may be another
        operations.append(Operation("OOM_SCORE", str(score)))
    return operations


def _signed(value: int) -> int:
    """init reads signed numbers: infinity is -1 there."""
    return value - (1 << 64) if value >= 1 << 63 else value


def needs_outside(config: dict[str, object]) -> bool:
    """Whether `outside` has anything to do, before init is let go on."""
    return "user" in _namespaces(config) and bool(
        _process(config).get("rlimits") or _process(config).get("oomScoreAdj") is not None
    )


def outside(config: dict[str, object], pid: int) -> None:
    """The planner's part in a user namespace, before GO: only outside of it are the rights to raise anything."""
    if not needs_outside(config):
        return
    score = _process(config).get("oomScoreAdj")
    try:
        if score is not None:
            paths.write(f"/proc/{pid}/oom_score_adj", str(score).encode())
    except OSError as error:
        raise StageFailed("process", f"set the out-of-memory score to {score}", error.errno) from None
    import resource

    for number, soft, hard in _limits(config):
        try:
            resource.prlimit(pid, number, (_signed(soft), _signed(hard)))
        except (OSError, ValueError) as error:
            name = next(name for name, value in RLIMITS.items() if value == number)
            number = (error.errno if isinstance(error, OSError) else None) or 1
            raise StageFailed("process", f"limit {name} to {soft} (at most {hard})", number) from None


# ── scheduling ─────────────────────────────────────────────────────────────────────────────────────


def plan_scheduling(config: dict[str, object], job: dict[str, object]) -> list[Operation]:
    """Processors, scheduler, I/O priority, memory nodes, personality: rare, and then their numbers are looked up."""
    process, section = _process(config), linux_section(config)
    operations = _plan_affinity(process, job)
    for key, holder in (
        ("scheduler", process),
        ("ioPriority", process),
        ("memoryPolicy", section),
        ("personality", section),
    ):
        if holder.get(key) is not None:
            from pyrun.spec import scheduling

            operations.append(Operation(*scheduling.WORDS[key](holder[key])))
    return operations


def _plan_affinity(process: dict[str, object], job: dict[str, object]) -> list[Operation]:
    """execCPUAffinity is for `exec` alone, says the runtime-spec: final, here where the cgroups are joined. Without
    any, and for the first process, the caller's processors are forgotten, as runc and crun do."""
    value = process.get("execCPUAffinity") if job.get("entering") else None
    if value:
        from pyrun.spec import scheduling

        final = scheduling.cpu_affinity(value, "final")
        if final or scheduling.cpu_affinity(value, "initial"):
            return [Operation("AFFINITY", *final)] if final else []
    return [Operation("AFFINITY")] if job.get("oci") else []


def narrows(config: dict[str, object]) -> bool:
    """Whether the planner itself has to change its processors for `narrow`."""
    return bool(_process(config).get("execCPUAffinity"))


def narrow(config: dict[str, object]) -> set[int]:
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


# ── the end ────────────────────────────────────────────────────────────────────────────────────────


def plan_directory_made(config: dict[str, object]) -> list[Operation]:
    """The working directory, as root, before the root may turn read-only: Docker makes it when the image has none."""
    path = str(_process(config)["cwd"])
    return [Operation("DIRECTORY", path, 0o755, 0, 0)] if path != "/" else []


def plan_directory(config: dict[str, object]) -> list[Operation]:
    """Go there, while root: a directory its user may not enter is still a working directory."""
    return [Operation("DIRECTORY_CURRENT", str(_process(config)["cwd"]))]


def plan_look_up(config: dict[str, object]) -> list[Operation]:
    """Whether the program is there and may be executed by its user, before anybody waits for it."""
    process = _process(config)
    environment, arguments, user = process.get("env"), process["args"], process.get("user")
    assert isinstance(arguments, list)
    path = DEFAULT_PATH
    for item in environment if isinstance(environment, list) else ():
        if item[:5] == "PATH=":
            path = item[5:]
    user = user if isinstance(user, dict) else {}
    groups = user.get("additionalGids") or []
    return [Operation("LOOK_UP", arguments[0], user.get("uid", 0), user.get("gid", 0), path, *groups)]


def plan_execute(config: dict[str, object], job: dict[str, object]) -> list[Operation]:
    """The end: an init that reaps if wanted, the environment, execve."""
    process = _process(config)
    environment = process.get("env")
    # of a name that is there twice the last counts, as with runc
    last = {item.partition("=")[0]: item for item in (environment if isinstance(environment, list) else [])}
    arguments = process["args"]
    assert isinstance(arguments, list)
    return [
        *([Operation("REAPER")] if job.get("reaper") else []),
        Operation("ENVIRONMENT", *last.values()),
        Operation("EXECUTE", *arguments),
    ]
