"""What was healed and when: run/networks/events, a line each, for `network inspect` and for the guard.

Somebody's `nft flush ruleset` is repaired within a second while nobody looks at a terminal; here it can be read
afterwards. The guard looks whether the file grew, to know whether a reload found something (csrc/guard_watch.c).
"""

from __future__ import annotations

import time

from pyrun.store import paths

_MOST_BYTES = 65536


def note(told: list[str]) -> None:
    """Append a line for each of *told*; the older half goes when there are too many."""
    if not told:
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    former = _read()
    if len(former) > _MOST_BYTES:
        former = former[len(former) // 2 :].partition("\n")[2]
    paths.replace(_path(), (former + "".join(f"{now} {line}\n" for line in told)).encode())


def recent(network: str) -> list[str]:
    """What was healed of one network, the latest last: at most ten."""
    return [line for line in _read().splitlines() if f"network {network}:" in line][-10:]


def first_time(text: str) -> bool:
    """Whether the user is to be told *text*: once a boot, however often networks are pruned and made again."""
    path = f"{paths.run()}/networks/told"
    try:
        told = paths.read(path).decode("utf-8", "replace")
    except OSError:
        told = ""
    if text in told.splitlines():
        return False
    paths.make(path.rpartition("/")[0])
    paths.replace(path, f"{told}{text}\n".encode())
    return True


def _path() -> str:
    return f"{paths.run()}/networks/events"


def _read() -> str:
    try:
        return paths.read(_path()).decode("utf-8", "replace")
    except OSError:
        return ""
