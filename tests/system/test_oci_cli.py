"""pyrun-oci beside the real runc: wrong command lines, log lines, errors, list, features, spec, notify sockets."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bundle
from pyrun.engine.oci import notify_socket
from system.test_hot_path import CHEAP, names
from unit import oci_schema
from waiting import until

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30


class Oci:
    """`oci("state", "x")`: pyrun-oci with a root of its own; `oci.runc(...)`: the same words for the real runc."""

    def __init__(self, program: Path, root: Path) -> None:
        self.program, self.root = program, root
        self.env = {
            key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "XDG_RUNTIME_DIR")
        }

    def __call__(
        self, *words: str, program: str = "", rooted: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        line = [program or str(self.program), *(["--root", str(self.root)] if rooted else []), *words]
        merged = {"env": self.env, "stdin": subprocess.DEVNULL, **options}
        # files, not pipes: a container may keep them
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(line, stdout=out, stderr=err, check=False, timeout=TIMEOUT_S, **merged)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(line, done.returncode, out.read(), err.read())

    def runc(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self(*words, program="runc", **options)

    def bundle(self, directory: Path, *args: str) -> Path:
        """A bundle with a busybox whose command is *args*."""
        (directory / "rootfs/bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", directory / "rootfs/bin/busybox")
        for name in ("sh", "sleep", "true"):
            (directory / f"rootfs/bin/{name}").symlink_to("busybox")
        assert self("spec", "-b", str(directory)).returncode == 0
        config = json.loads((directory / "config.json").read_text())
        config["process"].update(args=list(args), terminal=False)
        (directory / "config.json").write_text(json.dumps(config))
        return directory


@pytest.fixture
def oci(static_binary: Path, tmp_path: Path) -> Iterator[Oci]:
    command = Oci(
        static_binary.with_name("pyrun-oci"), Path("/run") / f"oci-{tmp_path.name[-40:]}-{os.getpid()}"
    )
    yield command
    for identifier in command("list", "-q").stdout.split():
        assert command("delete", "-f", identifier).returncode == 0
    left = [path for path in command.root.iterdir() if path.name[0] != "."] if command.root.exists() else []
    shutil.rmtree(command.root, ignore_errors=True)
    assert not left


def same(text: str) -> str:
    """A text with the moment, the program's path and its name taken out."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[Z+:\d-]*", "MOMENT", text)
    return re.sub(r"(?:/[\w./-]*/)?(?:pyrun-oci|runc)\b", "PROGRAM", text)


WRONG = [
    "create", "create a b", "create --bogus a", "create -it a", "create --bundle", "create ---x", "create a --nonsense",
    "create --preserve-fds=x a", "create -preserve-fds x a", "create --no-pivot=maybe a", "start", "start a b", "state",
    "run", "exec", "kill", "kill a b c", "delete", "delete a b", "list x", "ps", "pause", "pause a b", "resume",
    "update", "events", "events --interval 5 a", "features x", "spec x", "checkpoint", "restore", "--bogus",
    "--bogus list", "--debug=maybe list", "bogus", "bogus --help", "help bogus", "state nosuch", "start nosuch",
    "kill nosuch KILL",
    "delete nosuch", "pause nosuch", "resume nosuch", "events nosuch", "ps nosuch",
    "--log-format xml list", "--log /nosuch/dir/log list", "list --format xml", "state a/b", "state ..",
    "delete --force nosuch", "delete nosuch --force", "list -f", "create -- --bundle x",
]  # fmt: skip


@pytest.mark.needs("runc")
@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_ends_as_runcs(oci: Oci, line: str) -> None:
    oci.root.mkdir(exist_ok=True)
    ours, theirs = oci(*line.split()), oci.runc(*line.split())
    assert ours.returncode == theirs.returncode, ours.stderr
    assert same(ours.stderr) == same(theirs.stderr)
    assert same(ours.stdout.partition("\n")[0]) == same(theirs.stdout.partition("\n")[0])


@pytest.mark.needs("runc")
@pytest.mark.parametrize("words", [["state", "nosuch"], ["exec", "nosuch", "id"]], ids=" ".join)
def test_the_log_with_debug_behind_other_options(oci: Oci, tmp_path: Path, words: list[str]) -> None:
    """The error is told and logged, whatever else is."""
    oci.root.mkdir(exist_ok=True)
    log = tmp_path / "log"
    done, theirs = oci("--log", str(log), "--debug", *words), oci.runc("--debug", *words)
    assert (done.returncode, "container does not exist" in done.stderr) == (theirs.returncode, True)
    assert "Traceback" not in done.stderr
    assert 'container does not exist"' in log.read_text().splitlines()[-1]


