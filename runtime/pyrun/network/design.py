"""What a network is going to be: names, subnets, MTU, from what the user asked for or from nothing.

    designed(route, name)       the default network, or one that was created, as it is to be built
    defined(route, wanted)      the definition of a new one, checked against this host
    check_families(network)     whether this kernel has what its addresses need

Nothing is made here. `route` is a pyroute2 IPRoute, for what the host has: routes, addresses, the uplink's MTU.
"""

from __future__ import annotations

import socket
import time
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any

from pyrun import boot
from pyrun.errors import Conflict, NetworkError, NotFound, UsageError
from pyrun.network import host, records, requests, subnets, subnets_asked
from pyrun.network.records import Network
from pyrun.network.subnets import Subnet
from pyrun.store import containers

DEFAULT = "bridge"
DEFAULT_BRIDGE = "pyrun0"
_DEFAULT_MTU = 1500
DRIVERS = ("bridge", "macvlan", "ipvlan", "none")


def designed(route: Any, name: str) -> Network:
    """The network as it is to be built. Raises: NotFound for one nobody created, NetworkError."""
    definition = records.definition(name)
    if definition is not None:
        return {**definition, "mtu": definition["mtu"] or _uplink_mtu(route)}
    if name != DEFAULT:
        raise unknown(name)
    subnet = _subnet_in_place(route) or subnets.choose(subnets.taken(route, records.known()))
    network = {**records.DEFAULTS, "name": name, "id": containers.new_id(), "bridge": DEFAULT_BRIDGE}
    network.update(_told([str(subnet)], [], []), mtu=_uplink_mtu(route), created=time.time())
    return network


def defined(route: Any, wanted: dict[str, Any]) -> Network:
    """The definition of a new network. wanted: name driver subnets gateways ranges internal ipv6 mtu isolate icc
    labels options parent, and mtu_told: the option the MTU was given by. Raises: UsageError, Conflict (name or subnet),
    NetworkError (no subnet is free)."""
    name = requests.check_name(wanted["name"], "network create")
    if name in (*requests.RESERVED, DEFAULT):
        raise UsageError(f"network create {name}: the name is pyrun's own", "choose another")
    if records.definition(name) or records.load(name):
        raise Conflict(f"network {name} exists", f"`pyrun network inspect {name}` shows it")
    if wanted["driver"] not in DRIVERS:
        raise UsageError(f"--driver {wanted['driver']}: no such driver", ", ".join(DRIVERS))
    network = {
        **records.DEFAULTS,
        "name": name,
        "id": containers.new_id(),
        "created": time.time(),
        "mtu": int(wanted["mtu"] or 0),
    }
    network.update(
        {key: wanted[key] for key in ("driver", "internal", "isolate", "icc", "labels", "options", "parent")}
    )
    six = wanted["ipv6"] or any(":" in text for text in wanted["subnets"])
    if network["mtu"] and not (1280 if six else 68) <= network["mtu"] <= 65535:
        told = wanted.get("mtu_told", "--mtu")
        raise UsageError(
            f"{told} {network['mtu']}: must be 68 to 65535, with IPv6 at least 1280",
            "1500 is that of Ethernet; without it that of the host's uplink is taken",
        )
    network["bridge"] = _bridge_name(route, network)
    network.update(_told(*_subnets(route, wanted)))
    network["ipv6"] = bool(network["subnets6"])
    return network


def check_families(network: Network) -> None:
    """Raises: NetworkError for a network with IPv6 on a kernel without."""
    if network["subnets6"] and not host.has_ipv6():
        raise NetworkError(
            f"network {network['name']!r} cannot have {network['subnet6']}: this kernel has no IPv6",
            "a network without IPv6; or `cat /proc/cmdline`, where ipv6.disable=1 switches it off",
        )


