"""init driven directly: plans that are broken, operations one at a time, and what it reports of a failure."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import hostile
from pyrun import handshake, linux
from pyrun.plan.operations import Operation
from pyrun.plan.plan import encode
from sandbox import in_child

Fork = Callable[..., object]
Report = tuple[bool, tuple[int, int, str] | None, int, bytes]


def execute(binary: str, plan: bytes, flags: int = 0) -> Report:
    """(ready, failed, wait status, standard output) of init with *plan*, in new namespaces *flags*."""
    binary_fd = linux.open_tree(linux.AT_FDCWD, binary, linux.OPEN_TREE_CLONE)
    plan_fd = os.memfd_create("plan")
    os.write(plan_fd, plan)
    ours, theirs = handshake.pair()
    reading_fd, writing_fd = os.pipe()
    keep = [(writing_fd, 1), (plan_fd, 3), (theirs, 4)]
    pid, pidfd = linux.clone_exec(flags, -1, binary_fd, "pyrun-init", keep)
    for fd in (writing_fd, plan_fd, binary_fd, pidfd, theirs):
        os.close(fd)
    handshake.go(ours, pid)
    outcome = handshake.wait(ours)
    with os.fdopen(reading_fd, "rb") as stream:
        output = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return outcome.ready, outcome.failed, status, output


MOUNTS = linux.CLONE_NEWNS | linux.CLONE_NEWPID


@pytest.fixture
def run(sandbox_fork: Fork, static_binary: Path) -> Callable[..., Report]:
    def run(plan: bytes | list[Operation], flags: int = MOUNTS) -> Report:
        data = plan if isinstance(plan, bytes) else encode(plan)
        return sandbox_fork(execute, str(static_binary), data, flags)  # type: ignore[return-value]

    return run


@pytest.mark.parametrize(
    "plan",
    [
        b"", b"\0", b"33", b"33\0", b"0\x001\0x\0", b"999\x000\0", b"-1\x000\0", b"x\x000\0",
        b"15\x002\0a\0", b"15\0-1\0", b"15\x000\0", b"18\x003\x007\0x\x001\0",
        b"13\x00999999999999999999999\0", b"33\x000\0", b" 15\x001\0a\0",
    ],
)  # fmt: skip
def test_a_broken_plan_is_refused(run: Callable[..., Report], plan: bytes) -> None:
    ready, failed, status, _ = run(plan)
    assert not ready
    assert failed is not None
    assert failed[1] in (errno.EBADMSG, errno.EFBIG)
    assert status == 127


def test_damaged_plans_never_crash_init(run: Callable[..., Report]) -> None:
    """A bounded fuzz: bytes of a good plan changed; init may fail, but by its own report, not by a signal.

    In namespaces of its own throughout: a number changed may mean any operation.
    """
    own = MOUNTS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWNET
    chance = random.Random(7)
    good = bytearray(
        encode(
            [Operation("RLIMIT", 4, 0, 0), Operation("ENVIRONMENT", "A=b"), Operation("EXECUTE", "/bin/true")]
        )
    )
    for _ in range(60):
        bad = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            bad[chance.randrange(len(bad))] = chance.choice(b"\0\xff0129-A/")
        _, _, status, _ = run(bytes(bad), flags=own)
        assert status >= 0, (bytes(bad), status)


def test_the_end_of_a_plan_without_execve_is_an_error(run: Callable[..., Report]) -> None:
    _, failed, _, _ = run([Operation("RLIMIT", 4, 0, 0)])
    assert failed is not None and failed[:2] == (1, errno.EBADMSG)


def test_a_failure_names_operation_errno_and_path(run: Callable[..., Report]) -> None:
    plan = [Operation("PROPAGATION", linux.MS_PRIVATE), Operation("ROOT_BIND", "/no/such/root")]
    assert run(plan)[1] == (1, errno.ENOENT, "/no/such/root")


def test_a_missing_layer_is_named(run: Callable[..., Report], tmp_path: Path) -> None:
    for name in ("root", "upper", "work", "lower"):
        (tmp_path / name).mkdir()
    paths = [str(tmp_path / name) for name in ("root", "upper", "work")]
    plan = [Operation("ROOT_OVERLAY", *paths, 0, str(tmp_path / "lower"), str(tmp_path / "gone"))]
    assert run(plan)[1] == (0, errno.ENOENT, str(tmp_path / "gone"))


def rooted(tmp_path: Path, *operations: Operation) -> list[Operation]:
    """A plan whose root is a directory of ours, which then tells what is in it by the host's own shell, bound in."""
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    binds = [
        Operation("BIND", f"/{name}", f"/{name}", 1, 1, 0)
        for name in ("usr", "bin", "lib", "lib64")
        if Path("/", name).exists()
    ]
    return [
        Operation("PROPAGATION", linux.MS_PRIVATE),
        Operation("ROOT_BIND", str(root)),
        *binds,
        *operations,
    ]


