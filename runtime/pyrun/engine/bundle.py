"""`pyrun run --bundle DIR [ID]`: an OCI bundle, as `runc run` does it.

config.json decides everything but the network, which --network may add. Standard input, output and error are
the caller's own, or a terminal if the config asks for one, and nothing is logged; with -d what it writes goes to a log,
as an image's does. Nothing outlives the run.
Source: runtime-spec bundle.md, runtime.md#lifecycle.
"""

from __future__ import annotations

import posix

from pyrun import boot, launch, launching
from pyrun.errors import Conflict, UsageError
from pyrun.jsonlite import dumps
from pyrun.network import requests, resolver
from pyrun.spec import check, config_file, seccomp, values
from pyrun.stages import hooks, namespaces
from pyrun.store import containers, paths, state

from . import explaining, reconcile, stdio
from .oci import create
from .oci import prepare as oci
from .oci import run as oci_run

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.network.requests import Request
    from pyrun.spec.oci import Config, Process
    from pyrun.spec.values import Options


# What `run` is told beside the config; any other option is refused, for it would have no effect.
TAKES = frozenset((
    "bundle", "detach", "dns", "dry_run", "egress", "explain", "expose", "interactive", "ip", "ip6", "mac_address",
    "name", "net_fault", "net_rate", "network", "network_alias", "publish", "publish_all", "publish_through_firewall",
    "rm", "sig_proxy",
))  # fmt: skip
# Of these, what needs an interface to have an effect.
_WIRED = (
    "dns", "egress", "expose", "net_fault", "net_rate", "publish", "publish_all", "publish_through_firewall",
)  # fmt: skip


def run(options: Options, arguments: list[str]) -> str:
    """Run the bundle. Returns the container's id with -d; a foreground run does not return."""
    launch.mark("imports")
    launch.need_root("run")
    reconcile.reconcile_quietly()
    if options.get("detach"):
        return _run_detached(options, arguments)
    launch.persistently(lambda: _begin(options, arguments, -1))
    raise AssertionError("the monitor has taken over")


def _run_detached(options: Options, arguments: list[str]) -> str:
    """-d: the start goes on in a child, so the id is known before."""
    if not (arguments or options.get("name")):
        arguments = [containers.new_id()]
    running_fd = launching.process.fork()
    if running_fd < 0:
        return str(options.get("name") or arguments[0])
    launch.persistently(lambda: _begin(options, arguments, running_fd))
    raise AssertionError("the monitor has taken over")


def _begin(options: Options, arguments: list[str], running_fd: int) -> None:
    """Plan and start. Does not return."""
    binary_fd = launch.seal()  # before anything is claimed
    prepared, raw = _decide(options, arguments)
    if prepared.job.seccomp:
        launch.add_filter(prepared, (seccomp.of_config(prepared.config) or ("", 0))[0])
    keep = _kept_in(options, prepared)
    launch.claim(prepared, _undone_last(prepared, keep))
    record = _record(options, prepared) if prepared.request else b""
    prepared.make = lambda: _make(prepared.job.run_dir, keep, raw, record)
    prepared.running_fd = running_fd
    explaining.announce(options, prepared)
    _start(options, prepared, binary_fd)


def plan_only(options: Options, arguments: list[str]) -> launch.Launch:
    """What `run` would do, nothing touched: for --dry-run."""
    prepared, _ = _decide(options, arguments)
    launch.look(prepared, _undone_last(prepared, _kept_in(options, prepared)))
    return prepared


def _decide(options: Options, arguments: list[str]) -> tuple[launch.Launch, bytes]:
    """The plan but for what is to be claimed, and config.json as it is. Raises UsageError, Conflict."""
    if len(arguments) > 1:
        raise UsageError(
            f"--bundle takes no image and no command: {arguments[1]!r}", "pyrun run --bundle DIR [ID]"
        )
    if options.get("name"):
        arguments = [_named(str(options["name"]), arguments)]
    given = str(options["bundle"])
    bundle = values.normal_path(given if given[:1] == "/" else f"{posix.getcwd()}/{given}")
    found, raw = _read_config(bundle)
    config = check.config(found)
    launch.check_where(config)
    identifier = arguments[0] if arguments else containers.new_id()
    containers.check_id(identifier)
    if arguments and paths.exists(f"{paths.root()}/names/{identifier}"):
        _refuse_held(identifier)
    return _prepare(options, config, bundle, identifier), raw


def _named(name: str, arguments: list[str]) -> str:
    """--name is the id."""
    containers.check_name(name)
    if arguments:
        hint = "with --bundle the name is the id: give one of them"
        raise UsageError(f"--name {name}: the container has the id {arguments[0]} already", hint)
    return name


