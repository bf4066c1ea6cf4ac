"""`pyrun exec`: one more process in a container that runs, no more privileged than the first."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Pyrun
from hostile_oci import Oci
from system.test_oci_cli import ENDING

SPAWN = ["run", "-d", "--network=none", "--name", "box"]


@pytest.fixture
def box(pyrun: Pyrun) -> Iterator[str]:
    pyrun.ok(*SPAWN, "-e", "GIVEN=run", "-w", "/tmp", "busybox", "sleep", "600")
    yield "box"
    pyrun("rm", "-f", "box")


def inside(pyrun: Pyrun, script: str, *options: str) -> str:
    return pyrun.ok("exec", *options, "box", "sh", "-c", script)


def first(pyrun: Pyrun) -> int:
    return int(str(pyrun.state("box")["pid"]))


def test_environment(pyrun: Pyrun, box: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("FILE=1\nGIVEN=file\n")
    (host,) = (line for line in inside(pyrun, "env").splitlines() if line.startswith("HOSTNAME="))
    options = ["-e", "GIVEN=exec", "--env-file", str(tmp_path / "env"), "-e", "HERE"]
    seen = pyrun.ok("exec", *options, "box", "env", env={"HERE": "yes"})
    assert set(seen.splitlines()) == {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", host, "HOME=/root",
        "GIVEN=exec", "FILE=1", "HERE=yes",
    }  # fmt: skip
    assert inside(pyrun, "echo $GIVEN") == "run"
    assert inside(pyrun, "echo ${GIVEN-none}", "-e", "GIVEN") == "none"


def test_working_directory(pyrun: Pyrun, box: str) -> None:
    assert (inside(pyrun, "pwd"), inside(pyrun, "pwd", "-w", "/etc")) == ("/tmp", "/etc")
    failed = pyrun.fails(126, "exec", "-w", "/nosuch", "box", "pwd")
    assert "/nosuch" in failed and "hint: name a directory that the container has" in failed
    assert "not an absolute path" in pyrun.fails(125, "exec", "-w", "etc", "box", "pwd")


@pytest.mark.parametrize(
    ("user", "seen"),
    [
        ("1000:7", "1000 7 7 /"),
        ("nobody", "65534 65534 65534 /nonexistent"),
        ("0", "0 0 0 /root"),
    ],
)
def test_user(pyrun: Pyrun, box: str, user: str, seen: str) -> None:
    assert inside(pyrun, "echo $(id -u) $(id -g) $(id -G) $HOME", "-u", user) == seen
    sets = inside(pyrun, "grep -E '(CapInh|CapEff|CapBnd)' /proc/self/status", "-u", user).split()[1::2]
    assert sets == ["0" * 16, "0" * 16 if user != "0" else "00000000a80425fb", "00000000a80425fb"]


def test_a_home_that_was_given_is_every_users(pyrun: Pyrun) -> None:
    """By run -e, or as well by the image; an empty one is none, as to runc."""
    pyrun.ok(*SPAWN, "-e", "HOME=/srv", "busybox", "sleep", "600")
    assert inside(pyrun, "echo $HOME") == inside(pyrun, "echo $HOME", "-u", "nobody") == "/srv"
    assert inside(pyrun, "echo $HOME", "-u", "nobody", "-e", "HOME=/x") == "/x"
    pyrun.ok("rm", "-f", "box")
    pyrun.ok(*SPAWN, "-e", "HOME=", "busybox", "sleep", "600")
    assert inside(pyrun, "echo $HOME") == "/root"
    assert inside(pyrun, "echo $HOME", "-u", "nobody") == "/nonexistent"


def test_a_user_of_the_containers_own_passwd(pyrun: Pyrun, box: str) -> None:
    inside(pyrun, "echo 'new:x:4242:4343::/home/new:/bin/sh' >> /etc/passwd")
    assert inside(pyrun, "echo $(id -u) $(id -g) $HOME", "-u", "new") == "4242 4343 /home/new"
    assert "no user 'who'" in pyrun.fails(126, "exec", "-u", "who", "box", "id")


def test_passwd_cannot_lead_out_of_the_container(pyrun: Pyrun, box: str, tmp_path: Path) -> None:
    secret = tmp_path / "passwd"
    secret.write_text("outside:x:7777:7777::/:/bin/sh\n")
    inside(pyrun, f"ln -sf /proc/1/root/..{secret} /etc/passwd; mkdir -p {tmp_path}")
    assert "no user 'outside'" in pyrun.fails(126, "exec", "-u", "outside", "box", "id")


def test_a_hostile_passwd_cannot_smuggle_operations(pyrun: Pyrun, box: str, tmp_path: Path) -> None:
    """A NUL ends a string of init's plan: what follows must not be read as the next operation."""
    inside(pyrun, "printf 'evil:x:0:0::/\\0001\\0:/bin/sh\\n' >> /etc/passwd")
    assert "NUL" in pyrun.fails(125, "exec", "-u", "evil", "box", "id")
    (tmp_path / "env").write_bytes(b"A=b\0c\n")
    assert "NUL" in pyrun.fails(125, "exec", "--env-file", str(tmp_path / "env"), "box", "id")
    assert "NUL" in pyrun.fails(
        125, "run", "--net=none", "--env-file", str(tmp_path / "env"), "busybox", "id"
    )
    assert inside(pyrun, "echo alive") == "alive"


