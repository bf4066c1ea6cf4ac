"""linux.sysctl: which kernel parameters are a container's own, and the file below /proc/sys one is written to.

/proc/sys is only in parts separate for a namespace; the rest is the host's and refused, as runc does. Both notations
of sysctl(8) are understood: whichever of `.` and `/` comes first separates, the other one stands for a dot within a
name (`net.ipv4.conf.eth0/5.rp_filter`, `net/ipv4/conf/eth0.5/rp_filter`). Source: runtime-spec config-linux.md#sysctl,
man 7 namespaces, man 8 sysctl. Not here: `run --sysctl` (values.py), writing (csrc/init_process.c).
"""

from __future__ import annotations

import posix

from pyrun.errors import UsageError

from .check_rules import place, wrong
from .values import SYSCTL_IPC

# The names of namespaces in /proc/PID/ns, where config.json has other ones.
_PROC_NAMES = {"network": "net", "mount": "mnt"}


def path(name: str) -> str:
    """Where *name* is below /proc/sys. Raises UsageError for a name that leads elsewhere."""
    slash, dot = name.find("/"), name.find(".")
    if slash < 0 or 0 <= dot < slash:
        name = name.translate({ord("/"): ".", ord("."): "/"})
    if any(part in ("", ".", "..") for part in name.split("/")) or not name.isprintable():
        raise UsageError("must be a name such as net.ipv4.ip_forward")
    return name


def check(parameters: dict[str, str], where: str, namespaces: dict[str, str]) -> None:
    """Raise UsageError for what is not the container's alone. namespaces: kind -> path to join, or empty."""
    for name, value in parameters.items():
        here = place(where, name)
        try:
            parts = path(name).split("/")
        except UsageError as error:
            raise wrong(here, error.message) from None
        if "\n" in value:
            raise wrong(here, "must not hold a line break", value)
        if parts == ["kernel", "hostname"]:
            raise wrong(here, "belongs into config.json's hostname")
        kind = _kind(parts)
        if not kind:
            raise wrong(here, "is not separate for a container: it would change the host")
        if kind not in namespaces or _is_ours(kind, namespaces[kind]):
            raise wrong(here, f"needs a {kind} namespace of the container's own: it would change the host")


def _kind(parts: list[str]) -> str:
    """The namespace a parameter belongs to; empty if it is the whole machine's."""
    if parts[0] in ("net", "user") and len(parts) > 1:
        return {"net": "network", "user": "user"}[parts[0]]
    if ".".join(parts) in SYSCTL_IPC or (parts[:2] == ["fs", "mqueue"] and len(parts) == 3):
        return "ipc"
    return "uts" if parts == ["kernel", "domainname"] else ""


def _is_ours(kind: str, given: str) -> bool:
    """Whether the namespace to join is the one pyrun is in itself: the host's, as seen from here."""
    if not given:
        return False
    try:
        theirs, ours = posix.stat(given), posix.stat(f"/proc/self/ns/{_PROC_NAMES.get(kind, kind)}")
    except OSError:
        return False  # whoever opens it has the better error
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
