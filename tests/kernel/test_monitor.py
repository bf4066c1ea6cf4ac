"""The monitor (csrc/monitor.c): streams, log, signals, exit status; and nothing keeps it from the undo list."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from monitored import Monitored, memory_kb
from sandbox import in_child
from waiting import runs, soon, until

Start = Callable[..., Monitored]
pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]
TRAP = "trap 'echo got %s; exit 9' %s; echo ready; while true; do sleep 0.05; done"


@pytest.fixture
def start(begin: Start) -> Start:
    """Start a container with its monitor."""
    return begin


def sh(script: str) -> tuple[str, str, str]:
    return "sh", "-c", script


def ready(container: Monitored) -> None:
    """The shell has set its traps, and the monitor copied what it said."""
    assert container.process.stdout is not None
    assert container.process.stdout.readline().strip() == b"ready"


# ── the end of a container ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_exit_status_is_the_containers(start: Start, script: str, status: int) -> None:
    container = start(*sh(script))
    assert container.finish() == (status, b"", b"")
    assert container.exit_record() == str(status)
    assert container.undone()


@pytest.mark.parametrize("pidfd", [True, False])
def test_a_container_that_ended_before_its_monitor_began(start: Start, pidfd: bool) -> None:
    container = start(*sh("echo early; exit 3"), delay_s=0.3, pidfd=pidfd)
    assert container.finish() == (3, b"early\n", b"")
    assert container.exit_record() == "3"


def test_detached_its_own_status_is_nought_and_nothing_is_copied(start: Start) -> None:
    container = start(*sh("echo out; echo err >&2; exit 3"), detach=True)
    assert container.finish() == (0, b"", b"")
    assert container.exit_record() == "3"
    assert sorted(container.lines()) == [("stderr", "F", "err"), ("stdout", "F", "out")]


def test_a_process_outside_that_holds_the_pipe_does_not_hold_the_monitor(start: Start) -> None:
    container = start(*sh("setsid sleep 3 & echo done"))
    before = time.monotonic()
    assert container.process.wait(5) == 0
    assert time.monotonic() - before < 2
    assert container.undone()


def test_a_process_outside_that_writes_for_ever_does_not_hold_the_monitor(start: Start) -> None:
    container = start(*sh("setsid timeout 8 yes & exit 4"), stdout=subprocess.DEVNULL)
    before = time.monotonic()
    assert container.process.wait(6) == 4
    assert time.monotonic() - before < 4


def test_a_container_directory_removed_meanwhile(start: Start) -> None:
    container = start(*sh("echo ready; sleep 0.3; exit 5"))
    ready(container)
    container.log.unlink()
    container.keep.rmdir()
    assert container.finish() == (5, b"", b"")


# ── streams and log ────────────────────────────────────────────────────────────────────────────────


def test_streams_stay_apart_and_are_logged(start: Start) -> None:
    container = start(*sh("echo one; sleep 0.1; echo two >&2; sleep 0.1; printf three"))
    assert container.finish() == (0, b"one\nthree", b"two\n")
    assert container.lines() == [("stdout", "F", "one"), ("stderr", "F", "two"), ("stdout", "P", "three")]


def test_a_line_written_in_pieces_is_one_line_and_shown_at_once(start: Start) -> None:
    container = start(*sh("printf he; sleep 0.5; echo llo"))
    assert container.process.stdout is not None
    assert os.read(container.process.stdout.fileno(), 10) == b"he"
    assert container.finish()[1] == b"llo\n"
    assert container.lines() == [("stdout", "F", "hello")]


def test_a_long_line_is_logged_in_parts(start: Start) -> None:
    container = start(*sh("head -c 40000 /dev/zero | tr '\\0' x; echo; echo short"))
    assert container.finish()[1] == b"x" * 40000 + b"\nshort\n"
    lines = container.lines()
    assert [tag for _, tag, _ in lines] == ["P", "P", "F", "F"]
    assert "".join(text for _, _, text in lines[:3]) == "x" * 40000
    assert len(lines[0][2]) == 16384


def test_much_output_is_complete_for_a_slow_reader_and_in_the_log(start: Start) -> None:
    container = start("seq", "300000")
    time.sleep(0.3)  # a slow reader
    status, out, _ = container.finish()
    expected = "".join(f"{number}\n" for number in range(1, 300001))
    assert (status, out.decode()) == (0, expected)
    assert "".join(text + "\n" for _, _, text in container.lines()) == expected


def test_output_still_in_the_pipe_at_the_end_reaches_a_slow_reader(start: Start) -> None:
    container = start(*sh("head -c 200000 /dev/zero"))
    time.sleep(1)  # a slow reader
    assert container.finish() == (0, bytes(200000), b"")


def test_output_to_a_file(start: Start, tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        container = start("seq", "100000", stdout=file)
        assert container.finish()[0] == 0
    assert (tmp_path / "out").read_bytes().count(b"\n") == 100000


def test_the_callers_descriptors_stay_blocking(start: Start) -> None:
    reading, writing = os.pipe()
    container = start(*sh("echo ready; sleep 0.2"), stdout=writing)
    os.read(reading, 10)
    assert os.get_blocking(writing)
    container.finish()


def test_no_log_at_all(start: Start) -> None:
    container = start(*sh("echo hi"), keys=("log=/nonexistent/directory/log",))
    status, out, err = container.finish()
    assert (status, out) == (0, b"hi\n")
    assert err == b"pyrun: cannot write the log /nonexistent/directory/log: No such file or directory\n"


# ── signals ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH", "CONT", "ALRM", "ABRT", "SEGV"]
)
@pytest.mark.parametrize("pidfd", [True, False])
def test_a_signal_is_forwarded(start: Start, name: str, pidfd: bool) -> None:
    container = start(*sh(TRAP % (name, name)), keys=("sigproxy=1",), pidfd=pidfd)
    ready(container)
    container.signal(getattr(signal, f"SIG{name}"))
    assert container.finish()[:2] == (9, f"got {name}\n".encode())


def test_the_first_real_time_signal_too(start: Start) -> None:
    container = start("bash", "-c", TRAP % ("RTMIN", "RTMIN"), keys=("sigproxy=1",))
    ready(container)
    container.signal(34)
    assert container.finish()[:2] == (9, b"got RTMIN\n")


def test_a_second_signal_is_forwarded_again(start: Start) -> None:
    script = "n=0; trap 'n=$((n+1)); echo $n; [ $n = 3 ] && exit 6' INT; echo ready; while true; do sleep 0.05; done"
    container = start(*sh(script), keys=("sigproxy=1",))
    ready(container)
    assert container.process.stdout is not None
    for number in range(1, 4):
        container.signal(signal.SIGINT)
        assert container.process.stdout.readline() == b"%d\n" % number
    assert container.finish()[:2] == (6, b"")


@pytest.mark.parametrize("name", ["CHLD", "PIPE", "URG"])
def test_signals_that_are_not_for_the_container(start: Start, name: str) -> None:
    container = start(*sh("trap 'echo got' CHLD PIPE URG; echo ready; sleep 5 & wait"), keys=("sigproxy=1",))
    ready(container)
    container.signal(getattr(signal, f"SIG{name}"))
    time.sleep(0.2)  # in which nothing happens
    assert container.process.poll() is None
    container.signal(signal.SIGTERM)
    assert container.finish()[:2] == (143, b"")


def test_without_sigproxy_the_container_hears_of_nothing(start: Start) -> None:
    container = start(*sh("echo ready; sleep 0.7; exit 2"))
    ready(container)
    for number in (signal.SIGUSR1, signal.SIGSEGV, signal.SIGWINCH, signal.SIGCONT):
        container.signal(number)
    assert container.finish()[0] == 2
    assert container.undone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_without_sigproxy_the_caller_can_leave(start: Start, number: signal.Signals) -> None:
    """As Docker's client does: the container goes on, and what it leaves is taken away when it ends."""
    container = start(*sh("trap 'exit 9' INT TERM HUP QUIT; echo ready; sleep 0.5; exit 2"))
    ready(container)
    container.signal(number)
    assert container.process.wait(5) == 128 + number
    assert not container.undone()
    assert soon(container.undone)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_monitor_is_suspended_like_any_foreground_program(start: Start) -> None:
    own_group = {"start_new_session": False, "process_group": 0}  # an orphaned group could not be suspended
    container = start(*sh("echo ready; sleep 0.6; echo end"), keys=("sigproxy=1",), **own_group)
    ready(container)
    container.signal(signal.SIGTSTP)
    assert soon(lambda: state(container.process.pid) == "T")
    (first,) = children(container.process.pid)
    until(lambda: not runs(int(first)), "the end of the container")
    assert state(container.process.pid) == "T"
    container.signal(signal.SIGCONT)
    assert container.finish()[:2] == (0, b"end\n")


