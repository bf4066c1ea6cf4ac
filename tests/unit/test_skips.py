"""With CI=true a test may be skipped for what capabilities.py finds or lists, not for what only looks like it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import capabilities

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("reason", "fine"),
    [
        (capabilities.MEASURES, True),
        *((text, True) for text in capabilities.INAPPLICABLE.values()),
        (f"{capabilities.LACKS}nothing", False), (capabilities.LACKS, False), ("measures; slow", False), ("", False),
    ],
)  # fmt: skip
def test_reasons(reason: str, fine: bool) -> None:
    assert capabilities.explains(reason) == fine


@pytest.mark.parametrize("name", ["ipv6", "no_ipv6", "selinux", "no_selinux"])
def test_a_probe_explains_what_it_finds_missing(name: str) -> None:
    """The words of a probe that found what it looks for are no reason."""
    words = capabilities._words(name)
    assert capabilities.explains(words) == bool(capabilities.missing(name))


@pytest.mark.parametrize("lacking", ["ipv6", "all"])
def test_a_capability_can_be_taken_away_for_a_trial(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "LACKING", {lacking})
    assert capabilities.missing("ipv6") == f"{capabilities.LACKS}IPv6"
    assert capabilities.missing("no_ipv6") == ""


def test_no_test_writes_such_a_reason_by_hand() -> None:
    own = {TESTS / "capabilities.py", Path(__file__).resolve()}
    texts = {path: path.read_text() for path in TESTS.rglob("*.py") if path.resolve() not in own}
    assert [str(path) for path, text in texts.items() if capabilities.LACKS in text] == []


SKIPS = """import pytest
import capabilities
def test_it():
    pytest.skip({})
"""


@pytest.mark.parametrize(
    ("reason", "status"), [("'this machine lacks nothing'", 1), ("capabilities.INAPPLICABLE['old runc']", 0)]
)
def test_continuous_integration_fails_for_any_other(tmp_path: Path, reason: str, status: int) -> None:
    (tmp_path / "test_it.py").write_text(SKIPS.format(reason))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "conftest",
        "-p",
        "no:cacheprovider",
        str(tmp_path),
    ]
    environment = os.environ | {"CI": "true", "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("UNEXPECTED SKIP" in done.stdout) == bool(status), done.stdout
