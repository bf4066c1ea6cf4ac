"""pyrun for an ordinary user: its own user namespace, its own directories, every verb; and what only root can have."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Pyrun
from pyrun.store import state
from unprivileged import COUNT, UserPyrun
from waiting import runs, until

pytestmark = pytest.mark.needs("user_namespaces")


# ── the user namespace ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.needs("newuidmap")
def test_root_inside_is_the_user_outside(tess: UserPyrun) -> None:
    printed = tess.ok(
        "run", "--rm", "busybox", "sh", "-c", "id -u; id -g; id -G; cat /proc/self/uid_map"
    ).split()
    assert printed == ["0", "0", "0", "0", str(tess.user.uid), "1", "1", str(tess.user.first), str(COUNT)]


@pytest.mark.needs("newuidmap")
def test_other_users_are_of_the_ranges(tess: UserPyrun) -> None:
    shared = tess.home / "shared"
    shared.mkdir(0o777)
    shared.chmod(0o777)
    tess.ok("run", "--rm", "-u", "33:34", "-v", f"{shared}:/in", "busybox", "touch", "/in/theirs")
    tess.ok("run", "--rm", "-v", f"{shared}:/in", "busybox", "touch", "/in/ours")
    theirs, ours = (shared / "theirs").stat(), (shared / "ours").stat()
    assert (theirs.st_uid, theirs.st_gid) == (tess.user.first + 32, tess.user.first + 33)
    assert (ours.st_uid, ours.st_gid) == (tess.user.uid, tess.user.uid)


def test_one_id_is_enough_for_root(solo: UserPyrun) -> None:
    assert solo.ok("run", "--rm", "busybox", "sh", "-c", "id -u; cat /proc/self/setgroups").split() == [
        "0",
        "deny",
    ]


@pytest.mark.needs("newuidmap")
@pytest.mark.parametrize(
    ("place", "instead"),
    [("/etc/subgid", "/dev/null"), ("/usr/bin/newgidmap", "/dev/null"), ("/usr/bin/newgidmap", "/bin/false")],
)
def test_ranges_of_one_kind_are_none(tess: UserPyrun, place: str, instead: str) -> None:
    """Without groups to map, or a program that does it, the own id alone is mapped, of both kinds."""
    subprocess.run(["mount", "--bind", instead, place], check=True)
    try:
        printed = tess.ok("run", "--rm", "busybox", "cat", "/proc/self/uid_map", "/proc/self/gid_map").split()
    finally:
        subprocess.run(["umount", place], check=True)
    assert printed == ["0", str(tess.user.uid), "1"] * 2


@contextlib.contextmanager
def in_place_of(tess: UserPyrun, files: dict[str, str]) -> Iterator[None]:
    """These files of the host have other contents for a while."""
    try:
        for place, content in files.items():
            other = tess.home / place.rpartition("/")[2]
            other.write_text(content)
            other.chmod(0o755)
            subprocess.run(["mount", "--bind", other, place], check=True)
        yield
    finally:
        for place in files:
            subprocess.run(["umount", "-q", place], check=False)


@pytest.mark.needs("newuidmap")
def test_a_user_behind_thousands_of_others_has_his_ranges(tess: UserPyrun) -> None:
    others = "".join([f"student{number}:{number * 65536}:65536\n" for number in range(20_000, 24_000)])
    places = ("/etc/subuid", "/etc/subgid", "/etc/passwd")
    with in_place_of(tess, {place: others + Path(place).read_text() for place in places}):
        printed = tess.ok("run", "--rm", "busybox", "cat", "/proc/self/uid_map", "/proc/self/gid_map").split()
    assert printed == ["0", str(tess.user.uid), "1", "1", str(tess.user.first), str(COUNT)] * 2


@pytest.mark.needs("newuidmap")
def test_a_user_of_a_directory_service_has_his_ranges_by_the_name_he_says(tess: UserPyrun) -> None:
    """newuidmap asks the service; here is none, so its words are noted, and the own id is mapped alone."""
    passwd = re.sub("^tess:.*\n", "", Path("/etc/passwd").read_text(), flags=re.M)
    asked = f'#!/bin/sh\necho "$@" > {tess.home}/asked\nexit 1\n'
    with in_place_of(tess, {"/etc/passwd": passwd, "/usr/bin/newuidmap": asked}):
        tess.ok("ps", env={"USER": "tess"})
    words = (tess.home / "asked").read_text().split()
    assert words[1:] == ["0", str(tess.user.uid), "1", "1", str(tess.user.first), str(COUNT)]


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_user_there_is_no_id_for(solo: UserPyrun, verb: str) -> None:
    solo.ok("run", "-d", "--name", "box", "busybox", "sleep", "100")
    words = ("run", "--rm", "-u", "33", "busybox") if verb == "run" else ("exec", "-u", "33", "box")
    error = solo.fails(125, *words, "true")
    assert "the uid 33 is none of those this user may use" in error
    assert "/etc/subuid" in error and "uidmap" in error and "pkill pyrun-pause" in error


def test_all_commands_share_the_namespaces(solo: UserPyrun) -> None:
    solo.ok("ps")
    pid = solo.pause_pid()
    assert Path(f"/proc/{pid}/comm").read_text() == "pyrun-pause\n"
    assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == b"pyrun-pause"
    solo.ok("run", "-d", "--name", "box", "busybox", "sleep", "100")
    assert solo.pause_pid() == pid
    box = solo.state("box")["pid"]
    assert os.readlink(f"/proc/{box}/ns/user") == os.readlink(f"/proc/{pid}/ns/user")
    assert os.readlink(f"/proc/{box}/ns/user") != os.readlink("/proc/self/ns/user")


def test_the_pause_process_holds_nothing_open(solo: UserPyrun) -> None:
    solo.ok("ps")
    assert os.listdir(f"/proc/{solo.pause_pid()}/fd") == []
    assert os.readlink(f"/proc/{solo.pause_pid()}/cwd") == "/"


def test_a_pause_process_that_is_gone_is_made_anew(solo: UserPyrun) -> None:
    solo.ok("ps")
    first = solo.pause_pid()
    os.kill(first, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{first}").exists(), "its end")
    assert solo.ok("run", "--rm", "busybox", "echo", "again") == "again"
    assert solo.pause_pid() != first


def test_a_pause_process_that_is_gone_while_a_container_lives(solo: UserPyrun) -> None:
    """The next one is in the same namespaces: else nobody could ever stop the container."""
    solo.ok("run", "-d", "--name", "box", "busybox", "sleep", "100")
    first, namespace = solo.pause_pid(), os.readlink(f"/proc/{solo.pause_pid()}/ns/user")
    os.kill(first, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{first}").exists(), "its end")
    assert solo.ok("exec", "box", "echo", "here") == "here"
    assert solo.pause_pid() != first
    assert os.readlink(f"/proc/{solo.pause_pid()}/ns/user") == namespace
    solo.ok("rm", "-f", "box")


def test_many_first_commands_at_once(solo: UserPyrun) -> None:
    started = [
        solo.start("run", "--rm", "--net=none", "busybox", "readlink", "/proc/self/ns/user") for _ in range(5)
    ]
    printed = {process.communicate(timeout=60)[0] for process in started}
    assert len(printed) == 1 and printed.pop().startswith("user:[")


def test_directories_are_the_users_own(solo: UserPyrun) -> None:
    solo.ok("run", "-d", "--name", "box", "busybox", "sleep", "100")
    for path in (solo.root / "containers", solo.runroot / "containers"):
        assert path.stat().st_uid == solo.user.uid
    assert solo.runroot.stat().st_mode & 0o777 == 0o700
    assert not Path("/run/netns/box").exists()


def test_a_run_directory_of_somebody_else_is_refused(solo: UserPyrun) -> None:
    """In /tmp another user may have been quicker."""
    theirs = solo.home / "theirs"
    theirs.mkdir(0o777)
    os.chown(theirs, 1, 1)
    error = solo.fails(125, "ps", env={"PYRUN_RUNROOT": str(theirs)})
    assert error.startswith(f"pyrun: cannot use the directory {theirs}: Operation not permitted\nhint: ")


def test_somebody_elses_runtime_directory_is_not_taken(solo: UserPyrun) -> None:
    """XDG_RUNTIME_DIR after su: the user's own, or one in /tmp, serves instead."""
    info = json.loads(solo.ok("info", "--format", "json", env={"XDG_RUNTIME_DIR": "/root"}))
    assert info["run"] == f"/tmp/pyrun-{solo.user.uid}"
    pause = Path(info["run"], "pause")
    os.kill(int(pause.read_text().split()[0]), signal.SIGTERM)
    subprocess.run(["rm", "-r", info["run"]], check=True)


