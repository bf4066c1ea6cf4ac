"""`exec` and its flags."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from pathlib import Path

import pytest

from oci import terminal
from oci.box import PATH, TIMEOUT_S, Box, keyrings
from oci.marks import shows
from oci.runtime import is_hybrid
from waiting import until


@pytest.fixture
def running(box: Box) -> Box:
    """A container that sleeps."""
    box.detach()
    return box


@shows("exec", "exec: exit status")
@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_exit_status(running: Box, status: int) -> None:
    running.exec("sh", "-c", f"exit {status}", status=status)


@shows("exec", "exec: exit status")
def test_exit_status_of_a_signal(running: Box) -> None:
    running.exec("sh", "-c", "kill -KILL $$", status=137)


@shows("exec", "exec: exit status 255 of an error")
def test_exit_status_of_an_error(running: Box) -> None:
    """255 is the runtime's own: a caller tells it from a program's status by the message."""
    done = running.call("exec", running.id, "/bin/absent")
    assert done.status in (255, 127, 1)
    assert "/bin/absent" in done.err


@shows("exec")
def test_it_is_in_the_container(running: Box) -> None:
    inside = running.exec(
        "sh", "-c", "cd /proc/self/ns; for n in pid net mnt; do readlink $n; done; hostname"
    )
    of_init = [os.readlink(f"/proc/{running.pid}/ns/{kind}") for kind in ("pid", "net", "mnt")]
    assert inside.split() == [*of_init, "box"]
    assert running.exec("cat", "/proc/self/cgroup") == running.exec("cat", "/proc/1/cgroup")


@shows("exec", "exec: standard streams")
def test_streams(running: Box) -> None:
    done = running.call(
        "exec", running.id, "sh", "-c", "read line; echo out $line; echo err >&2", input="words\n"
    )
    assert (done.out, done.err) == ("out words\n", "err\n")


@shows("exec", "exec: defaults are the container's process", differs={"crun": "the user only since 1.16"})
def test_defaults_of_the_process(box: Box) -> None:
    """User, environment, directory, capabilities and limits are those of config.json's `process`."""
    process = box.process
    process |= {"user": {"uid": 7, "gid": 8, "additionalGids": [9]}, "env": [PATH, "A=b"], "cwd": "/tmp"}
    # not NOFILE, whose soft limit Go programs raise for themselves: runc 1.1 sometimes hands that on
    box.process["rlimits"] = [{"type": "RLIMIT_FSIZE", "hard": 4000 * 512, "soft": 2000 * 512}]
    box.detach()
    out = box.exec(
        "sh", "-c", "id -u; id -g; id -G; echo $A; pwd; ulimit -f; ulimit -Hf; grep ^Cap /proc/self/status"
    )
    init = "".join(line for line in Path(f"/proc/{box.pid}/status").read_text().splitlines(True)
                   if line.startswith("Cap"))  # fmt: skip
    assert out.splitlines()[:7] == ["7", "8", "8 9", "b", "/tmp", "2000", "4000"]
    assert out.splitlines()[7:] == init.splitlines()


@shows("exec", "exec: HOME", differs={"crun": "/root only"})
@pytest.mark.parametrize(("user", "home"), [("0", "/root"), ("1000", "/data"), ("4242", "/")])
def test_home(running: Box, user: str, home: str) -> None:
    """The container's own passwd file decides, as it does for the first process; no entry: /."""
    assert running.exec("sh", "-c", "echo $HOME", options=("--user", user)) == home
    path = running.directory / "process.json"
    process = {
        "args": ["sh", "-c", "echo $HOME"],
        "cwd": "/",
        "env": [PATH],
        "user": {"uid": int(user), "gid": 0},
    }
    path.write_text(json.dumps(process))
    assert running.ok("exec", "--process", str(path), running.id) == home


@shows("exec", "exec: HOME")
def test_home_that_is_given(running: Box) -> None:
    assert running.exec("/bin/sh", "-c", "echo $HOME", options=("--env", "HOME=/mnt")) == "/mnt"


