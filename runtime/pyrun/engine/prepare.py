"""From options and an image to a `Launch`: everything decided, nothing done.

What `run` is going to make is listed here for the undo list, in the order it is to be taken away again: first
whatever still runs ends, then the network (while the container's name is still held), then cgroups, directory
and name. `claim` then takes what is scarce; for --dry-run `look` says what that would be.
"""

from __future__ import annotations

import posix
import time

from pyrun import boot, launch, notice, signals
from pyrun.errors import UsageError
from pyrun.network import requests, resolver
from pyrun.network.publishing import option
from pyrun.plan.job import Job
from pyrun.spec import capabilities, seccomp, values
from pyrun.spec import config as configs
from pyrun.stages import cgroup, namespaces, network, rootfs
from pyrun.store import containers, paths

from . import stdio

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.network.wiring import NetworkPlan
    from pyrun.spec.oci import Config
    from pyrun.spec.values import Options
    from pyrun.store.image_json import Image
    from pyrun.store.record import Record


def request(options: Options, image: Image) -> requests.Request:
    """What identifies the container but for its name, and what its network is to be."""
    identifier = containers.new_id()
    default = "bridge" if boot.rootless_uid() < 0 or options.get("network") else _users_network()
    mode, target, endpoints = requests.parse(options, default)
    found = requests.Request(identifier, "", mode, target)
    found.endpoints = endpoints
    default_name = posix.uname().nodename if mode == "host" else identifier[:12]
    found.ports = option.requested(options, image)
    if found.ports and mode in requests.UNWIRED:
        notice.say(f"published ports are ignored with --network {mode}")
        found.ports = []
    found.hostname = str(options.get("hostname") or default_name)
    if mode in requests.OF_OTHERS:
        _join(options, found)
    found.keep = f"{paths.root()}/containers/{identifier}"
    found.run_dir = f"{paths.run()}/containers/{identifier}"
    found.exposed = option.exposed(options, image)
    found.dns = resolver.asked(options)
    found.take(options)
    return found


def of_image(options: Options, image: Image, name: str) -> configs.Container:
    """A container with what the image says for it: in the job, and in container.json. Raises UsageError."""
    container = configs.Container(name)
    container.image_id = image.get("id") or ""
    container.layers = list(reversed(image.get("layers") or []))
    container.stop_signal = _stop_signal(options, image)
    container.volumes = _volumes(options, image)
    container.labels = {**_image_labels(image), **values.labels(values.texts(options.get("label")))}
    return container


def _image_labels(image: Image) -> dict[str, str]:
    """What its author says of an image is said of its containers. Data for `ps`: nothing here is decided by it."""
    found = configs.config_of(image).get("Labels") or {}
    return {name: value for name, value in found.items() if name and isinstance(value, str)}


def _stop_signal(options: Options, image: Image) -> str:
    """Raises UsageError in words about the image."""
    given = options.get("stop_signal")
    signal = str(given) if given else configs.config_of(image).get("StopSignal") or ""
    if signal and not given:
        try:
            signals.number(signal)
        except UsageError:
            hint = "give one with --stop-signal, for example --stop-signal TERM"
            raise UsageError(f"the image's StopSignal {signal!r} is no signal", hint) from None
    return signal


def _volumes(options: Options, image: Image) -> list[str]:
    """The directories that are the container's own. Raises UsageError."""
    declared, texts = configs.config_of(image).get("Volumes"), values.texts(options.get("volume"))
    if not declared and (not texts or all(":" in text for text in texts)):
        return []
    from pyrun.spec import volumes

    return sorted({*volumes.of_image(declared), *volumes.alone(texts)})


def _join(options: Options, request: requests.Request) -> None:
    """Whose network namespace it is to be: its path, whether that is the host's; of a container, its name on the
    network and its files as well."""
    from pyrun.network.drivers import joined

    mode, target = request.mode, request.target
    joined.refuse(options, mode, target)
    request.netns, container, request.on_host = joined.resolve(mode, target)
    request.shared_files = joined.shared_files(container, target)
    if container is None or not request.shared_files:  # a bundle has files of its own, which only it knows
        return
    request.files_of = f"{paths.root()}/containers/{container['id']}"
    request.hostname = str(container["hostname"])


def _mode(request: requests.Request) -> str:
    return f"{request.mode}:{request.target}" if request.target else request.mode


def _users_network() -> str:
    from pyrun.network import user_mode

    return user_mode.choose("")


def prepare(
    options: Options,
    image: Image,
    command: list[str],
    request: requests.Request,
    container: configs.Container,
) -> launch.Launch:
    """Decide everything: config, what is asked of the network, the operations. Nothing is touched."""
    _identify(container, request)
    config = configs.build(options, image, command, container)
    if options.get("privileged"):
        config["linux"]["devices"] = rootfs.host_devices()
    network.check(request)
    job = _job(options, request, container, config)
    if boot.rootless_uid() >= 0:
        from . import rootless

        rootless.adapt(config, job, host_network=request.mode == "host")
    _choose_filter(options, config, job)
    prepared = launch.assemble(config, job)
    prepared.request = request
    return prepared


def claim(prepared: launch.Launch) -> None:
    """Address, ports and the name in /run/netns; and the filter, compiled if that was not done yet. Raises Conflict,
    NetworkError, PyrunError, with nothing of them claimed."""
    if prepared.job.seccomp:
        launch.add_filter(prepared, (seccomp.of_config(prepared.config) or ("", 0))[0])
    launch.claim(prepared, _undone_last(prepared))


