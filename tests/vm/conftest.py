"""Fixtures of the guest: a container by either cgroup driver, by root or by the user whose systemd lingers."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import capabilities
from oci import runtime as runtimes
from oci.box import make_root
from vm.container import Container, Owner

WORK = Path("/run/pyrun-guest")
USER = "user"  # of vagrant/provision.sh: sub-ids, a lingering systemd, controllers delegated to it
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def guest_work() -> Iterator[Path]:
    """A tmpfs for the bundles, with the busybox root file system they are copies of."""
    WORK.mkdir(mode=0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "guest", str(WORK)], check=True)
    make_root(WORK / "template", shutil.which("busybox") or "")
    yield WORK
    subprocess.run(["umount", "--lazy", str(WORK)], check=True)
    WORK.rmdir()


def _made(work: Path, driver: str, owner: Owner) -> Iterator[Container]:
    found = runtimes.find("pyrun-oci")
    assert found, "pyrun-oci is not installed"
    name = f"guest-{os.getpid()}-{next(_numbers)}"
    made = Container(found, work, name, driver, owner)
    yield made
    made.close()
    shutil.rmtree(made.directory)


@pytest.fixture(params=["cgroupfs" if capabilities.missing("systemd") else "systemd"])
def container(request: pytest.FixtureRequest, guest_work: Path) -> Iterator[Container]:
    """Root's, by the driver that belongs to this boot: each has its turn, and none two."""
    yield from _made(guest_work, request.param, Owner(0, ""))


@pytest.fixture(scope="session")
def lingering() -> Owner:
    """The ordinary user whose systemd runs; skipped where there is none."""
    if reason := capabilities.missing("systemd"):
        pytest.skip(reason)
    entry = pwd.getpwnam(USER)
    assert Path(f"/run/user/{entry.pw_uid}/bus").exists(), f"no systemd of {USER}'s"
    ranges = [line.split(":") for line in Path("/etc/subuid").read_text().splitlines()]
    (first,) = [int(start) for name, start, _ in ranges if name == USER]
    return Owner(entry.pw_uid, entry.pw_dir, first)


@pytest.fixture
def users_container(guest_work: Path, lingering: Owner) -> Iterator[Container]:
    """The user's, by the user's systemd."""
    yield from _made(guest_work, "systemd", lingering)
