"""ps, logs, info, version and system reconcile, on real containers."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import hostile
from command import Pyrun
from detached import POLITE, begin, kill_monitor, listed
from pyrun.spec.config import OCI_VERSION
from pyrun.store import state
from waiting import until


def test_the_life_of_a_container(pyrun: Pyrun) -> None:
    ident = begin(pyrun, "web", POLITE, "--label", "tier=front")
    assert len(ident) == 64
    assert pyrun.ok("ps", "-q") == ident[:12]
    assert pyrun.ok("ps", "-q", "--no-trunc") == ident
    row = listed(pyrun)["web"]
    assert (row["State"], row["Image"], row["Labels"], row["Networks"]) == (
        "running",
        "busybox",
        "tier=front",
        "none",
    )
    assert row["Status"].startswith("Up ")
    assert pyrun.ok("stop", "web") == "web"
    assert pyrun.ok("ps", "-q") == ""
    assert listed(pyrun)["web"]["Status"].startswith("Exited (3) ")
    assert pyrun.ok("logs", "web").split() == ["ready", "bye"]
    assert pyrun.ok("rm", ident[:12]) == ident[:12]
    assert listed(pyrun) == {}
    assert "no such container: web" in pyrun.fails(1, "logs", "web")
    assert not list((pyrun.root / "containers").iterdir())
    assert not list((pyrun.root / "names").iterdir())


def test_logs_options(pyrun: Pyrun) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.05; done; printf end"
    pyrun.ok("run", "--name", "job", "--net=none", "busybox", "sh", "-c", script)
    done = pyrun("logs", "job")
    assert (done.stdout, done.stderr) == ("out 1\nout 2\nout 3\nend", "err 1\nerr 2\nerr 3\n")
    assert pyrun("logs", "-n", "1", "job").stdout == "end"
    stamp, _, text = pyrun.ok("logs", "-t", "--tail=1", "job").partition(" ")
    assert text == "end" and stamp.startswith("20") and stamp.endswith("Z") and len(stamp) == 30
    assert pyrun("logs", "--since", "10m", "job").stdout == done.stdout
    assert pyrun("logs", "--until", "10m", "job").stdout == ""
    assert "needs a number" in pyrun.fails(125, "logs", "--tail", "few", "job")


def test_logs_follow_until_the_end(pyrun: Pyrun) -> None:
    begin(pyrun, "web")
    follower = pyrun.start("logs", "-f", "web")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "ready\n"
    pyrun.ok("stop", "web")
    assert follower.stdout.read() == "bye\n"
    assert follower.wait(5) == 0


def test_logs_follow_survives_removal(pyrun: Pyrun) -> None:
    begin(pyrun, "web", POLITE, "--rm")
    follower = pyrun.start("logs", "-f", "web")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "ready\n"
    pyrun.ok("stop", "web")
    assert follower.stdout.read() == "bye\n"
    assert follower.wait(5) == 0
    assert listed(pyrun) == {}


def test_a_reader_that_has_seen_enough(pyrun: Pyrun) -> None:
    """As with any other command, `pyrun logs | head -1` ends by SIGPIPE, silently."""
    pyrun.ok("run", "--name", "job", "--net=none", "busybox", "seq", "30000")
    reader = pyrun.start("logs", "job")
    assert reader.stdout is not None and reader.stderr is not None
    assert reader.stdout.readline() == "1\n"
    reader.stdout.close()
    assert reader.wait(5) == -signal.SIGPIPE
    assert reader.stderr.read() == ""


def test_without_its_monitor_a_container_runs_on(pyrun: Pyrun) -> None:
    ident = begin(pyrun, "web", "echo ready; exec sleep 1000")
    kill_monitor(pyrun, "web")
    assert listed(pyrun)["web"]["State"] == "running"
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")  # looks for the dead, must leave it alone
    assert pyrun.ok("system", "reconcile") == "nothing to clean up"
    assert listed(pyrun)["web"]["State"] == "running"
    pyrun.ok("stop", "-t", "0", "web")
    assert listed(pyrun)["web"]["Status"].startswith("Exited (unknown) ")
    assert not (pyrun.runroot / "containers" / ident).exists()
    pyrun.ok("rm", "web")


@pytest.mark.parametrize("how", ["system reconcile", "run", "rm", "stop"])
def test_monitor_and_container_are_dead(pyrun: Pyrun, how: str) -> None:
    ident = begin(pyrun, "web", "echo ready; exec sleep 1000")
    kill_monitor(pyrun, "web")
    os.kill(int(str(pyrun.state("web")["pid"])), signal.SIGKILL)
    until(lambda: listed(pyrun)["web"]["Status"] == "Exited (unknown)")
    if how == "system reconcile":
        assert pyrun.ok("system", "reconcile") == f"container {ident[:12]}: undid what it had left"
        assert pyrun.ok("system", "reconcile") == "nothing to clean up"
    elif how == "run":
        pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    else:
        pyrun.ok(how, "web")
    assert not (pyrun.runroot / "containers" / ident).exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/pyrun/{ident}"))
    assert ("web" in listed(pyrun)) == (how != "rm")


def test_reconcile_removes_leftovers_without_an_owner(pyrun: Pyrun) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    half = pyrun.runroot / "staging" / f"{'ab' * 32}.{gone.pid}"
    half.mkdir()
    (half / "undo").write_text("")
    rebooted = pyrun.root / "containers" / ("cd" * 32)
    rebooted.mkdir()
    (rebooted / "container.json").write_text(json.dumps({"name": "gone", "rm": True}))
    (pyrun.root / "names" / "gone").write_text("cd" * 32 + "\n")
    (pyrun.root / "names" / "lost").write_text("ef" * 32 + f"\n{gone.pid} 1\n")
    kept = pyrun.root / "containers" / ("0f" * 32)
    kept.mkdir()
    (kept / "container.json").write_text(json.dumps({"name": "kept", "rm": False}))
    group = next(path for path in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if path.is_dir())
    (group / "pyrun" / ("12" * 32)).mkdir(parents=True)
    told = pyrun.ok("system", "reconcile").splitlines()
    assert len(told) == 4, told
    assert not half.exists() and not rebooted.exists() and not (group / "pyrun").exists()
    assert kept.exists() and not list((pyrun.root / "names").iterdir())
    assert pyrun.ok("system", "reconcile") == "nothing to clean up"
    assert list(listed(pyrun)) == ["kept"]


def test_reconcile_leaves_what_another_run_directory_has(pyrun: Pyrun, tmp_path: Path) -> None:
    """A container with processes, and a start that has just made its cgroup: neither is known here."""
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    other = {"PYRUN_RUNROOT": str(tmp_path / "run"), "PYRUN_ROOT": str(pyrun.root)}
    ident = pyrun.ok("run", "-d", "--net=none", "busybox", "sleep", "1000", env=other)
    tops = [
        path
        for path in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*"))
        if (path / "pyrun").is_dir()
    ]
    made = [path / "pyrun" / ("34" * 32) for path in tops]
    for path in made:
        path.mkdir()
    claims = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in made]
    for fd in claims:
        fcntl.flock(fd, fcntl.LOCK_EX)
    done = pyrun("system", "reconcile")
    assert (done.returncode, done.stdout) == (0, "nothing to clean up\n")
    assert f"/pyrun/{ident} is left alone: 1 process of no container of {pyrun.runroot}" in done.stderr
    assert done.stderr.count("left alone") == 1 and all(path.is_dir() for path in made)
    assert pyrun.ok("exec", ident, "echo", "alive", env=other) == "alive"
    for fd in claims:
        os.close(fd)
    pyrun.ok("rm", "-f", ident, env=other)
    told = pyrun.ok("system", "reconcile").splitlines()
    assert sorted(told) == sorted(f"cgroup {path}: removed" for path in made)


def test_ambiguous_and_unknown_references(pyrun: Pyrun) -> None:
    for start in ("aa0", "aa1"):
        directory = pyrun.root / "containers" / (start + "0" * 61)
        directory.mkdir(parents=True)
        (directory / "container.json").write_text("{}")
    assert "container 'aa' is ambiguous" in pyrun.fails(1, "rm", "aa")
    assert "no such container: ../names" in pyrun.fails(1, "rm", "../names")
    pyrun.ok("rm", "aa0", "aa1")


def test_info_and_version(pyrun: Pyrun) -> None:
    info = json.loads(pyrun.ok("info", "--format", "json"))
    assert info["namespaces"]["pid"] is True
    assert info["system_calls"] == {"openat2": True, "close_range": True, "mount_setattr": True}
    assert info["cgroup"]["mode"] in ("v1", "v2", "hybrid")
    assert "SYS_ADMIN" in info["capabilities"]["held"]
    assert info["seccomp"]["filter"] is True
    assert info["images"] == 1
    version = json.loads(pyrun.ok("version", "--format=json"))
    assert version["libraries"]["rich"] and version["version"]
    assert f"version: {version['version']}" in pyrun.ok("version")
    assert version["oci_runtime_spec"] == json.loads(oci_features(pyrun))["ociVersionMax"] == OCI_VERSION
    assert "unknown --format" in pyrun.fails(125, "version", "--format=xml")


def oci_features(pyrun: Pyrun) -> str:
    return subprocess.check_output([f"{pyrun.binary}-oci", "features"], text=True)


def test_aliases_and_help(pyrun: Pyrun) -> None:
    ident = begin(pyrun, "web")
    assert pyrun.ok("container", "ls", "-q") == ident[:12]
    assert pyrun.ok("image", "ls").splitlines()[1].split()[:2] == ["busybox", "latest"]
    assert pyrun.ok("container", "kill", "web") == "web"
    assert pyrun.ok("container", "rm", "web") == "web"
    assert pyrun.ok("network", "--help").startswith("Usage:  pyrun network COMMAND")
    assert pyrun.ok("help", "network", "ls") == pyrun.ok("network", "list", "--help")
    assert pyrun.ok("run", "--help").startswith("Usage:  pyrun run ")
    assert "unknown command 'rum'" in pyrun.fails(125, "rum")
    assert "unknown option --frob" in pyrun.fails(125, "ps", "--frob")


def test_a_terminal_gets_a_decorated_table(pyrun: Pyrun) -> None:
    begin(pyrun, "web")
    shown = hostile.on_a_terminal(
        [str(pyrun.binary), "ps"], pyrun.env | {"NO_COLOR": "", "TERM": "xterm-256color"}
    )
    assert "\x1b[" in shown and "web" in shown


def test_a_name_of_a_start_that_was_killed_is_free(pyrun: Pyrun) -> None:
    """Whether it had written the name or not, and while it lives its name is its own."""
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    gone = subprocess.Popen(["true"])
    gone.wait()
    for content in (f"{'ef' * 32}\n{gone.pid} 1\n", ""):
        (pyrun.root / "names" / "lost").write_text(content)
        pyrun.ok("run", "--rm", "--net=none", "--name=lost", "busybox", "true")
    (pyrun.root / "names" / "lost").write_text(f"{'ef' * 32}\n1 {state.start_time(1)}\n")
    assert "being started" in pyrun.fails(125, "run", "--rm", "--net=none", "--name=lost", "busybox", "true")


def test_a_name_of_a_container_that_a_reboot_ended_is_free(pyrun: Pyrun) -> None:
    """With --rm, whose removal nobody came to: so a service that starts with the machine finds its name. Not of one
    that was begun since, which another run directory may know, nor without --rm."""
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    for number, (record, free) in enumerate(
        (({"rm": True, "created": 1.5}, True), ({"rm": True, "created": time.time()}, False),
         ({"rm": False, "created": 1.5}, False))
    ):  # fmt: skip
        ident, name = f"{number}d" * 32, f"lost{number}"
        directory = pyrun.root / "containers" / ident
        directory.mkdir()
        (directory / "container.json").write_text(json.dumps({"id": ident, "name": name, **record}))
        (pyrun.root / "names" / name).write_text(f"{ident}\n")
        done = pyrun("run", "--rm", "--net=none", f"--name={name}", "busybox", "true")
        assert (done.returncode == 0) is free and directory.exists() is not free, done
        assert free or "is in use by container" in done.stderr


def test_a_full_disk_is_no_bug_and_holds_no_name(pyrun: Pyrun) -> None:
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    names = pyrun.root / "names"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "full", str(names)], check=True)
    try:
        (names / "fill").write_bytes(b"x" * 4096)
        told = pyrun.fails(125, "run", "--rm", "--net=none", "--name=web", "busybox", "true")
        assert f"{names}/web: No space left on device\nhint: the file system is full" in told
        assert [path.name for path in names.iterdir()] == ["fill"]
    finally:
        subprocess.run(["umount", str(names)], check=True)


@pytest.mark.parametrize("force", [False, True])
def test_several_remove_one_container_at_once(pyrun: Pyrun, force: bool) -> None:
    for number in range(4):
        begin(pyrun, "web", "mkdir -p /a/b/c/d /e/f/g; touch /a/b/c/x /e/f/y; echo ready; sleep 100")
        if not force:
            pyrun.ok("stop", "-t", "0", "web")
        running = [pyrun.start("rm", *(["-f"] if force else []), "web") for _ in range(6)]
        told = [process.communicate(timeout=30)[1] for process in running]
        statuses = [process.returncode for process in running]
        assert statuses.count(0) == 6 if force else statuses.count(0) >= 1, (number, told)
        assert not any("cannot" in text for text in told), told
        assert all(
            text.startswith("pyrun: no such container: web\n")
            for text, status in zip(told, statuses, strict=True) if status
        ), told  # fmt: skip
        assert not list((pyrun.root / "containers").iterdir()) and not list((pyrun.root / "names").iterdir())


def test_images_by_a_pattern(pyrun: Pyrun) -> None:
    """As a shell's file names: a star does not go beyond a slash; with the tag or without."""
    for pattern, found in (("bus*", 1), ("*sybo?:*", 1), ("busybox:l[a-m]test", 1), ("*:latest", 1), ("*/bus*", 0),
                           ("us*", 0), ("bus*:1", 0)):  # fmt: skip
        assert len(pyrun.ok("images", "-q", pattern).split()) == found, pattern