def test_targets_are_made_inside_whatever_links_say(run: Callable[..., Report], tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "data").symlink_to(canary)
    (root / "deep").symlink_to("../../../../../.." + str(canary))
    mounts = [Operation("MOUNT", f"/{name}/sub", "tmpfs", "tmpfs", 0, "") for name in ("data", "deep")]
    plan = rooted(
        tmp_path,
        *mounts,
        Operation("PIVOT"),
        Operation("ENVIRONMENT"),
        Operation("EXECUTE", "/bin/sh", "-c", "ls /data"),
    )
    ready, failed, status, output = run(plan)
    assert (ready, failed, status) == (True, None, 0)
    assert output == b"sub\n"
    assert list(canary.iterdir()) == []


def test_every_operation_may_follow_links_that_led_nowhere(
    run: Callable[..., Report], tmp_path: Path
) -> None:
    """Forty are too many for one place, not for all places together."""
    root = tmp_path / "root"
    root.mkdir()
    for number in range(50):
        (root / f"link{number}").symlink_to(f"gone{number}")
    places = [Operation("DIRECTORY", f"/link{number}", 0o755, 0, 0) for number in range(50)]
    plan = rooted(tmp_path, *places, Operation("ENVIRONMENT"), Operation("EXECUTE", "/bin/true"))
    assert run(plan)[:3] == (True, None, 0)
    assert all((root / f"gone{number}").is_dir() for number in range(50))


def test_places_behind_links_are_found_while_files_are_renamed(
    run: Callable[..., Report], tmp_path: Path
) -> None:
    """Of a hundred looks at such a place the kernel takes back about three."""
    (tmp_path / "root/run/here").mkdir(parents=True)
    (tmp_path / "root/var").mkdir()
    (tmp_path / "root/var/run").symlink_to("../run")
    there = [Operation("DIRECTORY", "/var/run/here", 0o755, 0, 0)] * 3000
    plan = rooted(tmp_path, *there, Operation("ENVIRONMENT"), Operation("EXECUTE", "/bin/true"))
    with hostile.renaming(tmp_path):
        assert run(plan)[:3] == (True, None, 0)


def test_null_of_the_host_is_what_masks(run: Callable[..., Report], tmp_path: Path) -> None:
    """CVE-2025-31133: the root's own /dev/null is no null."""
    root = tmp_path / "root"
    (root / "dev").mkdir(parents=True)
    (root / "dev/null").write_text("not null")
    (root / "secret").write_text("secret")
    (root / "secrets").mkdir()
    (root / "secrets/one").write_text("x")
    masks = [Operation("MASK", path) for path in ("/secret", "/secrets", "/absent")]
    script = "cat /secret; ls /secrets; ls -l /secret | cut -c1; touch /secrets/x 2>/dev/null || echo ro"
    plan = rooted(
        tmp_path,
        *masks,
        Operation("PIVOT"),
        Operation("ENVIRONMENT"),
        Operation("EXECUTE", "/bin/sh", "-c", script),
    )
    assert run(plan)[3] == b"c\nro\n"


def test_a_directory_outside_the_root_is_no_working_directory(
    run: Callable[..., Report], tmp_path: Path
) -> None:
    plan = rooted(
        tmp_path,
        Operation("MOUNT", "/proc", "proc", "proc", 0, ""),
        Operation("PIVOT"),
        Operation("DIRECTORY_CURRENT", "/proc/self/fd/4"),
    )
    failed = run(plan)[1]
    assert failed is not None and failed[1] in (errno.ENOTDIR, errno.ENOENT, errno.EXDEV, errno.EACCES)


