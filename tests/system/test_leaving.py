"""What is started by the way is not the first caller's: neither its service nor its limits have a say in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Pyrun
from waiting import until

TOP = Path("/sys/fs/cgroup")


@pytest.fixture
def unit(request: pytest.FixtureRequest) -> Iterator[str]:
    """A cgroup as a service manager makes it, in each hierarchy."""
    made = [path / request.param for path in (TOP, *TOP.glob("*")) if (path / "cgroup.procs").exists()]
    for path in made:
        path.mkdir()
    yield request.param
    # its monitor ends a moment later
    until(lambda: not any((path / "cgroup.procs").read_text() for path in made))
    for path in made:
        path.rmdir()


def processes(pyrun: Pyrun) -> dict[str, int]:
    """Of this run directory: name -> pid."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if str(pyrun.runroot) in (path / "cmdline").read_text():
                found[(path / "comm").read_text().strip()] = int(path.name)
        except OSError:  # gone
            continue
    return found


@pytest.mark.parametrize("unit", ["first.service", "first.scope"], indirect=True)
def test_out_of_the_callers_cgroup(pyrun: Pyrun, unit: str) -> None:
    """`systemctl stop` of a service ends all that is in its cgroup: the guard of everybody's networks, the monitor of a
    container that was started with -d. Sessions are scopes, and end nobody."""
    join = (
        f'for i in {TOP} {TOP}/*; do echo $$ >$i/{unit}/cgroup.procs; done 2>/dev/null; exec nice -n 15 "$@"'
    )
    words = ["run", "-d", "--name=web", "--net=bridge", "busybox", "sleep", "1000"]
    subprocess.run(["sh", "-c", join, "sh", str(pyrun.binary), *words], env=pyrun.env, stdout=subprocess.DEVNULL,
                   check=True)  # fmt: skip
    until(lambda: {"pyrun-guard", "pyrun-spare", "pyrun-monitor"} <= set(processes(pyrun)))
    found = processes(pyrun)
    places = {name: f"/{unit}\n" in Path(f"/proc/{pid}/cgroup").read_text() for name, pid in found.items()}
    assert not places["pyrun-guard"] and not places["pyrun-spare"], places
    assert places["pyrun-monitor"] == unit.endswith(".scope"), places
    assert os.getpriority(os.PRIO_PROCESS, found["pyrun-guard"]) == 0
    pyrun.ok("rm", "-f", "web")
