"""How pyrun refuses: one clear line, a remedy, the right status, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys

import hostile
from command import Pyrun


def refused(pyrun: Pyrun, status: int, *words: str, env: dict[str, str] | None = None) -> str:
    """Run it: one line `pyrun: ...`, one `hint: ...`, the status, and the store as it was."""
    before = hostile.stored(pyrun)
    done = pyrun(*words, env=env)
    check_line(done, status)
    assert hostile.stored(pyrun) == before, hostile.stored(pyrun) ^ before
    return done.stderr


# Lines that say what to do by themselves.
OWN_REMEDY = (
    "config.json: ",  # names the field, and what it must be
    "hooks: error running ",  # names the field, and the program
    " (`pyrun ",  # of several words each has its remedy behind it
)


def check_line(done: subprocess.CompletedProcess[str], status: int) -> None:
    assert done.returncode == status, (status, done)
    lines = done.stderr.splitlines()
    assert done.stdout == "" and 1 <= len(lines) <= 2, done
    assert len(lines) == 2 or any(told in lines[0] for told in OWN_REMEDY), f"no remedy: {lines[0]}"
    assert lines[0].startswith("pyrun: ") and lines[0].isprintable(), done
    # A message may name where pyrun is installed; how long that path is depends on who runs the test.
    assert len(lines[0].replace(sys.prefix, "")) < 300, done
    assert all(line.startswith("hint: ") for line in lines[1:]), done
    assert "Error" not in done.stderr and "bug in pyrun" not in done.stderr, done
    text = lines[0].removeprefix("pyrun: ")
    assert not text.endswith(".") and not text[0].isupper(), f"not pyrun's way to word it: {text}"
