"""The rows of the table: what is started, against whom, and the ratio pyrun must keep.

A row is a function of (peers, effort) that returns Figures: one for every limit. They are listed in ROWS at the end,
in the order in which they run. How the medians come about: hyperfine.py; what is started: contenders.py.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import memory
from contenders import WORK, Peers, output
from hyperfine import PAUSE_S, Effort, MeasuringFailed, Samples, interleaved

PARALLEL, AT_A_TIME = 50, 8
FEW, MANY = 9, 199


@dataclass
class Figure:
    """One line of the table: *ours* and *theirs* in *unit*; *limit* is of the ratio, or of *ours* alone.

    Nothing measured: *problem* says why, and that is a failure too. A line *for_information* never fails.
    """

    what: str
    peer: str = ""
    ours: float = 0.0
    theirs: float = 0.0
    limit: float | None = None
    unit: str = "ms"
    problem: str = ""
    for_information: bool = False
    samples: dict[str, Samples] | None = None
    notes: list[str] | None = None

    @property
    def ratio(self) -> float | None:
        """Ours by theirs; None where there is no peer or nothing was measured."""
        return self.ours / self.theirs if self.theirs else None

    @property
    def failed(self) -> bool:
        """Whether this line makes the benchmark fail."""
        return self.verdict in ("over", "not measured") and not self.for_information

    @property
    def verdict(self) -> str:
        """ok, over, or why there is none."""
        if self.problem:
            return "not measured"
        if self.limit is None:
            return ""
        value = self.ours if self.ratio is None else self.ratio
        return "ok" if value <= self.limit else "over"


def compare(
    what: str, peers: Peers, effort: Effort, commands: dict[str, list[str]], limits: dict[str, float]
) -> list[Figure]:
    """Measure pyrun's command interleaved with the peers'; one figure a peer."""
    present = {label: command for label, command in commands.items() if command}
    return judged(what, peers, interleaved(present, effort), limits)


def judged(what: str, peers: Peers, samples: dict[str, Samples], limits: dict[str, float]) -> list[Figure]:
    """One figure a peer of what was measured."""
    figures = []
    for peer, limit in limits.items():
        if peer in samples:
            ours, theirs = samples["pyrun"].median_ms, samples[peer].median_ms
            figures.append(Figure(what, peer, ours, theirs, limit, samples=samples))
        else:
            figures.append(Figure(what, peer, limit=limit, problem=peers.missing.get(peer, "missing")))
    return figures


def image_row(what: str, options: tuple[str, ...], limits: dict[str, float]) -> Row:
    """`run --rm OPTIONS busybox true`."""

    def measure(peers: Peers, effort: Effort) -> list[Figure]:
        commands = {who: peers.run(who, "--rm", *options) for who in ("pyrun", *limits)}
        return compare(what, peers, effort, commands, limits)

    return measure


def bundle_row(what: str, seccomp: bool, limit: float) -> Row:
    """An OCI bundle, with or without Docker's seccomp profile, against runc."""

    def measure(peers: Peers, effort: Effort) -> list[Figure]:
        bundle = peers.make_bundle(seccomp)
        commands = {who: peers.bundles(who, bundle) for who in ("pyrun", "runc")}
        return compare(what, peers, effort, commands, {"runc": limit})

    return measure


def exec_row(peers: Peers, effort: Effort) -> list[Figure]:
    """`exec NAME true` in a container that sleeps."""
    name = "bench-exec"
    both = [who for who in ("pyrun", "docker") if who == "pyrun" or peers.docker]
    try:
        for who in both:
            output(*peers.run(who, "-d", "--name", name, command=memory.PAYLOAD))
        commands = {who: peers.exec(who, name) for who in ("pyrun", "docker")}
        return compare("`exec NAME true`", peers, effort, commands, {"docker": 0.3})
    finally:
        for who in both:
            peers.remove(who, name)


