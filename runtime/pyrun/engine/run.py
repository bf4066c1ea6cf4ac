"""`pyrun run`: the whole way from options to a running container, as a table of contents.

Everything that can be wrong with what the user asked is found before the container is begun. Preparing claims its
name, address and ports, by files that name this process (should it be killed, they are free again), and makes a
network that is missing, which stays. All else is in the undo list before it is made. The last step replaces this
process by the monitor, so a foreground run ends there; a detached one does the same in a forked child while the
parent reports the id.
"""

from __future__ import annotations

import posix

from pyrun import boot, launch, launching, notice
from pyrun.errors import Conflict, ImageError, PyrunError, UsageError
from pyrun.safe import shell_command
from pyrun.spec import values
from pyrun.store import containers, images, paths

from . import background, explaining, prepare, reconcile, stdio

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pyrun.network.requests import Request
    from pyrun.spec import config as configs
    from pyrun.spec.values import Options
    from pyrun.store.image_json import Image
    from pyrun.store.record import Record

    from .pull import Progress


# The usual ones of store/platforms.py, which is loaded only when an image is for another.
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
# What no namespace keeps apart then; files have owners and modes, these have none.
_ON_THE_HOST = "the container reaches what listens on this host's loopback, and its abstract sockets"


def run(
    options: Options,
    name: str,
    command: list[str],
    progress: Callable[[bool], AbstractContextManager[Progress | None]],
) -> str:
    """Run *command* in a container of image *name*. Returns its id with -d; a foreground run does not return.

    progress: makes what hears of a pull, if there has to be one, from whether it is to be quiet.
    """
    launch.mark("imports")
    launch.need_root("run")
    check(options)
    stdio.check(options)
    reconcile.reconcile_quietly()
    image = _image(options, name, progress)
    if boot.rootless_uid() >= 0:
        from pyrun.store import overlay_kind

        overlay_kind.kind()  # noted in the store, which the plan goes by
    request, container = prepare.request(options, image), prepare.of_image(options, image, name)
    # before anything is claimed: what is claimed is this process's, and the caller's may be killed by itself
    running_fd = launching.process.fork() if options.get("detach") else -1
    if options.get("detach") and running_fd < 0:
        return request.id
    launch.persistently(lambda: _begin(options, request, container, image, command, running_fd))
    raise AssertionError("the monitor has taken over")


def _begin(
    options: Options,
    request: Request,
    container: configs.Container,
    image: Image,
    command: list[str],
    running_fd: int,
) -> None:
    """Claim, plan, start. container: by `prepare.of_image`. Does not return."""
    request.name = _name(str(options.get("name") or ""), request.id)
    prepared = None
    try:
        prepared = prepare.prepare(options, image, command, request, container)
        prepare.claim(prepared)
        prepared.running_fd = running_fd
        if (request.mode == "host" or request.on_host) and not options.get("quiet"):
            joined = f"{request.mode}:{request.target}, which is the host's own,"
            notice.say(f"with --network {joined if request.target else 'host'} {_ON_THE_HOST}")
        explaining.announce(options, prepared)
        _start(options, request, container, prepared)
    except BaseException as error:
        _give_back(request, prepared)
        if isinstance(error, PyrunError):
            from . import run_options

            raise run_options.worded(error, options, request) from error
        raise


def _name(wanted: str, identifier: str) -> str:
    """The container's; one that is free, or a --rm container's that the machine's end kept from being removed. Raises
    Conflict."""
    try:
        return containers.reserve_name(wanted, identifier)
    except Conflict:
        from . import rm

        rm.remove_rebooted(wanted)
        return containers.reserve_name(wanted, identifier)


def _give_back(request: Request, prepared: launch.Launch | None) -> None:
    """Name, address and ports of a start that ended before there was an undo list, which knows of them."""
    if prepared is not None and prepared.lock_fd >= 0:
        return
    if prepared is not None and prepared.network:
        prepared.network.claimed.release()
    containers.release_name(request.name, request.id)


def plan_only(options: Options, name: str, command: list[str]) -> launch.Launch:
    """What `run` would do, nothing touched and nothing pulled: for --dry-run."""
    check(options)
    image = images.find(name)
    if image is None:
        notice.say(f"image {name} is not here; a real run would get it first")
        image = {"layers": [f"<a layer of {name}>"], "config": {"Cmd": ["<the command of the image>"]}}
    request, container = prepare.request(options, image), prepare.of_image(options, image, name)
    request.name = str(options.get("name") or "") or containers.proposed_name(request.id, 0)
    prepared = prepare.prepare(options, image, command, request, container)
    prepare.look(prepared)
    return prepared


