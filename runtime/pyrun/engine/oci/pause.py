"""`pyrun-oci pause` and `resume`: no process of the container runs, until it is let go on.

Source: runtime-spec does not know them; runc-pause(8), runc-resume(8).
"""

from __future__ import annotations

from pyrun.cgroups import freezer
from pyrun.errors import Conflict
from pyrun.store import bundles

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options


def pause(options: Options, identifier: str) -> None:
    """Freeze a container that runs or waits for `start`. Raises Conflict, in the words callers look for."""
    container = bundles.load(bundles.root_of(options), identifier)
    status = bundles.status(container)
    if status not in ("running", "created"):
        raise Conflict(
            "container not running" if status != "paused" else "container not running: it is paused"
        )
    freezer.freeze(bundles.groups(container))


def resume(options: Options, identifier: str) -> None:
    """Let a paused container run. Raises Conflict if it is not."""
    container = bundles.load(bundles.root_of(options), identifier)
    found = bundles.groups(container)
    if bundles.status(container) == "stopped" or not freezer.is_frozen(found):
        raise Conflict("container not paused")
    freezer.thaw(found)
