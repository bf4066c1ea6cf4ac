"""From a bundle to a `Launch`, for `create` and `run`: config.json decides everything, nothing is done yet.

Options: --bundle, --config, --root, --no-pivot, --no-new-keyring, --preserve-fds, --console-socket, --systemd-cgroup,
--cgroup-manager. What is the caller's and not the config's is checked here: who gets the terminal, which of the
caller's descriptors go in. Source: runtime-spec bundle.md, config.md; runc(8).
"""

from __future__ import annotations

import posix
import time

from pyrun import launch, launching
from pyrun.errors import Conflict, UsageError
from pyrun.jsonlite import dumps
from pyrun.plan.job import Job
from pyrun.spec import check, config_file, seccomp, users
from pyrun.spec.values import linux_section
from pyrun.stages import cgroup, namespaces, rootfs
from pyrun.store import bundles, paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cgroups.rdt import Rdt
    from pyrun.spec.oci import Config, Process
    from pyrun.spec.values import Options


def prepare(options: Options, identifier: str, *, waits: bool) -> launch.Launch:
    """waits: init stops at START until `start` comes (create), else it goes on to the command (run)."""
    bundle = bundle_of(options)
    found, raw = config_file.read(str(options.get("config") or f"{bundle}/config.json"))
    config = check.config(found, rootless=posix.geteuid() != 0)
    launch.check_where(config)
    process: Any = config["process"]
    root = bundles.root_of(options)
    run_dir = bundles.directory(root, identifier)
    if paths.exists(run_dir):
        raise _exists(identifier)
    _check_user(config, process)
    job = job_of(options, config, identifier, bundle, run_dir)
    _descriptors(options, process, job)
    if b"NOTIFY_SOCKET" in posix.environ:
        _notify(config, job)
    program = _seccomp(config, job)
    if waits:
        job.start_fd = launch.CHILD_FD_START
        job.start_early = bool(program) and _forbids_waiting(config, job)
    prepared = launch.assemble(config, job)
    prepared.keep_fds = [*[(number, number) for number in range(3)], *job.preserved]
    launch.add_filter(prepared, program)
    launch.claim(prepared, [f"rmtree\t{run_dir}"])
    prepared.state = _state(config, job)
    prepared.make = lambda: _make(run_dir, raw, prepared)
    return prepared


def _exists(identifier: str) -> Conflict:
    """In runc's words, which callers look for."""
    hint = f"choose another id than {identifier:.64}, or remove that container"
    return Conflict("container with given ID already exists", hint)


def _check_user(config: Config, process: Process) -> None:
    """Raise UsageError for a user that a new user namespace has no id for."""
    if "user" in namespaces.made(config):
        from pyrun.spec import check_ids

        section = linux_section(config)
        mappings = {
            "uidMappings": section.get("uidMappings") or [],
            "gidMappings": section.get("gidMappings") or [],
        }
        check_ids.mapped(process.get("user") or {}, mappings, "config.json: process.user")


def bundle_of(options: Options) -> str:
    """--bundle as an absolute path; the current directory without it."""
    given = str(options.get("bundle") or posix.getcwd())
    return (given if given[:1] == "/" else f"{posix.getcwd()}/{given}").rstrip("/") or "/"


def job_of(options: Options, config: Config, identifier: str, bundle: str, run_dir: str) -> Job:
    """What the stages need to know beside the config."""
    root, rootless = root_directory(config, bundle), posix.geteuid() != 0
    try:
        place = cgroup.place(config, identifier, driver_of(options), rootless=rootless)
    except Conflict:  # of one id: whose cgroup it is has a container already, perhaps since a moment ago
        if paths.exists(run_dir):
            raise _exists(identifier) from None
        raise
    job = Job(identifier, identifier, place)
    job.oci, job.rootless = True, rootless
    job.run_dir, job.keep, job.bundle, job.root = run_dir, bundle, bundle, root
    job.namespaces, job.made = namespaces.kinds(config), namespaces.made(config)
    job.chroot = rootfs.chroot_place(run_dir, job.namespaces)
    job.loopback, job.user_namespace = "network" in job.made, "user" in job.namespaces
    job.birth = bool(namespaces.path_of(config, "pid"))
    job.early = job.user_namespace or place.late
    job.no_pivot, job.no_new_keyring = bool(options.get("no_pivot")), bool(options.get("no_new_keyring"))
    job.keyring = f"_ses.{identifier}.{posix.urandom(8).hex()}"
    add_home(config, config["process"], root, bundle)
    return job


def add_home(config: Any, process: Any, root: str, bundle: str = "", *, running: bool = False) -> None:
    """HOME, if the process has none: from the container's /etc/passwd, see users.with_home."""
    uid, mounts = (process.get("user") or {}).get("uid", 0), config.get("mounts")
    process["env"] = users.with_home(process.get("env") or [], uid, root, mounts, bundle, running=running)


def has_terminal(config: Config) -> bool:
    """process.terminal."""
    process = config.get("process")
    return isinstance(process, dict) and bool(process.get("terminal"))


def driver_of(options: Options) -> str:
    """Who makes cgroups: --systemd-cgroup (runc), --cgroup-manager (crun)."""
    return "systemd" if options.get("systemd_cgroup") else str(options.get("cgroup_manager") or "cgroupfs")


def root_directory(config: Config, bundle: str) -> str:
    """root.path, absolute. Raises UsageError unless it is a directory."""
    section: Any = config["root"]
    path = section["path"]
    path = path if path[:1] == "/" else f"{bundle}/{path}"
    try:
        if posix.stat(path).st_mode & 0o170000 == 0o040000:
            return path
        reason = "not a directory"
    except OSError as error:
        reason = str(error.strerror)
    raise UsageError(f"config.json: root.path: {path}: {reason}", "the bundle's root file system is missing")


