"""`pyrun-oci update`: new limits, from flags or from a document as in linux.resources.

With --resources all other flags but those of Intel RDT are ignored, as runc does. The state's copy of config.json is
brought up to date, so that the next update and `exec` know what is in force. Source: runc-update(8).
"""

from __future__ import annotations

import posix

from pyrun import notice
from pyrun.cgroups import rdt
from pyrun.cgroups import update as cgroups
from pyrun.errors import Conflict, PyrunError, UsageError
from pyrun.jsonlite import dumps
from pyrun.safe import is_number
from pyrun.spec import check, config_file, values
from pyrun.store import bundles, paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import IntelRdt, Memory, Resources
    from pyrun.spec.values import Options
    from pyrun.store.record import BundleRecord

# flag -> (section, key); whole numbers, sizes with a unit, texts
_NUMBERS = {
    "cpu_period": ("cpu", "period"), "cpu_quota": ("cpu", "quota"), "cpu_burst": ("cpu", "burst"),
    "cpu_share": ("cpu", "shares"), "cpu_rt_period": ("cpu", "realtimePeriod"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"), "cpu_idle": ("cpu", "idle"),
    "blkio_weight": ("blockIO", "weight"), "pids_limit": ("pids", "limit"),
}  # fmt: skip
_SIZES = {
    "memory": ("memory", "limit"), "memory_swap": ("memory", "swap"), "memory_reservation": ("memory", "reservation"),
}  # fmt: skip
_TEXTS = {"cpuset_cpus": ("cpu", "cpus"), "cpuset_mems": ("cpu", "mems")}
_PLACE = "linux.resources."


def update(options: Options, identifier: str) -> None:
    """Change the limits of a container that has not stopped. Raises UsageError, Conflict, PyrunError."""
    try:
        _update(options, identifier)
    except UsageError as error:
        raise _reworded(options, error) from None


def _reworded(options: Options, error: UsageError) -> UsageError:
    """What the cgroups say of a field, with the flag or the file it was given by: nobody has written a config.json."""
    rest = error.message.removeprefix("config.json: ")
    place, _, rule = rest.partition(": ")
    if place[: len(_PLACE)] != _PLACE:
        return error
    field = place.removeprefix(_PLACE)
    if options.get("resources"):
        return UsageError(f"--resources {options['resources']}: {field}: {rule}", error.hint)
    for flag, (section, key) in (_NUMBERS | _SIZES | _TEXTS).items():
        if field == f"{section}.{key}" and _given(options, flag):
            return UsageError(f"{_option(flag)} {_given(options, flag)}: {rule}", error.hint)
    return UsageError(f"the container's {place}: {rule}", error.hint)


def _update(options: Options, identifier: str) -> None:
    container = bundles.load(bundles.root_of(options), identifier)
    given = _document(str(options["resources"])) if options.get("resources") else requested(options)
    if bundles.status(container) == "stopped":
        raise Conflict("container not running")
    config = bundles.config(container)
    linux = config["linux"] = config.get("linux") or {}
    old = linux.get("resources") or {}
    whole = cgroups.merged(old, given)
    wanted = cgroups.to_write(given, whole)
    _schemata(options, linux.get("intelRdt") or {}, identifier)
    if wanted or given.get("devices"):
        _change(container, old, whole, wanted, given)
        linux["resources"] = whole
    text = dumps(config).encode("utf-8", "surrogateescape")
    paths.replace(f"{container['directory']}/config.json", text)


def _change(
    container: BundleRecord,
    old: Resources,
    whole: Resources,
    wanted: Resources,
    given: Resources,
) -> None:
    found = bundles.groups(container)
    if not found:
        raise PyrunError("cannot update: the container has no cgroup", "it was created without one")
    memory: Memory = {**(wanted.get("memory") or {}), "checkBeforeUpdate": _check_flag(whole)}
    cgroups.check_usage(found, memory)
    if container.get("driver") == "systemd" and container.get("unit"):
        v2 = [names for names, _ in found] == ["unified"]
        cgroups.tell_systemd(
            str(container["unit"]), whole, wanted, v2=v2, with_devices=bool(given.get("devices"))
        )
    cgroups.apply(found, wanted)
    cgroups.apply_devices(found, old, whole, given)


def _check_flag(whole: Resources) -> bool:
    return bool((whole.get("memory") or {}).get("checkBeforeUpdate"))


def _schemata(options: Options, section: IntelRdt, identifier: str) -> None:
    changes: IntelRdt = {}
    if options.get("l3_cache_schema"):
        changes["l3CacheSchema"] = str(options["l3_cache_schema"])
    if options.get("mem_bw_schema"):
        changes["memBwSchema"] = str(options["mem_bw_schema"])
    rdt.update(section, identifier, changes)
    section.update(changes)


def requested(options: Options) -> Resources:
    """The flags as in linux.resources. "" is unset, and so is 0 for --blkio-weight; --kernel-memory has no effect."""
    found: dict[str, dict[str, object]] = {}
    for flag in ("kernel_memory", "kernel_memory_tcp"):
        if _given(options, flag):
            notice.say(f"{_option(flag)} is ignored: kernels have no such limit any more")
    for flag, (section, key) in _NUMBERS.items():
        text = _given(options, flag)
        if text and not (flag == "blkio_weight" and text == "0"):
            found.setdefault(section, {})[key] = _number(flag, text)
    for flag, (section, key) in _SIZES.items():
        if text := _given(options, flag):
            found.setdefault(section, {})[key] = (
                -1 if text == "-1" else values.size_bytes(text, _option(flag))
            )
    for flag, (section, key) in _TEXTS.items():
        if text := _given(options, flag):
            found.setdefault(section, {})[key] = text
    return check.resources(found)


def _given(options: Options, flag: str) -> str:
    value = options.get(flag)
    return "" if value is None else str(value)


def _option(flag: str) -> str:
    return "--" + flag.replace("_", "-")


def _number(flag: str, text: str) -> int:
    if not is_number(text.removeprefix("-")):
        raise UsageError(f"invalid value for {_option(flag)}: {text!r:.60}", "a whole number")
    return int(text)


def _document(path: str) -> Resources:
    """--resources: a file, or - for standard input."""
    name = f"--resources {path}"
    if path == "-":
        return check.resources(config_file.parse(_standard_input(), name), f"{name}: ")
    return check.resources(config_file.read(path, name, piped=True)[0], f"{name}: ")


def _standard_input() -> bytes:
    data = b""
    while len(data) <= config_file.BYTES_MAX and (more := posix.read(0, 65536)):
        data += more
    return data
