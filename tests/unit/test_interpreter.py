"""The planner's own interpreter (csrc/interpreter): what it is half-way, what it is whole, when there is none."""

from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import bundle
import bundle_code
import interpreter_build

needs_library = pytest.mark.skipif(
    interpreter_build.library() is None, reason="this Python has no libpython.a"
)

HALF = """
import posix, sys, time, _signal
from _halfway import complete
import builtins
what = [
    sys.argv[1:] == ["\\u00e4", chr(0xdcff)], sys.path[1] == sys.path[0] + "/lib-dynload",
    not hasattr(builtins, "open"), not hasattr(sys, "stdout"),
    b"\\xff".decode("utf-8", "surrogateescape") == chr(0xdcff), b"\\xe4".decode("latin-1") == "\\u00e4",
]
posix.write(2, f"{what}\\n".encode())
try:
    posix.kill(posix.getpid(), _signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    posix.write(2, b"interrupted\\n")
reader, writer = posix.pipe()
posix.close(reader)
try:
    posix.write(writer, b"x")
except BrokenPipeError:
    posix.write(2, b"broken\\n")
"""

WHOLE = """
complete()
import json, codecs
print(json.dumps(sys.stdin.read()), open("/dev/null").read(), codecs.lookup("u8").name, flush=True)
try:
    posix.kill(posix.getpid(), _signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("interrupted", flush=True)
posix._exit(7)
"""


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = interpreter_build.build(tmp_path_factory.mktemp("interpreter"), "cc")
    assert made
    return made


def execute(interpreter: Path, program: str) -> subprocess.CompletedProcess[bytes]:
    """The program on that interpreter, beside the home that the trial was made in."""
    path = interpreter.with_name("program.pyc")
    path.write_bytes(bundle_code.as_pyc(bundle_code.compiled(ast.parse(program), "program")))
    words = [
        interpreter.with_name("home") / "python3",
        "-I",
        "-Xutf8",
        f"-Xlibrary={sysconfig.get_path('stdlib')}",
    ]
    return subprocess.run([*words, path, "\u00e4", b"\xff"], executable=interpreter, input=b"said", check=False,
                          capture_output=True)  # fmt: skip


@needs_library
def test_half_way_it_has_what_a_start_needs_and_then_the_rest(interpreter: Path) -> None:
    done = execute(interpreter, HALF + WHOLE)
    assert done.stderr.splitlines() == [str([True] * 6).encode(), b"interrupted", b"broken"]
    assert (done.returncode, done.stdout) == (7, b'"said"  utf-8\ninterrupted\n')


@needs_library
def test_an_error_half_way_is_told_and_125(interpreter: Path) -> None:
    done = execute(interpreter, "raise ValueError('half-way')")
    assert done.returncode == 125 and b"ValueError: half-way" in done.stderr


@needs_library
def test_the_bundles_program_makes_it_whole_when_that_is_needed(interpreter: Path) -> None:
    """A codec looked up by the interpreter itself, a stream, a file: each by itself is enough."""
    start = bundle.without_modules()
    end = "sys.stdout.write('whole' if sys.stdout.encoding == 'utf-8' else '')\nsys.stdout.flush()\nposix._exit(0)\n"
    for use in ("b'\\xe4'.decode('cp1252')", "sys.stdin.read()", "open('/dev/null').read()", "import json"):
        done = execute(interpreter, f"{start}\n{use}\n{end}")
        assert (done.stdout, done.stderr) == (b"whole", b""), use


@needs_library
def test_one_that_is_not_whole_after_all_is_not_taken(interpreter: Path) -> None:
    assert interpreter_build.works(interpreter, interpreter.parent)
    assert not interpreter_build.works(Path(sys.executable), interpreter.parent)


def test_where_none_can_be_built_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interpreter_build.build(tmp_path, "false") is None
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: None)
    assert interpreter_build.build(tmp_path, "cc") is None
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and all("starts take 2 ms more" in line for line in said)
    assert f"{sys.executable} has no libpython.a" in said[1]