def test_a_start_with_few_descriptors(pyrun: Pyrun) -> None:
    """The reason is the limit, and its remedy is told."""
    words = ["run", "--rm", "--net=none", "busybox", "true"]
    few = ["sh", "-c", 'ulimit -Sn 10; exec "$@"', "sh", str(pyrun.binary), *words]
    done = subprocess.run(few, env=pyrun.env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        125, "pyrun: the limit of open files is 10, and 32 are needed\nhint: ulimit -Sn 1024\n"
    )  # fmt: skip


def test_a_binary_that_lies_in_the_root_directory(pyrun: Pyrun, tmp_path: Path) -> None:
    """There is no environment above it."""
    (tmp_path / "proc").mkdir()
    shutil.copy(pyrun.binary, tmp_path / "pyrun")
    words = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t proc proc "$1/proc"; exec chroot "$1" /pyrun info',
        "sh",
    ]
    done = subprocess.run([*words, str(tmp_path)], env=pyrun.env, capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert done.stderr.startswith("pyrun: no installation of pyrun below /lib; "), done


def test_verbs_on_several_tell_the_remedy(pyrun: Pyrun) -> None:
    begin(pyrun, "aa")
    assert pyrun.fails(1, "rm", "aa").endswith("hint: stop it first, or use `pyrun rm -f`")
    for verb in ("stop", "kill", "rm"):
        lines = pyrun.fails(1, verb, "nope", "neither").splitlines()
        assert lines == ["pyrun: no such container: nope", "hint: see `pyrun ps -a`",
                         "pyrun: no such container: neither"]  # fmt: skip
    pyrun.ok("stop", "-t", "0", "aa")
    assert pyrun.fails(1, "kill", "aa") == "pyrun: container aa is not running\nhint: see `pyrun ps -a`"


@pytest.mark.parametrize("words", [("ps", "-a"), ("images",), ("run", "--dry-run", "--net=none", "busybox", "true"),
                                   ("info",), ("ps", "--help")], ids=" ".join)  # fmt: skip
def test_no_room_for_what_is_printed(pyrun: Pyrun, words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(pyrun.binary), *words], env=pyrun.env, stdout=full, stderr=subprocess.PIPE,
                              text=True, check=False, timeout=30)  # fmt: skip
    assert done.stderr == "pyrun: cannot write to standard output: No space left on device\n"
    assert done.returncode == (125 if words[0] == "run" else 1)


