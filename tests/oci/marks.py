"""`@shows("create --pid-file")`: which rows of the conformance table a body decides.

Keywords, for bodies that not every reference can run:

    since={"runc": "1.2", "crun": None}    older versions do not know it: not run, "not known" in the table;
                                           None: no version knows it
    differs={"crun": "no such check"}      run, but its failure is a fact about the reference, not about the body
    absent=True                            run where the machine lacks what the row needs: shows that this is told, and
                                           nothing of the effect. "refused" in the table, unless another body passes
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest

from oci import catalogue

shows = pytest.mark.shows

REFERENCES = ("runc", "crun")
REFUSED = "refused"
NEITHER: dict[str, str | None] = {"runc": None, "crun": None}


class Shown(NamedTuple):
    """The sum of a body's marks."""

    names: tuple[str, ...]
    since: dict[str, str | None]
    differs: dict[str, str]
    absent: bool

    def verdict(self, row: str, verdict: str) -> str:
        """What *verdict* of the body says of one of its rows."""
        return REFUSED if self.absent and verdict == "pass" and row in catalogue.rows() else verdict


def shown(marks: Iterable[pytest.Mark]) -> Shown:
    """Add up the `shows` marks among *marks*."""
    names: list[str] = []
    since: dict[str, str | None] = {}
    differs: dict[str, str] = {}
    absent = False
    for mark in marks:
        if mark.name == "shows":
            names += [name for name in mark.args if name not in names]
            since |= mark.kwargs.get("since", {})
            differs |= mark.kwargs.get("differs", {})
            absent |= mark.kwargs.get("absent", False)
    return Shown(tuple(names), since, differs, absent)


def rows(prefix: str, *names: str, **keywords: object) -> list[object]:
    """Parameters for `parametrize`: one per name, each showing `PREFIX NAME`."""
    return [pytest.param(name, marks=shows(f"{prefix}{name}", **keywords), id=name) for name in names]