def test_a_reader_that_does_not_read_does_not_keep_signals_from_the_container(start: Start) -> None:
    container = start(
        *sh("trap 'exit 8' INT; echo ready; yes & while true; do sleep 0.05; done"), keys=("sigproxy=1",)
    )
    ready(container)
    time.sleep(0.5)  # all pipes are full now
    container.signal(signal.SIGINT)
    assert soon(lambda: not children(container.process.pid))
    container.signal(signal.SIGINT)  # the container is gone: do not wait for the reader
    assert container.process.wait(5) == 8
    assert container.undone()


def children(pid: int) -> list[str]:
    """The container's first process, as long as it lives."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize("pidfd", [True, False])
def test_without_a_descriptor_for_signals_the_end_is_seen_too(start: Start, pidfd: bool) -> None:
    container = start(*sh("echo early; sleep 0.3; echo late; exit 3"), pidfd=pidfd, without="signalfd")
    assert container.finish() == (
        3,
        b"early\nlate\n",
        b"pyrun: monitor: cannot take signals: Function not implemented\n",
    )
    assert container.exit_record() == "3"
    assert container.undone()


# ── a caller that goes away ────────────────────────────────────────────────────────────────────────


def locked(container: Monitored) -> bool:
    with open(container.run / "undo") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.mark.parametrize("stream", [1, 2])
def test_a_broken_pipe_ends_the_command_but_not_the_container(
    start: Start, stream: int, tmp_path: Path
) -> None:
    script = f"echo ready; read x; while [ ! -e {tmp_path}/stop ]; do echo line >&{stream}; sleep 0.02; done; exit 4"
    container = start(*sh(script), keys=("sigproxy=1",), pidfd=stream == 1)
    ready(container)
    process = container.process
    assert process.stdout is not None and process.stderr is not None
    (process.stdout if stream == 1 else process.stderr).close()
    assert process.wait(5) == 1
    if stream == 1:
        assert process.stderr.read() == b"pyrun: write /dev/stdout: Broken pipe\n"
    count = len(container.lines())
    assert soon(lambda: len(container.lines()) > count + 3), "the container must run on"
    assert not container.undone()
    assert locked(container), "its undo list must be in good hands"
    (tmp_path / "stop").touch()
    assert soon(container.undone)
    if (container.keep / "exit").exists():  # kernels from 6.15 tell
        assert container.exit_record() == "4"


def test_a_full_disk_behind_stdout_is_like_a_broken_pipe(start: Start) -> None:
    with open("/dev/full", "wb") as full:
        container = start(*sh("echo hi; sleep 0.5; echo more"), stdout=full)
        assert container.finish()[::2] == (1, b"pyrun: write /dev/stdout: No space left on device\n")
    assert soon(container.undone)
    assert [text for _, _, text in container.lines()] == ["hi", "more"]


def test_a_status_that_the_kernel_did_not_keep_is_unknown(start: Start) -> None:
    """And no number that happened to be in memory."""
    with open("/dev/full", "wb") as full:
        container = start(*sh("echo hi; sleep 0.2; exit 4"), stdout=full, without="status")
        assert container.finish()[0] == 1
    assert soon(container.undone)
    assert not (container.keep / "exit").exists()


def test_a_reader_that_left_before_the_last_words(start: Start) -> None:
    reading, writing = os.pipe()
    container = start(*sh("echo hi; exit 3"), stdout=writing, delay_s=0.3)
    os.close(writing)
    os.close(reading)
    assert container.finish()[0] == 1
    assert container.exit_record() == "3"
    assert container.undone()


# ── adversity ──────────────────────────────────────────────────────────────────────────────────────


def on_small_disk(directory: Path) -> None:
    """In a mount namespace of its own: 128 kB for what the container keeps."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", directory], check=True)


