"""Create and delete, again and again: nothing of it stays (soak.py). `make bench` does 5,000 cycles."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import soak

CYCLES = 200


@pytest.fixture
def bundle(tmp_path: Path, static_binary: Path) -> Path:
    """A bundle with a busybox that sleeps."""
    directory = tmp_path / "bundle"
    (directory / "rootfs/bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", directory / "rootfs/bin/busybox")
    (directory / "rootfs/bin/sleep").symlink_to("busybox")
    subprocess.run([str(static_binary.with_name("pyrun-oci")), "spec", "-b", str(directory)], check=True)
    config = json.loads((directory / "config.json").read_text())
    config["process"].update(args=["sleep", "1000"], terminal=False)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A root on the lab's /run."""
    path = Path("/run") / f"soak-{tmp_path.name}"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_cycles_leave_nothing(static_binary: Path, bundle: Path, root: Path) -> None:
    command = [str(static_binary.with_name("pyrun-oci")), "--root", str(root)]
    growth, _ = soak.soak(command, bundle, CYCLES, [root, Path("/run")])
    assert growth == {}


def test_the_picture_sees_what_is_left(static_binary: Path, bundle: Path, root: Path) -> None:
    """A container that nobody deletes shows in every count."""
    command = [str(static_binary.with_name("pyrun-oci")), "--root", str(root)]
    soak.cycle(command, bundle, start=False)
    before = soak.picture([root])
    words = [*command, "create", "--bundle", str(bundle), "left"]
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=30, check=True)
    try:
        growth = before.growth(soak.picture([root]))
    finally:
        subprocess.run([*command, "delete", "--force", "left"], timeout=30, check=True)
    assert set(growth) == {"descriptors", "processes", "cgroups", "files", "kilobytes"}, growth
