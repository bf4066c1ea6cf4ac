"""`run`'s options and an image become an OCI config: everything that is decided, decided here.

The result is what `config.json` would say for `runc run`, with Docker's defaults (spec/defaults.py). It is
pure but for reading the image's passwd and group files. Source: runtime-spec config.md, config-linux.md.
"""

from __future__ import annotations

from pyrun.errors import UsageError

from . import capabilities, defaults, users, values

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Config, DeviceRule, Linux, Mount, Namespace, Process, Resources
    from pyrun.store.image_json import Image, ImageConfig

    from .values import Options

OCI_VERSION = "1.3.0"  # the newest that pyrun knows, and the one it writes


class Container:
    """What a config is told of its container beside the options and the image.

    id, name, hostname     of the request; keep: its lasting directory; mode: of its network
    netns, shared_files    the network namespace to join, and the files that come with it
    image, image_id        what it was called, and what it is
    layers, volumes        directories: of the image, the top one first; of its own
    stop_signal, labels    the image's, unless the options say otherwise
    """

    __slots__ = (
        "hostname", "id", "image", "image_id", "keep", "labels", "layers", "mode", "name", "netns", "shared_files",
        "stop_signal", "volumes",
    )  # fmt: skip

    def __init__(self, image: str = "") -> None:
        self.image = image
        self.id = self.name = self.hostname = self.keep = self.mode = self.netns = ""
        self.image_id = self.stop_signal = ""
        self.shared_files: dict[str, str] = {}
        self.layers: list[str] = []
        self.volumes: list[str] = []
        self.labels: dict[str, str] = {}


def arguments(options: Options, image: Image, command: list[str]) -> list[str]:
    """What is executed: --entrypoint or the image's, then the command or the image's Cmd."""
    image_config = config_of(image)
    entrypoint = values.texts(image_config.get("Entrypoint"))
    default = values.texts(image_config.get("Cmd"))
    given = options.get("entrypoint")
    if given is not None:
        entrypoint, default = ([str(given)] if given else []), []
    result = entrypoint + (command or default)
    if not result:
        raise UsageError("no command given, and the image has none", "pyrun run IMAGE COMMAND")
    return result


def build(options: Options, image: Image, command: list[str], container: Container) -> Config:
    """The OCI config of a container."""
    image_config = config_of(image)
    user = users.resolve(
        str(options.get("user") or image_config.get("User") or ""),
        values.texts(options.get("group_add")),
        container.layers,
    )
    variables, mounts = _variables(options, image_config, container), _mounts(options, container)
    annotations = {"org.opencontainers.image.ref.name": container.image}
    if not variables.get("HOME"):  # as runc, to which an empty one is none
        place = users.passwd_shown(mounts)  # a volume: the user is the image's, HOME what the container sees
        variables["HOME"] = users.home_of(user["uid"], *place) if place else user["home"]
        annotations[users.HOME] = "default"
    process = _process(options, image_config, user, arguments(options, image, command), variables)
    config: Config = {
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {"path": f"{container.keep}/rootfs", "readonly": bool(options.get("read_only"))},
        "hostname": container.hostname,
        "mounts": mounts,
        "linux": _linux(options, container),
        "annotations": annotations,
    }
    return config


def config_of(image: Image) -> ImageConfig:
    """`config` of an image; {} if it has none."""
    config = image.get("config")
    return config if isinstance(config, dict) else {}


def _variables(options: Options, image_config: ImageConfig, container: Container) -> dict[str, str]:
    """Docker's order of precedence: PATH, HOSTNAME, TERM; the image; --env-file; --env."""
    merged: dict[str, str] = {"PATH": defaults.DEFAULT_PATH, "HOSTNAME": container.hostname}
    if options.get("tty"):
        merged["TERM"] = "xterm"
    # an entry without a name is some builder's mistake, which no user could mend
    given = [item for item in values.texts(image_config.get("Env")) if item[:1] != "="]
    if options.get("env_file"):
        from . import env_file

        given += env_file.read(values.texts(options.get("env_file")))
    given += values.environment(values.texts(options.get("env")), "--env")
    for item in given:
        name, separator, value = item.partition("=")
        if separator:
            merged[name] = value
        else:
            merged.pop(name, None)
    return merged


def _environment(variables: dict[str, str]) -> list[str]:
    for name, value in variables.items():
        if "\0" in value or "\0" in name:
            raise UsageError(f"environment variable {name!r} holds a NUL byte")
    return [f"{name}={value}" for name, value in variables.items()]


