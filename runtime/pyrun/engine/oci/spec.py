"""`pyrun-oci spec`: a config.json to begin with, the same as runc's but for its own name. Source: runc-spec(8)."""

from __future__ import annotations

import json
import os
import posix

from pyrun.errors import PyrunError
from pyrun.spec.config import OCI_VERSION
from pyrun.spec.defaults import DEFAULT_PATH
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Config, Linux, Mount, Process

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_SAFE = ["nosuid", "noexec", "nodev"]

# destination, type, source, options
_MOUNTS: tuple[tuple[str, str, str, list[str]], ...] = (
    ("/proc", "proc", "proc", []),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/shm", "tmpfs", "shm", [*_SAFE, "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", _SAFE),
    ("/sys", "sysfs", "sysfs", [*_SAFE, "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", [*_SAFE, "relatime", "ro"]),
)  # fmt: skip
_MASKED = ("/proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats "
           "/proc/sched_debug /sys/firmware /proc/scsi")  # fmt: skip
_READONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"


def write(directory: str, *, rootless: bool) -> None:
    """Write config.json into *directory* ("": the current one). Raises PyrunError if there is one."""
    where = directory or "."
    if not os.path.isdir(where):
        reason = "not a directory" if paths.exists(where) else "no such file or directory"
        raise PyrunError(f"chdir {where}: {reason}")
    text = json.dumps(example(rootless=rootless), indent="\t")
    try:
        paths.write(f"{where}/config.json", text.encode(), 0o666, exclusive=True)
    except FileExistsError:
        raise PyrunError("File config.json exists. Remove it first") from None


def example(*, rootless: bool) -> Config:
    """The config; for a caller without privileges with a user namespace in which the caller is root."""
    config: Config = {
        "ociVersion": OCI_VERSION,
        "process": _process(),
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "pyrun-oci",
        "mounts": [_mount(*each) for each in _MOUNTS],
        "linux": _linux(),
    }
    return _rootless(config) if rootless else config


def _process() -> Process:
    return {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": [f"PATH={DEFAULT_PATH}", "TERM=xterm"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }


def _mount(destination: str, kind: str, source: str, options: list[str]) -> Mount:
    mount: Mount = {"destination": destination, "type": kind, "source": source}
    return {**mount, "options": options} if options else mount


def _linux() -> Linux:
    kinds = ["pid", "network", "ipc", "uts", "mount"]
    # with v1 the view would need every hierarchy mounted
    if paths.exists("/sys/fs/cgroup/cgroup.controllers"):
        kinds.append("cgroup")
    return {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": _MASKED.split(),
        "readonlyPaths": _READONLY.split(),
    }


def _rootless(config: Config) -> Config:
    """What a user can have: no network namespace of its own, the host's /sys, no limits, one mapped id."""
    linux = config["linux"]
    kept = [each for each in linux["namespaces"] if each["type"] != "network"]
    config["linux"] = {
        "uidMappings": [{"containerID": 0, "hostID": posix.geteuid(), "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": posix.getegid(), "size": 1}],
        "namespaces": [*kept, {"type": "user"}],
        "maskedPaths": linux["maskedPaths"],
        "readonlyPaths": linux["readonlyPaths"],
    }
    mounts = []
    for mount in config["mounts"]:
        if mount["destination"] == "/sys":
            mount = _mount("/sys", "none", "/sys", ["rbind", *_SAFE, "ro"])
        elif "options" in mount:
            mount = {
                **mount,
                "options": [each for each in mount["options"] if each[:4] not in ("gid=", "uid=")],
            }
        mounts.append(mount)
    config["mounts"] = mounts
    return config