def test_bytes_that_are_no_utf_8(pyrun: Pyrun, tmp_path: Path) -> None:
    """Variables, words, volumes and labels of a caller with another locale reach the container, and so does `exec`."""
    word = os.fsdecode(b"a\xe9b")
    (tmp_path / word).mkdir()
    options = ("-e", f"WORD={word}", "-l", f"word={word}", "-v", f"{tmp_path}/{word}:/data")
    pyrun.ok(
        "run", "-d", "--name", "latin", "--net=none", *options, "busybox", "sh", "-c", f"sleep 1000; : {word}"
    )
    assert pyrun.ok("exec", "latin", "sh", "-c", f'[ "$WORD" = {word} ] && ls -d /data') == "/data"


def test_exit_status(pyrun: Pyrun, box: str) -> None:
    for script, status in (("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)):
        assert pyrun("exec", "box", "sh", "-c", script).returncode == status, script
    assert "no such command" in pyrun.fails(127, "exec", "box", "nosuch")
    assert "not executable" in pyrun.fails(126, "exec", "box", "/etc")
    assert "no such container: nobox" in pyrun.fails(1, "exec", "nobox", "true")
    assert inside(pyrun, "set -- /proc/[0-9]*; echo $#") == "2"  # it and the first process: none was left


def test_input_and_output(pyrun: Pyrun, box: str) -> None:
    done = pyrun("exec", "-i", "box", "sh", "-c", "cat; echo err >&2", input="abc")
    assert (done.stdout, done.stderr) == ("abc", "err\n")
    assert pyrun.ok("exec", "box", "sh", "-c", "readlink /proc/self/fd/0; cat", input="abc") == "/dev/null"
    much = pyrun("exec", "box", "sh", "-c", "seq 1 500000 | tee /tmp/copy; md5sum < /tmp/copy >&2")
    assert much.stdout == "".join(f"{number}\n" for number in range(1, 500001))


def test_output_is_not_in_the_log(pyrun: Pyrun, box: str) -> None:
    inside(pyrun, "echo to exec; echo to the log > /proc/1/fd/1")
    assert pyrun.ok("logs", "box") == "to the log"


def test_detached(pyrun: Pyrun, box: str) -> None:
    assert pyrun.ok("exec", "-d", "box", "sh", "-c", "sleep 0.1; echo $$ > /tmp/made", timeout=5) == ""
    assert inside(pyrun, "while ! test -s /tmp/made; do sleep 0.02; done; echo there") == "there"
    assert "no such command" in pyrun.fails(127, "exec", "-d", "box", "nosuch")


def test_namespaces_and_cgroups_are_the_containers(pyrun: Pyrun, box: str) -> None:
    kinds = ("mnt", "pid", "uts", "ipc", "net", "cgroup")
    seen = inside(pyrun, f"for i in {' '.join(kinds)}; do readlink /proc/self/ns/$i; done").split()
    assert seen == [str(Path(f"/proc/{first(pyrun)}/ns/{kind}").readlink()) for kind in kinds]
    process = pyrun.start("exec", "-i", "box", "sh", "-c", "echo ready; cat")
    assert process.stdout and process.stdout.readline() == "ready\n"
    # the monitor's only child
    ours = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().strip()
    mine, firsts = (Path(f"/proc/{pid}/cgroup").read_text() for pid in (ours, first(pyrun)))
    assert mine == firsts and "/pyrun/" in mine
    process.communicate("", timeout=10)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--cap-drop", "ALL"],
        ["--cap-add", "NET_ADMIN", "-u", "5:6", "--group-add", "9"],
        ["--security-opt", "no-new-privileges", "--ulimit", "nofile=77:99"],
        ["--security-opt", "seccomp=unconfined"],
        ["--privileged"],
    ],
)
def test_restrictions_are_the_containers(pyrun: Pyrun, options: list[str]) -> None:
    names = "Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask"
    script = f"grep -E '^({names})' /proc/self/status; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj"
    pyrun.ok(*SPAWN, *options, "busybox", "sh", "-c", f"{script}; exec sleep 600")
    seen = inside(pyrun, script)
    assert pyrun.ok("logs", "box") == seen and len(seen.splitlines()) >= 13


