"""`pyrun-oci pause` and `resume`: no process of the container runs, until it is let go on.

Source: runtime-spec does not know them; runc-pause(8), runc-resume(8).
"""

from __future__ import annotations

from pyrun.cgroups import freezer
from pyrun.errors import Conflict
from pyrun.store import bundles

Options = dict[str, object]


def pause(options: Options, identifier: str) -> None:
    """Freeze a container that runs or waits for `start`. Raises Conflict, in the words callers look for."""
    container = bundles.load(bundles.root_of(options), identifier)
    status = bundles.status(container)
    if status not in ("running", "created"):
        raise Conflict(
            "container not running" if status != "paused" else "container not running: it is paused"
        )
    freezer.freeze(groups(container))


def resume(options: Options, identifier: str) -> None:
    """Let a paused container run. Raises Conflict if it is not."""
    container = bundles.load(bundles.root_of(options), identifier)
    found = groups(container)
    if bundles.status(container) == "stopped" or not freezer.is_frozen(found):
        raise Conflict("container not paused")
    freezer.thaw(found)


def groups(container: dict[str, object]) -> list[tuple[str, str]]:
    """(controllers, directory) of each of the container's cgroups."""
    found = container.get("cgroups")
    return [(str(item[0]), str(item[1])) for item in found] if isinstance(found, list) else []
