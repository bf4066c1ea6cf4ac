"""`pyrun exec`: one more process in a running container, under the container's own restrictions.

What the command line and the image decide is here; how a process gets in, in entering.py.
"""

from __future__ import annotations

from pyrun import boot, launch
from pyrun.errors import Conflict, NotFound, StageFailed, UsageError
from pyrun.jsonlite import loads
from pyrun.spec import capabilities, users, values
from pyrun.stages import cgroup, namespaces
from pyrun.store import paths, state

from . import background, entering, stdio

Options = dict[str, object]

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
    named: dict[str, object] = {"id": container["id"], "reference": reference}
    if state.status(container) != "running":
        raise entering.not_running(named)
    pid = container.get("pid")
    if not isinstance(pid, int):
        raise Conflict(f"container {reference} has lost its state.json", "", 1)
    pidfd = state.open_process(container)
    if pidfd < 0:
        raise entering.not_running(named)
    try:
        config = _config(options, container, command, pid)
    except FileNotFoundError:
        if not state.process_alive(container):  # removed meanwhile
            raise entering.not_running(named) from None
        raise Conflict(f"container {reference} has lost its config.json", "", 1) from None
    job = _job(options, config, container) | named
    entering.note_unit(job, container)
    if options.get("detach"):
        job["running_fd"] = background.fork()
        if job["running_fd"] == -1:
            return 0
    _start(options, config, job, pidfd)
    return 0


def _stored_config(container: dict[str, object]) -> dict[str, object]:
    """What it was started from: of a bundle a copy, whatever has become of the bundle since."""
    copy = f"{state.run_dir(str(container['id']))}/config.json"
    kept = f"{paths.root()}/containers/{container['id']}/config.json"
    config = loads(paths.read(copy if paths.exists(copy) else kept))
    assert isinstance(config, dict)
    return config


def _of_files(options: Options) -> list[str]:
    """What --env-file says, which --env overrules."""
    from pyrun.spec import env_file

    return env_file.read([str(path) for path in options["env_file"]])  # type: ignore[attr-defined]


def _config(
    options: Options, container: dict[str, object], command: list[str], pid: int
) -> dict[str, object]:
    """The container's own config, with the process that is wanted now."""
    config = _stored_config(container)
    own = config["process"]
    assert isinstance(own, dict)
    user = own.get("user") or {}
    root = f"/proc/{pid}/root"
    home = ""
    if options.get("user"):
        found = _user(str(options["user"]), _added_groups(container), root)
        user = {"uid": found["uid"], "gid": found["gid"], "additionalGids": found["groups"]}
        home = str(found["home"])
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
            "env": users.with_home(variables, user.get("uid") or 0, root),
            "cwd": str(options.get("workdir") or own.get("cwd") or "/"),
            "capabilities": _capabilities(options, own, user),
            "rlimits": own.get("rlimits") or [],
        },
    }


def _user(wanted: str, groups: list[str], root: str) -> dict[str, object]:
    """Whom the container's own files know by that name."""
    try:
        return users.resolve(wanted, groups, [root])
    except NotFound as error:
        raise NotFound(error.message, error.hint, CANNOT_BEGIN) from None


def _variables(options: Options, config: dict[str, object], home: str) -> list[str]:
    """The container's own, and over them those given now. *home* takes the place of one that nobody gave."""
    own, annotations = config["process"], config.get("annotations")
    assert isinstance(own, dict)
    merged = {item.partition("=")[0]: item for item in own.get("env") or []}
    if options.get("tty"):
        merged.setdefault("TERM", "TERM=xterm")
    if home and isinstance(annotations, dict) and annotations.get(users.HOME) == "default":
        merged["HOME"] = f"HOME={home}"
    given = [str(item) for item in options.get("env") or []]  # type: ignore[attr-defined]
    if options.get("env_file"):
        given = _of_files(options) + given
    for item in values.environment(given, "--env"):
        name = item.partition("=")[0]
        if name == item:
            merged.pop(name, None)
        else:
            merged[name] = item
    return list(merged.values())


def _added_groups(container: dict[str, object]) -> list[str]:
    """--group-add of `run`: whoever it is, they are the container's."""
    groups = container.get("group_add")
    return [str(each) for each in groups] if isinstance(groups, list) else []


def _capabilities(options: Options, own: dict[str, object], user: dict[str, object]) -> dict[str, object]:
    """The container's bounding set; held only by root, as for the first process. --privileged: all there are."""
    stored = own.get("capabilities")
    bounding = stored.get("bounding") or [] if isinstance(stored, dict) else []
    if options.get("privileged"):
        bounding = capabilities.names_of(capabilities.available())
    active = bounding if not user.get("uid") else []
    return {"bounding": bounding, "effective": active, "permitted": active, "inheritable": [], "ambient": []}


def _job(options: Options, config: dict[str, object], container: dict[str, object]) -> dict[str, object]:
    hierarchies = cgroup.layout()
    return {
        "id": container["id"],
        "pid": container["pid"],
        "entering": True,
        "hierarchies": hierarchies,
        "cgroups": _groups(container, hierarchies) if boot.rootless_uid() < 0 else _of_a_user(container),
        "window": stdio.window() if options.get("tty") else None,
        "no_seccomp": bool(options.get("privileged")),
        "namespaces": namespaces.kinds(config),
    }


def _groups(container: dict[str, object], hierarchies: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Where the start put it in each hierarchy, as state.json has it; one that is torn belongs to an image."""
    recorded = container.get("cgroups")
    if not isinstance(recorded, list) or not recorded:
        return cgroup.directories(hierarchies, f"/pyrun/{container['id']}")
    places = [str(each) for each in recorded]
    return [
        (names, each) for names, mount, _ in hierarchies for each in places if each.startswith(f"{mount}/")
    ]


def _of_a_user(container: dict[str, object]) -> list[tuple[str, str]]:
    """A user's container has a cgroup only if a limit was asked for, and then in the unified hierarchy."""
    directories = container.get("cgroups")
    return [("unified", str(each)) for each in (directories if isinstance(directories, list) else [])]


def _start(options: Options, config: dict[str, object], job: dict[str, object], pidfd: int) -> None:
    """Enter, judge what init reports, hand over to the monitor. Does not return."""
    binary_fd = launch.seal()
    streams = stdio.Stdio(tty=bool(options.get("tty")), interactive=bool(options.get("interactive")))
    try:
        entered = entering.enter(config, job, binary_fd, pidfd, streams.child_fds())
    except StageFailed as error:  # its working directory is not there, say
        error.status = CANNOT_BEGIN
        raise
    streams.close_child_ends()
    running_fd = job.get("running_fd")
    if isinstance(running_fd, int):
        background.report(running_fd)
    tty_fd = entered.outcome.tty_fd
    words = streams.monitor_settings(tty_fd, detach=isinstance(running_fd, int))
    launch.become_monitor(
        binary_fd,
        [
            f"id={job['id']}",
            f"pid={entered.pid}",
            f"pidfd={entered.pidfd}",
            "status=exit",
            "sigproxy=1",
            *words,
        ],
        [entered.pidfd, *streams.monitor_fds(tty_fd)],
    )
