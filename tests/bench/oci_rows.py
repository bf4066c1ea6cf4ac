"""The rows of pyrun-oci: the same bundles and command lines as runc's and crun's, and podman with one or the other.

Not here: rows of pyrun itself (rows.py), how it is measured (hyperfine.py), the command lines (oci_contenders.py).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import memory
from contenders import PODMAN_RUN, RUN, WORK, Peers
from hyperfine import PAUSE_S, Effort, Samples, interleaved, returned_ms
from oci_contenders import OURS, Runtimes, without_hybrid
from rows import Figure, Row, judged

FEW, MANY = 10, 500
# Those that are timed, by how many there are before the first and with the last.
AROUND_FEW, AROUND_MANY = (0, 20), (480, 520)
TOGETHER = 100
SOAK_CYCLES_A_ROUND = 500
# what the kernel of a whole, quiet machine may hold after thousands of cycles: its caches settle slowly
KERNEL_LIMIT_KB = 8192


def run_row(what: str, seccomp: bool, peer: str, limit: float) -> Row:
    """`run` of a bundle, in the foreground."""

    def measure(peers: Peers, effort: Effort) -> list[Figure]:
        runtimes = Runtimes(peers)
        bundle = peers.make_bundle(seccomp)
        commands = {who: runtimes(who, "run", "--bundle", str(bundle), "bench") for who in (OURS, peer)}
        return judged(what, peers, _beside(peer, commands, effort), {peer: limit})

    return measure


def told(row: Row) -> Row:
    """A row whose ratio may be over its limit without failing the benchmark: README.md here says why."""

    def measure(peers: Peers, effort: Effort) -> list[Figure]:
        figures = row(peers, effort)
        for figure in figures:
            figure.for_information = figure.verdict == "over"
        return figures

    return measure


def _beside(peer: str, commands: dict[str, list[str]], effort: Effort) -> dict[str, Samples]:
    """Old versions of crun refuse a host with hybrid cgroups: both run where the v2 mount is hidden."""
    return interleaved(commands, effort, prefix=without_hybrid() if peer == "crun" else [])


def lifecycle_row(peers: Peers, effort: Effort) -> list[Figure]:
    """The sum of create, start and delete. The command's end in between is waited for and not measured: without that,
    runc's delete would look once, sleep for 100 ms and look again, which says nothing about how fast it is.
    """
    runtimes = Runtimes(peers)
    bundle = peers.make_bundle(False)
    samples = {OURS: Samples(), "runc": Samples()}
    for number in range(effort.rounds):
        for who in sorted(samples, reverse=bool(number % 2)):
            samples[who].wall_ms += [_lifecycle(runtimes, who, bundle) for _ in range(effort.runs)]
            samples[who].rounds += 1
    return judged("pyrun-oci create + start + delete", peers, samples, {"runc": 0.8})


def _lifecycle(runtimes: Runtimes, who: str, bundle: Path) -> float:
    pid_file = RUN / "pid"
    took_ms = runtimes.create(who, "bench", bundle, "--pid-file", str(pid_file))
    process = Path("/proc", pid_file.read_text())
    took_ms += runtimes.start(who, "bench")
    while process.exists():
        time.sleep(0.001)
    return took_ms + returned_ms(runtimes(who, "delete", "bench"))


def exec_row(peers: Peers, effort: Effort) -> list[Figure]:
    """`exec NAME true` in a container that sleeps."""
    runtimes = Runtimes(peers)
    bundle = peers.make_bundle(False, memory.PAYLOAD)
    both = (OURS, "runc")
    try:
        for who in both:
            runtimes.create(who, "bench-exec", bundle)
            runtimes.start(who, "bench-exec")
        commands = {who: runtimes(who, "exec", "bench-exec", "true") for who in both}
        return judged("pyrun-oci exec", peers, interleaved(commands, effort), {"runc": 0.8})
    finally:
        for who in both:
            runtimes.remove(who, "bench-exec")


def podman_row(peers: Peers, effort: Effort) -> list[Figure]:
    """`podman run --rm`, without a network: making one takes podman longer than all that the runtime does."""
    runtimes = Runtimes(peers)
    what = "`podman run --rm --net=none` with pyrun-oci"
    if not peers.podman:
        return [Figure(what, "crun", limit=1.05, problem=peers.missing["podman"])]
    begin = [word for word in peers.podman if word not in ("--runtime", "runc")]
    end = ["run", "--rm", "--net=none", *PODMAN_RUN, "busybox", "true"]
    commands = {who: [*begin, "--runtime", runtimes.program(who), *end] for who in (OURS, "crun")}
    return judged(what, peers, _beside("crun", commands, effort), {"crun": 1.05})


# ── many ───────────────────────────────────────────────────────────────────────────────────────────


def crowd_row(peers: Peers, effort: Effort) -> list[Figure]:
    """Bundles are created one after the other: the creates around the MANYth against those around the FEWth.

    For information the other figure, in which each is deleted before the next: what the kernel does for a cgroup that
    went takes the longer the more there are, and a create waits for it.
    """
    runtimes = Runtimes(peers)
    bundle = peers.make_bundle(False)
    names = [f"bench-{number}" for number in range(1, AROUND_MANY[1] + 1)]
    first, last = names[slice(*AROUND_FEW)], names[slice(*AROUND_MANY)]
    few, many, beside_few, beside_many = Samples(), Samples(), Samples(), Samples()

    def create(some: list[str]) -> list[float]:
        time.sleep(PAUSE_S)
        return [runtimes.create(OURS, name, bundle) for name in some]

    try:
        for _ in range(effort.crowds):
            few.wall_ms += create(first)
            beside_few.wall_ms += _and_deletes(runtimes, bundle, len(first))
            create(names[AROUND_FEW[1] : AROUND_MANY[0]])
            many.wall_ms += create(last)
            beside_many.wall_ms += _and_deletes(runtimes, bundle, len(first))
            runtimes.remove(OURS, *names)
        few.wall_ms += create(first)
    finally:
        runtimes.remove(OURS, *names)
    what = f"pyrun-oci create, container number {MANY} against number {FEW}"
    both = f"pyrun-oci create and delete, one after the other, beside {len(names)} created against beside {len(first)}"
    samples = {"pyrun": many, f"pyrun, number {FEW}": few}
    return [
        Figure(what, "itself", many.median_ms, few.median_ms, 1.2, samples=samples),
        Figure(both, "itself", beside_many.median_ms, beside_few.median_ms, for_information=True),
    ]


def _and_deletes(runtimes: Runtimes, bundle: Path, count: int) -> list[float]:
    """The milliseconds of *count* creates, each of which is deleted before the next."""
    time.sleep(PAUSE_S)
    took_ms = []
    for _ in range(count):
        took_ms.append(runtimes.create(OURS, "bench-one", bundle))
        runtimes.remove(OURS, "bench-one")
    return took_ms


def together_row(peers: Peers, effort: Effort) -> list[Figure]:
    """TOGETHER creates at the same time by xargs, until the last is done; deleting them is not measured."""
    runtimes = Runtimes(peers)
    bundle = peers.make_bundle(False)
    numbers = WORK / "numbers-oci"
    names = [f"bench-{number}" for number in range(TOGETHER)]
    numbers.write_text("".join(f"{name}\n" for name in names))
    samples = {OURS: Samples(), "runc": Samples()}
    for number in range(max(2, effort.rounds // 2)):
        for who in sorted(samples, reverse=bool(number % 2)):
            words = ["xargs", "-a", str(numbers), "-n", "1", "-P", str(TOGETHER)]
            words += runtimes(who, "create", "--bundle", str(bundle))
            try:
                samples[who].wall_ms.append(returned_ms(words))
            finally:
                runtimes.remove(who, *names)
            samples[who].rounds += 1
    return judged(f"{TOGETHER} pyrun-oci creates at once", peers, samples, {"runc": 0.7})


# ── what stays ─────────────────────────────────────────────────────────────────────────────────────


def memory_row(peers: Peers, _: Effort) -> list[Figure]:
    """The PSS of everything that is there after `create`: the waiting init; runc's for information."""
    runtimes = Runtimes(peers)
    bundle = peers.make_bundle(False)
    figures = []
    for who, peer in ((OURS, ""), ("runc", "runc")):
        before = memory.processes()
        runtimes.create(who, "bench-memory", bundle)
        time.sleep(0.3)
        found = memory.pss(memory.processes() - before)
        runtimes.remove(who, "bench-memory")
        notes = [f"{name} {amount}" for name, amount in found.values()]
        kb = float(sum(amount for _, amount in found.values()))
        figure = Figure("memory of a created container of pyrun-oci", peer, unit="kB", notes=notes)
        if peer:
            figure.theirs, figure.for_information = kb, True
        else:
            figure.ours, figure.limit = kb, 150
        figures.append(figure)
    return figures


