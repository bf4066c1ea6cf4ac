"""tests/attacks/README.md is true: every test it names is there, and every weakened build is in the table."""

from __future__ import annotations

import re
from pathlib import Path

ATTACKS = Path(__file__).resolve().parents[1] / "attacks"
TABLE = (ATTACKS / "README.md").read_text()
SOURCES = "\n".join(path.read_text() for path in [*ATTACKS.glob("test_*.py"), ATTACKS.parent / "weakened.py"])
ROWS = [line for line in TABLE.splitlines() if line.startswith("|") and not line.startswith(("|-", "| CVE,"))]
# A test elsewhere, and the names in it: ../system/test_x `one`, `another`
ELSEWHERE = re.compile(r"\.\./(\w+/test_\w+)((?:,? `\w+`)*)")


def defined(source: str) -> set[str]:
    return set(re.findall(r"^def (?:test_)?(\w+)\(", source, re.MULTILINE))


def test_every_test_of_the_table_is_there() -> None:
    named = {name for row in ROWS for name in re.findall(r"`(\w+)`", ELSEWHERE.sub("", row))}
    assert named <= defined(SOURCES), named - defined(SOURCES)
    for file in {name for row in ROWS for name in re.findall(r"(?<!/)\btest_\w+", row)}:
        assert (ATTACKS / f"{file}.py").is_file(), file
    assert len(ROWS) >= 28


def test_every_test_elsewhere_is_there() -> None:
    """A pointer names its test: a file of that name may be there without it."""
    pointers = [found for row in ROWS for found in ELSEWHERE.findall(row)]
    assert len(pointers) >= 3
    for file, names in pointers:
        there = defined((ATTACKS.parent / f"{file}.py").read_text())
        named = set(re.findall(r"\w+", names))
        assert named and named <= there, f"{file}: {sorted(named - there) or 'names no test'}"


def test_every_weakened_build_is_in_the_table_and_used() -> None:
    made = set(re.findall(r"^([A-Z_]+) = \(\s*\"[\w/]+\.(?:c|h|py)\",", SOURCES, re.MULTILINE))
    assert len(made) > 20
    assert made <= set(re.findall(r"\b[A-Z_]{6,}\b", TABLE)), made - set(re.findall(r"\b[A-Z_]{6,}\b", TABLE))
    unused = [name for name in made if len(re.findall(rf"\b{name}\b", SOURCES)) < 2]
    assert not unused


def test_every_cve_of_the_tests_is_in_the_table() -> None:
    whole = set(re.findall(r"CVE-\d{4}-\d+", SOURCES))
    rows = TABLE.replace(", -", ", CVE-2022-")
    missing = {each for each in whole if each not in rows}
    # of images and stores: not of start and exec
    assert missing <= {"CVE-2026-53488", "CVE-2021-41091"}, missing
