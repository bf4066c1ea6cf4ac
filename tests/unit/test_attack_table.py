"""tests/attacks/README.md is true: every test it names is there, and every weakened build is in the table."""

from __future__ import annotations

import re
from pathlib import Path

ATTACKS = Path(__file__).resolve().parents[1] / "attacks"
TABLE = (ATTACKS / "README.md").read_text()
SOURCES = "\n".join(path.read_text() for path in ATTACKS.glob("test_*.py"))


def test_every_test_of_the_table_is_there() -> None:
    rows = [
        line for line in TABLE.splitlines() if line.startswith("|") and not line.startswith(("|-", "| CVE,"))
    ]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    defined = set(re.findall(r"^def (?:test_)?(\w+)\(", SOURCES, re.MULTILINE))
    assert named <= defined, named - defined
    assert len(rows) >= 28


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
