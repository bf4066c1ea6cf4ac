"""Claims: a small file says who holds an address, a published port or the name of a network namespace.

Each claim is a hard link to a record its owner wrote. link(2) lets the file appear with its content in one
step and fails when it is there, so two starts never hold the same thing and nobody ever reads half a claim:

    <container id> <pid of the planner> <its start time>     the owner, compared by the undo list
    name web                                                 for `network ls` and for healing
    port tcp 0.0.0.0 8080 80

A claim is dead when its container's run directory is gone and the planner is no longer that process: it was
killed between the claim and the undo list. Dead claims are removed under one lock, so that of two finders
only one does it. All of this is on a tmpfs and gone after a reboot, as are the links it tells of.
"""

from __future__ import annotations

import fcntl
import posix

from pyrun import launching
from pyrun.store import paths, state

_LOCK = "claims.lock"
_RECORD = ".record-"


def owner(identifier: str) -> str:
    """The first line of every claim this process takes for the container *identifier*."""
    return f"{identifier} {launching.process.pid()} {state.own_start_time()}"


def owner_of_namespace(path: str) -> str:
    """The first line of a claim for somebody who is no container of ours: a network namespace, told by a path to it."""
    return f"{path} {posix.stat(path).st_ino} 0"


def write_record(owner_line: str, lines: list[str]) -> str:
    """Write the record claims are linked to; returns its path. The caller unlinks it after the last `take`."""
    directory = f"{paths.run()}/networks"
    path = f"{directory}/{_RECORD}{owner_line.replace(' ', '-')}"
    data = "".join([line + "\n" for line in [owner_line, *lines]]).encode()
    try:
        paths.write(path, data)
    except FileNotFoundError:
        paths.make(directory)
        paths.write(path, data)
    return path


def forget(record: str) -> None:
    """Remove the record; what was claimed with it keeps its content."""
    posix.unlink(record)


def take(record: str, path: str) -> bool:
    """Claim *path*; False when somebody holds it, dead or alive. Raises FileNotFoundError without its directory."""
    try:
        posix.link(record, path)
    except FileExistsError:
        return False
    return True


def take_over(record: str, path: str) -> bool:
    """Claim *path*, making its directory and removing a dead claim that is in the way."""
    try:
        return take(record, path) or (reclaim(path) and take(record, path))
    except FileNotFoundError:
        paths.make(path.rpartition("/")[0])
        return take(record, path)


def lines(path: str) -> list[str]:
    """All lines of a claim, [] when it is gone."""
    try:
        return paths.read(path).decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def holder(path: str) -> str:
    """The owner line of a claim, "" when it is free."""
    content = lines(path)
    return content[0] if content else ""


def name_of(path: str) -> str:
    """The name of the container that holds *path*, or the short id."""
    return name_in(lines(path))


def name_in(content: list[str]) -> str:
    """The name told by the lines of a claim, or the short id."""
    for line in content[1:]:
        if line.startswith("name "):
            return line[5:]
    return content[0][:12] if content else ""


def whose(path: str) -> str:
    """Who holds *path*, in words; of somebody who is no container of ours (foreign_leases.py), where it is."""
    content = lines(path)
    stranger = content[0].partition(" ")[0] if content else ""
    if stranger.startswith("/sys/class/net/"):
        interface = stranger.rpartition("/")[2]
        itself = any(line.startswith("name ") for line in content)
        return f"this host itself, on {interface}" if itself else f"a neighbour on {interface}"
    if stranger.startswith("/proc/"):
        return f"process {stranger.split('/')[2]}"
    return f"container {name_in(content)}"


def told(content: list[str]) -> dict[str, str]:
    """What the lines of a claim tell beside the owner: name, link, mac ...; of aliases the last."""
    return dict(line.split(" ", 1) for line in content[1:] if " " in line)


def alive(owner_line: str) -> bool:
    """Whether the owner still has a run directory (its undo list frees the claim) or is still planning."""
    words = owner_line.split(" ")
    if len(words) != 3:
        return False
    identifier, pid, started = words
    if identifier[:1] == "/":
        try:
            return str(posix.stat(identifier).st_ino) == pid
        except OSError:
            return False
    try:
        posix.stat(f"{paths.run()}/containers/{identifier}")
        return True
    except OSError:
        return pid.isdigit() and state.start_time(int(pid)) == int(started or 0) != 0


def release(path: str, owner_line: str) -> None:
    """Give up an own claim; somebody else's stays."""
    if holder(path) == owner_line:
        posix.unlink(path)


def reclaim(path: str) -> bool:
    """Remove *path* if its owner is dead; True when it is free now."""
    fd = posix.open(f"{paths.run()}/networks/{_LOCK}", posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        # Read again under the lock: another finder may have removed it and a new owner taken it.
        try:
            held_by = paths.read(path).decode("utf-8", "replace").partition("\n")[0]
        except FileNotFoundError:  # given up in this moment: what is there the next is somebody's
            return True
        if alive(held_by):
            return False
        try:
            posix.unlink(path)
        except FileNotFoundError:
            pass
        return True
    finally:
        posix.close(fd)


def sweep(directory: str) -> list[str]:
    """Remove every dead claim in *directory*; returns the names removed."""
    removed = []
    for name in sorted(names(directory)):
        path = f"{directory}/{name}"
        if not alive(holder(path)) and reclaim(path):
            removed.append(name)
    return removed


def sweep_records() -> None:
    """Remove the records of planners that died before they could, and files that were being replaced meanwhile."""
    directory = f"{paths.run()}/networks"
    for name in names(directory):
        if name.startswith(_RECORD):
            _, pid, started = [*name[len(_RECORD) :].rsplit("-", 2), "", ""][:3]
            if not (pid.isdigit() and started.isdigit() and state.start_time(int(pid)) == int(started)):
                _unlink(f"{directory}/{name}")
    replaced = [directory, *[f"{directory}/{name}" for name in names(directory)]]
    for home in (f"{paths.run()}/containers", f"{paths.root()}/containers"):
        replaced += [f"{home}/{name}" for name in names(home)]
    for below in replaced:
        for name in names(below):
            pid = name.removesuffix(".tmp").rpartition(".")[2]
            if name.endswith(".tmp") and pid.isdigit() and state.start_time(int(pid)) == 0:
                _unlink(f"{below}/{name}")


def _unlink(path: str) -> None:
    """Remove a file, if another sweep has not, or its container was removed meanwhile."""
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass


def names(directory: str) -> list[str]:
    """The names of the claims in a directory, [] where there is none."""
    try:
        return posix.listdir(directory)
    except OSError:  # none, or a file
        return []
