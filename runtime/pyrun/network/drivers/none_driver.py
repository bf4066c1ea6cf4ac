"""A network of the driver none: a container on it has its loopback and nothing else, as with --network none.

It has a name, an id and labels, for what expects of every container that it is on a network; nobody is connected to
anything by it. That a container is on it is told by a claim, called by the container's id, where other networks have
those of addresses.
"""

from __future__ import annotations

from pyrun import notice
from pyrun.errors import UsageError
from pyrun.network import claims, design, host, leases, records
from pyrun.network.requests import Request
from pyrun.network.wiring import Claimed

DRIVER = "none"


def check(request: Request) -> None:
    """Whether what is asked of the container can be had without any interface. Raises UsageError."""
    wanted = request.endpoints
    (name, *_) = [each.network for each in wanted if each.driver == DRIVER]
    told = f"--network {name} (of the driver none)"
    if len(wanted) > 1:
        raise UsageError(
            f"{told}: stands alone", f"--network {name} without another, or the others without it"
        )
    only = wanted[0]
    if only.ip or only.ip6 or only.mac or only.ifname or only.aliases:
        raise UsageError(
            f"{told}: has no interface of which anything could be chosen",
            "leave the settings out, or choose another network",
        )
    if request.egress is not None:
        raise UsageError(f"--egress: has no meaning with {told}", "there is no way out at all")
    if request.ports:
        notice.say(f"published ports are ignored with {told}")


def claim(request: Request, had: Claimed) -> None:
    """What keeps the network from being removed. Raises NotFound when it has just been."""
    network, path = request.endpoints[0].network, _claim_of(request)
    record = claims.write_record(had.owner, [f"name {request.name}"])
    try:
        with host.locked():  # as whoever removes networks
            if records.definition(network) is None:
                raise design.unknown(network)
            claims.take_over(record, path)
            had.paths.append(path)
    finally:
        claims.forget(record)


def undo(request: Request, had: Claimed) -> list[str]:
    """The undo line of that claim."""
    return [f"unlink-if\t{_claim_of(request)}\t{had.owner}"]


def _claim_of(request: Request) -> str:
    return leases.path(request.endpoints[0].network, request.id)


def refuse_connection(name: str) -> UsageError:
    """The error about `network connect` to it."""
    return UsageError(
        f"network connect: {name} is of the driver none, and there is nothing in it to connect to",
        "`pyrun network ls` shows the others",
    )
