"""Who on a network has which MAC address: two of one address on a bridge get each other's frames.

Derived ones cannot meet, since no two leases are of one address; asked only for one that a user chose, which is claimed
as well. Behind a card, which several networks may share, every one is: run/macs/<card, bridge or network>-<MAC>.
"""

from __future__ import annotations

from typing import Any

from pyrun.errors import Conflict
from pyrun.network import claims, leases, records
from pyrun.store import paths


def refuse_taken(request: dict[str, Any]) -> None:
    """Raises: Conflict when a MAC asked for is somebody's already. request: as of stages/network.py."""
    for each in request["endpoints"]:
        if each["mac"]:
            refuse(str(each["network"]), str(each["mac"]), f"--network {each['network']}")


def refuse(network: str, mac: str, told: str) -> None:
    """Raises: Conflict when *mac* is that of a container on the network, or of its bridge."""
    for lines in _owners(network).values():
        if mac == lines["mac"]:
            raise Conflict(
                f"{told}: the MAC address {mac} is that of container {lines['name']} on network {network}",
                "choose another, or leave the choice to pyrun",
            )
    bridge = str((records.load(network) or records.DEFAULTS)["bridge"])
    if bridge and _of_link(bridge) == mac:
        raise Conflict(f"{told}: the MAC address {mac} is that of the bridge of network {network}")


def take(segment: str, mac: str, record: str, told: str) -> str:
    """Claim *mac* behind the card *segment* for the owner of *record*; returns the claim's path. Raises Conflict."""
    file = path(segment, mac)
    if not claims.take_over(record, file):
        raise Conflict(
            f"{told}: the MAC address {mac} is that of container {claims.name_of(file)} on {segment}",
            "choose another, or leave the choice to pyrun",
        )
    return file


def take_in(network: str, mac: str, record: str) -> str:
    """The same of a network of ours."""
    return take(_of_network(network), mac, record, f"--network {network}")


def path_in(network: str, mac: str) -> str:
    """The claim of a MAC that was chosen, on a network of ours."""
    return path(_of_network(network), mac)


def _of_network(network: str) -> str:
    return f"network {network}"  # no interface is called so


def path(segment: str, mac: str) -> str:
    """The claim of a MAC behind a card, or in a bridge that holds one."""
    return f"{paths.run()}/macs/{segment}-{mac}"


def _owners(network: str) -> dict[str, dict[str, str]]:
    """Of everybody on the network, by the first line of its claims: name and mac."""
    found: dict[str, dict[str, str]] = {}
    # IPv4 first: of two addresses it is the one the MAC is derived from
    for address, lines in sorted(leases.held(network).items(), key=lambda lease: ":" in lease[0]):
        chosen = [line[4:] for line in lines if line.startswith("mac ")]
        mac = chosen[0] if chosen else leases.mac(address)
        found.setdefault(lines[0], {"name": claims.name_in(lines), "mac": mac})
    return found


def _of_link(name: str) -> str:
    try:
        return paths.read(f"/sys/class/net/{name}/address").decode().strip()
    except OSError:
        return ""
