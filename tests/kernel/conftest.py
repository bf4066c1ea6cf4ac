"""Fixtures of the kernel floor: the static binary, and monitors started with it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mounted
from monitored import Monitored


@pytest.fixture(scope="session")
def static_binary(static_binary: Path) -> Path:
    """As everywhere; PYRUN_BINARY names another one for init, monitor and undo, for instance with a sanitizer."""
    return Path(os.environ.get("PYRUN_BINARY") or static_binary)


@pytest.fixture
def binary(static_binary: Path) -> Path:
    return static_binary


@pytest.fixture
def begin(binary: Path, tmp_path: Path) -> Iterator[Callable[..., Monitored]]:
    """`begin(*command, **options)`: a container and its monitor; see monitored.py."""
    made: list[Monitored] = []

    def start(*command: str, **options: object) -> Monitored:
        made.append(Monitored(binary, tmp_path, list(command), **options))
        return made[-1]

    yield start
    for container in made:
        container.close()


# ── a file system alone, see mounted.py ────────────────────────────────────────────────────────────


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory everybody may enter: tmp_path's parents are root's alone."""
    directory = Path(tempfile.mkdtemp(prefix="pyrun-mounts-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def root(place: Path) -> Path:
    return mounted.make_root(place / "root")


@pytest.fixture
def source(place: Path) -> Path:
    directory = place / "source"
    directory.mkdir()
    (directory / "file").write_text("text")
    return directory


@pytest.fixture
def run(sandbox_fork: Callable[..., object], static_binary: Path, root: Path) -> mounted.Run:
    """`run(*entries, script=, standard=, linux=, config=, host=, meanwhile=, job=, user=)`; see mounted.run."""

    def run(*entries: mounted.Config, script: str = mounted.SHOW, **more: object) -> mounted.Seen:
        standard = more.pop("standard", (mounted.PROC, mounted.DEV))
        config = {"mounts": [*standard, *entries], "linux": more.pop("linux", {}), **more.pop("config", {})}  # type: ignore
        keys = ("host", "meanwhile", "job", "user")
        return sandbox_fork(  # type: ignore[return-value]
            mounted.run, str(static_binary), str(root), config, script, *[more.get(key) for key in keys]
        )

    return run
