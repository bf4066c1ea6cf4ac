"""`pyrun network adopt BRIDGE`: a network wired by hand becomes one of pyrun's; see network/adopt.py."""

from __future__ import annotations

from pyrun import boot
from pyrun.errors import UsageError


def adopt(bridge: str, options: dict[str, object]) -> str:
    """Take the bridge over; returns the network's name. Raises: NotFound, UsageError, Conflict, NetworkError."""
    if boot.rootless_uid() >= 0:
        raise UsageError(
            "network adopt: only root can take over a bridge of the host", "sudo pyrun network adopt ..."
        )
    from pyrun.network import adopt as adoption

    return str(adoption.adopt(bridge, str(options["name"] or ""))["name"])