def _refuse_held(identifier: str) -> None:
    """An id that is another container's name would be taken for that one."""
    if holder := state.named_id(identifier):
        raise Conflict(f"the name {identifier!r} is in use by container {holder[:12]}", "choose another name")


def _read_config(bundle: str) -> tuple[object, bytes]:
    if not paths.exists(f"{bundle}/config.json"):
        raise UsageError(
            f"--bundle {bundle}: config.json: No such file or directory",
            "an OCI bundle is a directory with config.json",
        )
    return config_file.read(f"{bundle}/config.json")


def _prepare(options: Options, config: Config, bundle: str, identifier: str) -> launch.Launch:
    section, process = config.setdefault("linux", {}), config["process"]
    own_network = "network" in namespaces.made(config)
    request = _network(options, own_network, identifier)
    if not section.get("cgroupsPath") and boot.rootless_uid() < 0:
        section["cgroupsPath"] = f"/pyrun-{identifier}"
    job = oci.job_of(options, config, identifier, bundle, request.run_dir)
    job.oci = False
    job.loopback, job.window = own_network and request.mode == "none", _window(process)
    if boot.rootless_uid() >= 0:
        from . import rootless

        rootless.adapt_bundle(config, job)
    if section.get("seccomp"):
        job.seccomp = (launch.CHILD_FD_SECCOMP, seccomp.flags_of(config) or 0)
    prepared = launch.assemble(config, job)
    create.host_hooks(prepared)
    wired = bool(options.get("network")) and own_network
    if (wired or options.get("detach")) and paths.exists(_log_directory(identifier)):
        # of an image's container, which the undo list must not take away
        raise Conflict(f"container {identifier} exists", "choose another id, or remove that one")
    if wired:
        request.keep, request.early = job.keep, job.early
        _ask(options, request)
        prepared.request = request
    return prepared


def _kept_in(options: Options, prepared: launch.Launch) -> str:
    """The lasting directory of a container with a log or a network, else ""."""
    return _log_directory(prepared.job.id) if prepared.request or options.get("detach") else ""


def _undone_last(prepared: launch.Launch, keep: str) -> list[str]:
    """The end of the undo list. keep: by `_kept_in`."""
    lines = containers.undo_lines(prepared.job.id, "", "", remove=True)
    return [f"rmtree\t{keep}", *lines] if keep else lines


def _make(run_dir: str, keep: str, raw: bytes, record: bytes) -> None:
    """Its directories: one with a log or a network is kept where an image's is, with the record (container.json) that
    `ps`, `port` and `network connect` go by."""
    if keep:
        paths.make(keep.rpartition("/")[0])
        posix.mkdir(keep, 0o710)
        if record:
            paths.write(f"{keep}/container.json", record)
    paths.write(f"{run_dir}/config.json", raw)


def _log_directory(identifier: str) -> str:
    return f"{paths.root()}/containers/{identifier}"


def _record(options: Options, prepared: launch.Launch) -> bytes:
    """container.json: as an image's, without a resolv.conf that would follow its networks; that is the bundle's."""
    from pyrun.spec.config import Container

    from . import prepare

    assert prepared.request is not None
    record = prepare.record(options, prepared.request, Container(), prepared)
    record["rm"] = True
    del record["resolv"]
    return dumps(record).encode("utf-8", "surrogateescape")


def _network(options: Options, own_network: bool, identifier: str) -> Request:
    """What is asked of the network; the id is the namespace's name. Raises UsageError for what the config leaves no
    room for."""
    mode, target, endpoints = requests.parse(options, "none" if own_network else "host")
    if mode != "host" and not own_network:
        raise UsageError(f"--network={mode}: the bundle's config has no network namespace of its own")
    if mode in requests.OF_OTHERS:
        raise UsageError(
            f"--network={mode}:{target}: a bundle says so itself", "config.json: linux.namespaces[].path"
        )
    if not (own_network and options.get("network")) or mode in requests.UNWIRED:
        for key in _WIRED:
            if options.get(key) or (key == "egress" and options.get(key) is not None):
                raise _unwired(key, mode)
        if mode == "host" and own_network:
            raise UsageError(
                "--network=host: the bundle's config makes a network namespace of its own",
                "it is config.json's to say: take network out of linux.namespaces",
            )
    request = requests.Request(identifier, identifier, mode, target)
    request.endpoints, request.run_dir = endpoints, f"{paths.run()}/containers/{identifier}"
    request.dns = resolver.asked(options)
    request.take(options)
    return request


