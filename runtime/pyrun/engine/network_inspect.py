"""`pyrun network inspect`: everything about a network, in the keys Docker has, and below "Pyrun" what only pyrun tells.

Who is connected comes from the leases, what went through from the kernel's counters of the host's end of each link:
what that end received is what the container sent.
"""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network
from typing import Any

from pyrun.network import claims, counters, events, leases, records
from pyrun.network.records import Network, Pool


def inspect(name: str) -> dict[str, Any]:
    """One network. Raises: NotFound."""
    from pyrun.network import design

    name = records.named(name)
    network = records.load(name) or records.definition(name)
    if network is None:
        if name in design.built_in():
            return _built_in(name)
        raise design.unknown(name)
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(network.created)),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": bool(network.subnets6),
        "IPAM": {
            "Driver": "default",
            "Config": [_pool(each) for each in network.pools()],
        },
        "Internal": network.internal,
        "Options": network.options,
        "Labels": network.labels,
        "Containers": _containers(network),
        "Pyrun": _ours(network),
    }


def _ours(network: Network) -> dict[str, Any]:
    """What Docker has no key for."""
    return {
        "Bridge": network.bridge,
        "Bridges": network.bridges(),
        "Built": network.index > 0,
        "Mtu": network.mtu,
        "Icc": network.icc,
        "Isolate": network.isolate,
        "Adopted": network.adopted,
        "Parent": network.parent,
        "ResolverPort": network.dns_port,
        "Healed": events.recent(network.name),
    }


def _built_in(name: str) -> dict[str, Any]:
    driver, identifier = {"none": "null"}.get(name, name), records.built_in_id(name)
    return {
        "Name": name, "Id": identifier, "Scope": "local", "Driver": driver, "Internal": False, "Containers": {},
    }  # fmt: skip


def _pool(subnet: Pool) -> dict[str, str]:
    pool = {"Subnet": subnet.subnet, "Gateway": subnet.gateway, "IPRange": subnet.range}
    return {key: value for key, value in pool.items() if value}


def _containers(network: Network) -> dict[str, Any]:
    found: dict[str, Any] = {
        identifier: {"Name": claims.name_in(lines)}
        for identifier, lines in leases.members(network.name).items()
    }
    for address, lines in sorted(leases.held(network.name).items()):
        told = claims.told(lines)
        container = found.setdefault(lines[0].partition(" ")[0], {"Name": claims.name_in(lines)})
        six = ":" in address
        container["IPv6Address" if six else "IPv4Address"] = f"{address}/{_prefix(network, address)}"
        container.setdefault("MacAddress", told.get("mac") or leases.mac(address))
        container["Interface"], container["HostInterface"] = told.get("ifname", ""), told.get("link", "")
        container["Aliases"] = [line[6:] for line in lines if line.startswith("alias ")]
        container["Counters"] = counters.read(told.get("link", ""))
    return found


def _prefix(network: Network, address: str) -> int:
    """That of the subnet the address is in, which may be a further one of the network."""
    wanted = ip_address(address)
    for each in network.pools():
        if wanted in ip_network(each.subnet):
            return each.prefix
    return network.prefix6 if wanted.version == 6 else network.prefix