def _descriptors(options: Options, process: Process, job: Job) -> None:
    """Terminal and inherited descriptors."""
    job.window = window(options, process)
    job.plain_lines = plain_lines(options, process)
    job.preserve = preserved(options, process)


def window(options: Options, process: Process) -> tuple[int, int]:
    """(rows, columns) of the process's terminal: as its consoleSize says, else as the caller's terminal is."""
    size = process.get("consoleSize")
    rows, columns = (size["height"], size["width"]) if size else (0, 0)
    if not process.get("terminal") or rows or columns or options.get("console_socket"):
        return rows, columns
    from pyrun.engine import stdio

    return stdio.window()


def plain_lines(options: Options, process: Process) -> bool:
    """Whether what comes from the process's terminal goes on to a file or pipe of the caller's: then its lines end as
    the process writes them. runc has it so whatever standard output is, and crun never."""
    return bool(process.get("terminal")) and not options.get("console_socket") and not posix.isatty(1)


def terminal_words(job: Job, tty_fd: int) -> list[str]:
    """The monitor's words for the process's terminal. 2: of the caller's, input alone turns raw."""
    return [f"tty={tty_fd}", f"interactive={2 if job.plain_lines else 1}"]


def preserved(options: Options, process: Process) -> int:
    """How many descriptors from 3 on the process inherits: --preserve-fds and LISTEN_FDS, all open."""
    given = options.get("preserve_fds")
    count = given if isinstance(given, int) else 0
    if b"LISTEN_FDS" in posix.environ:
        from .notify_socket import listen_fds

        listening, added = listen_fds(posix.environ)
        count += listening
        process["env"] = [*(process.get("env") or []), *added]
    launching.process.only_here(count)
    for number in range(3, 3 + count):
        try:
            posix.fstat(number)
        except OSError:
            hint = "the caller has to open it"
            raise UsageError(f"--preserve-fds {count}: descriptor {number} is not open", hint) from None
    return count


def _notify(config: Config, job: Job) -> None:
    """A socket of the container's own in the place of systemd's."""
    from . import notify_socket

    if notify_socket.host_socket(posix.environ):
        mount, variable = notify_socket.additions(job.run_dir)
        config["mounts"] = [*(config.get("mounts") or []), mount]
        config["process"]["env"] = [*(config["process"].get("env") or []), variable]
        job.notify = True


def _seccomp(config: Config, job: Job) -> str:
    """The path of linux.seccomp's compiled program, or nothing."""
    try:
        found = seccomp.of_config(config)
    except UsageError as error:
        raise UsageError(f"config.json: {error.message}", error.hint) from None
    if found is None:
        return ""
    job.seccomp = (launch.CHILD_FD_SECCOMP, found[1])
    return found[0]


# What init does in `create` until `start` comes (csrc/init_hooks.c, op_start).
_WAITING = ("accept4", "close", "madvise", "read", "rt_sigaction", "rt_sigprocmask", "write")


def _forbids_waiting(config: Config, job: Job) -> bool:
    """Whether the filter, loaded before the privileges go, would not let init wait after that. Raises UsageError where
    init must not wait before, since others live in its pid namespace."""
    profile = linux_section(config).get("seccomp")
    late = config["process"].get("noNewPrivileges")
    if late or not isinstance(profile, dict) or seccomp.allows(profile, _WAITING):
        return False
    if job.birth:
        wanted = ", ".join(_WAITING)
        hint = f"allow {wanted}, or set process.noNewPrivileges"
        raise UsageError(
            "config.json: linux.seccomp: create in a pid namespace by path needs more calls", hint
        )
    return True


def _state(config: Config, job: Job) -> dict[str, object]:
    """state.json without the process."""
    now = time.time_ns()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    return {
        "ociVersion": config.get("ociVersion") or "1.0.0",
        "id": job.id,
        "bundle": job.bundle,
        "rootfs": job.root,
        "created": f"{seconds}.{now % 1_000_000_000:09d}Z",
        "annotations": config.get("annotations") or {},
        "cgroups": [list(group) for group in job.cgroup.groups],
        "driver": job.cgroup.driver,
        "unit": job.cgroup.unit,
        "namespaces": job.namespaces,
        "made": job.made,
        "no_new_keyring": job.no_new_keyring,
        "keyring": job.keyring,
        "privileged_wait": job.start_early,
        "rdt": _rdt(job.cgroup.rdt),
    }


def _rdt(group: Rdt | None) -> dict[str, str] | None:
    return {"directory": group.directory, "monitor": group.monitor} if group else None


def _make(run_dir: str, raw: bytes, prepared: launch.Launch) -> None:
    """What later verbs need: the config as it is now, where `start` finds init, and the rest of the plan for the
    wording of what may fail then."""
    paths.write(f"{run_dir}/config.json", raw)
    if prepared.job.notify:
        from . import notify_socket

        notify_socket.make(run_dir)
    if prepared.job.start_fd < 0:
        return
    rest = [[each.kind, *each.args[:8]] for each in prepared.operations]
    paths.write(f"{run_dir}/plan.json", dumps(rest).encode("utf-8", "surrogateescape"))
    import _socket

    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    directory_fd = posix.open(run_dir, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    mask = posix.umask(0o177)
    socket.bind(f"/proc/self/fd/{directory_fd}/start.sock")  # a socket's path has room for 107 bytes
    posix.umask(mask)
    posix.close(directory_fd)
    socket.listen(8)
    prepared.keep_fds.append((socket.detach(), launch.CHILD_FD_START))
