"""PYRUN_WARM: a start that finds a planner running is the same start; who is not like the planner gets none from it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import killing
import leftovers
import pyrun as pyrun_package
from command import Pyrun
from kill_points import make_bundle, points
from planners import WARM, Planner
from waiting import emptied, until


@pytest.fixture
def planner(pyrun: Pyrun) -> Iterator[Planner]:
    """It runs, left behind by a start."""
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true", env=WARM)
    made = Planner(pyrun)
    made.ready()
    yield made
    made.end()


@pytest.fixture
def network(pyrun: Pyrun, planner: Planner) -> leftovers.Picture:
    """The default network is there, and nothing else: the picture to compare with."""
    pyrun.ok("run", "--rm", "busybox", "true")
    emptied(_still_there)
    pyrun.ok("system", "reconcile")
    return leftovers.picture()


def _still_there() -> bool:
    """What goes some time after a container has ended: the kernel takes its link away, the guard looks once more."""
    links = any(link.startswith("pyv") for link in leftovers.links())
    return links or any("pyrun-guard" in process for process in leftovers.processes())


def warm(pyrun: Pyrun, *words: str, **options: object) -> tuple[subprocess.CompletedProcess[str], bool]:
    """`pyrun run --explain=json WORDS` with PYRUN_WARM; and whether the planner did it."""
    done = pyrun("run", "--explain=json", *words, env=WARM | dict(options.get("env") or {}))  # type: ignore[call-overload]
    return done, served(done)


def served(done: subprocess.CompletedProcess[str]) -> bool:
    """By the stages a start with --explain=json tells of."""
    stages = [
        row["stage"]
        for line in done.stderr.splitlines()
        if line.startswith('{"timings"')
        for row in json.loads(line)["timings"]
    ]
    assert ("launcher and interpreter" in stages) != ("launcher, and its warm planner" in stages), stages
    return "launcher, and its warm planner" in stages


# ── the same start ─────────────────────────────────────────────────────────────────────────────────

SAME: tuple[tuple[str, ...], ...] = (
    ("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"),
    ("run", "--rm", "--net=none", "-e", "FLAVOUR", "-w", "/tmp", "busybox", "sh", "-c", "pwd; echo $FLAVOUR; umask"),
    ("run", "--rm", "--net=none", "-i", "busybox", "cat"),
    ("run", "--rm", "--net=none", "-h", "box", "busybox", "hostname"),
    ("run", "--rm", "--net=none", "busybox", "sh", "-c", "ulimit -n; cat /proc/self/oom_score_adj"),
    ("run", "--rm", "--net=none", "-u", "1000:1000", "--read-only", "busybox", "id"),
    ("run", "--rm", "--net=none", "busybox", "sh", "-c", "kill -9 $$"),
    ("run", "--rm", "--net=none", "busybox", "no-such-command"),
    ("run", "--rm", "--net=none", "busybox", "/etc"),
    ("run", "--rm", "--net=none", "--cap-add=nonsense", "busybox", "true"),
    ("run", "--rm", "--net=none", "no-such-image:1", "true"),
    ("run", "--rm", "--net=none", "--sysctl", "net.ipv4.no_such=1", "busybox", "true"),
    ("exec", "box", "sh", "-c", "echo $PPID; exit 4"),
    ("exec", "box", "no-such-command"),
    ("exec", "nobody", "true"),
)  # fmt: skip


@pytest.mark.parametrize("words", SAME, ids=lambda words: " ".join(words)[:60])
def test_it_is_the_same_start(words: tuple[str, ...], pyrun: Pyrun, planner: Planner) -> None:
    if words[:2] == ("exec", "box"):
        pyrun.ok("run", "-d", "--net=none", "--name=box", "busybox", "sleep", "100")
    if "--net=none" not in words:
        pyrun.ok("run", "--rm", "busybox", "true")  # the first one has a network to make, and says so
    environment = {"FLAVOUR": "sweet"}
    cold = pyrun(*words, input="in\n", env=environment)
    waiting = planner.ready()
    done = pyrun(*words, input="in\n", env=environment | WARM)
    assert (done.returncode, done.stdout, done.stderr) == (cold.returncode, cold.stdout, cold.stderr)
    assert planner.ready() != waiting, "nobody asked the planner"


def test_it_is_told_apart(pyrun: Pyrun, planner: Planner) -> None:
    """By --explain=json: what the other tests go by."""
    assert warm(pyrun, "--rm", "--net=none", "busybox", "true")[1]
    assert not served(pyrun("run", "--rm", "--net=none", "--explain=json", "busybox", "true"))


def test_the_container_is_the_child_of_who_was_called(pyrun: Pyrun, planner: Planner) -> None:
    process = pyrun.start("run", "--rm", "--net=none", "--name=box", "busybox", "sleep", "100", env=WARM,
                          preexec_fn=lambda: os.nice(3), start_new_session=True)  # fmt: skip
    pid = _running(pyrun, "box")
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    assert int(stat[1]) == process.pid and stat[16] == "3", "parent and niceness"
    assert Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"pyrun-monitor\0")
    assert (
        json.loads((next(pyrun.runroot.glob("containers/*")) / "state.json").read_text())["monitor_pid"]
        == process.pid
    )
    descriptors = [os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()]
    assert not [name for name in descriptors if name.startswith("socket:")], (
        "nothing of the planner stays open"
    )
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)  # it is passed on, and not heeded
    pyrun.ok("kill", "box")
    assert process.wait(10) == 137


def _running(pyrun: Pyrun, name: str) -> int:
    until(lambda: name in pyrun("ps").stdout.split(), name)
    return int(str(pyrun.state(name)["pid"]))


def test_in_the_background(pyrun: Pyrun, planner: Planner) -> None:
    done, was_served = warm(pyrun, "-d", "--name=box", "busybox", "sh", "-c", "echo said; sleep 100")
    assert was_served and done.returncode == 0 and len(done.stdout.strip()) == 64
    identifier = done.stdout.strip()
    assert pyrun.ok("ps", "-q", "--no-trunc") == identifier
    assert pyrun.ok("logs", "box") == "said"
    assert pyrun.ok("exec", "-d", "box", "touch", "/here", env=WARM) == ""
    assert pyrun.ok("exec", "box", "ls", "/here", env=WARM) == "/here"
    state = json.loads((pyrun.runroot / "containers" / identifier / "state.json").read_text())
    monitor = state["monitor_pid"]
    assert int(Path(f"/proc/{state['pid']}/stat").read_text().rpartition(") ")[2].split()[1]) == monitor
    assert os.getsid(monitor) == monitor and os.readlink(f"/proc/{monitor}/cwd") == "/"
    pyrun.ok("rm", "-f", "box")


def test_one_that_fails_in_the_background(pyrun: Pyrun, planner: Planner) -> None:
    done = pyrun("run", "-d", "--net=none", "busybox", "no-such-command", env=WARM)
    cold = pyrun("run", "-d", "--net=none", "busybox", "no-such-command")
    assert (done.returncode, done.stdout, done.stderr) == (
        cold.returncode,
        cold.stdout,
        cold.stderr,
    ) and cold.stderr


def test_where_the_caller_is(pyrun: Pyrun, planner: Planner, tmp_path: Path) -> None:
    """Its directory, its variables, its umask; and nothing of them in the next start."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "names").write_text("FROM=file\n")
    words = (
        "run",
        "--rm",
        "--net=none",
        "-v",
        "./shared:/shared",
        "--env-file=names",
        "-e",
        "OWN",
        "busybox",
        "sh",
        "-c",
    )
    done = pyrun(*words, "echo $FROM $OWN; touch /shared/here", env=WARM | {"OWN": "first"}, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("file first\n", "") and (tmp_path / "shared/here").exists()
    assert (
        pyrun.ok(
            "run", "--rm", "--net=none", "-e", "OWN", "busybox", "sh", "-c", "echo ${OWN-none}", env=WARM
        )
        == "none"
    )
    other = pyrun("run", "--rm", "busybox", "true", env=WARM | {"PYRUN_ROOT": "no/path"})
    assert other.returncode == 125 and "PYRUN_ROOT" in other.stderr


def test_thirty_at_once(pyrun: Pyrun, planner: Planner) -> None:
    with ThreadPoolExecutor(10) as pool:
        done = list(
            pool.map(
                lambda number: warm(pyrun, "--rm", "--net=none", "busybox", "echo", str(number)), range(30)
            )
        )
    assert [each.stdout for each, _ in done] == [f"{number}\n" for number in range(30)]
    assert sum(was_served for _, was_served in done) == 30


def test_a_bundle_and_its_lifecycle(pyrun: Pyrun, planner: Planner, tmp_path: Path) -> None:
    bundle = make_bundle(pyrun, tmp_path / "bundle")
    _change(bundle, args=["sleep", "100"])
    oci = [str(pyrun.binary.with_name("pyrun-oci")), "--root", str(tmp_path / "oci")]

    def call(*words: str) -> str:
        waiting = planner.ready() if words[0] in ("create", "run", "exec") else set()
        with open(tmp_path / "said", "w+") as said:  # no pipe: an init that waits would hold it
            done = subprocess.run([*oci, *words], stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                  env=pyrun.env | WARM, cwd=bundle, check=False)  # fmt: skip
        text = (tmp_path / "said").read_text()
        assert done.returncode == 0, text
        assert not waiting or planner.ready() != waiting, "nobody asked the planner"
        return text

    call("create", "--pid-file", "pid", "box")
    assert json.loads(call("state", "box"))["status"] == "created"
    assert json.loads(call("state", "box"))["pid"] == int((bundle / "pid").read_text())
    call("start", "box")
    assert call("exec", "box", "echo", "there") == "there\n"
    call("delete", "-f", "box")
    _change(bundle, args=["echo", "ran"])
    assert call("run", "box") == "ran\n"


def _change(bundle: Path, **process: object) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= process
    (bundle / "config.json").write_text(json.dumps(config))


# ── who and what is not served ─────────────────────────────────────────────────────────────────────


def test_what_is_the_launchers_own_is_done_by_it(pyrun: Pyrun, planner: Planner, tmp_path: Path) -> None:
    """Hooks are called once, as children of who was called; processors are narrowed before the clone."""
    bundle = make_bundle(pyrun, tmp_path / "bundle")
    config = json.loads((bundle / "config.json").read_text())
    script = f"cat > /dev/null; echo $PPID >> {tmp_path}/hooked"
    config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    (bundle / "config.json").write_text(json.dumps(config))
    process = pyrun.start("run", "--bundle", str(bundle), "box", env=WARM)
    assert process.wait(20) == 0
    assert (tmp_path / "hooked").read_text() == f"{process.pid}\n"


def test_the_callers_descriptors_are_its_own(pyrun: Pyrun, planner: Planner, tmp_path: Path) -> None:
    """By number: of the planner's, one leads to the launcher, which does what it is told to."""
    bundle = make_bundle(pyrun, tmp_path / "bundle")
    _change(bundle, args=["cat", "/proc/self/fd/3"])
    (tmp_path / "given").write_text("the caller's\n")
    for option in ("--preserve-fds=1", "-preserve-fds=1"):
        command = f"exec {pyrun.binary}-oci --root {tmp_path}/oci run {option} --bundle {bundle} box 3<{tmp_path}/given"
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, env=pyrun.env | WARM, check=False
        )
        assert (done.stdout, done.stderr) == ("the caller's\n", "")


