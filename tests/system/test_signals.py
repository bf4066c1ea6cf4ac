"""Signals: what reaches the container from outside, with and without a terminal, and who ends when."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import Pyrun
from kill_points import make_bundle
from waiting import until

RUN = ["run", "--rm", "--network=none"]
SAYS_SO = "for s in INT TERM HUP USR1 USR2 QUIT WINCH; do trap \"echo got $s\" $s; done; trap 'exit 9' ALRM; echo ready"
DEAF_CALLER = """
import os, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
os.execv(sys.argv[1], sys.argv[1:])
"""
LOOP = "while :; do sleep 0.02; done"


def begin(pyrun: Pyrun, script: str, *options: str) -> subprocess.Popen[str]:
    """A foreground container that has said it is ready, in a process group of its own."""
    process = pyrun.start(*RUN, *options, "busybox", "sh", "-c", script, start_new_session=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1", "USR2", "QUIT"])
@pytest.mark.parametrize("options", [[], ["--init"]])
def test_forwarded(pyrun: Pyrun, name: str, options: list[str]) -> None:
    process = begin(pyrun, f"{SAYS_SO}; {LOOP}", *options)
    assert process.stdout
    for _ in range(2):
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.stdout.readline() == f"got {name}\n"
    process.send_signal(signal.SIGALRM)
    assert process.wait(10) == 9


@pytest.mark.parametrize("number", [signal.SIGRTMIN, signal.SIGRTMIN + 3, signal.SIGRTMAX])
def test_real_time_signals_are_forwarded_behind_an_init(pyrun: Pyrun, number: int) -> None:
    process = begin(pyrun, f"trap 'exit 9' {int(number)}; echo ready; {LOOP}", "--init")
    process.send_signal(number)
    assert process.wait(5) == 9


def test_a_default_action_ends_it_with_128_and_the_number(pyrun: Pyrun) -> None:
    """As in Docker, only behind --init: the kernel protects process 1 from signals without a handler."""
    process = begin(pyrun, "echo ready; exec sleep 60", "--init")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    process = begin(pyrun, "echo ready; exec sleep 60", "--name", "deaf")
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    pyrun.ok("kill", "deaf")
    assert process.wait(10) == 137


def test_ctrl_c_without_a_terminal_reaches_the_container_once(pyrun: Pyrun) -> None:
    """A terminal sends SIGINT to the whole process group of `pyrun run`; the container is not in it."""
    process = begin(
        pyrun, f"n=0; trap 'n=$((n+1)); echo $n' INT; trap 'exit 9' TERM; echo ready; {LOOP}", "-i"
    )
    assert process.stdout
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "1\n"
    time.sleep(0.1)  # in which no second one comes
    process.terminate()
    assert (process.wait(10), process.stdout.read()) == (9, "")


def test_no_sig_proxy(pyrun: Pyrun) -> None:
    process = begin(pyrun, f"{SAYS_SO}; {LOOP}", "--sig-proxy=false", "--name", "alone")
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.1)  # in which it does not arrive
    pyrun.ok("kill", "-s", "ALRM", "alone")
    assert process.stdout and (process.wait(10), process.stdout.read()) == (9, "")


def test_leaving_without_sig_proxy(pyrun: Pyrun) -> None:
    """As Docker's client: the caller goes with the signal's status, the container runs on and is looked after."""
    process = begin(pyrun, f"{SAYS_SO}; {LOOP}", "--sig-proxy=false", "--name", "alone", "--rm")
    process.terminate()
    assert process.wait(10) == 143
    assert pyrun.ok("exec", "alone", "echo", "runs on") == "runs on"
    pyrun.ok("stop", "alone")
    until(lambda: not pyrun.ok("ps", "-aq"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_waits_for_a_detached_start_goes(
    pyrun: Pyrun, tmp_path: Path, number: signal.Signals
) -> None:
    """As Docker's client that is interrupted: the container runs, and it has its monitor and its log."""
    bundle, came, go = make_bundle(pyrun, tmp_path / "bundle"), tmp_path / "came", tmp_path / "go"
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["args"] = ["sh", "-c", "echo told; sleep 1000"]
    config["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo >{came}; cat {go}"]}]
    }
    (bundle / "config.json").write_text(json.dumps(config))
    os.mkfifo(came)
    os.mkfifo(go)
    process = pyrun.start("run", "-d", "--bundle", str(bundle), "orphan")
    came.read_text()
    process.send_signal(number)
    process.wait(10)
    go.write_text("")
    until(lambda: pyrun("logs", "orphan").stdout == "told\n")
    monitor = json.loads((pyrun.runroot / "containers/orphan/state.json").read_text())["monitor_pid"]
    until(lambda: Path(f"/proc/{monitor}/comm").read_text() == "pyrun-monitor\n")
    pyrun.ok("stop", "-t", "0", "orphan")
    assert not pyrun.ok("ps", "-aq")