def parallel_row(peers: Peers, effort: Effort) -> list[Figure]:
    """PARALLEL starts, AT_A_TIME at once, by xargs; few runs, since each is PARALLEL starts."""
    numbers = WORK / "numbers"
    numbers.write_text("".join(f"{each}\n" for each in range(PARALLEL)))
    commands = {}
    for who in ("pyrun", "docker"):
        if command := peers.run(who, "--rm"):
            commands[who] = ["xargs", "-a", str(numbers), "-n", "1", "-P", str(AT_A_TIME), *command]
    few = Effort(max(1, effort.rounds // 4), 2, effort.budget_s, warm_up=False)
    what = f"{PARALLEL} starts, {AT_A_TIME} at a time"
    return compare(what, peers, few, commands, {"docker": 0.12})


def many_row(peers: Peers, effort: Effort) -> list[Figure]:
    """A start beside MANY running containers against one beside FEW."""
    names = [f"bench-{number}" for number in range(1, MANY + 1)]
    quiet, crowded = Samples(), Samples()
    try:
        start_sleepers(peers, names[:FEW])
        for _ in range(effort.crowds):
            quiet.add(_starts(peers, effort))
            start_sleepers(peers, names[FEW:])
            running = len(output(peers.pyrun, "ps", "-q").split())
            if running != MANY:
                raise MeasuringFailed(f"{running} containers are running, not {MANY}")
            crowded.add(_starts(peers, effort))
            peers.remove("pyrun", *names[FEW:])
        quiet.add(_starts(peers, effort))
    finally:
        peers.remove("pyrun", *names)
    samples = {"pyrun": crowded, f"pyrun beside {FEW}": quiet}
    what = f"start beside {MANY} containers against beside {FEW}"
    return [Figure(what, "itself", crowded.median_ms, quiet.median_ms, 1.3, samples=samples)]


def _starts(peers: Peers, effort: Effort) -> Samples:
    time.sleep(PAUSE_S)
    return interleaved({"pyrun": peers.run("pyrun", "--rm")}, effort.parted(effort.crowds))["pyrun"]


def start_sleepers(peers: Peers, names: list[str]) -> None:
    """Detached containers that sleep."""
    for name in names:
        output(*peers.run("pyrun", "-d", "--name", name, command=memory.PAYLOAD))


def memory_row(peers: Peers, _: Effort) -> list[Figure]:
    """What is kept in memory for a running container that is alone; the peers' own for information."""
    figures = []
    for detached in (False, True):
        what = f"memory of a running container, {'detached, with its log' if detached else 'foreground'}"
        ours = memory.measure(peers, "pyrun", detached)
        figures.append(_memory_figure(what, "", ours, 150))
        for who in ("docker", "podman"):
            if who not in peers.missing:
                figures.append(_memory_figure(what, who, memory.measure(peers, who, detached), None))
    return figures


def _memory_figure(what: str, peer: str, found: dict[str, object], limit: float | None) -> Figure:
    amount, notes = float(str(found["kB"])), [str(each) for each in found["processes"]]  # type: ignore[attr-defined]
    if not peer and not amount:
        return Figure(what, peer, limit=limit, unit="kB", problem="no process of pyrun's was found")
    figure = Figure(what, peer, limit=limit, unit="kB", notes=notes, for_information=bool(peer))
    if peer:
        figure.theirs = amount
    else:
        figure.ours = amount
    return figure


def stages_row(peers: Peers, effort: Effort) -> list[Figure]:
    """The stages of a start on the bridge, as `--explain=json` reports them on its own run; no limits."""
    command = peers.run("pyrun", "--rm", "--explain=json")
    stages: dict[str, list[float]] = {}
    for _ in range(effort.rounds * 3):
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            reason = f"--explain=json: status {done.returncode}: {done.stderr.strip()[-300:]}"
            return [Figure("stages", problem=reason, for_information=True)]
        for name, took_ms in timings(done.stderr):
            stages.setdefault(name, []).append(took_ms)
    if not stages:
        return [Figure("stages", problem="--explain=json printed no timings", for_information=True)]
    return [  # in their order
        Figure(f"stage: {name}", ours=statistics.median(each), for_information=True)
        for name, each in stages.items()
    ]


def timings(text: str) -> list[tuple[str, float]]:
    """Every {"timings": [{"stage", "ms"}]} among the lines of *text*; the other lines do not matter."""
    found = []
    for line in text.splitlines():
        try:
            stages = json.loads(line).get("timings", [])
            found += [(str(each["stage"]), float(each["ms"])) for each in stages]
        except (ValueError, AttributeError, KeyError, TypeError):
            continue
    return found


Row = Callable[[Peers, Effort], list[Figure]]

ROWS: dict[str, Row] = {
    "bridge": image_row("`run --rm --net=bridge busybox true`", ("--net=bridge",), {"docker": 0.10, "podman": 0.08}),
    "none": image_row("the same with `--net=none`", ("--net=none",), {"docker": 0.10, "podman": 0.15}),
    "publish": image_row("the same with `-p 8080:80`", ("-p", "8080:80"), {"docker": 0.10, "podman": 0.08}),
    "bundle": bundle_row("OCI bundle", seccomp=False, limit=0.7),
    "bundle-seccomp": bundle_row("OCI bundle with Docker's seccomp profile", seccomp=True, limit=0.4),
    "exec": exec_row,
    "parallel": parallel_row,
    "many": many_row,
    "memory": memory_row,
    "stages": stages_row,
}  # fmt: skip


def installed_pyrun(python: str) -> Path:
    """The command of the environment this interpreter belongs to."""
    return Path(python).parent / "pyrun"
