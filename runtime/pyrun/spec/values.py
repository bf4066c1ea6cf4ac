"""The values of `run`'s options: each parser takes what the user wrote and returns data, or one clear line. And what
many read of a config: its section `linux`, lists of texts, paths.

Docker's notations: sizes with b, k, m, g; volumes `src:dst[:options]`. Ports: network/publishing/option.py.
Source: docs.docker.com/reference/cli/docker/container/run.
"""

from __future__ import annotations

import posix

from pyrun.errors import UsageError
from pyrun.safe import is_number

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Config, Linux, Mount

    # A command's options by name, with _ for -: what the tables of cli/ make of the words, defaults filled in. Whoever
    # reads one decides what it must be.
    Options = dict[str, object]

_SIZE_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
MEMORY_MINIMUM_BYTES = 6 << 20  # Docker's own floor

# RLIMIT_* of asm-generic/resource.h: the same numbers on x86_64 and aarch64.
RLIMITS = {
    "cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8, "as": 9,
    "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}  # fmt: skip
RLIM_INFINITY = (1 << 64) - 1

# What a container may set: everything else is the host's. Source: runc libcontainer, kernel namespaces(7).
SYSCTL_IPC = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
    "kernel.shm_rmid_forced",
)  # fmt: skip

CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")  # of process.capabilities

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def texts(value: object) -> list[str]:
    """The items of a list of options or of an image's config as strings; [] for what is no list."""
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def linux_section(config: Config) -> Linux:
    """`linux` of a config; {} if it has none."""
    return config.get("linux") or {}


def size_bytes(text: str, option: str) -> int:
    """`64m` -> 67108864."""
    number, unit = text, ""
    low = text.lower()
    for suffix in ("ib", "b"):
        if len(low) > len(suffix) and low.endswith(suffix) and low[: -len(suffix)][-1:] in "kmgtp":
            low = low[: -len(suffix)]
            break
    if low and not low[-1].isdigit():
        number, unit = low[:-1].removesuffix(" "), low[-1]  # as Docker: `64 m`
    else:
        number = low
    whole, _, fraction = number.partition(".")
    if unit not in _SIZE_UNITS or not is_number(whole) or (fraction and not is_number(fraction)):
        raise UsageError(
            f"invalid size for {option}: {text!r}", "give a number with b, k, m or g, for example 512m"
        )
    size = int(float(f"{whole}.{fraction or 0}") * _SIZE_UNITS[unit])
    if size >= 1 << 63:
        raise UsageError(f"{option} is too large: {text!r}", "for example 512m")
    return size


def memory_bytes(text: str) -> int:
    """-m: at least 6 MiB, as in Docker; 0 is no limit."""
    value = size_bytes(text, "--memory")
    if 0 < value < MEMORY_MINIMUM_BYTES:
        raise UsageError(f"--memory is too small: {text!r}", "the least is 6m")
    return value


def cpu_quota_us(text: str, period_us: int = 100_000) -> int:
    """--cpus 1.5 -> 150000 of every 100000 microseconds; 0 is no limit."""
    whole, _, fraction = text.partition(".")
    if not (is_number(whole or "0") and is_number(fraction or "0")) or not (whole or fraction):
        raise UsageError(f"invalid number for --cpus: {text!r}", "for example 1.5")
    quota = int(float(f"{whole or 0}.{fraction or 0}") * period_us)
    if quota < 1000 and (whole + fraction).strip("0"):
        raise UsageError(f"--cpus is too small: {text!r}", "the least is 0.01")
    return quota