def test_added_groups_are_the_containers_whoever_it_is(pyrun: Pyrun) -> None:
    pyrun.ok(*SPAWN, "--group-add", "44", "--group-add", "daemon", "busybox", "sleep", "600")
    for user, groups in (("1000", "0 1 44"), ("1000:7", "1 7 44"), ("www-data", "1 33 44")):
        found = pyrun.ok("exec", "-u", user, "box", "id", "-G").split()
        assert sorted(found, key=int) == groups.split(), user


def test_seccomp_is_enforced(pyrun: Pyrun, box: str) -> None:
    assert "not permitted" in pyrun("exec", "box", "unshare", "-U", "true").stderr


def test_privileged(pyrun: Pyrun, box: str) -> None:
    script = "grep -E '^(CapEff|CapBnd|Seccomp:)' /proc/self/status | cut -f2"
    here = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")
    )
    assert inside(pyrun, script, "--privileged").split() == [here.split()[1], here.split()[1], "0"]
    assert inside(pyrun, script).split() == ["00000000a80425fb", "00000000a80425fb", "2"]


def test_a_stopped_container(pyrun: Pyrun, box: str) -> None:
    pyrun.ok("stop", "-t", "0", "box")
    assert "container box is not running" in pyrun.fails(1, "exec", "box", "true")


def test_a_container_that_ends_meanwhile(pyrun: Pyrun, box: str) -> None:
    """After `exec` has found it alive, and before it is in."""
    line = [sys.executable, "-c", ENDING, f"pid={first(pyrun)}", "pyrun", "box"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=30, env=pyrun.env)
    assert (done.stdout, done.stderr) == ("1 container box is not running\n", "")


def test_a_torn_state(pyrun: Pyrun, box: str) -> None:
    identifier = (pyrun.root / "names/box").read_text().splitlines()[0]
    path = pyrun.runroot / "containers" / identifier / "state.json"
    whole = path.read_text()
    path.write_text(whole[:8])
    assert "container box has lost its state.json" in pyrun.fails(1, "exec", "box", "true")
    path.write_text(whole)
    assert inside(pyrun, "echo alive") == "alive"


def test_home_in_a_container_of_a_bundle(pyrun: Pyrun, static_binary: Path, tmp_path: Path) -> None:
    """Its config.json says nothing of it; the container's passwd does."""
    oci = Oci(static_binary.with_name("pyrun-oci"), tmp_path)
    (oci.rootfs / "etc/passwd").write_text("root:x:0:0::/data:/bin/sh\n")
    oci.write()
    pyrun.ok("run", "-d", "--name", "box", "--bundle", str(oci.bundle))
    assert inside(pyrun, "echo $HOME") == "/data"
    assert inside(pyrun, "echo $HOME", "-u", "77") == "/"
    pyrun.ok("rm", "-f", "box")


def test_a_bundle_that_has_changed_since(pyrun: Pyrun, static_binary: Path, tmp_path: Path) -> None:
    """What the container was started from counts: without its pid namespace the process would be among the host's."""
    oci = Oci(static_binary.with_name("pyrun-oci"), tmp_path)
    oci.write()
    pyrun.ok("run", "-d", "--name", "box", "--bundle", str(oci.bundle))
    before = inside(pyrun, "readlink /proc/self/ns/pid; id")
    spaces = oci.config["linux"]["namespaces"]
    oci.config["linux"]["namespaces"] = [each for each in spaces if each["type"] != "pid"]
    oci.config["process"]["user"] = {"uid": 7, "gid": 7}
    oci.write()
    assert inside(pyrun, "readlink /proc/self/ns/pid; id") == before
    (oci.bundle / "config.json").unlink()
    assert inside(pyrun, "readlink /proc/self/ns/pid; id") == before
    (pyrun.runroot / "containers/box/config.json").unlink()
    assert "container box has lost its config.json" in pyrun.fails(1, "exec", "box", "true")
    pyrun.ok("rm", "-f", "box")


