"""An installation of pyrun with one of its protections taken out: by it an attack test shows that it would notice.

A change is (file below csrc/ or runtime/pyrun/, pattern, what takes its place); a pattern that no longer fits exactly
once fails the test, so that a protection cannot move away from the test that watches it.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import build_backend
import fuzzing
import pyrun

Change = tuple[str, str, str]
CSRC = fuzzing.CSRC
PACKAGE = Path(pyrun.__file__).resolve().parent

# Taken out by the tests of images and by those of bundles; other changes stand with their tests.
RESOLVES_ANYWHERE = (
    "mount_calls.h",
    r"how = \{flags \| O_CLOEXEC, 0, resolve\}",
    "how = {flags | O_CLOEXEC, 0, 0 * resolve}",
)
DESCRIPTORS_STAY = ("init_birth.c", r"if \(first > last \|\| ", "if (1 || ")
BY_PATH_ALONE = ("init_rootfs.c", r"mounted = mount_of\(plan, inside\);", "mounted = NULL;")


def install(directory: Path, *changes: Change) -> Path:
    """Make it in *directory*; returns its bin/pyrun-oci, beside which is bin/pyrun."""
    library = directory / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    library.mkdir(parents=True)
    (directory / "bin").mkdir()
    for entry in PACKAGE.parent.iterdir():
        if entry.name != "pyrun":
            (library / entry.name).symlink_to(entry)
    python = [change for change in changes if change[0].endswith(".py")]
    # the bundle has the modules as they were
    left_out = ("__pycache__", "hot.*") if python else ("__pycache__",)
    shutil.copytree(PACKAGE, library / "pyrun", ignore=shutil.ignore_patterns(*left_out))
    for change in python:
        replace(library / "pyrun", *change)
    binary = PACKAGE.parents[3] / "bin/pyrun"
    if len(python) < len(changes):
        shutil.copytree(CSRC, directory / "csrc", ignore=shutil.ignore_patterns("__pycache__"))
        for change in changes:
            if change not in python:
                replace(directory / "csrc", *change)
        binary = build(directory)
    (directory / "bin/python3").symlink_to(Path(sys.executable).resolve())
    for name in ("pyrun", "pyrun-oci"):
        shutil.copy(binary, directory / "bin" / name)
    return directory / "bin/pyrun-oci"


def replace(top: Path, name: str, pattern: str, instead: str) -> None:
    """Change a file, or the one beside or below it that the code has moved to. AssertionError unless *pattern* is
    there exactly once."""
    places = [
        path for path in top.rglob(f"*{Path(name).suffix}") if re.search(pattern, path.read_text(), re.DOTALL)
    ]
    place = top / name if top / name in places or not places else places[0]
    text, times = re.subn(pattern, instead.replace("\\", "\\\\"), place.read_text(), flags=re.DOTALL)
    assert times == 1 and (place == top / name or len(places) == 1), (
        f"{name} has changed: {pattern!r} is there {times} times; weaken it in another way"
    )
    place.write_text(text)


def build(directory: Path) -> Path:
    """The static binary of *directory*/csrc."""
    scratch = directory / "scratch"
    scratch.mkdir()
    kept = build_backend.CSRC
    build_backend.CSRC = directory / "csrc"
    try:
        return build_backend.build_static(scratch, extra=("-w",))
    finally:
        build_backend.CSRC = kept
