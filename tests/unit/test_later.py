"""The further undo list of a running container (network/live_undo.py): what is taken out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrun.network import live_undo


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(live_undo.paths, "run", lambda: str(tmp_path))
    (tmp_path / "containers/x").mkdir(parents=True)
    return Path(live_undo.path("x"))


def test_lines_and_guarded_blocks_are_dropped(listed: Path) -> None:
    live_undo.append(
        "x", ["netlink\tdown", "guard\tport 1\tme", "netlink\tdown", "end", "unlink-if\tport 1\tme", "end"]
    )
    live_undo.append("x", ["guard\tport 2\tme", "netlink\tup", "end", "unlink-if\tport 2\tme"])
    live_undo.drop("x", ["guard\tport 2\tme", "netlink\tup", "end", "unlink-if\tport 2\tme"])
    assert listed.read_text() == (
        "netlink\tdown\nguard\tport 1\tme\nnetlink\tdown\nend\nunlink-if\tport 1\tme\n"
    ), "an `end` that ends nothing is dropped with those that are named"
    live_undo.drop("x", ["netlink\tdown"])
    assert listed.read_text() == "guard\tport 1\tme\nnetlink\tdown\nend\nunlink-if\tport 1\tme\n"
    inode = listed.stat().st_ino
    live_undo.drop("x", ["guard\tport 1\tyou"])
    assert listed.stat().st_ino == inode, "nothing is dropped, nothing is written"


def test_a_block_that_was_cut_short_is_kept_as_it_is(listed: Path) -> None:
    listed.write_text("unlink\ta\nguard\tport 1\tme\nunlink\ta\n")
    live_undo.drop("x", ["unlink\ta"])
    assert listed.read_text() == "guard\tport 1\tme\nunlink\ta\n"


def test_a_container_to_which_nothing_came_later(listed: Path) -> None:
    live_undo.drop("x", ["unlink\ta"])
    live_undo.drop("gone", ["unlink\ta"])
    assert not listed.exists()
