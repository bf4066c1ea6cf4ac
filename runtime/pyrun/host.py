"""What this machine offers to containers: read only, for `pyrun info` and for errors that name what is missing.

python-prctl, the library of a process's own state, is imported here and nowhere else; it knows the names of the
capabilities and which of them we hold. Not here: what is decided from it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

from pyrun import boot, linux

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_NETLINK_NETFILTER = 12


def facts() -> dict[str, object]:
    """All of it as plain values; keys as `pyrun info --format json` shows them."""
    system = os.uname()
    return {
        "kernel": system.release,
        "machine": system.machine,
        "processors": os.cpu_count() or 1,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "user": user(),
        "cgroup": cgroups(),
        "namespaces": namespaces(),
        "system_calls": system_calls(),
        "capabilities": capabilities(),
        "seccomp": seccomp(),
        "security": [module for module in _read("/sys/kernel/security/lsm").strip().split(",") if module],
        "overlay": has_filesystem("overlay"),
        "nftables": has_nftables(),
        "ip_forward": _read("/proc/sys/net/ipv4/ip_forward").strip() == "1",
    }


def user() -> dict[str, int | bool]:
    """uid, and whether that uid is one of a user namespace rather than the machine's."""
    mapping = _read("/proc/self/uid_map").split()
    return {"uid": os.geteuid(), "own_namespace": mapping[:3] not in ([], ["0", "0", "4294967295"])}


def cgroups() -> dict[str, str | list[str]]:
    """mode: v2 (unified), v1, hybrid (v1 and an empty v2) or none; controllers that can be used."""
    kinds = set()
    for line in _read("/proc/self/mountinfo").splitlines():
        kind = line.partition(" - ")[2].partition(" ")[0]
        if kind in ("cgroup", "cgroup2"):
            kinds.add(kind)
    mode = {("cgroup",): "v1", ("cgroup2",): "v2", ("cgroup", "cgroup2"): "hybrid"}.get(
        tuple(sorted(kinds)), "none"
    )
    if mode == "v2":
        return {"mode": mode, "controllers": sorted(_read("/sys/fs/cgroup/cgroup.controllers").split())}
    rows = [line.split() for line in _read("/proc/cgroups").splitlines() if not line.startswith("#")]
    return {"mode": mode, "controllers": sorted(row[0] for row in rows if row[3] == "1")}


def namespaces() -> dict[str, bool]:
    """Which kinds of namespaces this kernel has. Source: man 7 namespaces."""
    return {kind: Path("/proc/self/ns", kind).exists() for kind in _NAMESPACES}


def system_calls() -> dict[str, bool]:
    """Those without which nothing starts: Linux 5.6, 5.11 (with that flag) and 5.12 brought them. Asked with arguments
    that do nothing, since a filter may forbid what the kernel has."""
    last = (1 << 32) - 1
    return {
        "openat2": _is_there(lambda: linux.openat2(-1, "x", linux.O_PATH)),
        "close_range": _is_there(lambda: linux.close_range(last, last, linux.CLOSE_RANGE_CLOEXEC)),
        "mount_setattr": _is_there(lambda: linux.mount_setattr(-1, "x", 0, 0)),
    }


def _is_there(call: Callable[[], object]) -> bool:
    """EBADF comes from the call itself; ENOSYS, EPERM of a filter, EINVAL of an unknown flag do not let it be used."""
    try:
        call()
    except OSError as error:
        return error.errno == errno.EBADF
    return True


def capabilities() -> dict[str, list[str]]:
    """held and missing, by name without CAP_; "unknown" alone when python-prctl is not installed."""
    boot.site_packages()
    try:
        import prctl
    except ImportError:
        return {"held": ["unknown"], "missing": []}
    # last_cap is an alias of the last one
    names = sorted(name for name in prctl.ALL_CAP_NAMES if name.lower() != "last_cap")
    held = [name for name in names if getattr(prctl.cap_effective, name)]
    return {
        "held": [name.upper() for name in held],
        "missing": [name.upper() for name in names if name not in held],
    }


def seccomp() -> dict[str, bool | list[str]]:
    """Whether filters can be installed, and what they may answer."""
    actions = _read("/proc/sys/kernel/seccomp/actions_avail").split()
    return {"filter": bool(actions) or "\nSeccomp:" in _read("/proc/self/status"), "actions": actions}


def has_filesystem(name: str) -> bool:
    """Whether the kernel knows the file system now, or has a module for it."""
    if name in _read("/proc/filesystems").split():
        return True
    return any(Path("/lib/modules", os.uname().release, "kernel/fs").glob(f"**/{name}.ko*"))


def has_nftables() -> bool:
    """Whether nfnetlink, the language of nftables, is spoken here."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER).close()
    except OSError:
        return False
    return True


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