def test_one_that_does_not_answer_is_not_waited_for(pyrun: Pyrun, planner: Planner) -> None:
    for pid in planner.processes():
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    done, was_served = warm(pyrun, "--rm", "--net=none", "busybox", "echo", "fine")
    assert done.stdout == "fine\n" and not was_served and time.monotonic() - began < 5
    for pid in planner.processes():
        os.kill(pid, signal.SIGCONT)


def test_what_cannot_be_told_is_no_reason_to_end(pyrun: Pyrun, planner: Planner) -> None:
    """-d, and nobody reads the id: the container runs, and the status says that the output is lost."""
    for environment in ({}, WARM):
        with open("/dev/full", "w") as full:
            command = [str(pyrun.binary), "run", "-d", "--net=none", "--name=box", "busybox", "sleep", "100"]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True,
                                  env=pyrun.env | environment, check=False)  # fmt: skip
        assert (done.returncode, done.stderr.count("cannot write to standard output")) == (1, 1)
        assert pyrun.ok("exec", "box", "echo", "there") == "there"
        pyrun.ok("rm", "-f", "box")


def test_every_signal_waits_for_the_monitor(pyrun: Pyrun, planner: Planner, tmp_path: Path) -> None:
    """Real-time signals too: those the C library keeps for itself are programs' own elsewhere."""
    trace = tmp_path / "trace"
    words = ["strace", "-f", "-e", "trace=rt_sigprocmask,execveat", "-o", str(trace), str(pyrun.binary)]
    words += ["run", "--rm", "--net=none", "busybox", "true"]
    subprocess.run(words, stdin=subprocess.DEVNULL, env=pyrun.env | WARM, check=True)
    lines = [line.partition(" ")[::2] for line in trace.read_text().splitlines()]
    at, caller = next((at, pid) for at, (pid, call) in enumerate(lines) if "pyrun-monitor" in call)
    masks = [call for pid, call in lines[:at] if pid == caller and "rt_sigprocmask" in call]
    assert "SIG_BLOCK, ~[], NULL" in masks[-1], lines


