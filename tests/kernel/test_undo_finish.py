"""The undo list's `finish`: what takes a program, run by the list and only as long as its file is there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PROGRAM = """#!/bin/sh
echo "$@" >>{calls}
env | grep -v '^PWD=\\|^SHLVL=\\|^_=' >>{calls}
exit {status}
"""


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


def run(binary: Path, directory: Path, *lines: str) -> tuple[int, str]:
    (directory / "list").write_text("".join(f"{line}\n" for line in lines))
    words = ["pyrun-undo", str(directory / "list")]
    done = subprocess.run(words, executable=binary, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def program(directory: Path, calls: Path, status: int = 0) -> Path:
    path = directory / "program"
    path.write_text(PROGRAM.format(calls=calls, status=status))
    path.chmod(0o755)
    return path


def test_it_is_called_with_the_file_and_nothing_of_the_environment(
    binary: Path, tmp_path: Path, calls: Path
) -> None:
    file = tmp_path / "cni.json"
    file.touch()
    assert run(binary, tmp_path, f"finish\t{program(tmp_path, calls)}\t{file}") == (0, "")
    assert calls.read_text() == f"system finish {file}\n"


def test_a_file_that_is_gone_is_done(binary: Path, tmp_path: Path, calls: Path) -> None:
    assert run(binary, tmp_path, f"finish\t{program(tmp_path, calls)}\t{tmp_path}/gone") == (0, "")
    assert not calls.exists()


@pytest.mark.parametrize("missing", [False, True])
def test_a_failure_is_told_and_the_rest_goes_on(
    binary: Path, tmp_path: Path, calls: Path, missing: bool
) -> None:
    file, later = tmp_path / "cni.json", tmp_path / "later"
    file.touch()
    later.touch()
    path = tmp_path / "none" if missing else program(tmp_path, calls, 1)
    status, said = run(binary, tmp_path, f"finish\t{path}\t{file}", f"unlink\t{later}")
    assert status == 1
    assert f"undo: finish {path}" in said
    assert not later.exists()


def test_it_takes_two_fields(binary: Path, tmp_path: Path) -> None:
    assert run(binary, tmp_path, "finish\t/bin/true")[0] == 1
    assert run(binary, tmp_path, "finish\tbin/true\t/x")[0] == 1
