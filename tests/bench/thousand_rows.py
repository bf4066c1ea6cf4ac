"""The row of a thousand containers on one network: the thousandth start against the tenth, and the end of all of them.

Not here: the network's stage in a start, first packets (network_rows.py), a start beside 199 (rows.py).
"""

from __future__ import annotations

import shlex
import socket
import statistics
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from contenders import WORK, Peers, output
from hyperfine import PAUSE_S, Effort, MeasuringFailed, Samples, interleaved, returned_ms
from network_rows import HOST, PORT, SLEEP, timed
from rows import Figure, Row

FEW, MANY, AT_ONCE = 9, 999, 4
# How many are there before the first of those that are timed, and with the last: twenty around the tenth, forty around
# the thousandth. One bridge takes 1,023.
AROUND_FEW, AROUND_MANY = (0, 20), (980, 1020)
LONG_PAUSE_S = 10.0  # in which the kernel does what is left to do for what ended
OF_DOCKER = 40  # as many of Docker's are removed, for its time per container
SERVE = ("nc", "-ll", "-p", "81", "-e", "cat")


def thousand_row(peers: Peers, effort: Effort) -> list[Figure]:
    """The starts around the tenth and the thousandth, in turns, then the end of all of them against Docker's.

    A network is filled and emptied a few times: a machine has slower and quicker minutes, and a crowd takes one. The
    starts around the tenth are timed before each crowd, and after the last.
    """
    names = [f"bench-{number}" for number in range(1, AROUND_MANY[1] + 1)]
    output(*peers.run("pyrun", "--rm"))
    before = traces()
    found = Found()
    try:
        for _ in range(effort.crowds):
            part = Effort(effort.rounds, effort.runs, effort.budget_s / 3 / effort.crowds)
            filled_and_emptied(peers, part, names, before, found)
            found.left |= {(kind, each) for kind, there in traces().items() for each in there - before[kind]}
            time.sleep(LONG_PAUSE_S)
        found.few += one_by_one(peers, names[slice(*AROUND_FEW)])
    finally:
        peers.remove("pyrun", *names)
    kinds = [kind for kind, _ in found.left]
    removed_ms = statistics.median(found.removed_ms) / MANY
    return [
        *of_starts(found),
        Figure(f"{MANY} containers removed: links, rules, leases, flows left", unit="things", limit=0,
               ours=float(len(kinds)), notes=[f"{kind} {kinds.count(kind)}" for kind in sorted(set(kinds))]),
        _against_docker(peers, f"{MANY} containers stopped and removed, each", removed_ms),
    ]  # fmt: skip


@dataclass
class Found:
    """What was measured: milliseconds, and what was left of the networks."""

    few: list[float] = field(default_factory=list)
    many: list[float] = field(default_factory=list)
    ends_beside_few: list[float] = field(default_factory=list)
    ends_beside_many: list[float] = field(default_factory=list)
    removed_ms: list[float] = field(default_factory=list)
    left: set[tuple[str, str]] = field(default_factory=set)


def filled_and_emptied(
    peers: Peers, part: Effort, names: list[str], before: dict[str, set[str]], found: Found
) -> None:
    """One crowd."""
    first = names[slice(*AROUND_FEW)]
    found.few += one_by_one(peers, first)
    found.ends_beside_few += back_to_back(peers, part, first[FEW:])
    published = crowd(peers, names[FEW : AROUND_MANY[0]])
    found.many += one_by_one(peers, names[slice(*AROUND_MANY)])
    found.ends_beside_many += back_to_back(peers, part, names[MANY:])
    with ExitStack() as flows:  # flows that lead to some of them
        lead(flows, published, before)
        found.removed_ms.append(ending(peers, "pyrun", names[:MANY]))


def of_starts(found: Found) -> list[Figure]:
    """Start against start, with its limit; for information the other figure, in which the ends before are."""
    what = f"start number {MANY + 1} on one network against number {FEW + 1}"
    both = f"start and end, one after the other, beside {MANY} containers against beside {FEW}"
    starts = {"pyrun": Samples(found.many), f"pyrun, number {FEW + 1}": Samples(found.few)}
    ends = {"pyrun": Samples(found.ends_beside_many), f"pyrun beside {FEW}": Samples(found.ends_beside_few)}
    median = statistics.median
    return [
        Figure(what, "itself", median(found.many), median(found.few), 1.5, samples=starts),
        Figure(both, "itself", median(found.ends_beside_many), median(found.ends_beside_few), samples=ends,
               for_information=True),
    ]  # fmt: skip


