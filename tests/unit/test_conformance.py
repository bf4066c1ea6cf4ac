"""The conformance bodies are complete: every command, flag and field of config.json has one, or a stated gap."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci import catalogue
from oci.marks import shown

BODIES = Path(__file__).resolve().parents[1] / "oci"


def _marks() -> Iterator[pytest.Mark]:
    """All marks of all bodies, those of their parameters included."""
    for path in sorted(BODIES.glob("test_*.py")):
        module = importlib.import_module(f"oci.{path.stem}")
        for name, body in vars(module).items():
            if name.startswith("test_"):
                for mark in getattr(body, "pytestmark", []):
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
