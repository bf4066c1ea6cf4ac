"""The systemd driver: a container's cgroup is a scope unit, which systemd makes around the waiting init.

linux.cgroupsPath is SLICE:PREFIX:NAME, the unit PREFIX-NAME.scope in SLICE; without it pyrun-oci-ID.scope in
system.slice (user.slice of a user's own systemd). The scope is delegated, so that systemd leaves alone what we and
the container do in it. It ends by itself with its last process, and a failed one is collected: what the undo list
does suffices, `stop` is for a tidy `delete`. Properties: systemd_properties.py; D-Bus: bus.py.
Source: org.freedesktop.systemd1(5), systemd.scope(5), systemd.io/CGROUP_DELEGATION.
"""

from __future__ import annotations

from pyrun.errors import PyrunError, UsageError
from pyrun.safe import shell_word
from pyrun.store import paths

from . import bus, files, rootless, systemd_properties
from .layout import Cgroup, is_v2, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.spec.oci import Config
    from pyrun.store.record import BundleRecord

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"
_EXISTS = "org.freedesktop.systemd1.UnitExists"
_ABSENT = ("org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.UnitNotLoaded")
_UNKNOWN = "Cannot set property "  # ... NAME, or unknown property.


def unit(config: Config, identifier: str, *, user: bool) -> tuple[str, str]:
    """(slice, unit) that linux.cgroupsPath names."""
    given = str((config.get("linux") or {}).get("cgroupsPath") or "")
    parts = given.split(":") if given else ["", "pyrun-oci", identifier]
    if len(parts) != 3 or not parts[2] or "/" in given:
        raise UsageError(
            f"config.json: linux.cgroupsPath: must be SLICE:PREFIX:NAME with --systemd-cgroup, not {given!r:.100}",
            "for example system.slice:docker:1234; with slashes it is for the cgroupfs driver",
        )
    place, prefix, name = parts
    if name.endswith(".slice"):
        raise UsageError(
            f"config.json: linux.cgroupsPath: a container is a scope, not the slice {name!r:.100}"
        )
    whole = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if len(whole) > 255:
        raise UsageError(
            f"config.json: linux.cgroupsPath: a unit's name has at most 255 characters, not {len(whole)}"
        )
    escaped = "".join([each if each in _LETTERS else f"\\x{ord(each):02x}" for each in whole])
    return place or ("user.slice" if user else "system.slice"), escaped


def expand(name: str) -> str:
    """Where a slice is: a-b.slice is /a.slice/a-b.slice, -.slice the root. Raises UsageError."""
    stem = name.removesuffix(".slice")
    parts = stem.split("-")
    if stem == name or not stem or (stem != "-" and "" in parts):
        raise UsageError(
            f"config.json: linux.cgroupsPath: {name!r:.100} is not the name of a slice", "system.slice"
        )
    if stem == "-":
        return ""
    return "".join([f"/{'-'.join(parts[: index + 1])}.slice" for index in range(len(parts))])


def place(config: Config, identifier: str, cgroup: Cgroup) -> None:
    """Decide unit, slice and where systemd will put the scope in each hierarchy."""
    user = cgroup.unprivileged
    cgroup.slice, cgroup.unit = unit(config, identifier, user=user)
    above = _users_systemd(cgroup.hierarchies) if user else ""
    systemd_properties.annotated(config)  # what is wrong with them is said before anything is done
    path = f"{above}{expand(cgroup.slice)}/{cgroup.unit}"
    cgroup.groups = [(names, mount + path) for names, mount, _ in cgroup.hierarchies]


def _users_systemd(hierarchies: list[tuple[str, str, str]]) -> str:
    """The cgroup of the user's systemd: above us, or where it usually is."""
    for names, _, own in hierarchies:
        parts = own.split("/")
        found = [index for index, part in enumerate(parts) if part[:5] == "user@" and part[-8:] == ".service"]
        if names in ("unified", "name=systemd") and found:
            return "/".join(parts[: found[0] + 1])
    uid = rootless.real_uid()
    return f"/user.slice/user-{uid}.slice/user@{uid}.service"


def start(config: Config, identifier: str, cgroup: Cgroup, pid: int) -> None:
    """Have systemd make the scope with *pid* in it; returns when it is there. Raises PyrunError."""
    v2 = is_v2(cgroup.hierarchies)
    properties = systemd_properties.scope(config, identifier, cgroup, pid)
    connection = bus.connect(user=cgroup.unprivileged)
    try:
        _start(connection, cgroup.unit, properties)
    finally:
        connection.close()
    own = places(paths.read(f"/proc/{pid}/cgroup").decode("utf-8", "surrogateescape"))
    for (names, directory), (_, mount, _) in zip(cgroup.groups, cgroup.hierarchies, strict=True):
        wanted = directory[len(mount) :]
        if names == ("unified" if v2 else "name=systemd") and own.get(names) != wanted:
            raise PyrunError(f"systemd put the container into {own.get(names)}, not into {wanted}")
        if not v2:  # systemd makes the hierarchies it knows; init joins them all
            files.ensure(directory, mount, names)


def _start(connection: bus.Bus, name: str, properties: list[tuple[str, Any]]) -> None:
    """StartTransientUnit; a failed unit of that name is reset first, a property that is too new left out."""
    call, was_reset = "StartTransientUnit", False
    while True:
        try:
            reply = connection.call(call, "ssa(sv)a(sa(sv))", name, "replace", properties, [])
            break
        except bus.Refused as error:
            word = error.text.partition(_UNKNOWN)[2].partition(",")[0]
            if word in systemd_properties.NEWER and word in dict(properties):
                properties = [each for each in properties if each[0] != word]
            elif error.name == _EXISTS and not was_reset:
                was_reset = True
                _reset(connection, name)
            else:
                raise
    result = connection.job(reply.texts()[0], f"the unit {name}")
    if result != "done":
        _reset(connection, name)
        raise PyrunError(
            f"systemd could not start {name}: {result}", f"systemctl status {shell_word(name)}; journalctl -b"
        )


def _reset(connection: bus.Bus, name: str) -> None:
    try:
        connection.call("ResetFailedUnit", "s", name)
    except bus.Refused:
        return  # it was not loaded, or has not failed


def stop(container: BundleRecord) -> None:
    """For `delete`: stop the scope of a container (its state.json) and wait. Nothing to do where the cgroup is gone.

    Raises PyrunError when systemd cannot be had; the undo list does what can be done without it.
    """
    name, found = container.get("unit"), container.get("cgroups") or []
    if not name or not any(paths.exists(directory) for _, directory in found):
        return
    connection = bus.connect(user=paths.is_user())
    try:
        try:
            reply = connection.call("StopUnit", "ss", str(name), "replace")
            connection.job(reply.texts()[0], f"the end of {name}")
        except bus.Refused as error:
            if error.name not in _ABSENT:
                raise
        _reset(connection, str(name))
    finally:
        connection.close()


def attach(unit: str, pid: int) -> None:
    """For `exec` as a user, who may not move a process into the scope: systemd does it. Raises PyrunError."""
    connection = bus.connect(user=paths.is_user())
    try:
        connection.call("AttachProcessesToUnit", "ssau", unit, "", [pid])
    finally:
        connection.close()
