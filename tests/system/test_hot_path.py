"""What a start imports: nothing but the bundle's modules and the cheap ones (tests/unit/test_architecture.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bundle
import interpreter_build
from command import Pyrun

REPOSITORY = Path(__file__).resolve().parents[2]
CHEAP = set(
    "__future__ posix gc time errno marshal _json _socket _struct fcntl _signal select _imp _cffi_backend".split()
)


def imported(pyrun: Pyrun, *args: str) -> set[str]:
    """The modules that `pyrun ARGS` imports beyond those of an empty program, by -X importtime."""
    library = pyrun.binary.parent.parent / "lib"
    (hot,) = library.glob(f"python3.*/site-packages/pyrun/{bundle.file_name()}")
    python = str(Path(sys.executable))
    timed = (python, "-I", "-S", "-X", "importtime")
    environment = pyrun.env | {"PYRUN_COMMAND": "pyrun"}
    bare = subprocess.run([*timed, "-c", "pass"], capture_output=True, text=True, check=True)
    done = subprocess.run([*timed, str(hot), *args], capture_output=True, text=True, env=environment, check=False,
                          stdin=subprocess.DEVNULL, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return names(done.stderr) - names(bare.stderr)


def names(report: str) -> set[str]:
    lines = (line for line in report.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines} - {"imported package"}


@pytest.mark.parametrize(
    "args",
    [
        ("run", "--rm", "--net=none", "busybox", "true"),
        ("run", "--rm", "--net=bridge", "busybox", "true"),
        (
            "run",
            "--rm",
            "--net=bridge",
            "-p",
            "18080:80",
            "-m",
            "64m",
            "-e",
            "A=b",
            "-v",
            "/tmp:/mnt",
            "busybox",
            "true",
        ),
        ("exec", "warm", "true"),
        ("kill", "warm"),
    ],
    ids=lambda args: " ".join(args),
)
def test_a_hot_verb_imports_only_hot_modules(pyrun: Pyrun, args: tuple[str, ...]) -> None:
    # the first use makes the bridge and compiles the seccomp profile: that may import anything
    pyrun.ok("run", "-d", "--name", "warm", "--net=bridge", "busybox", "sleep", "100")
    hot = set(bundle.hot_modules(REPOSITORY / "runtime" / "pyrun"))
    assert imported(pyrun, *args) - hot - CHEAP == set()


STARTS = [
    ("run", "--rm", "--net=none", "busybox", "true"),
    ("run", "--rm", "--net=bridge", "busybox", "true"),
    ("run", "--rm", "--net=bridge", "-p", "18080:80", "busybox", "true"),
    ("exec", "warm", "true"),
]


def hidden(pyrun: Pyrun, file: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """`pyrun ARGS` where there is nothing in *file*."""
    words = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$0" && exec "$@"', str(file)]
    return subprocess.run([*words, str(pyrun.binary), *args], capture_output=True, text=True, env=pyrun.env,
                          check=False, stdin=subprocess.DEVNULL, timeout=60)  # fmt: skip


def made_ready(pyrun: Pyrun, start: tuple[str, ...]) -> None:
    """With a container to enter, and with what the first start makes: bridges and caches."""
    pyrun.ok("run", "-d", "--name", "warm", "--net=bridge", "busybox", "sleep", "100")
    pyrun.ok(*start)


@pytest.mark.parametrize("start", STARTS, ids=lambda words: " ".join(words))
def test_a_start_calls_no_cold_function(pyrun: Pyrun, start: tuple[str, ...]) -> None:
    """With nothing in the file of cold functions a start works; if not, `make hot` has to write the list anew."""
    made_ready(pyrun, start)
    (cold,) = pyrun.binary.parent.parent.glob("lib/python3.*/site-packages/pyrun/hot.*.cold")
    done = hidden(pyrun, cold, *start)
    assert (done.returncode, done.stderr) == (0, ""), "then make hot"
    rare = hidden(pyrun, cold, "ps", "--filter", "x")
    assert "EOFError" in rare.stderr, "a command that is not quick does call one"


@pytest.mark.skipif(interpreter_build.library() is None, reason="this Python has no libpython.a")
@pytest.mark.skipif("fcntl" not in sys.builtin_module_names, reason="this Python has few modules compiled in")
@pytest.mark.parametrize("start", STARTS, ids=lambda words: " ".join(words))
def test_a_start_needs_half_an_interpreter(pyrun: Pyrun, start: tuple[str, ...]) -> None:
    """Its second half begins with a module that is hidden here (csrc/interpreter)."""
    made_ready(pyrun, start)
    (first,) = pyrun.binary.parent.parent.glob("lib/python3.*/site-packages/pyrun/home/lib/*/encodings.pyc")
    done = hidden(pyrun, first, *start)
    assert (done.returncode, done.stderr) == (0, "")
    assert "init_fs_encoding" in hidden(pyrun, first, "ps").stderr, "a command that is not quick does need it"


def test_the_launcher_hides_the_environment(pyrun: Pyrun, tmp_path: Path) -> None:
    """Neither PYTHONPATH nor the current directory has a say in what is imported."""
    (tmp_path / "posix.py").write_text("raise SystemExit('imported from the current directory')")
    (tmp_path / "encodings.py").write_text("raise SystemExit('imported from PYTHONPATH')")
    done = pyrun(
        "version",
        env={"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "posix.py")},
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert os.environ.get("PYRUN_LAB") == "1"
