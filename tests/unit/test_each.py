"""A verb on many containers (cli/verbs.py): what begins early, what is told, which status."""

from __future__ import annotations

import pytest

from pyrun.cli import verbs
from pyrun.errors import Conflict, NotFound


def test_those_behind_begin_early_but_not_all_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    happened: list[tuple[str, int]] = []
    names = [str(number) for number in range(100)]
    assert verbs.each(names, lambda name: happened.append(("act", int(name))),
                      begin=lambda name: happened.append(("begin", int(name)))) == 0  # fmt: skip
    assert [number for what, number in happened if what == "begin"] == list(range(100))
    assert [number for what, number in happened if what == "act"] == list(range(100))
    assert happened.index(("act", 0)) == 64
    assert happened.index(("begin", 64)) == happened.index(("act", 0)) + 1


def test_a_single_one_does_not_begin_early() -> None:
    assert verbs.each(["a"], lambda name: None, begin=lambda name: pytest.fail(name)) == 0


def test_what_fails_early_is_told_in_its_turn(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(name: str) -> None:
        if name == "b":
            raise NotFound("no b")
        if name == "c":
            raise Conflict("c is busy")

    assert verbs.each(["a", "b", "c"], fail, begin=fail) == 1
    assert verbs.each(["a", "b"], fail, begin=fail) == 1
    assert verbs.each(["a", "b"], fail, begin=fail, forgive=True) == 0


def test_a_hint_is_told_once_where_it_is_wanted(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(name: str) -> None:
        raise NotFound(f"no {name}", "there is c")

    assert verbs.each(["a", "b"], fail, remedies=True) == 1
    assert capfd.readouterr().err == "pyrun: no a\nhint: there is c\npyrun: no b\n"
    assert verbs.each(["a"], fail) == 1
    assert capfd.readouterr().err == "pyrun: no a\n"
