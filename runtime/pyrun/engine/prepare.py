"""From options and an image to a `Launch`: everything decided, nothing done.

What `run` is going to make is listed here for the undo list, in the order it is to be taken away again: first
whatever still runs ends, then the network (while the container's name is still held), then cgroups, directory
and name. For --dry-run the same functions run with `dry_run` set, and touch nothing.
"""

from __future__ import annotations

import posix
import time

from pyrun import boot, launch, notice, signals
from pyrun.errors import UsageError
from pyrun.network import requests, resolver
from pyrun.network.publishing import option
from pyrun.plan import plan as plans
from pyrun.spec import capabilities, seccomp, values
from pyrun.spec import config as configs
from pyrun.stages import cgroup, namespaces, network, rootfs
from pyrun.store import containers, paths

from . import stdio

Options = dict[str, object]


def request(options: Options, image: dict[str, object], name: str) -> dict[str, object]:
    """What identifies the container, and what its network is to be."""
    identifier = containers.new_id()
    default = "bridge" if boot.rootless_uid() < 0 or options.get("network") else _users_network()
    mode, target, endpoints = requests.parse(options, default)
    default_name = posix.uname().nodename if mode == "host" else identifier[:12]
    ports = option.requested(options, image)
    if ports and mode in requests.UNWIRED:
        notice.say(f"published ports are ignored with --network {mode}")
        ports = []
    layers = image.get("layers")
    joined = _joined(options, mode, target) if mode in requests.OF_OTHERS else {}
    return {
        "id": identifier,
        "image": name,
        "image_id": image.get("id", ""),
        "hostname": str(options.get("hostname") or default_name),
        "keep": f"{paths.root()}/containers/{identifier}",
        "run_dir": f"{paths.run()}/containers/{identifier}",
        "layers": list(reversed(layers)) if isinstance(layers, list) else [],
        "mode": mode,
        "target": target,
        "endpoints": endpoints,
        "ports": ports,
        "through_firewall": bool(options.get("publish_through_firewall")),
        **resolver.asked(options),
        **joined,
        "egress": options.get("egress"),
        "net_rate": options.get("net_rate"),
        "net_fault": options.get("net_fault"),
        "dry_run": False,
        **_of_image(options, image),
        "labels": {**_image_labels(image), **values.labels(values.texts(options.get("label")))},
    }


def _image_labels(image: dict[str, object]) -> dict[str, str]:
    """What its author says of an image is said of its containers. Data for `ps`: nothing here is decided by it."""
    found = _config_value(image, "Labels")
    pairs = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in pairs if name and isinstance(value, str)}


def _of_image(options: Options, image: dict[str, object]) -> dict[str, object]:
    """What an image may say for its containers beside their process. Raises UsageError in words about the image."""
    signal = options.get("stop_signal") or _config_value(image, "StopSignal")
    if signal and not options.get("stop_signal"):
        try:
            signals.number(str(signal))
        except UsageError:
            hint = "give one with --stop-signal, for example --stop-signal TERM"
            raise UsageError(f"the image's StopSignal {signal!r} is no signal", hint) from None
    declared, texts = _config_value(image, "Volumes"), values.texts(options.get("volume"))
    if not declared and (not texts or all(":" in text for text in texts)):
        return {"stop_signal": signal}
    from pyrun.spec import volumes

    found = {*volumes.of_image(declared), *volumes.alone(texts)}
    return {"stop_signal": signal, "volumes": sorted(found)}


def _joined(options: Options, mode: str, target: str) -> dict[str, object]:
    """Whose network namespace it is to be: its path, whether that is the host's; of a container, its name on the
    network and its files as well."""
    from pyrun.network.drivers import joined

    joined.refuse(options, mode, target)
    path, container, on_host = joined.resolve(mode, target)
    shared = joined.shared_files(container, target)
    found: dict[str, object] = {"netns": path, "on_host": on_host, "shared_files": shared}
    if container is None or not shared:  # a bundle has files of its own, which only it knows
        return found
    keep = f"{paths.root()}/containers/{container['id']}"
    return {**found, "files_of": keep, "hostname": container["hostname"]}


def _mode(request: dict[str, object]) -> str:
    return f"{request['mode']}:{request['target']}" if request["target"] else str(request["mode"])


def _users_network() -> str:
    from pyrun.network import user_mode

    return user_mode.choose("")


def _config_value(image: dict[str, object], name: str) -> object:
    config = image.get("config")
    return config.get(name) if isinstance(config, dict) else None


def prepare(
    options: Options, image: dict[str, object], command: list[str], request: dict[str, object]
) -> launch.Launch:
    """Decide everything: config, network, operations for inside and outside, the undo list."""
    config = configs.build(options, image, command, request)
    section = config["linux"]
    assert isinstance(section, dict)
    if options.get("privileged") and not request["dry_run"]:
        section["devices"] = rootfs.host_devices()
    network.check(request)
    job = _job(options, request, config)
    if boot.rootless_uid() >= 0:
        from . import rootless

        rootless.adapt(config, job)
    program = _seccomp(options, config, job)
    prepared = launch.Launch(config, job, plans.compose(config, job))
    prepared.before = cgroup.before(config, job)
    if program:
        program_fd = posix.open(program, posix.O_RDONLY | posix.O_CLOEXEC)
        prepared.keep_fds.append((program_fd, launch.CHILD_FD_SECCOMP))
    # last, since it claims an address, a name and ports: whatever fails before has nothing to give back
    prepared.network = network.plan(request)
    plans.without_ipv6(prepared.operations, prepared.network)
    last = containers.undo_lines(
        str(request["id"]), str(request["keep"]), str(request["name"]), remove=bool(options.get("rm"))
    )
    if job.get("fuse"):
        last = [f"umount\t{request['keep']}/rootfs", *last]
    prepared.undo = launch.undo_list(prepared, last)
    launch.mark("decided")
    return prepared


