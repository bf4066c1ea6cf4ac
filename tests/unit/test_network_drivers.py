"""The pure halves of the drivers, of shaping and of adopting: what is asked, and what it is turned into."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyrun.errors import Conflict, NotFound, UsageError
from pyrun.network import (
    claims,
    endpoint,
    foreign_leases,
    leases,
    mac_claims,
    records,
    requests,
    shaping,
    wiring,
)  # fmt: skip
from pyrun.network.drivers import (
    cni,
    cni_config,
    ipvlan,
    joined,
    l2,
    leasing,
    links,
    macvlan,
    return_routes,
)
from pyrun.plan.catalogue import explain
from pyrun.plan.operations import Operation

# ── --net-rate, --net-fault ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in=10mbit", {"in": 10_000_000}),
        ("in=1.5mbit,out=64kbit", {"in": 1_500_000, "out": 64_000}),
        ("out=8000", {"out": 8000}),
        ("out=2GBIT", {"out": 2_000_000_000}),
        ("in=1mibit", {"in": 1 << 20}),
        ("in=1mbps", {"in": 8_000_000}),
    ],
)
def test_rates(text: str, expected: dict[str, int]) -> None:
    assert shaping.rates(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "10mbit", "in=", "in=-1mbit", "in=1mbit,in=2mbit", "in=1e9", "in=٣mbit", "in=1mb", "in=33gbit", "in=1.2.3mbit",
     "both=1mbit", "in=1mbit,", "in=7999"],
)  # fmt: skip
def test_rates_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--net-rate"):
        shaping.rates(text)


def test_faults() -> None:
    text = "delay=100ms,jitter=20,loss=0.5%,duplicate=1,reorder=25%,corrupt=0.1%"
    expected = {
        "delay": 100_000,
        "jitter": 20_000,
        "loss": 0.5,
        "duplicate": 1,
        "reorder": 25,
        "corrupt": 0.1,
    }
    assert shaping.faults(text) == expected
    assert shaping.faults("delay=2s,jitter=50us") == {"delay": 2_000_000, "jitter": 50}


@pytest.mark.parametrize(
    "text",
    ["delay", "delay=fast", "delay=61s", "loss=101", "loss=-1", "loss=1%%", "jitter=1ms", "reorder=5%",
     "delay=1ms,jitter=2ms", "delay=1ms,delay=1ms", "speed=1"],
)  # fmt: skip
def test_faults_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--net-fault"):
        shaping.faults(text)


def test_the_plan_of_both() -> None:
    """The emulator at the root, the bucket below it; only the detour has to be taken away by name."""
    links = [wire(link=link) for link in ("pyv0123456789ab", "macvlan0")]
    todo, undone = shaping.plan("in=1mbit,out=2mbit", "delay=1ms", links)
    assert todo == [
        Operation("FAULT", "pyv0123456789ab", "delay=1000"),
        Operation("RATE", "pyv0123456789ab", 1_000_000, 2_000_000, 1),
    ]
    (line,) = undone
    assert b"pyi0123456789ab\0" in bytes.fromhex(line.split("\t")[2])


def test_links_of_both_kinds_take_different_detours() -> None:
    assert shaping.ifb("pyv0123456789ab") != shaping.ifb("pyl0123456789ab")


def test_no_link_no_rate() -> None:
    planned, request = wiring.NetworkPlan(), requests.Request("a" * 64, "web", "none")
    planned.wires, planned.undo, request.net_rate = [wire(link="macvlan0")], ["also"], "in=1mbit"
    with pytest.raises(UsageError, match="no link with an end on the host"):
        shaping.add(request, planned)
    with pytest.raises(UsageError, match="no link"):
        shaping.check(request)


def wire(**given: Any) -> endpoint.Wire:
    return endpoint.recorded(given)


# ── settings and segments ──────────────────────────────────────────────────────────────────────────


def card(**given: Any) -> Any:
    """A card as segment.card finds it; its arithmetic is the real one's."""
    from pyrun.network.drivers.segment import Card

    made = SimpleNamespace(
        **{"name": "lan1", "bridge": "", "master": "", "up": True, "mtu": 1500, "gateways": ["192.168.50.1"],
           "addresses": ["192.168.50.2/24", "2001:db8::2/64"], **given}
    )  # fmt: skip
    made.home = lambda address: Card.home(made, address)
    return made


