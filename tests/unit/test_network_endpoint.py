"""One interface of one container: its addresses, its operations, its undo lines (network/endpoint.py)."""

from __future__ import annotations

import posix
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import Conflict, NetworkError, UsageError
from pyrun.network import claims, disconnecting, endpoint, leases, messages, records, requests
from pyrun.network.publishing import publication

IDENTIFIER = "ab" * 32


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(posix.environ, b"PYRUN_RUNROOT", str(tmp_path / "run").encode())
    monkeypatch.setitem(posix.environ, b"PYRUN_ROOT", str(tmp_path / "root").encode())
    return tmp_path / "run"


def subnet(text: str, within: str = "") -> records.Pool:
    from ipaddress import ip_network

    net = ip_network(text)
    last = str(net[-1]) if net.version == 4 else ""
    return records.Pool(text, str(net[1]), net.prefixlen, last, within)


def network(name: str, *subnets: records.Pool) -> messages.Template:
    """A network as built, with its directory of leases; its template."""
    from pyrun.network import templates

    built = records.Network(name)
    built.bridge, built.index = f"pyr{name}", 9
    built.has(
        [each for each in subnets if ":" not in each.subnet], [each for each in subnets if ":" in each.subnet]
    )
    records.save(built)
    Path(leases.path(name, "x")).parent.mkdir()
    return templates.parsed(built)


def wanted(name: str, **given: Any) -> requests.Endpoint:
    asked = requests.Endpoint(name)
    for key, value in given.items():
        setattr(asked, key, value)
    return asked


def claim(asked: requests.Endpoint, template: messages.Template, number: int = 0) -> endpoint.Wire:
    record = claims.write_record(claims.owner(f"{number:x}" * 64), ["name web"])
    taken: list[str] = []
    try:
        wire = endpoint.claim(asked, template, IDENTIFIER, number, f"eth{number}", record, taken)
    finally:
        claims.forget(record)
    claimed = [leases.path(asked.network, address) for address in wire.addresses()]
    assert taken == [*claimed, *([leases.mac_path(asked.network, asked.mac)] if asked.mac else [])]
    assert all(Path(path).exists() for path in taken)
    return wire


# ── addresses ──────────────────────────────────────────────────────────────────────────────────────


def test_both_families_are_leased_together() -> None:
    template = network("front", subnet("10.1.0.0/24"), subnet("fd00:1::/64"))
    looked = endpoint.look(wanted("front"), template, IDENTIFIER, 0, "eth0")
    wire = claim(wanted("front", aliases=("db",)), template)
    assert (wire.address, wire.prefix, wire.gateway) == ("10.1.0.2", 24, "10.1.0.1")
    assert (wire.address6, wire.prefix6, wire.gateway6) == ("fd00:1::a01:2", 64, "fd00:1::1")
    assert (wire.mac, wire.link, wire.ifname) == (
        "02:42:0a:01:00:02",
        f"pyv{IDENTIFIER[:12]}",
        "eth0",
    )
    assert wire.aliases == ["db"]
    assert {**looked.record(), "aliases": ["db"]} == wire.record(), "a dry run tells the same"


def test_a_chosen_mac_is_derived_for_nobody() -> None:
    """Whose lease it would come from is stepped over, whether chosen before or found to be chosen meanwhile."""
    template = network("front", subnet("10.1.0.0/24"))
    claim(wanted("front", mac="02:42:0a:01:00:04"), template, 1)
    assert [claim(wanted("front"), template, number).address for number in (2, 3)] == [
        "10.1.0.3",
        "10.1.0.5",
    ]
    assert not Path(leases.path("front", "10.1.0.4")).exists()
    with pytest.raises(
        Conflict, match="its MAC address 02:42:0a:01:00:04 is that of container web on network front"
    ):
        claim(wanted("front", ip="10.1.0.4"), template, 4)
    with pytest.raises(Conflict, match="02:42:0a:01:00:05 is that of container web on network front"):
        claim(wanted("front", mac="02:42:0a:01:00:05"), template, 5)
    assert not Path(leases.mac_path("front", "02:42:0a:01:00:05")).exists()


