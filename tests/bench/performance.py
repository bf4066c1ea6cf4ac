#!/usr/bin/python3
"""Writes docs/performance.md, the tables between its marks, and docs/performance.svg, the same as a picture.

`make bench` calls `write` after a whole run; a part of one would put figures of two runs beside each other.

    performance.py                   draw the picture anew, from the tables of the page
    performance.py --guest FILE      the table of the guest, from the bench.json that `make bench-vm` leaves
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import plot

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, PICTURE = DOCS / "performance.md", DOCS / "performance.svg"


def write(sections: dict[str, list[str]]) -> None:
    """Replace these sections of the page and draw the picture anew. Raises: ValueError (no such section)."""
    text = PAGE.read_text()
    for name, lines in sections.items():
        text = filled(text, name, lines)
    PAGE.write_text(text)
    PICTURE.write_text(plot.svg(text))


def filled(text: str, name: str, lines: list[str]) -> str:
    """*text* with *lines* between the marks of section *name*."""
    mark = f"<!-- bench: {name} -->\n"
    found = re.compile(rf"{re.escape(mark)}.*?<!-- end -->", re.DOTALL)
    if not found.search(text):
        raise ValueError(f"{PAGE}: no section {name}: put back the line {mark.strip()} and an end")
    body = "\n".join(["", *lines, "", ""])
    return found.sub(lambda _: f"{mark}{body}<!-- end -->", text)


def guest(document: dict[str, dict[str, str] | list[dict[str, str]]]) -> list[str]:
    """The lines of the guest's table, from what tests/vm/bench/inside.py wrote."""
    lines = [
        "| `run` of a busybox bundle | pyrun-oci | runc | ratio | limit | |",
        "|---|---|---|---|---|---|",
    ]
    lines += ["| {driver} | {pyrun} | {runc} | {ratio} | {limit} | {verdict} |".format(**row)
              for row in document["rows"] if isinstance(row, dict)]  # fmt: skip
    about = dict(document["about"])
    return [*lines, "", ", ".join(f"{name} {text}" for name, text in about.items())]


def main(arguments: list[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="performance.py", description="Write docs/performance.md and .svg.")
    parser.add_argument("--guest", type=Path, metavar="FILE", help="build/vm/bench.json")
    options = parser.parse_args(arguments)
    write({"guest": guest(json.loads(options.guest.read_text()))} if options.guest else {})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
