"""stop, kill and rm, on real containers: signals, patience, several at once, hostile trees."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import hostile
from command import Pyrun
from detached import DEAF, POLITE, begin, listed
from pyrun.store import containers, state
from waiting import until


def test_stop_insists_after_its_timeout(pyrun: Pyrun) -> None:
    begin(pyrun, "deaf", DEAF)
    began = time.monotonic()
    pyrun.ok("stop", "-t", "1", "deaf")
    assert 0.9 < time.monotonic() - began < 4
    assert listed(pyrun)["deaf"]["Status"].startswith("Exited (137) ")


def test_the_stop_signal_and_timeout_of_the_container(pyrun: Pyrun) -> None:
    begin(
        pyrun,
        "usr",
        "trap 'exit 5' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done",
        "--stop-signal=USR1",
    )
    begin(pyrun, "fast", DEAF, "--stop-timeout=0")
    began = time.monotonic()
    pyrun.ok("stop", "usr", "fast")
    assert time.monotonic() - began < 4
    assert listed(pyrun)["usr"]["Status"].startswith("Exited (5) ")
    assert listed(pyrun)["fast"]["Status"].startswith("Exited (137) ")
    pyrun.ok("stop", "usr")  # one that has ended is fine


def test_several_are_stopped_side_by_side(pyrun: Pyrun) -> None:
    """Each is asked once, and the patience of all runs at the same time."""
    names = ["one", "two", "three", "four"]
    for name in names:
        begin(pyrun, name, "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done")
    began = time.monotonic()
    done = pyrun("stop", "-t", "3", *names[:2], "nope", "one", *names[2:])
    assert time.monotonic() - began < 3 * 3
    assert (done.returncode, done.stderr) == (1, "pyrun: no such container: nope\nhint: see `pyrun ps -a`\n")
    assert done.stdout.split() == ["one", "two", "one", "three", "four"]
    for name in names:
        assert listed(pyrun)[name]["Status"].startswith("Exited (137) ")
        assert pyrun.ok("logs", name).split() == ["ready", "asked"]


@pytest.mark.parametrize("words", [("stop", "-t", "2"), ("rm", "-f")])
def test_those_that_remove_themselves_have_gone_before_their_turn(
    pyrun: Pyrun, words: tuple[str, ...]
) -> None:
    begin(pyrun, "slow", DEAF)
    for name in ("aa", "bb"):
        begin(pyrun, name, POLITE, "--rm")
    done = pyrun(*words, "slow", "aa", "bb")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["slow", "aa", "bb"], "")
    assert set(listed(pyrun)) == ({"slow"} if words[0] == "stop" else set())


def test_kill(pyrun: Pyrun) -> None:
    begin(pyrun, "aa", "trap 'echo got it' USR2; echo ready; while :; do sleep 0.05; done")
    for number, spelling in enumerate(("USR2", "sigusr2", "12"), 1):
        pyrun.ok("kill", "-s", spelling, "aa")
        until(lambda number=number: pyrun.ok("logs", "aa").count("got it") == number)
    assert "unknown signal 'FOO'" in pyrun.fails(1, "kill", "-s", "FOO", "aa")
    pyrun.ok("kill", "aa")
    assert listed(pyrun)["aa"]["Status"].startswith("Exited (137) ")  # as soon as kill has returned
    assert "container aa is not running" in pyrun.fails(1, "kill", "aa")


@pytest.mark.needs("cgroup1")
@pytest.mark.parametrize("words", [("kill",), ("stop", "-t", "0"), ("rm", "-f")])
def test_one_that_has_frozen_a_part_of_itself(pyrun: Pyrun, words: tuple[str, ...]) -> None:
    """As a container with containers of its own does that pauses one: SIGKILL does not reach it, nor does its pid
    namespace end before."""
    below = "/sys/fs/cgroup/freezer/below"
    script = f"mkdir {below}; sleep 997 & echo $! >{below}/cgroup.procs; echo FROZEN >{below}/freezer.state"
    begin(pyrun, "frozen", f"{script}; echo ready; exec sleep 998", "--privileged")
    pyrun.ok(*words, "frozen", timeout=20)
    assert words[0] == "rm" or listed(pyrun)["frozen"]["Status"].startswith("Exited (137) ")


def test_rm_refuses_what_runs_and_goes_on_with_the_others(pyrun: Pyrun) -> None:
    begin(pyrun, "runs", DEAF)
    begin(pyrun, "done", "exit 0")
    until(lambda: listed(pyrun)["done"]["State"] == "exited")
    failed = pyrun("rm", "runs", "nope", "done")
    assert (failed.returncode, failed.stdout) == (1, "done\n")
    assert failed.stderr.splitlines() == [
        "pyrun: container runs is running",
        "hint: stop it first, or use `pyrun rm -f`",
        "pyrun: no such container: nope",
        "hint: see `pyrun ps -a`",
    ]
    forced = pyrun("rm", "-f", "nope", "runs")
    assert (forced.returncode, forced.stdout) == (0, "runs\n")
    assert listed(pyrun) == {}
    names = [f"n{number}" for number in range(5)]
    for name in names:
        begin(pyrun, name, DEAF)
    forced = pyrun("rm", "-f", "nope", *names, names[0])
    told = ["pyrun: no such container: nope", "pyrun: no such container: n0"]
    assert (forced.returncode, forced.stdout.split(), forced.stderr.splitlines()) == (0, names, told)
    assert listed(pyrun) == {}


@pytest.mark.parametrize("words", [("stop", "-t", "0"), ("kill",), ("rm", "-f")], ids=" ".join)
@pytest.mark.parametrize("how", ["suspended", "unread"])
def test_a_client_that_does_not_go_on(pyrun: Pyrun, words: tuple[str, ...], how: str) -> None:
    """Ctrl-Z, or `| less`: neither keeps a container from being ended."""
    script = "echo ready; exec sleep 1000" if how == "suspended" else "echo ready; exec yes"
    client = pyrun.start("run", "--name=web", "--net=none", "busybox", "sh", "-c", script)
    assert client.stdout is not None and client.stdout.readline() == "ready\n"
    if how == "suspended":
        client.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    pyrun.ok(*words, "web")
    assert time.monotonic() - began < 15, "it gave up, or nearly"
    assert client.wait(10) == 137
    assert not list((pyrun.runroot / "containers").iterdir())


@pytest.mark.parametrize("words", [("stop", "-t", "1000"), ("rm", "-f")], ids=" ".join)
def test_one_that_is_only_being_started(
    pyrun: Pyrun, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the undo list and the first process it is visible, and there is nobody to signal: it is told later."""
    for name, value in (("PYRUN_ROOT", pyrun.root), ("PYRUN_RUNROOT", pyrun.runroot)):
        monkeypatch.setenv(name, str(value))
    keep, run_dir = pyrun.root / "containers" / "web", str(pyrun.runroot / "containers" / "web")
    lock_fd = containers.begin(run_dir, containers.undo_lines("web", str(keep), "web", remove=False))
    keep.mkdir(parents=True)
    ending = pyrun.start(*words, "web")
    until(lambda: "nanosleep" in Path(f"/proc/{ending.pid}/wchan").read_text())  # it waits for the undo list
    process = subprocess.Popen(["sleep", "1000"])
    try:
        born = {"pid": process.pid, "start_time": state.start_time(process.pid), "name": "web"}
        containers.write_state(run_dir, born)
        assert process.poll() is None
        containers.progress(run_dir, "started")
        assert process.wait(15) == -(signal.SIGKILL if words[0] == "rm" else signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
    os.close(lock_fd)
    assert ending.wait(15) == 0 and not Path(run_dir).exists()
    assert keep.exists() == (words[0] == "stop")


@pytest.mark.parametrize("words", [("kill",), ("rm", "-f")], ids=" ".join)
def test_a_start_that_somebody_ends_says_so(pyrun: Pyrun, tmp_path: Path, words: tuple[str, ...]) -> None:
    """It is not for want of memory; here init is at a hook, and the command has not begun."""
    there = tmp_path / "there"
    hook = {
        "path": "/bin/sh",
        "args": ["sh", "-c", f"echo x > {there}; exec sleep 1000"],
        "env": ["PATH=/bin"],
    }
    directory = hostile.put_bundle(pyrun, tmp_path / "bundle", hooks={"createContainer": [hook]})
    starting = pyrun.start("run", "--bundle", str(directory), "web")
    until(there.exists)
    pyrun.ok(*words, "web")
    _, told = starting.communicate(timeout=15)
    assert (starting.returncode, told) == (
        125,
        "pyrun: it was killed meanwhile, by `pyrun rm -f` or `pyrun kill`\n",
    )
    assert not list((pyrun.runroot / "containers").iterdir())


def test_rm_of_hostile_trees(pyrun: Pyrun, tmp_path: Path) -> None:
    """Links out of the container are not followed, and neither depth nor names stop the removal."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("alive")
    script = (
        f"ln -s {canary} /link; mkdir -p '/a\nb\tc'; touch '/-rf' '/\x07'; cd /; i=0;"
        " while [ $i -lt 1200 ]; do mkdir ddddddddd && cd ddddddddd || break; i=$((i+1)); done"
    )
    pyrun.ok("run", "--name", "hostile", "--net=none", "busybox", "sh", "-c", script)
    pyrun.ok("rm", "hostile")
    assert (canary / "file").read_text() == "alive"
    assert not list((pyrun.root / "containers").iterdir())
