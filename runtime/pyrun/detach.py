"""Leaving the place of whoever happened to call: for what serves others too, or goes on when the caller has ended.

A service manager ends whatever is in a service's cgroup, and its limits hold there. The root of each hierarchy is
nobody's: no limits, nobody who stops it, and no directory to take away later; v2 lets it have processes beside cgroups.
Where we may not go there (a user's, a container's hierarchies), things stay as they are.
"""

from __future__ import annotations

import posix

from pyrun.cgroups import layout
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable


def everything() -> None:
    """This process: its cgroups, its place among processes, on processors and among those that are ended when memory
    is short."""
    _if_possible(posix.setpriority, posix.PRIO_PROCESS, 0, 0)
    _if_possible(posix.sched_setaffinity, 0, range(posix.cpu_count() or 1))
    _if_possible(paths.write, "/proc/self/oom_score_adj", b"0")
    cgroups("/proc/self", 0)


def limits() -> None:
    """This process: what its caller may use at most of memory, of time, of files, as far as we may raise that.

    Not of `everything`: a warm planner is for callers who have its own limits.
    """
    import resource

    for name in ("AS", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC"):
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        most = int(paths.read("/proc/sys/fs/nr_open")) if name == "NOFILE" else resource.RLIM_INFINITY
        for each in (most, hard):
            try:
                resource.setrlimit(number, (each, each))
                break
            except (OSError, ValueError):  # only a privileged process raises a hard one
                continue


def cgroups(place: str, pid: int) -> None:
    """The cgroups of the process *pid* (0: this one), whose directory in /proc is *place*."""
    membership = paths.read(f"{place}/cgroup").decode("utf-8", "surrogateescape")
    for names, mount, own in layout.layout("", membership):
        if own != "/":
            file = "cgroup.procs" if names == "unified" else "tasks"
            _if_possible(paths.write, f"{mount}/{file}", str(pid).encode())


def _if_possible(call: Callable[..., object], *given: object) -> None:
    try:
        call(*given)
    except OSError:
        return
