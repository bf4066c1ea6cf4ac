"""Who on a network has which MAC address: two of one address on a bridge get each other's frames.

Derived ones cannot meet, since no two leases are of one address; asked only for one that a user chose, which is claimed
as well, so that nobody is leased the address it would be derived from. Behind a card, which several networks may share,
every one is: run/macs/<card, bridge or network>-<MAC>.
"""

from __future__ import annotations

from pyrun.errors import Conflict
from pyrun.network import claims, leases, records
from pyrun.network.requests import Endpoint
from pyrun.store import paths


def refuse_taken(wanted: list[Endpoint]) -> None:
    """Raises: Conflict when a MAC asked for is somebody's already."""
    for each in wanted:
        if each.mac:
            refuse(each.network, each.mac, f"--network {each.network}")


def refuse(network: str, mac: str, told: str, besides: str = "") -> None:
    """Raises: Conflict when *mac* is that of a container on the network, or of its bridge. besides: the first line of
    the claims of whoever asks.

    Of several containers that chose it, it is that of the one with the claim: the others have a lease for a moment.
    """
    claimed = claims.holder(path(f"network {network}", mac))
    for owner, (name, own, chosen) in _owners(network).items():
        asks_too = chosen and owner != claimed
        if own == mac and owner != besides and not asks_too:
            raise Conflict(
                f"{told}: the MAC address {mac} is that of container {name} on network {network}",
                "choose another, or leave the choice to pyrun",
            )
    bridge = (records.load(network) or records.Network()).bridge
    if bridge and _of_link(bridge) == mac:
        raise Conflict(
            f"{told}: the MAC address {mac} is that of the bridge of network {network}", "choose another"
        )


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
    """The same of a network of ours, where somebody may have been leased its address meanwhile. Raises Conflict."""
    file = take(f"network {network}", mac, record, f"--network {network}")
    own = claims.holder(file)
    try:
        refuse(network, mac, f"--network {network}", besides=own)
    except Conflict:
        claims.release(file, own)
        raise
    return file


def refuse_derived(network: str, address: str, told: str) -> None:
    """Raises: Conflict when the MAC that goes with a static address was chosen by somebody."""
    file = leases.mac_path(network, leases.mac(address))
    if claims.holder(file) and not claims.reclaim(file):
        raise Conflict(
            f"{told}: its MAC address {leases.mac(address)} is that of container {claims.name_of(file)} on network"
            f" {network}",
            "choose another address, or a MAC address as well",
        )


def path(segment: str, mac: str) -> str:
    """The claim of a MAC behind a card, or in a bridge that holds one."""
    return f"{paths.run()}/macs/{segment}-{mac}"


def _owners(network: str) -> dict[str, tuple[str, str, bool]]:
    """Of everybody on the network, by the first line of its claims: name, MAC, and whether it chose that."""
    found: dict[str, tuple[str, str, bool]] = {}
    # IPv4 first: of two addresses it is the one the MAC is derived from
    for address, lines in sorted(leases.held(network).items(), key=lambda lease: ":" in lease[0]):
        chosen = claims.told(lines).get("mac")
        found.setdefault(lines[0], (claims.name_in(lines), chosen or leases.mac(address), bool(chosen)))
    return found


def _of_link(name: str) -> str:
    try:
        return paths.read(f"/sys/class/net/{name}/address").decode().strip()
    except OSError:
        return ""
