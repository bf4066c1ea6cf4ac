"""The hot bundle (csrc/bundle.py): what is put in, and how it loads."""

from __future__ import annotations

import ast
import marshal
import os
import subprocess
import sys
import sysconfig
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


def write(package: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(data)


def test_it_runs_without_the_sources_of_hot_modules_and_finds_cold_ones(package: Path) -> None:
    hot = package / bundle.file_name()
    write(package, bundle.build(package))
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
    write(package, files)
    (cold,) = (name for name in files if name.endswith(".cold"))
    assert b"helped" in files[cold] and b"list[str]" not in b"".join(files.values())
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
    assert [each.name for each in bundle_code.movable(tree)] == ["plain"]
    assert bundle_code.Split(text.encode(), "x.py", {}).hot("run")[1] == ("plain",)
    assert bundle_code.Split(text.encode(), "x.py", None).hot("run")[1] == ()
    assert bundle_code.Split(text.encode(), "x.py", {"plain": set()}).hot("run")[1] == ()


def test_what_only_a_checker_reads_is_left_out() -> None:
    source = (
        b"TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from typing import Any\nelse:\n    other: int = 1\n"
    )
    code, _ = bundle_code.Split(source, "m.py", None).hot("run")
    names: dict[str, object] = {}
    exec(code, names)
    assert names["other"] == 1 and "Any" not in code.co_names


def test_a_function_is_in_the_files_of_the_ways_that_call_it() -> None:
    listed = bundle_code.hot_functions("m\n    a b\n    run, oci run: c  # rare\nn\n    exec: a\n")
    assert listed == {"m": {"a": set(), "b": set(), "c": {"run", "oci run"}}, "n": {"a": {"exec"}}}
    text = b"def a(): pass\ndef b(): return 'beta'\ndef c(): return 'gamma'\ndef d(): return 'delta'\n"
    split = bundle_code.Split(text, "m.py", listed["m"])
    code, cold = split.hot("oci run")
    assert cold == ("d",) and {"a", "b", "c"} <= set(code.co_names)
    code, cold = split.hot("exec")
    assert cold == ("c", "d") and "c" not in code.co_names
    rest = marshal.loads(split.cold)
    assert [each.co_name for each in rest.co_consts if hasattr(each, "co_name")] == ["c", "d"]


HOME_TOUR = """
import codecs, sys
path = [sys.argv[1], sys.argv[1] + "/lib-dynload"]
print(sys.stdin.read().strip(), sys.path == path, "encodings.utf_8" in sys.modules)
assert b"\\xc3\\xa4".decode() == "\\u00e4" and "\\udcff".encode("utf-8", "surrogateescape") == b"\\xff"
pieces = codecs.getincrementaldecoder("utf-8")()
assert (pieces.decode(b"\\xc3"), pieces.decode(b"\\xa4", True)) == ("", "\\u00e4")
try:
    b"\\xff".decode("UTF-8")
except UnicodeDecodeError as problem:
    assert problem.encoding == "utf-8"
import encodings
home = encodings.__file__
with codecs.open(home, "rb", "latin-1") as file: file.read()
import io
assert codecs.getreader("utf-8")(io.BytesIO(b"\\xc3\\xa4")).read() == "\\u00e4"
assert encodings.normalize_encoding("UTF 8") == "UTF_8"
import encodings, json, locale
print("/home/" in home, "/home/" in encodings.__file__, "m\\u00fc".encode("idna"), codecs.lookup("u8").name)
"""


@pytest.mark.parametrize("frozen", ["on", "off"], ids=["as it is", "as one made for debugging"])
def test_the_interpreter_at_home_has_utf_8_and_finds_everything_else(tmp_path: Path, frozen: str) -> None:
    write(tmp_path, bundle.home())
    library = sysconfig.get_path("stdlib")
    words = [
        tmp_path / "home/python3",
        "-I",
        "-S",
        "-Xutf8",
        f"-Xlibrary={library}",
        f"-Xfrozen_modules={frozen}",
        "-c",
        HOME_TOUR,
        library,
    ]
    done = subprocess.run(
        words, executable=os.path.realpath(sys.executable), input="\u00e4\n", capture_output=True, encoding="utf-8",
        check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("\u00e4 True False\nTrue False b'xn--m-eha' utf-8\n", "")


def test_a_module_asked_for_alone_comes_with_little() -> None:
    found = bundle.ways(Path(__file__).resolve().parents[2] / "runtime/pyrun")
    places = bundle.places(found)
    assert places["pyrun.linux"] == "system calls" and set(found["system calls"]) == {
        "pyrun.boot",
        "pyrun.linux",
    }
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
        gone += [f"{module}.{name}" for name in set(names) - there]
        gone += [f"{module}: {way}" for ways in names.values() for way in ways - set(bundle.WAYS)]
    assert not gone


def test_relative_imports_are_resolved(tmp_path: Path) -> None:
    path = tmp_path / "main.py"
    path.write_text("from . import options\nfrom ..store.paths import root\ndef f():\n    import json\n")
    assert set(bundle.module_imports(path, "pyrun.cli.main")) == {
        "pyrun.cli", "pyrun.cli.options", "pyrun.store.paths", "pyrun.store.paths.root",
    }  # fmt: skip
