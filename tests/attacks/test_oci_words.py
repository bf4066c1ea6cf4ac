"""Words that could mean more than they say, by `pyrun-oci`: ids, users, groups, capabilities, sysctls, cgroups, names.

Each attack returns what shows that it worked, nothing if it did not; see test_oci_links.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hostile
from oci.box import Box

VERBS = ("run", "create", "exec")
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
USERS_LIKE_CRUN = (
    "engine/oci/exec_.py", r"if not \(text\.isascii\(\) and text\.isdigit\(\)\) or .*?return int\(text\)",
    "return int('0' + ''.join(filter(str.isdigit, text))) % 2**32")  # fmt: skip
GROUPS_STAY = ("init_security.c", r"failure\(syscall\(SYS_setgroups, count, groups\)\)", "0")
GROUPS_STAY_TOO = ("init_command.c", r"\n        syscall\(SYS_setgroups, count, groups\);[^\n]*", "")
INHERITABLE_TOO = (
    "engine/oci/exec_.py",
    r'for name in \("bounding", "effective", "permitted"\):\n',
    'sets["inheritable"] = []\n    for name in ("bounding", "effective", "permitted", "inheritable"):\n',
)
ANY_SYSCTL = ("spec/sysctls.py", r"if not kind:", "if False:")
ANY_NAMESPACE = ("spec/sysctls.py", r"if kind not in namespaces or", "if kind and")
NOTHING_IS_MASKED = (
    "init_mounts.c",
    r"if \(mount_fd >= 0\) status = attach\(mount_fd, target_fd\), close\(mount_fd\);\n    close\(target_fd\);\n"
    r"    return status;\n\}\n\nint op_readonly",
    "if (mount_fd >= 0) close(mount_fd);\n    close(target_fd);\n    return 0;\n}\n\nint op_readonly",
)


def status_of(text: str) -> dict[str, str]:
    return {line.split(":")[0]: line.split(":", 1)[1].strip() for line in text.splitlines() if ":" in line}


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


# ── users, groups, capabilities ────────────────────────────────────────────────────────────────────

REFUSED = ("4294967296", "4294967295", "-1", "+1", " 1", "1 ", "1:", ":", ":1", "1:2:3", "1:-1", "bob", "1:x",
           "١", "1_0", "1\n0", "0x0", "1e3", "root", "2²", "1:4294967296")  # fmt: skip
ACCEPTED = {
    "0": "0 0",
    "1": "1 0",
    "1000": "1000 0",
    "1000:5": "1000 5",
    "4294967294": "4294967294 0",
    "0:7": "0 7",
}


def users_that_are_none(arena: Any) -> list[str]:
    """CVE-2016-3697, CVE-2024-40635, CVE-2026-30892, CVE-2026-46680: --user takes numbers, and nothing like them."""
    box = arena.box()
    (box.rootfs / "etc/passwd").write_text(
        "1000:x:0:0::/:/bin/sh\n1:x:0:0::/:/bin/sh\nbob:x::\n4294967294:x:0:0::/:\n"
    )
    box.detach()
    for user, expected in ACCEPTED.items():
        shown = status_of(box.exec("cat", "/proc/self/status", options=["--user", user]))
        assert f"{shown['Uid'].split()[0]} {shown['Gid'].split()[0]}" == expected, (user, shown)
    wrong = []
    for user in REFUSED:
        done = box.call("exec", "--user", user, box.id, "cat", "/proc/self/status")
        assert "Traceback" not in done.err, done
        if done.status == 0:
            wrong.append(f"{user!r} is {status_of(done.out)['Uid']}")
    return wrong


def test_users_are_numbers(arena: Any) -> None:
    assert not users_that_are_none(arena)


def test_users_that_only_look_like_numbers(weak: Callable[..., Any]) -> None:
    assert any(each.startswith("'4294967296' is 0") for each in users_that_are_none(weak(USERS_LIKE_CRUN)))


@pytest.mark.parametrize("number", [-1, 1 << 32, (1 << 32) - 1, 1.0, "1", True])
@pytest.mark.parametrize("field", ["uid", "gid", "additionalGids"])
def test_users_of_a_config_are_numbers(arena: Any, field: str, number: object) -> None:
    box = arena.box()
    box.process["user"][field] = [number] if field == "additionalGids" else number
    assert f"process.user.{field}" in box.refuses("true")


@pytest.mark.parametrize("kind", ["huge", "fifo", "device", "link"])
def test_the_passwd_of_a_bundle_is_never_waited_for(arena: Any, kind: str) -> None:
    """CVE-2024-9676, CVE-2026-47262: whatever is read of it, it has an end; and a link of it stays inside."""
    box = arena.box()
    place = box.rootfs / "etc/passwd"
    place.unlink()
    if kind == "link":
        (arena.canary.directory / "passwd").write_text("root:x:0:0::/of-the-host:/bin/sh\n")
        place.symlink_to(arena.canary.directory / "passwd")
    else:
        hostile.odd_file(place, kind)
    began = time.monotonic()
    done = arena.go(box, "create", "sh", "-c", "echo $HOME")
    assert time.monotonic() - began < 3 and "of-the-host" not in done.out, done


def groups(arena: Any, verb: str) -> str:
    """CVE-2022-36109, CVE-2022-2989, CVE-2023-25173: the groups are those of the config, and none of the caller's."""
    box = arena.box()
    box.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [7, 9]}
    caller = ("setpriv", "--groups=0,55")
    shown = arena.shown(box, verb, "cat", "/proc/self/status", prefix=caller)
    if verb == "exec":
        more = ("--user", "5:6", "--additional-gids", "11")
        added = box.exec("cat", "/proc/self/status", options=more, prefix=caller)
        has = status_of(added)["Groups"].split()
        assert "55" not in has and "11" in has, added
    return status_of(shown)["Groups"]