def test_a_squatted_name_in_tmp_locks_nobody_out(solo: UserPyrun) -> None:
    """Without a session the run directory is in /tmp, where somebody else may have been quicker."""
    squatted = Path(f"/tmp/pyrun-{solo.user.uid}")
    without = {"XDG_RUNTIME_DIR": ""}
    squatted.mkdir(0o777)
    os.chown(squatted, 1, 1)
    own = ""
    try:
        ident = solo.ok("run", "-d", "--name", "web", "--net=none", "busybox", "sleep", "1000", env=without)
        own = json.loads(solo.ok("info", "--format", "json", env=without))["run"]
        status = Path(own).stat()
        assert own.startswith(f"{squatted}-") and (status.st_uid, status.st_mode & 0o777) == (
            solo.user.uid,
            0o700,
        )
        assert solo.ok("ps", "-q", env=without) == ident[:12] and not list(squatted.iterdir())
        solo.ok("rm", "-f", "web", env=without)
        end_pause(own)
        assert json.loads(solo.ok("info", "--format", "json", env=without))["run"] == own, (
            "no new one each time"
        )
        end_pause(own)
    finally:
        squatted.rmdir()
        if own:
            subprocess.run(["rm", "-r", own], check=True)


def test_containers_are_found_when_a_session_begins(solo: UserPyrun) -> None:
    """What was started without one is in /tmp; a runtime directory that comes later takes nothing away from it."""
    without = {"XDG_RUNTIME_DIR": ""}
    ident = solo.ok("run", "-d", "--name", "web", "--net=none", "busybox", "sleep", "1000", env=without)
    info = json.loads(solo.ok("info", "--format", "json"))
    assert info["run"] == f"/tmp/pyrun-{solo.user.uid}" and info["containers"]["running"] == 1
    assert solo.ok("ps", "-q") == ident[:12] and "is running" in solo.fails(1, "rm", "web")
    end_pause(info["run"])
    assert solo.ok("ps", "-q") == ident[:12], "its monitor lives"
    solo.ok("rm", "-f", "web")
    end_pause(info["run"])
    assert json.loads(solo.ok("info", "--format", "json"))["run"] == str(solo.runroot), (
        "nobody is there any more"
    )
    subprocess.run(["rm", "-r", info["run"]], check=True)


