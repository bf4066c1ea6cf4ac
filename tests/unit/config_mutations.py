"""Valid configs made from the schema, and what becomes of one when a single thing in it is changed.

`valid(seed)` gives a config that runtime-spec's schema and the check both accept; `mutations(config, seed)` changes
one value of a config after the other: another type, out of range, removed, doubled. Used by test_check_schema.py, and
by the fuzzer (tests/fuzz).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from pyrun.spec.check_rules import place

Path = tuple[str | int, ...]


def _path(chance: random.Random) -> str:
    return chance.choice(("/", "/a", "/a b/../c", "/Ü/" + "x" * 300))


def _list(chance: random.Random) -> str:
    return chance.choice(("", "0", "0-3,7", " 1 , 2-2,", "65535"))


def _scheduler(chance: random.Random) -> dict[str, Any]:
    return chance.choice(
        (
            {"policy": "SCHED_OTHER", "nice": -20},
            {"policy": "SCHED_FIFO", "priority": 99, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            {"policy": "SCHED_DEADLINE", "runtime": 10_000, "deadline": 20_000, "period": 1 << 40},
        )
    )


def _memory_policy(chance: random.Random) -> dict[str, Any]:
    return chance.choice(
        (
            {"mode": "MPOL_DEFAULT", "nodes": ""},
            {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
            {"mode": "MPOL_PREFERRED"},
        )
    )


ID = (0, 1000, (1 << 32) - 2)
LIMIT = (-1, 0, 1 << 30, (1 << 63) - 1)
NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
MAPPINGS = (
    [{"containerID": 0, "hostID": 100_000, "size": 65536}],
    [{"containerID": 1, "hostID": 5, "size": 1}, {"containerID": 0, "hostID": 1 << 31, "size": 1}],
)
RATE = [{"major": 8, "minor": 0, "rate": (1 << 64) - 1}]

# Where the schema alone would give what the check, the kernel or another field refuses; () leaves a field out.
VALUES: dict[str, Any] = {
    "ociVersion": ("1.0.0", "1.3.0", "1.0.2-dev", "1.2.0-rc.1+build.5", "1.99.0"),
    "solaris": (), "windows": (), "vm": (), "zos": (), "freebsd": (),
    "root": ({"path": "rootfs"}, {"path": "/r", "readonly": True, "x-unknown": [[1]]}),
    "hostname": ("host", "", "x" * 64), "domainname": ("example.org", ""),
    "mounts": (
        [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "ro"]}],
        [{"destination": "/data", "source": "/a", "options": ["rbind", "ro"]}, {"destination": "/m", "type": "tmpfs"}],
        [{"destination": "/i", "source": "a", "options": ["bind", "idmap"]},
         {"destination": "/j", "source": "a", "options": ["rbind", "ridmap"],
          "uidMappings": MAPPINGS[0], "gidMappings": MAPPINGS[1]}],
        [],
    ),
    "annotations{}": ("", "value"),
    "process.args": (["sh"], ["sh", "", "-c", "exit 3"]),
    "process.env": ([], ["A=", "PATH=/bin:/usr/bin", "B==="]), "process.cwd": _path,
    "process.commandLine": (), "process.user.username": (),
    "process.terminal": (True,), "process.consoleSize": ({"height": 24, "width": 80}, {"height": 0, "width": 65535}),
    "process.user.uid": ID, "process.user.gid": ID, "process.user.additionalGids[]": ID,
    "process.user.umask": (0, 18, 511),
    **{f"process.capabilities.{kind}[]": ("CAP_KILL", "CAP_CHOWN", "CAP_BPF")
       for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
    "process.oomScoreAdj": (-1000, 0, 1000), "process.ioPriority.priority": (0, 7),
    "process.ioPriority": ({"class": "IOPRIO_CLASS_BE", "priority": 7}, {"class": "IOPRIO_CLASS_IDLE", "priority": 0}),
    "process.scheduler": _scheduler,
    "process.rlimits": (
        [], [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": (1 << 64) - 1}, {"type": "RLIMIT_CPU", "soft": 0, "hard": 0}],
    ),
    "process.execCPUAffinity.initial": _list, "process.execCPUAffinity.final": _list,
    **{f"hooks.{kind}[].path": _path
       for kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")},
    **{f"hooks.{kind}[].timeout": (1, 60)
       for kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")},
    "linux.namespaces": lambda chance: [
        {"type": kind, **({"path": chance.choice(("", "/run/ns/c"))} if kind == "cgroup" else {})}
        for kind in chance.sample(NAMESPACES, len(NAMESPACES))
    ],
    "linux.uidMappings": MAPPINGS, "linux.gidMappings": MAPPINGS,
    "linux.timeOffsets": (
        {"monotonic": {"secs": -5, "nanosecs": 999_999_999}, "boottime": {}},
        {"boottime": {"secs": 86400, "nanosecs": 0}},
    ),
    "linux.devices": (
        [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 5}],
        [{"path": "/p", "type": "p"}, {"path": "/b", "type": "b", "major": 4095, "minor": 1048575}],
    ),
    "linux.netDevices": ({"eth0": {}, "eth1": {"name": "in%d"}}, {"a": {"name": "b"}}),
    "linux.cgroupsPath": ("", "/a/b", "relative", "system.slice:pyrun:id"),
    "linux.maskedPaths[]": _path, "linux.readonlyPaths[]": _path,
    "linux.intelRdt.closID": ("", "group", "/"), "linux.intelRdt.memBwSchema": ("MB:0=20;1=70",),
    "linux.memoryPolicy": _memory_policy,
    "linux.personality": ({"domain": "LINUX32"}, {"domain": "LINUX", "flags": []}),
    "linux.seccomp": ({"defaultAction": "SCMP_ACT_ALLOW"},),
    "linux.sysctl": (
        {"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.5/rp_filter": "0", "kernel.shmmax": "1"},
        {"fs.mqueue.msg_max": "5", "kernel.domainname": "x", "user.max_user_namespaces": "0"}, {},
    ),
    "linux.resources.devices": (
        [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": -1, "access": "r"}], [],
    ),
    "linux.resources.memory": (
        {"limit": 1 << 30, "swap": 1 << 31, "reservation": 0, "swappiness": 100, "disableOOMKiller": False},
        {"limit": -1, "swap": -1, "kernel": -1, "kernelTCP": -1, "useHierarchy": True, "checkBeforeUpdate": True}, {},
    ),
    "linux.resources.cpu": (
        {"shares": 1024, "quota": 50_000, "period": 100_000, "burst": 50_000, "cpus": "0-3,7", "mems": "0"},
        {"quota": -1, "realtimeRuntime": 0, "realtimePeriod": 1_000_000, "idle": 1, "period": 0}, {},
    ),
    "linux.resources.pids.limit": LIMIT,
    "linux.resources.blockIO": (
        {"weight": 10, "leafWeight": 0,
         "weightDevice": [{"major": 8, "minor": 0, "weight": 1000, "leafWeight": 10}],
         "throttleReadBpsDevice": RATE},
        {"throttleWriteBpsDevice": RATE, "throttleReadIOPSDevice": RATE, "throttleWriteIOPSDevice": RATE}, {},
    ),
    "linux.resources.hugepageLimits": ([{"pageSize": "2MB", "limit": 0}, {"pageSize": "64KB", "limit": 1}], []),
    "linux.resources.network": ({"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]}, {}),
    "linux.resources.rdma": ({"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "rxe3": {"hcaObjects": 0}}, {}),
    "linux.resources.unified": ({"memory.max": "max", "hugetlb.1GB.max": "0"}, {"io.max": "8:0 rbps=1\n8:16 rbps=2"}),
}  # fmt: skip


def valid(seed: int) -> dict[str, Any]:
    """A config accepted by the schema and by the check, the same one for the same seed."""
    from unit import oci_schema

    config = oci_schema.example(oci_schema.whole(), random.Random(seed), VALUES)
    for key in ("root", "process", "linux"):  # in the schema not even these are required
        config.setdefault(key, oci_schema.example(oci_schema.at((key,)), random.Random(seed), VALUES, key))
    config["process"].setdefault("args", ["sh"])
    linux = config["linux"]
    for key in ("namespaces", "uidMappings", "gidMappings"):
        linux.setdefault(
            key,
            oci_schema.example(oci_schema.at(("linux", key)), random.Random(seed), VALUES, f"linux.{key}"),
        )
    return config


class Gone:
    """Stands for a member that is taken away."""


# Values of every type, at and beyond the limits of each.
WRONG: tuple[Callable[[Any], Any], ...] = (
    lambda old: None, lambda old: True, lambda old: -1, lambda old: 0, lambda old: 1.5, lambda old: float("inf"),
    lambda old: float("nan"), lambda old: 1 << 16, lambda old: 1 << 32, lambda old: (1 << 32) - 1, lambda old: 1 << 64,
    lambda old: -(1 << 63) - 1, lambda old: 10**400, lambda old: "", lambda old: "word", lambda old: "a\0b",
    lambda old: "..", lambda old: "x" * 5000, lambda old: "\N{BELL SYMBOL}\a\n\t\"'\\", lambda old: [], lambda old: {},
    lambda old: [None], lambda old: [old, old], lambda old: {"x": old}, lambda old: {"": ""},
    lambda old: {"\0": 1}, lambda old: Gone,
)  # fmt: skip


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """The path of every value in *value*, but its own."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def changed(config: Any, path: Path, new: Any) -> Any:
    """A copy of *config* with *new* at *path*."""
    config = copied(config)
    holder = config
    for key in path[:-1]:
        holder = holder[key]
    if new is Gone:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return config


def got(config: Any, path: Path) -> Any:
    for key in path:
        config = config[key]
    return config


def mutations(config: Any, seed: int) -> Iterator[tuple[Path, Any]]:
    """(path, the config with another value there): everything once, in an order that *seed* decides."""
    chance = random.Random(seed)
    pairs = [(path, wrong) for path in places(config) for wrong in WRONG]
    chance.shuffle(pairs)
    for path, wrong in pairs:
        yield path, changed(config, path, wrong(copied(got(config, path))))


def shown(path: Path) -> str:
    """The path as an error names it."""
    text = " "
    for key in path:
        text = f"{text}[{key}]" if isinstance(key, int) else place(text, key)
    return text[1:]


def got_or(config: Any, path: Path, other: Any = Gone) -> Any:
    """The value at *path*, or *other* if there is none."""
    try:
        return got(config, path)
    except (KeyError, IndexError, TypeError):
        return other