@pytest.mark.needs("runc")
@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_is_runcs(oci: Oci, tmp_path: Path, form: str) -> None:
    """One line in the file, and the bare words on standard error."""
    for words in (["state", "nosuch"], ["create"], ["bogus"], ["list", "--format=a b"]):
        oci.root.mkdir(exist_ok=True)
        logs = []
        for call, name in ((oci, "ours"), (oci.runc, "theirs")):
            log = tmp_path / f"{name}-{words[0]}"
            done = call("--log", str(log), "--log-format", form, *words)
            logs.append((done.returncode, same(done.stderr), same(log.read_text()), log.stat().st_mode))
        assert logs[0] == logs[1]


def test_the_log_is_appended_to_and_made_without_an_error_too(oci: Oci, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert oci("--log", str(log), "features").returncode == 0
    assert log.read_text() == ""
    for _ in range(2):
        assert oci("--log", str(log), "--log-format=json", "state", "nosuch").returncode == 1
    assert [json.loads(line)["msg"] for line in log.read_text().splitlines()] == [
        "container does not exist"
    ] * 2


def test_debug_adds_lines_and_the_error_stays_the_last(oci: Oci, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = oci("--debug", "--log", str(log), "--log-format=json", "state", "nosuch")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["level"] for line in lines[:-1]] == ["debug"] * (len(lines) - 1) != []
    assert (lines[-1]["level"], lines[-1]["msg"]) == ("error", "container does not exist")
    assert done.stderr == "container does not exist\n"


def test_debug_tells_true_line_numbers(oci: Oci, tmp_path: Path) -> None:
    """Of the bundle's functions, hot and cold, and of modules that are not in it: the line shown calls the next one."""
    for words in (
        ("state", "nosuch"),
        ("kill", "nosuch"),
        ("create", "-b", "/nowhere", "x"),
        ("update", "nosuch"),
    ):
        check_traceback(oci("--debug", *words).stderr.replace("\\n", "\n").replace('\\"', '"'))
    pyrun = str(oci.program.with_name("pyrun"))
    for words in (("logs", "nosuch"), ("run", "--bundle", "/nowhere"), ("run", "-v", "/nope:/x", "busybox"),
                  ("exec", "nosuch", "true"), ("network", "inspect", "nosuch")):  # fmt: skip
        check_traceback(oci("--debug", *words, program=pyrun, rooted=False).stderr)


def check_traceback(text: str) -> None:
    frames = re.findall(r'  File "([^"]+)", line (\d+), in (\S+)\n    (.*)\n', text)
    assert len(frames) > 1 and len(frames) == text.count("  File "), text
    for file, line, _, shown in frames:
        assert Path(file).read_text().splitlines()[int(line) - 1].strip() == shown, text
    for (*_, shown), (_, _, function, _) in itertools.pairwise(frames):
        assert function in shown or "(" in shown, text
    assert frames[-1][3].startswith("raise "), text


def test_debug_tells_stage_by_stage_what_is_done(oci: Oci, tmp_path: Path) -> None:
    log, bundle = tmp_path / "log", oci.bundle(tmp_path / "bundle", "sleep", "100")
    words = ("run", "--detach", "--pid-file", str(tmp_path / "pid"), "--bundle", str(bundle), "told")
    assert oci("--debug", "--log", str(log), *words).returncode == 0
    text = log.read_text()
    assert f"run told, with --bundle {bundle} --pid-file" in text and "{" not in text
    stages = [f" ms] {stage}: " for stage in ("planned", "cloned", "executing")]
    assert sorted(stages, key=text.index) == stages
    assert text.count(" ms]   init: ") > 20 and "init: mount a proc on /proc" in text
    assert f"init is process {(tmp_path / 'pid').read_text()}" in text
    assert oci("delete", "--force", "told").returncode == 0


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["h"], []])
def test_help_of_the_program(oci: Oci, words: list[str]) -> None:
    done = oci(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "GLOBAL OPTIONS:" in done.stdout
    assert "--cgroup-manager value" in done.stdout


@pytest.mark.parametrize(
    "words", [["create", "--help"], ["create", "a", "-h"], ["help", "create"], ["h", "create"]]
)
def test_help_of_a_command(oci: Oci, words: list[str]) -> None:
    done = oci(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("NAME:\n   pyrun-oci create - ")


def test_the_version_is_what_docker_and_podman_read(oci: Oci) -> None:
    """Docker: a line with `version`, one that begins with `commit:`; podman shows all of it."""
    done = oci("--version")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"pyrun-oci version \d+\.\d+\.\d+", lines[0])
    assert re.fullmatch(r"commit: \S+", lines[1])
    assert lines[2] == "spec: 1.3.0"
    assert oci("-v").stdout == done.stdout


# ── errors that callers look for: the table in cli/oci_words.py, a row a test ──────────────────────


def last_error(oci: Oci, tmp_path: Path, *words: str) -> tuple[int, str]:
    """Status and message, read from the log as containerd reads it."""
    log = tmp_path / "log.json"
    done = oci("--log", str(log), "--log-format", "json", *words)
    errors = [json.loads(line) for line in log.read_text().splitlines()]
    return done.returncode, [each["msg"] for each in errors if each["level"] == "error"][-1]


def test_words_of_a_container_that_is_not_there(oci: Oci, tmp_path: Path) -> None:
    for words in (
        ["state", "x"],
        ["kill", "x", "9"],
        ["start", "x"],
        ["delete", "x"],
        ["pause", "x"],
        ["resume", "x"],
    ):
        assert last_error(oci, tmp_path, *words) == (1, "container does not exist"), words
    status, message = last_error(oci, tmp_path, "exec", "x", "true")
    assert (status, message) == (255, "exec failed: container does not exist")


def test_words_of_a_container_that_has_stopped(oci: Oci, tmp_path: Path) -> None:
    directory = oci.bundle(tmp_path / "b", "sleep", "60")
    assert oci("run", "-d", "-b", str(directory), "x").returncode == 0
    status, message = last_error(oci, tmp_path, "create", "-b", str(directory), "x")
    assert (status, "container with given ID already exists" in message) == (1, True)
    assert last_error(oci, tmp_path, "start", "x") == (1, "cannot start an already running container")
    assert last_error(oci, tmp_path, "delete", "x") == (
        1,
        "cannot delete container x that is not stopped: running",
    )
    assert oci("kill", "x", "KILL").returncode == 0
    until(lambda: json.loads(oci("state", "x").stdout)["status"] == "stopped")
    assert last_error(oci, tmp_path, "kill", "x", "TERM") == (1, "container not running")
    assert last_error(oci, tmp_path, "start", "x") == (1, "cannot start a container that has stopped")
    status, message = last_error(oci, tmp_path, "exec", "x", "true")
    assert (status, message) == (255, "exec failed: cannot exec in a stopped container")
    assert oci("delete", "x").returncode == 0


# Ends the container when `exec` has found it alive, and lets it go on.
ENDING = """
import os, posix, select, signal, sys
from pyrun.engine import entering, exec_, oci
from pyrun.engine.oci import exec_ as oci_exec, delivery
from pyrun.errors import PyrunError
from pyrun.store import state
where, *words = sys.argv[1:]
def end(*_, **__):
    pidfd = posix.pidfd_open(int(where.rpartition("=")[2]))
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    select.select([pidfd], [], [], 10)
entering.note_unit = end
try:
    if words[0] == "oci":
        oci_exec.exec_({"root": words[1]}, words[2], ["true"])
    else:
        exec_.exec_({}, words[1], ["true"])
except PyrunError as error:
    print(error.status, error.message)
"""


def test_words_of_a_container_that_ends_meanwhile(oci: Oci, tmp_path: Path) -> None:
    directory = oci.bundle(tmp_path / "b", "sleep", "60")
    assert oci("run", "-d", "-b", str(directory), "x").returncode == 0
    pid = json.loads(oci("state", "x").stdout)["pid"]
    line = [sys.executable, "-c", ENDING, f"pid={pid}", "oci", str(oci.root), "x"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert (done.stdout, done.stderr) == ("125 cannot exec in a stopped container\n", "")


def test_a_torn_state_does_not_make_exec_run_on_the_host(oci: Oci, tmp_path: Path) -> None:
    """Without a word on namespaces there would be none to enter."""
    directory = oci.bundle(tmp_path / "b", "sleep", "60")
    assert oci("run", "-d", "-b", str(directory), "x").returncode == 0
    (oci.root / "x/state.json").write_text('{"ociVersion": "1.0')
    status, message = last_error(oci, tmp_path, "exec", "x", "/bin/true")
    assert (status, "container x has lost its state.json" in message) == (255, True)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("nosuch", 'exec: "nosuch": executable file not found in $PATH'),
        ("/nosuch", 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        ("/rootfile", 'exec: "/rootfile": permission denied'),
        ("/bin", 'exec: "/bin": is a directory'),
    ],
)
def test_words_of_a_command_that_cannot_be_executed(
    oci: Oci, tmp_path: Path, command: str, words: str
) -> None:
    directory = oci.bundle(tmp_path / "b", command)
    (directory / "rootfs/rootfile").write_text("no program\n")
    for verb in ("create", "run"):
        status, message = last_error(oci, tmp_path, verb, "-b", str(directory), "x")
        assert status == 1
        assert message == f"pyrun-oci {verb} failed: unable to start container process: {words}"
        assert oci("list", "-q").stdout == ""
    assert set_args(directory, "sleep", "60")
    assert oci("run", "-d", "-b", str(directory), "x").returncode == 0
    status, message = last_error(oci, tmp_path, "exec", "x", command)
    assert (status, message) == (255, f"exec failed: unable to start container process: {words}")


def set_args(directory: Path, *args: str) -> bool:
    config = json.loads((directory / "config.json").read_text())
    config["process"]["args"] = list(args)
    return bool((directory / "config.json").write_text(json.dumps(config)))


@pytest.mark.parametrize(
    ("text", "number"), [("TERM", 15), ("SIGUSR1", 10), ("usr2", 12), ("9", 9), ("RTMIN+3", 37)]
)
def test_signals_by_name_and_number(oci: Oci, tmp_path: Path, text: str, number: int) -> None:
    script = f"trap 'echo got >/got' {number}; echo ready >/ready; while :; do sleep 0.05; done"
    directory = oci.bundle(tmp_path / "b", "sh", "-c", script)
    config = json.loads((directory / "config.json").read_text())
    config["root"]["readonly"] = False
    (directory / "config.json").write_text(json.dumps(config))
    assert oci("run", "-d", "-b", str(directory), "x").returncode == 0
    until(lambda: (directory / "rootfs/ready").exists())
    assert oci("kill", "x", text).returncode == 0
    if number == signal.SIGKILL:
        until(lambda: json.loads(oci("state", "x").stdout)["status"] == "stopped")
    else:
        until(lambda: (directory / "rootfs/got").exists())


def test_a_signal_that_does_not_exist(oci: Oci, tmp_path: Path) -> None:
    directory = oci.bundle(tmp_path / "b", "sleep", "60")
    assert oci("run", "-d", "-b", str(directory), "x").returncode == 0
    for text in ("NOSUCH", "65", "-9", "SIG"):
        done = oci("kill", "x", text)
        assert (done.returncode, "signal" in done.stderr) == (1, True), done.stderr
    assert json.loads(oci("state", "x").stdout)["status"] == "running"


# ── list, state, features, spec ────────────────────────────────────────────────────────────────────


def test_list_shows_what_runs_and_what_has_stopped(oci: Oci, tmp_path: Path) -> None:
    assert oci("list").returncode == 1  # a --root that was given has to be there
    assert "no such file or directory" in oci("list").stderr
    directory = oci.bundle(tmp_path / "b", "sleep", "60")
    for identifier in ("one", "two"):
        assert oci("run", "-d", "-b", str(directory), identifier).returncode == 0
    assert oci("kill", "two", "KILL").returncode == 0
    until(lambda: json.loads(oci("state", "two").stdout)["status"] == "stopped")
    (oci.root / "stray").write_text("no container")
    assert oci("list", "-q").stdout == "one\ntwo\n"
    listed = json.loads(oci("list", "-f", "json").stdout)
    states = [json.loads(oci("state", each).stdout) for each in ("one", "two")]
    assert listed == [each | {"owner": "root"} for each in states]
    assert [(each["status"], each["pid"] > 0) for each in listed] == [("running", True), ("stopped", False)]
    lines = oci("list").stdout.splitlines()
    assert lines[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert lines[1].split() == [
        "one",
        str(states[0]["pid"]),
        "running",
        str(directory),
        states[0]["created"],
        "root",
    ]
    assert lines[1].index("running") == lines[0].index("STATUS")
    (oci.root / "stray").unlink()


@pytest.mark.needs("runc")
def test_an_empty_list_is_runcs(oci: Oci) -> None:
    oci.root.mkdir()
    for words in (["list"], ["list", "-q"], ["list", "--format=json"]):
        assert oci(*words).stdout == oci.runc(*words).stdout


def test_the_state_follows_the_official_schema(oci: Oci, tmp_path: Path) -> None:
    directory = oci.bundle(tmp_path / "b", "sleep", "60")
    assert oci("create", "-b", str(directory), "x").returncode == 0
    done = oci("state", "x")
    found = json.loads(done.stdout)
    assert list(oci_schema.errors(found, oci_schema.whole("state-schema.json"))) == []
    assert (found["status"], found["id"], found["bundle"]) == ("created", "x", str(directory))
    assert done.stdout == json.dumps(found, indent=2)


def test_features_are_printed_with_the_schemas_fields(oci: Oci) -> None:
    done = oci("features")
    found = json.loads(done.stdout)
    assert done.stdout == json.dumps(found, indent=4) + "\n"
    assert list(oci_schema.errors(found, oci_schema.whole("features-schema.json"))) == []


@pytest.mark.needs("runc")
def test_features_are_at_least_the_real_runcs(oci: Oci) -> None:
    """But for acl and noacl, which are data of some file systems, and architectures libseccomp does not offer."""
    ours = json.loads(oci("features").stdout)
    theirs = json.loads(
        subprocess.run(["runc", "features"], capture_output=True, text=True, check=True).stdout
    )
    assert set(theirs["hooks"]) <= set(ours["hooks"])
    assert set(theirs["mountOptions"]) - {"acl", "noacl"} <= set(ours["mountOptions"])
    for key in ("namespaces", "capabilities"):
        assert set(theirs["linux"][key]) <= set(ours["linux"][key])
    for key in ("actions", "operators", "archs"):
        assert set(theirs["linux"]["seccomp"][key]) <= set(ours["linux"]["seccomp"][key])


@pytest.mark.needs("runc")
@pytest.mark.parametrize("words", [[], ["--rootless"]])
def test_spec_writes_what_runc_writes(oci: Oci, tmp_path: Path, words: list[str]) -> None:
    found = []
    for call, name in ((oci, "ours"), (oci.runc, "theirs")):
        (tmp_path / name).mkdir()
        assert call("spec", "--bundle", str(tmp_path / name), *words).returncode == 0
        text = (tmp_path / name / "config.json").read_text()
        assert text == json.dumps(json.loads(text), indent="\t")
        found.append(json.loads(text))
    ours, theirs = found
    assert (ours.pop("ociVersion"), ours.pop("hostname")) == ("1.3.0", "pyrun-oci")
    assert theirs.pop("hostname") == "runc"
    del theirs["ociVersion"]
    # gone in 1.5: without inheritable ones it cannot be had
    theirs["process"]["capabilities"].pop("ambient", None)
    assert ours == theirs


@pytest.mark.needs("runc")
def test_spec_does_not_overwrite(oci: Oci, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    ours, theirs = oci("spec", cwd=tmp_path), oci.runc("spec", cwd=tmp_path)
    assert (ours.returncode, same(ours.stderr)) == (theirs.returncode, same(theirs.stderr))
    assert (tmp_path / "config.json").read_text() == "mine"
    ours, theirs = oci("spec", "-b", "/nosuch"), oci.runc("spec", "-b", "/nosuch")
    assert (ours.returncode, same(ours.stderr)) == (theirs.returncode, same(theirs.stderr))


@pytest.mark.parametrize("command", ["checkpoint", "restore"])
def test_what_is_not_there_yet_says_so(oci: Oci, command: str) -> None:
    done = oci(command, "x")
    assert (done.returncode, f"{command} is not implemented" in done.stderr) == (1, True)


def test_a_user_has_a_root_below_the_runtime_directory(oci: Oci, tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    runtime = Path("/run") / f"user-test-{os.getpid()}"
    runtime.mkdir(mode=0o700)
    os.chown(runtime, 65534, 65534)
    try:
        done = oci(
            "list", rooted=False, env=oci.env | {"XDG_RUNTIME_DIR": str(runtime)}, user=65534, group=65534
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert (runtime / "pyrun-oci").stat().st_mode & 0o7777 == 0o1700
    finally:
        shutil.rmtree(runtime)


# ── what is loaded ─────────────────────────────────────────────────────────────────────────────────


def loaded(oci: Oci, *words: str) -> set[str]:
    """The modules a command imports beyond those of an empty program, by -X importtime."""
    (hot,) = oci.program.parent.parent.glob(f"lib/python3.*/site-packages/pyrun/{bundle.file_name()}")
    timed = (sys.executable, "-I", "-S", "-X", "importtime")
    bare = subprocess.run([*timed, "-c", "pass"], capture_output=True, text=True, check=True)
    environment = oci.env | {"PYRUN_COMMAND": "pyrun-oci"}
    program, *rest = [*timed[1:], str(hot), "--root", str(oci.root), *words]
    with tempfile.TemporaryFile("w+") as report:
        subprocess.run([sys.executable, program, *rest], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=report, env=environment, check=True, timeout=TIMEOUT_S)  # fmt: skip
        report.seek(0)
        return names(report.read()) - names(bare.stderr)


def test_hot_commands_import_only_hot_modules(oci: Oci, tmp_path: Path) -> None:
    directory = oci.bundle(tmp_path / "b", "sleep", "60")
    hot = set(bundle.hot_modules(REPOSITORY / "runtime" / "pyrun"))
    exec_ = ["exec", "x", "true"]
    for words in (
        ["create", "-b", str(directory), "x"],
        ["state", "x"],
        ["start", "x"],
        exec_,
        ["kill", "x", "KILL"],
    ):
        assert loaded(oci, *words) - hot - CHEAP == set(), words
    until(lambda: json.loads(oci("state", "x").stdout)["status"] == "stopped")
    assert loaded(oci, "delete", "x") - hot - CHEAP == set()


@pytest.mark.parametrize("verb", ["state", "kill"])
def test_state_and_kill_load_little(verb: str) -> None:
    """Neither a plan nor the checks of a config."""
    found = bundle.ways(REPOSITORY / "runtime" / "pyrun")
    titles = ["every command", "oci", *([] if verb == "state" else [f"oci {verb}"])]
    modules = {name for title in titles for name in found[title]}
    assert f"pyrun.engine.oci.{verb}" in modules
    heavy = re.compile(r"pyrun\.(spec|stages|plan|cgroups|launch)\b.+|pyrun\.launch")
    assert not [name for name in modules if heavy.fullmatch(name)]


# ── NOTIFY_SOCKET ──────────────────────────────────────────────────────────────────────────────────


class Manager:
    """A service manager: what was sent to its socket, and whether it acknowledges."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.received: list[bytes] = []
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            data, fds, _, _ = socket.recv_fds(self.socket, 4096, 4)
            for fd in fds:
                os.close(fd)
            if data == b"END":
                break
            self.received.append(data)

    def close(self, path: Path) -> list[bytes]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"END", str(path))
        self.thread.join(10)
        self.socket.close()
        return self.received


def test_a_container_tells_the_service_manager_that_it_is_ready(tmp_path: Path) -> None:
    host = tmp_path / "host.sock"
    manager = Manager(host)
    notify_socket.make(str(tmp_path))
    mount, variable = notify_socket.additions(str(tmp_path))
    assert (mount["source"], mount["destination"]) == (f"{tmp_path}/notify", "/run/notify")
    assert variable == "NOTIFY_SOCKET=/run/notify/notify.sock"
    listening = notify_socket.listen(str(tmp_path))
    assert listening is not None
    child = subprocess.Popen(["sleep", "60"])
    pidfd = os.pidfd_open(child.pid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as container:
        container.sendto(b"STATUS=warming up", str(tmp_path / "notify/notify.sock"))
        container.sendto(b"STATUS=here\nREADY=1\nMAINPID=1", str(tmp_path / "notify/notify.sock"))
    assert notify_socket.forward(listening, str(host), child.pid, pidfd)
    received = manager.close(host)
    child.kill()
    child.wait(10)
    listening.close()
    os.close(pidfd)
    assert received == [b"READY=1\n", b"MAINPID=%d\n" % child.pid, b"BARRIER=1"]
    assert (tmp_path / "notify/notify.sock").stat().st_mode & 0o777 == 0o777


def test_a_container_that_ends_before_it_is_ready_is_not_waited_for(tmp_path: Path) -> None:
    notify_socket.make(str(tmp_path))
    listening = notify_socket.listen(str(tmp_path))
    assert listening is not None
    child = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(child.pid)
    assert not notify_socket.forward(listening, str(tmp_path / "nobody"), child.pid, pidfd)
    child.wait(10)
    listening.close()
    os.close(pidfd)


def test_a_container_made_without_a_notify_socket_has_none(tmp_path: Path) -> None:
    assert notify_socket.listen(str(tmp_path)) is None
