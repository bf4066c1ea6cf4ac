"""Print the conformance table: `table.py [--unsteady FILE] VERDICTS.json...`, the files that `pytest --verdicts` wrote.

Several files (this machine, the machines of the VM floor) are one table: a body that was skipped in one run and
ran in another has run. The worst verdict of a row's bodies counts, but a skip only where nothing else is. "refused":
what the row needs is nowhere here; that it is refused then was seen, and what it does was not (marks.py, absent).
FILE names tests, one a line, that failed and passed when run once more (second_chance.py): they count as passed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from oci import catalogue
from oci.marks import REFUSED

SEVERITY = {"": 0, "not known": 1, "not installed": 1, "skip": 2, REFUSED: 3, "pass": 4, "fail": 5}
RUNTIMES = ("pyrun-oci", "runc", "crun")
Cell = tuple[str, str]  # verdict, reason


class Table:
    """The verdicts of all files."""

    def __init__(self, unsteady: Collection[str] = ()) -> None:
        self.unsteady = unsteady
        self.labels: dict[str, str] = {}
        self.cells: dict[tuple[str, str], Cell] = {}
        self.skipped: dict[tuple[str, str], str] = {}  # what the machines lack
        self.tests: dict[str, dict[str, int]] = defaultdict(dict)  # of a row: test -> its severest verdict

    def add(self, path: Path) -> None:
        document = json.loads(path.read_text())
        for name, label in document["runtimes"].items():
            if label not in self.labels.get(name, ""):
                self.labels[name] = ", ".join(filter(None, (self.labels.get(name), label)))
        for entry in document["rows"]:
            key = (entry["row"], entry["runtime"])
            if entry["verdict"] == "fail" and entry.get("id") in self.unsteady:
                entry |= {"verdict": "pass", "reason": ""}
            if SEVERITY[entry["verdict"]] > SEVERITY[self.cells.get(key, ("", ""))[0]]:
                self.cells[key] = (entry["verdict"], entry["reason"])
            if entry["verdict"] == "skip":
                self.skipped[key] = entry["reason"]
            tests, severity = self.tests[entry["row"]], SEVERITY[entry["verdict"]]
            # which test shows a row is told of the runtime under test
            if entry["runtime"] == RUNTIMES[0]:
                tests[entry["test"]] = max(severity, tests.get(entry["test"], 0))
            else:
                tests.setdefault(entry["test"], 0)

    def lines(self) -> list[str]:
        """The whole table."""
        out = [", ".join(self.labels.get(name, f"{name}: not there") for name in RUNTIMES), ""]
        known = catalogue.rows()
        parts = {
            "command line": [row for row in known if not row.startswith("config: ")],
            "config.json": [row for row in known if row.startswith("config: ")],
            "behaviour": [row for row in self.tests if row not in known],
        }
        for title, rows in parts.items():
            head = [title, *RUNTIMES, "shown by"]
            body = [self._row(row) for row in rows]
            widths = [max(len(line[i]) for line in [head, *body]) for i in range(4)]
            for line in [head, ["─" * width for width in widths] + [""], *body]:
                padded = [word.ljust(width) for word, width in zip(line, widths, strict=False)]
                out.append("  ".join([*padded, line[4]]).rstrip())
            out.append("")
        return [*out, *self._notes(), self._sum()]

    def _row(self, row: str) -> list[str]:
        if row not in self.tests and (reason := catalogue.gap(row)):
            return [row.removeprefix("config: "), "·", "·", "·", f"no body: {reason}"]
        verdicts = [self.cells.get((row, name), ("·", ""))[0] for name in RUNTIMES]
        return [row.removeprefix("config: "), *verdicts, self._shown_by(row)]

    def _shown_by(self, row: str) -> str:
        """The test that decides the row, and how many ran beside it; where none ran, those that would have."""
        tests = self.tests.get(row) or {"·": 0}
        ran = {test: severity for test, severity in tests.items() if severity > SEVERITY["skip"]} or tests
        first = max(ran, key=lambda test: ran[test])
        return first + (f" and {len(ran) - 1} more" if len(ran) > 1 else "")

    def _notes(self) -> list[str]:
        """What failed, was skipped or only refused, and why, for the runtime under test; the references' failures."""
        out = []
        for name in RUNTIMES:
            for (row, runtime), (verdict, reason) in sorted(self.cells.items()):
                told = ("fail", "skip", REFUSED) if name == RUNTIMES[0] else ("fail",)
                if runtime == name and verdict in told:
                    why = reason or self.skipped.get((row, name), "no body shows what it does")
                    out.append(f"{name}: {verdict}: {row}: {why}")
        return [*out, ""]

    def _sum(self) -> str:
        counts: dict[str, int] = defaultdict(int)
        for (_, runtime), (verdict, _) in self.cells.items():
            if runtime == RUNTIMES[0]:
                counts[verdict] += 1
        return f"{RUNTIMES[0]}: " + ", ".join(
            f"{number} rows {verdict}" for verdict, number in sorted(counts.items())
        )


def main(words: list[str]) -> int:
    """Print the table; 1 when a row of the runtime under test failed."""
    parser = argparse.ArgumentParser(prog="table.py")
    parser.add_argument("--unsteady", type=Path)
    parser.add_argument("paths", nargs="+")
    options = parser.parse_args(words)
    table = Table(options.unsteady.read_text().splitlines() if options.unsteady else ())
    for path in options.paths:
        table.add(Path(path))
    print("\n".join(table.lines()))
    return int(
        any(verdict == "fail" and name == RUNTIMES[0] for (_, name), (verdict, _) in table.cells.items())
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
