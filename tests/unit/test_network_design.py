"""What a network is going to be: network/design.py, on a host that is only told about."""

from __future__ import annotations

import ipaddress
import posix
import socket
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import Conflict, NetworkError, NotFound, UsageError
from pyrun.network import design, records, requests, resolver, subnets


class Message(dict[str, Any]):
    """As pyroute2 has one."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)


class Host:
    """What design asks of pyroute2's IPRoute, answered from lists."""

    def __init__(self, routes: tuple[str, ...] = (), addresses: tuple[str, ...] = (), mtu: int = 0) -> None:
        self.routes, self.addresses, self.mtu = routes, addresses, mtu

    def get_routes(self, family: int) -> list[Message]:
        split = [route.removeprefix("unreachable ").split("/") for route in self.routes]
        kinds = [7 if route.startswith("unreachable ") else 1 for route in self.routes]
        return [
            Message(RTA_DST=address, dst_len=int(length), type=kind)
            for (address, length), kind in zip(split, kinds, strict=True)
            if (":" in address) == (family == socket.AF_INET6)
        ]

    def get_addr(self, family: int, index: int = 0) -> list[Message]:
        six = family == socket.AF_INET6
        split = [address.split("/") for address in self.addresses if (":" in address) == six]
        return [
            Message(IFA_ADDRESS=address, IFA_LOCAL=address, prefixlen=int(length))
            for address, length in split
        ]

    def link_lookup(self, ifname: str) -> list[int]:
        return [7] if self.addresses and ifname == "pyrun0" else []

    def get_default_routes(self, family: int, table: int) -> list[Message]:
        return [Message(RTA_OIF=2)] if self.mtu else []

    def get_links(self, index: int) -> list[Message]:
        return [Message(IFLA_MTU=self.mtu)]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty directories, and a host without name servers."""
    monkeypatch.setitem(posix.environ, b"PYRUN_ROOT", str(tmp_path / "root").encode())
    monkeypatch.setitem(posix.environ, b"PYRUN_RUNROOT", str(tmp_path / "run").encode())
    monkeypatch.setattr(resolver, "HOST_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(resolver, "BEHIND_STUB", str(tmp_path / "none"))
    return tmp_path


def defined(name: str = "front", host: Host | None = None, **asked: Any) -> records.Network:
    wanted = design.Wanted(name)
    for key, value in asked.items():
        setattr(wanted, key, value)
    return design.defined(host or Host(), wanted)


# ── what is chosen ─────────────────────────────────────────────────────────────────────────────────


def test_a_network_without_wishes() -> None:
    network = defined()
    assert network.bridge == f"pyr{network.id[:8]}"
    assert (network.subnet, network.gateway, network.prefix) == (
        "192.168.128.0/24",
        "192.168.128.1",
        24,
    )
    assert network.broadcast == "192.168.128.255"
    assert (network.subnet6, network.subnets6, network.ipv6) == ("", [], False)
    assert set(network.record()) == set(records.Network().record())


def test_networks_get_subnets_of_their_own() -> None:
    found = []
    for number in range(5):
        network = defined(f"n{number}", ipv6=True)
        records.define(network)
        found.append((network.subnet, network.subnet6))
    assert len({four for four, _ in found}) == len({six for _, six in found}) == 5
    of_host = {ipaddress.ip_network(six).supernet(new_prefix=48) for _, six in found}
    assert len(of_host) == 1, "one /48 of this host"
    assert found[0][1].startswith("fd") and found[0][1].endswith("::/64")


def test_a_subnet_in_the_way_of_a_route_is_not_chosen() -> None:
    host = Host(routes=("192.168.128.0/25", "192.168.129.7/32", "0.0.0.0/1", "128.0.0.0/1"))
    assert defined(host=host).subnet == "192.168.130.0/24"


def test_gateways_and_ranges_go_to_their_subnets() -> None:
    network = defined(
        subnets=["10.1.0.0/24", "10.2.0.0/24", "fd00:1::/64"],
        gateways=["fd00:1::f", "10.2.0.254"],
        ranges=["10.1.0.64/26", "fd00:1::1:0/112"],
        ipv6=True,
    )
    one, two = network.subnets4
    assert (one.gateway, one.range) == ("10.1.0.1", "10.1.0.64/26")
    assert (two.gateway, two.range, two.broadcast) == ("10.2.0.254", "", "10.2.0.255")
    assert [each.gateway for each in network.subnets6] == ["fd00:1::f"]
    assert (network.gateway, network.gateway6, network.range6) == (
        "10.1.0.1",
        "fd00:1::f",
        "fd00:1::1:0/112",
    )


def test_an_ipv6_subnet_is_enough_to_want_ipv6() -> None:
    network = defined(subnets=["fd00:1::/64"])
    assert network.ipv6 and network.subnet6 == "fd00:1::/64"
    assert network.subnet == "192.168.128.0/24", "and IPv4 beside it"


def test_other_drivers_choose_nothing() -> None:
    for driver in ("macvlan", "ipvlan", "none"):
        network = defined(driver=driver, parent="eth0")
        assert (network.bridge, network.subnet, network.subnets4) == ("", "", [])
    # the subnet is the segment's, where this host has its address
    card = defined(
        driver="macvlan",
        parent="eth0",
        subnets=["198.51.100.0/24"],
        host=Host(addresses=("198.51.100.2/24",)),
    )
    assert card.gateway == "198.51.100.1"


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan", "none"])
def test_on_a_card_no_subnet_is_invented(driver: str) -> None:
    """Its gateway would be nobody: an IPv6 segment is no reason for an IPv4 one, nor the other way round."""
    six = defined(driver=driver, parent="eth0", subnets=["2001:db8::/64"])
    assert (six.subnets4, six.subnet, six.subnet6) == ([], "", "2001:db8::/64")
    four = defined(driver=driver, parent="eth0", subnets=["198.51.100.0/24"], ipv6=True)
    assert (four.subnets6, four.subnet, four.ipv6) == ([], "198.51.100.0/24", False)


def test_the_mtu_is_the_uplinks_unless_chosen() -> None:
    for name, asked, expected in (("a", 0, 1400), ("b", 1300, 1300)):
        records.define(defined(name, mtu=asked))
        assert design.designed(Host(mtu=1400), name).mtu == expected
    assert design.designed(Host(), "a").mtu == 1500, "a host without a default route"


def test_the_default_network_needs_no_definition() -> None:
    network = design.designed(Host(mtu=1400), "bridge")
    assert (network.bridge, network.subnet, network.mtu) == ("pyrun0", "10.77.0.0/16", 1400)
    assert design.designed(Host(routes=("10.77.4.0/24",)), "bridge").subnet == "10.78.0.0/16"
    outlived = design.designed(Host(addresses=("10.80.0.1/16",)), "bridge")
    assert outlived.subnet == "10.80.0.0/16", "a bridge that outlived its files keeps its subnet"


def test_a_network_nobody_made() -> None:
    records.define(defined("front"))
    with pytest.raises(NotFound, match="no such network: back") as caught:
        design.designed(Host(), "back")
    assert caught.value.hint == "there are bridge, front, host, none"


@pytest.mark.parametrize(
    ("obstacles", "chosen"),
    [
        ([], "10.77.0.0/16"),
        (["10.77.8.0/24"], "10.78.0.0/16"),
        (["10.0.0.0/8"], "172.30.0.0/16"),
        (["10.0.0.0/8", "172.16.0.0/12"], "192.168.240.0/20"),
        (["10.77.0.1/32", "10.78.0.0/15"], "10.80.0.0/16"),
    ],
)
def test_the_subnet_is_in_nobodys_way(obstacles: list[str], chosen: str) -> None:
    assert subnets.choose(map(ipaddress.IPv4Network, obstacles)) == ipaddress.IPv4Network(chosen)


def test_no_subnet_left() -> None:
    everything = map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
    with pytest.raises(NetworkError, match="no private subnet is free"):
        subnets.choose(everything)


# ── what is refused, in one line ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"name": "-x"}, "network create '-x' is no name of a network"),
        ({"name": "a/b"}, "network create 'a/b' is no name of a network"),
        ({"name": "a" * 129}, "is no name of a network"),
        *[({"name": name}, f"network create {name}: the name is pyrun's own")
          for name in (*requests.RESERVED, "bridge", "policies", "events")],
        ({"driver": "overlay"}, "--driver overlay: no such driver"),
        ({"mtu": 67}, "--mtu 67: must be 68 to 65535"),
        ({"mtu": 65536}, "--mtu 65536: must be 68 to 65535"),
        ({"mtu": 1279, "ipv6": True}, "--mtu 1279: must be 68 to 65535, with IPv6 at least 1280"),
        ({"mtu": 1279, "subnets": ["fd00:1::/64"]}, "--mtu 1279: must be 68 to 65535, with IPv6 at least 1280"),
        ({"mtu": -1}, "--mtu -1: must be"),
        ({"options": {"com.docker.network.bridge.name": "br0"}}, "bridge name 'br0': must begin with pyr"),
        ({"options": {"com.docker.network.bridge.name": "pyr" + "x" * 11}}, "at most 11 letters"),
        ({"options": {"com.docker.network.bridge.name": "pyr/../x"}}, "bridge name 'pyr/../x'"),
        ({"options": {"com.docker.network.bridge.name": "pyrun0"}}, "'pyrun0': is that of the default network"),
        ({"mtu": 67, "mtu_told": "-o com.docker.network.driver.mtu"}, "-o com.docker.network.driver.mtu 67: must be"),
        ({"options": {"com.docker.network.bridge.name": "pyvx"}}, "bridge name 'pyvx'"),
        # subnets
        ({"subnets": ["x"]}, "--subnet 'x': no subnet"),
        ({"subnets": ["10.1.0.5/24"]}, "--subnet '10.1.0.5/24': no subnet"),
        ({"subnets": ["10.1.0.0/33"]}, "--subnet '10.1.0.0/33': no subnet"),
        ({"subnets": ["10.1.0.0"]}, "--subnet 10.1.0.0: has no room"),
        ({"subnets": ["10.1.0.0/31"]}, "--subnet 10.1.0.0/31: has no room for a gateway and a container"),
        ({"subnets": ["fd00::/127"]}, "--subnet fd00::/127: has no room"),
        ({"subnets": ["127.0.0.0/24"]}, "--subnet 127.0.0.0/24: is no range containers can have"),
        ({"subnets": ["224.0.0.0/24"]}, "is no range containers can have"),
        ({"subnets": ["ff00::/64"]}, "is no range containers can have"),
        ({"subnets": ["fe80::/64"]}, "--subnet fe80::/64: is no range containers can have"),
        ({"subnets": ["169.254.0.0/16"]}, "--subnet 169.254.0.0/16: is no range containers can have"),
        ({"subnets": ["0.0.0.0/0"]}, "--subnet 0.0.0.0/0: is no range containers can have"),
        ({"subnets": ["0.0.0.0/8"]}, "--subnet 0.0.0.0/8: is no range containers can have"),
        ({"subnets": ["255.255.255.0/24"]}, "--subnet 255.255.255.0/24: is no range containers can have"),
        ({"subnets": ["::/0"]}, "--subnet ::/0: is no range containers can have"),
        ({"subnets": ["::ffff:10.1.0.0/112"]}, "is no range containers can have"),
        # gateways and ranges
        ({"subnets": ["10.1.0.0/24"], "gateways": ["10.9.0.1"]},
         "--gateway 10.9.0.1: in no subnet of the network (10.1.0.0/24)"),
        ({"subnets": ["10.1.0.0/24"], "gateways": ["x"]}, "--gateway 'x': no address"),
        ({"subnets": ["10.1.0.0/24"], "gateways": ["10.1.0.0"]}, "--gateway 10.1.0.0: is an end of the subnet"),
        ({"subnets": ["10.1.0.0/24"], "gateways": ["10.1.0.255"]}, "is an end of the subnet"),
        ({"subnets": ["fd00:1::/64"], "gateways": ["fd00:1::"]}, "--gateway fd00:1::: is an end of the subnet"),
        ({"subnets": ["10.1.0.0/24"], "gateways": ["10.1.0.1", "10.1.0.2"]},
         "--gateway 10.1.0.2: the subnet 10.1.0.0/24 has one already"),
        ({"subnets": ["10.1.0.0/24"], "ranges": ["10.2.0.0/25"]}, "--ip-range 10.2.0.0/25: in no subnet"),
        ({"subnets": ["10.1.0.0/24"], "ranges": ["10.1.0.0/16"]}, "--ip-range 10.1.0.0/16: in no subnet"),
        ({"subnets": ["10.1.0.0/24"], "ranges": ["10.1.0.7/24"]}, "--ip-range '10.1.0.7/24': no range"),
        ({"subnets": ["10.1.0.0/24"], "ranges": ["10.1.0.0/25", "10.1.0.128/25"]},
         "--ip-range 10.1.0.128/25: the subnet 10.1.0.0/24 has one already"),
        ({"subnets": ["10.1.0.0/24"], "ranges": ["10.1.0.1/32"]}, "--ip-range 10.1.0.1/32: has no address"),
        ({"subnets": ["10.1.0.0/24"], "ranges": ["10.1.0.255/32"]}, "--ip-range 10.1.0.255/32: has no address"),
    ],
)  # fmt: skip
def test_a_definition_that_is_refused(asked: dict[str, Any], named: str, store: Path) -> None:
    with pytest.raises((UsageError, Conflict)) as caught:
        defined(**{"name": "front", **asked})
    assert named in caught.value.message
    assert "\n" not in caught.value.message
    assert not list((store / "root").rglob("*.json")), "nothing is written"


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (["10.1.0.0/24", "10.1.0.0/25"], "--subnet 10.1.0.0/25: overlaps the other --subnet 10.1.0.0/24"),
        (["fd00:1::/64", "fd00:1::/48"], "--subnet fd00:1::/48: overlaps the other --subnet fd00:1::/64"),
    ],
)
def test_subnets_in_each_others_way_are_the_users_own(asked: list[str], named: str) -> None:
    """An error of usage: no route of this host is to blame, though one be in the way as well."""
    with pytest.raises(UsageError) as caught:
        defined(subnets=asked, host=Host(routes=("10.1.0.0/16",)) if "." in asked[0] else None)
    assert caught.value.message == named


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"gateways": ["10.9.0.1"]}, "--gateway 10.9.0.1: --subnet is missing"),
        ({"gateways": ["192.168.128.1"]}, "--gateway 192.168.128.1: --subnet is missing"),
        ({"ranges": ["10.9.0.0/25"]}, "--ip-range 10.9.0.0/25: --subnet is missing"),
        ({"ranges": ["10.9.0.0/25"], "driver": "macvlan", "parent": "eth0"}, "--subnet is missing"),
    ],
)
def test_a_part_of_no_subnet(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        defined(**asked)
    assert named in caught.value.message


def test_names_and_subnets_of_others() -> None:
    records.define(defined("front", subnets=["10.1.0.0/24", "fd00:1::/64"]))
    with pytest.raises(Conflict, match="network front exists"):
        defined("front")
    for text in ("10.1.0.0/24", "10.1.0.0/16", "10.1.0.128/25", "fd00:1::/64", "fd00:1::/32"):
        with pytest.raises(Conflict, match=f"--subnet {text}: overlaps .* of network front"):
            defined("back", subnets=[text])
    with pytest.raises(
        Conflict, match=r"--subnet 10\.3\.0\.0/24: overlaps 10\.3\.0\.0/16 of a route, an address"
    ):
        defined("back", subnets=["10.3.0.0/24"], host=Host(routes=("10.3.0.0/16",)))
    with pytest.raises(
        Conflict, match=r"overlaps 198\.51\.100\.0/24 of a route, an address or a name server"
    ):
        defined("back", subnets=["198.51.100.0/25"], host=Host(addresses=("198.51.100.2/24",)))
    with pytest.raises(Conflict, match="exists"):
        records.define(records.Network("front"))


@pytest.mark.parametrize(
    ("asked", "host"),
    [
        ("2001:db8::/64", Host(addresses=("2001:db8::7/64",))),
        ("2001:db8::/80", Host(addresses=("2001:db8::7/64",))),
        ("2001:db8::/48", Host(routes=("2001:db8:0:7::/64",))),
        ("fd00:1::/64", Host(routes=("fd00::/8",))),
    ],
)
def test_an_ipv6_subnet_in_the_way_of_this_hosts_own(asked: str, host: Host) -> None:
    with pytest.raises(
        Conflict, match=f"--subnet {asked}: overlaps .* of a route, an address or a name server"
    ):
        defined(subnets=[asked], host=host)


def test_an_ipv6_name_server_is_in_nobodys_subnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver fe80::1%eth0\nnameserver 2001:db8::53\nnameserver nobody\n")
    monkeypatch.setattr(resolver, "HOST_FILE", str(file))
    with pytest.raises(Conflict, match="overlaps 2001:db8::53/128 of a route, an address or a name server"):
        defined(subnets=["2001:db8::/64"])


def test_routes_for_everything_and_for_the_rest_of_a_prefix_are_in_nobodys_way() -> None:
    host = Host(routes=("2000::/3", "::/1", "8000::/1", "unreachable 2001:db8::/32", "unreachable fc00::/7"))
    assert defined(subnets=["2001:db8:7::/64"], host=host).subnet6 == "2001:db8:7::/64"
    assert defined(ipv6=True, host=host).subnet6.startswith("fd")


def test_a_chosen_ipv6_subnet_keeps_clear_of_wider_and_narrower_ones() -> None:
    first = ipaddress.IPv6Network(defined(ipv6=True).subnet6)
    assert first.network_address.packed[6:8] == b"\0\0"
    wide = first.supernet(new_prefix=56)
    records.define(defined("wide", subnets=[str(wide)]))
    found = ipaddress.IPv6Network(defined("next", ipv6=True).subnet6)
    assert not found.overlaps(wide) and found.network_address.packed[6:8] == b"\1\0"
    host = Host(routes=(f"{found[7]}/128", "fd00::/8"))
    assert defined("after", ipv6=True, host=host).subnet6 != str(found), "fd00::/8 leads elsewhere"


def test_no_subnet_is_left() -> None:
    with pytest.raises(NetworkError, match="no private /24 is free"):
        defined(host=Host(routes=("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


def test_two_networks_want_the_same_bridge() -> None:
    records.define(defined("front", options={"com.docker.network.bridge.name": "pyrfront"}))
    with pytest.raises(Conflict, match="bridge name 'pyrfront': is that of network front"):
        defined("back", options={"com.docker.network.bridge.name": "pyrfront"})


# ── addresses asked for ────────────────────────────────────────────────────────────────────────────


def test_an_address_of_a_further_subnet() -> None:
    records.define(defined("front", subnets=["10.1.0.0/24", "10.2.0.0/24", "fd00:1::/64"]))
    assert design.check_address("front", "10.2.0.9", "--ip 10.2.0.9").gateway == "10.2.0.1"
    for address in ("10.2.0.1", "10.2.0.0", "10.2.0.255", "fd00:1::"):
        with pytest.raises(UsageError, match=f"--ip {address}: no address of a container"):
            design.check_address("front", address, f"--ip {address}")
    with pytest.raises(UsageError, match=r"--ip 10\.3\.0\.9: not in network front") as caught:
        design.check_address("front", "10.3.0.9", "--ip 10.3.0.9")
    assert caught.value.hint == "its subnets: 10.1.0.0/24, 10.2.0.0/24, fd00:1::/64"
    with pytest.raises(NotFound):
        design.check_address("back", "10.3.0.9", "--ip 10.3.0.9")