def soak_row(peers: Peers, effort: Effort) -> list[Figure]:
    """Thousands of create and delete: what has grown, counted together, and the kernel's memory."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    import soak

    runtimes = Runtimes(peers)
    bundle = peers.make_bundle(False)
    cycles = effort.rounds * SOAK_CYCLES_A_ROUND
    growth, kernel_kb = soak.soak(runtimes(OURS), bundle, cycles, [Path("/run")])
    what = f"{cycles} create and delete of pyrun-oci: "
    left = Figure(f"{what}descriptors, mounts, cgroups, files, kB left", unit="things", limit=0)
    left.ours = float(sum(growth.values()))
    left.notes = [f"{name} {amount}" for name, amount in growth.items()]
    kernel = Figure(
        f"{what}the kernel's memory", unit="kB", limit=KERNEL_LIMIT_KB, ours=float(max(kernel_kb, 0))
    )
    return [left, kernel]


ROWS: dict[str, Row] = {
    "oci-run": run_row("pyrun-oci run of a busybox bundle", False, "runc", 0.6),
    "oci-run-seccomp": run_row("the same with Docker's seccomp profile", True, "runc", 0.35),
    "oci-run-crun": told(run_row("pyrun-oci run of a busybox bundle", False, "crun", 0.7)),
    "oci-run-crun-seccomp": told(run_row("the same with Docker's seccomp profile", True, "crun", 0.7)),
    "oci-lifecycle": lifecycle_row,
    "oci-exec": exec_row,
    "oci-podman": podman_row,
    "oci-crowd": crowd_row,
    "oci-together": together_row,
    "oci-memory": memory_row,
    "oci-soak": soak_row,
}
