"""Fixtures of the peers: the archive their image is made from, and the engines with one runtime or the other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import capabilities
import leftovers
from peers import engines
from peers.engines import CONTAINERS_CONF, IMAGE, RUN, RUNTIMES, Engine, output

# PYRUN_REFERENCE=1: every body beside runc, to see whether it is right; it takes twice as long
DEFAULT = RUNTIMES if os.environ.get("PYRUN_REFERENCE") == "1" else RUNTIMES[:1]


@pytest.fixture(scope="module")
def archive(lab: None, prepared_store: Path) -> Path:
    """The files of pyrun's busybox image, as a tar file every peer imports."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    (layer,) = prepared_store.glob("layers/*")
    output("tar", "-C", str(layer), "-cf", str(RUN / "busybox.tar"), ".")
    return RUN / "busybox.tar"


@pytest.fixture(scope="session")
def runtime_paths(static_binary: Path) -> dict[str, str]:
    """Where the runtimes are."""
    return {"pyrun-oci": str(static_binary.with_name("pyrun-oci")), "runc": shutil.which("runc") or "runc"}


@pytest.fixture(scope="module")
def podman_with(archive: Path, runtime_paths: dict[str, str]) -> Iterator[dict[str, Engine]]:
    """podman with each runtime, on one store."""
    sysctls = leftovers.sysctls()
    conf = RUN / "containers.conf"
    conf.write_text(
        CONTAINERS_CONF + "".join(f'{name} = ["{path}"]\n' for name, path in runtime_paths.items())
    )
    found = {}
    for name in runtime_paths:
        words = ["podman", "--root", f"{RUN}/podman", "--runroot", f"{RUN}/podman-run",
                 "--tmpdir", f"{RUN}/podman-tmp", "--runtime", name]  # fmt: skip
        found[name] = Engine("podman", name, words, [], "run/pyrun-oci/*")
        found[name].env["CONTAINERS_CONF"] = str(conf)
    podman = found["pyrun-oci"]
    podman.ok("import", "-q", str(archive), IMAGE)
    podman.ok("import", "-q", "-c", 'ENTRYPOINT ["sleep","1000"]', str(archive), "pause")
    yield found
    podman.clean()
    engines.take_away(sysctls)


@pytest.fixture(scope="module")
def docker_with(archive: Path, runtime_paths: dict[str, str]) -> Iterator[dict[str, Engine]]:
    """Docker with each runtime, by one daemon. Its default is ours: what cannot name a runtime, builds, gets that."""
    options = ("--add-runtime", f"pyrun={runtime_paths['pyrun-oci']}", "--default-runtime", "pyrun")
    with engines.docker_daemon(*options) as client:
        found = {}
        for name in runtime_paths:
            known_as = "pyrun" if name == "pyrun-oci" else name
            states = f"{RUN}/exec/runtime-pyrun/moby/*".lstrip("/")
            found[name] = Engine("docker", name, client, ["--runtime", known_as], states)
            found[name].env["DOCKER_BUILDKIT"] = "0"
        found["pyrun-oci"].ok("import", str(archive), IMAGE)
        yield found
        found["pyrun-oci"].clean()


@pytest.fixture
def podman(podman_with: dict[str, Engine], runtime: str) -> Iterator[Engine]:
    """podman, whose containers are removed after the test."""
    yield podman_with[runtime]
    podman_with[runtime].clean()


@pytest.fixture
def docker(docker_with: dict[str, Engine], runtime: str) -> Iterator[Engine]:
    """Docker, whose containers are removed after the test."""
    yield docker_with[runtime]
    docker_with[runtime].clean()


@pytest.fixture(params=DEFAULT)
def runtime(request: pytest.FixtureRequest) -> str:
    """The runtime under test; a test may ask for RUNTIMES instead."""
    return str(request.param)


@pytest.fixture(params=("podman", "docker"), scope="module")
def engine_name(request: pytest.FixtureRequest) -> str:
    """The two engines whose command lines have much in common; scope: one daemon at a time."""
    name = str(request.param)
    if reason := capabilities.missing({"docker": "dockerd"}.get(name, name)):
        pytest.skip(reason)
    return name


@pytest.fixture
def engine(engine_name: str, runtime: str, request: pytest.FixtureRequest) -> Engine:
    """podman or Docker, with one runtime or the other."""
    found: Engine = request.getfixturevalue(engine_name)
    return found