def _job(options: Options, request: dict[str, object], config: dict[str, object]) -> dict[str, object]:
    """What the stages need to know beside the config."""
    hierarchies = cgroup.layout()
    section = config["linux"]
    assert isinstance(section, dict)
    return {
        **request,
        "namespaces": namespaces.kinds(config),
        "hierarchies": hierarchies,
        "cgroups": cgroup.directories(hierarchies, str(section["cgroupsPath"])),
        "rm": options.get("rm"),
        "reaper": options.get("init"),
        "loopback": request["mode"] == "none",
        "window": stdio.window() if options.get("tty") else None,
    }


def _seccomp(options: Options, config: dict[str, object], job: dict[str, object]) -> str:
    """Docker's profile by default, the user's file, or none: the path of its compiled program.

    Which one it is, is noted in the config's annotations (seccomp.PROFILE) or as linux.seccomp, for `exec` to find.
    """
    chosen = ""
    for text in values.texts(options.get("security_opt")):
        if text.startswith(("seccomp=", "seccomp:")):
            chosen = text[8:]
    annotations, section, process = config["annotations"], config["linux"], config["process"]
    assert isinstance(annotations, dict) and isinstance(section, dict) and isinstance(process, dict)
    if chosen == "unconfined" or (options.get("privileged") and not chosen):
        return ""
    if chosen in ("", "builtin"):
        annotations[seccomp.PROFILE] = "default"
    else:
        from pyrun.spec.seccomp_profile import load_profile

        section["seccomp"] = load_profile(chosen, capabilities.mask_of(process["capabilities"]["bounding"]))
    if job["dry_run"]:
        job["seccomp"] = (launch.CHILD_FD_SECCOMP, 0)
        return ""
    path, flags = seccomp.of_config(config) or ("", 0)
    job["seccomp"] = (launch.CHILD_FD_SECCOMP, flags)
    return path


def files(options: Options, request: dict[str, object], wired: dict[str, object]) -> dict[str, bytes]:
    """/etc/hosts, /etc/hostname and /etc/resolv.conf, as Docker writes them."""
    if request.get("files_of"):
        return {name: _read(f"{request['files_of']}/{name}") for name in ("hosts", "hostname", "resolv.conf")}
    lines = wired.get("resolv")
    resolv = "".join([f"{line}\n" for line in (lines if isinstance(lines, list) else [])])
    if request["mode"] == "host":
        hosts = _read("/etc/hosts").decode("utf-8", "replace")
        if not (request["dns"] or request["dns_search"] or request["dns_option"]):  # word for word, then
            resolv = _read("/etc/resolv.conf").decode("utf-8", "replace")
    else:
        hosts = (
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n"
            "ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        )
    for text in values.texts(options.get("add_host")):
        name, address = values.host_entry(text)
        if address == "host-gateway":
            address = _gateway(wired, str(request["mode"]), text)
        hosts += f"{address.strip('[]')}\t{name}\n"
    own = str(request["hostname"])
    if "." in own:
        own = values.names_in_hosts(own)
    for wire in wired.get("wires") or [{"address": wired.get("address"), "address6": ""}]:  # type: ignore[attr-defined]
        hosts += "".join([f"{wire[key]}\t{own}\n" for key in ("address", "address6") if wire[key]])
    return {
        "hosts": hosts.encode(),
        "hostname": f"{request['hostname']}\n".encode(),
        "resolv.conf": resolv.encode(),
    }


def _gateway(wired: dict[str, object], mode: str, told: str) -> str:
    """Where the container reaches this host. Raises UsageError where it does not."""
    if mode in requests.UNWIRED:
        return "127.0.0.1"
    if not wired.get("gateway"):
        raise UsageError(
            f"--add-host {told}: with --network={mode} the container reaches no address of this host's own",
            "name an address; or --network=host, --network=bridge",
        )
    return str(wired["gateway"])


def _read(path: str) -> bytes:
    try:
        return paths.read(path)
    except OSError:
        return b""


def record(options: Options, request: dict[str, object], prepared: launch.Launch) -> dict[str, object]:
    """container.json: what `ps` and the other verbs want to know."""
    process = prepared.config["process"]
    assert isinstance(process, dict)
    wired = prepared.network or {}
    return {
        **{
            key: request[key]
            for key in ("id", "name", "image", "image_id", "hostname", "mode", "stop_signal")
        },
        **{key: request[key] for key in ("dns", "dns_search", "dns_option")},
        "resolv": wired.get("resolv") or [],
        "created": time.time(),
        "args": process["args"],
        "tty": bool(options.get("tty")),
        "rm": bool(options.get("rm")),
        "detach": bool(options.get("detach")),
        "network": ",".join([str(each["network"]) for each in request["endpoints"]]) or _mode(request),  # type: ignore[attr-defined]
        "networks": wired.get("wires") or [],
        "ports": [list(entry) for entry in wired.get("ports") or []],  # type: ignore[attr-defined]
        "address": wired.get("address", ""),
        "mac": wired.get("mac", ""),
        "labels": request["labels"] or {},
        "stop_timeout": options.get("stop_timeout"),
        "group_add": values.texts(options.get("group_add")),
        "net_rate": options.get("net_rate"),
        "net_fault": options.get("net_fault"),
    }