def _against_docker(peers: Peers, what: str, ours_ms: float) -> Figure:
    if not peers.docker:
        return Figure(what, "docker", limit=0.2, problem=peers.missing["docker"])
    names = [f"bench-{number}" for number in range(OF_DOCKER)]
    for name in names:
        output(*peers.run("docker", "-d", "--name", name, command=SLEEP))
    theirs_ms = ending(peers, "docker", names) / OF_DOCKER
    return Figure(what, "docker", ours_ms, theirs_ms, 0.2, notes=[f"of Docker's {OF_DOCKER}"])


# ── starts ─────────────────────────────────────────────────────────────────────────────────────────


def one_by_one(peers: Peers, names: list[str]) -> list[float]:
    """Milliseconds of starting detached containers one after the other, as somebody fills a network."""
    time.sleep(PAUSE_S)
    return [returned_ms(peers.run("pyrun", "-d", "--name", name, command=SLEEP)) for name in names]


def back_to_back(peers: Peers, effort: Effort, too_many: list[str]) -> list[float]:
    """Milliseconds of `run --rm`, one after the other, beside the others there are without *too_many*."""
    peers.remove("pyrun", *too_many)
    time.sleep(PAUSE_S)
    return interleaved({"pyrun": peers.run("pyrun", "--rm")}, effort)["pyrun"].wall_ms


def crowd(peers: Peers, names: list[str]) -> list[int]:
    """Start detached containers, AT_ONCE at a time, and see them run; returns the host's ports, of every tenth one."""
    listed = WORK / "numbers-network"
    ports = {name: PORT + 1 + number for number, name in enumerate(names[::10])}
    options = {name: f" -p {port}:81" for name, port in ports.items()}
    listed.write_text("".join(f"--name {name}{options.get(name, '')}\n" for name in names))
    shell = shlex.join(peers.run("pyrun", "-d", "@", command=SERVE)).replace(" @ ", ' "$@" ')
    timed(["xargs", "-a", str(listed), "-L", "1", "-P", str(AT_ONCE), "sh", "-c", shell, "sh"])
    running = len(output(peers.pyrun, "ps", "-q").split())
    if running != FEW + len(names):
        raise MeasuringFailed(f"{running} containers are running, not {FEW + len(names)}")
    return list(ports.values())


# ── what they leave ────────────────────────────────────────────────────────────────────────────────


def lead(flows: ExitStack, published: list[int], before: dict[str, set[str]]) -> None:
    """A connection to each of these ports, open as long as *flows* is. Raises MeasuringFailed."""
    for port in published:
        sock = flows.enter_context(socket.create_connection((HOST, port), timeout=5))
        sock.sendall(b"anybody there?")
        sock.recv(100)
    led = len(traces()["flows"] - before["flows"])
    if led < len(published):
        raise MeasuringFailed(f"{led} flows lead to {len(published)} published ports")


def ending(peers: Peers, who: str, names: list[str]) -> float:
    """Milliseconds from `rm -f` of all to the moment in which none of their links is there any more."""
    program = [peers.pyrun] if who == "pyrun" else peers.docker
    prefix = "pyv" if who == "pyrun" else "veth"
    began = time.monotonic()
    timed([*program, "rm", "-f", *names])
    while any(path.name.startswith(prefix) for path in Path("/sys/class/net").iterdir()):
        if time.monotonic() - began > 300:
            raise MeasuringFailed("the links of removed containers stay")
        time.sleep(0.005)
    return (time.monotonic() - began) * 1000


def traces() -> dict[str, set[str]]:
    """What a container leaves on the network while it is there."""
    rules = subprocess.run(
        ["nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=False
    ).stdout
    flows = Path("/proc/net/nf_conntrack")
    lines = flows.read_text().splitlines() if flows.exists() else []
    run = Path("/run/pyrun/networks")
    return {
        "links": {path.name for path in Path("/sys/class/net").glob("pyv*")},
        "rules": {line.strip() for line in rules.splitlines() if "pyv" in line or "10.77.0." in line},
        "leases": {str(path) for path in run.glob("*/leases/*")},
        "names": {path.name for path in Path("/run/netns").glob("*")},
        "flows": {line for line in lines if "=10.77." in line and "ASSURED" in line},
    }


ROWS: dict[str, Row] = {"network-thousand": thousand_row}
