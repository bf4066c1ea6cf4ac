"""From a bundle to a `Launch`, for `create` and `run`: config.json decides everything, nothing is done yet.

Options: --bundle, --root, --no-pivot, --no-new-keyring, --preserve-fds, --console-socket, --systemd-cgroup,
--cgroup-manager. What is the caller's and not the config's is checked here: who gets the terminal, which of the
caller's descriptors go in. Source: runtime-spec bundle.md, config.md; runc(8).
"""

from __future__ import annotations

import posix
import time

from pyrun import caller, launch
from pyrun.errors import Conflict, UsageError
from pyrun.jsonlite import dumps
from pyrun.plan import plan as plans
from pyrun.spec import check, config_file, seccomp, users
from pyrun.spec.values import linux_section
from pyrun.stages import cgroup, namespaces
from pyrun.store import bundles, paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

Options = dict[str, object]


def prepare(options: Options, identifier: str, *, waits: bool) -> launch.Launch:
    """waits: init stops at START until `start` comes (create), else it goes on to the command (run)."""
    bundle = bundle_of(options)
    found, raw = config_file.read(f"{bundle}/config.json")
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
        job["start_fd"] = launch.CHILD_FD_START
    prepared = launch.Launch(config, job, plans.compose(config, job))
    prepared.before = cgroup.before(config, job)
    prepared.keep_fds = [(number, number) for number in range(3)]
    prepared.keep_fds += job.get("preserved") or []
    if program:
        fd = posix.open(program, posix.O_RDONLY | posix.O_CLOEXEC)
        prepared.keep_fds.append((fd, launch.CHILD_FD_SECCOMP))
    prepared.undo = launch.undo_list(prepared, [f"rmtree\t{run_dir}"])
    prepared.state = _state(config, job)
    prepared.make = lambda: _make(run_dir, raw, prepared)
    return prepared


def _exists(identifier: str) -> Conflict:
    """In runc's words, which callers look for."""
    hint = f"choose another id than {identifier:.64}, or remove that container"
    return Conflict("container with given ID already exists", hint)


def _check_user(config: dict[str, object], process: dict[str, Any]) -> None:
    """Raise UsageError for a user that a new user namespace has no id for."""
    if "user" in namespaces.made(config):
        from pyrun.spec import check_ids

        section = linux_section(config)
        mappings = {key: section.get(key) or [] for key in ("uidMappings", "gidMappings")}
        check_ids.mapped(process.get("user") or {}, mappings, "config.json: process.user")


def bundle_of(options: Options) -> str:
    """--bundle as an absolute path; the current directory without it."""
    given = str(options.get("bundle") or posix.getcwd())
    return (given if given[:1] == "/" else f"{posix.getcwd()}/{given}").rstrip("/") or "/"


def job_of(
    options: Options, config: dict[str, object], identifier: str, bundle: str, run_dir: str
) -> dict[str, Any]:
    """What the stages need to know beside the config, see stages/__init__.py."""
    hierarchies = cgroup.layout()
    own = namespaces.made(config)
    kinds = namespaces.kinds(config)
    job: dict[str, Any] = {
        "id": identifier,
        "name": identifier,
        "run_dir": run_dir,
        "keep": bundle,
        "root": root_directory(config, bundle),
        "bundle": bundle,
        "namespaces": kinds,
        "made": own,
        "hierarchies": hierarchies,
        "loopback": "network" in own,
        "user_namespace": "user" in kinds,
        "rootless": posix.geteuid() != 0,
        "no_pivot": bool(options.get("no_pivot")),
        "no_new_keyring": bool(options.get("no_new_keyring")),
        "keyring": f"_ses.{identifier}.{posix.urandom(8).hex()}",
        "driver": driver_of(options),
        "oci": True,
        "dry_run": False,
    }
    try:
        job["cgroups"] = cgroup.groups(config, job)
    except Conflict:  # of one id: whose cgroup it is has a container already, perhaps since a moment ago
        if paths.exists(run_dir):
            raise _exists(identifier) from None
        raise
    job["early"] = "user" in kinds or cgroup.joined_late(job)
    add_home(config["process"], str(job["root"]))
    return job


def add_home(process: Any, root: str) -> None:
    """HOME, if the process has none: from the container's /etc/passwd below *root*."""
    uid = (process.get("user") or {}).get("uid", 0)
    process["env"] = users.with_home(process.get("env") or [], uid, root)