@in_child
def test_a_full_disk_behind_the_log(binary: Path, tmp_path: Path) -> None:
    on_small_disk(tmp_path)
    (tmp_path / "ballast").write_bytes(bytes(60000))
    script = f"seq 20000; sleep 1.2; rm {tmp_path}/ballast; sleep 0.1; echo last; sleep 0.2; echo words"
    container = Monitored(binary, tmp_path, ["sh", "-c", script])
    status, out, err = container.finish()
    assert container.undone()
    assert container.exit_record() == "0"
    assert (status, len(out)) == (0, 108894 + len("last\nwords\n"))
    assert err == b"pyrun: the log cannot be written, output goes on: No space left on device\n"
    lines = container.lines()
    assert lines[-2:] == [("stdout", "F", "last"), ("stdout", "F", "words")]
    assert lines[-3] == ("stderr", "F", "pyrun: output is missing here: No space left on device")
    assert [text for _, _, text in lines[:-3]] == [str(number) for number in range(1, len(lines) - 2)]
    assert 200 < len(lines) < 10000


@in_child
def test_a_full_disk_behind_the_exit_record(binary: Path, tmp_path: Path) -> None:
    on_small_disk(tmp_path)
    script = f"head -c 200000 /dev/zero >{tmp_path}/big 2>/dev/null; echo hi; exit 3"
    container = Monitored(binary, tmp_path, ["sh", "-c", script])
    status, out, err = container.finish()
    assert (status, out, container.undone(), os.listdir(container.keep)) == (3, b"hi\n", True, ["log"])
    assert b"the exit status cannot be recorded" in err


