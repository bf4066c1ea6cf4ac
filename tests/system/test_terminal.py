"""-t: a terminal of the container's own, seen from a terminal of the caller's (a pty the test holds)."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest

from command import Pyrun
from waiting import until

RUN = ["run", "--rm", "-it", "--network=none"]
JOB = "sh -c 'while read -r line; do echo got $line; done'\n"  # what answers has the terminal


class Terminal:
    """A pty with *command* on it. `see(text)` reads until *text* has come; `type(text)` types; `end()` waits."""

    def __init__(self, pyrun: Pyrun, *command: str, rows: int = 33, columns: int = 101) -> None:
        self.master, self.slave = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.output = ""
        self.process = subprocess.Popen(
            [str(pyrun.binary), *command], stdin=self.slave, stdout=self.slave, stderr=self.slave, env=pyrun.env,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def see(self, text: str, timeout_s: float = 15) -> str:
        """What has come up to and with *text*; it is taken away."""
        deadline = time.monotonic() + timeout_s
        while text not in self.output:
            left = deadline - time.monotonic()
            ready = select.select([self.master], [], [], max(left, 0))[0]
            assert ready, f"waited for {text!r}, came: {self.output!r}"
            self.output += os.read(self.master, 65536).decode()
        seen, _, self.output = self.output.partition(text)
        return seen + text

    def end(self, timeout_s: float = 15) -> int:
        """The exit status; whatever came is in `output`. The terminal's settings must be as they were."""
        deadline = time.monotonic() + timeout_s
        while (status := self.process.poll()) is None or select.select([self.master], [], [], 0)[0]:
            if select.select([self.master], [], [], 0.01)[0]:
                self.output += os.read(self.master, 65536).decode()
            assert time.monotonic() < deadline, f"does not end: {self.output!r}"
        assert termios.tcgetattr(self.slave) == self.before
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """Those in it are closed after the test."""
    opened: list[Terminal] = []
    yield opened
    for each in opened:
        each.close()


@pytest.fixture(params=["run", "exec"])
def shell(request: pytest.FixtureRequest, pyrun: Pyrun, terminals: list[Terminal]) -> Terminal:
    """An interactive shell, by `run -it` and by `exec -it`, that has shown its prompt."""
    if request.param == "run":
        words = [*RUN, "-e", "PS1=$ ", "--name", "term", "busybox", "sh"]
    else:
        pyrun.ok("run", "-d", "--rm", "--network=none", "--name", "term", "busybox", "sleep", "600")
        words = ["exec", "-it", "-e", "PS1=$ ", "term", "sh"]
    terminal = Terminal(pyrun, *words)
    terminals.append(terminal)
    terminal.see("$ ")
    return terminal


def test_it_is_a_terminal_of_its_own(shell: Terminal) -> None:
    shell.type("tty; stty size; echo $TERM; test -t 0 && test -t 1 && test -t 2 && echo all 'three'\n")
    seen = shell.see("all three\r\n").replace("\r", "").splitlines()
    assert seen[-4:] == ["/dev/pts/0", "33 101", "xterm", "all three"]
    shell.type("exit 7\n")
    assert shell.end() == 7


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_new_size_arrives(pyrun: Pyrun, terminals: list[Terminal], verb: str) -> None:
    command = ["sh", "-c", "trap 'stty size; exit 3' WINCH; stty size; while :; do sleep 0.02; done"]
    words = [*RUN, "busybox", *command]
    if verb == "exec":
        pyrun.ok("run", "-d", "--rm", "--network=none", "--name", "term", "busybox", "sleep", "600")
        words = ["exec", "-it", "term", *command]
    terminal = Terminal(pyrun, *words)
    terminals.append(terminal)
    terminal.see("33 101\r\n")
    terminal.resize(40, 120)  # the kernel tells the foreground process group: `pyrun run`
    terminal.see("40 120\r\n")
    assert terminal.end() == 3


def test_ctrl_c_ends_the_job_in_front_only(shell: Terminal) -> None:
    shell.type(JOB + "one\n")
    shell.see("got one\r\n")
    shell.type("\x03")
    shell.see("$ ")
    shell.type("echo status $?\n")
    # the prompt as well: a ^D before it is the cooked terminal's, and lost with it
    shell.see("status 130\r\n$ ")
    shell.type("\x04")
    assert shell.end() == 0