def test_a_store_that_is_no_directory(pyrun: Pyrun) -> None:
    env = {"PYRUN_ROOT": "/etc/passwd"}
    told = pyrun.fails(125, "run", "-q", "--rm", "--net=none", "busybox", "true", env=env)
    assert "Not a directory\nhint: PYRUN_ROOT is /etc/passwd: " in told
    for name in ("PYRUN_ROOT", "PYRUN_RUNROOT"):
        told = pyrun.fails(125, "ps", env={name: "relative/place"})
        assert told.startswith(f"pyrun: {name} is no absolute path: 'relative/place'\nhint: ")
        told = pyrun.fails(125, "ps", env={name: "/tmp/a\nb"})  # what an undo list would make /tmp/a of
        assert told.startswith(f"pyrun: {name} holds a tab or a line break: '/tmp/a\\nb'\nhint: ")
    assert pyrun.ok("ps", "-q", env={"PYRUN_RUNROOT": ""}) == "", "empty is not set"


def test_help_tells_what_detaching_prints(pyrun: Pyrun) -> None:
    assert "print the container's id" in pyrun.ok("run", "--help")
    begin(pyrun, "web")
    assert (
        pyrun.ok("exec", "-d", "web", "echo", "lost") == "" and "id" not in pyrun.ok("exec", "--help").split()
    )
