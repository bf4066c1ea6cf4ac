"""Many create and delete cycles of pyrun-oci, and what is left of them: nothing may be.

A `Picture` counts what a cycle could leave: descriptors of all processes here, processes, mounts, cgroups, files and
their kB. Since nothing of pyrun-oci stays running, what else could stay is memory of the kernel: how much more of it
cannot be reclaimed is told apart, for the whole machine.

Not here: how long it takes (bench), that each thing is taken away after a crash (the kill matrix).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import leftovers
from waiting import emptied

ID = "soak"
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Picture:
    """What there is."""

    descriptors: int
    processes: int
    mounts: int
    cgroups: int
    files: int
    kilobytes: int

    def growth(self, later: Picture) -> dict[str, int]:
        """What there is more of *later*, by name; empty if nothing."""
        pairs = {name: getattr(later, name) - value for name, value in vars(self).items()}
        return {name: more for name, more in pairs.items() if more > 0}


def picture(places: Sequence[Path]) -> Picture:
    """Of this host, and of the files below *places*."""
    files = [path for place in places for path in place.rglob("*")]
    blocks = sum(status.st_blocks for path in files if (status := _status(path)))
    return Picture(
        descriptors=sum(_descriptors(path) for path in Path("/proc").glob("[0-9]*/fd")),
        processes=len(list(Path("/proc").glob("[0-9]*"))),
        mounts=len(Path("/proc/self/mountinfo").read_text().splitlines()),
        cgroups=len(leftovers.cgroups()),
        files=len(files),
        kilobytes=blocks // 2,
    )


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:  # gone
        return None


def _descriptors(path: Path) -> int:
    try:
        return len(os.listdir(path))
    except OSError:  # gone
        return 0


def kernel_kilobytes() -> int:
    """What the kernel of the whole machine holds and cannot give back."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(fields[name].split()[0]) for name in ("SUnreclaim", "KernelStack", "PageTables"))


def cycle(command: Sequence[str], bundle: Path, *, start: bool) -> None:
    """create, perhaps start, delete."""
    verbs = [["create", "--bundle", str(bundle), ID], ["delete", "--force", ID]]
    if start:
        verbs.insert(1, ["start", ID])
    for words in verbs:
        done = subprocess.run(
            [*command, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join([*command, *words])}: status {done.returncode}")


def soak(
    command: Sequence[str], bundle: Path, cycles: int, places: Sequence[Path]
) -> tuple[dict[str, int], int]:
    """*cycles* of them; returns what has grown, and by how many kB the kernel has.

    The first few are not counted: they make what is kept on purpose, the compiled seccomp program and the root.
    """
    for number in range(4):
        cycle(command, bundle, start=bool(number % 2))
    before, kernel_before = picture(places), kernel_kilobytes()
    for number in range(cycles):
        cycle(command, bundle, start=number % 8 == 0)
    growth = emptied(lambda: before.growth(picture(places)))
    return growth, kernel_kilobytes() - kernel_before
