"""A pytest plugin: a Docker daemon, its FORWARD policy DROP, runs beside every test, and keeps working.

    make test ARGS="-p beside_docker tests/system/test_networks.py tests/system/test_run.py"

One container of Docker's, published, is asked for after each module: from this host, from the LAN, from the internet,
and it asks for the outside. So no test is in Docker's way, nor Docker in any test's; continuous integration runs
tests/system with it. Not for the tests of tests/peers, which start daemons of their own, and what is marked `alone` is
left out: tests that themselves flush the host's rules or switch forwarding off (a reboot, the tutorial by hand).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import leftovers
from peers.engines import RUN, output
from peers.test_network_beside_docker import Side, docker_side

PORT = 18081  # which no test publishes


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked alone."""
    left_out = [item for item in items if item.get_closest_marker("alone")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def docker(lab: None, prepared_store: Path) -> Iterator[Side]:
    """The daemon with its container, before all tests and after all of them."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    (layer,) = prepared_store.glob("layers/*")
    archive = RUN / "busybox.tar"
    output("tar", "-C", str(layer), "-cf", str(archive), ".")
    with docker_side(archive, leftovers.sysctls(), PORT) as side:
        yield side


@pytest.fixture(scope="module", autouse=True)
def still_works(docker: Side, internet: SimpleNamespace) -> Iterator[None]:
    """Docker's side after each module."""
    yield
    assert docker.wrong(internet) == []
    assert "-P FORWARD DROP" in output("iptables", "-S", "FORWARD")
    _end_watchers(f":{PORT}/", f"http://{internet.far}/")


def _end_watchers(*asked: str) -> None:
    """busybox's timeout leaves one that stays until the time is over: the next test would take it for its own."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            if "timeout" in words and any(each in words for each in asked):
                os.kill(int(path.parent.name), signal.SIGKILL)
        except OSError:  # it has just ended
            continue
