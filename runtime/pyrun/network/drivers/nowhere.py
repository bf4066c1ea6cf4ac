"""A network of the driver none: a container on it has its loopback and nothing else, as with --network none.

It has a name, an id and labels, for what expects of every container that it is on a network; nobody is connected to
anything by it. That a container is on it is told by a claim, called by the container's id, where other networks have
those of addresses.
"""

from __future__ import annotations

from typing import Any

from pyrun import notice
from pyrun.errors import UsageError
from pyrun.network import claims, design, endpoint, host, leases, records

DRIVER = "none"
_CHOICES = ("ip", "ip6", "mac", "ifname", "aliases")


def check(request: dict[str, Any]) -> None:
    """Whether what is asked of the container can be had without any interface. Raises UsageError."""
    wanted = request["endpoints"]
    (name, *_) = [str(each["network"]) for each in wanted if each["driver"] == DRIVER]
    told = f"--network {name} (of the driver none)"
    if len(wanted) > 1:
        raise UsageError(
            f"{told}: stands alone", f"--network {name} without another, or the others without it"
        )
    if any(wanted[0][key] for key in _CHOICES):
        raise UsageError(
            f"{told}: has no interface of which anything could be chosen",
            "leave the settings out, or choose another network",
        )
    if request.get("egress") is not None:
        raise UsageError(f"--egress: has no meaning with {told}", "there is no way out at all")
    if request["ports"]:
        notice.say(f"published ports are ignored with {told}")


def joined(request: dict[str, Any], planned: dict[str, Any], owner: str) -> dict[str, Any]:
    """*planned*, of a container without any interface, with the claim that keeps the network from being removed.

    Raises NotFound when it has just been removed; then nothing is claimed any more.
    """
    if request["dry_run"]:
        return planned
    network = str(request["endpoints"][0]["network"])
    path = leases.path(network, str(request["id"]))
    record = claims.write_record(owner, [f"name {request['name']}"])
    try:
        with host.locked():  # as whoever removes networks
            if records.definition(network) is None:
                raise design.unknown(network)
            claims.take_over(record, path)
    except BaseException:
        endpoint.release(planned["claims"], owner)
        raise
    finally:
        claims.forget(record)
    undone = [*planned["undo"], f"unlink-if\t{path}\t{owner}"]
    return {**planned, "claims": [*planned["claims"], path], "undo": undone}


def refuse_connection(name: str) -> UsageError:
    """The error about `network connect` to it."""
    return UsageError(
        f"network connect: {name} is of the driver none, and there is nothing in it to connect to",
        "`pyrun network ls` shows the others",
    )
