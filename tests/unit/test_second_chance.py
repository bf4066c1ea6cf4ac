"""A test that fails once is told, one that fails twice fails the run, and nothing else passes for a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import second_chance

PLANTED = """import pathlib
def test_first_time_only():
    before = pathlib.Path("before")
    there = before.exists()
    before.touch()
    assert there, "the first time"
def test_always():
    assert {always}, "every time"
def test_fine():
    pass
"""
SKIPPED = """import pathlib
import pytest
def test_the_second_time_it_is_skipped():
    before = pathlib.Path("before")
    if before.exists():
        pytest.skip("not today")
    before.touch()
    assert False
"""


def sessions(directory: Path, source: str) -> Path:
    """A directory of results, from a real session of one planted file."""
    (directory / "test_it.py").write_text(source)
    results = directory / "results"
    results.mkdir()
    status = pytest_on(directory, f"--junitxml={results}/one.xml", "test_it.py")
    (results / "one.status").write_text(f"{status}\n")
    (results / "one.seconds").write_text("120\n")
    return results


def pytest_on(directory: Path, *words: str) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(directory)]
    command += words
    return subprocess.run(command, cwd=directory, capture_output=True, check=False).returncode


def judged(directory: Path, results: Path) -> int:
    def again(failure: second_chance.Failure) -> bool:
        told = directory / "again.xml"
        status = pytest_on(directory, f"--junitxml={told}", failure.identifier)
        return status == 0 and second_chance.has_passed(second_chance.report(told))

    return second_chance.judge(results, again)


def test_one_that_fails_the_first_time_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = sessions(tmp_path, PLANTED.format(always=True))
    assert judged(tmp_path, results) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("UNSTEADY test_it.py::test_first_time_only: AssertionError: the first time")
    assert lines[1:] == ["2 passed, 0 failed, 1 unsteady, 0 skipped; minutes: one 2"]
    assert (results / "unsteady").read_text() == "test_it.py::test_first_time_only\n"


def test_one_that_fails_always(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = sessions(tmp_path, PLANTED.format(always=False))
    assert judged(tmp_path, results) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("FAILED TWICE test_it.py::test_always: AssertionError: every time")
    assert lines[1].startswith("UNSTEADY test_it.py::test_first_time_only")
    assert lines[2].startswith("1 passed, 1 failed, 1 unsteady")


def test_one_that_is_skipped_the_second_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = sessions(tmp_path, SKIPPED)
    assert judged(tmp_path, results) == 1
    assert capsys.readouterr().out.startswith("FAILED TWICE test_it.py::test_the_second_time_it_is_skipped")


@pytest.mark.parametrize(("number", "status"), [(5, 0), (6, 1), (21, 1)])
def test_many_that_pass_the_second_time(tmp_path: Path, number: int, status: int) -> None:
    tests = "".join(f"def test_{each}():\n    assert False\n" for each in range(number))
    results = sessions(tmp_path, tests)
    assert second_chance.judge(results, lambda failure: True) == status


def test_a_session_that_fails_without_a_failed_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ran out of time, or skipped what it may not."""
    results = sessions(tmp_path, "def test_fine():\n    pass\n")
    assert judged(tmp_path, results) == 0
    for report in (b"", (results / "one.xml").read_bytes()):
        (results / "one.xml").write_bytes(report)
        (results / "one.status").write_text("124\n")
        assert judged(tmp_path, results) == 1
        assert "BROKEN one: " in capsys.readouterr().out


def test_a_guest_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = sessions(tmp_path, PLANTED.format(always=False))
    (results / "one.xml").rename(results / "guests-minimal.xml")
    (results / "one.status").rename(results / "guests.status")
    seen = []
    assert second_chance.judge(results, lambda failure: not seen.append(failure.boot)) == 0
    assert seen == ["minimal", "minimal"] and "(guest minimal)" in capsys.readouterr().out