def test_the_claim_of_a_mac_that_was_left_behind_is_in_nobodys_way() -> None:
    template = network("front", subnet("10.1.0.0/24"))
    path = Path(leases.mac_path("front", "02:42:0a:01:00:02"))
    path.parent.mkdir()
    path.write_text(f"{'d' * 64} 4194304 1\n")
    assert claim(wanted("front"), template).address == "10.1.0.2" and not path.exists()


def test_of_ipv6_alone_many_addresses_have_one_mac() -> None:
    template = network("six", subnet("fd00:1::/64"))
    record = claims.write_record(claims.owner("1" * 64), ["name web"])
    taken: list[str] = []
    wire = endpoint.claim(wanted("six", ip6="fd00:1::1:0:2"), template, IDENTIFIER, 0, "eth0", record, taken)
    assert taken[1:] == [leases.mac_path("six", "02:42:00:00:00:02")] and wire.mac == "02:42:00:00:00:02"
    assert f"unlink-if\t{taken[1]}\towner" in endpoint.undo(wire, template, "owner")
    claims.forget(record)
    assert claim(wanted("six"), template, 2).address6 == "fd00:1::3", "::2 would have the same"
    with pytest.raises(Conflict, match="02:42:00:00:00:03 is that of container web"):
        claim(wanted("six", ip6="fd00:1::1:0:3"), template, 3)


def test_of_ipv6_alone() -> None:
    template = network("six", subnet("fd00:1::/64"))
    wire = claim(wanted("six"), template)
    assert (wire.address, wire.gateway, wire.prefix) == ("", "", 0)
    assert (wire.address6, wire.mac) == ("fd00:1::2", "02:42:00:00:00:02")


def test_what_is_asked_for_is_had() -> None:
    template = network("front", subnet("10.1.0.0/24"), subnet("fd00:1::/64"))
    asked = wanted("front", ip="10.1.0.9", ip6="fd00:1::9", mac="02:00:00:00:00:99")
    endpoint.check(asked, template)
    wire = claim(asked, template)
    assert (wire.address, wire.address6, wire.mac) == ("10.1.0.9", "fd00:1::9", "02:00:00:00:00:99")
    with pytest.raises(Conflict, match=r"10\.1\.0\.9 of network front is held by container web"):
        claim(asked, template, 1)


def test_when_the_first_subnet_is_full_the_next_one_gives() -> None:
    template = network(
        "front", subnet("10.1.0.0/30"), subnet("10.2.0.0/29"), subnet("fd00:1::/126"), subnet("fd00:2::/64")
    )
    first, second = claim(wanted("front"), template), claim(wanted("front"), template, 1)
    assert (first.address, first.gateway) == ("10.1.0.2", "10.1.0.1")
    assert (second.address, second.prefix, second.gateway) == ("10.2.0.2", 29, "10.2.0.1")
    assert (first.address6, first.gateway6) == ("fd00:1::2", "fd00:1::1")
    assert (second.address6, second.prefix6, second.gateway6) == ("fd00:2::2", 64, "fd00:2::1")
    for number in range(2, 6):
        claim(wanted("front"), template, number)
    with pytest.raises(NetworkError, match="network 'front' has no free address left"):
        claim(wanted("front"), template, 6)


def test_a_static_address_of_a_further_subnet_has_its_gateway() -> None:
    template = network("front", subnet("10.1.0.0/24"), subnet("10.2.0.0/16"), subnet("fd00:1::/64"))
    wire = claim(wanted("front", ip="10.2.3.4"), template)
    assert (wire.address, wire.prefix, wire.gateway) == ("10.2.3.4", 16, "10.2.0.1")
    assert wire.address6 == "fd00:1::a02:304"


