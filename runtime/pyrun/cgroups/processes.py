"""Who is in a container's cgroups: for `kill --all`, `ps`, `delete`, and before a cgroup is taken.

A cgroup below one of the container's belongs to it (systemd in a container makes them). Not here: ending them and
waiting for it, which is the undo list's kill-cgroup.
Source: man 7 cgroups (cgroup.procs), cgroup-v2.rst (threaded cgroups, cgroup.kill).
"""

from __future__ import annotations

import errno
import posix

from pyrun.store import paths

from .layout import Group, layout, places

# A container may nest as deep as it likes; one that goes deeper than this is up to something.
DEEPEST = 64


def preferred(groups: list[Group]) -> str:
    """The hierarchy that tells who belongs to the container: v2's, or one that nobody leaves; "" without cgroups."""
    for wanted in ("unified", "devices", "pids", "freezer", "memory", "name=systemd"):
        for names, directory in groups:
            # a hybrid host's unified hierarchy counts only if there is nothing else
            if wanted in names.split(",") and (wanted != "unified" or len(groups) == 1):
                return directory
    return groups[0][1] if groups else ""


def all_of(groups: list[Group]) -> list[int]:
    """Every process in the container's cgroup and below, in ascending order. Empty when the cgroup is gone."""
    directory = preferred(groups)
    return sorted(set(_below(directory, 0))) if directory else []


def end(groups: list[Group]) -> bool:
    """v2: SIGKILL to all of them at once, and to those being born. Whether that could be had (Linux 5.14)."""
    own = [where for names, where in groups if names == "unified"]
    if not own or len(groups) > 1:  # a hybrid host's unified hierarchy may be left
        return False
    try:
        fd = posix.open(f"{own[0]}/cgroup.kill", posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        return posix.write(fd, b"1") == 1
    except OSError:
        return False
    finally:
        posix.close(fd)


def _below(directory: str, depth: int) -> list[int]:
    found = _listed(directory)
    if depth < DEEPEST:
        try:
            entries = list(posix.scandir(directory))
        except OSError:
            return found
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found += _below(entry.path, depth + 1)
    return found


def _listed(directory: str) -> list[int]:
    """0 stands for a process of a pid namespace we do not see."""
    for file in ("cgroup.procs", "cgroup.threads"):
        try:
            return [int(line) for line in paths.read(f"{directory}/{file}").split() if line != b"0"]
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # the cgroup is threaded: its processes are its threads
                return []
    return []


def of_process(pid: int) -> dict[str, str]:
    """Where *pid* is: controllers (or "unified") -> place below the hierarchy's root."""
    return places(paths.read(f"/proc/{pid}/cgroup").decode("utf-8", "surrogateescape"))


def entrance(groups: list[Group], pid: int) -> list[Group]:
    """v2, for `exec`: where the container's first process *pid* is now, when its own cgroup takes no more processes.

    An init system in the container moves what runs into cgroups below, to hand controllers down to them.
    """
    top = next((mount for names, mount, _ in layout() if names == "unified"), "")
    place = top + of_process(pid).get("unified", "")
    return [
        (names, place if names == "unified" and place.startswith(directory + "/") else directory)
        for names, directory in groups
    ]
