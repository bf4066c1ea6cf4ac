"""Every field of config.json's process in effect, as the process itself sees it. Planning: unit/test_oci_process.py.

AppArmor and SELinux are in few kernels: which file a label goes into is tested there, with files in its place.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import stat
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import planned
from jobs import job_of
from planned import Report
from pyrun import handshake, linux
from pyrun.plan.job import Job
from pyrun.plan.operations import Operation
from pyrun.plan.plan import encode
from pyrun.spec import capabilities
from pyrun.stages import process
from pyrun.verdict import command_error
from sandbox import in_child

Fork = Callable[..., Any]
Inside = Callable[..., Report]
OCI = job_of(oci=True)
OTHER_FDS = 3


@pytest.fixture
def inside(sandbox_fork: Fork, static_binary: Path, tmp_path: Path) -> Inside:
    """`inside(script, job=..., **process fields)`: what the script says of itself."""

    def run(script: str, job: Job | None = None, **fields: Any) -> Report:
        wanted = planned.config(script, **fields)
        found = sandbox_fork(planned.execute, str(static_binary), tmp_path / "root", wanted, job)
        assert isinstance(found, Report)
        return found

    return run


def python(code: str) -> str:
    """A script that runs *code* by the host's Python; `call(number, ...)` makes a system call."""
    head = """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        def call(*words):
            result = libc.syscall(*map(ctypes.c_long, words))
            return result if result >= 0 else -ctypes.get_errno()
    """
    return f"exec /usr/bin/python3 -I -S -c '{textwrap.dedent(head) + textwrap.dedent(code)}'"


def status(output: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)


STATUS = "cat /proc/self/status"

# ── user, umask, capabilities, no_new_privs ────────────────────────────────────────────────────────


def test_user_groups_and_umask(inside: Inside) -> None:
    found = status(
        inside(STATUS, user={"uid": 12, "gid": 34, "umask": 0o137, "additionalGids": [5, 6]}).output
    )
    assert found["Uid"].split() == ["12"] * 4
    assert found["Gid"].split() == ["34"] * 4
    assert found["Groups"].split() == ["5", "6"]
    assert found["Umask"] == "0137"


def test_the_umask_is_022_unless_said(inside: Inside) -> None:
    before = os.umask(0)
    try:
        assert status(inside(STATUS).output)["Umask"] == "0022"
    finally:
        os.umask(before)


def test_five_sets_of_capabilities(inside: Inside) -> None:
    names = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_FOWNER"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
        "effective": ["CAP_CHOWN"],
        "inheritable": ["CAP_KILL", "CAP_FOWNER"],
        "ambient": ["CAP_KILL", "CAP_SETUID"],
    }
    found = status(inside(STATUS, user={"uid": 1, "gid": 1}, capabilities=names).output)
    mask = capabilities.mask_of
    assert int(found["CapBnd"], 16) == mask(names["bounding"])
    assert int(found["CapInh"], 16) == mask(names["inheritable"])
    # what execve leaves a user who is not root: the ambient set, which holds what is permitted and inheritable
    assert [int(found[f"Cap{each}"], 16) for each in ("Prm", "Eff", "Amb")] == [mask(["CAP_KILL"])] * 3


@pytest.mark.parametrize("wish", [True, False])
def test_no_new_privileges(inside: Inside, wish: bool) -> None:
    assert status(inside(STATUS, noNewPrivileges=wish).output)["NoNewPrivs"] == str(int(wish))


def test_what_cannot_be_granted_does_not_stop_the_start(inside: Inside) -> None:
    every = {name: [*capabilities.NAMES, "CAP_FLY"] for name in planned.ALL_SETS}
    report = inside(STATUS, capabilities=every)
    assert (report.failed, report.status) == (None, 0)
    assert int(status(report.output)["CapEff"], 16) == capabilities.available()


# ── limits, the out-of-memory score ────────────────────────────────────────────────────────────────


