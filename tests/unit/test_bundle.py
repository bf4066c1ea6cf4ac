"""The hot bundle (csrc/bundle.py): what is put in, and how it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import bundle


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small pyrun: a command line that uses one hot and one cold module."""
    files = {
        "pyrun/__init__.py": "",
        "pyrun/errors.py": "KIND = 'hot'",
        "pyrun/cold.py": "KIND = 'cold'",
        "pyrun/cli/__init__.py": "",
        "pyrun/cli/main.py": "from pyrun import errors\n\ndef main(argv):\n"
        "    from .. import cold\n    import pyrun.cold\n"
        "    print(argv[1:], errors.KIND, cold.KIND, errors.__file__, cold.__file__)\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path / "pyrun"


def test_imports_at_module_level_are_hot_and_those_in_functions_are_not(package: Path) -> None:
    assert list(bundle.hot_modules(package)) == ["pyrun", "pyrun.cli", "pyrun.errors", "pyrun.cli.main"]


def test_it_runs_without_the_sources_of_hot_modules_and_finds_cold_ones(package: Path) -> None:
    hot = package / bundle.file_name()
    for name, data in bundle.build(package).items():
        (package / name).write_bytes(data)
    (package / "errors.py").unlink()
    done = subprocess.run(
        [sys.executable, "-I", "-S", hot, "a", "b"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout == f"['a', 'b'] hot cold {package}/errors.py {package}/cold.py\n"


def test_relative_imports_are_resolved(tmp_path: Path) -> None:
    path = tmp_path / "main.py"
    path.write_text("from . import options\nfrom ..store.paths import root\ndef f():\n    import json\n")
    assert set(bundle.module_imports(path, "pyrun.cli.main")) == {
        "pyrun.cli", "pyrun.cli.options", "pyrun.store.paths", "pyrun.store.paths.root",
    }  # fmt: skip
