"""A config.json somebody else wrote: each wrong field is named by its path, each rule across fields is held.

Types and ranges of every single field are test_check_schema.py's; here is what a schema cannot say.
"""

from __future__ import annotations

import copy
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun import notice
from pyrun.errors import UsageError
from pyrun.spec import check, check_ids, config_file

CONFIGS = Path(__file__).parent / "configs"
MAP = [{"containerID": 0, "hostID": 1000, "size": 10}]
USER = {
    "linux.namespaces": [{"type": "mount"}, {"type": "user"}],
    "linux.uidMappings": MAP,
    "linux.gidMappings": MAP,
}
GOOD: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {"args": ["sh"], "cwd": "/", "env": ["A=1"], "user": {"uid": 0, "gid": 0},
                "capabilities": {"bounding": ["CAP_KILL"]},
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}]},
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
}  # fmt: skip


def made(**changes: Any) -> dict[str, Any]:
    """GOOD with other values, `linux.resources={...}`; None removes."""
    config = copy.deepcopy(GOOD)
    for place, value in changes.items():
        *path, last = place.split(".")
        holder = config
        for key in path:
            holder = holder.setdefault(key, {})
        if value is None:
            del holder[last]
        else:
            holder[last] = copy.deepcopy(value)
    return config


def namespaces(*kinds: str) -> list[dict[str, str]]:
    return [{"type": "mount"}, *({"type": kind} for kind in kinds)]


def test_a_good_one_passes() -> None:
    assert check.config(made())["root"] == {"path": "rootfs"}


@pytest.mark.parametrize("name", [path.name for path in sorted(CONFIGS.glob("[!R]*.json"))])
def test_what_engines_write_passes_unchanged(name: str) -> None:
    value, raw = config_file.read(str(CONFIGS / name))
    before = copy.deepcopy(value)
    if "process" in name:
        assert check.process(value, "process.json: ") == before
    else:
        assert check.config(value) == before
    assert raw == (CONFIGS / name).read_bytes()


def test_it_costs_little() -> None:
    """Less than 0.4 ms for what Docker writes: the best of many, since others use the machine too."""
    value, _ = config_file.read(str(CONFIGS / "docker.json"))
    spent = []
    gc.disable()
    for _ in range(100):
        started = time.perf_counter()
        check.config(value)
        spent.append(time.perf_counter() - started)
    gc.enable()
    assert min(spent) < 0.0004


def test_rare_sections_load_what_ordinary_ones_do_not() -> None:
    """Neither the cold modules nor any of the standard library's Python."""
    source = Path(check.__file__).parents[2]
    script = f"""
import sys
sys.path.insert(0, {str(source)!r})
from pyrun.spec import check, config_file
config, _ = config_file.read({str(CONFIGS / "docker.json")!r})
check.config(config)
print(*(name for name in sys.modules if name in ("json", "re", "typing") or name.startswith("pyrun.spec")))
config["linux"]["intelRdt"] = {{"closID": "a"}}
check.config(config)
print(*(name for name in sys.modules if name.startswith("pyrun.spec.check")))
"""
    command = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    hot = ("check", "check_rules", "check_table", "config_file", "values", "sysctls")
    assert set(first.split()) == {"pyrun.spec", *(f"pyrun.spec.{name}" for name in hot)}
    assert "pyrun.spec.check_rare" in second and "pyrun.spec.check_ids" not in second


def wrong() -> Iterator[tuple[dict[str, Any], str]]:
    """configs/wrong.txt: what is changed, how the error begins."""
    changes: dict[str, Any] = {}
    for line in (CONFIGS / "wrong.txt").read_text().splitlines():
        if line.startswith("=> "):
            yield changes, line[3:]
            changes = {}
        elif line == "user namespace":
            changes |= USER
        elif line and line[0] != "#":
            place, value = line.split(" = ", 1)
            changes[place] = json.loads(value)


