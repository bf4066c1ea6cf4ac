"""Fixtures of the system floor that only some of its tests want: pyrun as ordinary users run it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import leftovers
from command import Pyrun
from name_server import Site
from places import address_of, listening
from segments import segment
from unprivileged import SOLO, TESS, User, UserPyrun, make_users
from yard import SERVE


def _as(user: User, static_binary: Path, prepared_store: Path) -> Iterator[UserPyrun]:
    make_users()
    with leftovers.nothing_is_left():
        command = UserPyrun(static_binary, user)
        command.copy_store(prepared_store)
        yield command
        command.close()


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
    with leftovers.nothing_is_left():
        made = Site(tmp_path / "run", static_binary)
        yield made
        made.close()


@pytest.fixture
def card(lab: None) -> Iterator[None]:
    """A card with an address of the host, in no bridge. Before `pyrun` in a test: it outlives its containers."""
    with segment():
        yield


@pytest.fixture
def neighbour(pyrun: Pyrun) -> str:
    """The address of a container with a page, on the default network."""
    pyrun.ok("run", "-d", "--name", "neighbour", "busybox", *SERVE)
    listening("neighbour")
    return address_of("neighbour")