def test_limits(inside: Inside) -> None:
    limits = [
        {"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": (1 << 64) - 1},
    ]
    output = inside("cat /proc/self/limits", rlimits=limits).output
    assert [line.split()[3:5] for line in output.splitlines() if line.startswith("Max open files")] == [
        ["77", "88"]
    ]
    assert "unlimited" in next(line for line in output.splitlines() if line.startswith("Max core file"))


@pytest.mark.parametrize(("score", "expected"), [(None, "300"), (0, "0"), (500, "500")])
@in_child
def test_the_out_of_memory_score(
    static_binary: Path, tmp_path: Path, score: int | None, expected: str
) -> None:
    """0 is a wish; none leaves the caller's."""
    Path("/proc/self/oom_score_adj").write_text("300")
    fields = {} if score is None else {"oomScoreAdj": score}
    wanted = planned.config("cat /proc/self/oom_score_adj", **fields)
    assert planned.execute(str(static_binary), tmp_path / "root", wanted).output.strip() == expected


@pytest.mark.needs("user_namespaces")
@in_child
def test_the_planner_sets_the_limits_of_a_user_namespace() -> None:
    """Raised again there by the planner, whose right it is, while its process waits."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        linux.unshare(linux.CLONE_NEWUSER)
        os.write(writing, b"x")
        signal.pause()
    os.read(reading, 1)
    wanted = planned.config(
        oomScoreAdj=41,
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 250}],
        linux_namespaces=[{"type": "user"}],
    )
    process.outside(wanted, pid)
    limits = Path(f"/proc/{pid}/limits").read_text()
    score = Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    assert (line.split()[3:5], score) == (["100", "250"], "41")


# ── scheduling ─────────────────────────────────────────────────────────────────────────────────────

SCHED_RESET_ON_FORK = 0x40000000


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"policy": "SCHED_OTHER", "nice": 7}, f"{os.SCHED_OTHER} 7"),
        ({"policy": "SCHED_BATCH", "nice": 3}, f"{os.SCHED_BATCH} 3"),
        ({"policy": "SCHED_IDLE"}, f"{os.SCHED_IDLE} 0"),
        (
            {"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            f"{os.SCHED_BATCH | SCHED_RESET_ON_FORK} 0",
        ),
    ],
)
def test_scheduler(inside: Inside, scheduler: dict[str, object], expected: str) -> None:
    report = inside(python("print(os.sched_getscheduler(0), os.getpriority(0, 0))"), scheduler=scheduler)
    assert (report.failed, report.output.strip()) == (None, expected)


def test_a_scheduler_the_kernel_refuses_is_an_error(inside: Inside) -> None:
    failed = inside("true", scheduler={"policy": "SCHED_ISO"}).failed
    assert failed is not None and failed[1] == errno.EINVAL


@pytest.mark.parametrize(
    ("kind", "level", "expected"),
    [("BE", 2, 0x4002), ("BE", 7, 0x4007), ("IDLE", 0, 0x6000), ("RT", 4, 0x2004)],
)
def test_io_priority(inside: Inside, kind: str, level: int, expected: int) -> None:
    wanted = {"class": f"IOPRIO_CLASS_{kind}", "priority": level}
    number = {"x86_64": 252, "aarch64": 31}[os.uname().machine]
    assert inside(python(f"print(call({number}, 1, 0))"), ioPriority=wanted).output.strip() == str(expected)


CPUS = "sed -n s/^Cpus_allowed_list:.//p /proc/self/status"


def test_the_callers_processors_are_not_the_containers(
    sandbox_fork: Fork, static_binary: Path, tmp_path: Path
) -> None:
    cpus = sorted(os.sched_getaffinity(0))

    def start(job: Job) -> str:
        os.sched_setaffinity(0, cpus[:1])
        return planned.execute(
            str(static_binary), tmp_path / "root", planned.config(CPUS), job
        ).output.strip()

    first, every = f"{cpus[0]}", f"{cpus[0]}-{cpus[-1]}" if len(cpus) > 1 else f"{cpus[0]}"
    assert sandbox_fork(start, job_of()) == first
    assert sandbox_fork(start, OCI) in (every, ",".join(map(str, cpus)))


def test_exec_runs_where_it_is_told(inside: Inside) -> None:
    cpu = str(max(os.sched_getaffinity(0)))
    wanted = {"execCPUAffinity": {"initial": "0", "final": cpu}}
    assert inside(CPUS, job_of(oci=True, entering=True), **wanted).output.strip() == cpu
    nowhere = inside(CPUS, job_of(oci=True, entering=True), execCPUAffinity={"final": "60000"}).failed
    assert nowhere is not None and nowhere[1] == errno.EINVAL


@pytest.mark.needs("numa")
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "interleave=static:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, "prefer:0"),
        ({"mode": "MPOL_LOCAL"}, "local"),
        ({"mode": "MPOL_DEFAULT"}, "default"),
    ],
)
def test_memory_policy(inside: Inside, policy: dict[str, object], expected: str) -> None:
    output = inside("grep stack /proc/self/numa_maps", linux_memoryPolicy=policy).output
    assert output.split()[1] == expected


def test_a_memory_node_that_is_not_there(inside: Inside) -> None:
    failed = inside("true", linux_memoryPolicy={"mode": "MPOL_BIND", "nodes": "900"}).failed
    assert failed is not None and failed[1] in (errno.EINVAL, errno.ENOSYS)


@pytest.mark.parametrize(("domain", "expected"), [("LINUX", "00000000"), ("LINUX32", "00000008")])
def test_personality(inside: Inside, domain: str, expected: str) -> None:
    output = inside(
        "cat /proc/self/personality; uname -m", linux_personality={"domain": domain}
    ).output.split()
    assert output[0] == expected
    if os.uname().machine == "x86_64":
        assert output[1] == ("i686" if domain == "LINUX32" else "x86_64")


# ── session, streams, directory ────────────────────────────────────────────────────────────────────

KEYRING = f"print(call({ {'x86_64': 250, 'aarch64': 219}[os.uname().machine] }, 0, -3, 1), os.getsid(0) == os.getpid())"


def test_a_session_and_a_keyring_of_its_own(sandbox_fork: Fork, static_binary: Path, tmp_path: Path) -> None:
    def start(job: Job) -> list[str]:
        libc = ctypes.CDLL(None, use_errno=True)
        number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
        ours = libc.syscall(number, 1, None)  # a session keyring of the caller's own
        report = planned.execute(str(static_binary), tmp_path / "root", planned.config(python(KEYRING)), job)
        return [*report.output.split(), str(ours)]

    own, session, ours = sandbox_fork(start, job_of())
    assert session == "True" and own != ours and int(own) > 0
    shared, session, ours = sandbox_fork(start, job_of(no_new_keyring=True))
    assert session == "True" and shared == ours


@in_child
def test_pipes_become_the_users_and_nothing_else_does(static_binary: Path, tmp_path: Path) -> None:
    """/dev/stdout can be opened, and the caller's file stays the caller's, never mind /dev/null."""
    file = tmp_path / "input"
    file.write_text("")
    wanted = planned.config("stat -L -c %u /proc/self/fd/0 /proc/self/fd/1; echo opened > /proc/self/fd/1",
                            user={"uid": 1234, "gid": 1})  # fmt: skip
    plan = planned.operations(wanted, tmp_path / "root", job_of())
    report = planned.run(str(static_binary), plan, keep=[(os.open(file, os.O_RDONLY), 0)])
    assert report.output.split() == ["0", "1234", "opened"]
    assert file.stat().st_uid == 0 == Path("/dev/null").stat().st_uid


def test_a_directory_only_its_user_may_enter(sandbox_fork: Fork, static_binary: Path, tmp_path: Path) -> None:
    """As on a file system that does not trust root: here root has lost the right to pass over permissions."""
    home = tmp_path / "root/home"
    home.mkdir(parents=True)
    home.chmod(0o700)
    os.chown(home, 77, 77)

    def start(uid: int) -> Report:
        libc = ctypes.CDLL(None)
        for name in ("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"):
            assert libc.prctl(24, capabilities.NUMBERS[name], 0, 0, 0) == 0  # PR_CAPBSET_DROP
        wanted = planned.config("pwd", cwd="/home", user={"uid": uid, "gid": 77})
        return planned.execute(str(static_binary), tmp_path / "root", wanted)

    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and not path.stat().st_mode & stat.S_IXOTH:
            path.chmod(path.stat().st_mode | stat.S_IXOTH)
    assert sandbox_fork(start, 77).output.strip() == "/home"
    failed = sandbox_fork(start, 78).failed
    assert failed is not None and failed[1:] == (errno.EACCES, "/home")


# ── finding the program ────────────────────────────────────────────────────────────────────────────


def look_up(binary: str, root: Path, command: str, user: dict[str, int], path: str) -> str:
    wanted = planned.config(user=user, env=["PATH=" + path])
    wanted["process"]["args"] = [command]
    plan = planned.operations(wanted, root, OCI)
    report = planned.run(binary, plan)
    if report.failed is None:
        return report.output.strip() or "executed"
    operation = plan[report.failed[0]]
    return f"{operation.kind} {command_error(operation, *report.failed[1:]).message}"


@pytest.mark.parametrize(
    ("command", "uid", "path", "expected"),
    [
        ("nosuch", 0, "/usr/bin", 'LOOK_UP exec: "nosuch": executable file not found in $PATH'),
        ("/nosuch", 0, "/usr/bin", 'LOOK_UP exec: "/nosuch": stat /nosuch: no such file or directory'),
        ("/etc/passwd", 0, "/usr/bin", 'LOOK_UP exec: "/etc/passwd": permission denied'),
        ("/etc", 0, "/usr/bin", 'LOOK_UP exec: "/etc": is a directory'),
        (
            "/etc/passwd/x",
            0,
            "/usr/bin",
            'LOOK_UP exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory',
        ),
        ("passwd", 0, "/etc", 'LOOK_UP exec: "passwd": executable file not found in $PATH'),
        ("", 0, "/usr/bin", 'LOOK_UP exec: "": executable file not found in $PATH'),
        ("tool", 0, "/nowhere::/own", "0 0"),
        ("tool", 0, "own", 'LOOK_UP exec: "tool": cannot run executable found relative to current directory'),
        # only its owner may execute it, and only its group the other one: the answer is the user's, not root's
        ("/own/secret", 0, "", "0 0"),
        ("/own/secret", 5, "", 'LOOK_UP exec: "/own/secret": permission denied'),
        ("secret", 5, "/own", 'LOOK_UP exec: "secret": executable file not found in $PATH'),
        ("/own/shared", 5, "", "5 9"),
        # found, and refused by the kernel: in the words of an execve
        ("/own/text", 0, "", "EXECUTE exec /own/text: exec format error"),
        ("text", 0, "/own", "EXECUTE exec /own/text: exec format error"),
        ("/own/lost", 0, "", "EXECUTE exec /own/lost: no such file or directory"),
    ],
)
def test_the_program_is_looked_for_as_its_user(
    sandbox_fork: Fork, static_binary: Path, tmp_path: Path, command: str, uid: int, path: str, expected: str
) -> None:
    own = tmp_path / "root/own"
    own.mkdir(parents=True)
    script = "#!/bin/sh\necho $(/usr/bin/id -u) $(/usr/bin/id -g)\n"
    for name, text, mode, group in (
        ("tool", script, 0o755, 0), ("secret", script, 0o700, 0), ("shared", script, 0o750, 42),
        ("text", "x", 0o755, 0), ("lost", "#!/no/interpreter\n", 0o755, 0),
    ):  # fmt: skip
        (own / name).write_text(text)
        (own / name).chmod(mode)
        os.chown(own / name, 0, group)
    for each in (tmp_path / "root", own):
        each.chmod(0o755)
    user: dict[str, Any] = {"uid": uid, "gid": 0 if not uid else 9, "additionalGids": [42]}
    found = sandbox_fork(look_up, str(static_binary), tmp_path / "root", command, user, path)
    assert found == expected


# ── nobody looks into init ─────────────────────────────────────────────────────────────────────────

LOOK = python(
    """
    def attempt(what, *words):
        try:
            what(*words)
            return "done"
        except OSError as error:
            return error.strerror
    for pid in [each for each in os.listdir("/proc") if each.isdigit()]:
        if open(f"/proc/{pid}/cmdline").read().startswith("pyrun-init"):
            print(
                attempt(os.readlink, f"/proc/{pid}/fd/4"),
                attempt(os.readlink, f"/proc/{pid}/root"),
                attempt(os.open, f"/proc/{pid}/mem", os.O_RDWR),
                call(101, 16, int(pid), 0, 0), sep="; ",
            )
    """
)


def look_into(binary: str, root: Path, guarded: bool) -> str:
    """What a process sees of an init beside it that waits with the same rights: both have Docker's capabilities."""
    usual = list(capabilities.DEFAULT_NAMES)
    given = {"bounding": usual, "effective": usual, "permitted": usual}
    waiting = planned.config(capabilities=given, linux_namespaces=[{"type": "pid", "path": "/x"}])
    # IDENTITY guards init once more, against another value of fs.suid_dumpable
    left_out = ("ENVIRONMENT", "EXECUTE", "IDENTITY", "" if guarded else "GUARD")
    plan = [each for each in planned.operations(waiting, root, job_of()) if each.kind not in left_out]
    linux.unshare(linux.CLONE_NEWPID)
    if pid := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return f"failed: {status}" if status else Path(root, "seen").read_text()
    binary_fd = linux.open_tree(linux.AT_FDCWD, binary, linux.OPEN_TREE_CLONE)
    plan_fd = os.memfd_create("plan")
    os.write(plan_fd, encode([*plan, Operation("WAIT_GO"), Operation("EXECUTE", "/bin/true")]))
    ours, theirs = handshake.pair()
    linux.clone_exec(linux.CLONE_NEWNS, -1, binary_fd, "pyrun-init", [(plan_fd, 3), (theirs, 4)])
    handshake.go(ours, 1)
    for _ in range(2):
        handshake.wait_for(ours, handshake.Outcome(), handshake.WAITING)
    looking = planned.config(f"{LOOK} > /seen", capabilities=given)
    report = planned.run(binary, planned.operations(looking, root, job_of()), flags=linux.CLONE_NEWNS)
    os._exit(report.status if report.failed is None else 99)


@pytest.mark.parametrize("guarded", [True, False])
def test_nobody_inside_looks_into_a_waiting_init(
    sandbox_fork: Fork, static_binary: Path, tmp_path: Path, guarded: bool
) -> None:
    """CVE-2016-9962. Without the guard the same attempts succeed, so that the test is known to bite."""
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are those of x86_64")
    seen = sandbox_fork(look_into, str(static_binary), tmp_path / "root", guarded).strip()
    denied = "Permission denied; Permission denied; Permission denied; -1"
    assert seen == (denied if guarded else "done; done; done; 0")


def test_the_command_itself_is_an_ordinary_process(inside: Inside) -> None:
    """The guard ends with execve: its own files below /proc are its user's."""
    output = inside(python("print(libc.prctl(3, 0, 0, 0, 0), os.stat(\"/proc/self/fd\").st_uid)"),
                    user={"uid": 5, "gid": 5}).output  # fmt: skip
    assert output.split() == ["1", "5"]
