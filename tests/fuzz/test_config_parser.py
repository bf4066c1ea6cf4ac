"""config.json, changed at random: the check takes it, or says in one line what is wrong; never a traceback.

The changes are of two kinds: those of unit/config_mutations.py, which knows every field, and bytes changed anywhere in
the text of the file, as the JSON reader gets it.
"""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

from pyrun.errors import PyrunError
from pyrun.spec import check, config_file
from unit import config_mutations

VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**63, 2**64, 10**400, -(2**63) - 1, 1.5, float("inf"), float("nan"),
    "", "a", "/", "..", "/a/../../b", "a\0b", "a\nb", "\ud800", "x" * 70_000, [], [[]], [None], [0], [""],
    {}, {"": {}}, {"path": 1},
)  # fmt: skip
CONFIG: dict[str, object] = {
    "ociVersion": "1.2.0",
    "process": {"args": ["sh"], "cwd": "/", "env": ["A=b"],
                "user": {"uid": 0, "gid": 0, "additionalGids": [1], "umask": 18},
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
                "terminal": False, "noNewPrivileges": True,
                "capabilities": {"bounding": ["CAP_KILL"]}, "oomScoreAdj": 10},
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "h",
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "ro"]}],
    "hooks": {"poststop": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 3}]},
    "annotations": {"a": "b"},
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "user"},
                       {"type": "network", "path": "/proc/1/ns/net"}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438}],
        "cgroupsPath": "/a/b", "sysctl": {"net.ipv4.ip_forward": "1"}, "maskedPaths": ["/proc/kcore"],
        "resources": {"memory": {"limit": 1 << 20}, "cpu": {"shares": 2, "cpus": "0-1"}, "pids": {"limit": 5},
                      "devices": [{"allow": False, "access": "rwm"}], "unified": {"memory.max": "1"}},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO"}]},
    },
}  # fmt: skip


def places(value: object, where: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    yield where
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*where, key))


def changed(chance: random.Random) -> object:
    """The configuration with one to three of its values replaced, removed or wrapped."""
    config = json.loads(json.dumps(CONFIG))
    for _ in range(chance.randrange(1, 4)):
        *path, last = chance.choice([where for where in places(config) if where])
        holder = config
        for key in path:
            holder = holder[key]
        kind = chance.randrange(5)
        if kind == 0:
            del holder[last]
        elif kind == 1:
            holder[last] = [holder[last]] * chance.choice((1, 2, 300))
        elif kind == 2:
            holder[last] = {"x": holder[last]}
        else:
            holder[last] = copy.deepcopy(chance.choice(VALUES))
    return config


def is_one_line(error: PyrunError) -> bool:
    text = f"{error.message}{error.hint}"
    assert text.isprintable() and len(text) < 2000, (text[:300], len(text))
    text.encode()  # no lone surrogate, which could not be printed
    return True


def test_values_of_the_wrong_kind(random_seed: int, seconds: float) -> None:
    for seed in (1, random_seed):
        chance = random.Random(seed)
        deadline, refused, count = time.monotonic() + seconds, 0, 0
        while time.monotonic() < deadline:
            config = changed(chance)
            count += 1
            try:
                check.config(config)
            except PyrunError as error:
                assert is_one_line(error)
                refused += 1
        assert count > refused > 50, (count, refused)


def test_bytes_of_the_file(random_seed: int, seconds: float, tmp_path: Path) -> None:
    original = json.dumps(CONFIG).encode()
    path = tmp_path / "config.json"
    for seed in (1, random_seed):
        chance = random.Random(seed)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            data = bytearray(original)
            for _ in range(chance.randrange(1, 6)):
                at = chance.randrange(len(data))
                data[at : at + chance.choice((0, 1, 1, 5))] = chance.choice(
                    (b"", b"\0", b'"', b"\xff", b"{", b"]", b"9" * 5000, b"\\ud800", b"1e999", b"[" * 3000)
                )
            path.write_bytes(data)
            try:
                check.config(config_file.read(str(path))[0])
            except PyrunError as error:
                assert is_one_line(error)


def test_every_field_by_its_own_mutations(random_seed: int, seconds: float) -> None:
    for seed in (1, random_seed):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for path, config in config_mutations.mutations(config_mutations.valid(seed), seed):
                try:
                    check.config(config)
                except PyrunError as error:
                    assert is_one_line(error), path
                if time.monotonic() > deadline:
                    break
            seed += 1
