"""Crash safety: kill -9 of planner, monitor and init at every point, then `system reconcile`, then nothing is left.

For each way to start a container, one run is traced to learn its steps (killing.py: what others can see or wait
for). Then it is repeated once for every step, and the process that takes the step is killed there. Steps that differ
only in a name of the same kind (the mkdir of each cgroup hierarchy) are walked at their first and their last. What
happens inside init's own mount namespace cannot outlive it: of that, the first and last call of each kind.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import capabilities
import killing
import leftovers
from command import Pyrun
from kill_points import assert_killed, everything, make_bundle, points, settled
from waiting import runs, soon

pytestmark = pytest.mark.timeout(300)  # each walk; half a minute on two idle cores


class Scenario(NamedTuple):
    """arguments: of `run`; kept: whether the container outlives its run; lives: whether its command does not end."""

    arguments: tuple[str, ...]
    kept: bool = False
    lives: bool = False
    least: int = 60


SCENARIOS = {
    "bridge -p --rm": Scenario(
        ("--rm", "--name=victim", "-p", "8099:80", "-p", "8099:80/udp", "busybox", "true"), least=120
    ),
    "kept": Scenario(("--name=victim", "--net=none", "busybox", "sh", "-c", "exit 3"), kept=True),
    "-d": Scenario(
        ("-d", "--name=victim", "-p", "8099:80", "busybox", "sleep", "1000"), kept=True, lives=True
    ),
    "bundle": Scenario(("--bundle", "{bundle}", "victim")),
    "bundle -p": Scenario(("--bundle", "{bundle}", "--net=bridge", "-p", "8099:80", "victim"), least=100),
}
WALKED: dict[str, int] = {}


# ── the walk ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def bundle(pyrun: Pyrun, tmp_path: Path) -> Path:
    """An OCI bundle with busybox as its root."""
    return make_bundle(pyrun, tmp_path / "bundle")


@pytest.fixture
def witness(pyrun: Pyrun) -> Iterator[None]:
    """A container that has nothing to do with it: the network stands, and nothing may happen to either."""
    pyrun.ok("run", "-d", "--name=witness", "-p", "8098:80", "busybox", "sleep", "1000")
    pyrun.ok("run", "--name=warm", "-p", "8097:80/udp", "busybox", "true")
    pyrun.ok("rm", "warm")
    # the kernel takes a link away some time after its namespace has ended
    soon(lambda: sum(link.startswith("pyv") for link in leftovers.links()) == 1)
    yield
    assert pyrun.ok("exec", "witness", "ip", "route").startswith("default via")
    pyrun.ok("rm", "-f", "witness")


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_killed_at_every_point(
    name: str, pyrun: Pyrun, bundle: Path, witness: None, sandbox_fork: Callable[..., killing.Traced]
) -> None:
    scenario = SCENARIOS[name]
    words = [word.format(bundle=bundle) for word in scenario.arguments]

    def run(kill: tuple[str, int] | None) -> killing.Traced:
        return sandbox_fork(killing.trace, [str(pyrun.binary), "run", *words], dict(pyrun.env), kill, flags=0)

    before, began = everything(pyrun), time.monotonic()
    whole = run(None)
    assert whole.status == (3 if name == "kept" else 0), whole.output
    check(pyrun, scenario, whole, before, "not killed")
    walked = points(whole.steps)
    failures, killed = [], []
    for role, number, text in walked:
        traced = run((role, number))
        killed.append(traced.killed)
        if not traced.killed:  # the order of what runs side by side varies, and with it who waits how often
            check(pyrun, scenario, traced, before, f"{role} {number} survived")
            continue
        try:
            check(pyrun, scenario, traced, before, role)
        except AssertionError as error:
            failures.append(f"{role} killed at step {number}, {text}: {error}"[:1500])
            repair(pyrun)
            if len(failures) > 8 or settled(pyrun, before):
                break
    WALKED[name] = len(walked)
    by_role = {role: sum(step[0] == role for step in walked) for role in ("planner", "init", "monitor")}
    print(f"\nkill matrix, {name}: {len(walked)} points {by_role} in {time.monotonic() - began:.0f} s")
    assert not failures, "\n".join(failures)
    assert_killed(killed, walked)
    assert len(walked) > scenario.least and min(by_role.values()) > 2, by_role


def repair(pyrun: Pyrun) -> None:
    """After a failure: what makes the next point a fair one."""
    pyrun("rm", "-f", "victim")
    pyrun("system", "reconcile")


def check(
    pyrun: Pyrun, scenario: Scenario, traced: killing.Traced, before: leftovers.Picture, role: str
) -> None:
    """Reconcile, look at what became of the container, remove it if it is to be there, and compare."""
    if scenario.lives:
        wait_for_init(pyrun)
    else:
        wait_for_the_command(pyrun)
    done = pyrun("system", "reconcile")
    assert done.returncode == 0, done.stderr
    rows = {row["Names"]: row for row in map(json.loads, pyrun.ok("ps", "-a", "--format=json").splitlines())}
    row = rows.get("victim")
    if not scenario.kept:
        assert row is None, row
    elif row is not None:
        judge(pyrun, scenario, row, role, traced.killed)
    else:
        assert role in ("planner", "init"), "a container that has run is gone"
    if role == "init":
        # the first message says that it waits for GO; after the second, READY, it counts as the command
        ready = len(messages(traced.steps[:-1])) > 1
        assert traced.status == (137 if ready else 125) or (ready and scenario.lives), traced
        assert traced.output.count("pyrun: ") == (not ready), traced.output
    left = settled(pyrun, before)
    assert not left, "\n".join(left)


def messages(steps: list[killing.Step]) -> list[str]:
    """By which calls init told the planner something: once a filter is loaded, by write."""
    names = [step.name for step in steps if step.role == "init" and step.name in ("sendmsg", "write")]
    return names[names.index("sendmsg") :] if "sendmsg" in names else []


def wait_for_the_command(pyrun: Pyrun) -> None:
    """A planner killed late leaves a command that runs on: here it ends by itself."""
    for pid in pids(pyrun):
        soon(lambda pid=pid: not runs(pid))


def wait_for_init(pyrun: Pyrun) -> None:
    """An init whose planner was killed hears of it when it next listens; so long reconcile takes it for a container."""
    soon(lambda: not any(map(is_init, pids(pyrun))))


def is_init(pid: int) -> bool:
    """Whether it has become neither the command nor nothing yet."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"pyrun-init")
    except OSError:
        return False


