"""Fixtures of the conformance floor, and the verdicts of its bodies."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oci import catalogue
from oci import runtime as runtimes
from oci.box import CGROUP_PARENT, Box, make_root
from oci.marks import REFERENCES, Shown, shown

HERE = Path(__file__).resolve().parent
WORK = Path("/run/pyrun-conformance")
_FOUND = {name: runtimes.find(name) for name in runtimes.NAMES}
_numbers = itertools.count(1)


# ── fixtures ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def work() -> Iterator[Path]:
    """A tmpfs for the bundles: on it everything can be mounted, mapped and made, whatever /tmp and /run are."""
    WORK.mkdir(mode=0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "conformance", str(WORK)], check=True)
    yield WORK
    subprocess.run(["umount", "--lazy", str(WORK)], check=True)
    WORK.rmdir()


@pytest.fixture(scope="session")
def root_template(work: Path) -> Path:
    """The busybox root file system that every box gets a copy of."""
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.fail("needs a static busybox: apt-get install busybox-static")
    make_root(work / "template", busybox)
    return work / "template"


@pytest.fixture(params=runtimes.NAMES)
def runtime(request: pytest.FixtureRequest) -> runtimes.Runtime:
    """pyrun-oci, then the references that are installed."""
    found = _FOUND[request.param]
    if found is None:
        pytest.fail(f"{request.param} is not installed")
    return found


@pytest.fixture
def box(runtime: runtimes.Runtime, work: Path, root_template: Path) -> Iterator[Box]:
    """A bundle and a container of this test's own; pyrun-oci must leave nothing of it behind."""
    with _box(runtime, work, root_template) as box:
        yield box


@pytest.fixture
def boxes(work: Path, root_template: Path) -> Iterator[Callable[[str], Box | None]]:
    """The same for a test that has all runtimes beside one another: by name; None where it is not installed."""
    with contextlib.ExitStack() as stack:

        def boxes(name: str) -> Box | None:
            found = _FOUND[name]
            return stack.enter_context(_box(found, work, root_template)) if found else None

        yield boxes


@contextlib.contextmanager
def _box(runtime: runtimes.Runtime, work: Path, root_template: Path) -> Iterator[Box]:
    name = f"box-{os.getpid()}-{next(_numbers)}"
    mounts_before = _mounts()
    box = Box(runtime, work / name, root_template, name)
    yield box
    box.close()
    left = _mounts() - mounts_before
    for place in sorted(left, reverse=True):  # what the test mounted, or what a reference left
        subprocess.run(["umount", "--lazy", place], check=False)
    cgroups = sorted(Path("/sys/fs/cgroup").glob(f"**/{CGROUP_PARENT}/{name}*"))
    # a hidden directory of the runtime's own may stay in its root, but empty
    states = [path.name for path in box.root.rglob("*") if not (path.name.startswith(".") and path.is_dir())]
    shutil.rmtree(box.directory, ignore_errors=True)
    if runtime.name not in REFERENCES:
        assert not cgroups, f"left: {cgroups}"
        assert not states, f"left in the state directory: {states}"


def _mounts() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


# ── which bodies run, and what came of them ────────────────────────────────────────────────────────


class Verdicts:
    """Collects one verdict per row and runtime; the worst of several bodies counts."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []

    def add(self, item: pytest.Item, verdict: str, reason: str = "", *, known: bool = False) -> None:
        """Note what came of *item*; a *known* difference is of the behaviour that the body names, if it names one."""
        name = _runtime_of(item)
        where = item.nodeid.partition("[")[0].rpartition("/")[2]
        marks = shown(item.iter_markers())
        names = marks.names
        if known:
            names = tuple(row for row in names if row not in catalogue.rows()) or names
        for row in names:
            seen = marks.verdict(row, verdict)
            self.rows.append({"row": row, "runtime": name, "verdict": seen, "reason": reason, "test": where,
                              "id": item.nodeid})  # fmt: skip


_verdicts = Verdicts()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a reference does not know, or that is not installed; note it."""
    left_out = []
    only = config.getoption("--runtime", default=None)
    for item in items:
        name = _runtime_of(item)
        if only and name not in ("", only):
            left_out.append(item)
        elif name in REFERENCES:
            marks: Shown = shown(item.iter_markers())
            found = _FOUND[name]
            if found is None:
                _verdicts.add(item, "not installed")
                left_out.append(item)
            elif name in marks.since and not found.knows(marks.since[name]):
                _verdicts.add(item, "not known")
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Note the verdict; a stated difference of a reference is an expected failure."""
    report: pytest.TestReport = yield  # type: ignore[assignment,misc]
    name = _runtime_of(item)
    if not name:
        return report  # type: ignore[return-value]
    if report.failed:
        message = str(call.excinfo.value).strip().splitlines() if call.excinfo else []
        reason = shown(item.iter_markers()).differs.get(name, "")
        _verdicts.add(item, "fail", reason or (message[0][:200] if message else ""), known=bool(reason))
        if reason and call.when == "call":
            report.outcome = "skipped"
            report.wasxfail = reason
    elif hasattr(report, "wasxfail"):
        _verdicts.add(item, "fail", report.wasxfail.removeprefix("reason: "), known=True)
    elif report.skipped and isinstance(report.longrepr, tuple):
        _verdicts.add(item, "skip", str(report.longrepr[2]).removeprefix("Skipped: "))
    elif call.when == "call":
        _verdicts.add(item, "pass")
    return report  # type: ignore[return-value]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the verdicts."""
    path = session.config.getoption("--verdicts", default=None)
    if path:
        labels = {name: found.label for name, found in _FOUND.items() if found}
        Path(path).write_text(json.dumps({"runtimes": labels, "rows": _verdicts.rows}, indent=1))


def _runtime_of(item: pytest.Item) -> str:
    """The runtime a body is run against; "" when it is for none."""
    if not item.path.is_relative_to(HERE):
        return ""
    call = getattr(item, "callspec", None)
    return str(call.params.get("runtime", "")) if call else ""
