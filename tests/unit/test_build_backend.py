"""The build backend: whose headers it compiles with, what it says is missing, what lies in the wheel's .dist-info."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import archives
import build_backend

MULTIARCH = subprocess.run(
    ["cc", "-print-multiarch"], capture_output=True, text=True, check=False
).stdout.strip()


def test_the_kernels_headers_are_those_of_the_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Debian 13 has asm/ for every architecture."""
    for name in ("aarch64-linux-gnu", "alpha-linux-gnu", "x86_64-linux-gnu", MULTIARCH):
        (tmp_path / name / "asm").mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(build_backend, "INCLUDE", tmp_path)
    assert build_backend.machine_headers("cc") == tmp_path / MULTIARCH / "asm"


def test_without_them_a_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "alpha-linux-gnu/asm").mkdir(parents=True)
    monkeypatch.setattr(build_backend, "INCLUDE", tmp_path)
    with pytest.raises(
        SystemExit, match=f"apt-get install linux-libc-dev .there is no {tmp_path}/{MULTIARCH}"
    ):
        build_backend.machine_headers("cc")


@pytest.mark.parametrize(
    ("python", "words"),
    [
        ("/usr/bin/python3.11", f"apt-get install python3.{sys.version_info[1]}-dev"),
        (
            "/opt/python/bin/python3",
            "/opt/python/bin/python3 needs its own headers: there is no /nowhere/Python.h",
        ),
    ],
)
def test_the_headers_of_python(monkeypatch: pytest.MonkeyPatch, python: str, words: str) -> None:
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setattr(build_backend.os.path, "realpath", str)
    monkeypatch.setattr(build_backend.sysconfig, "get_paths", lambda: {"include": "/nowhere"})
    with pytest.raises(SystemExit, match=words):
        build_backend.check_tools()


def test_the_metadata_by_itself_is_the_wheels(tmp_path: Path) -> None:
    """PEP 517: all of the .dist-info but RECORD; with the licence."""
    info = tmp_path / build_backend.prepare_metadata_for_build_wheel(str(tmp_path))
    wheel = tmp_path / "wheel.whl"
    archives.write_wheel(wheel, {}, archives.read_project())
    with zipfile.ZipFile(wheel) as packed:
        there = {name: packed.read(name) for name in packed.namelist() if not name.endswith("/RECORD")}
    assert there == {f"{info.name}/{path.name}": path.read_bytes() for path in info.iterdir()}
    assert {"METADATA", "WHEEL", "LICENSE"} == {path.name for path in info.iterdir()}
