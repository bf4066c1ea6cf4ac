"""The report: a Markdown table, and the same as JSON with every single time."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from contenders import Peers, crun_program
from rows import Figure


def surroundings(peers: Peers) -> dict[str, str]:
    """What the figures depend on: machine, kernel, versions, load, date."""
    found = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "kernel": platform.release(),
        "processors": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "pyrun": _first_line(peers.pyrun, "version"),
        "runc": _first_line("runc", "--version"),
        "crun": _first_line(crun_program() or "crun", "--version"),
        "hyperfine": _first_line("hyperfine", "--version"),
        "docker": _first_line(*peers.docker, "version", "--format", "{{.Server.Version}}")
        if peers.docker
        else "",
        "podman": _first_line(*peers.podman, "version", "--format", "{{.Version}}") if peers.podman else "",
    }
    return {name: text.removeprefix(name).strip(" :") for name, text in found.items() if text}


def _first_line(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    except OSError:
        return ""
    return next(iter(done.stdout.splitlines()), "").replace("version", "").strip()


def markdown(figures: list[Figure], about: dict[str, str]) -> str:
    """The table, then the lines for information, then what was not measured and why."""
    lines = table(figures, about)
    kept = [figure for figure in figures if figure.notes and figure.unit == "kB"]
    if kept:
        lines += ["", "Kept in memory (kB): " + "; ".join(
            f"{each.peer or 'pyrun'}{'' if 'detached' in each.what else ' in the foreground'}:"
            f" {', '.join(each.notes or [])}" for each in kept)]  # fmt: skip
    return "\n".join([*lines, "", said(about), ""])


def table(figures: list[Figure], about: dict[str, str]) -> list[str]:
    """Lines of Markdown: the table, the stages of a start, what was not measured."""
    lines = ["| | pyrun | peer | ratio | limit | |", "|---|---|---|---|---|---|"]
    lines += [line_of(figure, about) for figure in figures if not figure.what.startswith("stage: ")]
    stages = [figure for figure in figures if figure.what.startswith("stage: ")]
    if stages:
        lines += ["", "Stages of a start on the bridge: " + ", ".join(
            f"{each.what.removeprefix('stage: ')} {each.ours:.2f}" for each in stages) + " ms"]  # fmt: skip
    problems = [f"Not measured: {each.what} {each.peer}: {each.problem}" for each in figures if each.problem]
    return [*lines, "", *problems] if problems else lines


def said(about: dict[str, str]) -> str:
    """What the figures depend on, in one line."""
    return ", ".join(f"{name} {text}" for name, text in about.items())


def line_of(figure: Figure, about: dict[str, str]) -> str:
    """One row of the table, which names the peer with its version."""
    peer = " ".join([figure.peer, *([about[figure.peer]] if figure.peer in about else [])])
    against = f" against {peer}" if figure.peer and figure.limit is not None else ""
    ours, theirs = amounts(figure)
    if figure.peer and figure.limit is None:
        theirs = f"{theirs} ({peer})"
    ratio = f"{figure.ratio:.3f}" if figure.ours and figure.ratio is not None else ""
    limit = "" if figure.limit is None else f"{figure.limit:g}"
    if limit and figure.unit != "ms":
        limit += f" {figure.unit}"
    return f"| {figure.what}{against} | {ours} | {theirs} | {ratio} | {limit} | {figure.verdict} |"


def amounts(figure: Figure) -> tuple[str, str]:
    """Ours and theirs in one unit: microseconds where a ratio is of less than a millisecond."""
    values, unit = (figure.ours, figure.theirs), figure.unit
    if unit == "ms" and figure.ratio is not None and min(values) < 1:
        values, unit = (figure.ours * 1000, figure.theirs * 1000), "us"
    return amount(values[0], unit), amount(values[1], unit)


def amount(value: float, unit: str) -> str:
    """A number a person can compare; nothing where nothing was measured."""
    if not value:
        return ""
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def write(directory: Path, figures: list[Figure], about: dict[str, str]) -> str:
    """Write bench.json and bench.md into *directory*; returns the Markdown."""
    text = markdown(figures, about)
    directory.mkdir(exist_ok=True)
    (directory / "bench.md").write_text(text)
    rows = [asdict(each) | {"ratio": each.ratio, "verdict": each.verdict} for each in figures]
    document = {"about": about, "figures": rows}
    (directory / "bench.json").write_text(json.dumps(document, indent=1) + "\n")
    return text
