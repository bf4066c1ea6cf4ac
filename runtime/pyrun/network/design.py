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
from pyrun.network import host, records, requests, subnets, tags
from pyrun.network.records import Network, Pool
from pyrun.network.subnets import Subnet
from pyrun.safe import shell_word
from pyrun.store import containers

DEFAULT = "bridge"
DEFAULT_BRIDGE = "pyrun0"
_DEFAULT_MTU = 1500
DRIVERS = ("bridge", "macvlan", "ipvlan", "none")


def designed(route: Any, name: str) -> Network:
    """The network as it is to be built. Raises: NotFound for one nobody created, NetworkError."""
    definition = records.definition(name)
    if definition is not None:
        definition.mtu = definition.mtu or _uplink_mtu(route)
        return definition
    if name != DEFAULT:
        raise unknown(name)
    subnet = _subnet_in_place(route) or subnets.choose(subnets.taken(route, records.known()))
    network = Network(name, records.built_in_id(name))
    network.bridge, network.mtu, network.created = tags.default_bridge(), _uplink_mtu(route), time.time()
    network.has(*_told([str(subnet)], [], []))
    return network


class Wanted:
    """What `network create` asks for, as its options have it.

    mtu: in bytes, 0 for the uplink's; mtu_told: the option it was given by.
    """

    __slots__ = (
        "driver", "gateways", "icc", "internal", "ipv6", "isolate", "labels", "mtu", "mtu_told", "name", "options",
        "parent", "ranges", "subnets",
    )  # fmt: skip

    def __init__(self, name: str, driver: str = "bridge") -> None:
        self.name, self.driver = name, driver
        self.subnets: list[str] = []
        self.gateways: list[str] = []
        self.ranges: list[str] = []
        self.labels: dict[str, str] = {}
        self.options: dict[str, str] = {}
        self.mtu, self.mtu_told, self.parent = 0, "--mtu", ""
        self.internal, self.ipv6, self.isolate, self.icc = False, False, False, True


def defined(route: Any, wanted: Wanted) -> Network:
    """The definition of a new network. Raises: UsageError, Conflict (name or subnet), NetworkError (no subnet is
    free)."""
    name = requests.check_name(wanted.name, "network create")
    if name in (*requests.RESERVED, DEFAULT):
        raise UsageError(f"network create {name}: the name is pyrun's own", "choose another")
    if records.definition(name) or records.load(name):
        raise Conflict(f"network {name} exists", f"`pyrun network inspect {shell_word(name)}` shows it")
    if wanted.driver not in DRIVERS:
        raise UsageError(f"--driver {wanted.driver}: no such driver", ", ".join(DRIVERS))
    network = Network(name, containers.new_id())
    network.created, network.mtu = time.time(), wanted.mtu
    network.driver, network.parent = wanted.driver, wanted.parent
    network.internal, network.isolate, network.icc = wanted.internal, wanted.isolate, wanted.icc
    network.labels, network.options = wanted.labels, wanted.options
    six = wanted.ipv6 or any(":" in text for text in wanted.subnets)
    if network.mtu and not (1280 if six else 68) <= network.mtu <= 65535:
        raise UsageError(
            f"{wanted.mtu_told} {network.mtu}: must be 68 to 65535, with IPv6 at least 1280",
            "1500 is that of Ethernet; without it that of the host's uplink is taken",
        )
    network.bridge = _bridge_name(route, network)
    network.has(*_told(*_subnets(route, wanted)))
    return network


def check_families(network: Network) -> None:
    """Raises: NetworkError for a network with IPv6 on a kernel without."""
    if network.subnets6 and not host.has_ipv6():
        raise NetworkError(
            f"network {network.name!r} cannot have {network.subnet6}: this kernel has no IPv6",
            "a network without IPv6; or `cat /proc/cmdline`, where ipv6.disable=1 switches it off",
        )


def _bridge_name(route: Any, network: Network) -> str:
    if network.driver != "bridge":
        return ""
    given = network.options.get("com.docker.network.bridge.name", "")
    if not given:
        return f"pyr{network.id[:8]}"
    plain = given.isascii() and given.replace("-", "a").replace("_", "a").isalnum()
    if given[:-1] == DEFAULT_BRIDGE[:-1] and given[-1] in ("0", *tags.LETTERS):
        raise UsageError(f"bridge name {given!r}: is that of the default network", "choose another")
    if not (plain and given.startswith("pyr") and len(given) <= 11):
        raise UsageError(
            f"bridge name {given!r:.60}: must begin with pyr and have at most 11 letters, digits, - and _",
            "the rules of other firewalls are passed by that beginning",
        )
    for other in records.known():
        if other.bridge == given:
            raise Conflict(
                f"bridge name {given!r}: is that of network {other.name}",
                "choose another, or leave it out",
            )
    if route.link_lookup(ifname=given):
        raise Conflict(
            f"bridge name {given!r}: there is a link of that name", f"`ip link show {shell_word(given)}`"
        )
    return given


