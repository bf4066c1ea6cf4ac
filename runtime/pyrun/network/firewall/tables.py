"""Both tables as a whole: made in one transaction, changed in one, removed."""

from __future__ import annotations

import errno
from _socket import SOL_SOCKET, socket

from pyrun import notice
from pyrun.network import health, messages, nft
from pyrun.network.egress import elements, policy
from pyrun.network.firewall import bridged, names, routed, sets

_SNDBUFFORCE, _ROOM_BYTES = 32, 1 << 24
# The sets whose elements come and go with containers, but for what the resolver admits.
_OF_CONTAINERS = (
    names.PORTS, names.PORTS_AT, names.PORTS6, names.PORTS6_AT, names.CLOSED, names.CLOSED_AT, names.CLOSED6,
    names.CLOSED6_AT, names.POLICED, names.POLICED6, names.ALLOWED, names.ALLOWED6, names.DENIED, names.DENIED6,
    names.GUESTS, names.GUESTS6,
)  # fmt: skip
_PINNED = (names.MACS, names.ADDRESSES, names.ADDRESSES6, names.ALONE)
_WITHOUT_BRIDGES = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)


def build(
    sock: socket, networks: list[dict[str, object]], published: list[bytes], pinned: list[bytes] | None = None
) -> None:
    """Make both tables anew, replacing what is left of older ones, each in one transaction.

    networks: as in network.json; published: a message for each element of the table inet that is a container's
    (ports, policies); pinned: the same for the table bridge. Raises OSError.
    """
    # Thousands of ports are one message of megabytes, more than a socket takes unasked.
    sock.setsockopt(SOL_SOCKET, _SNDBUFFORCE, _ROOM_BYTES)
    changes = _fresh(nft.INET) + sets.every() + routed.messages()
    for network in networks:
        changes += sets.network_elements(nft.NEW_ELEMENT, network)
    commit(sock, changes + published + _policies())
    try:
        gateways = [each for network in networks for each in sets.gateway_elements(nft.NEW_ELEMENT, network)]
        commit(sock, _fresh(nft.BRIDGE) + sets.of_bridges() + bridged.messages() + gateways + (pinned or []))
    except OSError as error:
        if error.errno not in _WITHOUT_BRIDGES:
            raise
        notice.say(
            "this kernel has no nftables for bridges: containers are not kept from using each other's addresses"
        )


def _policies() -> list[bytes]:
    """The elements of the egress policies of living containers."""
    found = policy.all_policies()
    template = elements.words() if found else {}
    return [
        message
        for one in found
        for message in (*elements.policed(template, one), *elements.standing(template, one))
    ]


def _fresh(family: int) -> list[bytes]:
    # A table that is made before it is deleted can be deleted whether it was there or not.
    kinds = (nft.NEW_TABLE, nft.DELETE_TABLE, nft.NEW_TABLE)
    return [nft.table(kind, names.TABLE, family) for kind in kinds]


def commit(sock: socket, changes: list[bytes]) -> None:
    """Send *changes* as one transaction. Raises OSError."""
    markers = {"message begin": nft.marker(begin=True).hex(), "message end": nft.marker(begin=False).hex()}
    messages.transact(sock, markers, changes)


def set_gateway(sock: socket, kind: int, network: dict[str, object]) -> None:
    """Add or delete what the table bridge knows of a network with further bridges; fine if there is no such table."""
    try:
        for change in sets.gateway_elements(kind, network):
            commit(sock, [change])
    except OSError as error:
        if error.errno != errno.ENOENT and error.errno not in _WITHOUT_BRIDGES:
            raise


def remove(sock: socket) -> None:
    """Delete both tables; fine if they are gone."""
    for family in (nft.INET, nft.BRIDGE):
        try:
            commit(sock, [nft.table(nft.DELETE_TABLE, names.TABLE, family)])
        except OSError as error:
            if error.errno != errno.ENOENT and error.errno not in _WITHOUT_BRIDGES:
                raise


def complete(sock: socket) -> bool:
    """Whether both tables have as many rules as they are made with. Slower than health.py: for `network reload`."""
    for family, wanted in ((nft.INET, routed.rules()), (nft.BRIDGE, bridged.rules())):
        try:
            dumped = messages.split(messages.dump(sock, nft.get_rules(family, names.TABLE)))
        except OSError:
            dumped = []
        if len(dumped) < sum(1 for _ in wanted) and not (family == nft.BRIDGE and not dumped):
            return False
    return True


def complete_elements(sock: socket, published: list[bytes], pinned: list[bytes]) -> bool:
    """Whether both tables have at least as many elements of containers as these, given as for `build`."""
    of_bridges = _count(sock, nft.BRIDGE, _PINNED)
    return _count(sock, nft.INET, _OF_CONTAINERS) >= len({*published, *_policies()}) and (
        of_bridges < 0 or of_bridges >= len(set(pinned))
    )


def _count(sock: socket, family: int, sets_: tuple[str, ...]) -> int:
    """How many elements these sets have together; -1 without one of them."""
    found = 0
    for name in sets_:
        try:
            dumped = messages.dump(sock, nft.get_elements(names.TABLE, name, family))
        except OSError:
            return -1
        found += len(health.set_elements(dumped))
    return found


# Chains that others may make dropping at any time, and whose names are known.
_WELL_KNOWN = tuple(
    (family, "filter", chain) for family in (nft.IPV4, nft.IPV6) for chain in ("FORWARD", "INPUT")
)


def checks(network: dict[str, object]) -> dict[str, bytes]:
    """The questions of health.py, for the template of a network: is all there, does nobody drop what we forward?

    network["foreign"]: the places (foreign.py) that drop already.
    """
    asked = {
        "table": nft.get_chain(nft.INET, names.TABLE, names.FORWARD),
        "bridge-table": nft.get_chain(nft.BRIDGE, names.TABLE, names.FRAMES),
    }
    listed = network.get("foreign")
    places = {_key(place): place for place in listed} if isinstance(listed, list) else {}
    for family, table, chain in _WELL_KNOWN:
        place = {"family": family, "table": table, "base": chain, "chain": chain, "by_policy": True}
        places.setdefault(_key(place), place)
    for number, place in enumerate(places.values()):
        family, table, chain = int(str(place["family"])), str(place["table"]), str(place["chain"])
        if family == nft.IPV6 and not network.get("subnet6"):
            continue
        if place.get("handle"):
            asked[f"rule{number}"] = nft.get_rule(family, table, chain, int(str(place["handle"])))
        if place["by_policy"]:
            asked[f"policy{number}"] = nft.get_chain(family, table, str(place["base"]))
        asked[f"rules{number}"] = nft.get_rules(family, table, chain)
    return asked


def _key(place: dict[str, object]) -> tuple[object, object, object]:
    return place["family"], place["table"], place["base"]