def pids(pyrun: Pyrun) -> list[int]:
    """Of the container that was started."""
    found = []
    for path in pyrun.runroot.glob("containers/*/state.json"):
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            state = json.loads(path.read_text())
            found += [state["pid"]] if state["name"] != "witness" else []
    return found


def judge(pyrun: Pyrun, scenario: Scenario, row: dict[str, str], role: str, killed: int) -> None:
    """What ps says of a kept container is true, and stop and rm work."""
    if scenario.lives and row["State"] == "running":
        assert row["Status"].startswith("Up "), row
        pyrun.ok("exec", "victim", "true")
        monitor_pid = pyrun.state("victim")["monitor_pid"]
        pyrun.ok("stop", "-t", "0", "victim")
        (again,) = map(json.loads, pyrun.ok("ps", "-a", "--format=json", "-f", "name=victim").splitlines())
        code = "unknown" if killed == monitor_pid else "137"  # else it was the parent of -d, which only waits
        assert again["Status"].startswith(f"Exited ({code}) "), again
    else:
        codes = (137,) if role == "init" else (3, "unknown")
        assert not scenario.lives or role == "init", json.dumps(row)
        assert row["Status"].startswith(tuple(f"Exited ({code}) " for code in codes)), row
    pyrun.ok("rm", "victim")


def test_killed_while_the_first_network_is_made(
    pyrun: Pyrun, sandbox_fork: Callable[..., killing.Traced]
) -> None:
    """Half a network is no leftover but a beginning: the next start completes it, and `network prune` removes it."""
    words = [str(pyrun.binary), "run", "--rm", "--name=victim", "busybox", "true"]
    pyrun.ok("run", "--rm", "busybox", "true")
    pyrun.ok("network", "prune", "-f")
    before, began = everything(pyrun), time.monotonic()
    whole = sandbox_fork(killing.trace, words, dict(pyrun.env), None, flags=0)
    pyrun.ok("network", "prune", "-f")
    assert not settled(pyrun, before)
    waits = ("recv", "epoll", "poll", "wait")
    first = [step.name == "link" for step in whole.steps].index(True)  # the claim of the container's name
    changes = [step for step in points(whole.steps[:first]) if not step[2].startswith(waits)]
    # most of what is sent only asks: every other one will do
    walked = [step for step in changes if not step[2].startswith("sendto") or step[1] % 2]
    failures: list[str] = []
    for role, number, text in walked:
        killed = sandbox_fork(killing.trace, words, dict(pyrun.env), (role, number), flags=0)
        assert killed.killed, text
        try:
            pyrun.ok("system", "reconcile")
            shown = pyrun.ok("run", "--rm", "busybox", "sh", "-c", "ip -4 route; ping -c1 -W2 198.51.100.1")
            assert shown.startswith("default via 10.") and " 0% packet loss" in shown, shown
            pyrun.ok("network", "prune", "-f")
            left = settled(pyrun, before)
            assert not left, "\n".join(left)
        except AssertionError as error:
            failures.append(f"killed at step {number}, {text}: {error}"[:1500])
            break
    print(f"\nkill matrix, first network: {len(walked)} points in {time.monotonic() - began:.0f} s")
    assert not failures, "\n".join(failures)
    assert len(walked) > 25, walked


def test_the_matrix_was_walked() -> None:
    """Together: enough points to mean something."""
    if set(WALKED) != set(SCENARIOS):
        pytest.skip(capabilities.INAPPLICABLE["some scenarios"])
    assert sum(WALKED.values()) > 300, WALKED
