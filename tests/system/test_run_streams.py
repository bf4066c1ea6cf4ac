"""`pyrun run`: exit statuses, output and input."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from command import Pyrun

RUN = ["run", "--rm", "--network=none"]


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("exec tail /dev/zero", 137)],
)
def test_the_commands_exit_status(pyrun: Pyrun, script: str, status: int) -> None:
    done = pyrun(*RUN, "-m", "16m", "busybox", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize(
    ("options", "number", "status"),
    [([], signal.SIGKILL, 137), (["--init"], signal.SIGTERM, 143), (["--init"], signal.SIGUSR1, 138)],
)
def test_a_container_killed_by_a_signal(
    pyrun: Pyrun, options: list[str], number: signal.Signals, status: int
) -> None:
    """--init, since the first process of a pid namespace ignores what it has no handler for."""
    process = pyrun.start(
        *RUN, *options, "--name", "victim", "busybox", "sh", "-c", "echo ready; exec sleep 60"
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    os.kill(int(str(pyrun.state("victim")["pid"])), number)
    assert process.wait(10) == status


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("nosuch", 127, "nosuch: no such command in the container's $PATH"),
        ("/nosuch", 127, "/nosuch: no such command in the container"),
        ("/etc", 126, "/etc: not executable"),
        ("/etc/passwd", 126, "/etc/passwd: not executable"),
        ("", 127, "no such command"),
    ],
)
def test_a_command_that_cannot_be_started(pyrun: Pyrun, command: str, status: int, message: str) -> None:
    assert message in pyrun.fails(status, *RUN, "busybox", command)
    assert not list((pyrun.root / "names").iterdir()) and not list((pyrun.runroot / "containers").iterdir())


def test_a_file_that_is_no_program(pyrun: Pyrun, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    error = pyrun.fails(126, *RUN, "-v", f"{program}:/program", "busybox", "/program")
    assert "not a program" in error
    program.write_text("#!/bin/nosuch\n")
    pyrun.fails(127, *RUN, "-v", f"{program}:/program", "busybox", "/program")


def test_ten_megabytes_arrive_whole(pyrun: Pyrun) -> None:
    script = "seq 1 1300000 | tee /dev/stderr"
    process = pyrun.start(*RUN, "busybox", "sh", "-c", script)
    output, error = process.communicate(timeout=60)
    expected = "".join(f"{number}\n" for number in range(1, 1300001))
    assert len(expected) > 9_000_000
    for text in (output, error):
        assert hashlib.sha256(text.encode()).digest() == hashlib.sha256(expected.encode()).digest()


def test_stdout_and_stderr_stay_apart(pyrun: Pyrun) -> None:
    done = pyrun(*RUN, "busybox", "sh", "-c", "echo out; echo err >&2; printf end")
    assert (done.stdout, done.stderr) == ("out\nend", "err\n")


def test_output_to_a_closed_descriptor(pyrun: Pyrun) -> None:
    """`pyrun run ... >&-` runs the command; nothing else becomes descriptor 1."""
    line = f"{pyrun.binary} {' '.join(RUN)} busybox sh -c 'echo x; exit 4' >&-"
    done = subprocess.run(["sh", "-c", line], env=pyrun.env, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (4, b"")


def test_input_with_i(pyrun: Pyrun) -> None:
    done = pyrun(*RUN, "-i", "busybox", "sh", "-c", "cat; echo end", input="abc\ndef")
    assert (done.returncode, done.stdout) == (0, "abc\ndefend\n")


def test_much_input(pyrun: Pyrun) -> None:
    text = "0123456789abcde\n" * 200_000
    assert (
        pyrun(*RUN, "-i", "busybox", "md5sum", input=text).stdout.split()[0]
        == hashlib.md5(text.encode()).hexdigest()
    )


def test_input_that_nobody_reads(pyrun: Pyrun) -> None:
    done = pyrun(*RUN, "-i", "busybox", "sh", "-c", "exec <&-; echo fine", input="x" * 300_000)
    assert (done.returncode, done.stdout) == (0, "fine\n")


def test_without_i_the_input_is_empty(pyrun: Pyrun) -> None:
    process = pyrun.start(*RUN, "busybox", "sh", "-c", "readlink /proc/self/fd/0; cat")  # ours stays open
    assert process.stdout and process.stdout.read() == "/dev/null\n"
    assert process.wait(10) == 0


def test_a_reader_that_has_seen_enough(pyrun: Pyrun) -> None:
    """As Docker: `run ... yes | head -1` ends with status 1 and a line, and the container runs on."""
    line = f"{pyrun.binary} {' '.join(RUN)} --name endless busybox yes | head -1; echo ${{PIPESTATUS[*]}}"
    done = subprocess.run(
        ["bash", "-c", line], env=pyrun.env, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.stdout, done.stderr) == ("y\n1 0\n", "pyrun: write /dev/stdout: Broken pipe\n")
    assert len(pyrun.ok("ps", "-q").split()) == 1
    pyrun.ok("rm", "-f", "endless")


def test_a_caller_without_any_descriptor(pyrun: Pyrun, tmp_path: Path) -> None:
    mark = tmp_path / "shared"
    mark.mkdir()
    line = f"exec {pyrun.binary} {' '.join(RUN)} -v {mark}:/m busybox touch /m/ran <&- >&- 2>&-"
    done = subprocess.run(["sh", "-c", line], env=pyrun.env, timeout=20, check=False)
    assert (done.returncode, (mark / "ran").exists()) == (0, True)


def test_detached_says_its_id_and_lets_go_of_the_callers_pipes(pyrun: Pyrun) -> None:
    """`ID=$(pyrun run -d ...)` returns at once: nobody keeps the pipe open."""
    done = pyrun(
        "run", "-d", "--rm", "--network=none", "--name", "long", "busybox", "sleep", "30", timeout=10
    )
    ident = (pyrun.root / "names" / "long").read_text().splitlines()[0]
    assert (done.returncode, done.stdout) == (0, f"{ident}\n")
    assert "no such command" in pyrun.fails(127, "run", "-d", "--network=none", "busybox", "nosuch")
