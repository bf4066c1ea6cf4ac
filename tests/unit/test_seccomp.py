"""Seccomp: how profiles are resolved and checked, the cache and its key. See test_seccomp_program.py."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyrun.errors import PyrunError, UsageError
from pyrun.spec import seccomp, seccomp_compile, seccomp_generate, seccomp_profile
from pyrun.spec.capabilities import ALL, DEFAULT, mask_of
from pyrun.spec.seccomp_profile import default_profile, load_profile

SYS_ADMIN = mask_of(["CAP_SYS_ADMIN"])

Machine = Callable[[str, str], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`machine("aarch64", "4.2.0-x")`: resolve as if on that machine and kernel."""

    def pretend(name: str, release: str) -> None:
        monkeypatch.setattr(
            seccomp_profile.os, "uname", lambda: SimpleNamespace(machine=name, release=release)
        )

    return pretend


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A store of its own; its cache directory does not exist yet."""
    monkeypatch.setenv("PYRUN_ROOT", str(tmp_path))
    monkeypatch.setitem(seccomp.posix.environ, b"PYRUN_ROOT", os.fsencode(tmp_path))
    return tmp_path / "cache" / "seccomp"


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was compiled since the test's start."""
    done: list[object] = []
    real = seccomp_compile.compile_profile

    def counted(profile: dict[str, Any]) -> bytes:
        done.append(profile)
        return real(profile)

    monkeypatch.setattr(seccomp_compile, "compile_profile", counted)
    return done


def rules_for(profile: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [rule for rule in profile["syscalls"] if name in rule["names"]]


def written(tmp_path: Path, content: object) -> str:
    path = tmp_path / "profile.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def minimal(**more: object) -> dict[str, Any]:
    rule = {"names": ["getpid"], "action": "SCMP_ACT_ALLOW"}
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule], **more}


# ── the default profile ────────────────────────────────────────────────────────────────────────────


def test_data_is_the_one_the_key_names_and_tells_its_source() -> None:
    data = Path(seccomp_generate.TARGET).read_bytes()
    assert hashlib.sha256(data).hexdigest()[:16] == seccomp.DEFAULT_DATA
    source = json.loads(data)["source"]
    assert source["repository"] == seccomp_generate.REPOSITORY
    assert len(source["commit"]) == 40
    assert source["date"] >= "2026-05-06"


