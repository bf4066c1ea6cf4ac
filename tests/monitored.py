"""A stand-in for the planner: starts a "container" (an ordinary child) and becomes its monitor.

`Monitored(binary, directory, ["sh", "-c", ...], tty=..., keys=...)` is the monitor's process as the caller sees it.
without: what the kernel lacks (deprived.py).
The descriptors are real pipes or a real pty, as the planner makes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from deprived import deprived

LOG_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (stdout|stderr) ([FP]) (.*)", re.DOTALL)

# Runs as a process of its own; the last thing it does is exec of the monitor, so their pid is the same.
_PLANNER = """
import fcntl, json, os, sys, termios, time
plan = json.loads(sys.argv[1])
keys = ["id=" + "0" * 64, "run=" + plan["run"], *plan["keys"]]
if plan["tty"]:
    master, slave = os.openpty()
    ends, inside = [master], [slave, slave, slave]
    keys.append(f"tty={master}")
else:
    null = os.open("/dev/null", os.O_RDWR)
    (out_r, out_w), (err_r, err_w) = os.pipe(), os.pipe()
    ends, inside = [out_r, err_r], [null, out_w, err_w]
    keys += [f"stdout={out_r}", f"stderr={err_r}"]
    if plan["stdin"]:
        in_r, in_w = os.pipe()
        ends.append(in_w)
        inside[0] = in_r
        keys.append(f"stdin={in_w}")
if not plan["detach"]:
    keys.append("status=exit")
else:
    keys.append("detach=1")
pid = os.fork()
if pid == 0:
    os.setsid()
    if plan["tty"]:
        fcntl.ioctl(inside[0], termios.TIOCSCTTY, 0)
    for number, fd in enumerate(inside):
        os.dup2(fd, number)
    os.execvp(plan["command"][0], plan["command"])
undo = os.open(plan["run"] + "/undo", os.O_RDWR)
fcntl.flock(undo, fcntl.LOCK_EX)
for fd in (*ends, undo):
    os.set_inheritable(fd, True)
if plan["pidfd"]:
    pidfd = os.pidfd_open(pid)
    os.set_inheritable(pidfd, True)
    keys.append(f"pidfd={pidfd}")
time.sleep(plan["delay_s"])
for fd in set(inside):
    os.close(fd)
os.execv(plan["binary"], ["pyrun-monitor", *keys, f"pid={pid}", f"undo_fd={undo}"])
"""


class Monitored:
    """A container and its monitor; `process.pid` is the monitor."""

    def __init__(
        self, binary: Path, directory: Path, command: list[str], *, tty: bool = False, stdin_pipe: bool = False,
        detach: bool = False, pidfd: bool = True, delay_s: float = 0, keys: tuple[str, ...] = (), undo: str = "",
        without: str = "",
        **popen: object,
    ) -> None:  # fmt: skip
        self.run, self.keep, self.log = directory / "run", directory / "keep", directory / "keep/log"
        self.run.mkdir()
        self.keep.mkdir()
        (self.run / "undo").write_text(f"{undo}rmtree\t{self.run}\n")
        plan = {"binary": str(binary), "run": str(self.run), "command": command, "tty": tty, "stdin": stdin_pipe,
                "detach": detach, "pidfd": pidfd, "delay_s": delay_s,
                "keys": [f"keep={self.keep}", f"log={self.log}", *keys]}  # fmt: skip
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
                   "start_new_session": True}  # fmt: skip
        words = [sys.executable, "-I", "-S", "-c", _PLANNER, json.dumps(plan)]
        words = [*(deprived(without) if without else []), *words]
        self.process = subprocess.Popen(words, **streams | popen)  # type: ignore[call-overload]

    def finish(self, timeout_s: float = 15) -> tuple[int, bytes, bytes]:
        """Wait for the end; the status, and what came out."""
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err

    def close(self) -> None:
        """The end of a test, which may have failed half-way."""
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        """As `kill` from another terminal."""
        self.process.send_signal(number)

    def exit_record(self) -> str:
        """The first word of the record."""
        text = (self.keep / "exit").read_text()
        assert re.fullmatch(r"\d+ \d+\.\d{9}\n", text), text
        assert abs(float(text.split()[1]) - time.time()) < 60
        assert os.listdir(self.keep) in (["exit"], ["log", "exit"], ["exit", "log"])
        return text.split()[0]

    def lines(self) -> list[tuple[str, str, str]]:
        """The log as (stream, F or P, text); fails on a malformed line."""
        found = []
        for line in self.log.read_bytes().decode().split("\n")[:-1]:
            match = LOG_LINE.fullmatch(line)
            assert match, f"no log line: {line[:100]!r}"
            found.append(match.group(2, 3, 4))
        return found  # type: ignore[return-value]

    def undone(self) -> bool:
        """Was the undo list executed to its end?"""
        return not self.run.exists()


def memory_kb(pid: int) -> tuple[int, int]:
    """The proportional set size, and what is the process's own (neither program text nor shared)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {name: int(size) for name, size in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    return found["Pss"], found["Anonymous"]
