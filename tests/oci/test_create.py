"""`create` and its flags."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from oci import terminal
from oci.box import TIMEOUT_S, Box, keyrings
from oci.marks import shows
from waiting import until


@shows("create --bundle")
def test_bundle(box: Box) -> None:
    box.write("sleep", "1000")
    box.ok("create", "--bundle", str(box.bundle), box.id, cwd="/")
    assert box.state()["bundle"] == str(box.bundle)


@shows("create --bundle")
@pytest.mark.parametrize("words", [("-b", "bundle"), ("--bundle=bundle",), ("-b=bundle",)])
def test_bundle_is_relative_to_the_caller(box: Box, words: tuple[str, ...]) -> None:
    if box.runtime.name == "crun" and words[0].startswith("-b="):
        words = ("-bbundle",)  # argp's way to write a short option and its value in one word
    box.write("sleep", "1000")
    box.ok("create", *words, box.id, cwd=box.directory)
    assert box.state()["bundle"] == str(box.bundle)


@shows("create --bundle")
def test_without_bundle_the_current_directory(box: Box) -> None:
    box.write("sleep", "1000")
    box.ok("create", box.id, cwd=box.bundle)
    assert box.state()["bundle"] == str(box.bundle)


@shows("create --bundle", "errors: no bundle")
def test_no_bundle(box: Box) -> None:
    box.fails("create", "--bundle", str(box.directory / "absent"), box.id)
    box.fails("create", "--bundle", str(box.bundle), box.id)  # no config.json in it
    (box.bundle / "config.json").write_text("{")
    box.fails("create", "--bundle", str(box.bundle), box.id)
    box.fails("state", box.id)


@shows("create --pid-file")
def test_pid_file(box: Box) -> None:
    path = box.directory / "pid"
    box.create("sleep", "1000", options=("--pid-file", str(path)))
    assert path.read_text() == str(box.pid)  # a bare number: callers parse it without stripping
    assert Path(f"/proc/{box.pid}").exists()


@shows("create --console-socket", "config: process.terminal")
def test_console_socket(box: Box) -> None:
    box.process["terminal"] = True
    with terminal.Listener(box.directory / "console") as console:
        script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; tty; read line; echo got $line"
        box.create("sh", "-c", script, options=("--console-socket", str(console.path)))
        master = console.receive()
        box.start()
        assert "terminal" in terminal.read_terminal(master, "/dev/")
        os.write(master, b"words\n")
        assert "got words" in terminal.read_terminal(master, "got words")


@shows("create --console-socket")
def test_console_socket_is_needed_with_a_terminal(box: Box) -> None:
    box.process["terminal"] = True
    assert "console" in box.refuses("true")


@shows("create --console-socket", differs={"crun": "ignores it"})
def test_console_socket_without_a_terminal(box: Box) -> None:
    box.write("true")
    with terminal.Listener(box.directory / "console") as console:
        error = box.fails("create", "--console-socket", str(console.path), box.id)
        assert "console" in error


@shows("create --pidfd-socket", "run --pidfd-socket", since={"runc": "1.2", "crun": None})
@pytest.mark.parametrize("verb", ["create", "run"])
def test_pidfd_socket(box: Box, verb: str) -> None:
    """The descriptor that arrives is the container process's: a signal sent through it ends the container."""
    with terminal.Listener(box.directory / "pidfd") as listener:
        options = ("--pidfd-socket", str(listener.path))
        box.write("sleep", "1000")
        words = ("create",) if verb == "create" else ("run", "--detach")
        box.ok(*words, *options, box.id)
        pidfd = listener.receive()
        fdinfo = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
        assert f"Pid:\t{box.pid}\n" in fdinfo
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        box.wait_for("stopped")


@shows("create --no-pivot", "run --no-pivot")
@pytest.mark.parametrize("verb", ["create", "run"])
def test_no_pivot(box: Box, verb: str) -> None:
    """The way in is another, what the container sees is the same: its own root and nothing of the host's."""
    (box.rootfs / "etc/mark").write_text("here")
    script = "cat /etc/mark; ls -d /../run/*; ls -d /proc/1/root/home"
    if verb == "run":
        out = box.sh(f"({script}) 2>&1", options=("--no-pivot",), status=1)
    else:
        box.create("sh", "-c", f"({script}) 2>&1", options=("--no-pivot",))
        box.start()
        box.wait_for("stopped")
        out = box.output()
    assert out.startswith("here")
    assert out.count("No such file") == 2, out