@shows("exec", "exec: HOME", differs={"crun": "leaves it empty"})
def test_home_that_is_empty(running: Box) -> None:
    """Is none."""
    lines = running.exec("/bin/env", options=("--env", "HOME=")).splitlines()
    assert [line for line in lines if line.startswith("HOME=")] == ["HOME=/root"]


@shows("exec", "exec: HOME is not read outside of the container", differs={"crun": "/root without looking"})
@pytest.mark.parametrize("target", ["{}", "/proc/1/root/..{}", "/proc/self/cwd{}", "../../../../../../..{}"])
def test_home_is_not_the_hosts(running: Box, target: str) -> None:
    """passwd as a link to a file of the host's, which has no such path inside."""
    secret = running.directory / "secret"
    secret.write_text("root:x:0:0::/secret:/bin/sh\n")
    running.exec("ln", "-sf", target.format(secret), "/etc/passwd")
    assert running.exec("/bin/sh", "-c", "echo $HOME") == "/"


@shows("exec", "exec: into a created container")
def test_into_a_created_container(box: Box) -> None:
    box.create("sleep", "1000")
    assert box.exec("hostname") == "box"
    assert box.status == "created"


@shows("exec", "errors: exec into a stopped container")
def test_into_a_stopped_container(box: Box) -> None:
    box.detach("true")
    box.wait_for("stopped")
    box.fails("exec", box.id, "true")


@shows("exec", "errors: exec without a command")
def test_without_a_command(running: Box) -> None:
    running.fails("exec", running.id)


@shows("exec: words after the id are the command's")
def test_words_after_the_id(running: Box) -> None:
    assert running.exec("echo", "-e", "-d", "--cwd", "x") == "-d --cwd x"


@shows("exec: -- before the command", differs={"runc": "newer versions", "crun": "newer versions"})
def test_double_dash(running: Box) -> None:
    assert running.ok("exec", running.id, "--", "echo", "-n", "x") == "x"


@shows("exec --tty", "exec --console-socket")
@pytest.mark.parametrize("flag", ["--tty", "-t"])
def test_tty(running: Box, flag: str) -> None:
    with terminal.Listener(running.directory / "console") as console:
        words = ("exec", "-d", flag, "--console-socket", str(console.path), running.id)
        running.ok(*words, "sh", "-c", "tty; test -t 0 && read line; echo got $line")
        master = console.receive()
        assert "/dev/" in terminal.read_terminal(master, "\n")
        os.write(master, b"words\n")
        assert "got words" in terminal.read_terminal(master, "got words")


@shows("exec --tty")
def test_tty_in_the_foreground(running: Box) -> None:
    master, slave = os.openpty()
    try:
        process = running.background("exec", "-t", running.id, "sh", "-c", "tty; exit 6", stdin=slave, stdout=slave,
                                     stderr=slave, start_new_session=True)  # fmt: skip
        os.close(slave)
        assert "/dev/" in terminal.read_terminal(master, "\n")
        assert process.wait(TIMEOUT_S) == 6
    finally:
        os.close(master)


@shows("exec --process")
@pytest.mark.parametrize("flag", ["--process", "-p"])
def test_process(running: Box, flag: str) -> None:
    """The file is a whole `process`: of config.json's only restrictions are added to it, see below."""
    path = running.directory / "process.json"
    process = {"args": ["sh", "-c", "id -u; pwd; echo $A; umask; grep NoNewPrivs /proc/self/status; ulimit -n"],
               "cwd": "/tmp", "env": [PATH, "A=b"], "user": {"uid": 5, "gid": 6, "umask": 0o77},
               "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 77, "soft": 77}]}  # fmt: skip
    path.write_text(json.dumps(process))
    out = running.ok("exec", flag, str(path), running.id).split()
    assert out[:3] == ["5", "/tmp", "b"]
    assert out[-3:] == ["NoNewPrivs:", "0", "77"]


@shows("exec --process", "exec --process: a pipe")
@pytest.mark.parametrize("kind", ["descriptor", "named", "too long"])
def test_process_of_a_pipe(running: Box, kind: str) -> None:
    """-p <(jq ...): what a shell makes of it is /dev/fd/63."""
    text = json.dumps({"args": ["echo", "piped"], "cwd": "/", "env": [PATH], "user": {"uid": 0, "gid": 0}})
    if kind == "named":
        pipe = running.directory / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_text, args=(text,), daemon=True)
        writer.start()
        assert running.ok("exec", "--process", str(pipe), running.id) == "piped"
        return
    reading_fd, writing_fd = os.pipe()
    data = text.encode() if kind == "descriptor" else b"[" * (5 << 20)

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(writing_fd, "wb") as file:
            file.write(data)

    threading.Thread(target=write, daemon=True).start()
    words = ("exec", "--process", f"/dev/fd/{reading_fd}", running.id)
    if kind == "descriptor":
        assert running.ok(*words, pass_fds=[reading_fd]) == "piped"
    elif running.runtime.name == "pyrun-oci":
        assert "must have at most 4 MiB" in running.fails(*words, pass_fds=[reading_fd])
    os.close(reading_fd)


