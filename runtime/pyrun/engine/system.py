"""`pyrun system reconcile`: take away whatever crashed planners, monitors and reboots have left behind.

Each step looks at one kind of leftover, decides from disk and /proc whether its owner is dead, and removes it with
the undo program. Nothing that belongs to a living container or to a start in progress is touched: a start has its
run directory (or at least its staging directory) before anything else exists but claims, which name their planner.
The quick half is reconcile.py.
"""

from __future__ import annotations

import posix
import time
from collections.abc import Callable, Iterable
from typing import Any

from pyrun import boot, launch, notice, undo
from pyrun.cgroups import files, processes
from pyrun.cgroups.layout import Group
from pyrun.engine import network, reconcile
from pyrun.errors import Conflict, PyrunError
from pyrun.stages import cgroup
from pyrun.store import containers, image_removal, layers, paths, state


def reconcile_all() -> tuple[list[str], list[str]]:
    """Run every step: (what was removed, what could not be), one sentence each."""
    launch.need_root("system reconcile")
    done: list[str] = []
    failed: list[str] = []
    for step in (_containers, _staging, _remains, _names, _claims, _policies, _cgroups, _layers):
        try:
            step(done, failed)
        except (PyrunError, OSError) as error:
            failed.append(f"{step.__name__.strip('_')}: {error}")
    return done, failed


def undo_container(identifier: str, lock_fd: int) -> list[str]:
    """Replay the undo list of a container whose monitor and process are dead; returns what could not be undone.

    A container that is kept gets an exit record of status unknown. Closes *lock_fd*.
    """
    try:
        complaints = undo.replay(lock_fd)
    finally:
        posix.close(lock_fd)
    kept = f"{paths.root()}/containers/{identifier}"
    if paths.exists(kept) and state.exit_record(identifier) is None:
        paths.replace(f"{kept}/exit", f"unknown {time.time():.9f}\n".encode())
    return complaints


def drop_empty_cgroups() -> None:
    """Remove the cgroup all containers are below, in each hierarchy, if no container is left."""
    if boot.rootless_uid() >= 0 or _entries(f"{paths.run()}/containers"):
        return
    for _, directory in cgroup.directories(cgroup.layout(), "/pyrun"):
        try:
            posix.rmdir(directory)
        except OSError:  # in use, or never made
            continue


def _each(items: Iterable[Any], step: Callable[[Any], None], failed: list[str]) -> None:
    """Do *step* with each: one that fails does not keep the others."""
    for item in items:
        try:
            step(item)
        except (PyrunError, OSError) as error:
            failed.append(str(error))


def _containers(done: list[str], failed: list[str]) -> None:
    """Containers that have neither monitor nor process."""

    def step(dead: tuple[str, int]) -> None:
        identifier, lock_fd = dead
        complaints = undo_container(identifier, lock_fd)
        failed.extend(f"container {identifier[:12]}: {complaint}" for complaint in complaints)
        if not paths.exists(state.run_dir(identifier)):
            done.append(f"container {identifier[:12]}: undid what it had left")

    _each(reconcile.claim_dead(), step, failed)


def _staging(done: list[str], failed: list[str]) -> None:
    """Run directories that were still being prepared when their planner died."""
    for name in _entries(f"{paths.run()}/staging"):
        pid = name.rpartition(".")[2]
        if pid.isdigit() and state.start_time(int(pid)) == 0:
            path = f"{paths.run()}/staging/{name}"
            verb = "rmtree" if _is_directory(path) else "unlink"
            _undo([f"{verb}\t{path}"], f"{name[:12]}: removed what was being prepared", done, failed)


def _remains(done: list[str], failed: list[str]) -> None:
    """Directories of --rm containers that a reboot ended, and such as never got their record."""

    def step(identifier: str) -> None:
        if paths.exists(state.run_dir(identifier)):
            return
        container = state.load(identifier)
        if container.get("rm") or not paths.exists(f"{paths.root()}/containers/{identifier}/container.json"):
            lines = undo.removal(identifier, str(container.get("name") or ""), paths.root())
            _undo(lines, f"container {identifier[:12]}: removed its directory", done, failed)

    _each(_entries(f"{paths.root()}/containers"), step, failed)