def test_sysctls_go_through_a_proc_of_inits_own(run: Callable[..., Report], tmp_path: Path) -> None:
    """CVE-2019-19921: the root's /proc is a directory of the image."""
    trap = tmp_path / "root/proc/sys/kernel"
    trap.mkdir(parents=True)
    (trap / "shm_rmid_forced").write_text("untouched")
    plan = rooted(
        tmp_path, Operation("SYSCTL", "kernel/shm_rmid_forced", "1"), Operation("PIVOT"),
        Operation("MOUNT", "/mnt", "proc", "proc", 0, ""), Operation("ENVIRONMENT"),
        Operation("EXECUTE", "/bin/cat", "/mnt/sys/kernel/shm_rmid_forced"),
    )  # fmt: skip
    assert run(plan, flags=MOUNTS | linux.CLONE_NEWIPC)[3] == b"1\n"
    assert (trap / "shm_rmid_forced").read_text() == "untouched"


def test_a_sysctl_path_cannot_climb(run: Callable[..., Report]) -> None:
    failed = run([Operation("SYSCTL", "../self/oom_score_adj", "7")], flags=MOUNTS | linux.CLONE_NEWIPC)[1]
    assert failed is not None


def test_ipv6_is_off_for_links_that_come_and_for_one_that_was_there(
    run: Callable[..., Report], tmp_path: Path
) -> None:
    """lo stands for one that came before; what is not there is nothing to complain of."""
    conf = "/proc/sys/net/ipv6/conf"
    plan = rooted(
        tmp_path, Operation("NO_IPV6"), Operation("NO_IPV6", "lo", "eth0"),
        Operation("MOUNT", "/proc", "proc", "proc", 0, ""), Operation("PIVOT"), Operation("ENVIRONMENT"),
        Operation("EXECUTE", "/bin/grep", "", *[f"{conf}/{name}/disable_ipv6" for name in ("default", "lo", "all")]),
    )  # fmt: skip
    seen = run(plan, flags=MOUNTS | linux.CLONE_NEWNET)[3].decode().split()
    assert seen == [
        f"{conf}/default/disable_ipv6:1",
        f"{conf}/lo/disable_ipv6:1",
        f"{conf}/all/disable_ipv6:0",
    ]


def test_identity_and_capabilities(run: Callable[..., Report], tmp_path: Path) -> None:
    plan = rooted(
        tmp_path, Operation("MOUNT", "/proc", "proc", "proc", 0, ""), Operation("PIVOT"), Operation("BOUNDING", 1 << 5),
        Operation("IDENTITY", 1000, 1001, 0o027, 1001, 44), Operation("CAPABILITIES", 1 << 5, 1 << 5, 1 << 5, 1 << 5),
        Operation("ENVIRONMENT"), Operation("EXECUTE", "/bin/grep", "-E", "^(Uid|Gid|Groups|Cap)", "/proc/self/status"),
    )  # fmt: skip
    output = run(plan)[3].decode()
    assert "Uid:\t1000\t1000\t1000\t1000" in output
    assert "Gid:\t1001\t1001\t1001\t1001" in output
    assert output.split("Groups:\t")[1].split("\n")[0].split() == ["44", "1001"]
    for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert f"Cap{name}:\t0000000000000020" in output


def test_nothing_but_the_three_streams_crosses_execve(run: Callable[..., Report]) -> None:
    plan = [Operation("ENVIRONMENT"), Operation("EXECUTE", "/bin/sh", "-c", "echo /proc/self/fd/*")]
    numbers = {word.rpartition(b"/")[2] for word in run(plan, flags=0)[3].split()}
    assert numbers - {b"3"} == {b"0", b"1", b"2"}  # 3 is the shell's own look at the directory


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("no-such-command", errno.ENOENT),
        ("/etc/passwd", errno.EACCES),
        ("/etc", errno.EACCES),
        ("/no/such", errno.ENOENT),
        ("", errno.ENOENT),
    ],
)
def test_what_cannot_be_executed(run: Callable[..., Report], command: str, expected: int) -> None:
    ready, failed, status, _ = run(
        [Operation("ENVIRONMENT", "PATH=/usr/bin:/bin"), Operation("EXECUTE", command)], flags=0
    )
    assert ready
    assert failed is not None and failed[1] == expected
    assert status == 127


@in_child
def test_a_planner_that_dies_before_go_ends_init(static_binary: Path) -> None:
    binary_fd = linux.open_tree(linux.AT_FDCWD, str(static_binary), linux.OPEN_TREE_CLONE)
    plan_fd = os.memfd_create("plan")
    os.write(plan_fd, encode([Operation("WAIT_GO"), Operation("EXECUTE", "/bin/true")]))
    ours, theirs = handshake.pair()
    pid, _ = linux.clone_exec(0, -1, binary_fd, "pyrun-init", [(plan_fd, 3), (theirs, 4)])
    os.close(theirs)
    os.close(ours)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 127