def end_pause(run: str) -> None:
    pid = int(Path(run, "pause").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    until(lambda: state.start_time(pid) == 0)


def test_a_directory_the_user_cannot_be_in(solo: UserPyrun) -> None:
    closed = solo.home / "closed"
    closed.mkdir(0o700)
    os.chown(closed, 0, 0)
    done = solo("ps", cwd=closed)
    assert done.returncode == 125
    assert done.stderr == f"pyrun: cannot use the current directory {closed}: Permission denied\n"


# ── verbs ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_life_of_a_container(tess: UserPyrun) -> None:
    script = "echo started; trap 'exit 3' TERM; while :; do sleep 0.1; done"
    tess.ok("run", "-d", "--name", "box", "busybox", "sh", "-c", script)
    until(lambda: "started" in tess.ok("logs", "box"), "the trap")
    assert "box" in tess.ok("ps")
    assert tess.ok("exec", "box", "id", "-u") == "0"
    assert tess.ok("exec", "-t", "box", "tty").strip() == "/dev/pts/0"
    assert tess.ok("exec", "box", "cat", "/proc/1/comm") == "sh"
    tess.ok("stop", "box")
    assert "Exited (3)" in tess.ok("ps", "-a")
    tess.ok("rm", "box")
    assert tess.ok("ps", "-a", "-q") == ""
    assert list((tess.root / "containers").iterdir()) == []


def test_exit_status_terminal_and_input(solo: UserPyrun) -> None:
    assert solo("run", "--rm", "--net=none", "busybox", "sh", "-c", "exit 7").returncode == 7
    assert solo.ok("run", "--rm", "--net=none", "-i", "busybox", "cat", input="through") == "through"
    assert "/dev/pts/0" in solo.ok("run", "--rm", "--net=none", "-t", "busybox", "tty")
    assert solo("run", "--rm", "--net=none", "busybox", "/nosuch").returncode == 127


def test_kill_and_forced_removal(solo: UserPyrun) -> None:
    solo.ok("run", "-d", "--name", "box", "busybox", "sleep", "100")
    solo.ok("kill", "box")
    until(lambda: "Exited (137)" in solo.ok("ps", "-a"), "its end", timeout_s=10)
    solo.ok("rm", "box")
    solo.ok("run", "-d", "--name", "box", "busybox", "sleep", "100")
    solo.ok("rm", "-f", "box")


def test_a_monitor_that_was_killed(solo: UserPyrun) -> None:
    """The container runs on, and rm, or the next command after its end, takes everything away."""
    solo.ok("run", "-d", "--name", "box", "busybox", "sleep", "100")
    state = solo.state("box")
    os.kill(int(str(state["monitor_pid"])), signal.SIGKILL)
    assert solo.ok("exec", "box", "echo", "alive") == "alive"
    os.kill(int(str(state["pid"])), signal.SIGKILL)
    until(lambda: not runs(int(str(state["pid"]))), "its end")
    solo.ok("system", "reconcile")
    assert list((solo.runroot / "containers").iterdir()) == []
    solo.ok("rm", "box")


def test_info(tess: UserPyrun) -> None:
    before = json.loads(tess.ok("info", "--format", "json"))
    assert before["rootless"]["uid"] == tess.user.uid
    assert before["rootless"]["uid_map"] == [f"0 {tess.user.uid} 1", f"1 {tess.user.first} {COUNT}"]
    assert before["seal"] == "mount"
    assert before["root"] == str(tess.root) and before["run"] == str(tess.runroot)
    tess.ok("run", "--rm", "--net=none", "busybox", "true")
    assert json.loads(tess.ok("info", "--format", "json"))["rootless"]["overlay"] in ("native", "fuse")


def test_a_bundle(solo: UserPyrun) -> None:
    bundle = solo.home / "bundle"
    (bundle / "rootfs/bin").mkdir(parents=True)
    for name in ("proc", "dev", "sys"):
        (bundle / "rootfs" / name).mkdir()
    subprocess.run(["cp", "/bin/busybox", str(bundle / "rootfs/bin/busybox")], check=True)
    config = {
        "ociVersion": "1.0.2",
        "process": {"args": ["/bin/busybox", "id", "-u"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}]},
    }
    (bundle / "config.json").write_text(json.dumps(config))
    subprocess.run(["chown", "-R", str(solo.user.uid), str(bundle)], check=True)
    assert solo.ok("run", "--bundle", str(bundle)) == "0"


