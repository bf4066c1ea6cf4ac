"""Fixtures of the system floor that only some of its tests want: pyrun as ordinary users run it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import leftovers
from name_server import Site
from unprivileged import SOLO, TESS, User, UserPyrun, make_users


def _as(user: User, static_binary: Path, prepared_store: Path) -> Iterator[UserPyrun]:
    make_users()
    before = leftovers.picture()
    command = UserPyrun(static_binary, user)
    command.copy_store(prepared_store)
    yield command
    command.close()
    left = leftovers.settle(before)
    assert not left, "left on the host:\n" + "\n".join(left)


@pytest.fixture
def tess(static_binary: Path, prepared_store: Path) -> Iterator[UserPyrun]:
    """pyrun as a user with ranges in /etc/subuid and /etc/subgid."""
    yield from _as(TESS, static_binary, prepared_store)


@pytest.fixture
def solo(static_binary: Path, prepared_store: Path) -> Iterator[UserPyrun]:
    """pyrun as a user who may map nobody but herself."""
    yield from _as(SOLO, static_binary, prepared_store)


@pytest.fixture
def site(static_binary: Path, tmp_path: Path) -> Iterator[Site]:
    # makes /run/netns a mount
    subprocess.run("ip netns add first && ip netns delete first", shell=True, check=True)
    before = leftovers.picture()
    made = Site(tmp_path / "run", static_binary)
    yield made
    made.close()
    left = leftovers.settle(before)
    assert not left, "left on the host:\n" + "\n".join(left)