def _subnets(route: Any, wanted: Wanted) -> tuple[list[str], list[str], list[str]]:
    """The subnets asked for, or free ones; with the gateways and ranges that were told with them."""
    asked = [subnet(text) for text in wanted.subnets]
    for option, given in (("--gateway", wanted.gateways), ("--ip-range", wanted.ranges)):
        if given and not asked:
            raise UsageError(
                f"{option} {given[0]!s:.60}: --subnet is missing", "--subnet=CIDR, of which it is a part"
            )
    everyone = records.known()
    # On a card the subnet is the segment's, where this host has its own address.
    on_a_card = wanted.driver != "bridge"
    taken = [] if on_a_card else subnets.taken(route, everyone)
    refuse_twice(asked)
    refuse_overlaps(asked, taken, everyone)
    chosen = [str(subnet) for subnet in asked]
    if on_a_card:  # there nothing is invented: nobody would be the gateway
        return chosen, wanted.gateways, wanted.ranges
    if not any(subnet.version == 4 for subnet in asked):
        chosen.insert(0, str(subnets.choose_small(taken)))
    if wanted.ipv6 and not any(subnet.version == 6 for subnet in asked):
        chosen.append(str(subnets.choose6([*taken, *asked])))
    return chosen, wanted.gateways, wanted.ranges


def _told(chosen: list[str], gateways: list[str], ranges: list[str]) -> tuple[list[Pool], list[Pool]]:
    """The subnets of either family; each gateway and range goes to the subnet it is in. Raises UsageError."""
    pools = [described(subnet, str(subnet[1])) for subnet in map(ip_network, chosen)]
    for given, option in ((gateways, "--gateway"), (ranges, "--ip-range")):
        had: list[Pool] = []
        for text in given:
            pool = _home(pools, text, option)
            if pool in had:
                raise UsageError(
                    f"{option} {text}: the subnet {pool.subnet} has one already", "one for each --subnet"
                )
            had.append(pool)
            if option == "--gateway":
                pool.gateway = text
                continue
            pool.range = text
            if not _hosts(pool):
                raise UsageError(
                    f"{option} {text}: has no address for a container", "a larger part of the subnet"
                )
    six = [pool for pool in pools if ":" in pool.subnet]
    return [pool for pool in pools if pool not in six], six


def described(subnet: Subnet, gateway: str) -> Pool:
    """A subnet as network.json has it, without a range for containers."""
    last = str(subnet.broadcast_address) if subnet.version == 4 else ""
    return Pool(str(subnet), gateway, subnet.prefixlen, last)


def _hosts(pool: Pool) -> int:
    """How many addresses of its range containers can have."""
    subnet, within = ip_network(pool.subnet), ip_network(pool.range)
    nobody = {subnet[0], subnet[-1], ip_address(pool.gateway)}
    return within.num_addresses - sum(each in within for each in nobody)


def _home(pools: list[Pool], text: str, option: str) -> Pool:
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
    for each in pools:
        outer = ip_network(each.subnet)
        if inner[0] in outer and inner.prefixlen >= outer.prefixlen:
            if option == "--gateway" and inner[0] in (outer[0], outer[-1] if outer.version == 4 else None):
                raise UsageError(
                    f"--gateway {text}: is an end of the subnet {outer}",
                    f"an address in between, such as {outer[1]}",
                )
            return each
    subnets_told = " ".join(each.subnet for each in pools) or "none"
    raise UsageError(
        f"{option} {text}: in no subnet of the network ({subnets_told})",
        "an address of one of them" if option == "--gateway" else "a part of one of them",
    )


