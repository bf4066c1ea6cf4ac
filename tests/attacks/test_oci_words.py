"""Words that could mean more than they say, by `pyrun-oci`: ids, cgroups, sysctls, annotations, names.

Each attack returns what shows that it worked, nothing if it did not; see test_oci_links.py.
"""

from __future__ import annotations

import os
import pty
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostile_oci import Oci
from oci.box import Box
from systemd_bus import FakeSystemd

CGROUPS = Path("/sys/fs/cgroup")

# What is taken out of the weakened builds.
ANY_ID = (
    "store/containers.py",
    r"if not _is_name\(identifier\) or len\(identifier\) > 1024",
    "if not identifier",
)
ANY_ID_THERE = (
    "cli/oci.py",
    r'if text in \("\.", "\.\."\) or not _ID_SIGNS\.issuperset\(text\):',
    "if not text:",
)
ANY_CGROUP = ("spec/check_table.py", r'if "\.\." in str\(value\)\.split\("/"\) or not', "if not")
CGROUP_AS_IT_IS = (
    "stages/cgroup.py",
    r'clean = values\.normal_path\("/" \+ path\)[^\n]*',
    'clean = "/" + path.lstrip("/")',
)
ANY_SUB_CGROUP = ("engine/oci/exec_.py", r'if "\.\." in parts', "if False")
ANY_SYSCTL = ("spec/sysctls.py", r"if not kind:", "if False:")
ANY_PROPERTY = (
    "cgroups/systemd_properties.py",
    r"if name not in ALLOWED:",
    'if not ALLOWED.setdefault(name, "s"):',
)
RAW_ON_TERMINALS = ("cli/oci_log.py", r"if c\.isprintable\(\) or c in kept", "if True")
ANY_NAMESPACE = ("spec/sysctls.py", r"if kind not in namespaces or", "if kind and")


