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
    line = line_of(figure("connection", "itself", 0.0321, 0.0308, 1.2), {})
    assert line == "| connection against itself | 32.1 us | 30.8 us | 1.042 | 1.2 | ok |"
    line = line_of(figure("connection", "iptables", 0.0321, 2.9, 0.05), {})  # both alike, to be compared
    assert line == "| connection against iptables | 32.1 us | 2900 us | 0.011 | 0.05 | ok |"


def test_what_takes_milliseconds_or_has_a_limit_in_them_is_said_in_them(load: Load) -> None:
    figure, line_of = load("rows").Figure, load("report").line_of
    assert line_of(figure("start", "docker", 19.04, 280, 0.1), {}) == (
        "| start against docker | 19.0 ms | 280 ms | 0.068 | 0.1 | ok |"
    )
    assert (
        line_of(figure("a name is there", ours=0.2, limit=2), {})
        == "| a name is there | 0.2 ms |  |  | 2 | ok |"
    )


def test_every_row_names_its_peers_version(load: Load) -> None:
    figure, line_of = load("rows").Figure, load("report").line_of
    about = {"crun": "1.28", "runc": "1.1.5+ds1", "pyrun": "0.1.0"}
    line = line_of(figure("a bundle", "crun", 12.4, 8.0, 0.7), about)
    assert line == "| a bundle against crun 1.28 | 12.4 ms | 8.0 ms | 1.550 | 0.7 | over |"
    assert "900 kB (runc 1.1.5+ds1)" in line_of(figure("memory", "runc", theirs=900, unit="kB"), about)
    assert " against itself |" in line_of(figure("a start", "itself", 2.0, 2.0, 1.2), about)


def test_the_newest_crun_is_measured(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of those on PATH; CRUN names another one."""
    for release in ("1.8.1", "1.28", "1.9"):
        program = tmp_path / release / "crun"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho crun version {release}\n")
        program.chmod(0o755)
    places = [str(tmp_path / release) for release in ("1.8.1", "1.28", "1.9")]
    monkeypatch.setenv("PATH", ":".join(places))
    monkeypatch.delenv("CRUN", raising=False)
    program = load("contenders").crun_program
    assert program() == f"{tmp_path}/1.28/crun"
    monkeypatch.setenv("CRUN", f"{tmp_path}/1.9/crun")
    assert program() == f"{tmp_path}/1.9/crun"
    monkeypatch.setenv("CRUN", str(tmp_path / "nowhere"))
    assert program() == ""


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
    assert load("report").line_of(told, {}).endswith("| 90.0 ms | 10.0 ms (itself) | 9.000 |  |  |")


def test_a_start_that_fails_is_told_with_what_it_said(load: Load) -> None:
    hyperfine = load("hyperfine")
    assert hyperfine.returned_ms(["true"]) > 0
    with pytest.raises(hyperfine.MeasuringFailed, match="status 3: no such image"):
        hyperfine.returned_ms(["sh", "-c", "echo no such image >&2; exit 3"])


def test_the_picture_shows_the_tables_of_the_page(load: Load) -> None:
    performance = load("performance")
    page = performance.PAGE.read_text()
    assert performance.PICTURE.read_text() == load("plot").svg(page), "python3 tests/bench/performance.py"
    assert {"docker", "podman", "runc"} <= {
        bar.peer for group in load("plot").bars(page).values() for bar in group
    }


def test_what_the_readme_says_of_docker_was_measured(load: Load) -> None:
    readme, performance = (BENCH.parents[1] / "README.md").read_text(), load("performance")
    assert "less than a tenth of Docker's time" in readme
    (docker, _) = load("plot").bars(performance.PAGE.read_text())["run --rm --net=bridge busybox true"]
    assert docker.peer == "docker" and docker.ratio < 0.1


def test_a_whole_run_fills_the_page(load: Load) -> None:
    """Every section it has tables for is on the page, and the picture has the bars of what was measured."""
    bench, performance, figure = load("bench"), load("performance"), load("rows").Figure
    found = {name: [figure(name, "docker", 2.0, 40.0, 0.1)] for name in bench.ROWS}
    found["stages"] = [figure("stage: imports", ours=4.5, for_information=True)]
    found["exec"] = [figure("exec", "docker", limit=0.3, problem="no daemon")]
    text = performance.PAGE.read_text()
    sections = bench.page(found, {"docker": "29.1", "date": "today"})
    assert {*sections, "guest"} == set(load("plot").tables(text))
    for name, lines in sections.items():
        text = performance.filled(text, name, lines)
    assert (
        "date today" in text and "imports 4.50 ms" in text and "Not measured: exec docker: no daemon" in text
    )
    bars = load("plot").bars(text)
    assert bars["bridge"] == [("docker", 0.05)] and "exec" not in bars and "dns-rate" not in bars
    with pytest.raises(ValueError, match="no section nowhere"):
        performance.filled(text, "nowhere", [])


def test_the_guests_table_is_what_was_measured_there(load: Load) -> None:
    row = {
        "driver": "systemd",
        "pyrun": "413 ms",
        "runc": "619 ms",
        "ratio": "0.67",
        "limit": 0.9,
        "verdict": "ok",
    }
    *_, line, _, about = load("performance").guest({"about": {"runc": "1.3.3"}, "rows": [row]})
    assert (line, about) == ("| systemd | 413 ms | 619 ms | 0.67 | 0.9 | ok |", "runc 1.3.3")
