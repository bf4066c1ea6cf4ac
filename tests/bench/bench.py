#!/usr/bin/python3
"""`make bench`: measure pyrun beside runc, podman and Docker in the same run, and judge the ratios.

    tests/lab/enter build/venv/bin/python tests/bench/bench.py [--quick] [--only ROW]...

Prints a Markdown table and writes build/bench.md and build/bench.json. The exit status is 0 when every ratio is within
its limit, 1 when one is over it or could not be measured. README.md beside this says how it is measured, and which row
may be over.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import dns_rows
import network_rows
import oci_rows
import port_rows
import report
import rows
import thousand_rows
import warm_rows
from contenders import NoPeer, Peers
from hyperfine import Effort, MeasuringFailed

REPOSITORY = Path(__file__).resolve().parents[2]
# (effort for a row, seconds for all of them)
FULL = Effort(rounds=10, runs=5, budget_s=75), 2400
QUICK = Effort(rounds=3, runs=3, budget_s=15), 280
ROWS = (
    rows.ROWS | oci_rows.ROWS | warm_rows.ROWS | dns_rows.ROWS | port_rows.ROWS | network_rows.ROWS | thousand_rows.ROWS
)  # fmt: skip


def main(arguments: list[str]) -> int:
    """Measure what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="bench.py", description="Measure pyrun beside its peers (make bench)."
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under five minutes")
    parser.add_argument("--only", action="append", metavar="ROW", choices=list(ROWS),
                        help=f"one of {', '.join(ROWS)}; can be repeated")  # fmt: skip
    options = parser.parse_args(arguments)
    if os.environ.get("PYRUN_LAB") != "1":
        print("bench: needs the lab host: tests/lab/enter ..., or `make bench`", file=sys.stderr)
        return 2
    lock = os.open("/var/tmp", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("bench: another one is running; two would measure each other", file=sys.stderr)
        return 2
    effort, seconds = QUICK if options.quick else FULL
    return measure_all(options.only or list(ROWS), effort, time.monotonic() + seconds)


def measure_all(names: list[str], effort: Effort, deadline: float) -> int:
    """Prepare, measure the rows one after the other, report; returns the exit status."""
    peers = Peers(rows.installed_pyrun(sys.executable))
    figures: list[rows.Figure] = []
    try:
        say("starting the peers ...")
        peers.prepare()
        about = report.surroundings(peers)
        for name in names:
            left = deadline - time.monotonic()
            if left < 5:
                figures.append(rows.Figure(name, problem="no time was left"))
                continue
            say(f"measuring {name} ...")
            part = Effort(effort.rounds, effort.runs, min(effort.budget_s, left))
            figures += measure(name, peers, part)
    finally:
        peers.close()
    print(report.write(REPOSITORY / "build", figures, about))
    return 1 if any(figure.failed for figure in figures) else 0


def measure(name: str, peers: Peers, effort: Effort) -> list[rows.Figure]:
    """Measure row *name*; what goes wrong becomes a figure that says so."""
    try:
        return ROWS[name](peers, effort)
    except (NoPeer, MeasuringFailed, RuntimeError, subprocess.SubprocessError) as problem:
        return [rows.Figure(name, problem=str(problem))]


def say(text: str) -> None:
    """Progress, apart from the report."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
