"""Names of containers (store/containers.py): who holds one, and when it may be taken over."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.errors import Conflict
from pyrun.store import containers, paths, state

OTHER, MINE = "ab" * 32, "cd" * 32


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYRUN_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("PYRUN_RUNROOT", str(tmp_path / "run"))
    monkeypatch.setitem(paths.posix.environ, b"PYRUN_ROOT", str(tmp_path / "root").encode())
    monkeypatch.setitem(paths.posix.environ, b"PYRUN_RUNROOT", str(tmp_path / "run").encode())
    (tmp_path / "root" / "names").mkdir(parents=True)
    return tmp_path / "root" / "names"


@pytest.fixture
def sleeper() -> Iterator[str]:
    """A planner that lives: its words in the name."""
    with subprocess.Popen(["sleep", "100"]) as process:
        yield f"{process.pid} {state.start_time(process.pid)}"
        process.kill()


def dead() -> str:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return f"{process.pid} 1"


def test_a_name_is_free_once_its_planner_is_dead(names: Path) -> None:
    (names / "web").write_text(f"{OTHER}\n{dead()}\n")
    assert containers.reserve_name("web", MINE) == "web"
    assert state.named_id("web") == MINE
    with pytest.raises(Conflict, match="in use by container cdcdcdcdcdcd"):
        containers.reserve_name("web", OTHER)


def test_one_that_was_never_written_is_free(names: Path) -> None:
    (names / "web").touch()
    assert containers.reserve_name("web", MINE) == "web"
    assert state.named_id("web") == MINE


@pytest.mark.parametrize(("planner", "free"), [("4194304 1", True), ("", False)])
def test_one_that_is_being_written_is_read_once_more(
    names: Path, monkeypatch: pytest.MonkeyPatch, planner: str, free: bool
) -> None:
    """Then its planner counts; without one it is somebody's for a minute."""
    (names / "web").touch()
    text = f"{OTHER}\n{planner}\n"
    monkeypatch.setattr(containers.time, "sleep", lambda _: (names / "web").write_text(text))
    assert containers.being_planned(str(names / "web")) is not free
    os.utime(names / "web", (1, 1))
    assert not containers.being_planned(str(names / "web"))
    assert not containers.being_planned(str(names / "nobody"))


def test_a_planner_that_lives_keeps_its_name(names: Path, sleeper: str) -> None:
    (names / "web").write_text(f"{OTHER}\n{sleeper}\n")
    with pytest.raises(Conflict) as caught:
        containers.reserve_name("web", MINE)
    assert "being started" in caught.value.hint and "pyrun rm" not in caught.value.hint


@pytest.mark.parametrize("home", ["root", "run"])
def test_a_container_that_is_there_keeps_its_name(names: Path, home: str) -> None:
    (names.parents[1] / home / "containers" / OTHER).mkdir(parents=True)
    (names / "web").write_text(f"{OTHER}\n{dead()}\n")
    with pytest.raises(Conflict) as caught:
        containers.reserve_name("web", MINE)
    assert "pyrun rm web" in caught.value.hint


def test_of_many_that_find_it_dead_one_gets_it(names: Path) -> None:
    for number in range(5):
        (names / "web").write_text(f"{OTHER}\n{dead()}\n")
        started = time.monotonic() + 0.05
        told_fd, telling_fd = os.pipe()
        held_fd, holding_fd = os.pipe()
        children = []
        for child in range(8):
            if (pid := os.fork()) == 0:
                os.close(holding_fd)
                time.sleep(max(0.0, started - time.monotonic()))
                try:
                    containers.reserve_name("web", f"{child:064x}")
                    os.write(telling_fd, bytes([child]))
                except Conflict:
                    os.write(telling_fd, b"-")
                os.read(held_fd, 1)  # it lives while the others ask
                os._exit(0)
            children.append(pid)
        told = b"".join(os.read(told_fd, 1) for _ in children)
        for fd in (told_fd, telling_fd, held_fd, holding_fd):
            os.close(fd)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 8
        assert told.count(b"-") == 7, told
        assert state.named_id("web") == f"{told.replace(b'-', b'')[0]:064x}", number
        (names / "web").unlink()


def test_a_file_there_is_no_room_for_is_taken_away(names: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(paths.posix, "write", full)
    with pytest.raises(OSError) as caught:
        containers.reserve_name("web", MINE)
    assert caught.value.filename == str(names / "web")
    assert not list(names.iterdir())
    with pytest.raises(OSError) as caught:
        paths.replace(str(names / "web"), b"x")
    assert caught.value.filename == str(names / "web") and not list(names.iterdir())


def test_a_hostname_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """One id in three hundred would begin with twelve decimal digits, and nobody inside could resolve the hostname."""
    chances = [bytes.fromhex("997437429247" + "ab" * 26), bytes.fromhex("99743742924a" + "ab" * 26)]
    given = iter(chances)
    monkeypatch.setattr(containers.posix, "urandom", lambda size: next(given))
    assert containers.new_id() == chances[1].hex() and next(given, None) is None


@pytest.mark.parametrize("home", ["root", "run"])
def test_nobody_is_there_without_an_id(names: Path, home: str) -> None:
    """Else the directory of all containers would count as one of them."""
    (names.parents[1] / home / "containers" / OTHER).mkdir(parents=True)
    assert containers.is_there(OTHER)
    assert not containers.is_there("") and not containers.is_there(MINE)


@pytest.mark.parametrize(
    ("oci", "words"), [(True, "container with given ID already exists"), (False, "box exists")]
)
def test_of_two_starts_at_once_the_second_hears_why(tmp_path: Path, oci: bool, words: str) -> None:
    """Both have found the id free; with `pyrun-oci` the words are those that callers look for."""
    os.close(containers.begin(str(tmp_path / "state/box"), ["#"], oci=oci))
    with pytest.raises(Conflict, match=words):
        containers.begin(str(tmp_path / "state/box"), ["#"], oci=oci)
