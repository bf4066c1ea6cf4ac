"""What the Makefile does beside building: says what is too old, links what it installed, takes away what root left."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile with something built beside it, below a directory with a space in its name."""
    place = tmp_path / "a checkout"
    (place / "build/venv/bin").mkdir(parents=True)
    for name in ("runtime", "csrc", "tests", "images"):
        (place / name).mkdir()
    shutil.copy(REPOSITORY / "Makefile", place)
    return place


def make(place: Path, *words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    command = [*before, "make", "-C", str(place), "--no-print-directory", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_an_older_python_is_named_before_anything_is_fetched(checkout: Path) -> None:
    old = checkout.parent / "python3"
    old.write_text(
        '#!/bin/sh\nexec /usr/bin/python3 -c "import sys; sys.version_info = (3, 10, 12); exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    done = make(checkout, "packages", f"PYTHON={old}")
    assert (
        done.returncode
        and f"pyrun: {old} is Python 3.10, and 3.11 is needed: Debian 12, Ubuntu 24.04" in done.stderr
    )


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_the_links_of_an_installation(checkout: Path, mode: int) -> None:
    """Of a path with a space; where others have no way to what is linked, it is said."""
    for directory in (checkout.parent, *checkout.parent.parents[:-1]):
        if directory.stat().st_uid == os.geteuid() and directory.name.startswith(("pytest-", "test_")):
            directory.chmod(0o755)
    (checkout / "build").chmod(mode)
    done = make(checkout, "-o", "build", "install", f"DESTDIR={checkout.parent}/image")
    assert done.returncode == 0, done.stderr
    links = {path.name: os.readlink(path) for path in (checkout.parent / "image/usr/local/bin").iterdir()}
    assert links == {name: f"{checkout}/build/venv/bin/{name}" for name in ("pyrun", "pyrun-oci")}
    assert (f"root alone can use it, {checkout}/build is closed" in done.stdout) == (mode == 0o700), (
        done.stdout
    )


def test_clean_takes_away_what_root_left(checkout: Path) -> None:
    """By sudo where it must; a stand-in says here with what."""
    os.chown(checkout, NOBODY, NOBODY)
    cache = checkout / "tests/__pycache__"
    cache.mkdir()
    (cache / "test.pyc").touch()
    (checkout / ".mypy_cache/3.11").mkdir(parents=True)
    for path in checkout.parents[: len(checkout.parents) - 2]:
        path.chmod(path.stat().st_mode | 0o755)
    setpriv = ("setpriv", f"--reuid={NOBODY}", "--clear-groups")
    done = make(checkout, "clean", "ROOT=echo by root:", before=setpriv)
    assert done.returncode == 0 and "by root: rm -rf .mypy_cache" in done.stdout, done
    assert make(checkout, "clean").returncode == 0
    assert not cache.exists() and not (checkout / ".mypy_cache").exists()
    done = make(checkout, "clean", "ROOT=echo by root:", before=setpriv)
    assert done.returncode == 0 and "by root" not in done.stdout, done
