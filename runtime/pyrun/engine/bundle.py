"""`pyrun run --bundle DIR [ID]`: an OCI bundle, as `runc run` does it.

config.json decides everything but the network, which --network may add. Standard input, output and error are
the caller's own, or a terminal if the config asks for one, and nothing is logged; with -d what it writes goes to a log,
as an image's does. Nothing outlives the run.
Source: runtime-spec bundle.md, runtime.md#lifecycle.
"""

from __future__ import annotations

import posix

from pyrun import boot, launch
from pyrun.errors import Conflict, UsageError
from pyrun.jsonlite import dumps
from pyrun.network import requests, resolver
from pyrun.plan import plan as plans
from pyrun.spec import check, config_file, seccomp, values
from pyrun.stages import cgroup, hooks, namespaces
from pyrun.store import containers, paths, state

from . import explaining, reconcile, stdio
from .oci import create
from .oci import prepare as oci
from .oci import run as oci_run

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

Options = dict[str, object]

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


def refused(given: list[str]) -> UsageError:
    """The error for options that are config.json's to say, or nobody's."""
    from . import bundle_options

    return bundle_options.refused([name for name in given if name not in TAKES])


def run(options: Options, arguments: list[str]) -> str:
    """Run the bundle. Returns the container's id with -d; a foreground run does not return."""
    launch.mark("imports")
    launch.need_root("run")
    reconcile.reconcile_quietly()
    if options.get("detach"):
        return _run_detached(options, arguments)
    binary_fd = launch.seal()  # before the plan, which may claim an address
    prepared = plan_only(options, arguments)
    explaining.announce(options, prepared)
    _start(options, prepared, binary_fd)
    raise AssertionError("the monitor has taken over")


def _run_detached(options: Options, arguments: list[str]) -> str:
    """-d: the start goes on in a child, so the id is known before."""
    from . import background

    if not (arguments or options.get("name")):
        arguments = [containers.new_id()]
    running_fd = background.fork()
    if running_fd < 0:
        return str(options.get("name") or arguments[0])
    binary_fd = launch.seal()
    prepared = plan_only(options, arguments)
    prepared.running_fd = running_fd
    explaining.announce(options, prepared)
    _start(options, prepared, binary_fd)
    raise AssertionError("the monitor has taken over")


def plan_only(options: Options, arguments: list[str]) -> launch.Launch:
    """What `run` would do, nothing touched: for --dry-run."""
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
    return _prepare(options, config, raw, bundle, identifier)


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


def _prepare(
    options: Options, config: dict[str, Any], raw: bytes, bundle: str, identifier: str
) -> launch.Launch:
    section, process = config.setdefault("linux", {}), config["process"]
    own_network = "network" in namespaces.made(config)
    asked = _network(options, own_network)
    if not section.get("cgroupsPath") and boot.rootless_uid() < 0:
        section["cgroupsPath"] = f"/pyrun-{identifier}"
    run_dir = f"{paths.run()}/containers/{identifier}"
    job = oci.job_of(options, config, identifier, bundle, run_dir) | {
        "loopback": own_network and asked["mode"] == "none",
        "window": _window(process),
        **asked,
        "oci": False,
        "dry_run": bool(options.get("dry_run")),
    }
    if boot.rootless_uid() >= 0:
        from . import rootless

        rootless.adapt_bundle(config, job)
    program = _seccomp(config, job)
    prepared = launch.Launch(config, job, plans.compose(config, job))
    prepared.before = cgroup.before(config, job)
    if program:
        prepared.keep_fds.append(
            (posix.open(program, posix.O_RDONLY | posix.O_CLOEXEC), launch.CHILD_FD_SECCOMP)
        )
    prepared.make = lambda: paths.write(f"{run_dir}/config.json", raw)
    last = containers.undo_lines(identifier, "", "", remove=True)
    wired = bool(options.get("network")) and own_network
    if wired or options.get("detach"):
        last, prepared.make = _kept(options, prepared, raw, last, wired=wired)
    prepared.undo = launch.undo_list(prepared, last)
    create.host_hooks(prepared)
    launch.mark("decided")
    return prepared


def _kept(
    options: Options, prepared: launch.Launch, raw: bytes, last: list[str], *, wired: bool
) -> tuple[list[str], Callable[[], None]]:
    """(the end of the undo list, what makes the directories) of a container with a log or a network: kept where an
    image's is, with the record that `ps`, `port` and `network connect` go by."""
    run_dir, keep = str(prepared.job["run_dir"]), _log_directory(str(prepared.job["id"]))
    if paths.exists(keep):  # of an image's container, which the undo list must not take away
        raise Conflict(f"container {prepared.job['id']} exists", "choose another id, or remove that one")
    if wired:
        _wire(options, prepared)
    record = _record(options, prepared) if wired else b""

    def make() -> None:
        paths.make(keep.rpartition("/")[0])
        posix.mkdir(keep, 0o710)
        if record:
            paths.write(f"{keep}/container.json", record)
        paths.write(f"{run_dir}/config.json", raw)

    return [f"rmtree\t{keep}", *last], make


def _log_directory(identifier: str) -> str:
    return f"{paths.root()}/containers/{identifier}"


def _record(options: Options, prepared: launch.Launch) -> bytes:
    """container.json: as an image's, without a resolv.conf that would follow its networks; that is the bundle's."""
    from . import prepare

    unsaid = dict.fromkeys(("image", "image_id", "hostname", "stop_signal", "ports", "labels"), "")
    record = prepare.record(options, {**prepared.job, **unsaid}, prepared) | {"rm": True}
    del record["resolv"]
    return dumps(record).encode("utf-8", "surrogateescape")


def _network(options: Options, own_network: bool) -> dict[str, object]:
    """What is asked of the network. Raises UsageError for what the config leaves no room for."""
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
    more = {key: options.get(key) for key in ("egress", "net_rate", "net_fault")}
    return {"mode": mode, "target": target, "endpoints": endpoints, **resolver.asked(options), **more}


def _unwired(key: str, mode: str) -> UsageError:
    return UsageError(
        f"--{key.replace('_', '-')} has no effect: the network of the bundle's container is {mode}",
        "add --network=bridge; the config must make a network namespace of its own for that",
    )


def _wire(options: Options, prepared: launch.Launch) -> None:
    """--network with a bundle: what the config leaves open, wired as for an image; the id is the namespace's name."""
    from pyrun.network.publishing import option
    from pyrun.stages import network

    through = bool(options.get("publish_through_firewall"))
    request = {**prepared.job, "ports": option.requested(options, {}), "through_firewall": through}
    network.check(request)
    prepared.network = network.plan(request)
    plans.without_ipv6(prepared.operations, prepared.network)


def _window(process: dict[str, object]) -> tuple[int, int]:
    size = process.get("consoleSize")
    if isinstance(size, dict):
        return (int(size.get("height") or 0), int(size.get("width") or 0))
    return stdio.window() if process.get("terminal") else (0, 0)


def _seccomp(config: dict[str, object], job: dict[str, object]) -> str:
    """The path of linux.seccomp's compiled program, or nothing."""
    section = config.get("linux")
    if not isinstance(section, dict) or not section.get("seccomp"):
        return ""
    path, flags = ("", 0) if job["dry_run"] else seccomp.of_config(config) or ("", 0)
    job["seccomp"] = (launch.CHILD_FD_SECCOMP, flags)
    return path


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
        settings += [f"log={_log_directory(str(prepared.job['id']))}/log"]
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

    background.report(prepared.running_fd, str(prepared.job["id"]))