@shows("exec --process", "exec --process: without capabilities", differs={"crun": "none"})
def test_process_without_capabilities(box: Box) -> None:
    """The container's, and so with the other restrictions the file says nothing of; an empty object is none at all."""
    box.process["oomScoreAdj"] = 77
    box.detach()
    script = "grep ^Cap /proc/self/status; cat /proc/self/oom_score_adj"
    process = {"args": ["sh", "-c", script], "cwd": "/", "env": [PATH], "user": {"uid": 0, "gid": 0}}
    path = box.directory / "process.json"
    path.write_text(json.dumps(process))
    assert box.ok("exec", "--process", str(path), box.id) == box.exec("sh", "-c", script)
    path.write_text(json.dumps(process | {"capabilities": {}}))
    bounding = box.ok("exec", "--process", str(path), box.id).splitlines()[3]
    assert bounding.split() == ["CapBnd:", "0" * 16]


@shows(
    "exec --process",
    "exec --process: scheduler and ioPriority of the container",
    since={"runc": "1.2", "crun": None},
)
def test_process_inherits_scheduling(box: Box) -> None:
    box.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    box.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    box.detach()
    script = "cut -d' ' -f19,41 /proc/self/stat; ionice -p $$"
    process = {"args": ["sh", "-c", script], "cwd": "/", "env": [PATH], "user": {"uid": 0, "gid": 0}}
    path = box.directory / "process.json"
    path.write_text(json.dumps(process))
    assert box.ok("exec", "--process", str(path), box.id).splitlines() == ["7 3", "best-effort: prio 6"]


@shows("exec", "exec: the session keyring is the container's")
@pytest.mark.parametrize("options", [[], ["--no-new-keyring"]])
def test_exec_makes_no_keyring(box: Box, options: list[str]) -> None:
    """None of its own, and with --no-new-keyring it keeps the caller's."""
    box.known_to_differ("crun", "a new one")
    box.linux["maskedPaths"] = []
    box.detach(options=options)

    def new() -> set[str]:
        before = keyrings(Path("/proc/keys").read_text())
        return keyrings(box.exec("cat", "/proc/keys")) - before

    # others on this machine make keyrings too, and root sees them all: one quiet moment is enough
    assert any(not new() for _ in range(10))


@shows("exec --process", "exec --process: user.umask", since={"runc": "1.2"})
def test_process_umask(running: Box) -> None:
    path = running.directory / "process.json"
    process = {
        "args": ["sh", "-c", "umask"],
        "cwd": "/",
        "env": [PATH],
        "user": {"uid": 0, "gid": 0, "umask": 0o77},
    }
    path.write_text(json.dumps(process))
    assert running.ok("exec", "-p", str(path), running.id) == "0077"


@shows("exec --user")
@pytest.mark.parametrize(
    ("words", "ids"), [(("--user", "5"), "5 0"), (("-u", "5:6"), "5 6"), (("--user=5:6",), "5 6")]
)
def test_user(running: Box, words: tuple[str, ...], ids: str) -> None:
    assert running.exec("sh", "-c", "echo $(id -u) $(id -g)", options=words) == ids


