"""`pyrun-oci exec`: one more process in a container, from flags or from --process FILE.

What the flags leave open comes from the config the container was created with. Source: runc-exec(8).
"""

from __future__ import annotations

import posix

from pyrun import launch, launching
from pyrun.engine import entering
from pyrun.errors import Conflict, PyrunError, UsageError
from pyrun.plan.job import Job
from pyrun.safe import is_number
from pyrun.spec import check_rules, check_table, values
from pyrun.stages import cgroup, rootfs
from pyrun.store import bundles, state

from . import delivery, hooks, prepare

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

    from pyrun.spec.oci import Config, Process, User
    from pyrun.spec.values import Options
    from pyrun.store.record import BundleRecord

ID_LIMIT = (1 << 32) - 2


def exec_(options: Options, identifier: str, command: list[str]) -> int:
    """With --detach returns 0 with the command executing; otherwise the monitor takes this process over."""
    container = bundles.load(bundles.root_of(options), identifier)
    binary_fd = launch.seal()
    pidfd = _opened(options, container)
    config = bundles.config(container)
    process = _process(options, config, command)
    prepare.add_home(config, process, f"/proc/{container['pid']}/root", running=True)
    detached, terminal = bool(options.get("detach")), bool(process.get("terminal"))
    delivery.check(options, terminal=terminal, detached=detached or bool(options.get("console_socket")))
    job = _job(options, container, process)
    entering.note_unit(job, str(container.get("unit") or ""))
    config["process"] = process
    keep = [(number, number) for number in range(3)]
    entered = entering.enter(
        config,
        job,
        binary_fd,
        pidfd,
        keep,
        lambda sync, number, entered: _listener(container, sync, number, entered),
    )
    tty_fd = entered.outcome.tty_fd
    try:
        delivery.deliver(options, entered.pid, entered.pidfd, tty_fd)
    except PyrunError:
        entering.abandon(entered)
        raise
    if detached:
        return 0
    words = [f"id={identifier}", f"pid={entered.pid}", f"pidfd={entered.pidfd}", "status=exit", "sigproxy=1"]
    inherited = [entered.pidfd]
    if terminal and not options.get("console_socket"):
        words += prepare.terminal_words(job, tty_fd)
        inherited.append(tty_fd)
    launch.become_monitor(binary_fd, words, inherited)
    return 0


def _opened(options: Options, container: BundleRecord) -> int:
    """A pidfd of the container's first process. Raises Conflict for one that nothing can be executed in."""
    status = bundles.status(container)
    if status == "paused" and not options.get("ignore_paused"):
        raise Conflict("cannot exec in a paused container (use --ignore-paused to override)")
    pidfd = -1 if status == "stopped" else state.open_process(container)
    if pidfd < 0:
        raise entering.not_running("", oci=True)
    if status == "creating":  # until the pivot its root is the host's
        raise Conflict("cannot exec in a container in the creating state")
    if status == "created" and container.get("privileged_wait"):
        hint = "start it first, or allow accept4 in linux.seccomp"
        raise Conflict(
            "cannot exec in a created container whose filter makes init wait with all privileges", hint
        )
    if "namespaces" not in container:  # state.json is torn: and without a word of them, none would be entered
        hint = "only `delete --force` is left for it"
        raise Conflict(f"container {container['id']} has lost its state.json", hint)
    return pidfd


def _listener(container: BundleRecord, sync: int, number: int, entered: entering.Entered) -> None:
    """SCMP_ACT_NOTIFY: its agent gets one more listener."""
    from . import seccomp_agent

    config = bundles.config(container)
    shown = hooks.state_of(config, container, "running", int(container["pid"]))
    seccomp_agent.forward(sync, number, (entered.pid, entered.pidfd), config, shown)


def _process(options: Options, config: Config, command: list[str]) -> Process:
    """The process to run: the file's, or the container's own with the flags over it."""
    own = config.get("process") or {}
    if options.get("process"):
        return _of_file(str(options["process"]), own)
    if not command:
        raise UsageError("exec args cannot be empty", "pyrun-oci exec ID COMMAND")
    process: Process = {**own, "args": command, "terminal": bool(options.get("tty"))}
    if not own.get("terminal"):
        process.pop("consoleSize", None)  # as check.py has it: what it is was not looked at
    process["env"] = [*(own.get("env") or []), *_variables(options)]
    if options.get("cwd"):
        check_rules.absolute(options["cwd"], "--cwd")
        process["cwd"] = str(options["cwd"])
    if options.get("process_label"):
        process["selinuxLabel"] = str(options["process_label"])
    if options.get("apparmor"):
        process["apparmorProfile"] = str(options["apparmor"])
    if options.get("no_new_privs") is not None:
        process["noNewPrivileges"] = bool(options["no_new_privs"])
    process["user"] = _user(options, own.get("user") or {})
    if options.get("user"):
        _check_mapped(config, process["user"])
    extra = values.texts(options.get("cap"))
    if extra:
        process["capabilities"] = _with(own.get("capabilities") or {}, extra)
    return process


# What --process leaves open and is the container's. Source: runc's behaviour, which leaves rlimits to the caller.
_INHERITED = (
    "capabilities", "apparmorProfile", "selinuxLabel", "oomScoreAdj", "scheduler", "ioPriority", "execCPUAffinity"
)  # fmt: skip


