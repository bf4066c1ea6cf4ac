"""Interleaved measuring: hyperfine in rounds, in which every command of a row gets a few runs.

One call of hyperfine measures its commands one after the other, so a machine that grows busier favours the first.
Many short rounds, every second one in the opposite order, spread whatever else happens over all of them. A round
is never begun when the row's time is up; `rounds` says how many there were.

A command that can be run only once is timed by `returned_ms`.

Not here: what is measured (rows.py) and how it is judged (report.py).
"""

from __future__ import annotations

import json
import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CROWDS = 3
PAUSE_S = 3.0  # after a crowd came or went: the kernel does what is left to do


@dataclass
class Effort:
    """How much is measured: *rounds* of *runs* (two or more) each, in *budget_s* seconds a row; two rounds at least."""

    rounds: int
    runs: int
    budget_s: float
    warm_up: bool = True

    @property
    def crowds(self) -> int:
        """How often a crowd comes and goes, in a row about one.

        A machine has slower and quicker minutes, and a crowd takes a part of one: so the few are measured before each
        crowd and after the last.
        """
        return min(CROWDS, max(1, self.rounds // 3))

    def parted(self, parts: int) -> Effort:
        """That of one of *parts* equal ones."""
        return Effort(max(2, self.rounds // parts), self.runs, self.budget_s / parts, self.warm_up)


@dataclass
class Samples:
    """The wall and processor times of one command, in milliseconds.

    The processor time is that of the command's own processes: a daemon's work is not in it.
    """

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    rounds: int = 0

    @property
    def median_ms(self) -> float:
        """Median wall time."""
        return statistics.median(self.wall_ms)

    def add(self, more: Samples) -> None:
        """Take in those of *more*, which were measured at another time."""
        self.wall_ms += more.wall_ms
        self.cpu_ms += more.cpu_ms
        self.rounds += more.rounds


class MeasuringFailed(Exception):
    """A command that was measured failed; the text says which and how."""


def returned_ms(command: Sequence[str]) -> float:
    """The milliseconds until a command returns; of `run -d`, until the container runs. Raises MeasuringFailed.

    Without a pipe, whose end is another moment, and without a time limit: with one, Python looks now and then, and up
    to sixteen milliseconds late.
    """
    null = subprocess.DEVNULL
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        status = subprocess.call(command, stdin=null, stdout=null, stderr=said)
        took_ms = (time.perf_counter() - began) * 1000
        if status:
            said.seek(0)
            raise MeasuringFailed(f"{shlex.join(command)}: status {status}: {said.read().strip()[-300:]}")
    return took_ms


def interleaved(
    commands: dict[str, list[str]],
    effort: Effort,
    between: Callable[[], None] | None = None,
    prefix: Sequence[str] = (),
) -> dict[str, Samples]:
    """Measure *commands* (label -> argv) in rounds; *between* is called before each round, untimed.

    prefix: words before hyperfine itself, which change the surroundings of all commands and are not measured.
    """
    samples = {label: Samples() for label in commands}
    began = time.monotonic()
    for number in range(effort.rounds):
        if number >= 2 and time.monotonic() - began > effort.budget_s:
            break
        if between:
            between()
        order = list(commands) if number % 2 == 0 else list(reversed(commands))
        chosen = {label: commands[label] for label in order}
        one_round(samples, chosen, effort.runs, effort.warm_up and number == 0, prefix)
    return samples


def one_round(samples: dict[str, Samples], commands: dict[str, list[str]], runs: int, warm_up: bool,
              prefix: Sequence[str] = ()) -> None:  # fmt: skip
    """Run hyperfine once over *commands* and add what it measured to *samples*."""
    # -N: no shell in between; standard input and output are /dev/null
    options = ["-N", "--style=none", "--runs", str(runs), "--warmup", "1" if warm_up else "0"]
    result = Path(f"/run/pyrun-bench-{time.monotonic_ns()}.json")
    try:
        words = [
            *prefix,
            "hyperfine",
            *options,
            "--export-json",
            str(result),
            *map(shlex.join, commands.values()),
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MeasuringFailed(why(commands.values(), done.stderr, prefix))
        for label, figures in zip(commands, json.loads(result.read_text())["results"], strict=True):
            samples[label].wall_ms += [second * 1000 for second in figures["times"]]
            samples[label].cpu_ms.append((figures["user"] + figures["system"]) * 1000)
            samples[label].rounds += 1
    finally:
        result.unlink(missing_ok=True)


def why(commands: Iterable[list[str]], said: str, prefix: Sequence[str] = ()) -> str:
    """hyperfine hides what the command printed: run each once more to see it."""
    for command in commands:
        words = [*prefix, *command]
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            return f"{shlex.join(command)}: status {done.returncode}: {done.stderr.strip()[-400:]}"
    return f"hyperfine: {said.strip()[-300:]}"