@shows("exec --user", "errors: a user that is no number")
@pytest.mark.parametrize("user", ["root", "5:x", "-1", "4294967296", ":"])
def test_user_is_a_number(running: Box, user: str) -> None:
    """Names would have to be looked up in the container's files."""
    if user != "root":
        running.known_to_differ("runc", "parses loosely")
        running.known_to_differ("crun", "parses loosely")
    running.fails("exec", f"--user={user}", running.id, "true")


@shows("exec --additional-gids", since={"crun": None})
@pytest.mark.parametrize("words", [("-g", "7", "-g", "8"), ("--additional-gids", "7", "--additional-gids=8")])
def test_additional_gids(running: Box, words: tuple[str, ...]) -> None:
    assert running.exec("id", "-G", options=words) == "0 7 8"


@shows("exec --cwd")
def test_cwd(running: Box) -> None:
    assert running.exec("pwd", options=("--cwd", "/tmp")) == "/tmp"


@shows("exec --cwd", "errors: a relative cwd", differs={"crun": "takes it"})
def test_cwd_is_absolute(running: Box) -> None:
    running.fails("exec", "--cwd", "bin", running.id, "true")


@shows("exec --env", "errors: a variable without a name or value", differs={"crun": "takes it"})
@pytest.mark.parametrize("text", ["FOO", "=x", ""])
def test_env_is_name_and_value(running: Box, text: str) -> None:
    running.fails("exec", f"--env={text}", running.id, "true")


@shows("exec --env")
@pytest.mark.parametrize("flag", ["--env", "-e"])
def test_env(running: Box, flag: str) -> None:
    assert running.exec("/bin/sh", "-c", "echo $A $B", options=(flag, "A=a=b", flag, "B=c")) == "a=b c"


@shows("exec --env", "exec --env: of a name given twice, once")
def test_env_of_a_name_given_twice(running: Box) -> None:
    """No shell in between, which would put it right."""
    seen = running.exec("/bin/env", options=("-e", "TWICE=1", "-e", "TWICE=2")).split("\n")
    assert [line for line in seen if line.startswith("TWICE")] == ["TWICE=2"]


@shows("exec --env", "exec --env: the last one counts")
def test_env_replaces(box: Box) -> None:
    box.process["env"] = [PATH, "A=old"]
    box.detach()
    assert (
        box.exec("/bin/sh", "-c", "echo $A; /bin/env | /bin/grep -c ^A=", options=("-e", "A=new")) == "new\n1"
    )


@shows("exec --cap")
@pytest.mark.parametrize("flag", ["--cap", "-c"])
def test_cap(running: Box, flag: str) -> None:
    line = running.exec("grep", "CapBnd", "/proc/self/status", options=(flag, "CAP_NET_ADMIN"))
    assert int(line.split()[1], 16) >> 12 & 1
    assert not int(running.exec("grep", "CapBnd", "/proc/self/status").split()[1], 16) >> 12 & 1


@shows("exec --cap", "exec --cap: the ambient set", differs={"crun": "that capability alone"})
@pytest.mark.parametrize(
    ("inheritable", "expected"),
    [("CAP_KILL", ["CAP_KILL"]), ("CAP_KILL CAP_NET_RAW", ["CAP_KILL", "CAP_NET_RAW"])],
)
def test_cap_is_ambient_where_it_may_be(box: Box, inheritable: str, expected: list[str]) -> None:
    """Where the container's process has it inheritable: a user that is not root has no other way to it."""
    sets = {name: ["CAP_KILL"] for name in ("bounding", "effective", "permitted", "ambient")}
    box.process["capabilities"] = {**sets, "inheritable": inheritable.split()}
    box.process["capabilities"]["bounding"] = inheritable.split()
    box.detach()
    shown = box.exec(
        "grep", "CapAmb", "/proc/self/status", options=["--user", "1000:1000", "--cap", "CAP_NET_RAW"]
    )
    assert int(shown.split()[1], 16) == sum(
        1 << {"CAP_KILL": 5, "CAP_NET_RAW": 13}[name] for name in expected
    )


