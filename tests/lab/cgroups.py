"""The lab's cgroups: one of its own in every hierarchy, which becomes the root of what is seen inside."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


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


def below(top: Path) -> Iterator[tuple[int, str]]:
    """Every directory below *top*, then *top* itself, the deepest first: (descriptor of its parent, its name).

    By a stack of names and one descriptor: a lab may leave more levels than Python recurses, a path or a process holds.
    """
    fd = os.open(top, _DIRECTORY)
    stack = [(top.name, _directories(fd))]
    try:
        while stack:
            name, children = stack[-1]
            if children:
                inner = children.pop()
                child = _opened(inner, fd)
                if child >= 0:
                    os.close(fd)
                    fd = child
                    stack.append((inner, _directories(fd)))
                continue
            stack.pop()
            parent = os.open("..", _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = parent
            yield fd, name
    finally:
        os.close(fd)


def _opened(name: str, parent: int) -> int:
    """-1 if it is gone meanwhile."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError:
        return -1


def _directories(fd: int) -> list[str]:
    try:
        with os.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # of a cgroup that is gone
        return []


def remove(path: Path, patience_s: float = 5) -> None:
    """Remove *path* and what is below it; a process killed just now may hold it for a moment. What cannot be removed
    stays, and one line says so."""
    deadline = time.monotonic() + patience_s
    problems = []
    try:
        for parent, name in below(path):
            if problem := _removed(parent, name, deadline):
                problems.append(problem)
    except OSError as problem:
        problems.append(problem)
    if problems and path.exists():
        print(f"lab: cannot remove {path}: {problems[0].strerror}", file=sys.stderr)


def _removed(parent: int, name: str, deadline: float) -> OSError | None:
    """The problem there was at the deadline."""
    while True:
        try:
            os.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            return None
        except OSError as problem:
            if time.monotonic() > deadline:
                return problem
            time.sleep(0.02)
        else:
            return None


def remove_stale(mounted: list[Hierarchy]) -> None:
    """Remove the cgroups of labs whose outer process was killed, but for those that somebody is still in."""
    for hierarchy in mounted:
        for own in {"/", hierarchy.own}:
            for path in Path(hierarchy.mountpoint, own.lstrip("/")).glob("pyrun-lab-*"):
                if not Path("/proc", path.name.rpartition("-")[2]).exists():
                    remove(path, patience_s=0)


def thaw(top: Path = Path("/sys/fs/cgroup/freezer")) -> None:
    """v1: let every frozen process go on: even SIGKILL waits for that, and the end of a pid namespace with it."""
    if not top.is_dir():
        return
    for parent, name in below(top):
        try:
            fd = os.open(f"{name}/freezer.state", os.O_WRONLY | os.O_CLOEXEC, dir_fd=parent)
        except OSError:  # the top has none to write, others may be gone
            continue
        with suppress(OSError), open(fd, "w") as file:
            file.write("THAWED")


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
