"""Fixtures of the kernel floor: the static binary, and monitors started with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from monitored import Monitored
from pyrun import linux
from small_host import Host, OnHost


@pytest.fixture
def binary(request: pytest.FixtureRequest) -> Path:
    """The static binary; PYRUN_BINARY names another one, for instance with a sanitizer."""
    return Path(os.environ.get("PYRUN_BINARY") or request.getfixturevalue("static_binary"))


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


@pytest.fixture
def on_host(sandbox_fork: Callable[..., Any]) -> OnHost:
    """Run a function on a host of its own, and end what it started."""

    def run(function: Callable[[Host], None]) -> None:
        # A pid namespace too, so that every process a test leaves ends with it.
        sandbox_fork(_prepared, function, flags=linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWPID)

    return run


def _prepared(function: Callable[[Host], None]) -> None:
    function(Host())
