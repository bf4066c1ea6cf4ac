"""Fixtures and rules of all floors.

    unit/     no root, no kernel feature; imports pyrun and calls functions
    kernel/   root: `@in_child` runs a test in a forked child with namespaces of its own
    system/   the lab host (tests/lab/enter): `pyrun` runs the installed command with a store of its own, and
              whatever is left on the host afterwards fails the test

The floor's marker comes from the directory. A test that cannot run is skipped with a reason; when CI=true, only
what capabilities.py found missing may be skipped, and any other skip fails the run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import capabilities
import leftovers
import sandbox
from command import Pyrun

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent

try:
    import pyrun as _installed  # noqa: F401
except ImportError:  # not installed here: the unit tests can do with the sources
    sys.path.insert(0, str(REPOSITORY / "runtime"))

_MARKERS = {"kernel": ("root",), "system": ("root", "lab"), "oci": ("root", "lab"), "attacks": ("root", "lab"),
            "peers": ("root", "lab", "peers"), "bench": ("root", "lab", "bench"),
            "vm": ("root", "vm")}  # fmt: skip


# ── which tests run ────────────────────────────────────────────────────────────────────────────────


def pytest_addoption(parser: pytest.Parser) -> None:
    """Of the conformance floor (oci/conftest.py): where its verdicts go, and whose."""
    parser.addoption("--verdicts", metavar="FILE", help="write the conformance verdicts to FILE (JSON)")
    parser.addoption("--runtime", metavar="NAME", help="conformance: only pyrun-oci, runc or crun")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark by directory, then turn what is missing into skips."""
    for item in items:
        floor = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        for name in _MARKERS.get(floor, ()):
            item.add_marker(name)
        reason = _reason_to_skip(item, config)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def _reason_to_skip(item: pytest.Item, config: pytest.Config) -> str:
    if item.get_closest_marker("bench") and "bench" not in (config.option.markexpr or ""):
        return capabilities.MEASURES
    if item.get_closest_marker("root") and os.geteuid() != 0:
        return "needs root"
    if item.get_closest_marker("lab") and os.environ.get("PYRUN_LAB") != "1":
        return "needs the lab host: run it by tests/lab/enter, or `make test`"
    if item.get_closest_marker("vm") and (reason := capabilities.missing("test_vm")):
        return reason
    for marker in item.iter_markers("needs"):
        if reason := capabilities.missing(marker.args[0]):
            return reason
    return ""


_skipped: list[tuple[str, str]] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember every skip."""
    if report.skipped and isinstance(report.longrepr, tuple):
        _skipped.append((report.nodeid, str(report.longrepr[2]).removeprefix("Skipped: ")))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In continuous integration, a skip that capabilities.py does not explain is a failure."""
    if os.environ.get("CI") == "true" and _unexpected() and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which skips were not expected."""
    if os.environ.get("CI") == "true":
        for nodeid, reason in _unexpected():
            terminalreporter.write_line(f"UNEXPECTED SKIP {nodeid}: {reason}", red=True)


def _unexpected() -> list[tuple[str, str]]:
    return [(nodeid, reason) for nodeid, reason in _skipped if not capabilities.explains(reason)]


# ── the command ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def static_binary() -> Path:
    """The static binary: launcher, init and monitor in one."""
    path = Path(sys.executable).parent / "pyrun"  # not resolved: the environment's, not the system's
    if not path.exists():
        found = shutil.which("pyrun")
        if not found:
            pytest.fail(
                "pyrun is not installed in this environment: `make build`, then build/venv/bin/python -m pytest"
            )
        path = Path(found)
    return path


@pytest.fixture(scope="session")
def prepared_store(static_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with the busybox image, made once; tests get copies of it, and may not change what they share."""
    store = tmp_path_factory.mktemp("prepared-store")
    environment = os.environ | {"PYRUN_ROOT": str(store), "PYRUN_RUNROOT": f"{store}-run"}
    subprocess.run(
        [str(static_binary), "pull", "-q", "busybox"], check=True, env=environment, capture_output=True
    )
    before = _contents(store)
    yield store
    assert _contents(store) == before, "a test wrote into a layer that others share"


def _contents(directory: Path) -> dict[str, tuple[object, ...]]:
    """Everything below *directory*: mode, owner, size and time of change of what it holds, not of links to it."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns)
    return found


@pytest.fixture
def pyrun(static_binary: Path, prepared_store: Path, tmp_path: Path) -> Iterator[Pyrun]:
    """The installed command, with a store and a run directory of this test's own; see command.py.

    Afterwards every container and network is removed, and a thing left on the host fails the test.
    """
    with leftovers.nothing_is_left():
        command = Pyrun(static_binary, tmp_path)
        command.copy_store(prepared_store)
        yield command
        command.close()


# ── the surroundings ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def lab() -> None:
    """Only on the lab host."""
    if os.environ.get("PYRUN_LAB") != "1":
        pytest.skip("needs the lab host: run it by tests/lab/enter, or `make test`")


@pytest.fixture(scope="session")
def internet(lab: None) -> SimpleNamespace:
    """The lab's addresses, and `at(place, *words)`: run a command in the namespace internet or neighbour."""

    def at(place: str, *words: str, check: bool = True, timeout_s: float = 30) -> str:
        command = ["nsenter", f"--net=/run/pyrun-lab/{place}", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout

    return SimpleNamespace(
        host="198.51.100.2", gateway="198.51.100.1", neighbour="198.51.100.3", far="203.0.113.80", name="internet.test",
        uplink="eth0", at=at,
    )  # fmt: skip


@pytest.fixture(scope="session")
def sandbox_fork() -> Callable[..., object]:
    """`sandbox_fork(function, *args, flags=CLONE_NEW...)`: call it in a forked child; see sandbox.py."""
    return sandbox.fork