def _bridge_name(route: Any, network: Network) -> str:
    if network["driver"] != "bridge":
        return ""
    given = str(network["options"].get("com.docker.network.bridge.name", ""))
    if not given:
        return f"pyr{network['id'][:8]}"
    plain = given.isascii() and given.replace("-", "a").replace("_", "a").isalnum()
    if given == DEFAULT_BRIDGE:
        raise UsageError(f"bridge name {given!r}: is that of the default network", "choose another")
    if not (plain and given.startswith("pyr") and len(given) <= 11):
        raise UsageError(
            f"bridge name {given!r:.60}: must begin with pyr and have at most 11 letters, digits, - and _",
            "the rules of other firewalls are passed by that beginning",
        )
    for other in records.known():
        if other["bridge"] == given:
            raise Conflict(
                f"bridge name {given!r}: is that of network {other['name']}",
                "choose another, or leave it out",
            )
    if route.link_lookup(ifname=given):
        raise Conflict(f"bridge name {given!r}: there is a link of that name", f"`ip link show {given}`")
    return given


def _subnets(route: Any, wanted: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """The subnets asked for, or free ones; with the gateways and ranges that were told with them."""
    asked = [subnets_asked.subnet(text) for text in wanted["subnets"]]
    for option, given in (("--gateway", wanted["gateways"]), ("--ip-range", wanted["ranges"])):
        if given and not asked:
            raise UsageError(
                f"{option} {given[0]!s:.60}: --subnet is missing", "--subnet=CIDR, of which it is a part"
            )
    everyone = records.known()
    # On a card the subnet is the segment's, where this host has its own address.
    on_a_card = wanted["driver"] != "bridge"
    taken = [] if on_a_card else subnets.taken(route, everyone)
    subnets_asked.refuse_twice(asked)
    subnets_asked.refuse_overlaps(asked, taken, everyone)
    chosen = [str(subnet) for subnet in asked]
    if on_a_card:  # there nothing is invented: nobody would be the gateway
        return chosen, wanted["gateways"], wanted["ranges"]
    if not any(subnet.version == 4 for subnet in asked):
        chosen.insert(0, str(subnets.choose_small(taken)))
    if wanted["ipv6"] and not any(subnet.version == 6 for subnet in asked):
        chosen.append(str(subnets.choose6([*taken, *asked])))
    return chosen, wanted["gateways"], wanted["ranges"]


def _told(chosen: list[str], gateways: list[str], ranges: list[str]) -> Network:
    """The subnet keys of network.json; each gateway and range goes to the subnet it is in. Raises UsageError."""
    places = [described(subnet, str(subnet[1])) | {"told": {}} for subnet in map(ip_network, chosen)]
    for kind, given, option in (("gateway", gateways, "--gateway"), ("range", ranges, "--ip-range")):
        for text in given:
            place = _home(places, text, option)
            if place["told"].get(kind):
                raise UsageError(
                    f"{option} {text}: the subnet {place['subnet']} has one already", "one for each --subnet"
                )
            place[kind] = place["told"][kind] = text
            if kind == "range" and not _hosts(place):
                raise UsageError(
                    f"{option} {text}: has no address for a container", "a larger part of the subnet"
                )
    for each in places:
        del each["told"]
    four = [each for each in places if ":" not in each["subnet"]]
    six = [each for each in places if ":" in each["subnet"]]
    return keys_of(four, six)


def keys_of(four: list[dict[str, Any]], six: list[dict[str, Any]]) -> Network:
    """What network.json says of subnets: all of each family, and the keys of the first by themselves."""
    found: Network = {"subnets4": four, "subnets6": six}
    if four:
        found.update(four[0])
    if six:
        found.update({f"{key}6": six[0][key] for key in ("subnet", "gateway", "prefix", "range")})
    return found


def described(subnet: Subnet, gateway: str) -> dict[str, Any]:
    """A subnet as network.json has it, without a range for containers."""
    last = str(subnet.broadcast_address) if subnet.version == 4 else ""
    return {
        "subnet": str(subnet), "gateway": gateway, "prefix": subnet.prefixlen, "broadcast": last, "range": "",
    }  # fmt: skip


def _hosts(place: dict[str, Any]) -> int:
    """How many addresses of its range containers can have."""
    subnet, within = ip_network(place["subnet"]), ip_network(place["range"])
    nobody = {subnet[0], subnet[-1], ip_address(place["gateway"])}
    return within.num_addresses - sum(each in within for each in nobody)


def _home(places: list[dict[str, Any]], text: str, option: str) -> dict[str, Any]:
    """The subnet a gateway or range is in. Raises UsageError."""
    try:
        inner = ip_network(text) if option == "--ip-range" else ip_network(str(ip_address(text)))
    except ValueError:
        raise UsageError(
            f"{option} {text!r:.60}: no {'range' if option == '--ip-range' else 'address'}",
            "10.1.0.0/25, a part of the --subnet"
            if option == "--ip-range"
            else "an address of the --subnet: 10.1.0.1",
        ) from None
    for each in places:
        outer = ip_network(each["subnet"])
        if inner.version == outer.version and inner.subnet_of(outer):  # type: ignore[arg-type]
            if option == "--gateway" and inner[0] in (outer[0], outer[-1] if outer.version == 4 else None):
                raise UsageError(
                    f"--gateway {text}: is an end of the subnet {outer}",
                    f"an address in between, such as {outer[1]}",
                )
            return each
    subnets_told = " ".join(each["subnet"] for each in places) or "none"
    raise UsageError(
        f"{option} {text}: in no subnet of the network ({subnets_told})",
        "an address of one of them" if option == "--gateway" else "a part of one of them",
    )


def check_address(name: str, address: str, told: str) -> dict[str, Any]:
    """The subnet of *address*, which is outside the first one of its family. Raises UsageError, NotFound."""
    every = subnets_of(name, "") + subnets_of(name, "6")
    for each in every:
        subnet = ip_network(each["subnet"])
        if ip_address(address) in subnet:
            ends = (str(subnet[0]), str(subnet[-1]) if subnet.version == 4 else "")
            if address in (each["gateway"], *ends):
                raise UsageError(
                    f"{told}: no address of a container",
                    f"one between the ends of {subnet} that is not {each['gateway']}",
                )
            return each
    raise UsageError(
        f"{told}: not in network {name}", f"its subnets: {', '.join(each['subnet'] for each in every)}"
    )


def subnets_of(name: str, six: str) -> list[dict[str, Any]]:
    """Every subnet of a family; six: "" or "6". Raises NotFound."""
    network = records.load(name) or records.definition(name)
    if network is None:
        raise unknown(name)
    return list(network[f"subnets{six or 4}"])


def built_in() -> tuple[str, ...]:
    """The networks that are there without being made, of whoever asks; root's first one is made when it is wanted."""
    return (DEFAULT, "host", "none") if boot.rootless_uid() < 0 else requests.ALONE


def unknown(name: str) -> NotFound:
    """The error about a network nobody made, with those there are."""
    names = sorted({*built_in(), *[str(network["name"]) for network in records.known()]})
    return NotFound(f"no such network: {name}", f"there are {', '.join(names)}")


def _subnet_in_place(route: Any) -> IPv4Network | None:
    """The subnet of a bridge that outlived its files, so that containers on it stay reachable."""
    for link in route.link_lookup(ifname=DEFAULT_BRIDGE):
        for message in route.get_addr(family=socket.AF_INET, index=link):
            return IPv4Network(f"{message.get_attr('IFA_LOCAL')}/{message['prefixlen']}", strict=False)
    return None


def _uplink_mtu(route: Any) -> int:
    for message in route.get_default_routes(family=socket.AF_INET, table=254):
        index = message.get_attr("RTA_OIF")
        if index:
            return int(route.get_links(index)[0].get_attr("IFLA_MTU"))
    return _DEFAULT_MTU
