"""The hot bundle (csrc/bundle.py): what is put in, and how it loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bundle
import bundle_code


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


def test_functions_that_are_not_listed_are_loaded_when_they_are_called(package: Path) -> None:
    (package / "cli/main.py").write_text(
        "from __future__ import annotations\nimport errno\nfrom errno import ENOENT as missing, EIO\n"
        "limit: int = 3\n"
        "def main(argv: list[str]) -> None:\n    print(errno.EPERM, missing, EIO, limit, rare(1, more=argv[1:]))\n"
        "    if argv[1:]:\n        never()\n"
        "def rare(first: int, *, more: list[str]) -> object:\n    return helped(first), more, rare.__name__\n"
        "def helped(first: int) -> int:\n    return first + limit\n"
        "def never() -> None:\n    raise SystemExit('line ' + str(__import__('sys')._getframe().f_lineno))\n"
    )
    files = bundle.build(package, "pyrun.cli.main\n    main  # the only one\n")
    for name, data in files.items():
        (package / name).write_bytes(data)
    (cold,) = (name for name in files if name.endswith(".cold"))
    assert b"helped" in files[cold] and b"list[str]" not in files[cold] + files[bundle.file_name()]
    started = [sys.executable, "-I", "-S", package / bundle.file_name()]
    done = subprocess.run(started, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1 2 5 3 (4, [], 'rare')\n", "")
    done = subprocess.run([*started, "x"], capture_output=True, text=True, check=False)
    assert done.stderr == "line 14\n", "the place in the source"
    (package / cold).unlink()
    done = subprocess.run(started, capture_output=True, text=True, check=False)
    assert f"No such file or directory: '{package / cold}'" in done.stderr


def test_what_cannot_be_cold_is_not(package: Path) -> None:
    text = "def plain(): pass\n@print\ndef wrapped(): pass\nif 1:\n    def twice(): pass\n"
    text += "def twice(): pass\nclass C: pass\ndef wrapped_later(): plain = 1\nwrapped_later = print(wrapped_later)\n"
    text += "def changed():\n    global changed\n"
    tree = ast.parse(text)
    assert [each.name for each in bundle_code.cold_part(tree, set()).body] == ["plain"]  # type: ignore[attr-defined]
    assert [type(each).__name__ for each in tree.body] == [
        "FunctionDef", "If", "FunctionDef", "ClassDef", "FunctionDef", "Assign", "FunctionDef",
    ]  # fmt: skip
    assert bundle_code.cold_part(ast.parse(text), None).body == []
    assert bundle_code.cold_part(ast.parse(text), {"plain"}).body == []


def test_a_module_asked_for_alone_comes_with_little() -> None:
    found = bundle.ways(Path(__file__).resolve().parents[2] / "runtime/pyrun")
    places = bundle.places(found)
    assert places["pyrun.linux"] == "system calls" and len(found["system calls"]) == 1
    assert places["pyrun.engine.run"] == "run" and places["pyrun.engine.exec_"] == "exec"
    assert set(places) == {name for title in list(found)[1:] for name in found[title]}


def test_the_list_of_hot_functions_names_functions_that_exist() -> None:
    """`make hot` writes it anew; a name that is gone there would mean that nobody did for long."""
    package = Path(__file__).resolve().parents[2] / "runtime/pyrun"
    modules = bundle.hot_modules(package)
    gone = []
    for module, names in bundle_code.hot_functions(bundle.HOT_FUNCTIONS.read_text()).items():
        tree = ast.parse(modules[module].read_bytes()) if module in modules else ast.Module([], [])
        there = {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}
        gone += [f"{module}.{name}" for name in names - there]
    assert not gone


def test_relative_imports_are_resolved(tmp_path: Path) -> None:
    path = tmp_path / "main.py"
    path.write_text("from . import options\nfrom ..store.paths import root\ndef f():\n    import json\n")
    assert set(bundle.module_imports(path, "pyrun.cli.main")) == {
        "pyrun.cli", "pyrun.cli.options", "pyrun.store.paths", "pyrun.store.paths.root",
    }  # fmt: skip
