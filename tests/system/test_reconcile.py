"""Monitors and starts that were killed: what `system reconcile` and the next command take away, and what they leave."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from command import Pyrun
from detached import begin, kill_monitor, listed
from waiting import until


def test_without_its_monitor_a_container_runs_on(pyrun: Pyrun) -> None:
    ident = begin(pyrun, "web", "echo ready; exec sleep 1000")
    kill_monitor(pyrun, "web")
    assert listed(pyrun)["web"]["State"] == "running"
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")  # looks for the dead, must leave it alone
    assert pyrun.ok("system", "reconcile") == "nothing to clean up"
    assert listed(pyrun)["web"]["State"] == "running"
    pyrun.ok("stop", "-t", "0", "web")
    assert listed(pyrun)["web"]["Status"].startswith("Exited (unknown) ")
    assert not (pyrun.runroot / "containers" / ident).exists()
    pyrun.ok("rm", "web")


@pytest.mark.parametrize("how", ["system reconcile", "run", "rm", "stop"])
def test_monitor_and_container_are_dead(pyrun: Pyrun, how: str) -> None:
    ident = begin(pyrun, "web", "echo ready; exec sleep 1000")
    kill_monitor(pyrun, "web")
    os.kill(int(str(pyrun.state("web")["pid"])), signal.SIGKILL)
    until(lambda: listed(pyrun)["web"]["Status"] == "Exited (unknown)")
    if how == "system reconcile":
        assert pyrun.ok("system", "reconcile") == f"container {ident[:12]}: undid what it had left"
        assert pyrun.ok("system", "reconcile") == "nothing to clean up"
    elif how == "run":
        pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    else:
        pyrun.ok(how, "web")
    assert not (pyrun.runroot / "containers" / ident).exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/pyrun/{ident}"))
    assert ("web" in listed(pyrun)) == (how != "rm")


def test_reconcile_removes_leftovers_without_an_owner(pyrun: Pyrun) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    half = pyrun.runroot / "staging" / f"{'ab' * 32}.{gone.pid}"
    half.mkdir()
    (half / "undo").write_text("")
    rebooted = pyrun.root / "containers" / ("cd" * 32)
    rebooted.mkdir()
    (rebooted / "container.json").write_text(json.dumps({"name": "gone", "rm": True}))
    (pyrun.root / "names" / "gone").write_text("cd" * 32 + "\n")
    (pyrun.root / "names" / "lost").write_text("ef" * 32 + f"\n{gone.pid} 1\n")
    kept = pyrun.root / "containers" / ("0f" * 32)
    kept.mkdir()
    (kept / "container.json").write_text(json.dumps({"name": "kept", "rm": False}))
    group = next(path for path in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if path.is_dir())
    (group / "pyrun" / ("12" * 32)).mkdir(parents=True)
    told = pyrun.ok("system", "reconcile").splitlines()
    assert len(told) == 4, told
    assert not half.exists() and not rebooted.exists() and not (group / "pyrun").exists()
    assert kept.exists() and not list((pyrun.root / "names").iterdir())
    assert pyrun.ok("system", "reconcile") == "nothing to clean up"
    assert list(listed(pyrun)) == ["kept"]


def test_reconcile_leaves_what_another_run_directory_has(pyrun: Pyrun, tmp_path: Path) -> None:
    """A container with processes, and a start that has just made its cgroup: neither is known here."""
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    other = {"PYRUN_RUNROOT": str(tmp_path / "run"), "PYRUN_ROOT": str(pyrun.root)}
    ident = pyrun.ok("run", "-d", "--net=none", "busybox", "sleep", "1000", env=other)
    tops = [
        path
        for path in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*"))
        if (path / "pyrun").is_dir()
    ]
    made = [path / "pyrun" / ("34" * 32) for path in tops]
    for path in made:
        path.mkdir()
    claims = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in made]
    for fd in claims:
        fcntl.flock(fd, fcntl.LOCK_EX)
    done = pyrun("system", "reconcile")
    assert (done.returncode, done.stdout) == (0, "nothing to clean up\n")
    assert f"/pyrun/{ident} is left alone: 1 process of no container of {pyrun.runroot}" in done.stderr
    assert done.stderr.count("left alone") == 1 and all(path.is_dir() for path in made)
    assert pyrun.ok("exec", ident, "echo", "alive", env=other) == "alive"
    for fd in claims:
        os.close(fd)
    pyrun.ok("rm", "-f", ident, env=other)
    told = pyrun.ok("system", "reconcile").splitlines()
    assert sorted(told) == sorted(f"cgroup {path}: removed" for path in made)
