"""`pyrun-oci ps`: the container's processes, as the host's `ps` shows them, or their numbers.

The host's ps, with the caller's own options, over all processes; of its lines those are kept whose PID is in the
container's cgroup. Source: runc-ps(8).
"""

from __future__ import annotations

import subprocess

from pyrun.cgroups import processes
from pyrun.errors import PyrunError, UsageError
from pyrun.store import bundles, state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options


def pids(options: Options, identifier: str) -> list[int]:
    """The numbers, ascending. Without a cgroup of its own, only the first process is known."""
    container = bundles.load(bundles.root_of(options), identifier)
    found = bundles.groups(container)
    if found:
        return processes.all_of(found)
    return [container["pid"]] if state.process_alive(container) else []


def lines(options: Options, identifier: str, arguments: list[str]) -> list[str]:
    """ps's title and the container's lines. arguments: ps's own options, -ef without any."""
    wanted = set(pids(options, identifier))
    command = ["ps", *(arguments or ["-ef"])]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except OSError as error:
        raise PyrunError(f"cannot run ps: {error.strerror}", "apt-get install procps") from None
    if done.returncode:
        raise UsageError(f"{' '.join(command)}: exit status {done.returncode}: {done.stdout.strip()[:300]}")
    title, *rest = done.stdout.splitlines() or [""]
    if "PID" not in title.split():
        raise UsageError(
            "couldn't find PID field in ps output", "choose ps options that show it, such as -ef"
        )
    at = title.split().index("PID")
    return [title, *[line for line in rest if _pid(line, at) in wanted]]


def _pid(line: str, at: int) -> int:
    fields = line.split(None, at + 1)
    return int(fields[at]) if len(fields) > at and fields[at].isdecimal() else -1