def test_job_control(shell: Terminal) -> None:
    """Ctrl-Z stops the job inside, and the shell inside says so; `pyrun run` itself is not stopped."""
    shell.type(JOB + "one\n")
    shell.see("got one\r\n")
    shell.type("\x1a")
    shell.see("Stopped")
    shell.see("$ ")
    shell.type("fg\n")
    shell.see("done")
    shell.type("two\n")
    shell.see("got two\r\n")
    shell.type("\x03")
    shell.see("$ ")
    shell.type("exit 4\n")
    assert shell.end() == 4


def test_the_callers_terminal_is_raw_meanwhile(shell: Terminal) -> None:
    local = termios.tcgetattr(shell.slave)[3]
    assert not local & (termios.ICANON | termios.ECHO | termios.ISIG)
    shell.type("exit\n")
    shell.end()  # compares with the settings before


def test_restored_after_a_kill_from_outside(pyrun: Pyrun, shell: Terminal) -> None:
    pyrun.ok("kill", "term")
    assert shell.end() == 137


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV])
def test_a_signal_to_the_monitor(pyrun: Pyrun, shell: Terminal, number: signal.Signals) -> None:
    """Forwarded; an interactive shell ignores SIGTERM, ends by SIGHUP. No terminal stays raw."""
    shell.process.send_signal(number)
    time.sleep(0.1)  # for it to arrive, where it may be ignored
    pyrun("rm", "-f", "term")
    assert shell.end() in (137, 128 + number)


def test_much_output(shell: Terminal) -> None:
    shell.type("seq 1 200000 | tail -c 1000000; echo 'en''d'\n")
    seen = shell.see("end\r\n", 30)
    assert len(seen) > 1_000_000 and "199999\r\n200000\r\n" in seen
    shell.type("exit\n")
    assert shell.end() == 0


def test_console_is_the_terminal(pyrun: Pyrun, terminals: list[Terminal]) -> None:
    script = "stat -c '%F %t:%T' /dev/console; echo to the console > /dev/console; ls /dev/pts; exit 3"
    terminal = Terminal(pyrun, *RUN, "busybox", "sh", "-c", script)
    terminals.append(terminal)
    assert terminal.end() == 3
    assert terminal.output.replace("\r", "").splitlines() == [
        "character special file 88:0", "to the console", "0     ptmx",
    ]  # fmt: skip


def test_the_terminal_belongs_to_the_user(pyrun: Pyrun, terminals: list[Terminal]) -> None:
    script = "stat -c '%a %u:%g' /dev/pts/0 /dev/console; echo hello > /dev/tty"
    terminal = Terminal(pyrun, *RUN, "-u", "1000", "busybox", "sh", "-c", script)
    terminals.append(terminal)
    assert terminal.end() == 0
    assert terminal.output.replace("\r", "").splitlines() == ["620 1000:5", "620 1000:5", "hello"]


def test_behind_init_ctrl_c_is_for_the_child(pyrun: Pyrun, terminals: list[Terminal]) -> None:
    terminal = Terminal(
        pyrun, *RUN, "--init", "busybox", "sh", "-c", "trap 'exit 5' INT; echo ready; sleep 600 & wait"
    )
    terminals.append(terminal)
    terminal.see("ready")
    terminal.type("\x03")
    assert terminal.end() == 5


def test_end_of_file_by_ctrl_d(pyrun: Pyrun, terminals: list[Terminal]) -> None:
    terminal = Terminal(pyrun, *RUN, "busybox", "cat")
    terminals.append(terminal)
    terminal.type("line\n")
    terminal.see("line\r\nline\r\n")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_t_without_i(pyrun: Pyrun) -> None:
    """A terminal for the container although the caller has none; its output comes with the terminal's line ends."""
    done = subprocess.run(
        [str(pyrun.binary), "run", "--rm", "-t", "--network=none", "busybox", "sh", "-c", "tty; echo err >&2"],
        stdin=subprocess.DEVNULL, capture_output=True, env=pyrun.env, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"/dev/pts/0\r\nerr\r\n", b"")


def test_it_needs_a_terminal(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--rm", "--network=none", "--name", "box", "busybox", "sleep", "600")
    for words in (["run", "--rm", "-it", "busybox", "sh"], ["exec", "-it", "box", "sh"]):
        done = pyrun(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[0] == "pyrun: the input is not a terminal"
    pyrun.ok("rm", "-f", "box")


def test_a_detached_one_has_a_terminal_too(pyrun: Pyrun) -> None:
    pyrun.ok(
        "run", "-dit", "--network=none", "--name", "box", "busybox", "sh", "-c", "tty; read line; exit 3"
    )
    until(lambda: "/dev/pts/0" in pyrun.ok("logs", "box"), "its terminal")
    assert '"running"' in pyrun.ok("ps", "--format", "json")
    pyrun.ok("rm", "-f", "box")
