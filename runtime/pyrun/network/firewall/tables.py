"""Both tables as a whole: made in one transaction, changed in one, removed."""

from __future__ import annotations

import errno
from _socket import SOL_SOCKET, socket
from collections.abc import Iterable

from pyrun import notice
from pyrun.network import health, messages, nft, tags
from pyrun.network.egress import elements, policy
from pyrun.network.firewall import bridged, names, routed, sets
from pyrun.network.records import Network, Place

_SNDBUFFORCE, _ROOM_BYTES = 32, 1 << 24
# The sets whose elements come and go with containers, but for what the resolver admits and what is closed to the
# outside: that is judged anew by publishing/shutting.py. What is left over in these somebody else would get.
_OF_CONTAINERS = (
    names.PORTS, names.PORTS_AT, names.PORTS6, names.PORTS6_AT, names.GUESTS, names.GUESTS6,
)  # fmt: skip
_PINNED = (names.MACS, names.ADDRESSES, names.ADDRESSES6, names.ALONE, names.MUTE)
# Here it is found by rebuilding.forget_strays, and told by its address.
_POLICIES = (names.POLICED, names.POLICED6, names.ALLOWED, names.ALLOWED6, names.DENIED, names.DENIED6)
# Of linux/netfilter/nf_tables.h: what a message about elements has, what an element has, what a key or value is.
_HEADER, _FAMILY = 16, 4  # bytes of a netlink message before the address family, and of that
_SET, _SET_ELEMENTS = 2, 3
_KEY, _DATA, _KEY_END, _VALUE = 1, 2, 10, 1
_WITHOUT_BRIDGES = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)

# Set, key, end of a range, value of a map
Element = tuple[str, bytes, bytes, bytes]


def build(
    sock: socket,
    networks: list[Network],
    published: list[bytes],
    pinned: list[bytes] | None = None,
    *,
    comment: str = "",
) -> None:
    """Make both tables anew, replacing what is left of older ones, each in one transaction.

    networks: as in network.json; published: a message for each element of the table inet that is a container's
    (ports, policies); pinned: the same for the table bridge; comment: whose the tables are. Raises OSError.
    """
    # Thousands of ports are one message of megabytes, more than a socket takes unasked.
    sock.setsockopt(SOL_SOCKET, _SNDBUFFORCE, _ROOM_BYTES)
    changes = _fresh(nft.INET, comment) + sets.every() + routed.messages()
    for network in networks:
        changes += sets.network_elements(nft.NEW_ELEMENT, network)
    commit(sock, changes + published + _policies())
    try:
        gateways = [each for network in networks for each in sets.gateway_elements(nft.NEW_ELEMENT, network)]
        commit(
            sock,
            _fresh(nft.BRIDGE, comment) + sets.of_bridges() + bridged.messages() + gateways + (pinned or []),
        )
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


def _fresh(family: int, comment: str) -> list[bytes]:
    # A table that is made before it is deleted can be deleted whether it was there or not.
    kinds = (nft.NEW_TABLE, nft.DELETE_TABLE, nft.NEW_TABLE)
    return [nft.table(kind, tags.table(), family, comment) for kind in kinds]


def commit(sock: socket, changes: list[bytes]) -> None:
    """Send *changes* as one transaction. Raises OSError."""
    markers = {"message begin": nft.marker(begin=True).hex(), "message end": nft.marker(begin=False).hex()}
    messages.transact(sock, markers, changes)


def set_gateway(sock: socket, kind: int, network: Network) -> None:
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
            commit(sock, [nft.table(nft.DELETE_TABLE, tags.table(), family)])
        except OSError as error:
            if error.errno != errno.ENOENT and error.errno not in _WITHOUT_BRIDGES:
                raise


def complete(sock: socket) -> bool:
    """Whether both tables have as many rules as they are made with. Slower than health.py: for `network reload`."""
    for family, wanted in ((nft.INET, routed.rules()), (nft.BRIDGE, bridged.rules())):
        try:
            dumped = messages.split(messages.dump(sock, nft.get_rules(family, tags.table())))
        except OSError:
            dumped = []
        if len(dumped) < sum(1 for _ in wanted) and not (family == nft.BRIDGE and not dumped):
            return False
    return True


def differences(sock: socket, published: list[bytes], pinned: list[bytes]) -> set[Element]:
    """What the tables lack of these elements of containers, given as for `build`, and what else they have of ports and
    links."""
    wanted = _elements(message[_HEADER:] for message in (*published, *_policies()))
    there = _listed(sock, nft.INET, (*_OF_CONTAINERS, *_POLICIES)) or set()
    of_bridges = _listed(sock, nft.BRIDGE, _PINNED)
    if of_bridges is not None:  # else this kernel has no such table
        wanted |= _elements(message[_HEADER:] for message in pinned)
        there |= of_bridges
    found = {each for each in wanted - there if each[0] in (*_OF_CONTAINERS, *_POLICIES, *_PINNED)}
    return found | {each for each in there - wanted if each[0] not in (*_POLICIES, names.MUTE)}


def lacks_policies(sock: socket) -> bool:
    """Whether elements of the egress policies of living containers are missing."""
    wanted = _elements(message[_HEADER:] for message in _policies())
    return bool(wanted) and not wanted <= (_listed(sock, nft.INET, _POLICIES) or set())


def _listed(sock: socket, family: int, sets_: tuple[str, ...]) -> set[Element] | None:
    """The elements of these sets; None without one of them."""
    found = set[Element]()
    for name in sets_:
        try:
            dumped = messages.dump(sock, nft.get_elements(tags.table(), name, family))
        except OSError:
            return None
        found |= _elements(payload for _, payload in messages.split(dumped))
    return found


def _elements(payloads: Iterable[bytes]) -> set[Element]:
    """The elements that messages tell of, or the kernel's answers."""
    found = set[Element]()
    for payload in payloads:
        told = health.attributes(payload, _FAMILY)
        name = told.get(_SET, b"").rstrip(b"\0").decode()
        for element in health.attributes_in_order(told.get(_SET_ELEMENTS, b"")):
            parts = health.attributes(element, 0)
            key, end, value = (
                health.attributes(parts.get(kind, b""), 0).get(_VALUE, b"")
                for kind in (_KEY, _KEY_END, _DATA)
            )
            found.add((name, key, end, value))
    return found


# Chains that others may make dropping at any time, and whose names are known.
_WELL_KNOWN = tuple(
    (family, "filter", chain) for family in (nft.IPV4, nft.IPV6) for chain in ("FORWARD", "INPUT")
)


def checks(network: Network) -> dict[str, bytes]:
    """The questions of health.py, for the template of a network: is all there, does nobody drop what we forward?

    network.foreign: the places (foreign.py) that drop already.
    """
    asked = {
        "table": nft.get_chain(nft.INET, tags.table(), names.FORWARD),
        "bridge-table": nft.get_chain(nft.BRIDGE, tags.table(), names.FRAMES),
    }
    places = {(place.family, place.table, place.base): place for place in network.foreign or ()}
    for family, table, chain in _WELL_KNOWN:
        places.setdefault((family, table, chain), Place(family, table, chain, chain, -1, by_policy=True))
    for number, place in enumerate(places.values()):
        family, table, chain = place.family, place.table, place.chain
        if family == nft.IPV6 and not network.subnet6:
            continue
        if place.handle:
            asked[f"rule{number}"] = nft.get_rule(family, table, chain, place.handle)
        if place.by_policy:
            asked[f"policy{number}"] = nft.get_chain(family, table, place.base)
        asked[f"rules{number}"] = nft.get_rules(family, table, chain)
    return asked
