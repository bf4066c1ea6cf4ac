"""`pyrun exec`: one more process in a running container, under the container's own restrictions.

What the command line and the image decide is here; how a process gets in, in entering.py.
"""

from __future__ import annotations

from pyrun import boot, launch, launching
from pyrun.errors import Conflict, NotFound, StageFailed, UsageError
from pyrun.jsonlite import loads
from pyrun.plan.job import Job
from pyrun.spec import capabilities, users, values
from pyrun.stages import cgroup, namespaces, rootfs
from pyrun.store import paths, state

from . import background, entering, stdio

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

    from pyrun.spec.oci import Config, Mount, Process, User
    from pyrun.spec.values import Options
    from pyrun.store.record import Record


# As Docker's `exec` ends, whatever it is in the container that the command cannot begin with.
CANNOT_BEGIN = 126


def exec_(options: Options, reference: str, command: list[str]) -> int:
    """Run *command* in the container. Returns 0 with -d; otherwise the monitor takes this process over."""
    launch.need_root("exec")
    stdio.check(options)
    if options.get("workdir") and str(options["workdir"])[0] != "/":
        raise UsageError(f"--workdir {options['workdir']!r} is not an absolute path", "for example -w /srv")
    try:
        container = state.load(state.resolve(reference))
    except NotFound as error:
        raise NotFound(error.message, error.hint, 1) from None
    if state.status(container) != "running":
        raise entering.not_running(reference)
    pid = container.get("pid")
    if not isinstance(pid, int):
        raise Conflict(f"container {reference} has lost its state.json", "", 1)
    pidfd = state.open_process(container)
    if pidfd < 0:
        raise entering.not_running(reference)
    try:
        config = _config(options, container, command, pid)
    except FileNotFoundError:
        if not state.process_alive(container):  # removed meanwhile
            raise entering.not_running(reference) from None
        raise Conflict(f"container {reference} has lost its config.json", "", 1) from None
    job = _job(options, config, container, reference)
    entering.note_unit(job, str(container.get("unit") or ""))
    running_fd = launching.process.fork() if options.get("detach") else -1
    if options.get("detach") and running_fd < 0:
        return 0
    _start(options, config, job, pidfd, running_fd)
    return 0


def _stored_config(container: Record) -> Config:
    """What it was started from: of a bundle a copy, whatever has become of the bundle since."""
    copy = f"{state.run_dir(str(container['id']))}/config.json"
    kept = f"{paths.root()}/containers/{container['id']}/config.json"
    found: Any = loads(paths.read(copy if paths.exists(copy) else kept))
    config: Config = found  # it was checked when the container was made
    assert isinstance(config, dict)
    return config


def _of_files(options: Options) -> list[str]:
    """What --env-file says, which --env overrules."""
    from pyrun.spec import env_file

    return env_file.read(values.texts(options["env_file"]))


def _config(options: Options, container: Record, command: list[str], pid: int) -> Config:
    """The container's own config, with the process that is wanted now."""
    config = _stored_config(container)
    own = config["process"]
    user = own.get("user") or {}
    root = f"/proc/{pid}/root"
    home, mounts = "", config.get("mounts") or []
    if options.get("user"):
        found = _user(str(options["user"]), _added_groups(container), root, mounts)
        user = {"uid": found["uid"], "gid": found["gid"], "additionalGids": found["groups"]}
        home = found["home"]
        if boot.rootless_uid() >= 0:
            from . import rootless

            rootless.check_user(user)
    variables = _variables(options, config, home)
    return {
        **config,
        "process": {
            **own,
            "terminal": bool(options.get("tty")),
            "user": user,
            "args": command,
            "env": users.with_home(variables, user.get("uid") or 0, root, mounts, running=True),
            "cwd": str(options.get("workdir") or own.get("cwd") or "/"),
            "capabilities": _capabilities(options, own, user),
            "rlimits": own.get("rlimits") or [],
        },
    }


