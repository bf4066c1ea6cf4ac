"""New limits for a container that runs: what was asked for, put into its config, and into the cgroup's files.

Only what is asked for is written, with what it depends on: memory and swap, quota and period. Files depend on one
another (v1's memory may not exceed memory and swap together, a burst not the quota), and which order is right depends
on what is in force: what the kernel calls invalid is tried again after the rest. If a write fails for good, those
before it are taken back. Source: runc-update(8), cgroup-v1/memory.rst, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import errno
from typing import Any

from pyrun import device_rules
from pyrun.errors import PyrunError, StageFailed, UsageError
from pyrun.store import paths

from . import devices, failures, files, limits_v1, limits_v2, readings
from .layout import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.spec.oci import Memory, Resources

# of blockIO: rows by device, of which an update changes or adds single ones
_THROTTLES = "throttleReadBpsDevice throttleWriteBpsDevice throttleReadIOPSDevice throttleWriteIOPSDevice"
_ROWS = ("weightDevice", *_THROTTLES.split())
_PARTNERS = {"limit": "swap", "swap": "limit", "quota": "period", "period": "quota"}
# What is set anew as a whole, if it is given at all.
_WHOLE = ("unified", "hugepageLimits", "rdma", "network")


def merged(old: Resources, given: Resources) -> Resources:
    """*old* with what *given* changes. In devices, given rules take the place of all."""
    # the config may name what it has not
    there = {key: value for key, value in old.items() if value is not None}
    result: Any = {key: dict(value) if isinstance(value, dict) else value for key, value in there.items()}
    changes: Any = given
    for section in ("memory", "cpu", "pids", "blockIO"):
        for key, value in (changes.get(section) or {}).items():
            if value is None:
                continue
            place = result.setdefault(section, {})
            place[key] = _rows(place.get(key) or [], value) if key in _ROWS else value
    memory = given.get("memory") or {}
    if memory.get("limit") == -1 and memory.get("swap") is None and result["memory"].get("swap"):
        result["memory"]["swap"] = -1  # no limit on memory: none on swap either, from now on
    for key in (*_WHOLE, "devices"):
        if changes.get(key):
            result[key] = changes[key]
    made: Resources = result
    return made


def _rows(old: list[dict[str, int]], new: list[dict[str, int]]) -> list[dict[str, int]]:
    """Rows of devices: one that is there already is changed, another added."""
    rows = {(row["major"], row["minor"]): dict(row) for row in old}
    for row in new:
        rows.setdefault((row["major"], row["minor"]), {}).update(row)
    return list(rows.values())


def to_write(given: Resources, whole: Resources) -> Resources:
    """Of *whole*, what *given* touches and what that depends on."""
    result: Any = {}
    changes: Any = given
    after: Any = whole
    for section in ("memory", "cpu", "pids", "blockIO"):
        keys = [key for key, value in (changes.get(section) or {}).items() if value is not None]
        keys += [_PARTNERS[key] for key in keys if key in _PARTNERS]
        found = {key: after[section][key] for key in keys if after.get(section, {}).get(key) is not None}
        for key in _ROWS:
            if key in found:
                found[key] = changes[section][key]
        if found:
            result[section] = found
    if result.get("memory", {}).get("limit") == -1 and (given.get("memory") or {}).get("swap") is None:
        result["memory"].pop("swap", None)  # no limit on memory: none on swap either
    for key in _WHOLE:
        if changes.get(key):
            result[key] = changes[key]
    made: Resources = result
    return made


def writes(groups: list[Group], resources: Resources) -> list[tuple[str, str, str]]:
    """(path, value, field) for *resources*. Raises UsageError for what this host cannot limit."""
    place = {name: directory for names, directory in groups for name in names.split(",")}
    v2 = set(place) == {"unified"}
    found = []
    for file, value, field in (limits_v2 if v2 else limits_v1).limits(resources):
        directory = place.get("unified" if v2 else file.partition(".")[0])
        if directory:
            found.append((f"{directory}/{file}", value, field))
        elif file[-1:] != "?":
            raise failures.missing_controller(file, field)
    return found


def check_usage(groups: list[Group], memory: Memory) -> None:
    """memory.checkBeforeUpdate: v2 would kill to get below the new limit; v1 refuses by itself. Raises UsageError."""
    directory = groups[0][1] if len(groups) == 1 and groups[0][0] == "unified" else ""
    if not memory.get("checkBeforeUpdate") or not directory:
        return
    usage = readings.number(f"{directory}/memory.current")
    for key, limit in (("swap", memory.get("swap") or 0), ("limit", memory.get("limit") or 0)):
        if 0 < limit <= usage:
            raise UsageError(
                f"linux.resources.memory.{key}: must be more than what is in use ({usage}), not {limit}"
            )


def apply(groups: list[Group], resources: Resources) -> None:
    """Write it all, or nothing. Raises UsageError, StageFailed."""
    wanted = writes(groups, resources)
    before: list[tuple[str, str]] = []
    try:
        _settle(wanted, before)
    except PyrunError:
        for path, value in reversed(before):
            try:
                files.write(path + "?", value)
            except PyrunError:
                continue
        raise


def _settle(wanted: list[tuple[str, str, str]], before: list[tuple[str, str]]) -> None:
    """Rounds, as long as each gets further. before: gets what was in the files."""
    while wanted:
        left = []
        for path, value, field in wanted:
            old = readings.word(path.rstrip("?"))
            try:
                files.put(path, value.encode())
            except OSError as error:
                if error.errno == errno.EINVAL:
                    left.append((path, value, field))
                    continue
                failures.second_way(path, value, field, error.errno or 0)
            if old and "\n" not in old:
                before.append((path.rstrip("?"), old))
        if len(left) == len(wanted):
            path, value, field = left[0]
            directory, _, name = path.rstrip("?").rpartition("/")
            raise failures.refused(directory, name, value, field, errno.EINVAL)
        wanted = left


def apply_devices(groups: list[Group], old: Resources, whole: Resources, given: Resources) -> None:
    """Device rules, if any were given and they differ. Raises StageFailed."""
    if given.get("devices"):
        devices.replace(groups, device_rules.lines(old), device_rules.lines(whole))


def tell_systemd(unit: str, whole: Resources, wanted: Resources, *, v2: bool, with_devices: bool) -> None:
    """The unit's properties: systemd would write the old ones again at its next chance. Raises PyrunError."""
    from . import bus, bus_library, systemd_properties

    properties = systemd_properties.limits(wanted, v2=v2)
    user = paths.is_user()
    if with_devices and not user:
        properties += systemd_properties.devices(whole)
    if not properties:
        return
    connection = bus.connect(user=user)
    try:
        bus_library.set_properties(connection, unit, properties)
    except StageFailed as error:
        raise PyrunError(error.message, error.hint) from None
    finally:
        connection.close()