def _unwired(key: str, mode: str) -> UsageError:
    return UsageError(
        f"--{key.replace('_', '-')} has no effect: the network of the bundle's container is {mode}",
        "add --network=bridge; the config must make a network namespace of its own for that",
    )


def _ask(options: Options, request: Request) -> None:
    """--network with a bundle: what the config leaves open, asked for as for an image. Raises UsageError."""
    from pyrun.network.publishing import option
    from pyrun.stages import network

    request.ports = option.requested(options, {})
    network.check(request)


def _window(process: Process) -> tuple[int, int]:
    size = process.get("consoleSize")
    if isinstance(size, dict):
        return (int(size.get("height") or 0), int(size.get("width") or 0))
    return stdio.window() if process.get("terminal") else (0, 0)


def _start(options: Options, prepared: launch.Launch, binary_fd: int) -> None:
    detached = prepared.running_fd >= 0
    streams = _streams(options, prepared) if detached else None
    prepared.keep_fds += streams.child_fds() if streams else [(number, number) for number in range(3)]
    outcome = create.start(prepared, binary_fd)
    oci_run.poststart(prepared)
    settings = [*launch.identity(prepared), *explaining.timing(options), "status=exit"]
    if options.get("sig_proxy") is not False and not detached:
        settings.append("sigproxy=1")
    if hooks.of(prepared.config, "poststop"):
        settings += [f"finish={boot.binary()}-oci", f"root={paths.run()}/containers"]
    inherited = [prepared.pidfd, prepared.lock_fd]
    if streams:
        streams.close_child_ends()
        settings += [f"log={_log_directory(prepared.job.id)}/log"]
        settings += streams.monitor_settings(outcome.tty_fd, detach=True)
        inherited += streams.monitor_fds(outcome.tty_fd)
        _report(prepared)
    elif oci.has_terminal(prepared.config):
        settings += [f"tty={outcome.tty_fd}", "interactive=1"]
        inherited.append(outcome.tty_fd)
    launch.become_monitor(binary_fd, settings, inherited)


def _streams(options: Options, prepared: launch.Launch) -> stdio.Stdio:
    """Where a container that runs in the background reads and writes."""
    terminal = oci.has_terminal(prepared.config)
    return stdio.Stdio(tty=terminal, interactive=bool(options.get("interactive")))


def _report(prepared: launch.Launch) -> None:
    from . import background

    background.report(prepared.running_fd, prepared.job.id)


# ── options without an effect ──────────────────────────────────────────────────────────────────────


# Where config.json says what an option says of an image's container.
_PLACES = {
    "cap_add": "process.capabilities", "cap_drop": "process.capabilities", "cpus": "linux.resources.cpu",
    "entrypoint": "process.args", "env": "process.env", "env_file": "process.env",
    "group_add": "process.user.additionalGids", "hostname": "hostname", "label": "annotations",
    "memory": "linux.resources.memory", "pids_limit": "linux.resources.pids",
    "privileged": "process.capabilities, linux.devices, linux.maskedPaths", "read_only": "root.readonly",
    "security_opt": "linux.seccomp, process.noNewPrivileges", "shm_size": "mounts", "sysctl": "linux.sysctl",
    "tmpfs": "mounts", "tty": "process.terminal", "ulimit": "process.rlimits", "user": "process.user",
    "volume": "mounts", "workdir": "process.cwd",
}  # fmt: skip
_ITS_FILE = "it is the bundle's to say: {} in its root file system"
_REMEDIES = {
    "add_host": _ITS_FILE.format("/etc/hosts"), "dns_option": _ITS_FILE.format("/etc/resolv.conf"),
    "dns_search": _ITS_FILE.format("/etc/resolv.conf"), "init": "put an init first in config.json's process.args",
    "platform": "the bundle has its root file system: nothing is chosen",
    "pull": "the bundle has its root file system: nothing is pulled",
    "quiet": "the bundle has its root file system: nothing is pulled",
    "stop_signal": "say it when it is stopped: pyrun stop -s SIGNAL",
    "stop_timeout": "say it when it is stopped: pyrun stop -t SECONDS",
}  # fmt: skip


def refused(given: list[str]) -> UsageError:
    """The error for options that are config.json's to say: the first one's remedy is told. given: destinations
    (cli/tables.py)."""
    names = [name for name in given if name not in TAKES]
    words = ", ".join([f"--{name.replace('_', '-')}" for name in names])
    place = _PLACES.get(names[0])
    remedy = f"it is config.json's to say: {place}" if place else _REMEDIES.get(names[0], "leave it out")
    return UsageError(f"{words}: no effect with --bundle", remedy)
