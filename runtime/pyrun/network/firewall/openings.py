"""What other people's firewalls must let through, as data: the same for nft, iptables-legacy and their IPv6 halves.

hook forward   whatever comes from or goes to a bridge of ours: our own table decides about it
hook input     questions to the resolver, which listens on each gateway; ICMPv6, without which IPv6 finds nobody
"""

from __future__ import annotations

from collections.abc import Iterator

from pyrun.network import health
from pyrun.network.records import Network

# Comment, "iifname" or "oifname", bridge (pyr* for every one whose name begins so), protocol, port; 0 for any.
Opening = tuple[str, str, str, int, int]

_UDP, _TCP, _ICMPV6 = 17, 6, 58


def forwarded(networks: list[Network]) -> Iterator[Opening]:
    """What must pass the hook forward."""
    # Into an adopted bridge our table lets everybody (sets.py): the rules that were made with it go on deciding.
    for bridge in bridges([network for network in networks if not network.adopted]):
        yield f"{health.MARK} to {bridge}", "oifname", bridge, 0, 0
        yield f"{health.MARK} from {bridge}", "iifname", bridge, 0, 0


def incoming(networks: list[Network], *, ipv6: bool) -> Iterator[Opening]:
    """What must pass the hook input. ipv6: of a chain that sees IPv6."""
    ports = sorted({network.dns_port or 53 for network in networks} | {53})
    for bridge in bridges(networks):
        for port in ports:
            for protocol, name in ((_UDP, "udp"), (_TCP, "tcp")):
                yield f"{health.MARK} ask {name} {port} from {bridge}", "iifname", bridge, protocol, port
        if ipv6 and any_ipv6(networks):
            yield f"{health.MARK} icmpv6 from {bridge}", "iifname", bridge, _ICMPV6, 0


def bridges(networks: list[Network]) -> list[str]:
    """pyr* for the bridges made by us, and the name of each adopted one."""
    names = {network.bridge for network in networks if network.driver == "bridge"}
    return ["pyr*", *sorted(name for name in names if name and not name.startswith("pyr"))]


def any_ipv6(networks: list[Network]) -> bool:
    """Whether one of the networks has IPv6."""
    return any(network.subnet6 for network in networks)