@shows("exec --cap", "exec --cap: unknown names are ignored", differs={"crun": "an error"})
@pytest.mark.parametrize("name", ["BOGUS", "NET_RAW"])
def test_cap_that_is_unknown(running: Box, name: str) -> None:
    """With a warning, as those of config.json."""
    done = running.call("exec", "--cap", name, running.id, "grep", "CapBnd", "/proc/self/status")
    assert done.status == 0
    assert done.out == running.exec("grep", "CapBnd", "/proc/self/status") + "\n"
    assert f"ignoring unknown or unavailable capabilities: [{name}]" in done.err


@shows("exec --detach", "exec --pid-file")
@pytest.mark.parametrize("flag", ["--detach", "-d"])
def test_detach(running: Box, flag: str) -> None:
    path = running.directory / "exec.pid"
    running.ok("exec", flag, "--pid-file", str(path), running.id, "sleep", "999")
    pid = int(path.read_text())
    # runc returns when its init is about to execute the command
    until(lambda: Path(f"/proc/{pid}/cmdline").read_text() == "sleep\x00999\x00", "sleep")
    os.kill(pid, signal.SIGKILL)


@shows("exec --pid-file")
def test_pid_file_in_the_foreground(running: Box) -> None:
    path = running.directory / "exec.pid"
    process = running.background("exec", "--pid-file", str(path), running.id, "sleep", "999")
    until(lambda: path.exists() and path.read_text(), "the pid file")
    pid = int(path.read_text())
    until(lambda: "999" in Path(f"/proc/{pid}/cmdline").read_text(), "sleep")
    os.kill(pid, signal.SIGKILL)
    assert process.wait(TIMEOUT_S) == 137


@shows("exec --pid-file", "errors: a place for the pid that is not there",
       differs={"runc": "may have run by then", "crun": "may have run by then"})  # fmt: skip
@pytest.mark.parametrize("place", ["/nosuch/pid", "/etc/passwd/pid"])
def test_pid_file_that_cannot_be_written(running: Box, place: str) -> None:
    """Then the command is not run: nobody would know of it."""
    running.fails("exec", "--pid-file", place, running.id, "touch", "/tmp/ran")
    running.fails("exec", "--detach", "--pid-file", place, running.id, "touch", "/tmp/ran")
    assert not (running.rootfs / "tmp/ran").exists()


@shows(
    "exec --console-socket",
    "errors: a console socket that is not there",
    differs={"crun": "the command may have run before it fails"},
)
def test_console_socket_that_is_not_there(running: Box) -> None:
    running.fails("exec", "-d", "-t", "--console-socket", "/nosuch/x", running.id, "touch", "/tmp/ran")
    assert not (running.rootfs / "tmp/ran").exists()


@shows("exec --preserve-fds")
def test_preserve_fds(running: Box) -> None:
    path = running.directory / "exec.pid"
    opening = ("sh", "-c", 'exec "$@" 3</dev/null 4</dev/zero 5</dev/full', "sh")
    running.ok(
        "exec",
        "-d",
        "--pid-file",
        str(path),
        "--preserve-fds",
        "2",
        running.id,
        "sleep",
        "999",
        prefix=opening,
    )
    fds = Path(f"/proc/{path.read_text()}/fd")
    assert sorted(os.listdir(fds)) == ["0", "1", "2", "3", "4"]
    assert os.readlink(fds / "4") == "/dev/zero"


@shows("exec", "descriptors: nothing leaks into exec")
def test_no_descriptor_leaks(running: Box) -> None:
    path = running.directory / "exec.pid"
    opening = ("sh", "-c", 'exec "$@" 7</ 9</dev/null', "sh")
    running.ok("exec", "-d", "--pid-file", str(path), running.id, "sleep", "999", prefix=opening)
    until(lambda: "999" in Path(f"/proc/{path.read_text()}/cmdline").read_text(), "sleep")
    assert sorted(os.listdir(f"/proc/{path.read_text()}/fd")) == ["0", "1", "2"]


