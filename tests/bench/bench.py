#!/usr/bin/python3
"""`make bench`: measure pyrun beside runc, podman and Docker in the same run, and judge the ratios.

    tests/lab/enter build/venv/bin/python tests/bench/bench.py [--quick] [--only ROW]...

Prints a Markdown table and writes build/bench.md and build/bench.json; all rows in one run, without --quick, are also
written to docs/performance.md and its picture. The exit status is 0 when every ratio is within
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
import performance
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
# section of docs/performance.md -> its rows, in the order in which they are measured
SECTIONS = {
    "engine": rows.ROWS,
    "oci": oci_rows.ROWS,
    "warm": warm_rows.ROWS,
    "network": dns_rows.ROWS | port_rows.ROWS | network_rows.ROWS | thousand_rows.ROWS,
}
ROWS = {name: row for section in SECTIONS.values() for name, row in section.items()}


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
    found, about = measure_all(options.only or list(ROWS), effort, time.monotonic() + seconds)
    figures = [figure for row in found.values() for figure in row]
    print(report.write(REPOSITORY / "build", figures, about))
    if not options.only and not options.quick:
        performance.write(page(found, about))
    return 1 if any(figure.failed for figure in figures) else 0


def page(found: dict[str, list[rows.Figure]], about: dict[str, str]) -> dict[str, list[str]]:
    """The sections of docs/performance.md, as lines, of a run of all rows."""
    sections = {
        section: report.table([figure for name in names for figure in found[name]], about)
        for section, names in SECTIONS.items()
    }
    return {"about": [report.said(about)]} | sections


def measure_all(
    names: list[str], effort: Effort, deadline: float
) -> tuple[dict[str, list[rows.Figure]], dict[str, str]]:
    """Prepare and measure the rows one after the other: the figures of each, and what they depend on."""
    peers = Peers(rows.installed_pyrun(sys.executable))
    found: dict[str, list[rows.Figure]] = {}
    try:
        say("starting the peers ...")
        peers.prepare()
        about = report.surroundings(peers)
        for name in names:
            left = deadline - time.monotonic()
            if left < 5:
                found[name] = [rows.Figure(name, problem="no time was left")]
                continue
            say(f"measuring {name} ...")
            part = Effort(effort.rounds, effort.runs, min(effort.budget_s, left))
            found[name] = measure(name, peers, part)
    finally:
        peers.close()
    return found, about


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