def test_in_a_container_of_a_bundle_that_names_no_cgroup(
    pyrun: Pyrun, static_binary: Path, tmp_path: Path
) -> None:
    oci = Oci(static_binary.with_name("pyrun-oci"), tmp_path)
    oci.config["linux"].pop("cgroupsPath", None)
    oci.write()
    pyrun.ok("run", "-d", "--name", "box", "--bundle", str(oci.bundle))
    pyrun.ok("exec", "-d", "box", "sleep", "500")
    there = [path.read_text().split() for path in Path("/sys/fs/cgroup").glob("**/pyrun-box/cgroup.procs")]
    assert there and all(len(each) == 2 for each in there), there
    pyrun.ok("rm", "-f", "box")


@pytest.mark.parametrize("output", ["/dev/full", "| head -1"])
def test_who_writes_for_a_caller_who_is_gone_is_not_inside(pyrun: Pyrun, box: str, output: str) -> None:
    """The monitor goes on as a child of itself; it has the host's rights and must not be born in the container."""
    words = f"{pyrun.binary} exec box sh -c 'while :; do echo y; sleep 0.02; done'"
    shell = f"{words} >{output}" if output[0] == "/" else f"{words} {output}"
    subprocess.run(["sh", "-c", shell], env=pyrun.env, capture_output=True, timeout=30, check=False)
    assert "while :" in inside(pyrun, "ps -o args"), "the command runs on"
    assert "pyrun" not in inside(pyrun, "ps -o args")


def test_a_reader_that_has_seen_enough(pyrun: Pyrun, box: str) -> None:
    """As Docker's client: `exec ... | head -1` ends by SIGPIPE, silently."""
    line = f"{pyrun.binary} exec box yes | head -1; echo ${{PIPESTATUS[*]}}"
    done = subprocess.run(
        ["bash", "-c", line], env=pyrun.env, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.stdout, done.stderr) == ("y\n141 0\n", "")


def test_a_container_without_proc(pyrun: Pyrun) -> None:
    pyrun.ok(*SPAWN, "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "busybox", "sh", "-c",
             "umount -l /proc; echo ready; exec sleep 600")  # fmt: skip
    assert inside(pyrun, "until ! test -e /proc/self; do sleep 0.02; done; echo $$").isdigit()
    assert "not executable" in pyrun.fails(126, "exec", "box", "/etc")


def test_twenty_at_once(pyrun: Pyrun, box: str) -> None:
    running = [
        pyrun.start("exec", "box", "sh", "-c", f"echo {number}; exit {number}") for number in range(20)
    ]
    for number, process in enumerate(running):
        output, error = process.communicate(timeout=60)
        assert (process.returncode, output, error) == (number, f"{number}\n", "")
    assert inside(pyrun, "set -- /proc/[0-9]*; echo $#") == "2"


def test_the_container_itself_is_left_as_it_is(pyrun: Pyrun, box: str) -> None:
    def picture() -> list[object]:
        base = Path(f"/proc/{first(pyrun)}")
        fds = {fd.name: str(fd.readlink()) for fd in (base / "fd").iterdir()}
        (directory,) = (pyrun.root / "containers").iterdir()
        files = {name: (directory / name).read_bytes() for name in ("config.json", "container.json", "hosts")}
        return [fds, files, (base / "mountinfo").read_text(), (base / "status").read_text().split("State")[0]]

    before = picture()
    inside(pyrun, "true", "-t", "-u", "5", "-w", "/etc", "--privileged")
    assert picture() == before
    assert inside(pyrun, "ls -1 /dev").split() == inside(pyrun, "ls -1 /dev", "-t").split()


def test_the_end_of_the_container_ends_its_execs(pyrun: Pyrun, box: str) -> None:
    process = pyrun.start("exec", "box", "sh", "-c", "echo ready; sleep 600")
    assert process.stdout and process.stdout.readline() == "ready\n"
    pyrun.ok("kill", "box")
    assert process.wait(10) == 137


def test_exec_forwards_signals(pyrun: Pyrun, box: str) -> None:
    script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.02; done"
    process = pyrun.start("exec", "box", "sh", "-c", script)
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.terminate()
    assert (process.wait(10), process.stdout.read()) == (9, "got it\n")


def test_only_three_descriptors_arrive(pyrun: Pyrun, box: str) -> None:
    with open("/etc/passwd") as one:
        done = subprocess.run([str(pyrun.binary), "exec", "box", "sh", "-c", "ls -l /proc/$$/fd"], env=pyrun.env,
                              pass_fds=(one.fileno(),), capture_output=True, text=True, check=True)  # fmt: skip
    # with "total", and the directory
    assert "passwd" not in done.stdout and len(done.stdout.splitlines()) <= 5
