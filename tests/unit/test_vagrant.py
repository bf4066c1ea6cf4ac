"""vagrant/: the file is one that vagrant accepts, and what can be chosen is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

VAGRANT = Path(__file__).resolve().parents[2] / "vagrant"


def validate(directory: Path, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`vagrant validate`, with a home of its own; providers need not be installed."""
    return subprocess.run(
        ["vagrant", "validate", "--ignore-provider"], cwd=directory, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "VAGRANT_HOME": str(home / "vagrant")} | environment,
    )  # fmt: skip


@pytest.mark.needs("vagrant")
@pytest.mark.parametrize(
    "environment",
    [{}, {"PYRUN_BOX": "a/b", "PYRUN_BOX_URL": "file:///b.box", "PYRUN_CPUS": "1", "PYRUN_MEMORY": "512"}],
)
def test_vagrant_accepts_the_file(tmp_path: Path, environment: dict[str, str]) -> None:
    done = validate(VAGRANT, tmp_path, **environment)
    assert (done.returncode, "validated successfully" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.needs("vagrant")
@pytest.mark.parametrize(
    ("old", "new"),
    [("config.vm.hostname", "config.vm.hostnme"), ("provision.sh", "nosuch.sh"), ("end\n", "\n")],
)
def test_validating_finds_mistakes(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "provision.sh").touch()
    text = (VAGRANT / "Vagrantfile").read_text()
    assert old in text
    (tmp_path / "Vagrantfile").write_text(text.replace(old, new, 1))
    assert validate(tmp_path, tmp_path).returncode != 0


def test_everything_that_can_be_chosen_is_explained() -> None:
    variables = {
        word for word in (VAGRANT / "Vagrantfile").read_text().split('"') if word.startswith("PYRUN_")
    }
    assert {"PYRUN_BOX", "PYRUN_BOX_URL", "PYRUN_CPUS", "PYRUN_MEMORY"} <= variables
    readme = (VAGRANT / "README.md").read_text()
    assert not [name for name in variables if f"`{name}`" not in readme]
