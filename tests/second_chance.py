"""Run each failed test once more, alone: second_chance.py RESULTS      (the last step of .ci/run, on its repository)

RESULTS is a directory. NAME.status holds the exit status of a session, NAME.xml or NAME-PART.xml its report (pytest
--junitxml), LANE.seconds how long a lane took. A test that passes now is UNSTEADY: it is printed with its first failure
and written to RESULTS/unsteady, for the conformance table. The reports of guests are guests-BOOT.xml.

Exit status: 1 when a test failed twice, when more than five are unsteady, or when a session failed without naming a
test (a time limit, an unexpected skip); else 0.
"""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

UNSTEADY_MOST = 5
FAILED_MOST = 20  # more than that is no bad luck: none is run again
AGAIN_TIMEOUT_S = 900
GUEST, RELEASE = "guests-", "trixie"  # of which `make test-vm` makes the guests
REPOSITORY = Path(__file__).resolve().parents[1]
AGAIN_REPORT = REPOSITORY / "build/again.xml"


class Failure(NamedTuple):
    """A failed test."""

    identifier: str  # of pytest: tests/unit/test_x.py::test_y[z]
    message: str  # the first line of what it said
    boot: str  # the guest it failed in; "": this machine


class Report(NamedTuple):
    """What a junit file says."""

    passed: int
    skipped: int
    failures: list[Failure]


def main(words: list[str]) -> int:
    """Judge the sessions of a directory; returns the exit status."""
    return judge(Path(words[0]), again)


def judge(results: Path, run_again: Callable[[Failure], bool]) -> int:
    """Print what failed, what is unsteady and the sum. *run_again* runs one test and says whether it passed."""
    reports = {path: report(path) for path in sorted(results.glob("*.xml"))}
    broken = [path.stem for path in sorted(results.glob("*.status")) if _is_unexplained(path, reports)]
    failures = [failure for each in reports.values() if each for failure in each.failures]
    chosen = failures if len(failures) <= FAILED_MOST else []
    unsteady = [failure for failure in chosen if run_again(failure)]
    failed = [failure for failure in failures if failure not in unsteady]
    for name in broken:
        print(f"BROKEN {name}: it failed and names no failed test; see its output")
    for failure in failed:
        print(f"FAILED TWICE {_words(failure)}" if chosen else f"FAILED {_words(failure)}")
    for failure in unsteady:
        print(f"UNSTEADY {_words(failure)}")
    (results / "unsteady").write_text("".join(f"{failure.identifier}\n" for failure in unsteady))
    whole = [each for each in reports.values() if each]
    lanes = [f"{path.stem} {int(path.read_text()) / 60:.0f}" for path in sorted(results.glob("*.seconds"))]
    print(
        f"{sum(each.passed for each in whole)} passed, {len(failed)} failed, {len(unsteady)} unsteady,"
        f" {sum(each.skipped for each in whole)} skipped; minutes: {', '.join(lanes)}"
    )
    return int(bool(broken or failed or len(unsteady) > UNSTEADY_MOST))


def report(path: Path) -> Report | None:
    """Read a junit file; None: the session ended before it wrote one."""
    try:
        (suite,) = ElementTree.parse(path).getroot().iter("testsuite")
    except (OSError, ElementTree.ParseError):
        return None
    boot = path.stem.removeprefix(GUEST) if path.stem.startswith(GUEST) else ""
    failures: dict[str, Failure] = {}
    cases = skipped = 0
    for case in suite.iter("testcase"):
        cases += 1
        skipped += case.find("skipped") is not None
        for problem in (*case.findall("failure"), *case.findall("error")):
            name = f"{(case.get('classname') or '').replace('.', '/')}.py::{case.get('name')}"
            message = (problem.get("message") or "").partition("\n")[0][:300]
            failures.setdefault(name, Failure(name, message, boot))
    return Report(cases - skipped - len(failures), skipped, list(failures.values()))


def _is_unexplained(status: Path, reports: dict[Path, Report | None]) -> bool:
    """Whether a session failed, but not (or not only) by tests that its reports name."""
    if status.read_text().strip() == "0":
        return False
    own = [
        each
        for path, each in reports.items()
        if path.stem == status.stem or path.stem.startswith(f"{status.stem}-")
    ]
    return None in own or not any(each.failures for each in own if each)


def _words(failure: Failure) -> str:
    return f"{failure.identifier}{f' (guest {failure.boot})' if failure.boot else ''}: {failure.message}"


def again(failure: Failure) -> bool:
    """Run one test with nothing beside it; whether it passed. One that is skipped did not."""
    told = REPOSITORY / f"build/vm/{RELEASE}/{failure.boot}/junit.xml" if failure.boot else AGAIN_REPORT
    told.unlink(missing_ok=True)
    command = ["tests/lab/enter", "build/venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--junitxml", str(told)]
    if failure.boot:
        command = ["tests/vm/floor", "--boot", failure.boot, "--output", "build/vm"]
    print(f"\nonce more, alone: {failure.identifier}", flush=True)
    try:
        done = subprocess.run(
            [*command, failure.identifier], cwd=REPOSITORY, timeout=AGAIN_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and has_passed(report(told))


def has_passed(told: Report | None) -> bool:
    """Whether the report of a test's second run says that it ran and passed."""
    return told is not None and told.passed > 0 and not told.failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