def has_terminal(config: dict[str, object]) -> bool:
    """process.terminal."""
    process = config.get("process")
    return isinstance(process, dict) and bool(process.get("terminal"))


def driver_of(options: Options) -> str:
    """Who makes cgroups: --systemd-cgroup (runc), --cgroup-manager (crun)."""
    return "systemd" if options.get("systemd_cgroup") else str(options.get("cgroup_manager") or "cgroupfs")


def root_directory(config: dict[str, object], bundle: str) -> str:
    """root.path, absolute. Raises UsageError unless it is a directory."""
    section: Any = config["root"]
    path = str(section["path"])
    path = path if path[:1] == "/" else f"{bundle}/{path}"
    try:
        if posix.stat(path).st_mode & 0o170000 == 0o040000:
            return path
        reason = "not a directory"
    except OSError as error:
        reason = str(error.strerror)
    raise UsageError(f"config.json: root.path: {path}: {reason}", "the bundle's root file system is missing")


def _descriptors(options: Options, process: dict[str, Any], job: dict[str, Any]) -> None:
    """Terminal and inherited descriptors."""
    job["window"] = window(options, process)
    job["preserve"] = preserved(options, process)


def window(options: Options, process: dict[str, Any]) -> tuple[int, int]:
    """(rows, columns) of the process's terminal: as its consoleSize says, else as the caller's terminal is."""
    size = process.get("consoleSize") or {}
    rows, columns = int(size.get("height") or 0), int(size.get("width") or 0)
    if not process.get("terminal") or rows or columns or options.get("console_socket"):
        return rows, columns
    from pyrun.engine import stdio

    return stdio.window()


def preserved(options: Options, process: dict[str, Any]) -> int:
    """How many descriptors from 3 on the process inherits: --preserve-fds and LISTEN_FDS, all open."""
    count = int(str(options.get("preserve_fds") or 0))
    if b"LISTEN_FDS" in posix.environ:
        from .notify_socket import listen_fds

        listening, added = listen_fds(posix.environ)
        count += listening
        process["env"] = [*(process.get("env") or []), *added]
    caller.only_here(count)
    for number in range(3, 3 + count):
        try:
            posix.fstat(number)
        except OSError:
            hint = "the caller has to open it"
            raise UsageError(f"--preserve-fds {count}: descriptor {number} is not open", hint) from None
    return count


def _notify(config: dict[str, Any], job: dict[str, Any]) -> None:
    """A socket of the container's own in the place of systemd's."""
    from . import notify_socket

    if notify_socket.host_socket(posix.environ):
        mount, variable = notify_socket.additions(job["run_dir"])
        config["mounts"] = [*(config.get("mounts") or []), mount]
        config["process"]["env"] = [*(config["process"].get("env") or []), variable]
        job["notify"] = True


def _seccomp(config: dict[str, object], job: dict[str, Any]) -> str:
    """The path of linux.seccomp's compiled program, or nothing."""
    try:
        found = seccomp.of_config(config)
    except UsageError as error:
        raise UsageError(f"config.json: {error.message}", error.hint) from None
    if found is None:
        return ""
    job["seccomp"] = (launch.CHILD_FD_SECCOMP, found[1])
    return found[0]


def _state(config: dict[str, object], job: dict[str, Any]) -> dict[str, object]:
    """state.json without the process."""
    now = time.time_ns()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    return {
        "ociVersion": config.get("ociVersion") or "1.0.0",
        "id": job["id"],
        "bundle": job["bundle"],
        "rootfs": job["root"],
        "created": f"{seconds}.{now % 1_000_000_000:09d}Z",
        "annotations": config.get("annotations") or {},
        "cgroups": [list(group) for group in job["cgroups"]],
        "driver": job["driver"],
        "unit": job.get("unit", ""),
        "namespaces": job["namespaces"],
        "made": job["made"],
        "no_new_keyring": job["no_new_keyring"],
        "keyring": job["keyring"],
        "rdt": {key: job["rdt"][key] for key in ("directory", "monitor")} if job.get("rdt") else None,
    }


def _make(run_dir: str, raw: bytes, prepared: launch.Launch) -> None:
    """What later verbs need: the config as it is now, where `start` finds init, and the rest of the plan for the
    wording of what may fail then."""
    paths.write(f"{run_dir}/config.json", raw)
    if prepared.job.get("notify"):
        from . import notify_socket

        notify_socket.make(run_dir)
    if "start_fd" not in prepared.job:
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
