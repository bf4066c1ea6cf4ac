"""The monitor's input side: standard input by a pipe (-i), and a terminal (-t)."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from monitored import Monitored, memory_kb
from waiting import soon

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]
Start = Callable[..., Monitored]


# ── standard input by a pipe ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def start(begin: Start) -> Start:
    """Start a container whose stdin is open."""
    options = {"stdin": subprocess.PIPE, "stdin_pipe": True}
    return lambda script, **more: begin("sh", "-c", script, **options | more)


def test_stdin_reaches_the_container_and_so_does_its_end(start: Start) -> None:
    container = start("cat; echo end")
    out, err = container.process.communicate(b"a\nb\n", timeout=10)
    assert (container.process.returncode, out, err) == (0, b"a\nb\nend\n", b"")


def test_much_stdin_for_a_slow_container(start: Start) -> None:
    container = start("sleep 0.5; sha256sum")
    data = os.urandom(3000000)
    out, _ = container.process.communicate(data, timeout=20)
    assert out.split()[0] == subprocess.run(["sha256sum"], input=data, capture_output=True).stdout.split()[0]


def test_stdin_from_a_file_and_from_nothing(start: Start, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 100000)
    with open(tmp_path / "in", "rb") as file:
        assert start("wc -c", stdin=file).finish()[1].strip() == b"100000"


def test_dev_null_as_stdin(start: Start) -> None:
    assert start("cat; exit 4", stdin=subprocess.DEVNULL).finish() == (4, b"", b"")


def test_a_container_that_ends_before_its_stdin(start: Start) -> None:
    container = start("exit 6")
    assert container.process.wait(5) == 6


def test_a_container_that_closes_its_stdin(start: Start) -> None:
    container = start("exec < /dev/null; echo ready; sleep 0.5; exit 6")
    assert container.process.stdin is not None and container.process.stdout is not None
    container.process.stdout.readline()
    container.process.stdin.write(b"x" * 100)
    container.process.stdin.flush()
    assert container.process.wait(5) == 6


def test_the_end_of_stdin_costs_no_time(start: Start) -> None:
    container = start("cat; echo ready; sleep 0.6", stdin=subprocess.DEVNULL)
    assert container.process.stdout is not None
    container.process.stdout.readline()
    time.sleep(0.4)  # in which it has nothing to do
    ticks = Path(f"/proc/{container.process.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(ticks[11]) + int(ticks[12]) < 10, "the monitor spins"
    container.finish()


def test_a_broken_stdout_ends_the_containers_stdin(start: Start, tmp_path: Path) -> None:
    container = start(f"echo a; sleep 0.3; echo b; cat; touch {tmp_path}/eof")
    assert container.process.stdout is not None
    container.process.stdout.readline()
    container.process.stdout.close()
    assert container.process.wait(5) == 1
    assert soon((tmp_path / "eof").exists)
    assert soon(container.undone)


# ── a terminal ─────────────────────────────────────────────────────────────────────────────────────


class Terminal:
    """The caller's terminal, seen from where the user sits."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(self.slave)
        self.text = b""

    def resize(self, rows: int, columns: int) -> None:
        """What a window manager does."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """What a user does."""
        os.write(self.master, text.encode())

    def shows(self, text: str, timeout_s: float = 5) -> bool:
        """Does this appear on the screen? What came before it is forgotten."""

        def look() -> bool:
            os.set_blocking(self.master, False)
            try:
                self.text += os.read(self.master, 65536)
            except (BlockingIOError, OSError):
                pass
            return text.encode() in self.text

        found = soon(look, timeout_s)
        if found:
            self.text = self.text.partition(text.encode())[2]
        return found

    def is_raw(self) -> bool:
        """Are the modes not those of a shell?"""
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def is_as_before(self) -> bool:
        """Are the modes those before the start?"""
        return termios.tcgetattr(self.slave) == self.before


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal of 24 rows and 80 columns."""
    made = Terminal()
    yield made
    for fd in (made.master, made.slave):
        try:
            os.close(fd)
        except OSError:
            pass


@pytest.fixture
def on_terminal(begin: Start, terminal: Terminal) -> Start:
    """Start a container with a terminal, on the caller's."""

    def own_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def on_it(script: str, **more: object) -> Monitored:
        ends = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.slave)
        options = ends | {"tty": True, "keys": ("sigproxy=1",), "preexec_fn": own_terminal} | more
        return begin("bash", "-c", script, **options)

    return on_it


def test_what_is_typed_arrives_and_what_comes_is_shown(on_terminal: Start, terminal: Terminal) -> None:
    container = on_terminal("read x; echo got-$x; stty size; tty; exit 5")
    assert soon(terminal.is_raw)
    terminal.type("hello\r")
    assert terminal.shows("hello") and terminal.shows("got-hello\r\n") and terminal.shows("24 80")
    assert container.finish()[0] == 5
    assert terminal.is_as_before()
    assert container.undone()
    assert ("stdout", "F", "got-hello\r") in container.lines()


def test_control_c_becomes_a_signal_inside(on_terminal: Start, terminal: Terminal) -> None:
    container = on_terminal("trap 'echo caught; exit 9' INT; echo ready; while true; do sleep 0.05; done")
    assert terminal.shows("ready")
    terminal.type("\x03")
    assert terminal.shows("caught")
    assert container.finish()[0] == 9


def test_a_new_window_size_arrives(on_terminal: Start, terminal: Terminal) -> None:
    container = on_terminal("trap 'stty size; exit 3' WINCH; echo ready; while true; do sleep 0.05; done")
    assert terminal.shows("ready")
    terminal.resize(33, 111)
    assert terminal.shows("33 111")
    assert container.finish()[0] == 3