@shows("create --no-new-keyring", "run --no-new-keyring")
@pytest.mark.parametrize("verb", ["create", "run"])
def test_no_new_keyring(box: Box, verb: str) -> None:
    """Without the flag the container has a session keyring of its own; with it, the caller's."""
    box.linux["maskedPaths"] = []

    def new(*options: str) -> set[str]:
        before = keyrings(Path("/proc/keys").read_text())
        if verb == "run":
            return keyrings(box.run("cat", "/proc/keys", options=options)) - before
        box.create("cat", "/proc/keys", options=options)
        box.start()
        box.wait_for("stopped")
        seen = keyrings(box.output())
        box.ok("delete", box.id)
        return seen - before

    assert new()
    # others on this machine make keyrings too, and root sees them all: one quiet moment is enough
    assert any(not new("--no-new-keyring") for _ in range(10))


@shows("create --preserve-fds", "run --preserve-fds")
@pytest.mark.parametrize("verb", ["create", "run"])
def test_preserve_fds(box: Box, verb: str) -> None:
    """Descriptors 3 and 4 of the caller arrive under the same numbers; 5 does not, nor anything else."""
    box.write("sleep", "1000")
    words = ("create",) if verb == "create" else ("run", "--detach")
    opening = ("sh", "-c", 'exec "$@" 3</dev/null 4</dev/zero 5</dev/full', "sh")
    box.ok(*words, "--preserve-fds", "2", box.id, prefix=opening)
    if verb == "create":
        box.start()
    fds = Path(f"/proc/{box.pid}/fd")
    assert sorted(os.listdir(fds)) == ["0", "1", "2", "3", "4"]
    assert [os.readlink(fds / each) for each in "34"] == ["/dev/null", "/dev/zero"]


@shows("create --preserve-fds", "errors: a descriptor to preserve is not open",
       differs={"crun": "ignores it", "runc": "takes descriptors of its own for them"})  # fmt: skip
def test_preserve_fds_that_are_not_open(box: Box) -> None:
    box.write("true")
    box.fails("create", "--preserve-fds", "3", box.id, prefix=("sh", "-c", 'exec "$@" 3<&- 4<&- 5<&-', "sh"))


@shows("descriptors: nothing leaks into the container")
def test_no_descriptor_leaks(box: Box) -> None:
    box.write("sleep", "1000")
    box.ok("run", "-d", box.id, prefix=("sh", "-c", 'exec "$@" 7</ 9</dev/null', "sh"))
    assert sorted(os.listdir(f"/proc/{box.pid}/fd")) == ["0", "1", "2"]