def look(prepared: launch.Launch) -> None:
    """What `claim` would take: for --dry-run."""
    launch.look(prepared, _undone_last(prepared))


def _undone_last(prepared: launch.Launch) -> list[str]:
    job = prepared.job
    lines = containers.undo_lines(job.id, job.keep, job.name, remove=job.rm)
    return [f"umount\t{job.keep}/rootfs", *lines] if job.fuse else lines


def _identify(container: configs.Container, request: requests.Request) -> None:
    container.id, container.name, container.hostname = request.id, request.name, request.hostname
    container.keep, container.mode = request.keep, request.mode
    container.netns, container.shared_files = request.netns, request.shared_files


def _job(options: Options, request: requests.Request, container: configs.Container, config: Config) -> Job:
    """What the stages need to know beside the config."""
    hierarchies = cgroup.layout()
    groups = cgroup.directories(hierarchies, config["linux"]["cgroupsPath"])
    job = Job(request.id, request.name, cgroup.Cgroup(hierarchies, groups))
    job.run_dir, job.keep = request.run_dir, request.keep
    job.layers, job.volumes = container.layers, container.volumes
    job.namespaces = namespaces.kinds(config)
    job.rm, job.reaper = bool(options.get("rm")), bool(options.get("init"))
    job.loopback, job.on_host = request.mode == "none", request.on_host
    job.window = stdio.window() if options.get("tty") else (0, 0)
    return job


def _choose_filter(options: Options, config: Config, job: Job) -> None:
    """Docker's profile by default, the user's file, or none.

    Which one it is, is noted in the config's annotations (seccomp.PROFILE) or as linux.seccomp, for `exec` to find.
    """
    chosen = ""
    for text in values.texts(options.get("security_opt")):
        if text.startswith(("seccomp=", "seccomp:")):
            chosen = text[8:]
    annotations, section, process = config["annotations"], config["linux"], config["process"]
    if chosen == "unconfined" or (options.get("privileged") and not chosen):
        return
    if chosen in ("", "builtin"):
        annotations[seccomp.PROFILE] = "default"
    else:
        from pyrun.spec.seccomp_profile import load_profile

        section["seccomp"] = load_profile(chosen, capabilities.mask_of(process["capabilities"]["bounding"]))
    job.seccomp = (launch.CHILD_FD_SECCOMP, seccomp.flags_of(config) or 0)


def files(options: Options, request: requests.Request, wired: NetworkPlan) -> dict[str, bytes | str]:
    """/etc/hosts, /etc/hostname and /etc/resolv.conf, as Docker writes them; or whose they are, see
    containers.make_directories."""
    if request.files_of:
        return {name: f"{request.files_of}/{name}" for name in ("hosts", "hostname", "resolv.conf")}
    resolv, dns = "".join([f"{line}\n" for line in wired.resolv]), request.dns
    if request.mode == "host":
        hosts = _read("/etc/hosts").decode("utf-8", "replace")
        if not (dns.servers or dns.search or dns.options):  # word for word, then
            resolv = _read("/etc/resolv.conf").decode("utf-8", "replace")
    else:
        hosts = (
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n"
            "ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        )
    for text in values.texts(options.get("add_host")):
        name, address = values.host_entry(text)
        if address == "host-gateway":
            address = _gateway(wired.gateway, request.mode, text)
        hosts += f"{address.strip('[]')}\t{name}\n"
    own = request.hostname
    if "." in own:
        own = values.names_in_hosts(own)
    addresses = [address for wire in wired.wires for address in wire.addresses()]
    if not wired.wires and wired.address:  # of an ordinary user's container
        addresses = [wired.address]
    hosts += "".join([f"{address}\t{own}\n" for address in addresses])
    return {
        "hosts": hosts.encode(),
        "hostname": f"{request.hostname}\n".encode(),
        "resolv.conf": resolv.encode(),
    }


def _gateway(gateway: str, mode: str, told: str) -> str:
    """Where the container reaches this host. Raises UsageError where it does not."""
    if mode in requests.UNWIRED:
        return "127.0.0.1"
    if not gateway:
        raise UsageError(
            f"--add-host {told}: with --network={mode} the container reaches no address of this host's own",
            "name an address; or --network=host, --network=bridge",
        )
    return gateway


def _read(path: str) -> bytes:
    try:
        return paths.read(path)
    except OSError:
        return b""


def record(
    options: Options, request: requests.Request, container: configs.Container, prepared: launch.Launch
) -> Record:
    """container.json: what `ps` and the other verbs want to know. container: by `of_image`."""
    wired = prepared.network
    assert wired is not None
    return {
        "id": request.id,
        "name": request.name,
        "image": container.image,
        "image_id": container.image_id,
        "hostname": request.hostname,
        "mode": request.mode,
        "stop_signal": container.stop_signal,
        "dns": request.dns.servers,
        "dns_search": request.dns.search,
        "dns_option": request.dns.options,
        "resolv": wired.resolv,
        "created": time.time(),
        "args": prepared.config["process"]["args"],
        "tty": bool(options.get("tty")),
        "rm": bool(options.get("rm")),
        "detach": bool(options.get("detach")),
        "network": ",".join([each.network for each in request.endpoints]) or _mode(request),
        "networks": [wire.record() for wire in wired.wires],
        "ports": [list(entry) for entry in wired.ports],
        "exposed": request.exposed,
        "address": wired.address,
        "mac": wired.mac,
        "labels": container.labels,
        "stop_timeout": options.get("stop_timeout"),
        "group_add": values.texts(options.get("group_add")),
        "net_rate": options.get("net_rate"),
        "net_fault": options.get("net_fault"),
    }
