"""`pyrun-oci events`: what a container uses, once or again and again, and whether the kernel killed for memory.

The documents are runc's: {"type": "stats", "id": ..., "data": {...}} and {"type": "oom", "id": ...}.
Source: runc-events(8), runc types/events.go.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypedDict

from pyrun.cgroups import oom, rdt, stats_v1, stats_v2
from pyrun.errors import Conflict
from pyrun.store import bundles

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.record import BundleRecord

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options


class Event(TypedDict, total=False):
    """type: stats, with data, or oom."""

    type: str
    id: str
    data: dict[str, object]


def events(options: Options, identifier: str) -> Iterator[Event]:
    """One document with `stats`; else one every `interval` seconds and one per kill, until the container is over."""
    container = bundles.load(bundles.root_of(options), identifier)
    if bundles.status(container) == "stopped":
        raise Conflict(f"container with id {identifier} is not running")
    if options.get("stats"):
        yield stats(container)
        return
    interval = float(str(options.get("interval") or 5))
    watch = oom.Watch(bundles.groups(container))
    try:
        due = time.monotonic() + interval
        while not watch.over():
            for _ in range(watch.wait(due - time.monotonic())):
                yield {"type": "oom", "id": identifier}
            if time.monotonic() >= due and not watch.over():
                yield stats(container)
                due = max(due + interval, time.monotonic())
    finally:
        watch.close()


def stats(container: BundleRecord) -> Event:
    """What it uses now."""
    found = bundles.groups(container)
    data = (stats_v2 if [names for names, _ in found] == ["unified"] else stats_v1).collect(found)
    try:
        section = (bundles.config(container).get("linux") or {}).get("intelRdt")
    except (OSError, ValueError):
        section = None
    monitored = rdt.stats(section, str(container["id"])) if section else {}
    # runc looks at the links it made itself, of which there are none any more
    more = {"intel_rdt": monitored, "network_interfaces": None}
    return {"type": "stats", "id": str(container["id"]), "data": {**data, **more}}
