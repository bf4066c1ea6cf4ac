"""The linters are tests: one command, `make test`, says whether the tree is in order."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import build_backend
import interpreter_build

REPOSITORY = Path(__file__).resolve().parents[2]
CSRC = REPOSITORY / "csrc"
C_FILES = sorted(str(path) for path in CSRC.rglob("*.[ch]"))
PYTHON_PATHS = ["runtime", "csrc", "tests"]

pytestmark = pytest.mark.timeout(300)


def check(*command: str) -> None:
    """Run a linter on the tree; what it prints is the test's message."""
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command[:6])} ...\n{done.stdout[-6000:]}{done.stderr[-3000:]}"


def python_tool(name: str, *words: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}: pip install --group dev")
    check(sys.executable, "-m", name, *words)


def program(name: str, *words: str) -> None:
    if not shutil.which(name):
        pytest.skip(f"needs {name}: apt-get install {name}")
    check(name, *words)


def test_ruff_finds_nothing() -> None:
    python_tool("ruff", "check", "--no-cache", *PYTHON_PATHS)


def test_ruff_would_format_nothing() -> None:
    python_tool("ruff", "format", "--no-cache", "--check", "--diff", "--quiet", *PYTHON_PATHS)


def test_mypy_strict_is_content() -> None:
    python_tool(
        "mypy", "--strict", "runtime/pyrun", "csrc/build_backend.py", "csrc/archives.py", "csrc/bundle.py",
        "csrc/bundle_home.py", "csrc/bundle_main.py", "csrc/interpreter_build.py",
    )  # fmt: skip


def test_spelling() -> None:
    found = [
        "README.md",
        "DECISIONS.md",
        "CHANGELOG.md",
        "docs",
        "images",
        "vagrant",
        "Makefile",
        *PYTHON_PATHS,
    ]
    python_tool(
        "codespell_lib", "--toml", "pyproject.toml", *(each for each in found if (REPOSITORY / each).exists())
    )


def test_clang_format_would_change_nothing() -> None:
    program("clang-format", "--dry-run", "-Werror", *C_FILES)


def test_shellcheck_finds_nothing() -> None:
    scripts = [".ci/run", "tests/lab/demo", "tests/lab/install-packages", "vagrant/provision.sh",
               *(f"tests/vm/{name}" for name in ("guest/init", "guest/first", "guest/job")),
               "tests/vm/bench/measure"]  # fmt: skip
    program("shellcheck", *(each for each in scripts if (REPOSITORY / each).exists()))


def test_cppcheck_finds_nothing() -> None:
    program(
        "cppcheck", "--quiet", "--std=c11", "--error-exitcode=1", "--enable=warning,performance,portability",
        "--inline-suppr", "--suppress=missingIncludeSystem", "-Icsrc",
        *(each for each in C_FILES if each.endswith(".c")),
    )  # fmt: skip


def test_the_compiler_warns_of_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """-Wall -Wextra -Werror, for the static binary and for what is compiled with Python's headers."""
    try:
        build_backend.build_static(tmp_path, extra=("-Werror",))
    except SystemExit:
        pytest.fail(capfd.readouterr().err)
    include = sysconfig.get_paths()["include"]
    for source in ("csrc/shim.c", str(interpreter_build.SOURCE)):
        check("cc", *build_backend.WARNINGS, "-Werror", "-fsyntax-only", f"-I{include}", source)


def test_the_static_binary_is_small(tmp_path: Path) -> None:
    """Under 200 kB with musl on x86_64: it is mapped by every container's monitor."""
    if build_backend.musl_compiler(tmp_path) is None:
        pytest.skip("needs musl-gcc: apt-get install musl-tools")
    assert build_backend.build_static(tmp_path).stat().st_size < 200_000
