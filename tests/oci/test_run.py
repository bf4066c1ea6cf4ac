"""`run` and its flags, and the exit status."""

from __future__ import annotations

import os
import signal
import termios
from pathlib import Path

import pytest

from oci import terminal
from oci.box import TIMEOUT_S, Box
from oci.marks import shows
from waiting import until


@shows("run", "run: exit status")
@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_exit_status(box: Box, status: int) -> None:
    box.sh(f"exit {status}", status=status)


@shows("run", "run: exit status")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_exit_status_of_a_signal(box: Box, number: signal.Signals) -> None:
    box.without_namespace("pid")  # pid 1 would have to handle SIGTERM
    box.write("sleep", "1000")
    process = box.background("run", box.id)
    until(lambda: box.call("state", box.id).status == 0 and box.status == "running", "running")
    box.ok("kill", box.id, number.name)
    assert process.wait(TIMEOUT_S) == 128 + number


@shows("run", "run: standard streams")
def test_streams(box: Box) -> None:
    box.write("sh", "-c", "read line; echo out $line; echo err >&2")
    done = box.call("run", box.id, input="words\n")
    assert (done.status, done.out, done.err) == (0, "out words\n", "err\n")


@shows("run", "run: the container is removed at its end")
def test_removed_at_the_end(box: Box) -> None:
    box.sh("true")
    box.fails("state", box.id)
    assert not box.cgroup("memory").exists()


@shows("run: signals are passed on")
def test_signals_are_passed_on(box: Box) -> None:
    box.write("sh", "-c", "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    out = box.directory / "out"
    with open(out, "wb") as stream:
        process = box.background("run", box.id, stdout=stream)
    until(lambda: "ready" in out.read_text(), "the trap")
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT_S) == 3
    assert "term" in out.read_text()


@shows("run --bundle")
@pytest.mark.parametrize("flag", ["--bundle", "-b"])
def test_bundle(box: Box, flag: str) -> None:
    box.write("cat", "/etc/group")
    assert "user" in box.ok("run", flag, str(box.bundle), box.id, cwd="/")


@shows("run --detach")
@pytest.mark.parametrize("flag", ["--detach", "-d"])
def test_detach(box: Box, flag: str) -> None:
    box.write("sleep", "1000")
    box.ok("run", flag, box.id)
    assert box.status == "running"
    assert "sleep" in Path(f"/proc/{box.pid}/cmdline").read_text()
    box.ok("kill", box.id, "KILL")
    box.wait_for("stopped")  # and it stays until `delete`
    box.ok("delete", box.id)


@shows("run --detach", "errors: the program is not there", differs={"crun": "does not name it"})
@pytest.mark.parametrize("program", ["absent", "/bin/absent", "/etc/passwd", "/etc"])
def test_the_program_is_not_there(box: Box, program: str) -> None:
    box.write(program)
    error = box.fails("run", "--detach", box.id)
    assert program in error
    box.fails("state", box.id)


@shows("run --keep", since={"crun": "1.15"})
def test_keep(box: Box) -> None:
    box.run("sh", "-c", "exit 3", options=("--keep",), status=3)
    assert box.status == "stopped"
    assert box.cgroup("memory").exists()
    box.ok("delete", box.id)
    assert not box.cgroup("memory").exists()


@shows("run --pid-file")
def test_pid_file(box: Box) -> None:
    path = box.directory / "pid"
    box.detach(options=("--pid-file", str(path)))
    assert path.read_text() == str(box.pid)


@shows("run --console-socket")
def test_console_socket(box: Box) -> None:
    box.process["terminal"] = True
    with terminal.Listener(box.directory / "console") as console:
        box.detach("sh", "-c", "tty; sleep 1000", options=("--console-socket", str(console.path)))
        assert "/dev/" in terminal.read_terminal(console.receive(), "\n")


@shows("run --console-socket", differs={"crun": "no such rule"})
def test_console_socket_needs_detach(box: Box) -> None:
    box.process["terminal"] = True
    box.write("true")
    with terminal.Listener(box.directory / "console") as console:
        assert "detach" in box.fails("run", "--console-socket", str(console.path), box.id)


@shows("run: a terminal without a console socket", "config: process.terminal")
def test_foreground_terminal(box: Box) -> None:
    """In the foreground the runtime itself joins the caller's terminal with the container's."""
    box.process["terminal"] = True
    box.write("sh", "-c", "stty size; tty; read line; echo got $line; exit 5")
    master, slave = os.openpty()
    try:
        process = box.background(
            "run", box.id, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        seen = terminal.read_terminal(master, "/dev/")
        os.write(master, b"words\n")
        seen += terminal.read_terminal(master, "got words")
        assert process.wait(TIMEOUT_S) == 5
        assert "/dev/pts/" in seen or "/dev/console" in seen
    finally:
        os.close(master)


@shows("run: a terminal, its output elsewhere", differs={"crun": "with carriage returns"})
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_what_a_terminal_shows_goes_to_a_file(box: Box, verb: str) -> None:
    """Scripts compare it: lines end as the process writes them; and what a pager then writes to the caller's terminal
    is processed there as ever."""
    words = ["sh", "-c", "echo one; read line; echo two"]
    box.process["terminal"] = verb == "run"
    if verb == "exec":
        box.detach()
        words = ["exec", "-t", box.id, *words]
    else:
        box.write(*words)
        words = ["run", box.id]
    output = box.directory / "output"
    master, slave = os.openpty()
    with output.open("wb") as file:
        process = box.background(*words, stdin=slave, stdout=file, stderr=file, start_new_session=True)
    until(lambda: output.read_bytes().endswith(b"\n"), "the first line")
    assert termios.tcgetattr(slave)[1] & termios.OPOST
    os.write(master, b"\n")
    assert process.wait(TIMEOUT_S) == 0
    os.close(slave)
    os.close(master)
    assert output.read_bytes() == b"one\n\ntwo\n"


@shows("run: the size of the caller's terminal", differs={"runc": "later", "crun": "later"})
def test_the_terminal_has_its_size_from_the_beginning(box: Box) -> None:
    """A program asks for it at once, and some do not ask again."""
    box.process["terminal"] = True
    box.write("stty", "size")
    master, slave = os.openpty()
    termios.tcsetwinsize(master, (33, 44))
    try:
        process = box.background(
            "run", box.id, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        assert terminal.read_terminal(master, "\n").split() == ["33", "44"]
        assert process.wait(TIMEOUT_S) == 0
    finally:
        os.close(master)


@shows("run --no-subreaper")
def test_no_subreaper(box: Box) -> None:
    """Nothing of the container can be seen to differ; the flag is accepted and the status is the container's."""
    box.sh("exit 4", options=("--no-subreaper",), status=4)


@shows("run: the program gets no blocked or ignored signals")
def test_signal_dispositions(box: Box) -> None:
    box.write("grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status")
    out = box.ok("run", box.id, prefix=("env", "--default-signal"))
    # but for 32 and 33, which the C library keeps for itself: `env` cannot reset them, and make ignores them
    own = 1 << 31 | 1 << 32
    assert [int(line.split()[1], 16) & ~own for line in out.splitlines()] == [0, 0, 0], out
