"""store/state.py: what a container is, told from files, /proc and a lock."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.engine import reconcile
from pyrun.errors import NotFound, UsageError
from pyrun.store import state

WEB = "a1" * 32
DB = "a1b2" + "c3" * 30


class Store:
    """Container directories below a temporary one."""

    def __init__(self, path: Path) -> None:
        self.root, self.run = path / "root", path / "run"
        for directory in (self.root / "containers", self.root / "names", self.run / "containers"):
            directory.mkdir(parents=True)

    def kept(self, identifier: str, name: str = "", **record: object) -> Path:
        directory = self.root / "containers" / identifier
        directory.mkdir()
        (directory / "container.json").write_text(json.dumps({"id": identifier, "name": name, **record}))
        if name:
            (self.root / "names" / name).write_text(f"{identifier}\n{os.getpid()} 1\n")
        return directory

    def living(
        self, identifier: str, pid: int, *, started: bool = True, start_time: int | None = None
    ) -> Path:
        directory = self.run / "containers" / identifier
        directory.mkdir()
        (directory / "undo").write_text("")
        (directory / ("started" if started else "starting")).write_text(identifier)
        began = state.start_time(pid) if start_time is None else start_time
        (directory / "state.json").write_text(json.dumps({"id": identifier, "pid": pid, "start_time": began}))
        return directory


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("PYRUN_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("PYRUN_RUNROOT", str(tmp_path / "run"))
    monkeypatch.setattr("posix.environ", {k.encode(): v.encode() for k, v in os.environ.items()})
    return Store(tmp_path)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    sleeping = subprocess.Popen(["sleep", "100"])
    yield sleeping
    sleeping.kill()
    sleeping.wait()


@pytest.fixture
def monitor(store: Store) -> Iterator[object]:
    """`monitor(directory)`: somebody holds the lock of its undo list."""
    held: list[int] = []

    def lock(directory: Path) -> None:
        held.append(os.open(directory / "undo", os.O_RDWR))
        fcntl.flock(held[-1], fcntl.LOCK_EX)

    yield lock
    for fd in held:
        os.close(fd)


def test_resolve(store: Store) -> None:
    store.kept(WEB, "web")
    store.kept(DB, "a1b2c")  # a name that is also the beginning of an id
    assert state.resolve(WEB) == WEB
    assert state.resolve("web") == state.resolve("/web") == WEB
    assert state.resolve("a1a1") == WEB
    assert state.resolve("a1b2c") == DB
    assert state.resolve(DB[:12]) == DB
    with pytest.raises(UsageError, match=r"'a1' is ambiguous: 2 ids"):
        state.resolve("a1")


@pytest.mark.parametrize("reference", ["", "nope", "../names/web", ".", "..", "web\0", "a1/..", "A1"])
def test_resolve_nothing(store: Store, reference: str) -> None:
    store.kept(WEB, "web")
    with pytest.raises(NotFound):
        state.resolve(reference)


def test_a_name_whose_container_is_gone_means_nothing(store: Store) -> None:
    (store.root / "names" / "old").write_text(WEB + "\n")
    with pytest.raises(NotFound):
        state.resolve("old")


def test_load_merges(store: Store, process: subprocess.Popen[bytes]) -> None:
    store.kept(WEB, "web", image="busybox", pid=1)
    store.living(WEB, process.pid)
    loaded = state.load(WEB)
    assert (loaded["image"], loaded["pid"], loaded["id"]) == ("busybox", process.pid, WEB)
    with pytest.raises(NotFound):
        state.load(DB)


def test_load_survives_torn_files(store: Store) -> None:
    store.kept(WEB).joinpath("container.json").write_text('{"id": "x", "na')
    assert state.load(WEB) == {"id": WEB}
    assert state.status(state.load(WEB)) == "exited"


def test_running_and_created(store: Store, process: subprocess.Popen[bytes]) -> None:
    store.living(WEB, process.pid)
    store.living(DB, process.pid, started=False)
    assert state.status(state.load(WEB)) == "running"
    assert state.status(state.load(DB)) == "created"
    assert 0 <= state.seconds_up(state.load(WEB)) < 60


def test_a_recycled_pid_is_not_the_container(store: Store, process: subprocess.Popen[bytes]) -> None:
    store.living(WEB, process.pid, start_time=state.start_time(process.pid) - 1)
    assert state.status(state.load(WEB)) == "exited"
    assert state.open_process(state.load(WEB)) == -1


def test_a_zombie_is_dead(store: Store) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    store.living(WEB, pid, start_time=1)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert state.start_time(pid) == 0
    os.waitpid(pid, 0)


def test_exit_record(store: Store) -> None:
    directory = store.kept(WEB)
    assert state.exit_record(WEB) is None
    (directory / "exit").write_text("137 1764000000.123456789\n")
    assert state.exit_record(WEB) == (137, 1764000000.123456789)
    (directory / "exit").write_text("unknown 5.0\n")
    assert state.exit_record(WEB) == (None, 5.0)
    (directory / "exit").write_text("")
    assert state.exit_record(WEB) is None


def test_dead_but_its_monitor_is_still_writing(store: Store, monitor: object) -> None:
    store.kept(WEB)
    directory = store.living(WEB, 2**22 + 1, start_time=1)
    assert not state.supervised(WEB)
    assert state.status(state.load(WEB)) == "exited"
    monitor(directory)  # type: ignore[operator]
    assert state.supervised(WEB)
    assert state.status(state.load(WEB)) == "running"


def test_claim_dead_finds_the_dead_alone(
    store: Store, monitor: object, process: subprocess.Popen[bytes]
) -> None:
    supervised = store.living("supervised", 2**22 + 1, start_time=1)
    monitor(supervised)  # type: ignore[operator]
    store.living("orphan", process.pid)  # its monitor is dead, the container runs on
    store.living("dead", 2**22 + 1, start_time=1)
    (store.run / "containers" / "no-state").mkdir()
    (store.run / "containers" / "no-state" / "undo").write_text("")
    claimed = reconcile.claim_dead()
    try:
        assert sorted(name for name, _ in claimed) == ["dead", "no-state"]
        assert reconcile.claim_dead() == []  # held by the first one
    finally:
        for _, fd in claimed:
            os.close(fd)


def test_one_that_runs_is_kept_though_its_planner_was_killed(
    store: Store, process: subprocess.Popen[bytes]
) -> None:
    """It executes its command, which its planner did not live to note: nobody undoes it, and it counts as started."""
    directory = store.living(WEB, process.pid, started=False)
    assert reconcile.claim(WEB) == -1
    assert (directory / "started").exists() and not (directory / "starting").exists()


def test_one_that_waits_in_init_is_not_taken_for_one_that_runs(store: Store) -> None:
    waiting = subprocess.Popen(["pyrun-init", "100"], executable="/bin/sleep")
    try:
        directory = store.living(WEB, waiting.pid, started=False)
        assert reconcile.claim(WEB) == -1
        assert (directory / "starting").exists() and not (directory / "started").exists()
    finally:
        waiting.kill()
        waiting.wait()


def test_what_an_undo_list_left_of_its_own_place_is_taken_away(store: Store) -> None:
    """The list goes before the directory it is in; who was killed in between has left the rest."""
    directory = store.living(WEB, 2**22 + 1, start_time=1)
    (directory / "undo").unlink()
    assert reconcile.claim(WEB) == -1
    assert not directory.exists()


def test_a_start_looks_at_a_part_of_very_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the thousandth start would wait for a look at all others; after a few starts nobody is overlooked."""
    names = {f"{number:064x}" for number in range(2 * reconcile._PART)}
    for name in names:
        (store.run / "containers" / name).mkdir(parents=True)
    looked: list[str] = []
    monkeypatch.setattr(reconcile, "_claim", lambda name, _: (looked.append(name), -1)[1])
    for _ in range(4000):
        reconcile.reconcile_quietly()
        assert len(looked) % reconcile._PART == 0
    assert set(looked) == names
    assert len(looked) / 4000 < reconcile._FEW
    looked.clear()
    reconcile.claim_dead()
    assert sorted(looked) == sorted(names)