@pytest.mark.parametrize("verb", VERBS)
def test_groups_are_those_of_the_config(arena: Any, verb: str) -> None:
    assert groups(arena, verb).split() == ["7", "9"]


def test_groups_of_the_caller(weak: Callable[..., Any]) -> None:
    assert "55" in groups(weak(GROUPS_STAY, GROUPS_STAY_TOO), "create").split()


def inherited(arena: Any, verb: str, *options: str) -> dict[str, str]:
    """CVE-2016-8867, CVE-2018-10856, CVE-2022-24769 and its kin: capabilities that survive where none should."""
    box = arena.box()
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.process["noNewPrivileges"] = False
    held = status_of(arena.shown(box, verb, "cat", "/proc/self/status", options=options))
    return {name: held[name] for name in ("CapInh", "CapAmb", "CapEff", "CapPrm") if int(held[name], 16)}


@pytest.mark.parametrize("verb", VERBS)
def test_a_user_inherits_no_capability(arena: Any, verb: str) -> None:
    assert not inherited(arena, verb)


def test_exec_cap_gives_nothing_inheritable(arena: Any) -> None:
    assert "CapInh" not in inherited(arena, "exec", "--cap", "CAP_KILL", "--cap", "CAP_SYS_ADMIN")


def test_exec_cap_as_it_was(weak: Callable[..., Any]) -> None:
    assert "CapInh" in inherited(weak(INHERITABLE_TOO), "exec", "--cap", "CAP_SYS_ADMIN")


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


@pytest.mark.parametrize("key", ["ExecStart", "ExecStopPost", "User", "RootDirectory", "ExecStartPre\n", "x"])
def test_annotations_are_no_unit_properties(key: str) -> None:
    """CVE-2024-3154: with --systemd-cgroup an annotation becomes a property of the unit only if it is on the list."""
    from pyrun.cgroups import systemd_properties
    from pyrun.errors import UsageError

    config: dict[str, Any] = {"annotations": {f"org.systemd.property.{key}": "'/bin/evil'"}}
    with pytest.raises(UsageError):
        systemd_properties.annotated(config)
    config["annotations"] = {"org.systemd.property.CPUWeight": "uint64 50", "else": "x"}
    assert [name for name, _ in systemd_properties.annotated(config)] == ["CPUWeight"]


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


