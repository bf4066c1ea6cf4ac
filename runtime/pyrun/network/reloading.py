"""`network reload`: whatever is missing of any network is made again, the rules before all else.

What one network needs is in bridge.py. One that cannot be restored, as an adopted one whose bridge is gone, keeps none
of the others from it.
"""

from __future__ import annotations

from collections.abc import Callable

from pyrun import boot
from pyrun.errors import NetworkError
from pyrun.network import bridge, health, host, messages, rebuilding, records, tags

boot.site_packages()

from pyroute2.iproute import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

from pyrun.network.records import Network  # noqa: E402


def reload(failed: list[str], *, counted: bool) -> list[str]:
    """What had to be done, a line each. counted: look for elements of containers too. failed: gets a line for each
    network that cannot be restored."""
    told = []
    with host.locked(), IPRoute() as route:
        networks = [network for network in records.all_networks() if network.driver == "bridge"]
        for network in networks[:1]:
            told += _told(failed, network, lambda network: _tables(network, counted=counted))
        for network in networks:
            told += _told(
                failed, network, lambda network: bridge.repair(route, network, thorough=True, counted=counted)
            )
    return told


def _told(failed: list[str], network: Network, restore: Callable[[Network], list[str]]) -> list[str]:
    name = network.name
    try:
        return [f"network {name}: {what} was missing and has been restored" for what in restore(network)]
    except (OSError, NetlinkError) as error:
        problem = bridge.failure(f"network {name} cannot be restored", error)
    except NetworkError as error:
        problem = error
    failed.append(": ".join(filter(None, (problem.message, problem.hint))))
    return []


def _tables(network: Network, *, counted: bool) -> list[str]:
    """Make the tables anew if anything of them is missing, of whichever network; that, in words."""
    template, sock = rebuilding.template(network), messages.opened(messages.NETLINK_NETFILTER)
    assert template is not None
    try:
        if health.standing_table(template, sock) and rebuilding.complete(sock, counted=counted):
            return []
        rebuilding.build(sock)
        return [f"table inet {tags.table()}"]
    finally:
        sock.close()
