"""`pyrun-oci state`: what the specification says a state is, and runc's additions.

Source: runtime-spec runtime.md#state.
"""

from __future__ import annotations

from pyrun.store import bundles

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options
    from pyrun.store.record import BundleRecord


def state(options: Options, identifier: str) -> dict[str, object]:
    """The state as it is to be printed; pid is 0 for one that has stopped."""
    return describe(bundles.load(bundles.root_of(options), identifier))


def describe(container: BundleRecord, status: str = "") -> dict[str, object]:
    """The state of a loaded container. status: if the caller knows it."""
    status = status or bundles.status(container)
    found = {
        "ociVersion": container.get("ociVersion") or "1.0.0",
        "id": container["id"],
        "pid": 0 if status in ("stopped", "creating") else container.get("pid", 0),
        "status": status,
        "bundle": container.get("bundle", ""),
        "rootfs": container.get("rootfs", ""),
        "created": container.get("created", ""),
        "owner": "",
    }
    if container.get("annotations"):
        found["annotations"] = container["annotations"]
    return found