def _names(done: list[str], failed: list[str]) -> None:
    """Names of containers that exist nowhere. Each is looked at by itself: others start meanwhile."""

    def step(name: str) -> None:
        identifier = state.named_id(name)
        path = f"{paths.root()}/names/{name}"
        # in this order: whoever has planned it is there before it ends
        if paths.exists(path) and not containers.being_planned(path) and not _is_anywhere(identifier):
            _undo([f"unlink-if\t{path}\t{identifier}"], f"name {name}: freed", done, failed)

    _each(_entries(f"{paths.root()}/names"), step, failed)


def _is_anywhere(identifier: str) -> bool:
    if containers.is_there(identifier):
        return True
    return identifier in {name.rpartition(".")[0] for name in _entries(f"{paths.run()}/staging")}


def _claims(done: list[str], failed: list[str]) -> None:
    """Addresses, ports and namespace names whose owner died before its undo list existed; forwarding for nobody."""
    del failed
    if paths.exists(f"{paths.run()}/networks"):
        done += [f"{what}: freed" for what in network.sweep()]
        network.rest()  # where a guard has ended by a signal


def _policies(done: list[str], failed: list[str]) -> None:
    """Elements of egress policies, of containers that exist nowhere."""
    del failed
    done += network.forget_strays()


def _cgroups(done: list[str], failed: list[str]) -> None:
    """Cgroups below /pyrun that belong to no container. They are root's: a user's end with the processes in them.

    Where a container without a run directory here has processes it is another run directory's: what crashed here has
    an undo list, and after a reboot nobody is in them. So nothing is ended, and what has processes is only named.
    """
    if boot.rootless_uid() >= 0:
        return
    found: dict[str, list[Group]] = {}
    for names, directory in cgroup.directories(cgroup.layout(), "/pyrun"):
        for child in _entries(directory):
            if _is_directory(f"{directory}/{child}"):
                found.setdefault(child, []).append((names, f"{directory}/{child}"))
    left = [groups for child, groups in found.items() if not paths.exists(state.run_dir(child))]
    _each(left, lambda groups: _cgroup(groups, done, failed), failed)
    drop_empty_cgroups()


def _cgroup(groups: list[Group], done: list[str], failed: list[str]) -> None:
    """One that no container of this run directory has, in each hierarchy."""
    claims: list[int] = []
    try:
        for names, path in groups:
            if files.is_claimed(names):
                claims.append(files.claim(path))
        for names, path in groups:
            if found := processes.all_of([(names, path)]):
                count = f"{len(found)} process{'es' if len(found) > 1 else ''}"
                notice.say(f"cgroup {path} is left alone: {count} of no container of {paths.run()}")
                return
        for _, path in groups:
            if paths.exists(path):
                _undo([f"rmcgroup\t{path}"], f"cgroup {path}: removed", done, failed)
    except (Conflict, FileNotFoundError):  # somebody else's start has just made it; or it is gone
        return
    finally:
        for fd in claims:
            posix.close(fd)


def _layers(done: list[str], failed: list[str]) -> None:
    """Layers whose unpacking was cut off, and what a killed `load` or `pull` had put in its place already."""
    done += [f"unfinished layer {path.rpartition('/')[2]}: removed" for path in layers.sweep(failed.append)]
    if paths.exists(f"{paths.root()}/layers"):
        done += image_removal.remove_unneeded(failed.append)


def _undo(lines: list[str], sentence: str, done: list[str], failed: list[str]) -> None:
    complaints = undo.replay_lines(lines)
    failed += complaints
    if not complaints:
        done.append(sentence)


def _entries(directory: str) -> list[str]:
    try:
        return sorted(posix.listdir(directory))
    except OSError:
        return []


def _is_directory(path: str) -> bool:
    try:
        return bool(posix.stat(path).st_mode & 0o040000)
    except OSError:
        return False