STRANGERS: tuple[tuple[str, ...], ...] = (
    ("unshare", "--net"),
    ("unshare", "--mount"),
    ("unshare", "--uts"),
    ("setpriv", "--no-new-privs"),
    ("setpriv", "--bounding-set=-sys_time", "--inh-caps=-sys_time"),
    ("setpriv", "--groups=1234"),
    ("prlimit", "--nofile=500:1000"),
)


@pytest.mark.parametrize("words", STRANGERS, ids=" ".join)
def test_who_is_not_as_the_planner_is_not_served(
    words: tuple[str, ...], pyrun: Pyrun, planner: Planner
) -> None:
    command = [
        *words,
        str(pyrun.binary),
        "run",
        "--rm",
        "--explain=json",
        "--net=host",
        "busybox",
        "ip",
        "link",
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env=pyrun.env | WARM, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not served(done)
    assert ("eth" not in done.stdout) == (words == ("unshare", "--net"))
    assert warm(pyrun, "--rm", "--net=none", "busybox", "true")[1], "the next one is"


def test_another_installation_is_not_served(pyrun: Pyrun, planner: Planner) -> None:
    other = pyrun.binary.with_name("pyrun-other")
    shutil.copy2(pyrun.binary, other)
    try:
        command = [str(other), "run", "--rm", "--explain=json", "busybox", "true"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              env=pyrun.env | WARM, check=False)  # fmt: skip
    finally:
        other.unlink()
    assert done.returncode == 0 and not served(done)


def test_only_root_gets_at_it(planner: Planner) -> None:
    directory = planner.socket.parent
    assert [path.stat().st_mode & 0o777 for path in (directory, planner.socket)] == [0o700, 0o600]


# ── its life ───────────────────────────────────────────────────────────────────────────────────────


def test_without_the_variable_there_is_none(pyrun: Pyrun) -> None:
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    for value in ("0", "", "never"):
        pyrun.ok("run", "--rm", "--net=none", "busybox", "true", env={"PYRUN_WARM": value})
    assert not Planner(pyrun).processes() and not (pyrun.runroot / "warm").exists()


def test_it_ends_when_nobody_comes(pyrun: Pyrun) -> None:
    made = Planner(pyrun)
    began = time.monotonic()
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true", env={"PYRUN_WARM": "2"})
    made.ready()
    until(lambda: not made.processes(), "its end", timeout_s=10)
    assert time.monotonic() - began > 2 and not made.socket.exists()


def test_one_that_was_killed_is_followed_by_another(pyrun: Pyrun, planner: Planner) -> None:
    gone = set(planner.processes())
    planner.end()
    done, was_served = warm(pyrun, "--rm", "--net=none", "busybox", "echo", "fine")
    assert done.stdout == "fine\n" and not was_served
    planner.ready()
    assert not gone & set(planner.processes())
    assert warm(pyrun, "--rm", "--net=none", "busybox", "true")[1]


def test_those_who_wait_end_with_it(planner: Planner) -> None:
    children = planner.ready()
    (parent,) = {planner.processes()[child] for child in children}
    os.kill(parent, signal.SIGKILL)
    assert not emptied(planner.processes)


def test_it_is_nobodys(pyrun: Pyrun) -> None:
    """A first caller on the idle side, in a cgroup of its own: neither decides for those who come later."""
    command = [
        "nice",
        "-n",
        "15",
        "taskset",
        "-c",
        "0",
        str(pyrun.binary),
        "run",
        "--rm",
        "--net=none",
        "busybox",
        "true",
    ]
    subprocess.run(command, stdin=subprocess.DEVNULL, env=pyrun.env | WARM, check=True)
    made = Planner(pyrun)
    for child in made.ready():
        assert os.getpriority(os.PRIO_PROCESS, child) == 0
        assert os.sched_getaffinity(child) == set(range(os.cpu_count() or 1))
    made.end()


def test_it_loads_nothing_that_remembers_the_environment() -> None:
    """`os` reads it once, at its import; a child takes on its caller's later."""
    script = "import sys; from pyrun.cli import warm, warm_rehearsal; "
    script += "[__import__(f'pyrun.{name}') for name in warm._MODULES]; print('os' in sys.modules)"
    package = Path(pyrun_package.__file__).parents[1]
    words = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(package)!r}); {script}"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "False\n"


