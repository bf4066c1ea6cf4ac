"""The tables of the firewall from what is on disk: after a flush, and when a start finds elements of the dead.

Networks, published ports and links are all noted in files (records.py, leases.py), so whatever somebody removed can be
made again as it was, in one transaction.
"""

from __future__ import annotations

import posix
from _socket import socket
from time import sleep

from pyrun.network import (
    claims,
    elements,
    firewall,
    forwarding,
    host,
    leases,
    messages,
    ownership,
    records,
    tags,
    templates,
)
from pyrun.network.egress import bridge_filter, policy
from pyrun.network.egress import elements as egress
from pyrun.network.firewall.tables import Element
from pyrun.network.publishing import ports, shutting
from pyrun.network.records import Network
from pyrun.store import paths

# So often are the tables made again, when containers and policies come and go all the time.
_TRIES = 20
# So long after its policy's file a container that ends may have elements yet.
_ENDING_S = 0.2


def rebuild() -> None:
    """Make the tables of the firewall anew from what is on disk: networks, and ports and links of living containers.

    Raises OSError.
    """
    with host.locked():
        sock = messages.opened(messages.NETLINK_NETFILTER)
        build(sock)
        sock.close()


def build(sock: socket) -> None:
    """The same, under the lock already.

    Whoever starts a container or ends one, changes its ports or its policy, takes no lock, but changes files and the
    tables both. So the files are read again: what came or went meanwhile would be in the new tables as it was for good.
    """
    unjudged = bridge_filter.unjudged(sock)
    for _ in range(_TRIES):
        known = _noted()
        _build(sock)
        if _noted() == known:
            break
    bridge_filter.judge_anew(sock, unjudged)


def forget_strays() -> list[str]:
    """Make the tables anew if they hold an egress policy for an address that no living container with a policy has:
    whoever gets it next would be cut off. A line for each. Raises OSError."""
    if not egress.in_use():
        return []
    with host.locked():
        sock = messages.opened(messages.NETLINK_NETFILTER)
        try:
            strays = _strays(sock)
            if strays:  # or somebody is just ending: he takes his file away first
                sleep(_ENDING_S)
                strays &= _strays(sock)
            if strays:
                build(sock)
        finally:
            sock.close()
    return [f"the egress policy of {each} was left over and has been removed" for each in sorted(strays)]


def _strays(sock: socket) -> set[str]:
    found = egress.holders(sock)
    # The files afterwards: whoever comes writes his before he changes the tables.
    return found.difference(*[each.addresses for each in policy.all_policies()])


def _noted() -> tuple[list[str], list[tuple[str, int]]]:
    """What the elements of containers are made from: policies; leases and claims of ports, each by its inode."""
    networks = f"{paths.run()}/networks"
    found: list[tuple[str, int]] = []
    for directory in (
        f"{paths.run()}/ports",
        *[f"{networks}/{each}/leases" for each in claims.names(networks)],
    ):
        try:
            with posix.scandir(directory) as entries:
                found += [(entry.path, entry.inode()) for entry in entries]
        except OSError:  # none, or a file
            continue
    return [policy.text(each) for each in policy.all_policies()], sorted(found)


def complete(sock: socket, *, counted: bool) -> bool:
    """Whether the tables have all rules; counted: and the elements `build` would make, for a moment's time: a container
    that ends takes its elements away before its files, and must not get them back."""
    if not firewall.complete(sock):
        return False
    lasting: set[Element] | None = None
    for pause_s in (0.0, _ENDING_S, _ENDING_S) if counted else ():
        sleep(pause_s)
        _, published, pinned = _wanted(sock)
        found = firewall.differences(sock, published, pinned)
        lasting = found if lasting is None else lasting & found
        if not lasting:
            break
    return not lasting


def _build(sock: socket) -> None:
    ownership.check(sock)
    firewall.build(sock, *_wanted(sock), comment=tags.label())


def _wanted(sock: socket) -> tuple[list[Network], list[bytes], list[bytes]]:
    """The networks, and the elements of containers in either table."""
    networks = records.all_networks()
    every = [found for found in map(template, networks) if found]
    published = [
        elements.element(every[0], "publish", port, address)
        for port, address in records.published_ports()
        if port[0] != ports.LOOPBACK6
    ]
    published += [*shutting.messages_for(every[0], sock), *forwarding.elements(every[0])] if every else []
    published += [message for network in networks for message in resolver_elements(every[0], network)]
    pinned = bridge_filter.mutes([each for each in networks if each.driver == "bridge"])
    for network in networks:
        words = {**every[0], "icc": str(network.icc), "adopted": str(network.adopted)}
        for link, mac, address, address6 in _links(network):
            published += elements.guests(words, "pin", address, address6)
            pinned += elements.pins(words, "pin", link, mac, address, address6)
    return networks, published, pinned


def template(network: Network) -> messages.Template | None:
    """The messages of a start on *network*, encoded now; None for one that is no bridge."""
    return templates.parsed(network) if network.driver == "bridge" else None


def resolver_elements(template: messages.Template, network: Network, action: str = "publish") -> list[bytes]:
    """What leads questions at port 53 of the gateways to where the resolver listens, which is at those of the first
    subnets: to 53 itself as well, since a container that publishes its own 53 on every address would get them
    otherwise."""
    return [
        elements.element(template, action, (each.gateway, 53, network.dns_port, protocol), first)
        for pools, first in ((network.subnets4, network.gateway), (network.subnets6, network.gateway6))
        for each in pools
        for protocol in ("tcp", "udp")
        if network.driver == "bridge" and each.gateway and first
    ]


def _links(network: Network) -> list[tuple[str, str, str, str]]:
    """The links of living containers: name, MAC, address of either family or ""."""
    links: dict[str, dict[str, str]] = {}
    for address, lines in leases.held(network.name).items():
        told = claims.told(lines)
        if "link" in told:
            link = links.setdefault(told["link"], {"address": "", "address6": "", "mac": told.get("mac", "")})
            link["address6" if ":" in address else "address"] = address
    return [
        (
            name,
            link["mac"] or leases.mac(link["address"] or link["address6"]),
            link["address"],
            link["address6"],
        )
        for name, link in links.items()
    ]


def note_resolver(name: str, port: int) -> None:
    """The resolver of the network listens at *port*: questions to port 53 are led there, if it is another."""
    with host.locked():
        network, template = records.load(name), messages.load(name)
        if network is None or template is None:
            return
        # what led elsewhere is added before it is deleted: so the transaction succeeds whether it is there or not
        changes = [
            message
            for action in ("publish", "unpublish")
            for message in resolver_elements(template, network, action)
        ]
        network.dns_port = port
        sock = messages.opened(messages.NETLINK_NETFILTER)
        firewall.commit(sock, changes + resolver_elements(template, network))
        sock.close()
        records.save(network)
        network.index = int(template["index"])  # as it stands, whatever is noted
        text = templates.text(network)
        paths.replace(messages.path(name), text.encode())
