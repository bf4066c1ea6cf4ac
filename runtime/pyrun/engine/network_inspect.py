"""`pyrun network inspect`: everything about a network, in the keys Docker has, and below "Pyrun" what only pyrun tells.

Who is connected comes from the leases, what went through from the kernel's counters of the host's end of each link:
what that end received is what the container sent.
"""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network
from typing import Any

from pyrun.network import claims, counters, events, leases


def inspect(name: str) -> dict[str, Any]:
    """One network. Raises: NotFound."""
    from pyrun.network import design, records

    network = _found(name)
    if network is None:
        if name in design.built_in():
            return _built_in(name)
        raise design.unknown(name)
    network = {**records.DEFAULTS, **network}
    return {
        "Name": network["name"],
        "Id": network["id"],
        "Created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(network["created"])),
        "Scope": "local",
        "Driver": network["driver"],
        "EnableIPv6": bool(network["subnets6"]),
        "IPAM": {
            "Driver": "default",
            "Config": [_pool(each) for each in records.subnets(network)],
        },
        "Internal": network["internal"],
        "Options": network["options"],
        "Labels": network["labels"],
        "Containers": _containers(network),
        "Pyrun": _ours(network),
    }


def _ours(network: dict[str, Any]) -> dict[str, Any]:
    """What Docker has no key for."""
    return {
        "Bridge": network["bridge"],
        "Bridges": [network["bridge"], *network["shards"]],
        "Built": network["index"] > 0,
        "Mtu": network["mtu"],
        "Icc": network["icc"],
        "Isolate": network["isolate"],
        "Adopted": network["adopted"],
        "Parent": network["parent"],
        "ResolverPort": network["dns_port"],
        "Healed": events.recent(network["name"]),
    }


def _found(name: str) -> dict[str, Any] | None:
    """By name, or by the beginning of an id that only one has."""
    from pyrun.network import records

    known = records.known()
    for network in known:
        if network["name"] == name:
            return network
    begin = [network for network in known if len(name) >= 4 and network["id"].startswith(name)]
    return begin[0] if len(begin) == 1 else None


def _built_in(name: str) -> dict[str, Any]:
    driver = {"none": "null"}.get(name, name)
    return {"Name": name, "Id": "", "Scope": "local", "Driver": driver, "Internal": False, "Containers": {}}


def _pool(subnet: dict[str, Any]) -> dict[str, str]:
    pool = {"Subnet": subnet["subnet"], "Gateway": subnet["gateway"], "IPRange": subnet["range"]}
    return {key: value for key, value in pool.items() if value}


def _containers(network: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        identifier: {"Name": claims.name_in(lines)}
        for identifier, lines in leases.members(network["name"]).items()
    }
    for address, lines in sorted(leases.held(network["name"]).items()):
        told = claims.told(lines)
        container = found.setdefault(lines[0].partition(" ")[0], {"Name": claims.name_in(lines)})
        six = ":" in address
        container["IPv6Address" if six else "IPv4Address"] = f"{address}/{_prefix(network, address)}"
        container.setdefault("MacAddress", told.get("mac") or leases.mac(address))
        container["Interface"], container["HostInterface"] = told.get("ifname", ""), told.get("link", "")
        container["Aliases"] = [line[6:] for line in lines if line.startswith("alias ")]
        container["Counters"] = counters.read(told.get("link", ""))
    return found


def _prefix(network: dict[str, Any], address: str) -> int:
    """That of the subnet the address is in, which may be a further one of the network."""
    from pyrun.network import records

    wanted = ip_address(address)
    for each in records.subnets(network):
        if wanted in ip_network(each["subnet"]):
            return int(each["prefix"])
    return int(network["prefix6" if wanted.version == 6 else "prefix"])