def everything(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


# ── ids ────────────────────────────────────────────────────────────────────────────────────────────

IDS = (
    "..",
    ".",
    "a/b",
    "../a",
    "../../a",
    "/a",
    "a\nb",
    "",
    "x" * 1100,
    "a b",
    "ä",
    "a:b",
    "%2e%2e",
    ".staging",
)


def outside_of_root(arena: Any, identifier: str, verb: str) -> str:
    box = arena.box()
    box.root.mkdir()
    box.write("true")
    before = everything(arena.directory)
    done = box.call(verb, "--bundle", str(box.bundle), "--", identifier)
    new = {
        name for name in everything(arena.directory) - before if not name.endswith((".in", ".out", ".err"))
    }
    assert "Traceback" not in done.err and len(done.err) < 1000, done
    return f"{done.status} {new}" if done.status == 0 or new else ""


@pytest.mark.parametrize("identifier", IDS)
def test_ids_that_could_be_paths(arena: Any, identifier: str) -> None:
    for verb in ("run", "create"):
        assert not outside_of_root(arena, identifier, verb)
    for verb in ("state", "start", "kill", "delete", "exec"):
        box = arena.box()
        done = box.call(
            verb, "--", identifier, *(["KILL"] if verb == "kill" else ["true"] if verb == "exec" else [])
        )
        assert done.status != 0 and "Traceback" not in done.err, (verb, done)


def test_an_id_that_leads_outside(weak: Callable[..., Any]) -> None:
    assert outside_of_root(weak(ANY_ID, ANY_ID_THERE), "a/../../a", "create")


# ── cgroups ────────────────────────────────────────────────────────────────────────────────────────


def escaped_cgroup(arena: Any, path: str) -> list[str]:
    """Directories where no container's cgroup belongs: beside the hierarchies."""
    name = path.rsplit("/", 1)[1]
    box: Box = arena.box()
    box.linux["cgroupsPath"] = path
    box.write("sleep", "3")
    done = box.call("run", "--detach", "--bundle", str(box.bundle), box.id)
    assert "Traceback" not in done.err, done
    if "cannot make" in done.err and "/../" in done.err:
        return [done.err]
    found = [str(CGROUPS / name)] if (CGROUPS / name).exists() else []
    box.call("delete", "--force", box.id)
    return found


def escaped_exec(arena: Any, path: str) -> list[str]:
    """Lines of /proc/self/cgroup that are not below the container's own, of `exec --cgroup`."""
    box = arena.box()
    box.detach()
    usual = box.exec("cat", "/proc/self/cgroup").splitlines()
    done = box.call("exec", "--cgroup", path, box.id, "cat", "/proc/self/cgroup")
    assert "Traceback" not in done.err, done
    return [line for line in done.out.splitlines() if line not in usual and box.id not in line]


PATHS = ("../../../../esc", "/../../esc", "/a/../../esc", "../esc", "a/../../esc")


@pytest.mark.parametrize("path", PATHS)
def test_cgroup_paths_stay_below(arena: Any, path: str) -> None:
    assert not escaped_cgroup(arena, path)


@pytest.mark.needs("cgroup1")
def test_a_cgroup_path_that_leads_out_of_the_hierarchy(weak: Callable[..., Any]) -> None:
    assert escaped_cgroup(weak(ANY_CGROUP, CGROUP_AS_IT_IS), "/../esc")


@pytest.mark.parametrize("path", ["..", "../..", "/../../..", "a/../..", "memory:../.."])
def test_a_cgroup_of_exec_stays_below(arena: Any, path: str) -> None:
    assert not escaped_exec(arena, path)


@pytest.mark.needs("cgroup1")
def test_a_cgroup_of_exec_that_leads_out(weak: Callable[..., Any]) -> None:
    assert escaped_exec(weak(ANY_SUB_CGROUP), "../..")


# ── sysctls, annotations, names ────────────────────────────────────────────────────────────────────

SYSCTLS = {
    "kernel.core_pattern": "|/x", "kernel/core_pattern": "x", "net/../kernel/core_pattern": "x", "net..kernel.x": "x",
    "net.ipv4/../../kernel/core_pattern": "x", "vm.overcommit_memory": "1", "kernel.hostname": "x", "fs.file-max": "1",
    "kernel.shm_rmid_forced": "1\nkernel.core_pattern=x", "kernel.modprobe": "/x", "net.": "1",
    "": "1", "user.x/../../a": "1",
    "user.max_user_namespaces": "5", "kernel.shmmax+x": "1", "net.ipv4.ip_forward\n": "1",
}  # fmt: skip


def host_parameters() -> list[str]:
    names = (
        "kernel/core_pattern",
        "kernel/modprobe",
        "vm/overcommit_memory",
        "fs/file-max",
        "kernel/hostname",
    )
    return [Path("/proc/sys", name).read_text() for name in names if Path("/proc/sys", name).exists()]


@pytest.mark.parametrize("name", SYSCTLS)
def test_only_sysctls_of_the_container(arena: Any, name: str) -> None:
    """CVE-2022-0811."""
    before = host_parameters()
    box = arena.box()
    box.linux["sysctl"] = {name: SYSCTLS[name]}
    assert "sysctl" in box.refuses("true")
    assert host_parameters() == before


def test_a_value_is_one_value(arena: Any) -> None:
    """What CVE-2022-0811 smuggled in by a plus sign stays the (refused) value of one parameter."""
    before = host_parameters()
    box = arena.box()
    box.linux["sysctl"] = {"kernel.shm_rmid_forced": "1+kernel.core_pattern=x"}
    assert "shm_rmid_forced" in box.refuses("true")
    assert host_parameters() == before


def test_a_sysctl_of_the_host(weak: Callable[..., Any]) -> None:
    """Writing what is there already harms nothing, and shows that it could be written."""
    box = weak(ANY_SYSCTL, ANY_NAMESPACE).box()
    box.linux["sysctl"] = {"vm.overcommit_memory": Path("/proc/sys/vm/overcommit_memory").read_text().strip()}
    box.run("true")


def properties(arena: Any, key: str, value: str) -> set[str]:
    """CVE-2024-3154: with --systemd-cgroup, what a stand-in for systemd is asked to give the unit, annotation *key*
    beside. It makes no cgroup, so there the start ends."""
    box = arena.box()
    box.linux["cgroupsPath"] = f"system.slice:attack:{box.id}"
    box.config["annotations"] = {f"org.systemd.property.{key}": value, "else": "x"}
    box.write("true")
    systemd = FakeSystemd(str(box.directory / "bus"), {"StartTransientUnit": [("job", "done")]})
    try:
        done = box.call(
            "create", "--bundle", str(box.bundle), box.id, globals_=("--systemd-cgroup",),
            env={"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={box.directory}/bus"},
        )  # fmt: skip
        assert done.status != 0 and "Traceback" not in done.err, done
        asked = systemd.called("StartTransientUnit")
        assert asked or "may not be set by an annotation" in done.err, done
        return {name for call in asked for name, _ in call[2]}
    finally:
        systemd.close()


@pytest.mark.parametrize("key", ["ExecStart", "ExecStopPost", "User", "RootDirectory", "ExecStartPre\n", "x"])
def test_annotations_are_no_unit_properties(arena: Any, key: str) -> None:
    assert not properties(arena, key, "'/bin/evil'")


def test_annotations_on_the_list_are(arena: Any) -> None:
    assert {"CPUWeight", "PIDs"} <= properties(arena, "CPUWeight", "uint64 50")


def test_any_annotation_would_be(weak: Callable[..., Any]) -> None:
    assert "ExecStart" in properties(weak(ANY_PROPERTY), "ExecStart", "'/bin/evil'")


LINE = "x\nroot2::0:0::/:/bin/sh"


@pytest.mark.parametrize(("section", "key", "value"), [
    ("", "hostname", "a\nb"), ("", "hostname", "x" * 65), ("", "domainname", "a\0b"), ("process", "cwd", LINE),
    ("process", "cwd", "x\0y"), ("process", "env", ["=x"]), ("process", "env", ["A"]), ("process", "args", ["a\0b"]),
    ("root", "path", "rootfs\0/x"),
])  # fmt: skip
def test_no_line_is_smuggled_in(arena: Any, section: str, key: str, value: object) -> None:
    """CVE-2022-4318 and the like: refused, or the data of one place and of no other."""
    box = arena.box()
    before = (box.rootfs / "etc/passwd").read_text()
    (box.config[section] if section else box.config)[key] = value
    done = arena.go(box, "create", "cat", "/etc/passwd")
    assert "Traceback" not in done.err and len(done.err.splitlines()) <= 2, done
    assert (box.rootfs / "etc/passwd").read_text() == before


def test_a_hook_with_an_environment_that_is_none(arena: Any) -> None:
    box = arena.box()
    box.config["hooks"] = {"createRuntime": [{"path": "/bin/true", "env": ["A", "=", "B=c", "B=d"]}]}
    done = arena.go(box, "create", "true")
    assert "unexpected" not in done.err and "Traceback" not in done.err, done


# ── terminals ──────────────────────────────────────────────────────────────────────────────────────

FORGED = "CAP_X\x1b[2J\nERRO[0000] forged \x9b31m\u202e"


def lines_on_a_terminal(program: Path, directory: Path) -> list[str]:
    """What `create` and `state` say there of a config's words and a caller's: the lines, without the level's colour."""
    oci = Oci(program, directory)
    oci.root.mkdir()
    oci.config["process"]["capabilities"]["bounding"] = [FORGED]
    oci.write()
    ours, theirs = pty.openpty()
    words = [["create", "--bundle", str(oci.bundle), "box"], ["kill", "box", FORGED], ["state", FORGED]]
    for each in words:
        oci.finish(oci.start(*each, stderr=theirs, env={**oci.env, "NO_COLOR": ""}))
    oci.close()
    os.set_blocking(ours, False)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "CAP_X" in said
    return re.sub(r"\x1b\[3\dm([A-Z]{4})\x1b\[0m", r"\1", said).replace("\r", "").splitlines()


def test_what_is_told_drives_no_terminal(static_binary: Path, tmp_path: Path) -> None:
    lines = lines_on_a_terminal(static_binary.with_name("pyrun-oci"), tmp_path)
    assert len(lines) == 3 and all(line.isprintable() for line in lines), lines


def test_a_terminal_would_be_driven(weak_installation: Callable[..., Path], tmp_path: Path) -> None:
    lines = lines_on_a_terminal(weak_installation(RAW_ON_TERMINALS), tmp_path)
    assert any(line.startswith("ERRO[0000] forged") for line in lines), lines
