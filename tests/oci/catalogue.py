"""Everything that the conformance bodies have to show: the rows of the table.

The command line is that of runc 1.5 (its manual and `--help`), with crun's --cgroup-manager, --config and --regex.
The fields of config.json are read from the schema files of the OCI runtime specification 1.3 (tests/unit/schema);
every value of an enumeration is a row of its own. The mount options are config.md's table. What has no body stands in
GAPS, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).resolve().parents[1] / "unit/schema"

COMMANDS: dict[str, str] = {
    "global": "--debug --log --log-format --root --systemd-cgroup --rootless --cgroup-manager --help --version",
    "create": "--bundle --config --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds",
    "start": "",
    "run": "--bundle --config --console-socket --pidfd-socket --detach --keep --pid-file --no-subreaper --no-pivot "
           "--no-new-keyring --preserve-fds",
    "exec": "--console-socket --pidfd-socket --cwd --env --tty --user --additional-gids --process --detach --pid-file "
            "--process-label --apparmor --no-new-privs --cap --preserve-fds --cgroup --ignore-paused",
    "kill": "--all",
    "delete": "--force --regex",
    "state": "",
    "list": "--format --quiet",
    "ps": "--format",
    "pause": "",
    "resume": "",
    "update": "--resources --blkio-weight --cpu-period --cpu-quota --cpu-burst --cpu-share --cpu-rt-period "
              "--cpu-rt-runtime --cpuset-cpus --cpuset-mems --kernel-memory --kernel-memory-tcp --memory --cpu-idle "
              "--memory-reservation --memory-swap --pids-limit --l3-cache-schema --mem-bw-schema",
    "events": "--interval --stats",
    "features": "",
    "spec": "--bundle --rootless",
    "checkpoint": "",
    "restore": "",
}  # fmt: skip

# rnodev is missing in config.md's table, certainly by oversight
MOUNT_OPTIONS = """
async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime
noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev
rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid
rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw
shared silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap
""".split()

# RLIMIT_* of getrlimit(2); the schema has a pattern
RLIMITS = "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK".split()

_OTHER_PLATFORMS = ("solaris", "windows", "vm", "zos", "freebsd")

# row, or the beginning of rows when it ends with *
GAPS: dict[str, str] = {
    "config: process.commandLine": "Windows only",
    "config: process.user.username": "Windows only",
    "config: linux.seccomp.architectures[]=*": "the tests know x86 and aarch64; libseccomp's table has the others",
    "config: process.scheduler.policy=SCHED_ISO": "reserved by the kernel, never implemented",
    "config: process.scheduler.flags[]=*": "only RESET_ON_FORK can be observed without privileges of a scheduler",
    "config: linux.seccomp.defaultAction=SCMP_ACT_NOTIFY": "runc refuses it; tests/kernel has an agent for it",
}


@cache
def rows() -> tuple[str, ...]:
    """Every row, in the order of the table."""
    found = []
    for command, flags in COMMANDS.items():
        if command != "global":
            found.append(command)
        found += [f"{command} {flag}" for flag in flags.split()]
    found += [f"config: {each}" for each in _fields()]
    found += [f"config: mounts[].options[]={each}" for each in MOUNT_OPTIONS]
    found += [f"config: process.rlimits[].type=RLIMIT_{each}" for each in RLIMITS]
    return tuple(dict.fromkeys(found))


def gap(row: str) -> str:
    """Why *row* has no body; "" when it must have one."""
    for name, reason in GAPS.items():
        if row == name or (name.endswith("*") and row.startswith(name[:-1])):
            return reason
    return ""


def _fields() -> list[str]:
    root = _load("config-schema.json")
    for name in _OTHER_PLATFORMS:
        root["properties"].pop(name, None)
    return list(_walk(root, "config-schema.json", ""))


@cache
def _load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((SCHEMA / name).read_text())
    return document


def _follow(node: dict[str, Any], file: str) -> tuple[dict[str, Any], str]:
    """Resolve `$ref`s: the node it leads to, and in which file."""
    while "$ref" in node:
        name, _, path = node["$ref"].partition("#")
        file = name or file
        node = _load(file)
        for part in path.strip("/").split("/"):
            node = node[part]
    return node, file


def _walk(node: dict[str, Any], file: str, path: str) -> Iterator[str]:
    """The leaves below *node*: `a.b`, `a[].b` for arrays, `a{}` for maps, `a=X` for each value of an enumeration."""
    node, file = _follow(node, file)
    parts = [node, *node.get("allOf", []), *node.get("anyOf", [])]
    resolved = [_follow(part, file) for part in parts]
    leaf = True
    for part, where in resolved:
        if part is not node and (
            "allOf" in part or "properties" in part or "$ref" in part or "items" in part
        ):
            leaf = False
            yield from _walk(part, where, path)
        for name, below in part.get("properties", {}).items() if part is node else ():
            leaf = False
            yield from _walk(below, where, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from _walk(node["items"], file, f"{path}[]")
    elif "additionalProperties" in node and isinstance(node["additionalProperties"], dict):
        yield from _walk(node["additionalProperties"], file, f"{path}{{}}")
    elif leaf:
        yield f"{path}{{}}" if node.get("type") == "object" else path
        yield from (f"{path}={value}" for value in node.get("enum", ()))
