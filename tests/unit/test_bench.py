"""The parts of the benchmark that need no peers: how the table says it, and how connections are timed."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """A module of tests/bench, as bench.py imports it; no other test meets one of these short names."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(f"{BENCH}/"):
            del sys.modules[name]


def test_what_takes_microseconds_is_said_in_them(load: Load) -> None:
    figure, line_of = load("rows").Figure, load("report").line_of
    line = line_of(figure("connection", "itself", 0.0321, 0.0308, 1.2))
    assert line == "| connection against itself | 32.1 us | 30.8 us | 1.042 | 1.2 | ok |"
    line = line_of(figure("connection", "iptables", 0.0321, 2.9, 0.05))  # both alike, to be compared
    assert line == "| connection against iptables | 32.1 us | 2900 us | 0.011 | 0.05 | ok |"


def test_what_takes_milliseconds_or_has_a_limit_in_them_is_said_in_them(load: Load) -> None:
    figure, line_of = load("rows").Figure, load("report").line_of
    assert line_of(figure("start", "docker", 19.04, 280, 0.1)) == (
        "| start against docker | 19.0 ms | 280 ms | 0.068 | 0.1 | ok |"
    )
    assert (
        line_of(figure("a name is there", ours=0.2, limit=2)) == "| a name is there | 0.2 ms |  |  | 2 | ok |"
    )


def test_ports_take_turns_at_coming_first(load: Load) -> None:
    assert list(load("port_work").turns(3, ["a", "b"])) == ["a", "b", "b", "a", "a", "b"]


def test_each_port_is_connected_to_as_often_as_was_asked_for(load: Load) -> None:
    """By the programs of the row, on this host: what comes before those that are timed is not among them."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [str(each.getsockname()[1]) for each in (one, other)]
    program = [sys.executable, str(BENCH / "port_work.py")]
    with subprocess.Popen([*program, "listen", *ports], stdout=subprocess.PIPE) as listener:
        try:
            assert listener.stdout and listener.stdout.readline() == b"ready\n"
            said = subprocess.check_output([*program, "connect", "127.0.0.1", "50", *ports], timeout=60)
        finally:
            listener.kill()
    taken_us = json.loads(said)
    assert {port: len(each) for port, each in taken_us.items()} == dict.fromkeys(ports, 50)
    assert all(0 < took < 1e6 for each in taken_us.values() for took in each)


def test_start_is_judged_against_start_and_what_ends_beside_it_is_told(load: Load) -> None:
    rows = load("thousand_rows")
    found = rows.Found(
        few=[10.0, 22.0, 12.0, 21.0], many=[33.0], ends_beside_few=[10.0], ends_beside_many=[90.0]
    )
    judged, told = rows.of_starts(found)
    assert (judged.ours, judged.theirs, judged.limit, judged.verdict) == (33.0, 16.5, 1.5, "over")
    assert judged.failed
    assert told.ratio == 9.0 and not told.verdict and not told.failed
    assert load("report").line_of(told).endswith("| 90.0 ms | 10.0 ms (itself) | 9.000 |  |  |")


def test_a_start_that_fails_is_told_with_what_it_said(load: Load) -> None:
    hyperfine = load("hyperfine")
    assert hyperfine.returned_ms(["true"]) > 0
    with pytest.raises(hyperfine.MeasuringFailed, match="status 3: no such image"):
        hyperfine.returned_ms(["sh", "-c", "echo no such image >&2; exit 3"])
