"""The lab's cgroups: one of its own in every hierarchy, which becomes the root of what is seen inside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


class Hierarchy:
    """One mounted cgroup hierarchy: where, "cgroup" or "cgroup2", the mount options that name it, our cgroup."""

    def __init__(self, mountpoint: str, kind: str, options: str, own: str) -> None:
        self.mountpoint, self.kind, self.options, self.own = mountpoint, kind, options, own


def hierarchies() -> list[Hierarchy]:
    """The cgroup mounts of this host, from /proc/self/mountinfo."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    found: dict[str, Hierarchy] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        mountpoint, (kind, _, super_options) = left.split()[4], right.split()
        if kind == "cgroup2":
            found[mountpoint] = Hierarchy(mountpoint, kind, "", own.get("", "/"))
        elif kind == "cgroup":
            names = [each for each in super_options.split(",") if each in own]
            names = names or [
                key for key in own if key and set(key.split(",")) <= set(super_options.split(","))
            ]
            for name in names:
                found[mountpoint] = Hierarchy(mountpoint, kind, name, own[name])
    return list(found.values())


def make(hierarchy: Hierarchy) -> Path:
    """Make the lab's cgroup: below our own (v1), at the top (v2, where only leaves may hold processes)."""
    top = Path(hierarchy.mountpoint)
    parent = top / hierarchy.own.lstrip("/") if hierarchy.kind == "cgroup" else top
    path = (parent if parent.is_dir() else top) / f"pyrun-lab-{os.getpid()}"
    path.mkdir()
    for name in ("cpuset.cpus", "cpuset.mems"):  # v1: empty until set, and then nobody can join
        if hierarchy.kind == "cgroup" and (path / name).exists():
            (path / name).write_text((path.parent / name).read_text())
    return path


def join(path: Path) -> None:
    """Move this process into *path*."""
    (path / "cgroup.procs").write_text("0")


def remove(path: Path, patience_s: float = 5) -> None:
    """Remove *path* and what is below it; a process killed just now may hold it for a moment. What stays is told.

    By find(1), which goes down step by step: a tree may be deeper than Python recurses and a path may be long.
    """
    deadline = time.monotonic() + patience_s
    command = ["find", str(path), "-depth", "-type", "d", "-delete"]
    while path.exists():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if path.exists() and time.monotonic() > deadline:
            print(f"lab: cannot remove {path}: {done.stderr.strip().rpartition(': ')[2]}", file=sys.stderr)
            break
        time.sleep(0.02 if done.returncode else 0)


def remove_stale(mounted: list[Hierarchy]) -> None:
    """Remove the cgroups of labs whose outer process was killed, but for those that somebody is still in."""
    for hierarchy in mounted:
        for own in {"/", hierarchy.own}:
            for path in Path(hierarchy.mountpoint, own.lstrip("/")).glob("pyrun-lab-*"):
                if not Path("/proc", path.name.rpartition("-")[2]).exists():
                    remove(path, patience_s=0)


def thaw(top: Path = Path("/sys/fs/cgroup/freezer")) -> None:
    """v1: let every frozen process go on: even SIGKILL waits for that, and the end of a pid namespace with it."""
    waiting = [str(top)]  # not rglob, which recurses: a test may have made a thousand below each other
    while waiting:
        path = waiting.pop()
        try:
            waiting += [each.path for each in os.scandir(path) if each.is_dir()]
            Path(path, "freezer.state").write_text("THAWED")
        except OSError:  # the top has none to write, others may be gone
            continue


def leave_the_top(hierarchy: Hierarchy, path: Path) -> None:
    """v2: move this process from the lab's cgroup, which is the namespace's root by now, into a leaf below it.

    All processes of the lab descend from it, so the top stays empty, and can hand controllers down.
    """
    if hierarchy.kind == "cgroup2":
        leaf = path / "init"
        leaf.mkdir()
        join(leaf)


def hand_down(top: Path) -> None:
    """v2: give the cgroups below the lab's topmost one every controller."""
    for controller in (top / "cgroup.controllers").read_text().split():
        try:
            (top / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as problem:
            print(f"lab: no {controller} controller: {problem.strerror}", file=sys.stderr)
