"""What `run --bundle` answers to options that have no effect there: whose they are to say, and where."""

from __future__ import annotations

from pyrun.errors import UsageError

# Where config.json says what an option says of an image's container.
_PLACES = {
    "cap_add": "process.capabilities", "cap_drop": "process.capabilities", "cpus": "linux.resources.cpu",
    "entrypoint": "process.args", "env": "process.env", "env_file": "process.env",
    "group_add": "process.user.additionalGids", "hostname": "hostname", "label": "annotations",
    "memory": "linux.resources.memory", "pids_limit": "linux.resources.pids",
    "privileged": "process.capabilities, linux.devices, linux.maskedPaths", "read_only": "root.readonly",
    "security_opt": "linux.seccomp, process.noNewPrivileges", "shm_size": "mounts", "sysctl": "linux.sysctl",
    "tmpfs": "mounts", "tty": "process.terminal", "ulimit": "process.rlimits", "user": "process.user",
    "volume": "mounts", "workdir": "process.cwd",
}  # fmt: skip
_ITS_FILE = "it is the bundle's to say: {} in its root file system"
_REMEDIES = {
    "add_host": _ITS_FILE.format("/etc/hosts"), "dns_option": _ITS_FILE.format("/etc/resolv.conf"),
    "dns_search": _ITS_FILE.format("/etc/resolv.conf"), "init": "put an init first in config.json's process.args",
    "platform": "the bundle has its root file system: nothing is chosen",
    "pull": "the bundle has its root file system: nothing is pulled",
    "quiet": "the bundle has its root file system: nothing is pulled",
    "stop_signal": "say it when it is stopped: pyrun stop -s SIGNAL",
    "stop_timeout": "say it when it is stopped: pyrun stop -t SECONDS",
}  # fmt: skip


def refused(names: list[str]) -> UsageError:
    """names: destinations of options (cli/tables.py), at least one; the first one's remedy is told."""
    words = ", ".join([f"--{name.replace('_', '-')}" for name in names])
    place = _PLACES.get(names[0])
    remedy = f"it is config.json's to say: {place}" if place else _REMEDIES.get(names[0], "leave it out")
    return UsageError(f"{words}: no effect with --bundle", remedy)