def test_ranges_hold_for_both_families() -> None:
    template = network(
        "front", subnet("10.1.0.0/24", "10.1.0.64/26"), subnet("fd00:1::/64", "fd00:1::5:0:0/96")
    )
    looked = endpoint.look(wanted("front"), template, IDENTIFIER, 0, "eth0")
    wire = claim(wanted("front"), template)
    assert (wire.address, wire.address6) == ("10.1.0.64", "fd00:1::5:a01:40")
    assert (looked.address, looked.address6) == (wire.address, wire.address6)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"ip": "10.1.0.1"}, "--ip 10.1.0.1: that is the gateway of network front"),
        ({"ip": "10.1.0.0"}, "--ip 10.1.0.0: that is an end of the subnet"),
        ({"ip": "10.1.0.255"}, "--ip 10.1.0.255: that is an end of the subnet"),
        ({"ip": "10.9.0.1"}, "--ip 10.9.0.1: not in network front"),
        ({"ip6": "fd00:1::1"}, "--ip6 fd00:1::1: that is the gateway of network front"),
        ({"ip6": "fd00:1::"}, "--ip6 fd00:1::: that is an end of the subnet"),
        ({"ip6": "fd00:9::1"}, "--ip6 fd00:9::1: not in network front"),
    ],
)
def test_an_address_nobody_can_have_there(asked: dict[str, str], named: str) -> None:
    template = network("front", subnet("10.1.0.0/24"), subnet("fd00:1::/64"))
    with pytest.raises(UsageError) as caught:
        endpoint.check(wanted("front", **asked), template)
    assert caught.value.message.startswith(named)


def test_a_family_the_network_has_not() -> None:
    four, six = network("four", subnet("10.1.0.0/24")), network("six", subnet("fd00:1::/64"))
    with pytest.raises(UsageError, match="--ip6 fd00:1::9: network four has no IPv6"):
        endpoint.check(wanted("four", ip6="fd00:1::9"), four)
    with pytest.raises(UsageError, match=r"--ip 10\.1\.0\.9: network six has no IPv4"):
        endpoint.check(wanted("six", ip="10.1.0.9"), six)


# ── the default route ──────────────────────────────────────────────────────────────────────────────


def wire(
    name: str, priority: int = 0, *, internal: bool = False, six: bool = False, four: bool = True
) -> endpoint.Wire:
    made = endpoint.Wire(name)
    made.gw_priority, made.internal = priority, internal
    if four:
        made.give(False, "10.1.0.2", 24, "10.1.0.1")
    if six:
        made.give(True, "fd00::2", 64, "fd00::1")
    return made


@pytest.mark.parametrize(
    ("wires", "four", "six"),
    [
        ([], None, None),
        ([wire("a")], "a", None),
        ([wire("a"), wire("b")], "a", None),
        ([wire("a"), wire("b", 1)], "b", None),
        ([wire("a", -1), wire("b"), wire("c")], "b", None),
        ([wire("a", 5), wire("b", 5)], "a", None),
        ([wire("a", 9, internal=True), wire("b")], "b", None),
        ([wire("a", internal=True)], None, None),
        ([wire("a"), wire("b", six=True)], "a", "b"),
        ([wire("a", six=True), wire("b", 1)], "b", "a"),
        ([wire("a", six=True, four=False), wire("b")], "b", "a"),
    ],
)
def test_where_the_default_routes_go(wires: list[Any], four: str | None, six: str | None) -> None:
    chosen = [endpoint.first_for(wires, is_six) for is_six in (False, True)]
    assert [each and each.network for each in chosen] == [four, six]
    assert set(publication.targets(wires)) == {
        is_six for is_six, name in ((False, four), (True, six)) if name
    }


def test_the_operations_in_order() -> None:
    template = network("front", subnet("10.1.0.0/24"), subnet("fd00:1::/64"))
    found = claim(wanted("front", ifname="lan0"), template)
    kinds = [each.kind for each in endpoint.operations(found, "web", found, found)]
    assert kinds == [
        "VETH", "IPV6", "PIN", "LINK_UP", "ADDRESS", "ADDRESS6", "ROUTE", "ROUTE6", "SETTLE",
    ]  # fmt: skip
    assert [each.kind for each in endpoint.operations(found, "web", None, None)] == kinds[:6] + kinds[8:]
    plain = network("plain", subnet("10.3.0.0/24"))
    four = claim(wanted("plain"), plain, 1)
    assert [each.kind for each in endpoint.operations(four, "web", four, None)] == [
        "VETH", "PIN", "LINK_UP", "ADDRESS", "ROUTE", "SETTLE",
    ]  # fmt: skip