# What engine/run_options.py has something to say about.
_CHECKED = ("cap_add", "cap_drop", "cpus", "env_file", "pids_limit", "platform", "stop_timeout", "ulimit")


def check(options: Options) -> None:
    """Values that are wrong whatever the image: found before anything is pulled or made."""
    if options.get("hostname"):
        values.host_name(str(options["hostname"]))
    if options.get("name"):
        options["name"] = str(options["name"]).removeprefix("/")
        containers.check_name(str(options["name"]))
    if options.get("memory") and not values.memory_bytes(str(options["memory"])):
        options["memory"] = ""  # 0 is no limit
    if [key for key in _CHECKED if options.get(key)]:
        from . import run_options

        run_options.check(options)
    for text in values.texts(options.get("add_host")):
        values.host_entry(text)
    if options.get("pull") not in (None, "", "always", "missing", "never"):
        raise UsageError(f"invalid --pull: {options['pull']!r}", "always, missing or never")
    if options.get("explain") not in (None, "", "text", "json"):
        raise UsageError(f"invalid --explain: {options['explain']!r}", "text or json")
    if options.get("stop_signal"):
        from pyrun.signals import number

        number(str(options["stop_signal"]))


def _image(
    options: Options, name: str, progress: Callable[[bool], AbstractContextManager[Progress | None]]
) -> Image:
    policy, platform = str(options.get("pull") or "missing"), str(options.get("platform") or "")
    image = images.find(name) if policy != "always" and not platform else None
    machine = posix.uname().machine
    foreign = image and image.get("architecture") not in (None, "", _MACHINES.get(machine, machine))
    if image is None or (foreign and "@" in name):  # an index may have this machine's as well
        from .pull import ensure

        with progress(bool(options.get("quiet"))) as told:
            image = ensure(name, policy, platform or None, told)
    if image.get("architecture") not in (None, "", _MACHINES.get(machine, machine)):
        _check_machine(image, name, asked=bool(platform))
    return image


def _check_machine(image: Image, name: str, *, asked: bool) -> None:
    """Whether this machine may run an image of another architecture: what it can by itself, or what was asked for."""
    from pyrun.store import platforms

    has = platforms.of_image(image)
    ours = platforms.host()
    if platforms.rank(has, ours) >= 0:
        return
    if asked:
        notice.say(f"image {name} is for {has}, this machine is {ours}: it needs an emulator (binfmt_misc)")
        return
    raise ImageError(
        f"image {name} is for {has}, this machine is {ours}",
        f"pull it for this machine: {shell_command(['pyrun', 'pull', '--platform', ours, name])}",
    )


def _make(keep: str, files: dict[str, bytes | str], record: Record, prepared: launch.Launch) -> None:
    containers.make_directories(keep, files, record, prepared.config)
    # an `rmi` that began before it could see our record may be at the layers: store/image_removal.py, _hide
    if not paths.exists(f"{paths.root()}/images/{record['image_id']}/image.json"):
        raise ImageError(f"image {record['image']} was removed meanwhile", "run it again to fetch it anew")
    layers = prepared.job.layers
    if prepared.job.fuse and layers is not None:
        from pyrun.store import overlay_kind

        overlay_kind.mount_fuse(f"{keep}/rootfs", f"{keep}/upper", f"{keep}/work", layers)


def _start(options: Options, request: Request, container: configs.Container, prepared: launch.Launch) -> None:
    """Make the directories, start, hand over to the monitor. Does not return."""
    binary_fd = launch.seal()
    keep = request.keep
    streams = stdio.Stdio(tty=bool(options.get("tty")), interactive=bool(options.get("interactive")))
    prepared.keep_fds += streams.child_fds()
    assert prepared.network is not None
    files = prepare.files(options, request, prepared.network)
    record = prepare.record(options, request, container, prepared)
    prepared.make = lambda: _make(keep, files, record, prepared)
    outcome = launch.start(prepared, binary_fd)
    streams.close_child_ends()
    detach = bool(options.get("detach"))
    settings = [
        *launch.identity(prepared),
        f"log={keep}/log",
        "status=exit",
        *([] if options.get("rm") else [f"keep={keep}"]),
        *streams.monitor_settings(outcome.tty_fd, detach=detach),
        *explaining.timing(options),
        *(["sigproxy=1"] if options.get("sig_proxy") is not False and not detach else []),
    ]
    if prepared.running_fd >= 0:
        background.report(prepared.running_fd, request.id)
    inherited = [prepared.pidfd, prepared.lock_fd, *streams.monitor_fds(outcome.tty_fd)]
    launch.become_monitor(binary_fd, settings, inherited)
