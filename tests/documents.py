"""JSON documents as callers, images and registries write them, and their changes at random: for tests/fuzz.

Every document is valid as it stands. A change replaces, removes, wraps or repeats one to three of its values; the text
then has numbers no machine word holds, half surrogate pairs and names from nowhere.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

DIGITS = "@4400 digits@"  # more than int() takes; json.dumps would not write such a number
VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**63, 2**64, 10**400, -(2**63) - 1, 1.5, float("inf"), float("nan"),
    "", "a", "/", "..", "/a/../../b", "a\0b", "a\nb", "\x1b[31m", "\ud800", "x" * 70_000, "9" * 4400, DIGITS, "-1",
    "0x10", "1e9", "a=b", "٣", "²", [], [[]], [None], [0], [""], ["\ud800"], [{}], {}, {"": {}}, {"path": 1},
    {"\ud800": "a"},
)  # fmt: skip

DIGEST = "sha256:" + "ab" * 32
CONFIG: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {"args": ["sh"], "cwd": "/", "env": ["A=b"], "consoleSize": {"height": 24, "width": 80},
                "user": {"uid": 0, "gid": 0, "additionalGids": [1], "umask": 18},
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
                "terminal": False, "noNewPrivileges": True,
                "scheduler": {"policy": "SCHED_BATCH", "nice": 1}, "execCPUAffinity": {"initial": "0", "final": "0"},
                "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0},
                "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                                 "inheritable": [], "ambient": []}, "oomScoreAdj": 10},
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "h", "domainname": "d",
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "ro"]},
               {"destination": "/data", "type": "bind", "source": "/etc", "options": ["rbind", "ro"]}],
    "hooks": {"poststop": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 3}]},
    "annotations": {"a": "b"},
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "user"}, {"type": "time"},
                       {"type": "network", "path": "/proc/1/ns/net"}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}},
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}],
        "cgroupsPath": "/a/b", "sysctl": {"net.ipv4.ip_forward": "1"}, "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"], "rootfsPropagation": "rslave", "mountLabel": "", "netDevices": {},
        "resources": {"memory": {"limit": 1 << 20}, "cpu": {"shares": 2, "cpus": "0-1"}, "pids": {"limit": 5},
                      "devices": [{"allow": False, "access": "rwm"}], "unified": {"memory.max": "1"}},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO"}]},
        "intelRdt": {"closID": "a", "schemata": ["L3:0=f"]},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": []}, "personality": {"domain": "LINUX"},
    },
}  # fmt: skip
RESOURCES: dict[str, Any] = {
    "memory": {"limit": 1 << 25, "swap": 1 << 26, "reservation": 1 << 24, "checkBeforeUpdate": True},
    "cpu": {"shares": 100, "quota": 50_000, "period": 100_000, "burst": 1000, "cpus": "0", "mems": "0", "idle": 0},
    "pids": {"limit": 5},
    "blockIO": {"weight": 100, "weightDevice": [{"major": 8, "minor": 0, "weight": 200}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}]},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 9}],
    "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
    "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 1}},
    "unified": {"memory.high": "1", "cpu.max": "1 2", "cpu.weight": "5", "cpuset.cpus": "0-1", "memory.max": "max"},
    "devices": [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
}  # fmt: skip
SECCOMP: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW",
                  "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}],
                  "includes": {"caps": ["CAP_KILL"], "arches": ["amd64"], "minKernel": "4.8"},
                  "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390x"]}},
                 {"name": "clone", "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "comment": "x"}],
}  # fmt: skip
IMAGE: dict[str, Any] = {
    "architecture": "amd64", "os": "linux", "variant": "", "created": "2026-01-01T00:00:00Z",
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    "history": [{"created_by": "x", "empty_layer": True}],
    "config": {"User": "root", "WorkingDir": "/srv", "StopSignal": "SIGTERM", "Env": ["PATH=/bin"], "Cmd": ["sh"],
               "Entrypoint": ["/bin/env"], "Labels": {"a": "b"}, "Volumes": {"/data": {}},
               "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000-8002": {}}, "Shell": ["sh"],
               "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000, "Retries": 3}},
}  # fmt: skip
_DESCRIPTOR: dict[str, Any] = {
    "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": DIGEST, "size": 7,
    "platform": {"os": "linux", "architecture": "amd64", "variant": "v8"},
    "annotations": {"org.opencontainers.image.ref.name": "docker.io/library/a:b"},
}  # fmt: skip
INDEX: dict[str, Any] = {
    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [_DESCRIPTOR, _DESCRIPTOR],
}  # fmt: skip
MANIFEST: dict[str, Any] = {
    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 9},
    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 9}],
}  # fmt: skip
ARCHIVE: list[dict[str, Any]] = [{"Config": "config.json", "RepoTags": ["a:b"], "Layers": ["layer.tar"]}]
CNI: dict[str, Any] = {
    "cniVersion": "1.0.0", "name": "net",
    "plugins": [{"type": "bridge", "bridge": "b0", "capabilities": {"portMappings": True, "ips": True},
                 "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]}},
                {"type": "portmap", "capabilities": {"portMappings": True}}],
}  # fmt: skip
CNI_RESULT: dict[str, Any] = {
    "cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x"}],
    "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 0}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}], "dns": {"nameservers": ["10.1.0.1"], "search": ["a.test"]},
}  # fmt: skip
LOGIN: dict[str, Any] = {"auths": {"registry.test": {"auth": "YTpi", "identitytoken": ""}}}


def places(value: object, where: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """The path of every value, the whole one's being empty."""
    yield where
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*where, key))


def changed(original: object, chance: random.Random) -> Any:
    """*original* with one to three of its values replaced, removed, repeated or wrapped; now and then another whole."""
    document: Any = copy.deepcopy(original)
    if chance.randrange(50) == 0:
        return copy.deepcopy(chance.choice(VALUES))
    for _ in range(chance.randrange(1, 4)):
        paths = [where for where in places(document) if where]
        if not paths:
            return document
        *path, last = chance.choice(paths)
        holder = document
        for key in path:
            holder = holder[key]
        kind = chance.randrange(8)
        if kind == 0:
            del holder[last]
        elif kind == 1:
            holder[last] = [holder[last]] * chance.choice((1, 2, 300))
        elif kind == 2:
            holder[last] = {"x": holder[last]}
        elif kind == 3 and isinstance(holder, dict):
            holder[str(chance.choice(VALUES))[:200]] = holder.pop(last)
        else:
            holder[last] = copy.deepcopy(chance.choice(VALUES))
    return document


def text_of(document: object) -> bytes:
    """The JSON text, with numbers of thousands of digits where DIGITS stands, and NaN as Python's encoder has it."""
    return json.dumps(document).replace(f'"{DIGITS}"', "9" * 4400).encode()