def _user(wanted: str, groups: list[str], root: str, mounts: list[Mount]) -> users.Account:
    """Whom the container's own files know by that name."""
    try:
        return users.resolve(wanted, groups, [root], mounts)
    except NotFound as error:
        raise NotFound(error.message, error.hint, CANNOT_BEGIN) from None


def _variables(options: Options, config: Config, home: str) -> list[str]:
    """The container's own, and over them those given now. *home* takes the place of one that nobody gave."""
    own, annotations = config["process"], config.get("annotations") or {}
    merged = {item.partition("=")[0]: item for item in own.get("env") or []}
    if options.get("tty"):
        merged.setdefault("TERM", "TERM=xterm")
    if home and annotations.get(users.HOME) == "default":
        merged["HOME"] = f"HOME={home}"
    given = values.texts(options.get("env"))
    if options.get("env_file"):
        given = _of_files(options) + given
    for item in values.environment(given, "--env"):
        name = item.partition("=")[0]
        if name == item:
            merged.pop(name, None)
        else:
            merged[name] = item
    return list(merged.values())


def _added_groups(container: Record) -> list[str]:
    """--group-add of `run`: whoever it is, they are the container's."""
    groups = container.get("group_add")
    return [str(each) for each in groups] if isinstance(groups, list) else []


def _capabilities(options: Options, own: Process, user: User) -> dict[str, list[str]]:
    """The container's bounding set; held only by root, as for the first process. --privileged: all there are."""
    bounding = (own.get("capabilities") or {}).get("bounding") or []
    if options.get("privileged"):
        bounding = capabilities.names_of(capabilities.available())
    active = bounding if not user.get("uid") else []
    return {"bounding": bounding, "effective": active, "permitted": active, "inheritable": [], "ambient": []}


def _job(options: Options, config: Config, container: Record, reference: str) -> Job:
    hierarchies = cgroup.layout()
    groups = _groups(container, hierarchies) if boot.rootless_uid() < 0 else _of_a_user(container)
    job = Job(str(container["id"]), reference, cgroup.Cgroup(hierarchies, groups))
    job.entering, job.pid = True, container["pid"]
    job.window = stdio.window() if options.get("tty") else (0, 0)
    job.no_seccomp = bool(options.get("privileged"))
    job.namespaces = namespaces.kinds(config)
    job.chroot = rootfs.chroot_place(state.run_dir(job.id), job.namespaces)
    return job


def _groups(container: Record, hierarchies: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Where the start put it in each hierarchy, as state.json has it; one that is torn belongs to an image."""
    recorded = container.get("cgroups")
    if not isinstance(recorded, list) or not recorded:
        return cgroup.directories(hierarchies, f"/pyrun/{container['id']}")
    places = [str(each) for each in recorded]
    return [
        (names, each) for names, mount, _ in hierarchies for each in places if each.startswith(f"{mount}/")
    ]


def _of_a_user(container: Record) -> list[tuple[str, str]]:
    """A user's container has a cgroup only if a limit was asked for, and then in the unified hierarchy."""
    directories = container.get("cgroups")
    return [("unified", str(each)) for each in (directories if isinstance(directories, list) else [])]


def _start(options: Options, config: Config, job: Job, pidfd: int, running_fd: int) -> None:
    """Enter, judge what init reports, hand over to the monitor. Does not return."""
    binary_fd = launch.seal()
    streams = stdio.Stdio(tty=bool(options.get("tty")), interactive=bool(options.get("interactive")))
    try:
        entered = entering.enter(config, job, binary_fd, pidfd, streams.child_fds())
    except StageFailed as error:  # its working directory is not there, say
        error.status = CANNOT_BEGIN
        raise
    streams.close_child_ends()
    if running_fd >= 0:
        background.report(running_fd)
    tty_fd = entered.outcome.tty_fd
    words = streams.monitor_settings(tty_fd, detach=running_fd >= 0)
    launch.become_monitor(
        binary_fd,
        [
            f"id={job.id}",
            f"pid={entered.pid}",
            f"pidfd={entered.pidfd}",
            "status=exit",
            "sigproxy=1",
            "exec=1",
            *words,
        ],
        [entered.pidfd, *streams.monitor_fds(tty_fd)],
    )