# ── what is adapted ────────────────────────────────────────────────────────────────────────────────


def test_defaults_of_the_file_system(tess: UserPyrun) -> None:
    script = """grep -E ' (/dev|/dev/pts|/sys|/proc|/dev/mqueue) ' /proc/mounts | cut -d' ' -f2,3 | sort
        stat -c %t:%T /dev/null /dev/tty; touch /sys/kernel/x 2>/dev/null || echo refused
        cat /proc/sys/net/ipv4/ping_group_range; ls /proc/acpi | wc -l"""
    printed = tess.ok("run", "--rm", "busybox", "sh", "-c", script).splitlines()
    assert printed[:5] == ["/dev tmpfs", "/dev/mqueue mqueue", "/dev/pts devpts", "/proc proc", "/sys sysfs"]
    assert printed[5:] == ["1:3", "5:0", "refused", f"0\t{COUNT}", "0"]


@pytest.mark.alone
def test_host_network_shows_the_hosts_sys_read_only(tess: UserPyrun) -> None:
    script = """ls /sys/class/net; find /sys -maxdepth 4 -name cgroup.procs | wc -l
        touch /sys/x /sys/fs/cgroup/x; grep -c ' /sys.* rw' /proc/mounts"""
    done = tess("run", "--rm", "--net=host", "busybox", "sh", "-c", script)
    assert done.stdout.split()[:2] == ["eth0", "lo"]
    assert done.stdout.split()[2:] == ["0", "0"]
    assert done.stderr.count("Read-only file system") == 2