def _is_ipv4(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(is_number(part) and int(part) < 256 and len(part) < 4 for part in parts)


def host_entry(text: str) -> tuple[str, str]:
    """--add-host `name:address` (or name=address) -> (name, address)."""
    name, separator, address = text.partition("=" if "=" in text else ":")
    if not separator or not name or not address or any(c.isspace() for c in text):
        raise UsageError(f"invalid --add-host: {text!r}", "write HOST:IP, for example db:10.0.0.7")
    if address != "host-gateway" and not _is_ipv4(address) and not (":" in address and _is_ipv6(address)):
        raise UsageError(
            f"invalid address in --add-host {text!r}: {address!r}", "give an IPv4 or IPv6 address"
        )
    return name, address


def _is_ipv6(text: str) -> bool:
    import _socket

    try:
        _socket.inet_pton(_socket.AF_INET6, text.strip("[]"))
    except (OSError, ValueError):  # the latter: a byte that is no character
        return False
    return True


def rlimit(text: str) -> tuple[str, int, int]:
    """--ulimit `nofile=1024[:2048]` -> (OCI type, soft, hard)."""
    name, separator, values = text.partition("=")
    if not separator or name not in RLIMITS:
        known = ", ".join(sorted(RLIMITS))
        raise UsageError(f"invalid --ulimit: {text!r}", f"write NAME=SOFT[:HARD]; NAME is one of {known}")
    soft, _, hard = values.partition(":")
    numbers = []
    for value in (soft, hard or soft):
        if value not in ("-1", "unlimited") and not (is_number(value) and int(value) <= RLIM_INFINITY):
            raise UsageError(
                f"invalid limit in --ulimit {text!r}: {value!r}", "give numbers, or -1 for no limit"
            )
        numbers.append(RLIM_INFINITY if value in ("-1", "unlimited") else int(value))
    if numbers[0] > numbers[1]:
        raise UsageError(f"--ulimit {text!r}: the soft limit is above the hard one", "write NAME=SOFT:HARD")
    return f"RLIMIT_{name.upper()}", numbers[0], numbers[1]


def sysctl(text: str, *, host_network: bool) -> tuple[str, str]:
    """--sysctl `name=value`, one of those that belong to a namespace. Raises UsageError for any other."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UsageError(
            f"invalid --sysctl: {text!r}", "write NAME=VALUE, for example net.core.somaxconn=1024"
        )
    check_sysctl(name, value, host_network=host_network)
    return name, value


def check_sysctl(name: str, value: str, *, host_network: bool) -> None:
    """Refuse what is the host's, and what could smuggle in a second setting (CVE-2022-0811)."""
    plain = name.replace(".", "").replace("_", "").replace("-", "").replace("/", "")
    parts = name.replace("/", ".").split(".")
    if not plain.isalnum() or "" in parts or "\n" in value or "\0" in value:
        raise UsageError(f"invalid sysctl: {name!r}={value!r}", "a name of letters, digits, dots; one value")
    if name.startswith("net.") and host_network:
        raise UsageError(f"sysctl {name} belongs to the host with --network=host", "use another network")
    if not name.startswith(("net.", "fs.mqueue.")) and name not in SYSCTL_IPC:
        raise UsageError(
            f"sysctl {name} is not separate for a container", "net.*, fs.mqueue.* and the IPC ones are"
        )


def volume(text: str) -> Mount:
    """-v `src:dst[:options]` -> an OCI mount. The source must exist."""
    parts = text.split(":")
    options = parts[2].split(",") if parts[2:] not in ([], [""]) else []  # `-v a:b:$MODE` without a mode
    if len(parts) not in (2, 3) or not parts[0]:
        raise UsageError(f"invalid --volume: {text!r}", "write SRC:DST[:ro], both absolute paths")
    source, target = parts[0], normal_path(parts[1])
    source = _volume_source(text, source)
    if parts[1][:1] != "/" or target == "/":
        raise UsageError(
            f"--volume {text!r}: invalid destination {parts[1]!r}", "give an absolute path other than /"
        )
    check_target(f"--volume {text!r}", target, bind=True)
    for option in options:
        if option not in _VOLUME_OPTIONS:
            raise UsageError(
                f"--volume {text!r}: unknown option {option!r}", "ro, rw, or a propagation such as rslave"
            )
    for group in _VOLUME_CHOICES:
        if len(chosen := [option for option in options if option in group]) > 1:
            raise UsageError(
                f"--volume {text!r}: {','.join(chosen)} is more than one mode of a kind",
                f"give one of {', '.join(group)}",
            )
    kept = [option for option in options if option == "ro" or option in _PROPAGATIONS]
    if not any(option in _PROPAGATIONS for option in kept):
        kept.append("rprivate")
    return {"destination": target, "type": "bind", "source": source, "options": ["rbind", *kept]}


_VOLUME_CHOICES = (("ro", "rw"), ("z", "Z"), ("consistent", "cached", "delegated"), tuple(_PROPAGATIONS))
_VOLUME_OPTIONS = (
    "ro", "rw", "z", "Z", "rbind", "bind", "nocopy", "consistent", "cached", "delegated", *_PROPAGATIONS,
)  # fmt: skip


def _volume_source(text: str, source: str) -> str:
    """An absolute path that exists."""
    if source[0] not in "/.":
        hint = "named volumes are not there yet; write /path or ./path"
        raise UsageError(f"--volume {text!r}: {source!r} is no path", hint)
    hint = "make it first, for example with mkdir -p"
    try:
        if source[0] == ".":
            hint = "from the current directory; make it first, for example with mkdir -p"
            source = posix.getcwd() + "/" + source
        posix.stat(source)
    except OSError as error:
        raise UsageError(f"--volume {text!r}: {source}: {error.strerror}", hint) from None
    return source


def check_target(told: str, target: str, *, bind: bool) -> None:
    """Refuse a place below /proc, in the option's own words."""
    from . import mount_options

    try:
        mount_options.check_target(target, "" if bind else "tmpfs", bind=bind, path="")
    except UsageError as error:
        hint = error.hint if target != "/proc" else "choose another directory"
        raise UsageError(f"{told}: /proc is the kernel's own, {target} cannot be mounted on", hint) from None


def tmpfs(text: str) -> Mount:
    """--tmpfs `dir[:options]` -> an OCI mount, with Docker's default options."""
    target, _, options = text.partition(":")
    if target[:1] != "/" or normal_path(target) == "/":
        raise UsageError(
            f"--tmpfs {text!r}: {target!r} is no absolute path", "for example --tmpfs /run:size=64m"
        )
    check_target(f"--tmpfs {text!r}", normal_path(target), bind=False)
    given = [option for option in options.split(",") if option]
    return {
        "destination": normal_path(target),
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["noexec", "nosuid", "nodev", *given],
    }


def normal_path(path: str) -> str:
    """An absolute path without `.`, `..`, double or final slashes; `..` stops at the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def host_name(text: str) -> str:
    """-h: what sethostname and /etc/hosts take."""
    if (
        not text
        or len(text) > 63
        or not text.replace("-", "").replace(".", "").replace("_", "").isalnum()
        or text[0] in "-."
    ):
        raise UsageError(f"invalid --hostname: {text!r}", "letters, digits, hyphens and dots, at most 63")
    return text


def names_in_hosts(host: str) -> str:
    """What stands behind a container's own address in /etc/hosts: its hostname, and the short one of `x.example.com`.

    Source: Docker's libnetwork, sandbox_dns_unix.go.
    """
    short, dot, _ = host.partition(".")
    return f"{host} {short}" if dot else host


def environment(items: list[str], option: str) -> list[str]:
    """-e NAME=VALUE stays; -e NAME takes the value of the caller's environment, and stays without one: then whatever
    the container would have by that name is taken from it.

    As Docker: every name that is not empty is one.
    """
    result = []
    for item in items:
        name, separator, _ = item.partition("=")
        if not name:
            raise UsageError(f"invalid variable for {option}: {item!r}", "write NAME=VALUE or NAME")
        value = None if separator else posix.environ.get(name.encode("utf-8", "surrogateescape"))
        result.append(item if value is None else f"{name}={value.decode('utf-8', 'surrogateescape')}")
    return result


def labels(words: list[str]) -> dict[str, str]:
    """--label KEY[=VALUE]. Raises UsageError."""
    found = dict(word.partition("=")[::2] for word in words)
    if "" in found:
        raise UsageError(f"--label ={found['']}: the key is empty", "KEY=VALUE or KEY")
    return found
