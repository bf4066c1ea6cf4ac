"""Crash safety of pyrun-oci: kill -9 of the command or of init at every step that others can see.

After each kill the state must be one of the specification's, and true of the process; `delete -f` must work, and leave
nothing. Points are chosen as in test_kill_matrix.py.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import killing
import leftovers
from command import Pyrun
from kill_points import assert_killed, everything, make_bundle, points, settled
from waiting import emptied

pytestmark = pytest.mark.timeout(240)

ROOT = "oci"


class Scenario(NamedTuple):
    """before: commands that lead to it; words: the command that is killed; least: how many points at least."""

    before: tuple[tuple[str, ...], ...]
    words: tuple[str, ...]
    least: int


CREATE = ("create", "--bundle", "{bundle}", "--pid-file", "{bundle}/pid", "victim")
START = ("start", "victim")
# the same without a mount namespace: what is mounted is the host's to take away
SHARED = ("create", "--bundle", "{bundle}", "--config", "{bundle}/shared.json", "victim")
SCENARIOS = {
    "create": Scenario((), CREATE, 25),
    "create without a mount namespace": Scenario((), SHARED, 25),
    "delete without a mount namespace": Scenario((SHARED, START), ("delete", "--force", "victim"), 10),
    "start": Scenario((CREATE,), START, 1),
    "run -d": Scenario((), ("run", "--detach", "--bundle", "{bundle}", "victim"), 25),
    "delete": Scenario((CREATE, START), ("delete", "--force", "victim"), 10),
    "exec": Scenario((CREATE, START), ("exec", "victim", "true"), 15),
    "kill": Scenario((CREATE, START), ("kill", "victim", "KILL"), 1),
    "kill --all": Scenario((CREATE, START), ("kill", "--all", "victim", "KILL"), 2),
    "pause": Scenario((CREATE, START), ("pause", "victim"), 1),
    "resume": Scenario((CREATE, START, ("pause", "victim")), ("resume", "victim"), 1),
    "update": Scenario((CREATE, START), ("update", "--pids-limit", "40", "--memory", "64m", "victim"), 3),
}


class Runtime:
    """pyrun-oci with a root of its own."""

    def __init__(self, pyrun: Pyrun, directory: Path) -> None:
        self.binary = pyrun.binary.with_name("pyrun-oci")
        self.root = pyrun.runroot / ROOT
        self.bundle = directory
        self.env = pyrun.env

    def command(self, words: tuple[str, ...]) -> list[str]:
        return [
            str(self.binary),
            "--root",
            str(self.root),
            *[word.format(bundle=self.bundle) for word in words],
        ]

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        with (self.bundle / "said").open("w+") as said:
            done = subprocess.run(
                self.command(words),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=self.env,
                check=False,
                timeout=60,
            )
            said.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, said.read(), "")

    def ok(self, *words: str) -> str:
        done = self(*words)
        assert done.returncode == 0, (words, done.stdout)
        return done.stdout


@pytest.fixture
def runtime(pyrun: Pyrun, tmp_path: Path) -> Runtime:
    bundle = make_bundle(pyrun, tmp_path / "bundle")
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["args"] = ["sleep", "1000"]
    (bundle / "config.json").write_text(json.dumps(config))
    section = config["linux"]
    section["namespaces"] = [each for each in section["namespaces"] if each["type"] != "mount"]
    (bundle / "shared.json").write_text(json.dumps(config))
    return Runtime(pyrun, bundle)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_killed_at_every_point(
    name: str, pyrun: Pyrun, runtime: Runtime, sandbox_fork: Callable[..., killing.Traced]
) -> None:
    scenario = SCENARIOS[name]
    # the directories that stay are there
    runtime.ok("run", "--detach", "--bundle", str(runtime.bundle), "warm")
    runtime.ok("delete", "--force", "warm")
    before = everything(pyrun)

    def run(kill: tuple[str, int] | None) -> killing.Traced:
        for words in scenario.before:
            runtime.ok(*words)
        return sandbox_fork(killing.trace, runtime.command(scenario.words), dict(runtime.env), kill, flags=0)

    whole = run(None)
    assert whole.status == 0, whole.output
    check(pyrun, runtime, before, "nobody was killed")
    walked, killed = points(whole.steps), []
    for role, number, text in walked:
        traced = run((role, number))
        killed.append(traced.killed)
        check(
            pyrun,
            runtime,
            before,
            f"{role} {'killed' if traced.killed else 'survived'} at step {number}, {text}",
        )
    print(f"\nkill matrix, pyrun-oci {name}: {len(walked)} points")
    assert_killed(killed, walked)
    assert len(walked) >= scenario.least


def check(pyrun: Pyrun, runtime: Runtime, before: leftovers.Picture, what: str) -> None:
    """The state is true, `delete -f` works, nothing is left."""
    # what was sent SIGKILL may have ended between the state and the look at the process
    wrong = emptied(lambda: untrue_state(runtime), 2)
    assert not wrong, (what, wrong)
    done = runtime("delete", "--force", "victim")
    assert done.returncode == 0, (what, done.stdout)
    (runtime.bundle / "pid").unlink(missing_ok=True)
    lines = settled(pyrun, before)
    assert not lines, (what, lines)


def frozen() -> bool:
    """Whether a cgroup is frozen: there is but one container."""
    states = [path.read_text() for path in Path("/sys/fs/cgroup").glob("freezer/**/freezer.self_freezing")]
    states += [path.read_text() for path in Path("/sys/fs/cgroup").glob("**/cgroup.freeze")]
    return any(text.strip() == "1" for text in states)


def untrue_state(runtime: Runtime) -> str:
    """What `state` says of the victim, if that is not so."""
    done = runtime("state", "victim")
    if done.returncode != 0:
        return "" if "does not exist" in done.stdout else done.stdout
    state = json.loads(done.stdout)
    alive = bool(state["pid"]) and Path(f"/proc/{state['pid']}").exists()
    words = {"creating": True, "created": alive, "running": alive, "paused": alive, "stopped": not alive}
    true = words.get(state["status"], False) and (state["status"] == "paused") == frozen()
    return "" if true else done.stdout