def test_it_keeps_nothing_of_its_caller(pyrun: Pyrun) -> None:
    """A pipe that it held open would never end for who reads it: `$(pyrun run ...)`."""
    done = subprocess.run([str(pyrun.binary), "run", "--rm", "busybox", "echo", "fine"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, env=pyrun.env | WARM, timeout=20, check=True)  # fmt: skip
    assert done.stdout == "fine\n"
    made = Planner(pyrun)
    for child in made.ready():
        names = {os.readlink(f"/proc/{child}/fd/{number}") for number in range(3)}
        assert names == {"/dev/null"} and os.readlink(f"/proc/{child}/cwd") == "/"
    made.end()


# ── one side ends ──────────────────────────────────────────────────────────────────────────────────


def nothing_left(pyrun: Pyrun, before: leftovers.Picture, moment: str = "") -> None:
    """After `system reconcile`: no container, claim or name; the host is as it was."""

    def found() -> list[str]:
        assert pyrun("system", "reconcile").returncode == 0
        patterns = ("containers/*", "networks/*/leases/*")
        return [
            *leftovers.difference(before, leftovers.picture()),
            *[str(path) for part in ("names", "containers") for path in (pyrun.root / part).glob("*")],
            *[str(path) for pattern in patterns for path in pyrun.runroot.glob(pattern)],
        ]

    left = emptied(found, 10)  # a command that was left running ends by itself first
    assert not left, f"{moment}: {left}"


COMMAND = ("run", "--rm", "--name=victim", "-p", "8099:80", "busybox", "true")


@pytest.mark.timeout(200)
def test_the_launcher_is_killed_at_every_point(
    pyrun: Pyrun, planner: Planner, network: leftovers.Picture, sandbox_fork: Callable[..., killing.Traced]
) -> None:
    environment = dict(pyrun.env | WARM)

    def run(kill: tuple[str, int] | None) -> killing.Traced:
        planner.ready()
        return sandbox_fork(killing.trace, [str(pyrun.binary), *COMMAND], environment, kill, flags=0)

    whole = run(None)
    assert whole.status == 0, whole.output
    walked = [each for each in points(whole.steps) if each[0] == "planner"]
    assert len(walked) > 8 and not [step for step in whole.steps if step.name == "mkdir"], (
        "the launcher made it itself"
    )
    for role, number, text in walked:
        assert run((role, number)).killed, text
        nothing_left(pyrun, network, f"killed at step {number}, {text}")


@pytest.mark.timeout(200)
def test_the_planner_is_killed_at_any_time(
    pyrun: Pyrun, planner: Planner, network: leftovers.Picture
) -> None:
    statuses = set()
    for tenth_ms in range(0, 160, 16):
        children = planner.ready()
        process = pyrun.start(*COMMAND, env=WARM)
        time.sleep(tenth_ms / 10_000)  # the moment they are killed in
        for child in children:  # one of them works for it
            with contextlib.suppress(ProcessLookupError):  # it was quicker
                os.kill(child, signal.SIGKILL)
        _, said = process.communicate(timeout=20)
        statuses.add(process.returncode)
        assert process.returncode in (0, 125), said
        assert (process.returncode == 125) == said.startswith("pyrun: the warm planner ended"), said
        nothing_left(pyrun, network)
    assert 125 in statuses


def test_a_caller_who_gives_up(pyrun: Pyrun, planner: Planner, network: leftovers.Picture) -> None:
    """Ctrl-C before the command runs: everything is undone, by the planner and at once."""
    for half_ms in range(0, 24, 3):
        planner.ready()
        process = pyrun.start(*COMMAND[:-1], "sleep", "100", env=WARM)
        time.sleep(half_ms / 2000)  # the moment of the signal
        process.send_signal(signal.SIGINT)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:  # it was running: sleep as process 1 does not heed it
            pyrun.ok("rm", "-f", "victim")
            process.wait(10)
        emptied(lambda: list(pyrun.runroot.glob("containers/*")))
        nothing_left(pyrun, network)
