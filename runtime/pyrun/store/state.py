"""What a container is at this moment, told from disk and /proc; nobody keeps it in memory.

Running means: the pid in state.json is alive with the start time noted there, so a recycled pid never counts.
Supervised means: somebody (the planner, then the monitor) holds the lock on run/containers/<id>/undo, which
the kernel drops with its last holder, however that dies. What is here only reads; a start's writing is in
`containers.py`, cleaning up after the dead in `engine/system.py`.
"""

from __future__ import annotations

import fcntl
import posix
import time

from pyrun import jsonlite, launching
from pyrun.errors import NotFound, UsageError
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

    from pyrun.store.record import Process, Record


def all_ids() -> list[str]:
    """The id of every container, stopped ones included, sorted."""
    return sorted({*_names_in(f"{paths.root()}/containers"), *_names_in(f"{paths.run()}/containers")})


def load(identifier: str) -> Record:
    """container.json with state.json over it; "id" is always there, all else may be missing after a crash.

    Raises: NotFound.
    """
    kept = f"{paths.root()}/containers/{identifier}"
    living = run_dir(identifier)
    if not paths.exists(kept) and not paths.exists(living):
        raise NotFound(f"no such container: {identifier}", "see `pyrun ps -a`")
    found: Any = {
        **_read_json(f"{kept}/container.json"),
        **_read_json(f"{living}/state.json"),
        "id": identifier,
    }
    record: Record = found
    return record


def resolve(reference: str) -> str:
    """The id of the container *reference* means: a whole id, else a name, else the beginning of one id.

    Docker's names begin with a slash wherever its API shows them, so one is left out here.
    Raises: NotFound; UsageError when several ids begin so.
    """
    missing = NotFound(f"no such container: {reference}", "see `pyrun ps -a`")
    reference = reference.removeprefix("/")
    if not reference or "/" in reference or "\0" in reference or reference[0] == ".":
        raise missing
    identifiers = all_ids()
    if reference in identifiers:
        return reference
    named = named_id(reference)
    if named in identifiers:
        return named
    matches = [identifier for identifier in identifiers if identifier.startswith(reference)]
    if len(matches) > 1:
        raise UsageError(
            f"container '{reference}' is ambiguous: {len(matches)} ids begin so", "use a longer one"
        )
    if not matches:
        raise missing
    return matches[0]


def named_id(name: str) -> str:
    """The id that holds *name*, or "" when the name is free."""
    try:
        return paths.read(f"{paths.root()}/names/{name}").partition(b"\n")[0].decode("ascii", "replace")
    except OSError:
        return ""


def run_dir(identifier: str) -> str:
    """Where the living half of a container is; the directory is gone once everything is undone."""
    return f"{paths.run()}/containers/{identifier}"


def status(container: Record) -> str:
    """Docker's word for the state: created, running or exited.

    A process that died while its monitor has not yet written the exit record still counts as running.
    """
    identifier = str(container["id"])
    if process_alive(container):
        return "running" if paths.exists(f"{run_dir(identifier)}/started") else "created"
    if exit_record(identifier) is not None:
        return "exited"
    if supervised(identifier):
        return "running" if paths.exists(f"{run_dir(identifier)}/started") else "created"
    return "exited"


def exit_record(identifier: str) -> tuple[int | None, float] | None:
    """(exit status, unix time in seconds), the status None if unknown; None while there is no record."""
    try:
        words = paths.read(f"{paths.root()}/containers/{identifier}/exit").split()
        return (int(words[0]) if words[0].isdigit() else None, float(words[1]))
    except (OSError, IndexError, ValueError):
        return None


def supervised(identifier: str) -> bool:
    """Whether the planner or the monitor of the container lives."""
    return locked(f"{run_dir(identifier)}/undo")


def locked(path: str) -> bool:
    """Whether somebody holds the lock on *path*, an undo list. Source: man 2 flock."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, so that two readers never take each other for a monitor.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        posix.close(fd)


def process_alive(container: Process) -> bool:
    """Whether the container's first process lives (a zombie does not)."""
    pid = container.get("pid")
    return isinstance(pid, int) and pid > 0 and start_time(pid) == container.get("start_time")


def start_time(pid: int) -> int:
    """When *pid* was started, in clock ticks since boot; 0 when gone or a zombie. Source: man 5 proc."""
    try:
        text = paths.read(f"/proc/{pid}/stat")
    except OSError:
        return 0
    # The name in field 2 may hold spaces and parentheses: count from its end.
    fields = text[text.rfind(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


_own: dict[int, int] = {}


def own_start_time() -> int:
    """The same of the process that was called, read once."""
    pid = launching.process.pid()
    if pid not in _own:
        _own[pid] = start_time(pid)
    return _own[pid]


def open_process(container: Process) -> int:
    """A pidfd of the container's first process, or -1 when that is gone. Source: man 2 pidfd_open."""
    pid = container.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return -1
    try:
        fd = posix.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    # Compared after the open: from now on the descriptor cannot come to mean another process.
    if process_alive(container):
        return fd
    posix.close(fd)
    return -1


def seconds_up(container: Process) -> float:
    """How long the first process has been running."""
    started = container.get("start_time")
    ticks = started if isinstance(started, int) else 0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / posix.sysconf("SC_CLK_TCK"))


def _read_json(path: str) -> dict[str, object]:
    """A JSON object, or {} when the file is missing or torn."""
    try:
        value = jsonlite.loads(paths.read(path))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _names_in(directory: str) -> list[str]:
    """The entries that are ids: no temporary files."""
    try:
        names = posix.listdir(directory)
    except PermissionError:
        raise UsageError(f"{directory} is root's", "run it as root: sudo pyrun ...") from None
    except OSError:
        return []
    return [name for name in names if not name.startswith(".") and not name.endswith(".tmp")]