WRONG = [
    *wrong(),
    (
        {"process.user.additionalGids": [1] * 65537},
        "process.user.additionalGids: must have at most 65536 items",
    ),
    (
        {**USER, "linux.gidMappings": [{"containerID": n, "hostID": n, "size": 1} for n in range(341)]},
        "linux.gidMappings: must have at most 340 items, not 341",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_wrong_fields_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check.config(made(**changes))
    assert caught.value.message.startswith(f"config.json: {message}"), caught.value.message


RIGHT: list[dict[str, Any]] = [
    {"ociVersion": "1.0.2-dev"},
    {"ociVersion": "1.99.0+build.5"},
    {"process.user": {}},
    {"process.consoleSize": {"height": -1}},  # to be ignored without a terminal
    {"process.execCPUAffinity": {"initial": "", "final": " 0-3 ,, 7"}},
    {"hostname": ""},
    {
        "mounts": [
            {"destination": "/a", "source": "s", "options": ["bind"], "uidMappings": MAP, "gidMappings": MAP}
        ]
    },
    {"linux.namespaces": [{"type": "mount", "path": ""}, {"type": "user", "path": "/ns"}]},
    {
        "linux.namespaces": [{"type": "mount"}, {"type": "user", "path": "/ns"}],
        "linux.uidMappings": MAP,
        "linux.gidMappings": MAP,
    },
    {**USER, "mounts": [{"destination": "/a", "source": "s", "options": ["bind", "idmap"]}]},
    {**USER, "linux.uidMappings": [{"containerID": 0, "hostID": 0, "size": (1 << 32) - 1}]},
    {
        "linux.namespaces": namespaces("time"),
        "linux.timeOffsets": {"boottime": {"secs": -5}, "monotonic": {}},
    },
    {
        "linux.devices": [
            {"path": "/d", "type": "c", "major": 1, "minor": 3, "fileMode": 8630},
            {"path": "/d", "type": "u", "major": 1, "minor": 3},
        ]
    },
    {
        "linux.namespaces": namespaces("network"),
        "linux.netDevices": {"a": {"name": "eth%d"}, "b": {"name": "eth%d"}, "c": {"name": ""}},
    },
    {"linux.resources.devices": [{"allow": False, "type": "", "major": -1, "minor": None, "access": "rwm"}]},
    {"linux.resources.memory": {"limit": 9, "swap": 9}},
    {"linux.resources.memory": {"limit": 9, "swap": -1}},
    {"linux.resources.cpu": {"quota": -1, "burst": 9, "period": 0, "cpus": ""}},
    {"linux.resources.pids": {"limit": 0}},
    {"linux.intelRdt": {"closID": "/"}},
    {"linux.personality": {"domain": "LINUX32", "flags": ["X"]}},
    {"linux.rootfsPropagation": "rslave"},
    {"linux.rootfsPropagation": ""},
    {"linux.maskedPaths": []},
    {
        "vm": {"kernel": 5},
        "windows": [],
        "solaris": "x",
        "zos": 1,
        "freebsd": 2,
        "x-something": {"deep": [1]},
    },
]


@pytest.mark.parametrize("changes", RIGHT)
def test_what_runc_takes_is_taken(changes: dict[str, Any]) -> None:
    check.config(made(**changes))


ROOTLESS: list[tuple[dict[str, Any], str]] = [
    ({}, "linux.namespaces: a user namespace is needed"),
    (
        {**USER, "mounts": [{"destination": "/a", "type": "tmpfs", "options": ["ro", "uid=10"]}]},
        "mounts[0].options[1]: names a uid",
    ),
    (
        {**USER, "mounts": [{"destination": "/a", "type": "tmpfs", "options": ["gid=99999999999999999999"]}]},
        "mounts[0].options[0]: names a gid",
    ),
    (
        {**USER, "mounts": [{"destination": "/a", "source": "/", "options": ["bind", "idmap"]}]},
        "mounts[0]: id-mapped mounts",
    ),
    (
        {**USER, "linux.namespaces": namespaces("user", "network"), "linux.netDevices": {"a": {}}},
        "linux.netDevices: can be moved by root only",
    ),
]


@pytest.mark.parametrize(("changes", "message"), ROOTLESS)
def test_without_root(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check.config(made(**changes), rootless=True)
    assert caught.value.message.startswith(f"config.json: {message}"), caught.value.message


def test_without_root_mapped_ids_are_fine() -> None:
    options = ["uid=9", "gid=0", "uid=word"]
    check.config(
        made(**USER, mounts=[{"destination": "/a", "type": "tmpfs", "options": options}]), rootless=True
    )


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_not_even_an_object(value: object) -> None:
    with pytest.raises(UsageError, match=r"^config\.json: must be an object, not "):
        check.config(value)


def test_null_is_absent() -> None:
    """As Go's decoders read it; the stages never see one."""
    config = made(**{"linux.resources": {"memory": {"limit": 1}, "cpu": {"shares": 2}}})
    config["hostname"] = config["linux"]["resources"]["memory"]["limit"] = config["process"]["rlimits"] = None
    checked = check.config(config)
    assert "hostname" not in checked and checked["linux"]["resources"]["memory"] == {}
    assert "rlimits" not in checked["process"]
    config["process"]["cwd"] = None
    with pytest.raises(UsageError, match=r"process\.cwd: is required"):
        check.config(config)


def test_a_relative_destination_is_only_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(notice, "_sinks", [said.append])
    config = check.config(made(mounts=[{"destination": "proc", "type": "proc"}]))
    assert config["mounts"][0]["destination"] == "/proc"
    assert len(said) == 1 and "mounts[0].destination: 'proc' is not absolute" in said[0]


def test_unknown_capabilities_are_not_refused() -> None:
    """The specification: they must be warned of, and a runtime should not fail. stages/security.py warns."""
    check.config(made(**{"process.capabilities": {"bounding": ["CAP_KILL", "CAP_FLY"], "x": [[]]}}))


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ({}, ""),
        ({"uid": 9, "gid": 19}, ""),
        ({"uid": 10}, "uid: cannot be an unmapped user"),
        ({"gid": 9}, "gid: cannot be an unmapped group"),
        ({"uid": 9, "gid": 20}, "gid: cannot be an unmapped group"),
    ],
)
def test_whom_a_process_cannot_be(user: dict[str, int], told: str) -> None:
    mappings = {
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "gidMappings": [
            {"containerID": 10, "hostID": 0, "size": 10},
            {"containerID": 0, "hostID": 1, "size": 1},
        ],
    }
    if not told:
        check_ids.mapped(user, mappings, "process.user")
        return
    with pytest.raises(UsageError, match=rf"process\.user\.{told} in a user namespace"):
        check_ids.mapped(user, mappings, "process.user")


def test_parts_of_a_config() -> None:
    with pytest.raises(UsageError, match=r"^process\.json: cwd: must be an absolute path, not 'x'$"):
        check.process({"cwd": "x", "args": ["sh"]}, "process.json")
    with pytest.raises(UsageError, match=r"^process\.json: args: must name the program"):
        check.process({"cwd": "/", "args": []}, "process.json: ")
    with pytest.raises(UsageError, match=r"^--resources: memory\.limit: "):
        check.resources({"memory": {"limit": "1g"}}, "--resources: ")
    assert check.resources({"memory": {"swap": 5}}) == {"memory": {"swap": 5}}


def test_errors_stay_short_and_printable() -> None:
    for changes in (
        {"annotations": {"\a" * 5000: 1}},
        {"process.args": ["\N{MUSICAL SYMBOL G CLEF}\x1b[31m" * 5000 + "\0"]},
        {"process.user.uid": 10**4000},
        {"linux.resources.unified": {"x" * 5000: 1}},
        {"hooks.poststop": [{"path": "/" + "\ud800" * 50 + "\0"}]},
        {"linux.rootfsPropagation": "\u202e" * 5000},
    ):
        with pytest.raises(UsageError) as caught:
            check.config(made(**changes))
        text = caught.value.message + caught.value.hint
        assert len(text) < 300 and text.isprintable(), text
        text.encode()


def test_a_near_word_is_offered() -> None:
    with pytest.raises(UsageError) as caught:
        check.config(made(**{"process.rlimits": [{"type": "RLIMIT_NOFIL", "soft": 1, "hard": 1}]}))
    assert caught.value.hint == "did you mean RLIMIT_NOFILE?"