def test_neighbours_are_told_where_they_may_know_another_mac() -> None:
    template = network("front", subnet("10.1.0.0/24"), subnet("fd00:1::/64"))
    assert endpoint.announcement(claim(wanted("front"), template)) == [], (
        "derived from the address: always the same"
    )
    taken_by_hand = claim(wanted("front", ip6="fd00:1::a01:77"), template, 1)
    for number, asked in enumerate(({"ip": "10.1.0.4"}, {"mac": "02:00:00:00:00:99"}), 2):
        assert endpoint.announcement(claim(wanted("front", **asked), template, number)), asked
    (told,) = endpoint.announcement(taken_by_hand)
    assert (told.kind, told.args) == ("ANNOUNCE", ("eth1", "02:42:0a:01:00:03", "10.1.0.3", "fd00:1::a01:77"))
    beside = claim(wanted("front", ip="10.1.0.119"), template, 4)
    assert beside.address6 != "fd00:1::a01:77"
    beside.asked_for = False
    assert endpoint.announcement(beside), "its IPv6 address is not the one of its MAC"


# ── what is told, and what is undone ───────────────────────────────────────────────────────────────


def test_what_the_claim_tells() -> None:
    asked = wanted("front", aliases=("db", "db.shop"), mac="02:00:00:00:00:99")
    assert endpoint.lines(asked, "web", "shop", "pyv0", "eth0", ["192.0.2.53"]) == [
        "name web", "link pyv0", "ifname eth0", "hostname shop", "alias db", "alias db.shop",
        "mac 02:00:00:00:00:99", "dns 192.0.2.53",
    ]  # fmt: skip
    assert endpoint.lines(wanted("front"), "web", "web", "pyv0", "eth0", []) == [
        "name web",
        "link pyv0",
        "ifname eth0",
    ]


def test_undo_lines_can_be_repeated_and_leave_what_is_somebody_elses() -> None:
    """Only `unlink-if` with the owner's line; the netlink messages say "gone" when there is nothing."""
    template = network("front", subnet("10.1.0.0/24"), subnet("fd00:1::/64"))
    found = claim(wanted("front"), template)
    lines = endpoint.undo(found, template, "o 1 2")
    assert [line.split("\t")[0] for line in lines] == ["netlink", "netlink", "unlink-if", "unlink-if"]
    assert [line.split("\t")[1] for line in lines[:2]] == ["0", "12"]
    assert all(line.endswith("\to 1 2") for line in lines[2:])
    flows = endpoint.forget_flows(found, template, "o 1 2")
    assert [line.split("\t")[0] for line in flows] == ["guard", "netlink", "end", "guard", "flows6", "end"]


def test_only_addresses_that_are_still_the_containers_are_taken_from_it() -> None:
    """A killed `disconnect` has given one up, and it may be somebody else's by now."""
    template = network("front", subnet("10.1.0.0/24"), subnet("fd00:1::/64"))
    found = claim(wanted("front"), template)
    holder = claims.holder(leases.path("front", found.address))
    mine = holder.split(" ")[0]
    whole = found.record()
    assert disconnecting.held(mine, found).record() == whole
    four, six = (Path(leases.path("front", address)) for address in found.addresses())
    four.unlink()  # the claims of one planner are one file
    four.write_text(f"{'f' * 64} 1 1\n")
    assert disconnecting.held(mine, found).record() == {**whole, "address": ""}
    assert disconnecting.held(mine[:-1], found).record() == {**whole, "address": "", "address6": ""}
    lines = disconnecting.undo_as_held(found, template)
    assert {f"unlink-if\t{four}\t{'f' * 64} 1 1", f"unlink-if\t{six}\t{holder}"} < set(lines)
    assert len(lines) == len(set(lines))
    six.unlink()
    assert disconnecting.held(mine, found).record() == {**whole, "address": "", "address6": ""}