@shows("environment: LISTEN_FDS", differs={"crun": "1.8 hands on LISTEN_PID alone"})
@pytest.mark.parametrize("verb", ["create", "run"])
def test_listen_fds(box: Box, verb: str) -> None:
    """Socket activation: descriptor 3 arrives, and the container's first process is told that it is for it."""
    opening = ("sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3</dev/zero', "sh")
    box.write("sh", "-c", "env; exec sleep 1000")
    words = ("create",) if verb == "create" else ("run", "--detach")
    box.ok(*words, box.id, prefix=opening)
    if verb == "create":
        box.start()
    until(lambda: Path(f"/proc/{box.pid}/comm").read_text() == "sleep\n", "sleep")
    assert os.readlink(f"/proc/{box.pid}/fd/3") == "/dev/zero"
    out = (box.directory / "1.out").read_text().splitlines()
    assert "LISTEN_FDS=1" in out and "LISTEN_PID=1" in out


@shows("environment: NOTIFY_SOCKET")
@pytest.mark.parametrize("verb", ["create", "run"])
def test_notify_socket(box: Box, verb: str) -> None:
    """The container gets a socket of its own; READY=1 sent to it arrives at the caller's, and only then does
    `start` return."""
    path = box.directory / "host-notify"
    box.write("sh", "-c", "echo $NOTIFY_SOCKET; exec sleep 1000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as host:
        host.bind(str(path))
        host.settimeout(TIMEOUT_S)
        environment = os.environ | {"NOTIFY_SOCKET": str(path)}
        out = box.directory / "container.out"
        with open(out, "wb") as stream:
            if verb == "create":
                box.call("create", box.id, env={"NOTIFY_SOCKET": str(path)})
                out = box.directory / "1.out"
                box.background("start", box.id, env=environment)
            else:
                box.background("run", "--detach", box.id, env=environment, stdout=stream)
        until(lambda: out.exists() and out.read_text().endswith("\n"), "the name of the socket")
        inside = out.read_text().strip()
        assert inside.startswith("/")
        assert inside != str(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as container:
            container.sendto(b"READY=1\n", f"/proc/{box.pid}/root{inside}")
        assert b"READY=1" in _receive_all(host, box.started[0])
    assert box.started[0].returncode == 0


@shows("environment: NOTIFY_SOCKET", "run: a NOTIFY_SOCKET nobody listens on")
def test_a_notify_socket_that_is_gone(box: Box) -> None:
    """The container runs and is ready: it is waited for all the same."""
    box.known_to_differ("runc", "goes on without a word")
    box.known_to_differ("crun", "hands the socket itself in")
    box.write("sh", "-c", "echo $NOTIFY_SOCKET; while ! test -e /data/end; do sleep 0.02; done; exit 3")
    environment = os.environ | {"NOTIFY_SOCKET": str(box.directory / "gone")}
    out, err = box.directory / "container.out", box.directory / "container.err"
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        process = box.background("run", box.id, env=environment, stdout=stdout, stderr=stderr)
    until(lambda: out.read_text().endswith("\n"), "the name of the socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as container:
        container.sendto(b"READY=1\n", f"/proc/{box.pid}/root{out.read_text().strip()}")
    until(lambda: "NOTIFY_SOCKET" in err.read_text(), "the notice")
    (box.rootfs / "data/end").touch()
    assert process.wait(TIMEOUT_S) == 3
    box.fails("state", box.id)


def _receive_all(host: socket.socket, sender: subprocess.Popen[bytes]) -> bytes:
    """As a service manager does: what arrives until *sender* ends; descriptors (BARRIER=1) are closed at once."""
    text = b""
    host.settimeout(0.05)
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        ended = sender.poll() is not None  # asked before the look: what it sent last is there by then
        try:
            message, fds, _, _ = socket.recv_fds(host, 4096, 4)
        except TimeoutError:
            if ended:
                return text
            assert time.monotonic() < deadline, f"the sender waits for something after {text!r}"
            continue
        text += message + b"\n"
        for fd in fds:
            os.close(fd)


@shows("create", "errors: the id is taken")
def test_an_id_is_taken_once(box: Box) -> None:
    box.create("sleep", "1000")
    error = box.fails("create", "--bundle", str(box.bundle), box.id)
    assert "exist" in error
    assert box.status == "created"


@shows("create", "errors: invalid id", differs={"crun": "1.8 does not check"})
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a b", "ä", "a\nb"], ids=repr)
def test_invalid_ids(box: Box, name: str) -> None:
    box.write("true")
    box.fails("create", "--bundle", str(box.bundle), "--", name)
    assert not list(box.root.glob("*")) if box.root.exists() else True


@shows("create", "ids: letters, digits, _ + - .")
@pytest.mark.parametrize("name", ["a", "A.b_c-d+e", "0", "x" * 200, "_"])
def test_valid_ids(box: Box, name: str) -> None:
    box.ids.add(name)
    box.write("sleep", "1000")
    box.ok("create", "--bundle", str(box.bundle), name)
    assert '"created"' in box.ok("state", name)


@shows("create", "start", "kill", "delete", "state", "errors: wrong number of words")
@pytest.mark.parametrize(
    "verb", ["create", "start", "kill", "delete", "state", "pause", "resume", "run", "ps"]
)
def test_an_id_is_needed(box: Box, verb: str) -> None:
    box.write("true")
    assert box.call(verb).status != 0
    if verb not in ("kill", "ps", "delete"):
        assert box.call(verb, "one", "two").status != 0
    box.fails("state", "one")