def check_address(name: str, address: str, told: str) -> Pool:
    """The subnet of *address*, which is outside the first one of its family. Raises UsageError, NotFound."""
    every = subnets_of(name, "") + subnets_of(name, "6")
    for each in every:
        subnet = ip_network(each.subnet)
        if ip_address(address) in subnet:
            ends = (str(subnet[0]), str(subnet[-1]) if subnet.version == 4 else "")
            if address in (each.gateway, *ends):
                raise UsageError(
                    f"{told}: no address of a container",
                    f"one between the ends of {subnet} that is not {each.gateway}",
                )
            return each
    raise UsageError(
        f"{told}: not in network {name}", f"its subnets: {', '.join(each.subnet for each in every)}"
    )


def subnets_of(name: str, six: str) -> list[Pool]:
    """Every subnet of a family; six: "" or "6". Raises NotFound."""
    network = records.load(name) or records.definition(name)
    if network is None:
        raise unknown(name)
    return network.subnets6 if six else network.subnets4


def built_in() -> tuple[str, ...]:
    """The networks that are there without being made, of whoever asks; root's first one is made when it is wanted."""
    return (DEFAULT, "host", "none") if boot.rootless_uid() < 0 else requests.ALONE


def unknown(name: str) -> NotFound:
    """The error about a network nobody made, with those there are."""
    names = sorted({*built_in(), *[network.name for network in records.known()]})
    return NotFound(f"no such network: {name}", f"there are {', '.join(names)}")


def _subnet_in_place(route: Any) -> IPv4Network | None:
    """The subnet of a bridge that outlived its files, so that containers on it stay reachable."""
    for link in route.link_lookup(ifname=tags.default_bridge()):
        for message in route.get_addr(family=socket.AF_INET, index=link):
            return IPv4Network(f"{message.get_attr('IFA_LOCAL')}/{message['prefixlen']}", strict=False)
    return None


def _uplink_mtu(route: Any) -> int:
    for message in route.get_default_routes(family=socket.AF_INET, table=254):
        index = message.get_attr("RTA_OIF")
        if index:
            return int(route.get_links(index)[0].get_attr("IFLA_MTU"))
    return _DEFAULT_MTU


# ── subnets that are asked for ─────────────────────────────────────────────────────────────────────


# This host, one's own segment, everybody at once, reserved, IPv4 in disguise. Source: RFC 6890.
_NEVER = [
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
        *("::/8", "fe80::/10", "ff00::/8"),
    )
]


def subnet(text: str) -> Subnet:
    """What --subnet says. Raises UsageError."""
    try:
        subnet = ip_network(text)
    except ValueError:
        raise UsageError(
            f"--subnet {text!r:.60}: no subnet", "an address and a length, the rest zero: 10.1.0.0/24"
        ) from None
    if subnet.prefixlen > subnet.max_prefixlen - 2 or "/" not in text:
        raise UsageError(
            f"--subnet {text}: has no room for a gateway and a container",
            "a larger one: /30 at least for IPv4, /126 for IPv6",
        )
    if any(subnet.version == never.version and subnet.overlaps(never) for never in _NEVER):
        raise UsageError(
            f"--subnet {text}: is no range containers can have",
            "a private one: 10.1.0.0/24, 192.168.5.0/24, fd00:1::/64",
        )
    return subnet


def refuse_twice(asked: list[Subnet]) -> None:
    """Raises UsageError when two of them have addresses in common."""
    for number, subnet in enumerate(asked):
        for other in asked[:number]:
            if subnet.version == other.version and subnet.overlaps(other):
                raise UsageError(
                    f"--subnet {subnet}: overlaps the other --subnet {other}",
                    "make them apart, or leave one out",
                )


def refuse_overlaps(asked: list[Subnet], taken: list[Subnet], networks: list[Network]) -> None:
    """Raises Conflict when one has addresses of this host or of another network."""
    for subnet in asked:
        for other in taken:
            if subnet.version == other.version and subnet.overlaps(other):
                owner = [each.name for each in networks if str(other) in _texts(each)]
                whose = (
                    f"network {owner[0]}" if owner else "a route, an address or a name server of this host"
                )
                six = "-6 " if subnet.version == 6 else ""
                raise Conflict(
                    f"--subnet {subnet}: overlaps {other} of {whose}", f"see `ip {six}route show table all`"
                )
    for network in networks:
        for text in _texts(network):
            for subnet in asked:
                other6 = ip_network(text)
                if subnet.version == other6.version and subnet.overlaps(other6):
                    raise Conflict(
                        f"--subnet {subnet}: overlaps {text} of network {network.name}",
                        "choose another, or leave it out: a free one is taken",
                    )


def _texts(network: Network) -> list[str]:
    return [each.subnet for each in network.pools()]