@in_child
def test_signals_do_not_interrupt_the_undo(binary: Path, tmp_path: Path) -> None:
    on_small_disk(tmp_path)
    undo = f"rmdir\t{tmp_path}\n"  # a mount point: busy for as long as rmdir is patient
    container = Monitored(binary, tmp_path, ["true"], undo=undo, keys=("sigproxy=1",))
    assert soon((container.keep / "exit").exists)
    for number in (
        signal.SIGINT,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGPIPE,
    ) * 3:
        container.signal(number)
        time.sleep(0.02)  # each by itself: signals that are pending are one
    status, _, err = container.finish()
    assert (status, container.undone()) == (0, True)
    assert err.startswith(f"pyrun: undo: rmdir {tmp_path}: ".encode()) and err.endswith(b"esource busy\n")


def test_a_broken_stderr_does_not_keep_it_from_the_undo(start: Start) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    container = start(
        "true", stdout=writing, stderr=writing, undo="nonsense\nrmdir\t/proc/1\n", keys=("nonsense",)
    )
    os.close(writing)
    assert container.finish()[0] == 0
    assert container.undone()


def test_words_not_understood_do_no_harm(start: Start) -> None:
    container = start(*sh("exit 3"), keys=("colour=blue", "detach=maybe"))
    status, _, err = container.finish()
    assert status == 3
    assert (
        err == b"pyrun: monitor: not understood: colour=blue\npyrun: monitor: not understood: detach=maybe\n"
    )


# ── memory ─────────────────────────────────────────────────────────────────────────────────────────


def test_memory(start: Start) -> None:
    container = start(*sh("echo ready; seq 50000; echo x >&2; sleep 1"), stderr=subprocess.DEVNULL)
    assert container.process.stdout is not None
    while container.process.stdout.readline() != b"50000\n":
        pass
    until(lambda: state(container.process.pid) == "S", "its rest")
    pss_kb, own_kb = memory_kb(container.process.pid)
    assert pss_kb <= 150, "the text of the whole binary is in it, unless other monitors share it"
    assert own_kb <= 48
    container.finish()
