"""`--help` and `--version` of pyrun-oci, in the form runc's have: tools and people look for the same places.

The options come from oci_tables.py; what each means is told here, once for all commands that have it. docker info and
podman info show what `--version` prints: Docker wants a line with "version" in it and, before release 24, a line that
begins with "commit:". Source: moby daemon/info_unix.go, runc(8).
"""

from __future__ import annotations

from pyrun import __version__
from pyrun.safe import visible

from .oci_tables import COMMANDS, GLOBAL, HIDDEN

_ID = "<container-id>"

# command: (arguments, summary, more)
_COMMANDS = {
    "checkpoint": (_ID, "save a running container to files (not implemented yet)", ""),
    "create": (
        _ID,
        "create a container",
        "Everything is made as the bundle's config.json says, up to the command, which waits for `start`.\n"
        "What is in config.json afterwards does not matter any more.",
    ),
    "delete": (_ID, "delete what is left of a container that has stopped", ""),
    "events": (_ID, "print a container's figures and its out-of-memory events as JSON lines", ""),
    "exec": (
        f"{_ID} <command> [arguments...]  |  -p process.json {_ID}",
        "run another command in a container",
        "Options stand before the container's id. What they leave open is as in the container's config.json.",
    ),
    "features": ("", "print what this runtime can do, as JSON", "The form: runtime-spec features.md."),
    "kill": (
        f"{_ID} [signal]",
        "send a signal (default: SIGTERM) to a container's first process",
        "The signal is a name, with or without SIG, or a number.",
    ),
    "list": ("", "list the containers of this root", "Other roots: pyrun-oci --root DIR list"),
    "pause": (_ID, "suspend all processes of a container", ""),
    "ps": (f"{_ID} [ps options]", "show the processes of a container", "Without options of its own: ps -ef."),
    "restore": (_ID, "bring a saved container back (not implemented yet)", ""),
    "resume": (_ID, "resume all processes of a paused container", ""),
    "run": (_ID, "create and start a container", "In the foreground, the status is the command's."),
    "spec": (
        "",
        "write a config.json to begin with",
        "It runs `sh` in the directory rootfs beside it. One that is there is not overwritten.",
    ),
    "start": (_ID, "start the command of a created container", ""),
    "state": (_ID, "print a container's state as JSON", "The form: runtime-spec runtime.md#state."),
    "update": (
        _ID,
        "change a container's limits",
        "--resources takes JSON as linux.resources in config.json; other options are then ignored.",
    ),
}

_OPTIONS = {
    "additional-gids": "one more group id",
    "apparmor": "the AppArmor profile of the process",
    "auto-dedup": "let criu drop memory pages that were saved before",
    "blkio-weight": "weight of block I/O, 10 to 1000",
    "config": "the file that takes the place of the bundle's config.json",
    "bundle": "the bundle's directory (default: the current directory)",
    "cap": "one more capability",
    "cgroup": "run in this cgroup below the container's: [CONTROLLERS:]PATH",
    "cgroup-manager": "cgroupfs, systemd or disabled (as crun's)",
    "console-socket": "socket that gets the terminal's descriptor",
    "cpu-burst": "microseconds that may be saved up above the quota",
    "cpu-idle": "1: only when nothing else wants the CPU (SCHED_IDLE), 0: as usual",
    "cpu-period": "microseconds of one period of --cpu-quota, 0 for the default",
    "cpu-quota": "microseconds of CPU time in a period",
    "cpu-rt-period": "microseconds of one period of --cpu-rt-runtime, 0 for the default",
    "cpu-rt-runtime": "microseconds of realtime CPU time in a period",
    "cpu-share": "weight of CPU time",
    "cpuset-cpus": "CPUs to run on, as 0-2,7",
    "cpuset-mems": "memory nodes to use, as 0,1",
    "cwd": "the working directory",
    "debug": "more in the log",
    "detach": "do not wait for the process",
    "empty-ns": "make this namespace, but leave what was in it",
    "env": "one more variable, NAME=VALUE",
    "ext-unix-sk": "allow sockets whose other end is outside",
    "file-locks": "save file locks too",
    "regex": "delete every container whose id the regular expression matches",
    "force": "kill the container if it runs; no complaint if there is none",
    "format": "table or json",
    "help": "show help",
    "ignore-paused": "in a paused container too",
    "image-path": "directory of the saved files",
    "interval": "time between two figures",
    "keep": "do not delete the container when its command has ended",
    "l3-cache-schema": "schema of Intel RDT's L3 cache",
    "lazy-pages": "bring memory pages when they are asked for (userfaultfd)",
    "leave-running": "let the container run on",
    "link-remap": "give names back to files that have none",
    "log": "file to append the log to (default: standard error)",
    "log-format": "text or json",
    "lsm-mount-context": "SELinux context of the mounts",
    "lsm-profile": "security label of the processes, TYPE:NAME",
    "manage-cgroups-mode": "soft, full, strict or ignore",
    "mem-bw-schema": "schema of Intel RDT's memory bandwidth",
    "memory": "limit of memory in bytes, or with k, m, g; -1 for none",
    "memory-reservation": "soft limit of memory",
    "memory-swap": "limit of memory and swap together, -1 for none",
    "no-new-keyring": "keep the caller's session keyring",
    "no-new-privs": "set no_new_privs",
    "no-pivot": "change the root by moving a mount: for a root on an initramfs",
    "no-subreaper": "do not adopt processes that lost their parent",
    "page-server": "ADDRESS:PORT of criu's page server",
    "parent-path": "directory of an earlier --pre-dump",
    "pid-file": "file to write the process id to",
    "pidfd-socket": "socket that gets a descriptor of the process (pidfd)",
    "pids-limit": "most processes, -1 for no limit",
    "pre-dump": "save memory only, and let the container run on",
    "preserve-fds": "how many descriptors from 3 on the process gets, beside $LISTEN_FDS",
    "process": "file with the process as in config.json",
    "process-label": "the SELinux label of the process",
    "quiet": "ids only",
    "resources": "file with the limits, - for standard input",
    "root": "directory of the containers' states (default: /run/pyrun-oci, or $XDG_RUNTIME_DIR/pyrun-oci)",
    "rootless": "true, false or auto, without effect: which cgroups one may write is found out",
    "shell-job": "allow a terminal that comes from outside",
    "stats": "the figures once, then end",
    "status-fd": "descriptor on which criu tells that --lazy-pages is ready",
    "systemd-cgroup": "let systemd make cgroups; cgroupsPath is then slice:prefix:name",
    "tcp-established": "save open TCP connections too",
    "tcp-skip-in-flight": "leave out TCP connections that are being made",
    "tty": "give it a terminal",
    "user": "UID[:GID]",
    "version": "show the version",
    "work-path": "directory of criu's own files and log",
}