def test_the_generator_keeps_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {
        "names": ["b", "a"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "comment": "why",
        "args": [{"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}],
        "includes": {"caps": ["CAP_BPF"], "minKernel": "4.8"}, "excludes": {"arches": ["s390"]},
    }  # fmt: skip
    upstream = {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": [entry],
        "archMap": [{"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None}],
    }  # fmt: skip
    monkeypatch.setattr(
        seccomp_generate,
        "git",
        lambda _, verb, *rest: json.dumps(upstream) if verb == "show" else "c0ffee 2026-01-02",
    )
    made = json.loads(seccomp_generate.layout(seccomp_generate.table("clone")))
    assert made["architectures"] == {"SCMP_ARCH_RISCV64": []}
    assert made["rules"] == [
        {
            "action": "SCMP_ACT_ERRNO", "errno": 38, "args": [[1, "SCMP_CMP_EQ", 5, 0]], "names": ["a b"],
            "needs": {"capabilities": ["CAP_BPF"], "kernel": "4.8"}, "unless": {"machines": ["s390"]},
        }
    ]  # fmt: skip
    with pytest.raises(SystemExit, match="new keys"):
        seccomp_generate.rule({**entry, "surprise": 1})


def test_without_sys_admin_namespaces_are_refused_and_clone3_is_unknown() -> None:
    profile = default_profile(DEFAULT)
    assert (
        not rules_for(profile, "unshare")
        and not rules_for(profile, "mount")
        and not rules_for(profile, "bpf")
    )
    assert [rule["args"][0]["value"] for rule in rules_for(profile, "clone")] == [0x7E020000]
    assert [(rule["action"], rule["errnoRet"]) for rule in rules_for(profile, "clone3")] == [
        ("SCMP_ACT_ERRNO", 38)
    ]
    assert rules_for(profile, "chroot") and not rules_for(profile, "reboot")


def test_with_sys_admin_they_are_allowed() -> None:
    profile = default_profile(DEFAULT | SYS_ADMIN)
    for name in ("unshare", "mount", "bpf", "clone", "clone3"):
        assert [rule["action"] for rule in rules_for(profile, name)] == ["SCMP_ACT_ALLOW"], name
        assert "args" not in rules_for(profile, name)[0]


def test_af_alg_and_vsock_are_the_refused_families() -> None:
    """Judged by the int the kernel reads; Docker's ranges judge all 64 bits, which lets 1 << 32 | 38 through."""
    rules = rules_for(default_profile(ALL), "socket")
    assert {rule["args"][0]["op"] for rule in rules} == {"SCMP_CMP_MASKED_EQ"}

    def allowed(family: int) -> bool:
        return any(family & arg["value"] == arg["valueTwo"] for rule in rules for arg in rule["args"])

    assert [family for family in range(128) if not allowed(family)] == [38, 40, *range(64, 128)]
    for family in (1, 2, 16, 38, 40):
        assert allowed(1 << 32 | family) == allowed(family)


@pytest.mark.parametrize(
    ("first", "last"), [(0, 0), (0, 37), (39, 39), (41, 63), (0, (1 << 32) - 1), (5, 1000)]
)
def test_blocks_cover_a_range_and_nothing_else(first: int, last: int) -> None:
    blocks = seccomp_profile._blocks(first, last)
    probes = {first, last, first - 1, last + 1, (first + last) // 2, *range(1100)}
    for number in probes:
        inside = any(number & mask == start for start, mask in blocks)
        assert inside == (first <= number <= last) or not 0 <= number < 1 << 32


@pytest.mark.parametrize(
    "name", ["keyctl", "add_key", "request_key", "io_uring_setup", "userfaultfd", "kexec_load"]
)
def test_never_allowed(name: str) -> None:
    assert not rules_for(default_profile(ALL), name)


@pytest.mark.parametrize(
    ("name", "architectures", "only_there"),
    [
        ("x86_64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "arch_prctl"),
        ("aarch64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"], "set_tls"),
        ("riscv64", ["SCMP_ARCH_RISCV64"], "riscv_flush_icache"),
        ("s390x", ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"], "s390_runtime_instr"),
        ("ppc64le", None, "swapcontext"),
    ],
)
def test_machines(machine: Machine, name: str, architectures: list[str] | None, only_there: str) -> None:
    machine(name, "6.1.0")
    profile = default_profile(DEFAULT)
    assert profile.get("architectures") == architectures
    machine_specific = ("arch_prctl", "set_tls", "riscv_flush_icache", "s390_runtime_instr", "swapcontext")
    assert [each for each in machine_specific if rules_for(profile, each)] == [only_there]


def test_s390_has_clone_s_flags_in_the_second_argument(machine: Machine) -> None:
    machine("s390x", "6.1.0")
    assert [rule["args"][0]["index"] for rule in rules_for(default_profile(DEFAULT), "clone")] == [1]


@pytest.mark.parametrize(
    ("release", "allowed"), [("4.7.10", False), ("4.8", True), ("4.10-rc1", True), ("5.0.0-x", True)]
)
def test_ptrace_needs_a_kernel_that_checks_again(machine: Machine, release: str, allowed: bool) -> None:
    machine("x86_64", release)
    assert bool(rules_for(default_profile(DEFAULT), "ptrace")) is allowed


# ── files of the user ──────────────────────────────────────────────────────────────────────────────


def test_words_for_no_file(tmp_path: Path) -> None:
    assert load_profile("unconfined", DEFAULT) == {}
    assert load_profile("builtin", DEFAULT) == default_profile(DEFAULT)
    assert load_profile(written(tmp_path, {}), DEFAULT) == {}


def test_docker_s_form(tmp_path: Path, machine: Machine) -> None:
    machine("x86_64", "6.1.0")
    given = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X32"]}],
        "syscalls": [
            {
                "name": "getpid",
                "action": "SCMP_ACT_ALLOW",
                "args": None,
                "comment": "old form",
                "includes": {},
            },
            {"names": ["both"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_KILL", "CAP_BPF"]}},
            {
                "names": ["one"],
                "action": "SCMP_ACT_ALLOW",
                "includes": {"caps": ["CAP_KILL"], "arches": ["x86", "amd64"]},
            },
            {"names": ["not"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_BPF", "CAP_KILL"]}},
            {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
            {"names": ["old"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "6.2"}},
            {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_OF_TOMORROW"]}},
        ],
    }
    profile = load_profile(written(tmp_path, given), mask_of(["CAP_KILL"]))
    assert profile == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
        "syscalls": [{"names": [name], "action": "SCMP_ACT_ALLOW"} for name in ("getpid", "one", "old")],
    }


def test_oci_s_form_stays_as_it_is(tmp_path: Path) -> None:
    profile = minimal(architectures=["SCMP_ARCH_X86"], flags=["SECCOMP_FILTER_FLAG_LOG"], defaultErrnoRet=38)
    assert load_profile(written(tmp_path, profile), DEFAULT) == profile


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("{,}", "line 1 column 2: expecting property name enclosed in double quotes", ""),
        ([], "not a JSON object", ""),
        (minimal(defaultAction="ACT_ALLOW"), "defaultAction: unknown: 'ACT_ALLOW'", "did you mean SCMP_ACT_ALLOW?"),
        (minimal(defaultAction=""), "defaultAction: unknown: ''", ""),
        (minimal(defaultErrnoRet=70000), "defaultErrnoRet: not a number from 0 to 65535: 70000", ""),
        (minimal(defaultErrnoRet=True), "defaultErrnoRet: not a number from 0 to 65535: True", ""),
        (minimal(architectures=["x86"]), "architectures[0]: unknown: 'x86'", ""),
        (minimal(flags=["TSYNC"]), "flags[0]: unknown: 'TSYNC'", ""),
        (minimal(archMap=[{}], architectures=["x"]), "architectures and archMap are both given", "give one of them"),
        (minimal(listenerPath=4), "listenerPath: not a string without NUL: 4", ""),
        (minimal(listenerMetadata="m"), "listenerMetadata: must not be set without linux.seccomp.listenerPath", ""),
        (minimal(defaultAction="SCMP_ACT_NOTIFY", listenerPath="/run/s"),
         "SCMP_ACT_NOTIFY is for pyrun-oci: `pyrun run` has no agent that would answer", ""),
        (minimal(syscalls={"names": []}), "syscalls: not a list: {'names': []}", ""),
        (minimal(syscalls=[4]), "syscalls[0]: not an object: 4", ""),
        (minimal(syscalls=[{"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": [["CAP_KILL"]]}}]),
         "syscalls[0].includes: not a list of strings: [['CAP_KILL']]", ""),
    ],
)  # fmt: skip
def test_faulty_files_are_named_in_one_line(tmp_path: Path, content: object, message: str, hint: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        load_profile(path, DEFAULT)
    assert caught.value.message == f"seccomp profile {path}: {message}"
    if hint:
        assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": "SCMP_ACT_DENY"}, "action: unknown: 'SCMP_ACT_DENY'"),
        ({"action": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY is for pyrun-oci"),
        ({"errnoRet": 1}, "errnoRet: SCMP_ACT_ALLOW takes no errno"),
        ({"names": []}, "names: not a list of system calls: []"),
        ({"names": None}, "names: not a list: None"),
        ({"name": "getpid"}, "name and names are both given"),
        ({"args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}, "args[0].index: not a number from 0 to 5: 6"),
        ({"args": [{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]}, "args[0].value: not a number from 0 to 18446744"),
        ({"args": [{"index": 0, "value": 0, "op": "EQ"}]}, "args[0].op: unknown: 'EQ'"),
        ({"args": [7]}, "args[0]: not an object: 7"),
        ({"includes": {"minKernel": "new"}}, "includes.minKernel: not a kernel version: 'new'"),
        ({"excludes": ["s390"]}, "excludes: not an object: ['s390']"),
        ({"includes": {"caps": "CAP_KILL"}}, "includes: not a list: 'CAP_KILL'"),
    ],
)  # fmt: skip
def test_faulty_rules(tmp_path: Path, change: dict[str, object], message: str) -> None:
    rule = {"names": ["getpid"], "action": "SCMP_ACT_ALLOW", **change}
    with pytest.raises(UsageError) as caught:
        load_profile(written(tmp_path, minimal(syscalls=[rule])), DEFAULT)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "no such file or directory"), (tmp_path, "is a directory")):
        with pytest.raises(UsageError, match=f"^seccomp profile {path}: {why}$"):
            load_profile(str(path), DEFAULT)


# ── the cache ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def library() -> None:
    """Skips what must compile where libseccomp is missing."""
    try:
        seccomp_compile.version()
    except PyrunError as error:
        pytest.skip(error.message)


@pytest.mark.usefixtures("library")
def test_a_second_start_compiles_nothing(cache: Path, compilations: list[object]) -> None:
    first = seccomp.default_filter(DEFAULT)
    assert first[1] == seccomp.FLAG_SPEC_ALLOW
    assert seccomp.default_filter(DEFAULT) == first
    assert len(compilations) == 1
    program = Path(first[0])
    assert program.parent == cache
    assert stat.S_IMODE(program.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ".bpf"]


@pytest.mark.usefixtures("library", "cache")
def test_the_key_tells_profiles_and_masks_apart(compilations: list[object]) -> None:
    other = minimal(defaultErrnoRet=38)
    paths = {
        seccomp.default_filter(DEFAULT)[0],
        seccomp.default_filter(DEFAULT | SYS_ADMIN)[0],
        seccomp.profile_filter(minimal())[0],
        seccomp.profile_filter(other)[0],
    }
    assert len(paths) == len(compilations) == 4
    assert seccomp.profile_filter(minimal(defaultErrnoRet=38))[0] in paths
    assert len(compilations) == 4


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("fact", ["release", "machine", "generator", "library", "data"])
def test_the_key_covers(
    cache: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[object], fact: str, tmp_path: Path
) -> None:
    before = seccomp.default_filter(DEFAULT)[0]
    system = os.uname()
    if fact == "release":
        monkeypatch.setattr(
            seccomp.posix, "uname", lambda: SimpleNamespace(release="9.9", machine=system.machine)
        )
    elif fact == "machine":
        monkeypatch.setattr(
            seccomp.posix, "uname", lambda: SimpleNamespace(release=system.release, machine="vax")
        )
    elif fact == "generator":
        monkeypatch.setattr(seccomp, "GENERATOR", 1000)
    elif fact == "data":
        monkeypatch.setattr(seccomp, "DEFAULT_DATA", "0" * 16)
    else:  # as after an upgrade: the file the link names is gone, and then it is another one
        (cache / seccomp.LIBRARY_LINK).unlink()
        (cache / seccomp.LIBRARY_LINK).symlink_to(tmp_path / "libseccomp.so.2.0.0")
    after = seccomp.default_filter(DEFAULT)[0]
    assert len(compilations) == 2
    assert (after == before) is (fact == "library")  # the same library again, so the same name


@pytest.mark.usefixtures("library", "cache")
@pytest.mark.parametrize("damage", [b"", b"1234567", bytes(8 * 4097), None])
def test_a_damaged_program_is_compiled_again(compilations: list[object], damage: bytes | None) -> None:
    path = Path(seccomp.default_filter(DEFAULT)[0])
    good = path.read_bytes()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert seccomp.default_filter(DEFAULT)[0] == str(path)
    assert path.read_bytes() == good
    assert len(compilations) == 2


@pytest.mark.usefixtures("library")
def test_a_faulty_profile_is_never_cached(cache: Path) -> None:
    for _ in range(2):
        with pytest.raises(UsageError, match=r"SCMP_ACT_NOTIFY needs linux\.seccomp\.listenerPath"):
            seccomp.profile_filter(minimal(defaultAction=seccomp.NOTIFY))
        with pytest.raises(UsageError, match=r"linux\.seccomp\.flags"):
            seccomp.profile_filter(minimal(flags=["SECCOMP_FILTER_FLAG_NEW"]))
    assert not cache.exists()


@pytest.mark.usefixtures("library", "cache")
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (None, 4), ([], 0), (["SECCOMP_FILTER_FLAG_TSYNC"], 0), (["SECCOMP_FILTER_FLAG_LOG"], 2),
        (["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"], 6),
    ],
)  # fmt: skip
def test_flags(flags: list[str] | None, expected: int) -> None:
    assert seccomp.profile_filter(minimal(flags=flags))[1] == expected


NOTIFYING = {"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}], "listenerPath": "/run/agent"}
NEW_LISTENER, KILLABLE = seccomp.FLAG_NEW_LISTENER, seccomp.FLAG_WAIT_KILLABLE_RECV


@pytest.mark.usefixtures("library", "cache")
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (NOTIFYING, 4 | NEW_LISTENER),
        ({**NOTIFYING, "flags": []}, NEW_LISTENER),
        ({**NOTIFYING, "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, NEW_LISTENER | KILLABLE),
        ({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/run/agent"}, 4 | NEW_LISTENER),
        # nothing is notified of: the path is ignored, and the flag, which the kernel would refuse
        ({"listenerPath": "/run/agent", "listenerMetadata": "m"}, 4),
        ({"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, 0),
    ],
)
def test_flags_of_a_listener(more: dict[str, Any], expected: int) -> None:
    assert seccomp.profile_filter(minimal(**more))[1] == expected


@pytest.mark.usefixtures("library", "cache")
def test_where_the_agent_is_makes_no_other_program(compilations: list[object]) -> None:
    """Some agents have a socket for each container: one program for all of them."""
    found = {
        seccomp.profile_filter(
            minimal(**{**NOTIFYING, "listenerPath": f"/run/{number}"}, listenerMetadata=str(number))
        )[0]
        for number in range(3)
    }
    assert len(found) == len(compilations) == 1


@pytest.mark.parametrize("path", ["", "x" * 108, "a\0b", 7])
def test_faulty_listeners(path: object) -> None:
    with pytest.raises(UsageError, match=r"linux\.seccomp\.listenerPath|linux\.seccomp: SCMP_ACT_NOTIFY"):
        seccomp.profile_filter(minimal(**{**NOTIFYING, "listenerPath": path}))


@pytest.mark.usefixtures("library")
def test_old_programs_are_forgotten(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp_compile, "CACHED_PROGRAMS_MAX", 3)
    made = []
    for number in range(5):
        made.append(Path(seccomp.profile_filter(minimal(defaultErrnoRet=number))[0]))
        os.utime(made[-1], ns=(number, number))
    assert set(cache.glob("*.bpf")) == set(made[-3:])


def test_without_libseccomp_the_remedy_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(seccomp_compile.ctypes, "CDLL", missing)
    with pytest.raises(PyrunError, match="libseccomp") as caught:
        seccomp.default_filter(DEFAULT)
    assert "apt-get install libseccomp2" in caught.value.hint
    assert not cache.exists()


# ── a sanity check against another engine's profile ────────────────────────────────────────────────


def test_compared_with_the_profile_of_podman(machine: Machine) -> None:
    """containers-common of Debian 12 (2023) and Docker's profile differ only where it is known why."""
    theirs = Path("/usr/share/containers/seccomp.json")
    if not theirs.exists():
        pytest.skip("needs the package golang-github-containers-common")
    machine("x86_64", "6.1.0")

    def allowed(profile: dict[str, Any]) -> set[str]:
        rules = [rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW"]
        return {name for rule in rules for name in rule["names"]}

    ours, podman = allowed(default_profile(DEFAULT)), allowed(load_profile(str(theirs), DEFAULT))
    # podman leaves to the kernel's own checks what makes namespaces and mounts: containers in containers
    nesting = """clone3 unshare setns mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount
        fspick pivot_root"""
    # and what Docker grants with a capability only, or never (keyrings are not namespaced)
    granted = "get_mempolicy mbind set_mempolicy pidfd_getfd reboot syslog keyctl"
    historic = "readdir sigaction signal sigpending sigsuspend syscall timerfd"
    # the kernel, or Docker's list, got these since then
    since = """cachestat fchmodat2 futex_requeue futex_wait futex_waitv futex_wake getxattrat listxattrat removexattrat
        setxattrat io_pgetevents io_pgetevents_time64 listmount statmount map_shadow_stack mseal riscv_hwprobe uretprobe
        vmsplice"""
    # i386's way round the rules for socket
    assert podman - ours <= set(f"{nesting} {granted} {historic} socketcall".split())
    assert ours - podman <= set(since.split())
    assert len(ours & podman) > 300
