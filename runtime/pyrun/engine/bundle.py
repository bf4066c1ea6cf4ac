"""`pyrun run --bundle DIR [ID]`: an OCI bundle, as `runc run` does it.

config.json decides everything but the network, which --network may add. Standard input, output and error are
the caller's own, or a terminal if the config asks for one; nothing is logged and nothing outlives the run.
Source: runtime-spec bundle.md, runtime.md#lifecycle.
"""

from __future__ import annotations

import posix

from pyrun import boot, launch
from pyrun.errors import UsageError
from pyrun.network import requests, resolver
from pyrun.plan import plan as plans
from pyrun.spec import check, config_file, seccomp, values
from pyrun.stages import cgroup, hooks, namespaces
from pyrun.store import containers, paths

from . import explaining, reconcile, stdio
from .oci import create
from .oci import prepare as oci
from .oci import run as oci_run

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

Options = dict[str, object]


def run(options: Options, arguments: list[str]) -> None:
    """Run the bundle. Does not return."""
    launch.mark("imports")
    launch.need_root("run")
    reconcile.reconcile_quietly()
    binary_fd = launch.seal()  # before the plan, which may claim an address
    prepared = plan_only(options, arguments)
    explaining.announce(options, prepared)
    _start(options, prepared, binary_fd)


def plan_only(options: Options, arguments: list[str]) -> launch.Launch:
    """What `run` would do, nothing touched: for --dry-run."""
    if len(arguments) > 1:
        raise UsageError(
            f"--bundle takes no image and no command: {arguments[1]!r}", "pyrun run --bundle DIR [ID]"
        )
    given = str(options["bundle"])
    bundle = values.normal_path(given if given[:1] == "/" else f"{posix.getcwd()}/{given}")
    found, raw = _read_config(bundle)
    config = check.config(found)
    identifier = arguments[0] if arguments else containers.new_id()
    containers.check_id(identifier)
    return _prepare(options, config, raw, bundle, identifier)


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
        section["cgroupsPath"] = f"/pyrun/{identifier}"
    run_dir = f"{paths.run()}/containers/{identifier}"
    job = oci.job_of(options, config, identifier, bundle) | {
        "run_dir": run_dir,
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
    if options.get("network") and own_network:
        _wire(options, prepared)
    prepared.make = lambda: paths.write(f"{run_dir}/config.json", raw)
    prepared.undo = launch.undo_list(prepared, containers.undo_lines(identifier, "", "", remove=True))
    create.host_hooks(prepared)
    launch.mark("decided")
    return prepared


def _network(options: Options, own_network: bool) -> dict[str, object]:
    """What is asked of the network. Raises UsageError for what the config leaves no room for."""
    mode, target, endpoints = requests.parse(options, "none" if own_network else "host")
    if mode != "host" and not own_network:
        raise UsageError(f"--network={mode}: the bundle's config has no network namespace of its own")
    if mode in requests.JOINED[:2]:
        raise UsageError(
            f"--network={mode}:{target}: a bundle says so itself", "config.json: linux.namespaces[].path"
        )
    more = {key: options.get(key) for key in ("egress", "net_rate", "net_fault")}
    return {"mode": mode, "target": target, "endpoints": endpoints, **resolver.asked(options), **more}


def _wire(options: Options, prepared: launch.Launch) -> None:
    """--network with a bundle: what the config leaves open, wired as for an image; the id is the namespace's name."""
    from pyrun.network.publishing import option
    from pyrun.stages import network

    through = bool(options.get("publish_through_firewall"))
    request = {**prepared.job, "ports": option.requested(options, {}), "through_firewall": through}
    network.check(request)
    prepared.network = network.plan(request)


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
    prepared.keep_fds += [(number, number) for number in range(3)]
    outcome = create.start(prepared, binary_fd)
    oci_run.poststart(prepared)
    settings = [*launch.identity(prepared), *explaining.timing(options), "status=exit", "sigproxy=1"]
    if hooks.of(prepared.config, "poststop"):
        settings += [f"finish={boot.binary()}-oci", f"root={paths.run()}/containers"]
    inherited = [prepared.pidfd, prepared.lock_fd]
    if oci.has_terminal(prepared.config):
        settings += [f"tty={outcome.tty_fd}", "interactive=1"]
        inherited.append(outcome.tty_fd)
    launch.become_monitor(binary_fd, settings, inherited)
