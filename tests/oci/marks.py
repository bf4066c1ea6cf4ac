"""`@shows("create --pid-file")`: which rows of the conformance table a body decides.

Keywords, for bodies that not every reference can run:

    since={"runc": "1.2", "crun": None}    older versions do not know it: not run, "not known" in the table;
                                           None: no version knows it
    differs={"crun": "no such check"}      run, but its failure is a fact about the reference, not about the body
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest

shows = pytest.mark.shows

REFERENCES = ("runc", "crun")
NEITHER: dict[str, str | None] = {"runc": None, "crun": None}


class Shown(NamedTuple):
    """The sum of a body's marks."""

    names: tuple[str, ...]
    since: dict[str, str | None]
    differs: dict[str, str]


def shown(marks: Iterable[pytest.Mark]) -> Shown:
    """Add up the `shows` marks among *marks*."""
    names: list[str] = []
    since: dict[str, str | None] = {}
    differs: dict[str, str] = {}
    for mark in marks:
        if mark.name == "shows":
            names += [name for name in mark.args if name not in names]
            since |= mark.kwargs.get("since", {})
            differs |= mark.kwargs.get("differs", {})
    return Shown(tuple(names), since, differs)


def rows(prefix: str, *names: str, **keywords: object) -> list[object]:
    """Parameters for `parametrize`: one per name, each showing `PREFIX NAME`."""
    return [pytest.param(name, marks=shows(f"{prefix}{name}", **keywords), id=name) for name in names]