def test_privileged_is_root_of_the_namespace_only(solo: UserPyrun) -> None:
    script = """grep CapEff /proc/self/status | cut -f2; mknod /tmp/x b 8 0 || echo refused
        mount -t tmpfs x /mnt && echo mounted"""
    printed = solo.ok("run", "--rm", "--privileged", "busybox", "sh", "-c", script).split()
    assert re.fullmatch("0+1ff[0-9a-f]+", printed[0]) and printed[1:] == ["refused", "mounted"]


def test_volumes_keep_what_the_hosts_mounts_forbid(solo: UserPyrun) -> None:
    """A mount of the host's with nosuid and nodev stays so: the kernel allows nothing else, and that is no error."""
    printed = solo.ok(
        "run", "--rm", "-v", f"{solo.runtime}:/in:ro", "busybox", "grep", " /in ", "/proc/mounts"
    )
    options = printed.split()[3].split(",")
    assert {"ro", "nosuid", "nodev"} <= set(options)


def test_limits_of_the_user_are_the_highest(solo: UserPyrun) -> None:
    hard = subprocess.run(
        ["sh", "-c", "ulimit -Hn"], capture_output=True, text=True, check=True
    ).stdout.strip()
    done = solo(
        "run", "--rm", "--net=none", "--ulimit", f"nofile={int(hard) + 1}", "busybox", "sh", "-c", "ulimit -n"
    )
    assert (done.returncode, done.stdout.strip()) == (0, hard)
    assert done.stderr == f"--ulimit nofile={int(hard) + 1}: this user's own limit is {hard}, which is used\n"
    assert (
        solo.ok("run", "--rm", "--net=none", "--ulimit", "nofile=64", "busybox", "sh", "-c", "ulimit -n")
        == "64"
    )


@pytest.mark.needs("cgroup1")
@pytest.mark.parametrize(
    "option", [("-m", "64m"), ("--cpus", "1"), ("--pids-limit", "10")], ids=lambda each: each[0]
)
def test_a_limit_needs_a_cgroup_of_the_users_own(solo: UserPyrun, option: tuple[str, str]) -> None:
    error = solo.fails(125, "run", "--rm", *option, "busybox", "true")
    assert "needs a cgroup of this user's own, and there is none: the limits of cgroup v1 are root's" in error
    assert "sudo pyrun run" in error


def test_no_cgroup_is_made_without_a_limit(solo: UserPyrun) -> None:
    printed = solo.ok(
        "run", "--rm", "busybox", "sh", "-c", "ls -A /sys/fs/cgroup; touch /sys/fs/cgroup/x 2>&1; true"
    )
    assert printed == "touch: /sys/fs/cgroup/x: Read-only file system"


def test_explain(solo: UserPyrun) -> None:
    """The check commands are those of a user; nothing is touched."""
    solo.ok("ps", "-q")  # the first command makes the namespaces, and notes where the run directory is
    before = sorted(str(path) for path in solo.home.rglob("*"))
    document = json.loads(solo.ok("run", "--dry-run", "--explain=json", "-p", "8080:80", "busybox", "true"))
    rows = {row["kind"]: row for row in document["operations"]}
    assert rows["USER_NETWORK"]["shell"].startswith("pasta --config-net ")
    assert "-t 8080:80" in rows["USER_NETWORK"]["shell"] and "--no-map-gw" in rows["USER_NETWORK"]["shell"]
    assert rows["USER_NETWORK"]["see"] == "nsenter -t $PID -U --preserve-credentials -n ip addr"
    assert "userxattr" in rows["ROOT_OVERLAY"]["shell"]
    assert not any("ip netns" in row["see"] for row in document["operations"])
    assert sorted(str(path) for path in solo.home.rglob("*")) == before


def test_the_explained_checks_work(solo: UserPyrun) -> None:
    solo.ok("run", "-d", "--name", "box", "-p", "8080:80", "busybox", "sleep", "100")
    pid = str(solo.state("box")["pid"])
    words = ("nsenter", "-t", pid, "-U", "--preserve-credentials", "-n", "ip", "-br", "addr")
    assert "198.51.100.2" in solo.run_as(*words).stdout
    assert "overlay" in solo.run_as("findmnt", "-N", pid, "-n", "-o", "FSTYPE", "/").stdout


def test_root_is_not_taken_for_a_user(pyrun: Pyrun) -> None:
    """sudo -E: what the environment says of a user does not change what root is."""
    assert "rootless" not in json.loads(pyrun.ok("info", "--format", "json", env={"PYRUN_ROOTLESS": "12345"}))