def placed(network: dict[str, Any] | None = None, **given: Any) -> leasing.Placement:
    """What is asked of an endpoint, on a card; network: what its network.json tells, None for a bare card."""
    wanted = requests.Endpoint("lan", "macvlan", "lan1")
    for key, value in given.items():
        setattr(wanted, key, value)
    return leasing.placed(wanted, card(), None if network is None else records.parsed(network), "told")


def told(pool: records.Pool | None) -> dict[str, object]:
    assert pool is not None
    return pool.record()


def test_settings() -> None:
    assert macvlan.settings({}, "") == {"mode": "bridge", "host_shim": False}
    assert macvlan.settings({"macvlan_mode": "vepa"}, "")["mode"] == "vepa"
    assert macvlan.settings({"host-shim": "on"}, "")["host_shim"] is True
    assert ipvlan.settings({"ipvlan_mode": "l3s"}, "") == {"mode": "l3s"}
    assert l2.settings({}, "") == {}
    for module, options in ((macvlan, {"mode": "l2"}), (macvlan, {"host-shim": "perhaps"}), (ipvlan, {"mode": "vepa"}),
                            (l2, {"mode": "l2"}), (macvlan, {"host-shim": "on", "mode": "private"})):  # fmt: skip
        with pytest.raises(UsageError, match="here"):
            module.settings(options, "here")  # type: ignore[attr-defined]


def test_the_bridge_that_the_hint_makes_takes_over_addresses_and_routes() -> None:
    assert l2.bridging(card(addresses=["192.168.50.2/24"])).split("; ") == [
        "ip link add br0 type bridge", "ip link set br0 up", "ip addr del 192.168.50.2/24 dev lan1",
        "ip link set lan1 master br0", "ip addr add 192.168.50.2/24 dev br0",
        "ip route add default via 192.168.50.1 dev br0",
    ]  # fmt: skip


def test_a_card_that_is_down_or_taken() -> None:
    with pytest.raises(UsageError, match="lan1 is down"):
        macvlan.refuse_unfit(card(up=False), "x", "macvlan")
    with pytest.raises(UsageError, match="belongs to bond0") as raised:
        macvlan.refuse_unfit(card(master="bond0"), "x", "macvlan")
    assert raised.value.hint == "--network macvlan:bond0"


def test_the_subnet_of_an_address_on_a_bare_card_is_the_hosts() -> None:
    asked = placed(ip="192.168.50.9", ip6="2001:db8::9")
    rest = {"range": "", "subnet": "", "broadcast": ""}
    assert told(asked.pool) == {"gateway": "192.168.50.1", "prefix": 24, **rest}
    assert told(asked.pool6) == {"gateway": "", "prefix": 64, **rest}
    nothing = placed()
    assert (nothing.pool, nothing.pool6) == (None, None), "on somebody else's segment none is handed out"


def test_the_subnet_of_a_created_network_is_its_own() -> None:
    subnet = {"subnet": "10.44.0.0/24", "gateway": "10.44.0.1", "prefix": 24, "range": "10.44.0.128/25"}
    subnet["broadcast"] = "10.44.0.255"
    network = {"subnets4": [subnet], "subnets6": []}
    for given in ({}, {"ip": "10.44.0.7"}):
        assert told(placed(network, **given).pool) == subnet
    for address, said in (("10.44.0.1", "is the gateway"), ("10.45.0.1", "in none of its subnets"),
                          ("192.168.50.2", "the host's own")):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            placed(network, ip=address)