def _process(
    options: Options,
    image_config: ImageConfig,
    user: users.Account,
    command: list[str],
    variables: dict[str, str],
) -> Process:
    mask = capabilities.parse_add_drop(
        values.texts(options.get("cap_add")),
        values.texts(options.get("cap_drop")),
        bool(options.get("privileged")),
    )
    bounding = capabilities.names_of(mask)
    # a process that is not root holds nothing until it executes a file that gives it something
    active = bounding if user["uid"] == 0 else []
    directory = str(options.get("workdir") or image_config.get("WorkingDir") or "/")
    if directory[:1] != "/" or "\0" in directory:
        told = "--workdir" if options.get("workdir") else "the image's WorkingDir"
        raise UsageError(f"{told} {directory!r} is not an absolute path", "for example --workdir /srv")
    limits = [values.rlimit(text) for text in values.texts(options.get("ulimit"))]
    return {
        "terminal": bool(options.get("tty")),
        "user": {"uid": user["uid"], "gid": user["gid"], "additionalGids": user["groups"]},
        "args": command,
        "env": _environment(variables),
        "cwd": values.normal_path(directory),
        "capabilities": {
            "bounding": bounding,
            "effective": active,
            "permitted": active,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [{"type": kind, "soft": soft, "hard": hard} for kind, soft, hard in limits],
        "noNewPrivileges": _no_new_privileges(options),
    }


_UNHIDDEN = "systempaths=unconfined"  # no masked and no read-only paths; Docker's command line takes it with a = alone


def _no_new_privileges(options: Options) -> bool:
    """As Docker: of several the last one counts. What another option asks for is refused unless we do it."""
    wanted = False
    for text in values.texts(options.get("security_opt")):
        name, given, value = text.replace(":", "=", 1).partition("=")
        if name == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise UsageError(f"invalid --security-opt: {text!r}", "no-new-privileges takes true or false")
            wanted = value != "false"
        elif text == _UNHIDDEN or (name in ("seccomp", "label") and given):
            continue
        elif (name, value) != ("apparmor", "unconfined"):
            hint = f"seccomp=FILE, seccomp=unconfined, no-new-privileges, {_UNHIDDEN}"
            raise UsageError(f"unknown --security-opt: {text!r}", hint)
    return wanted


def _mounts(options: Options, container: Container) -> list[Mount]:
    privileged = bool(options.get("privileged"))
    own = [values.tmpfs(text) for text in values.texts(options.get("tmpfs"))]
    own += [values.volume(text) for text in values.texts(options.get("volume")) if ":" in text]
    taken = [mount["destination"] for mount in own]
    if container.volumes:
        from . import volumes

        usual = [mount["destination"] for mount in _default_mounts(options, privileged)]
        alone = volumes.alone(values.texts(options.get("volume")))
        own += volumes.shown_again(container, alone, taken, usual)
        taken += alone
    if len(set(taken)) != len(taken):
        twice = next(each for each in taken if taken.count(each) > 1)
        raise UsageError(f"two mounts go to {twice}", "leave one of --volume and --tmpfs out")
    own += [
        mount
        for mount in _etc_files(container, bool(options.get("read_only")))
        if mount["destination"] not in taken
    ]
    # as Docker: by depth, so that none is hidden by one that is given later; the caller's take the place of ours
    own.sort(key=lambda mount: mount["destination"].rstrip("/").count("/"))
    return [each for each in _default_mounts(options, privileged) if not _replaced(each, taken)] + own


def _replaced(mount: Mount, taken: list[str]) -> bool:
    """Whether the caller gives what is to be there, or a whole /dev."""
    target = mount["destination"]
    return target in taken or ("/dev" in taken and target.startswith("/dev/"))


def _default_mounts(options: Options, privileged: bool) -> list[Mount]:
    mounts: list[Mount] = []
    shm_bytes = (
        values.size_bytes(str(options.get("shm_size") or "0"), "--shm-size") or defaults.SHM_SIZE_BYTES
    )
    for target, kind, source, flags in defaults.MOUNTS:
        given = list(flags)
        if privileged and target in defaults.MOUNTS_WRITABLE_WHEN_PRIVILEGED:
            given.remove("ro")
        if target == "/dev/shm":
            given.append(f"size={shm_bytes}")
        mounts.append({"destination": target, "type": kind, "source": source, "options": given})
    return mounts


def _etc_files(container: Container, read_only: bool) -> list[Mount]:
    """Files that pyrun keeps for the container; with --network container: or ns:, somebody else's."""
    given = container.shared_files
    return [
        {
            "destination": f"/etc/{name}",
            "type": "bind",
            "source": given.get(name) or f"{container.keep}/{name}",
            "options": ["rbind", "rprivate", *(["ro"] if read_only else [])],
        }
        for name in ("resolv.conf", "hostname", "hosts")
    ]


def _linux(options: Options, container: Container) -> Linux:
    privileged = bool(options.get("privileged"))
    joined = container.netns  # somebody else's network namespace: its settings are not ours
    host_network = container.mode == "host"
    hidden = not privileged and _UNHIDDEN not in values.texts(options.get("security_opt"))
    kinds = ["mount", "pid", "uts", "ipc", "cgroup"] + ([] if host_network or joined else ["network"])
    sysctls = {} if host_network or joined else dict(defaults.SYSCTLS)
    sysctls.update(
        values.sysctl(text, host_network=host_network) for text in values.texts(options.get("sysctl"))
    )
    made: list[Namespace] = [{"type": kind} for kind in kinds]
    return {
        "namespaces": [*made, {"type": "network", "path": joined}] if joined else made,
        "cgroupsPath": f"/pyrun/{container.id}",
        "resources": _resources(options, privileged),
        "sysctl": sysctls,
        "maskedPaths": list(defaults.masked_paths()) if hidden else [],
        "readonlyPaths": list(defaults.READONLY_PATHS) if hidden else [],
    }


def _resources(options: Options, privileged: bool) -> Resources:
    rules = defaults.DEVICE_RULES_PRIVILEGED if privileged else defaults.DEVICE_RULES
    resources: Resources = {"devices": [_device_rule(*rule) for rule in rules]}
    if options.get("memory"):
        limit = values.memory_bytes(str(options["memory"]))
        resources["memory"] = {"limit": limit, "swap": 2 * limit}  # Docker: as much swap again
    if options.get("cpus"):
        resources["cpu"] = {"quota": values.cpu_quota_us(str(options["cpus"])), "period": 100_000}
    pids = options.get("pids_limit")
    if isinstance(pids, int) and pids > 0:
        resources["pids"] = {"limit": pids}
    return resources


def _device_rule(allow: bool, kind: str, major: int, minor: int, access: str) -> DeviceRule:
    rule: DeviceRule = {"allow": allow, "type": kind, "access": access}
    if major >= 0:
        rule["major"] = major
    if minor >= 0:
        rule["minor"] = minor
    return rule
