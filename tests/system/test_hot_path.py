"""What a start imports: nothing but the bundle's modules and the cheap ones (tests/unit/test_architecture.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bundle
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


@pytest.mark.parametrize(
    "start",
    [
        ("run", "--rm", "--net=none", "busybox", "true"),
        ("run", "--rm", "--net=bridge", "busybox", "true"),
        ("run", "--rm", "--net=bridge", "-p", "18080:80", "busybox", "true"),
        ("exec", "warm", "true"),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_start_calls_no_cold_function(pyrun: Pyrun, start: tuple[str, ...]) -> None:
    """With nothing in the file of cold functions a start works; if not, `make hot` has to write the list anew."""
    pyrun.ok("run", "-d", "--name", "warm", "--net=bridge", "busybox", "sleep", "100")
    pyrun.ok(*start)  # makes bridges and caches
    (cold,) = pyrun.binary.parent.parent.glob("lib/python3.*/site-packages/pyrun/hot.*.cold")
    hidden = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$0" && exec "$@"', str(cold)]
    done = subprocess.run([*hidden, str(pyrun.binary), *start], capture_output=True, text=True, env=pyrun.env,
                          check=False, stdin=subprocess.DEVNULL, timeout=60)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), "then make hot"
    rare = subprocess.run([*hidden, str(pyrun.binary), "ps", "--filter", "x"], capture_output=True,
                          text=True, env=pyrun.env, check=False, timeout=60)  # fmt: skip
    assert "EOFError" in rare.stderr, "a command that is not quick does call one"


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