def _of_file(path: str, own: Process) -> Process:
    """--process: a whole process, but for what it says nothing of and is the container's, see _INHERITED."""
    from pyrun.spec import check, config_file

    launching.process.only_here(_of_this_process(path))
    process: Any = check.process(
        config_file.read(path, f"--process {path}", piped=True)[0], f"--process {path}"
    )
    for key, value in own.items():
        if key in _INHERITED and value is not None and process.get(key) in (None, ""):
            process[key] = value
    checked: Process = process
    return checked


def _of_this_process(path: str) -> bool:
    """Whether a path is a pipe, or means something in this process alone: <(command) of a shell is /dev/fd/63."""
    try:
        pipe = posix.stat(path).st_mode & 0o170000 == 0o010000
    except OSError:
        pipe = False
    return pipe or path[:5] == "/dev/" or path[:6] == "/proc/"


def _variables(options: Options) -> list[str]:
    """--env, by the rule that config.json is checked by."""
    given = values.texts(options.get("env"))
    for item in given:
        check_table.variable(item, "--env")
    return given


def _user(options: Options, own: User) -> User:
    """--user UID[:GID] and --additional-gids: numbers, and nothing that only looks like one (CVE-2026-30892)."""
    user = own.copy()
    if options.get("user"):
        text = str(options["user"])
        parts = text.split(":", 1)
        user["uid"] = _number(parts[0], f"--user {text}")
        if len(parts) == 2:
            user["gid"] = _number(parts[1], f"--user {text}")
    groups = values.texts(options.get("additional_gids"))
    if groups:
        added = [_number(text, f"--additional-gids {text}") for text in groups]
        user["additionalGids"] = [*(user.get("additionalGids") or []), *added]
    return user


def _check_mapped(config: Config, user: User) -> None:
    """--user in a user namespace that config.json maps. Raises UsageError."""
    section = values.linux_section(config)
    mappings = {
        "uidMappings": section.get("uidMappings") or [],
        "gidMappings": section.get("gidMappings") or [],
    }
    if all(mappings.values()):
        from pyrun.spec import check_ids

        check_ids.mapped(user, mappings, "--user")


def _number(text: str, option: str) -> int:
    if not is_number(text) or int(text) > ID_LIMIT:
        raise UsageError(f"{option}: {text!r} is not a number from 0 to {ID_LIMIT}", "as UID[:GID]")
    return int(text)


def _with(own: dict[str, Any], extra: list[str]) -> dict[str, Any]:
    """--cap: in every set but the inheritable one, as runc since 1.1.2 (CVE-2022-29162); so it becomes ambient only
    where the container's process has it inheritable. Unknown ones are told of where config.json's are, see
    stages/security.py."""
    sets = {name: list(own.get(name) or []) for name in ("bounding", "effective", "permitted", "ambient")}
    for name in sets:
        sets[name] += [each for each in extra if each not in sets[name]]
    return {**own, **sets}


def _job(options: Options, container: BundleRecord, process: Process) -> Job:
    groups = [(str(names), str(directory)) for names, directory in container.get("cgroups") or ()]
    place = cgroup.Cgroup(cgroup.layout(), _sub_cgroups(options, groups))
    if found := container.get("rdt"):
        from pyrun.cgroups import rdt

        place.rdt = rdt.Rdt(found["directory"], found["monitor"])
    job = Job(str(container["id"]), str(container["id"]), place)
    job.entering = job.oci = True
    job.pid = int(container["pid"])
    job.namespaces = container.get("namespaces") or []
    job.chroot = rootfs.chroot_place(str(container["directory"]), job.namespaces)
    job.window, job.plain_lines = prepare.window(options, process), prepare.plain_lines(options, process)
    job.preserve = prepare.preserved(options, process)
    job.no_new_keyring = bool(container.get("no_new_keyring"))
    job.keyring = str(container.get("keyring") or "")
    return job


def _sub_cgroups(options: Options, groups: list[Any]) -> list[Any]:
    """--cgroup [CONTROLLERS:]PATH, below the container's own."""
    for given in values.texts(options.get("cgroup")):
        names, colon, path = given.rpartition(":")
        parts = path.strip("/").split("/") if path.strip("/") else []
        if ".." in parts:
            raise UsageError(f"--cgroup {given!r}: a path below the container's own cgroup, without ..")
        wanted = names.split(",") if colon else []
        known = {name for own, _ in groups for name in own.split(",")}
        for name in wanted:
            if name not in known:
                raise UsageError(f"--cgroup {given}: the container has no cgroup of a controller {name!r}")
        meant = [not wanted or not set(wanted).isdisjoint(own.split(",")) for own, _ in groups]
        groups = [
            (own, _sub_cgroup(given, [directory, *parts]) if chosen else directory)
            for chosen, (own, directory) in zip(meant, groups, strict=True)
        ]
    return groups


def _sub_cgroup(given: str, parts: list[str]) -> str:
    """The directory, which has to be there. Raises UsageError."""
    path = "/".join(parts)
    try:
        posix.stat(path)
    except OSError as error:
        raise UsageError(f"--cgroup {given}: {path}: {error.strerror}", "exec makes no cgroups") from None
    return path