def test_an_internal_network_on_a_card_leads_nowhere() -> None:
    for network, internal in ((None, False), ({"internal": False}, False), ({"internal": True}, True)):
        assert placed(network, ip="192.168.50.9").internal is internal


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"driver": "macvlan"}, "pyrun network create -d macvlan -o parent=lan1 --subnet ... NAME"),
        (
            {"driver": "l2"},
            "without ip=, and once it runs: ip -n CONTAINER address add 10.200.0.4/24 dev eth0",
        ),
        ({"driver": "l2", "ifname": "up0"}, "ip -n CONTAINER address add 10.200.0.4/24 dev up0"),
    ],
)
def test_what_to_do_about_an_address_of_no_known_subnet(given: dict[str, str], hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        placed(ip="10.200.0.4", **given)
    assert raised.value.hint.endswith(hint)
    with pytest.raises(UsageError) as raised:
        placed({"driver": given["driver"]}, ip="10.200.0.4", **given)
    assert raised.value.hint == "an address of one of them"


def test_macs() -> None:
    """By the address, as anywhere; without one by the container, the same at every start of it; none for ipvlan."""
    leased = wire(driver="macvlan", address="192.168.50.9")
    assert leasing._mac(leased, "a" * 64, 0) == "02:42:c0:a8:32:09"
    bare = wire(driver="l2")
    macs = {leasing._mac(bare, ident * 64, number) for ident in "ab" for number in (0, 1)}
    assert len(macs) == 4
    assert all(mac.startswith("02:") for mac in macs)
    leased.driver = "ipvlan"
    assert leasing._mac(leased, "a" * 64, 0) == ""


def test_a_routed_ipvlan_sends_straight_out() -> None:
    made = wire(ifname="eth0", driver="ipvlan", options={"mode": "l3"}, address="10.44.0.2", prefix=24,
                gateway="10.44.0.1")  # fmt: skip
    todo = links.dressing(made, True, False)
    assert Operation("CARD_ROUTE", "eth0", "") in todo
    assert not [each for each in links.dressing(made, False, False) if each.kind == "CARD_ROUTE"]
    made.options = {"mode": "l2"}
    assert Operation("CARD_ROUTE", "eth0", "10.44.0.1") in links.dressing(made, True, False)


@pytest.mark.parametrize(("mtu", "words"), [(1400, "netns {name} mtu 1400 type"), (0, "netns {name} type")])
def test_the_mtu_of_an_ipvlan_is_told_where_it_is_made(mtu: int, words: str) -> None:
    (made,) = ipvlan.operations(wire(ifname="eth0", mtu=mtu, options={"mode": "l2"}), card())
    assert made.args[-1] == mtu
    assert words in explain(made)[1]


def test_a_shim_has_the_hosts_addresses_of_the_containers_subnets() -> None:
    told = {"ifname": "eth0", "link": "pymx", "mac": "02:00:00:00:00:09", "mtu": 0, "options": {"host_shim": True},
            "address": "192.168.50.9", "prefix": 24, "address6": "2001:db8::9", "prefix6": 64}  # fmt: skip
    there = card(addresses=["10.9.0.2/24", "192.168.50.2/24", "2001:db8:9::2/64", "2001:db8::2/64"])
    four, six = macvlan.afterwards(wire(**told), there)
    assert four == Operation("SHIM", "pymx", "lan1", "192.168.50.9", "192.168.50.2", 0)
    assert six == Operation("SHIM6", "pymx", "2001:db8::9", "2001:db8::2", "eth0", "02:00:00:00:00:09")
    for less in (wire(**{**told, "address6": "", "prefix6": 0}), wire(**told)):
        only = card(addresses=["192.168.50.2/24"])
        assert [each.kind for each in macvlan.afterwards(less, only)] == ["SHIM"], (
            "neither side has IPv6 alone"
        )
    assert macvlan.afterwards(wire(**{**told, "options": {"host_shim": False}}), there) == []


# ── the way of answers ─────────────────────────────────────────────────────────────────────────────


def bridged(name: str, **given: Any) -> endpoint.Wire:
    return wire(**{"ifname": name, "address": "10.77.0.2", "prefix": 16, "gateway": "10.77.0.1", **given})


def test_answers_go_by_the_bridge_where_a_card_has_the_default_route() -> None:
    own = {"driver": "macvlan", "address": "192.168.50.9", "prefix": 24, "gateway": "192.168.50.1"}
    beside, led = bridged("eth1", **own), [Operation("ANSWERS", "eth0", "10.77.0.2", 16, "10.77.0.1")]
    assert return_routes.operations([bridged("eth0"), bridged("eth1", gw_priority=1, **own)]) == led
    assert return_routes.operations([beside, bridged("eth0")]) == led, "the first has it"
    assert return_routes.operations([bridged("eth0"), beside]) == [], "the bridge has the default route"
    assert return_routes.operations([beside]) == return_routes.operations([]) == []
    assert return_routes.operations([beside, bridged("eth0", internal=True)]) == [], "no port leads there"


# ── MAC addresses ──────────────────────────────────────────────────────────────────────────────────


def test_a_mac_is_one_containers_behind_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the networks: the second who claims it is told whose it is; one of the dead is free."""
    monkeypatch.setenv("PYRUN_RUNROOT", str(tmp_path))
    mac, written = "02:00:00:00:00:09", []
    for name in ("one", "two"):
        (tmp_path / "containers" / name).mkdir(parents=True)
        written.append(claims.write_record(f"{name} 1 1", [f"name {name}"]))
    taken = mac_claims.take("lan1", mac, written[0], "--network lan")
    with pytest.raises(
        Conflict, match=f"--network lan: the MAC address {mac} is that of container one on lan1"
    ):
        mac_claims.take("lan1", mac, written[1], "--network lan")
    assert mac_claims.take("lan2", mac, written[1], "--network other") != taken
    (tmp_path / "containers" / "one").rmdir()
    assert mac_claims.take("lan1", mac, written[1], "--network lan") == taken


def test_what_an_interface_holds_is_undone_for_whoever_claimed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYRUN_RUNROOT", str(tmp_path))
    (tmp_path / "containers" / "one").mkdir(parents=True)
    made = wire(network="lan", parent="lan1", mac="02:00:00:00:00:09")
    file = mac_claims.take("lan1", made.mac, claims.write_record("one 1 1", []), "")
    assert leasing.undo(made, leasing.owner_of(made)) == [f"unlink-if\t{file}\tone 1 1"]
    made.mac = ""
    assert leasing.undo(made, "one 1 1") == []


def test_members_without_an_address_are_no_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRUN_RUNROOT", str(tmp_path))
    ident = "b" * 64
    (tmp_path / "containers" / ident).mkdir(parents=True)
    directory = tmp_path / "networks/paper/leases"
    directory.mkdir(parents=True)
    for name in (ident, "10.0.0.2", "fd00::2"):
        (directory / name).write_text(f"{ident} 1 1\nname web\n")
    (directory / ("c" * 64)).write_text("gone 1 1\nname gone\n")
    assert sorted(leases.held("paper")) == ["10.0.0.2", "fd00::2"]
    assert list(leases.members("paper")) == [ident]


# ── somebody else's namespace ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "mode", "refused"),
    [
        ({"publish": ["80:80"]}, "container", "--publish"),
        ({"publish": ["80:80"]}, "ns", "--publish"),
        ({"hostname": "x"}, "container", "--hostname"),
        ({"hostname": "x"}, "ns", ""),
        ({"dns": []}, "container", ""),
        ({"egress": "none"}, "ns", "--egress"),
    ],
)
def test_options_that_would_change_what_is_somebody_elses(
    options: dict[str, object], mode: str, refused: str
) -> None:
    if not refused:
        joined.refuse(options, mode, "web")
        return
    with pytest.raises(UsageError, match=f"{refused} is refused with --network {mode}:web"):
        joined.refuse(options, mode, "web")


def test_paths_that_are_no_namespace(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for name, error in (("file", UsageError), ("fifo", UsageError), ("none", NotFound), ("", UsageError)):
        with pytest.raises(error):
            joined.resolve("ns", f"{tmp_path}/{name}")
    for target, error in (("a/b", UsageError), ("..", UsageError)):
        with pytest.raises(error):
            joined.resolve("ns", target)
    assert joined.resolve("ns", "/proc/self/ns/net") == ("/proc/self/ns/net", None, True)
    with pytest.raises(UsageError, match="is a uts namespace"):
        joined.resolve("ns", "/proc/self/ns/uts")


# ── CNI ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def net_d(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETCONFPATH", str(tmp_path))
    return tmp_path


def write(directory: Path, file: str, **content: Any) -> None:
    (directory / file).write_text(json.dumps(content))


def test_the_first_file_with_the_name_counts(net_d: Path) -> None:
    write(net_d, "20-b.conflist", name="lab", cniVersion="1.0.0", plugins=[{"type": "second"}])
    write(net_d, "10-a.conf", name="lab", cniVersion="0.4.0", type="first", own=1)
    (net_d / "05.conflist").write_text("[")
    network = cni_config.load("lab")
    assert network["plugins"][0]["type"] == "first"
    assert network["cniVersion"] == "0.4.0"
    with pytest.raises(NotFound, match="cni:web") as raised:
        cni_config.load("web")
    assert raised.value.hint == "there are lab, lab"


@pytest.mark.parametrize(
    "content",
    ['{"name": "lab", "plugins": []}', '{"name": "lab", "plugins": [{"type": "a/b"}]}',
     '{"name": "lab", "plugins": {}}',
     '{"name": "lab", "cniVersion": "3.0", "plugins": [{"type": "a"}]}', '{"name": "lab", "plugins": ["a"]}', "{", "[]",
     '{"name": 1}'],
)  # fmt: skip
def test_configurations_that_are_none(net_d: Path, content: str) -> None:
    (net_d / "lab.conflist").write_text(content)
    with pytest.raises(UsageError, match=r"lab\.conflist"):
        cni_config.load("lab")


def test_what_a_plugin_is_told() -> None:
    plugins = [{"type": "a"}, {"type": "b", "x": 1, "capabilities": {"portMappings": True, "ips": False}}]
    network = {"name": "lab", "cniVersion": "1.0.0", "plugins": plugins, "file": "f"}
    arguments = {"portMappings": [1], "ips": ["no"]}
    assert cni_config.request(network, 0, arguments, None) == {
        "type": "a",
        "name": "lab",
        "cniVersion": "1.0.0",
    }
    assert cni_config.request(network, 1, arguments, {"r": 1}) == {
        "type": "b", "x": 1, "name": "lab", "cniVersion": "1.0.0", "runtimeConfig": {"portMappings": [1]},
        "prevResult": {"r": 1},
    }  # fmt: skip
    assert cni_config.declares(network, "portMappings") and not cni_config.declares(network, "ips")


def test_what_a_plugin_that_failed_says() -> None:
    assert (
        cni._complaint(b'{"code": 7, "msg": "no", "details": "sorry\\nthere"}', b"noise") == "no: sorry there"
    )
    assert cni._complaint(b"", b"first\nlast\n") == "last"
    assert cni._complaint(b"[1]", b"") == "[1]"
    assert cni._complaint(b"", b"") == "failed without a word"


def test_the_servers_of_a_result() -> None:
    assert cni.resolver_lines({}) == []
    dns = {"nameservers": ["1.1.1.1", "::1"], "domain": "a.test", "options": ["ndots:2"]}
    assert cni.resolver_lines(dns) == [
        "nameserver 1.1.1.1",
        "nameserver ::1",
        "search a.test",
        "options ndots:2",
    ]


def test_undoing_twice_does_nothing(tmp_path: Path) -> None:
    assert cni.finish(str(tmp_path / "gone.json")) == []
    (tmp_path / "torn.json").write_text("{")
    assert "is torn" in cni.finish(str(tmp_path / "torn.json"))[0]


# ── strangers ──────────────────────────────────────────────────────────────────────────────────────


def test_a_strangers_claim_lives_as_long_as_its_namespace(tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    file.touch()
    owner = claims.owner_of_namespace(str(file))
    assert claims.alive(owner)
    file.rename(tmp_path / "other")
    assert not claims.alive(owner)
    (tmp_path / "another").touch()
    (tmp_path / "another").rename(file)
    assert not claims.alive(owner), "another one of that name"


def test_a_network_is_closed_unless_a_container_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYRUN_RUNROOT", str(tmp_path))
    leases = tmp_path / "networks/old/leases"
    leases.mkdir(parents=True)
    foreign_leases.note("old", str(tmp_path), "blue", "eth0", ["10.0.0.2"])
    before = (leases / "10.0.0.2").read_text()
    assert before.splitlines()[1:] == ["name blue", "ifname eth0"]
    (leases / "10.0.0.3").write_text(f"{claims.owner('web')}\nname web\n")
    with pytest.raises(Conflict, match="network old is used by web"):
        foreign_leases.close("old")
    assert (leases / "10.0.0.2").read_text() == before, "a refusal changes nothing"
    (leases / "10.0.0.3").write_text("gone 1 1\nname web\n")
    foreign_leases.close("old")
    assert not leases.exists()
    foreign_leases.close("old")


# ── what is explained ───────────────────────────────────────────────────────────────────


def test_a_fault_is_told_with_its_units() -> None:
    sentence, shell, see = explain(Operation("FAULT", "pyvx", "delay=1000,jitter=5,loss=1"))
    assert shell == "tc qdisc add dev pyvx root netem delay 1000us 5us loss 1%"
    assert "delay 1000us" in sentence and see.startswith("tc ")