@shows("exec --pidfd-socket", since={"runc": "1.2", "crun": None})
def test_pidfd_socket(running: Box) -> None:
    with terminal.Listener(running.directory / "pidfd") as listener:
        path = running.directory / "exec.pid"
        options = ("--pidfd-socket", str(listener.path), "--pid-file", str(path))
        running.ok("exec", "-d", *options, running.id, "sleep", "999")
        pidfd = listener.receive()
        assert f"Pid:\t{path.read_text()}\n" in Path(f"/proc/self/fdinfo/{pidfd}").read_text()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert running.status == "running"


@shows("exec --cgroup", differs={"crun": "with cgroup v2 only"})
@pytest.mark.needs("cgroup1")
def test_cgroup_v1(running: Box) -> None:
    sub = running.cgroup("pids") / "sub"
    sub.mkdir()
    out = running.exec("cat", "/proc/self/cgroup", options=("--cgroup", "pids:sub"))
    lines = dict(line.split(":")[1:] for line in out.splitlines())
    assert lines["pids"].endswith(f"{running.id}/sub")
    assert lines["memory"].endswith(running.id)


@shows("exec --cgroup")
@pytest.mark.needs("cgroup2")
def test_cgroup_v2(running: Box) -> None:
    (running.cgroup("pids") / "sub").mkdir()
    out = running.exec("cat", "/proc/self/cgroup", options=("--cgroup", "sub"))
    assert out.endswith("/sub")


@shows("exec --cgroup", "errors: a sub-cgroup that is not there", differs={"crun": "makes it"})
@pytest.mark.parametrize("path", ["absent", "../", "/../x"])
def test_cgroup_must_be_there(running: Box, path: str) -> None:
    running.fails("exec", "--cgroup", path if not is_hybrid() else f"pids:{path}", running.id, "true")


@shows("exec --ignore-paused", since={"crun": None})
def test_ignore_paused(running: Box) -> None:
    """Without the flag it is an error at once; with it, the process waits for `resume`."""
    running.ok("pause", running.id)
    assert "paused" in running.fails("exec", running.id, "true")
    process = running.background("exec", "--ignore-paused", running.id, "sh", "-c", "exit 9")
    with pytest.raises(Exception, match="timed out"):
        process.wait(0.3)
    running.ok("resume", running.id)
    assert process.wait(TIMEOUT_S) == 9


@shows("exec --no-new-privs")
def test_no_new_privs(box: Box) -> None:
    box.process["noNewPrivileges"] = False
    box.detach()
    status = ("grep", "NoNewPrivs", "/proc/self/status")
    assert box.exec(*status).split()[1] == "0"
    assert box.exec(*status, options=("--no-new-privs",)).split()[1] == "1"


@shows("exec --process-label")
@pytest.mark.needs("selinux")
def test_process_label(running: Box) -> None:
    label = "system_u:system_r:container_t:s0:c1,c2"
    out = running.exec("cat", "/proc/self/attr/current", options=("--process-label", label))
    assert out.strip("\0\n") == label


@shows("exec --process-label", absent=True,
       differs={"runc": "ignored without SELinux", "crun": "ignored without SELinux"})  # fmt: skip
@pytest.mark.needs("no_selinux")
def test_process_label_without_selinux(running: Box) -> None:
    """A label that cannot be applied is an error: asked for confinement must not silently be none."""
    running.fails("exec", "--process-label", "system_u:system_r:container_t:s0", running.id, "true")


@shows("exec --apparmor")
@pytest.mark.needs("apparmor")
def test_apparmor(running: Box) -> None:
    out = running.exec("cat", "/proc/self/attr/current", options=("--apparmor", "unconfined"))
    assert out.strip() == "unconfined"


@shows("exec --apparmor", differs={"crun": "ignored without AppArmor"}, absent=True)
@pytest.mark.needs("no_apparmor")
def test_apparmor_without_apparmor(running: Box) -> None:
    running.fails("exec", "--apparmor", "some-profile", running.id, "true")


@shows("exec: orphans of exec stay in the container")
def test_children_outlive_it(running: Box) -> None:
    running.exec("sh", "-c", "sleep 998 </dev/null >/dev/null 2>&1 &")
    assert "998" in running.exec("ps")
