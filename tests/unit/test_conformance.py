"""The conformance bodies are complete: every command, flag and field of config.json has one, or a stated gap.

And their table says no more than ran.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci import catalogue, table
from oci.marks import shown, shows

BODIES = Path(__file__).resolve().parents[1] / "oci"


def _bodies() -> Iterator[tuple[str, list[pytest.Mark]]]:
    """Every body, and its marks."""
    for path in sorted(BODIES.glob("test_*.py")):
        module = importlib.import_module(f"oci.{path.stem}")
        for name, body in vars(module).items():
            if name.startswith("test_"):
                yield f"{path.name}::{name}", getattr(body, "pytestmark", [])


def _marks() -> Iterator[pytest.Mark]:
    """All marks of all bodies, those of their parameters included."""
    for _, marks in _bodies():
        for mark in marks:
            yield mark
            if mark.name == "parametrize":
                for parameter in mark.args[1]:
                    yield from getattr(parameter, "marks", ())


SHOWN = set(shown(_marks()).names)


@pytest.mark.parametrize("row", catalogue.rows())
def test_every_row_has_a_body(row: str) -> None:
    assert row in SHOWN or catalogue.gap(row)


def test_every_row_of_a_body_is_in_the_catalogue() -> None:
    """A row named after a flag or a field must be one; other rows describe behaviour."""
    rows = set(catalogue.rows())
    strange = {
        row
        for row in SHOWN - rows
        if ": " not in row
        or (row.startswith("config: ") and ":" not in row.removeprefix("config: ") and " " not in row[8:])
    }
    assert not strange


@pytest.mark.parametrize("name", catalogue.GAPS)
def test_a_gap_is_one(name: str) -> None:
    matching = {
        row for row in catalogue.rows() if row == name or (name.endswith("*") and row.startswith(name[:-1]))
    }
    assert matching - SHOWN


# ── what the table says ────────────────────────────────────────────────────────────────────────────

ROW, ERROR = "config: process.selinuxLabel", "errors: SELinux is not there"
EFFECT, ABSENCE = "test_process.py::test_selinux", "test_process.py::test_selinux_is_not_there"


def test_a_body_that_needs_a_lack_shows_no_effect() -> None:
    """It runs only where what its rows need is not there."""
    needing = {
        name: shown(marks).absent
        for name, marks in _bodies()
        for mark in marks
        if mark.name == "needs" and any(word.startswith("no_") for word in mark.args)
    }
    assert len(needing) >= 9 and all(needing.values()), needing


def test_a_refusal_is_a_pass_only_of_the_row_that_says_so() -> None:
    marks = shown([shows(ROW, ERROR, absent=True).mark])
    assert [marks.verdict(row, "pass") for row in marks.names] == ["refused", "pass"]
    assert marks.verdict(ROW, "fail") == "fail"
    assert shown([shows(ROW).mark]).verdict(ROW, "pass") == "pass"


def table_of(directory: Path, *files: list[tuple[str, str, str]]) -> str:
    """The lines on SELinux's row, and the last, of the table of files of (test, row, verdict)."""
    made = table.Table()
    for number, entries in enumerate(files):
        rows = [
            {"row": row, "runtime": "pyrun-oci", "verdict": verdict, "test": test,
             "reason": "no SELinux" if verdict == "skip" else ""}
            for test, row, verdict in entries
        ]  # fmt: skip
        path = directory / f"{number}.json"
        path.write_text(json.dumps({"runtimes": {"pyrun-oci": f"pyrun-oci {number}"}, "rows": rows}))
        made.add(path)
    *lines, total = [" ".join(line.split()) for line in made.lines()]
    return "\n".join([*(line for line in lines if "selinux" in line), total])


HERE = [(EFFECT, ROW, "skip"), (ABSENCE, ROW, "refused"), (ABSENCE, ERROR, "pass")]


def test_a_row_whose_effect_was_skipped_is_no_pass(tmp_path: Path) -> None:
    """The test that ran is named, not the one before it; the totals count it by itself."""
    assert table_of(tmp_path, HERE).splitlines() == [
        f"process.selinuxLabel refused · · {ABSENCE}",
        f"{ERROR} pass · · {ABSENCE}",
        f"pyrun-oci: refused: {ROW}: no SELinux",
        "pyrun-oci: 1 rows pass, 1 rows refused",
    ]


def test_a_row_whose_effect_was_seen_elsewhere_is_one(tmp_path: Path) -> None:
    text = table_of(tmp_path, HERE, [(EFFECT, ROW, "pass")])
    assert f"process.selinuxLabel pass · · {EFFECT} and 1 more\n" in text
    assert text.endswith("pyrun-oci: 2 rows pass")


def test_a_row_of_which_nothing_ran_names_what_would_have(tmp_path: Path) -> None:
    assert f"process.selinuxLabel skip · · {EFFECT}\n" in table_of(tmp_path, HERE[:1])


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ({"pyrun-oci": "skip", "runc": "skip"}, 0),
        ({"pyrun-oci": "pass", "runc": "fail"}, 0),
        ({"pyrun-oci": "skip", "crun": "fail"}, 0),
        ({"pyrun-oci": "fail", "runc": "pass"}, 1),
    ],
    ids=str,
)
def test_only_a_failure_of_the_runtime_under_test_fails_the_table(
    tmp_path: Path, verdicts: dict[str, str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"row": ROW, "runtime": name, "verdict": verdict, "test": EFFECT, "reason": "because"}
        for name, verdict in verdicts.items()
    ]
    path = tmp_path / "verdicts.json"
    path.write_text(json.dumps({"runtimes": {}, "rows": rows}))
    assert table.main([str(path)]) == status
    assert f"pyrun-oci: 1 rows {verdicts['pyrun-oci']}" in capsys.readouterr().out


def test_a_test_that_passed_when_run_once_more_fails_no_row(tmp_path: Path) -> None:
    rows = [
        {
            "row": ROW,
            "runtime": "pyrun-oci",
            "verdict": "fail",
            "test": EFFECT,
            "reason": "",
            "id": f"{EFFECT}[{number}]",
        }
        for number in range(2)
    ]
    path, unsteady = tmp_path / "verdicts.json", tmp_path / "unsteady"
    path.write_text(json.dumps({"runtimes": {}, "rows": rows}))
    for names, status in (([0], 1), ([0, 1], 0)):
        unsteady.write_text("".join(f"{EFFECT}[{number}]\n" for number in names))
        assert table.main(["--unsteady", str(unsteady), str(path)]) == status
