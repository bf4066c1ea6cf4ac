"""What people see on a terminal: tables, help, progress, notices. `Terminal`: test_terminal.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from command import Pyrun
from registries import Registry
from system.test_run_pull import NAME, hub
from system.test_terminal import Terminal

__all__ = ["hub"]
SLEEP = ("busybox", "sleep", "1000")
STYLE = re.compile("\x1b\\[[0-9;]*m")


def shown(pyrun: Pyrun, *words: str, columns: int = 80) -> str:
    """All that a command shows on a terminal, as it came."""
    pyrun.env = {**pyrun.env, "TERM": "xterm"}
    pyrun.env.pop("NO_COLOR", None)
    terminal = Terminal(pyrun, *words, columns=columns)
    status = terminal.end()
    terminal.close()
    assert status == 0, terminal.output
    return terminal.output


def test_a_line_of_ps_is_as_wide_as_what_is_in_it(pyrun: Pyrun) -> None:
    """Blanks behind the last column would be wrapped, to blank lines between the rows."""
    pyrun.ok("run", "-d", "--net=none", "--name=one", *SLEEP)
    pyrun.ok("run", "-d", "--net=none", "--name=container-with-a-longer-name", *SLEEP)
    output = shown(pyrun, "ps")
    assert "\x1b[32mUp " in output and output.startswith("\x1b[1mCONTAINER ID")
    lines = STYLE.sub("", output).splitlines()
    assert len(lines) == 3 and all(line == line.rstrip() for line in lines), lines
    assert lines == pyrun.ok("ps").splitlines()


def test_help_is_as_wide_as_the_terminal(pyrun: Pyrun) -> None:
    for columns in (80, 160):
        lines = shown(pyrun, "run", "--help", columns=columns).splitlines()
        assert columns - 30 < max(map(len, lines)) <= columns, max(lines, key=len)


def test_progress_and_notices_do_not_overwrite_each_other(pyrun: Pyrun, hub: Registry) -> None:
    """Unpacking is a phase of its own."""
    output = shown(pyrun, "pull", NAME, columns=120)
    assert f"Status: Downloaded newer image for {NAME}" in output
    assert "done" in output


def test_the_bars_tell_each_phase(pyrun: Pyrun) -> None:
    import io

    from rich.console import Console

    from pyrun import notice
    from pyrun.cli import render

    said: list[str] = []
    notice.install(said.append)
    screen = io.StringIO()
    bars = render.Bars(Console(file=screen, force_terminal=True, width=100))
    with bars:
        bars({"layer": "0123", "state": "downloading", "current": 5, "total": 10})
        assert bars._progress.tasks[0].percentage == 50
        bars({"layer": "0123", "state": "unpacking", "current": 0, "total": 10})
        assert (bars._progress.tasks[0].total, bars._progress.tasks[0].fields["state"]) == (None, "unpacking")
        notice.say("building [x] with mmdebstrap")
        bars({"layer": "0123", "state": "done", "current": 0, "total": 10})
        assert bars._progress.tasks[0].finished
    assert said == [] and "building [x] with mmdebstrap" in screen.getvalue()
    notice.say("again to the line")
    assert said == ["again to the line"]
    notice.remove()


def test_what_is_in_force_is_told(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name=box", *SLEEP)
    assert pyrun.ok("network", "policy", "box", "dns,192.0.2.1:443") == "dns,192.0.2.1:443"
    assert pyrun.ok("network", "policy", "box") == "dns,192.0.2.1:443"
    assert pyrun.ok("network", "policy", "box", "all") == "all"


@pytest.mark.alone
def test_the_first_network_is_told_of_once(pyrun: Pyrun) -> None:
    """Once a boot, whose run directory it is, and not after each prune."""
    told = pyrun("run", "--rm", "busybox", "true").stderr
    assert "bridge pyrun0 made" in told and "ip_forward is now 1" in told
    assert "bridge" in pyrun.ok("network", "prune")
    assert pyrun("run", "--rm", "busybox", "true").stderr == ""
    pyrun.ok("network", "prune")
    (Path(pyrun.runroot) / "networks/told").unlink()
    assert "bridge pyrun0 made" in pyrun("run", "--rm", "busybox", "true").stderr