@pytest.mark.parametrize("name", ["INT", "TERM", "TSTP", "USR1"])
def test_signals_by_kill_are_forwarded(on_terminal: Start, terminal: Terminal, name: str) -> None:
    container = on_terminal(f"trap 'echo got; exit 9' {name}; echo ready; while true; do sleep 0.05; done")
    assert terminal.shows("ready")
    container.signal(getattr(signal, f"SIG{name}"))
    assert container.finish()[0] == 9
    assert terminal.is_as_before()


def test_after_a_stop_the_terminal_is_raw_again(on_terminal: Start, terminal: Terminal) -> None:
    container = on_terminal("echo ready; read x; exit 2")
    assert terminal.shows("ready")
    container.signal(signal.SIGSTOP)
    termios.tcsetattr(terminal.slave, termios.TCSANOW, terminal.before)  # as a shell does
    container.signal(signal.SIGCONT)
    assert soon(terminal.is_raw)
    terminal.type("\r")
    assert container.finish()[0] == 2
    assert terminal.is_as_before()


def test_the_terminal_goes_away(on_terminal: Start, terminal: Terminal, tmp_path: Path) -> None:
    script = f"trap 'touch {tmp_path}/hup; exit 1' HUP; echo ready; while true; do sleep 0.05; done"
    container = on_terminal(script)
    assert terminal.shows("ready")
    os.close(terminal.slave)
    os.close(terminal.master)
    assert soon((tmp_path / "hup").exists)
    container.process.wait(5)
    assert soon(container.undone)
    assert container.exit_record() == "1"


def test_a_container_that_ignores_that_runs_on(
    on_terminal: Start, terminal: Terminal, tmp_path: Path
) -> None:
    container = on_terminal(f"trap '' HUP; echo ready; sleep 0.7; touch {tmp_path}/end; exit 7")
    assert terminal.shows("ready")
    os.close(terminal.slave)
    os.close(terminal.master)
    assert container.process.wait(5) == 7, "silent: nothing tells that nobody listens"
    assert (tmp_path / "end").exists() and container.undone()


def test_nobody_has_the_terminal_open_for_a_while(on_terminal: Start, terminal: Terminal) -> None:
    container = on_terminal(
        "t=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.5; echo again >$t; sleep 0.3; exit 4"
    )
    assert terminal.shows("again")
    assert container.finish()[0] == 4


def is_full(container: Monitored) -> bool:
    """Has the monitor written for a while, and does it no more?"""

    def written() -> int:
        return int(Path(f"/proc/{container.process.pid}/io").read_text().split()[3])

    before = written()
    time.sleep(0.2)  # in which nothing more is written
    return 1 << 14 < before == written()


@pytest.mark.parametrize("tty", [True, False])
def test_a_terminal_that_does_not_take_any_more(
    on_terminal: Start, terminal: Terminal, tmp_path: Path, tty: bool
) -> None:
    """A connection that hangs, say: signals arrive all the same, and one after the end gives the rest up."""
    container = on_terminal(f"trap 'touch {tmp_path}/caught; exit 9' TERM; yes & wait", tty=tty)
    assert soon(lambda: is_full(container))
    container.signal(signal.SIGTERM)
    assert soon((tmp_path / "caught").exists)
    assert soon(lambda: container.signal(signal.SIGTERM) or container.process.poll() == 9)
    assert container.undone() and terminal.is_as_before()


def has_nobody(master: int) -> bool:
    """Is a terminal open nowhere any more?"""
    os.set_blocking(master, False)
    try:
        os.read(master, 100)
    except OSError as error:
        return error.errno == errno.EIO
    return False


def test_who_goes_on_alone_lets_go_of_the_terminal(on_terminal: Start, terminal: Terminal) -> None:
    container = on_terminal("echo ready; exec sleep 1", keys=(), tty=False)
    assert terminal.shows("ready")
    os.close(terminal.slave)
    container.signal(signal.SIGTERM)  # meant for the monitor alone
    assert container.process.wait(5) == 143
    assert soon(lambda: not container.undone() and has_nobody(terminal.master))
    assert soon(container.undone)


def test_without_interactive_the_terminal_stays_as_it_is(on_terminal: Start, terminal: Terminal) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; while true; do sleep 0.05; done"
    container = on_terminal(script, keys=("sigproxy=1", "interactive=0"))
    assert terminal.shows("ready")
    assert terminal.is_as_before()
    terminal.type("\x03")
    assert container.finish()[0] == 9


def test_without_a_terminal_of_the_caller(begin: Start) -> None:
    container = begin("sh", "-c", "tty; exit 3", tty=True)
    status, out, err = container.finish()
    assert (status, err) == (3, b"")
    assert out.startswith(b"/dev/pts/") and out.endswith(b"\r\n")


def test_detached_with_a_terminal(begin: Start) -> None:
    container = begin("sh", "-c", "echo hi; exit 3", tty=True, detach=True)
    assert container.finish() == (0, b"", b"")
    assert (container.lines(), container.exit_record()) == ([("stdout", "F", "hi\r")], "3")


def test_memory(on_terminal: Start, terminal: Terminal) -> None:
    container = on_terminal("echo ready; read x")
    assert terminal.shows("ready")
    pss_kb, own_kb = memory_kb(container.process.pid)
    assert pss_kb <= 150, "the text of the whole binary is in it, unless other monitors share it"
    assert own_kb <= 48
    terminal.type("\r")
    container.finish()