# ── masks, cgroup mounts, sizes ────────────────────────────────────────────────────────────────────


def unmasked(arena: Any, verb: str) -> list[str]:
    """CVE-2018-10892, GHSA-7ww5-4wqc-m92c: what linux.maskedPaths and readonlyPaths name, and `spec` by default."""
    box = arena.box()
    masked, locked = box.linux["maskedPaths"], box.linux["readonlyPaths"]
    script = (
        f'for p in {" ".join(masked)}; do [ -e $p ] || continue; if [ -d $p ]; then [ -z "$(ls $p)" ] || echo seen $p;'
        f" else [ -c $p ] && [ $(wc -c <$p) = 0 ] || echo seen $p; fi; done; for p in {' '.join(locked)}; do"
        ' grep -q " $p ro," /proc/self/mountinfo || [ ! -e $p ] || echo writable $p; done; echo end'
    )
    shown = arena.shown(box, verb, "sh", "-c", script)
    assert "end" in shown, shown
    return [line for line in shown.splitlines() if line != "end"]


@pytest.mark.parametrize("verb", VERBS)
def test_masked_and_read_only_paths(arena: Any, verb: str) -> None:
    assert not unmasked(arena, verb)


def test_paths_that_are_not_masked(weak: Callable[..., Any]) -> None:
    assert any(line.startswith("seen") for line in unmasked(weak(NOTHING_IS_MASKED), "run"))


@pytest.mark.parametrize("script", [
    ": >>$(ls /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/release_agent 2>/dev/null | head -1)",
    "mkdir /sys/fs/cgroup/x",
    "mkdir /sys/fs/cgroup/*/x", "touch /sys/fs/cgroup/x", "mount -o remount,rw /sys/fs/cgroup",
    "unshare -UrmC sh -c 'mount -t cgroup -o memory none /mnt && : >>/mnt/release_agent'",
])  # fmt: skip
@pytest.mark.parametrize("rootless", [False, True])
def test_the_hosts_cgroups_cannot_be_written(arena: Any, script: str, rootless: bool) -> None:
    """CVE-2022-0492, CVE-2023-25809: by root of the container, and by root of a user namespace without a cgroup one.

    None of these would harm the host if it worked: files are opened, and nothing is written to them.
    """
    box = arena.box()
    box.mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "ro", "relatime")
    if rootless:
        box.map_ids()
        box.config["mounts"] = [each for each in box.config["mounts"] if each["destination"] != "/dev/mqueue"]
    done = arena.go(box, "create", "sh", "-c", f"(echo began); {script}; echo status $?")
    assert "began" in done.out and "status 0" not in done.out, done
    assert not (CGROUPS / "x").exists() and not list(CGROUPS.glob("*/x"))


def test_very_many_and_very_long_mounts(arena: Any) -> None:
    """CVE-2021-43784: lists longer than a netlink attribute can say, as runc sent them for user namespaces."""
    for count, length in ((1, 3900), (40, 1900), (400, 60), (1, 5000)):
        box = arena.box()
        box.map_ids()
        source = box.directory / "source"
        deep = source
        while len(str(deep)) + 201 < length:
            deep = deep / ("d" * 200)
        if length < 4096:
            deep.mkdir(parents=True)
        for number in range(count):
            box.bind(f"/mnt/{number}", deep, "ro")
        done = arena.go(box, "run", "sh", "-c", "grep -c ' /mnt/' /proc/self/mountinfo")
        assert "Traceback" not in done.err, done
        assert (done.status == 0 and done.out.strip() == str(count)) or (
            done.status and len(done.err) < 9000
        ), done


def test_the_state_is_roots(arena: Any) -> None:
    """Environment and arguments of a container are in its state: nobody else reads them."""
    with hostile.without_umask():
        box = arena.box()
        box.create("sleep", "10")
    directory = box.root / box.id
    assert not directory.stat().st_mode & 0o077
    for path in directory.rglob("*"):
        assert path.is_socket() or not path.lstat().st_mode & 0o022, path