def test_a_stopped_job_goes_on(pyrun: Pyrun) -> None:
    """SIGSTOP stops `pyrun run` alone, the container works on; nothing is lost."""
    process = begin(pyrun, "echo ready; for i in 1 2 3; do sleep 0.05; echo $i; done")
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)  # the container says everything meanwhile
    process.send_signal(signal.SIGCONT)
    assert process.stdout and (process.stdout.read(), process.wait(10)) == ("1\n2\n3\n", 0)


def test_stop_ends_one_that_ignores_everything(pyrun: Pyrun) -> None:
    process = begin(
        pyrun, f"for i in $(seq 1 31); do trap '' $i 2>&-; done; echo ready; {LOOP}", "--name", "deaf"
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        process.send_signal(number)
    began = time.monotonic()
    pyrun.ok("stop", "-t", "1", "deaf")
    assert 0.9 < time.monotonic() - began < 5
    assert process.wait(10) == 137


def test_stop_waits_for_one_that_takes_its_time(pyrun: Pyrun) -> None:
    process = begin(pyrun, f"trap 'sleep 0.3; echo bye; exit 4' TERM; echo ready; {LOOP}", "--name", "slow")
    began = time.monotonic()
    pyrun.ok("stop", "slow")
    assert 0.25 < time.monotonic() - began < 5
    assert process.stdout and (process.wait(10), process.stdout.read()) == (4, "bye\n")


def test_the_caller_dies_the_container_lives(pyrun: Pyrun) -> None:
    """kill -9 of the monitor: the container goes on, and `stop` still ends it."""
    process = begin(pyrun, f"trap 'exit 3' TERM; echo ready; {LOOP}", "--name", "orphan")
    process.kill()
    process.wait(10)
    assert len(pyrun.ok("ps", "-q").split()) == 1
    assert pyrun.ok("exec", "orphan", "echo", "alive") == "alive"
    pyrun.ok("stop", "orphan")
    assert pyrun.ok("ps", "-q") == ""


def test_signals_of_the_caller_are_not_inherited(pyrun: Pyrun) -> None:
    """nohup, a shell's `trap '' INT`, a blocked mask: none of it is the container's."""
    words = [str(pyrun.binary), *RUN, "busybox", "grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/1/status"]
    done = subprocess.run(
        [sys.executable, "-c", DEAF_CALLER, *words], env=pyrun.env, capture_output=True, text=True, check=True
    )
    assert [int(line.split()[1], 16) for line in done.stdout.splitlines()] == [0, 0, 0]


def test_a_caller_that_ignores_the_end_of_its_children(pyrun: Pyrun) -> None:
    """What is started would inherit it, and nobody could wait: for the guard, the undo list, the command."""
    deaf = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    words = ["run", "--rm", "--net=bridge", "busybox", "sh", "-c", "sleep 0.01; exit 7"]
    done = subprocess.run([sys.executable, "-c", deaf, str(pyrun.binary), *words], env=pyrun.env, timeout=60,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (7, ""), done.stderr
    assert "No child processes" not in done.stderr
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if (path / "cmdline").read_bytes().startswith(b"pyrun-guard"):
                ignored = next(
                    line for line in (path / "status").read_text().splitlines() if "SigIgn" in line
                )
                assert not int(ignored.split()[1], 16) >> signal.SIGCHLD - 1 & 1


def test_three_ctrl_c_let_go_of_a_container_that_heeds_none(pyrun: Pyrun) -> None:
    """As Docker's client: it ends with 1 and the container runs on. The first one that is not heeded is explained."""
    process = begin(pyrun, "echo ready; exec sleep 60", "--name", "deaf")
    assert process.stderr
    process.send_signal(signal.SIGINT)
    told = process.stderr.readline()
    assert told.startswith("pyrun: the container's first process has no handler for this signal: two more"), (
        told
    )
    time.sleep(2.5)  # the first is too long ago then
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)  # each by itself: signals that are pending are one
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 1
    assert process.stderr.read() == "pyrun: let go of the container, which runs on: `pyrun stop` ends it\n"
    assert "deaf" in pyrun.ok("ps")
    pyrun.ok("rm", "-f", "deaf")


def test_ctrl_c_that_is_heeded_is_not_counted(pyrun: Pyrun) -> None:
    process = begin(pyrun, f"trap 'echo again' INT; trap 'exit 9' TERM; echo ready; {LOOP}")
    assert process.stdout and process.stderr
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "again\n"
    process.terminate()
    assert process.wait(5) == 9
    assert process.stderr.read() == ""


def test_ctrl_c_ends_what_exec_runs(pyrun: Pyrun) -> None:
    """It is not the first of its namespace: the default action holds, and nothing is said."""
    pyrun.ok("run", "-d", "--name=web", "--net=none", "busybox", "sleep", "1000")
    process = pyrun.start("exec", "web", "sh", "-c", "echo ready; exec sleep 60", start_new_session=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    assert process.stderr and process.stderr.read() == ""