# of a command whose option is another than the one of this name above
_OWN = {
    "spec": {
        "rootless": "for a caller without root: a user namespace of its own, the host's network, no limits"
    }
}


def version() -> str:
    """What `--version` prints."""
    import sys

    from pyrun.engine.oci import features
    from pyrun.spec.config import OCI_VERSION

    lines = [f"pyrun-oci version {__version__}", f"commit: v{__version__}", f"spec: {OCI_VERSION}",
             f"python: {sys.version.split()[0]}"]  # fmt: skip
    if features.libseccomp():
        lines.append(f"libseccomp: {features.libseccomp()}")
    return "\n".join(lines) + "\n"


def complaint(command: str, message: str) -> str:
    """What stands above the help when a command line is wrong."""
    if message.endswith("argument(s)"):
        return "Incorrect Usage.\n\n"
    return f"Incorrect Usage{':' if command else '.'} {visible(message)}\n\n"


def page(command: str) -> str:
    """The help of a command, or of the program."""
    if not command:
        return _program()
    arguments, summary, more = _COMMANDS[command]
    table = COMMANDS[command][0]
    usage = f"pyrun-oci {command}{' [command options]' if table else ''} {arguments}".rstrip()
    parts = [f"NAME:\n   pyrun-oci {command} - {summary}\n", f"USAGE:\n   {usage}\n"]
    if more:
        parts.append("DESCRIPTION:\n" + "".join([f"   {line}\n" for line in more.split("\n")]))
    parts.append("OPTIONS:\n" + _columns(_rows(f"{table} help,h:b", command)))
    return "\n".join(parts)


def _program() -> str:
    commands = [(name, _COMMANDS[name][1]) for name in COMMANDS] + [
        ("help, h", "show this, or a command's help")
    ]
    return "\n".join([
        "NAME:\n   pyrun-oci - runs containers from OCI bundles, with runc's command line\n",
        "USAGE:\n   pyrun-oci [global options] command [command options] [arguments...]\n",
        f"VERSION:\n   {__version__}\n",
        f"COMMANDS:\n{_columns(commands)}",
        f"GLOBAL OPTIONS:\n{_columns(_rows(f'{GLOBAL} help,h:b'))}",
    ])  # fmt: skip


def _rows(table: str, command: str = "") -> list[tuple[str, str]]:
    rows = []
    for entry in table.split():
        spellings, _, rest = entry.partition(":")
        kind, _, default = rest.partition("=")
        name, _, letter = spellings.partition(",")
        if name in HIDDEN:
            continue
        value = "" if kind[0] == "b" else " value"
        left = f"--{name}{value}" + (f", -{letter}{value}" if letter else "")
        meaning = _OWN.get(command, {}).get(name) or _OPTIONS[name]
        rows.append((left, meaning + (f" (default: {default})" if default else "")))
    return rows


def _columns(rows: list[tuple[str, str]]) -> str:
    width = max([len(left) for left, _ in rows]) + 2
    return "".join([f"   {left:<{width}}{right}\n" for left, right in rows])
