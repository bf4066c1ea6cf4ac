"""What a runtime keeps in memory for one running container: the PSS of every process it left behind.

The processes of the lab (it has a pid namespace of its own) are listed before and after the start; the new ones
outside the container's pid namespace are the runtime's. Their `Pss` (proc_pid_smaps_rollup(5)) is added up: private
memory, and each shared page divided by the number of processes that map it. It is one container alone, the dearest
case: no other one shares the program's pages with it.

Not in it: what all containers of a host have together, the growth of daemons that run anyway (dockerd, containerd) and
pyrun's guard with its spare (the row dns-memory), and memory of the kernel.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from contenders import Peers

NAME = "bench-memory"
PAYLOAD = ("sleep", "1000")
OF_ALL = ("pyrun-guard", "pyrun-spare")


def processes() -> set[int]:
    """Every process of the lab."""
    return {int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()}


def kept(before: set[int]) -> dict[int, tuple[str, int]]:
    """The processes outside containers that were not there *before*: pid -> (name, PSS in kB)."""
    ours = os.readlink("/proc/self/ns/pid")
    return pss(processes() - before, ours)


def pss(pids: set[int], namespace: str = "") -> dict[int, tuple[str, int]]:
    """Of these processes, or of those in one pid namespace: pid -> (name, PSS in kB)."""
    found: dict[int, tuple[str, int]] = {}
    for pid in pids:
        try:
            if namespace and os.readlink(f"/proc/{pid}/ns/pid") != namespace:
                continue
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended meanwhile
            continue
        (pss,) = (int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        found[pid] = name, pss
    return found


def measure(peers: Peers, who: str, detached: bool) -> dict[str, object]:
    """Start one container of *who* and look; {"kB", "processes"}."""
    peers.remove(who, NAME)
    before = processes()
    options = ("-d", "--name", NAME) if detached else ("--rm", "--name", NAME)
    command = peers.run(who, *options, command=PAYLOAD)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as started:
        wait_for_payload(before)
        if detached:
            started.wait(30)
        time.sleep(0.5)  # helpers of the start end
        found = {pid: each for pid, each in kept(before).items() if each[0] not in OF_ALL}
        peers.remove(who, NAME)
    names = sorted(f"{name} {pss}" for name, pss in found.values())
    return {"kB": sum(pss for _, pss in found.values()), "processes": names}


def wait_for_payload(before: set[int]) -> None:
    """Until a new process is called as the payload is."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for pid in processes() - before:
            try:
                if Path(f"/proc/{pid}/comm").read_text().strip() == PAYLOAD[0]:
                    return
            except OSError:
                continue
        time.sleep(0.05)
    raise RuntimeError(f"{PAYLOAD} did not start")
