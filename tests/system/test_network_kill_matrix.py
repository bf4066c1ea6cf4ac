"""Kill -9 in the middle of a verb that changes the network: connect, disconnect, port add and rm, create, rm.

As test_kill_matrix.py does for starts: the verb is traced once, then repeated for every step with its process killed
there. Whatever is half done then, the container lives on, the verb said again ends as if nothing had been, its
opposite takes everything away, and the container's own end leaves nothing.

The guard notices what is done and looks whether it is to heal: its processes and notes are nobody's leftovers, and a
record of claims may stay until its container ends.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

import killing
import leftovers
from command import Pyrun
from kill_points import assert_killed, everything, points
from waiting import emptied, soon

pytestmark = pytest.mark.timeout(400)  # each walk; a minute on two idle cores

WAITS = ("recv", "epoll", "poll", "wait")


# A network made again is called anew.
BRIDGE = re.compile(r"pyr[0-9a-f]{8}\b")
OF_THE_GUARD = re.compile(
    r"network reload|nft -n -j list ruleset|tables-legacy -w -S|pyrun-(guard|spare)"
    r"|answer /run|/networks/(\w+\.errors|events|guard\.)|/\.record-"
)


def picture(pyrun: Pyrun) -> leftovers.Picture:
    """What there is, networks by no name of their own, nftables by its words."""
    found = {
        kind: {BRIDGE.sub("pyrX", each) for each in things} for kind, things in everything(pyrun).items()
    }
    found["nft"] = {word for line in found["nft"] for word in re.split(r"[\s,{}]+(?![:.])", line)}
    return {
        kind: {each for each in things if not OF_THE_GUARD.search(each)} for kind, things in found.items()
    }


def settled(pyrun: Pyrun, before: leftovers.Picture) -> list[str]:
    """What differs once the kernel has taken away what was released."""
    return emptied(lambda: leftovers.difference(before, picture(pyrun)))


class Scenario(NamedTuple):
    """verb: what is killed; undo: its opposite; again: what may be said when the verb is repeated after it was done;
    least: so many points at least."""

    verb: tuple[str, ...]
    undo: tuple[str, ...]
    again: str
    least: int


SCENARIOS = {
    "connect": Scenario(
        ("network", "connect", "--alias=back", "--ip=192.0.2.77", "yard", "victim"),
        ("network", "disconnect", "yard", "victim"), "is on network yard already", 15),
    "disconnect": Scenario(
        ("network", "disconnect", "yard", "victim"),
        ("network", "connect", "--ip=192.0.2.77", "yard", "victim"), "is not on network yard", 10),
    "port add": Scenario(
        ("port", "add", "victim", "8099:80", "8099:80/udp"),
        ("port", "rm", "victim", "8099:80", "8099:80/udp"), "already published by container victim", 10),
    "port rm": Scenario(
        ("port", "rm", "victim", "8099:80"), ("port", "add", "victim", "8099:80"), "no", 5),
    "create": Scenario(
        ("network", "create", "--ipv6", "fresh"), ("network", "rm", "fresh"), "network fresh exists", 20),
    "rm": Scenario(
        ("network", "rm", "fresh"), ("network", "create", "--ipv6", "fresh"), "no such network: fresh", 10),
}  # fmt: skip


@pytest.fixture
def victim(pyrun: Pyrun) -> Iterator[None]:
    """A container that runs, and a network it is not on; both are warm: every verb was used once."""
    pyrun.ok("network", "create", "--ipv6", "--subnet=192.0.2.0/24", "yard")
    pyrun.ok("run", "-d", "--name=victim", "-p", "8098:80", "busybox", "sleep", "1000")
    pyrun.ok("run", "-d", "--name=witness", "--network=yard", "busybox", "sleep", "1000")
    yield
    assert pyrun.ok("exec", "victim", "ip", "route").startswith("default via 10.")
    pyrun.ok("rm", "-f", "victim", "witness")
    pyrun.ok("system", "reconcile")
    assert not list(pyrun.runroot.glob("networks/.record-*"))


def said(pyrun: Pyrun, scenario: Scenario) -> None:
    """Say the verb (again): it succeeds, or tells that all is done."""
    done = pyrun(*scenario.verb)
    assert done.returncode == 0 or scenario.again in done.stderr, done.stderr


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_every_point(
    name: str, pyrun: Pyrun, victim: None, sandbox_fork: Callable[..., killing.Traced]
) -> None:
    scenario, began = SCENARIOS[name], time.monotonic()
    first, then = scenario.verb, scenario.undo
    opposite = name in ("disconnect", "port rm", "rm")
    for words in (then, first, then) if opposite else (first, then):
        pyrun.ok(*words)

    def run(kill: tuple[str, int] | None) -> killing.Traced:
        return sandbox_fork(killing.trace, [str(pyrun.binary), *first], dict(pyrun.env), kill, flags=0)

    before = picture(pyrun)
    whole = run(None)
    assert whole.status == 0, whole.output
    pyrun.ok(*then)
    assert not settled(pyrun, before)
    walked = [step for step in points(whole.steps) if not step[2].startswith(WAITS)]
    walked = [step for step in walked if not step[2].startswith("sendto") or step[1] % 2 or len(walked) < 40]
    failures, pids = [], []
    for role, number, text in walked:
        killed = run((role, number))
        pids.append(killed.killed)
        try:
            pyrun.ok("system", "reconcile")
            pyrun.ok("exec", "victim", "true")
            said(pyrun, scenario)
            pyrun.ok(*then)
            left = settled(pyrun, before)
            assert not left, "\n".join(left)
        except AssertionError as error:
            failures.append(f"killed at step {number}, {text} ({killed.status}): {error}"[:1200])
            pyrun(*(then if not opposite else first))
            pyrun("system", "reconcile")
            if opposite:
                pyrun(*then)
            if len(failures) > 3 or settled(pyrun, before):
                break
    print(f"\nkill matrix, {name}: {len(walked)} points in {time.monotonic() - began:.0f} s")
    assert not failures, "\n".join(failures)
    assert_killed(pids, walked)
    assert len(walked) >= scenario.least, walked


@pytest.mark.parametrize("name", ["connect", "port add"])
def test_what_was_half_done_ends_with_the_container(
    name: str, pyrun: Pyrun, sandbox_fork: Callable[..., killing.Traced]
) -> None:
    """Nobody repeats the verb or takes it back: the container's own undo list knows of it."""
    pyrun.ok("network", "create", "--ipv6", "--subnet=192.0.2.0/24", "yard")
    pyrun.ok("run", "-d", "--name=witness", "--network=yard", "-p", "8097:80", "busybox", "sleep", "1000")
    verb = SCENARIOS[name].verb
    command = [str(pyrun.binary), *verb]

    def start() -> None:
        pyrun.ok("run", "-d", "--rm", "--name=victim", "busybox", "sleep", "1000")

    start()
    pyrun.ok("stop", "-t", "0", "victim")
    assert soon(lambda: sum(link.startswith("pyv") for link in leftovers.links()) == 1, 5)
    before = picture(pyrun)
    runs = []
    for _ in range(3):
        start()
        runs.append(sandbox_fork(killing.trace, command, dict(pyrun.env), None, flags=0))
        assert runs[-1].status == 0, runs[-1].output
        pyrun.ok("stop", "-t", "0", "victim")
        assert not settled(pyrun, before)
    # how often an address that is not ready yet is asked for differs: the others have the steps of the shortest
    whole = min(runs, key=lambda traced: len(traced.steps))
    walked = [step for step in points(whole.steps) if not step[2].startswith(WAITS)]
    failures, pids = [], []
    for role, number, text in walked[-24:]:
        start()
        killed = sandbox_fork(killing.trace, command, dict(pyrun.env), (role, number), flags=0)
        pids.append(killed.killed)
        pyrun.ok("stop", "-t", "0", "victim")
        soon(lambda: "victim" not in pyrun.ok("ps", "-a"), 2)
        pyrun.ok("system", "reconcile")
        if left := [*settled(pyrun, before), *map(str, pyrun.runroot.glob("networks/.record-*"))]:
            failures.append(f"killed at step {number}, {text}:\n" + "\n".join(left))
            break
    assert not failures, "\n".join(failures)
    assert_killed(pids, walked[-24:])
