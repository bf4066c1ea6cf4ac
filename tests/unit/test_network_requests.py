"""What `--network` and its companions mean, word by word, and every word they refuse: network/requests.py."""

from __future__ import annotations

import pytest

from pyrun import boot
from pyrun.errors import UsageError
from pyrun.network import messages, requests
from pyrun.network.publishing import ports
from pyrun.stages import network as stage

NOTHING = {
    "network": "", "driver": "", "parent": "", "ip": "", "ip6": "", "mac": "", "aliases": (), "ifname": "",
    "gw_priority": 0, "options": {},
}  # fmt: skip


def parse(*networks: str, **options: object) -> tuple[str, str, list[dict[str, object]]]:
    mode, target, endpoints = requests.parse({"network": list(networks), **options}, "bridge")
    return mode, target, [{key: getattr(each, key) for key in NOTHING} for each in endpoints]


def endpoint(network: str, **given: object) -> dict[str, object]:
    return {**NOTHING, "network": network, **given}


# ── every form ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ("bridge", "", [endpoint("bridge")])),
        (("",), ("bridge", "", [endpoint("bridge")])),
        (("bridge",), ("bridge", "", [endpoint("bridge")])),
        (("default",), ("bridge", "", [endpoint("bridge")])),
        (("host",), ("host", "", [])),
        (("none",), ("none", "", [])),
        (("pasta",), ("pasta", "", [])),
        (("slirp4netns",), ("slirp4netns", "", [])),
        (("container:web",), ("container", "web", [])),
        (("ns:blue",), ("ns", "blue", [])),
        (("/run/netns/blue",), ("ns", "/run/netns/blue", [])),
        (("cni:lan",), ("cni", "lan", [])),
        (("front", "back"), ("bridge", "", [endpoint("front"), endpoint("back")])),
        (("back", "front"), ("bridge", "", [endpoint("back"), endpoint("front")])),
        (("front:ip=10.1.0.9",), ("bridge", "", [endpoint("front", ip="10.1.0.9")])),
        (("name=front,ip=10.1.0.9",), ("bridge", "", [endpoint("front", ip="10.1.0.9")])),
        (("front:ip6=FD00:0::9",), ("bridge", "", [endpoint("front", ip6="fd00::9")])),
        (("front:mac=02-42-0A-00-00-09",), ("bridge", "", [endpoint("front", mac="02:42:0a:00:00:09")])),
        (("front:mac-address=02:42:0a:0:0:09",), None),
        (("front:alias=db,alias=db.shop",), ("bridge", "", [endpoint("front", aliases=("db", "db.shop"))])),
        (("front:ifname=lan0,gw-priority=-3",),
         ("bridge", "", [endpoint("front", ifname="lan0", gw_priority=-3)])),
        (("front:interface_name=lan0",), ("bridge", "", [endpoint("front", ifname="lan0")])),
        (("l2:eth1",), ("bridge", "", [endpoint("l2:eth1", driver="l2", parent="eth1")])),
        (("macvlan:eth1:ip=10.1.0.9", "back"),
         ("bridge", "", [endpoint("macvlan:eth1", driver="macvlan", parent="eth1", ip="10.1.0.9"),
                         endpoint("back")])),
        (("ipvlan:eth1:mode=l3",),
         ("bridge", "", [endpoint("ipvlan:eth1", driver="ipvlan", parent="eth1", options={"mode": "l3"})])),
    ],
)  # fmt: skip
def test_every_form_of_a_network(
    words: tuple[str, ...], expected: tuple[str, str, list[dict[str, object]]] | None
) -> None:
    if expected is None:
        with pytest.raises(UsageError):
            parse(*words)
    else:
        assert parse(*words) == expected


def test_companions_mean_the_first_network() -> None:
    mode, _, found = parse(
        "front",
        "back",
        ip="10.1.0.9",
        ip6="fd00::9",
        mac_address="02:42:0A:00:00:09",
        network_alias=["a", "b"],
    )
    assert mode == "bridge"
    assert found == [
        endpoint("front", ip="10.1.0.9", ip6="fd00::9", mac="02:42:0a:00:00:09", aliases=("a", "b")),
        endpoint("back"),
    ]


def test_a_word_and_its_companion_add_up() -> None:
    found = parse("front:alias=x,ifname=lan0", ip="10.1.0.9", network_alias=["y"])[2]
    assert found == [endpoint("front", aliases=("x", "y"), ifname="lan0", ip="10.1.0.9")]


def test_interfaces_are_called_by_their_place() -> None:
    found = requests.parse({"network": ["a", "b:ifname=lan0", "c"]}, "bridge")[2]
    assert requests.interface_names(found) == ["eth0", "lan0", "eth2"]


def test_nothing_is_shared_between_endpoints() -> None:
    one, two = parse("a:alias=x", "b")[2]
    assert (one["aliases"], two["aliases"]) == (("x",), ())
    assert requests.Endpoint().aliases == ()


# ── every bad input: one line that names the option, the value and the rule ────────────────────────


@pytest.mark.parametrize(
    ("words", "named"),
    [
        # names
        (("-x",), "--network '-x' is no name of a network"),
        (("a/b",), "--network 'a/b' is no name of a network"),
        (("../x",), "--network '../x' is no name of a network"),
        (("a b",), "--network 'a b' is no name of a network"),
        (("x\n",), r"--network 'x\n' is no name of a network"),
        (("ö",), "--network 'ö' is no name of a network"),
        ((".x",), "--network '.x' is no name of a network"),
        (("a" * 129,), "is no name of a network"),
        ((":ip=10.1.0.9",), "--network '' is no name of a network"),
        (("ip=10.1.0.9",), "--network '' is no name of a network"),
        # what is to be joined
        (("container:",), "--network container:: what is to be joined is missing"),
        (("ns:",), "--network ns:: what is to be joined is missing"),
        (("cni",), "--network cni: what is to be joined is missing"),
        (("l2:",), "--network l2:: '' is no name of an interface"),
        (("l2:a/b",), "--network l2:a/b: 'a/b' is no name of an interface"),
        (("macvlan:" + "x" * 16,), "is no name of an interface"),
        # what has no settings
        (("host:ip=10.1.0.9",), "--network host:ip=10.1.0.9: host takes no settings"),
        (("none:alias=x",), "--network none:alias=x: none takes no settings"),
        (("name=host,ip=10.1.0.9",), "--network name=host,ip=10.1.0.9: host takes no settings"),
        # settings
        (("front:ip=10.1.0.8,ip=10.1.0.9",), "--network front:ip=10.1.0.8,ip=10.1.0.9: ip= is given twice"),
        (("front:mac=02:42:0a:00:00:09,mac-address=02:42:0a:00:00:08",), "mac-address= is given twice"),
        (("front:gw-priority=0,gw-priority=0",), "gw-priority= is given twice"),
        (("name=front,name=back",), "name= is given twice"),
        (("macvlan:eth1:mode=vepa,mode=bridge",), "mode= is given twice"),
        (("front:",), "--network front:: '' is no setting"),
        (("front:x",), "--network front:x: 'x' is no setting"),
        (("front:ip",), "--network front:ip: 'ip' is no setting"),
        (("front:ip=",), "--network front:ip=: 'ip=' is no setting"),
        (("front:colour=red",), "--network front:colour=red: 'colour=red' is no setting"),
        (("front:ip=10.1.0",), "--network front:ip=10.1.0: ip=10.1.0: '10.1.0' is no IPv4 address"),
        (("front:ip=fd00::1",), "'fd00::1' is no IPv4 address"),
        (("front:ip=010.1.0.1",), "'010.1.0.1' is no IPv4 address"),
        (("front:ip6=10.1.0.1",), "'10.1.0.1' is no IPv6 address"),
        (("front:ip6=fe80::1%eth0",), "'fe80::1%eth0' is no IPv6 address"),
        (("front:mac=02:42",), "mac=02:42: '02:42' is no MAC address"),
        (("front:mac=02:42:0a:00:00:0g",), "is no MAC address"),
        (("front:mac=01:00:5e:00:00:01",), "belongs to no single station"),
        (("front:mac=ff:ff:ff:ff:ff:ff",), "belongs to no single station"),
        (("front:mac=00:00:00:00:00:00",), "belongs to no single station"),
        (("front:alias=a b",), "alias=a b: 'a b' is no host name"),
        (("front:alias=a..b",), "'a..b' is no host name"),
        (("front:alias=" + "a" * 64,), "is no host name"),
        (("front:ifname=lo",), "ifname=lo: 'lo' is no name of an interface"),
        (("front:ifname=..",), "'..' is no name of an interface"),
        (("front:ifname=all",), "'all' is no name of an interface"),
        (("front:ifname=default",), "'default' is no name of an interface"),
        (("front:ifname=a/b",), "'a/b' is no name of an interface"),
        (("front:ifname=" + "x" * 16,), "is no name of an interface"),
        (("front:ifname=a\tb",), "is no name of an interface"),
        (("front:gw-priority=high",), "gw-priority=high: a priority is a whole number"),
        (("front:gw-priority=1.5",), "a priority is a whole number"),
        (("front:gw-priority=--1",), "a priority is a whole number"),
        (("front:gw-priority=²",), "a priority is a whole number"),
        (("front:gw-priority=" + "9" * 5000,), "a priority is a whole number"),
        (("front:alias=" + "a" * 5000,), "is no host name"),
        (("front:ip=1\n2",), "is no IPv4 address"),
        (("container:a\nb", "x"), "stands alone"),
        # together
        (("front", "front"), "--network: front is given twice"),
        (("front", "host"), "host stands alone"),
        (("none", "front"), "none stands alone"),
        (("container:web", "front"), "container:web stands alone"),
        (("a:ifname=x", "b:ifname=x"), "--network: x names two interfaces"),
        (("a:ifname=eth1", "b"), "two interfaces would be called eth1"),
    ],
)  # fmt: skip
def test_a_network_that_is_refused(words: tuple[str, ...], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*words)
    assert named in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"ip": "10.1.0"}, "--ip 10.1.0: '10.1.0' is no IPv4 address"),
        ({"ip6": "x"}, "--ip6 x: 'x' is no IPv6 address"),
        ({"mac_address": "x"}, "--mac-address x: 'x' is no MAC address"),
        ({"network_alias": ["fine", "a/b"]}, "--network-alias a/b: 'a/b' is no host name"),
        ({"network_alias": ["a\nb"]}, "is no host name"),
    ],
)
def test_a_companion_that_is_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse("front", **options)
    assert named in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("word", "options", "named"),
    [
        (
            "front:ip=10.1.0.8",
            {"ip": "10.1.0.9"},
            "--ip 10.1.0.9: --network front:ip=10.1.0.8 has one already",
        ),
        (
            "front:ip6=fd00::8",
            {"ip6": "fd00::9"},
            "--ip6 fd00::9: --network front:ip6=fd00::8 has one already",
        ),
        ("front:mac=02:42:0a:00:00:08", {"mac_address": "02:42:0a:00:00:09"}, "has one already"),
    ],
)
def test_a_companion_of_what_has_it_already(word: str, options: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(word, **options)
    assert named in caught.value.message


def test_a_name_that_is_none_is_told_the_letters() -> None:
    with pytest.raises(UsageError) as caught:
        parse("a b")
    assert caught.value.hint.startswith("letters, digits, _, . and -")


@pytest.mark.parametrize("user", [-1, 1000])
@pytest.mark.parametrize("mode", ["pasta", "slirp4netns"])
def test_whose_the_programs_of_users_are(user: int, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root is told so at once, even beside another network; a user, that they stand alone."""
    monkeypatch.setattr(boot, "rootless_uid", lambda: user)
    with pytest.raises(UsageError) as caught:
        parse(mode, "front")
    assert ("is for ordinary users" in caught.value.message) is (user < 0)
    assert (f"{mode} stands alone" in caught.value.message) is (user >= 0)


@pytest.mark.parametrize("network", ["host", "none", "pasta", "container:web", "ns:blue", "cni:lan"])
def test_a_network_without_an_address_to_choose(network: str) -> None:
    with pytest.raises(UsageError, match=f"--ip 10.1.0.9: --network={network} has no address of its own"):
        parse(network, ip="10.1.0.9")


# ── what is refused before anything is planned ───────────────────────────────────────────────────────


def asking(published: list[ports.Port], endpoints: list[requests.Endpoint] | None = None) -> requests.Request:
    request = requests.Request("ab" * 32, "web")
    request.ports, request.endpoints = published, endpoints or []
    return request


@pytest.mark.parametrize(
    ("port", "message"),
    [
        (("", 8080, 80, "dccp"), "dccp"),
        (("", 65536, 80, "tcp"), "1 to 65535"),
        (("", 8080, 0, "tcp"), "1 to 65535"),
        (("999.1.1.1", 8080, 80, "tcp"), "no IP address"),
        (("1", 8080, 80, "tcp"), "no IP address"),
        (("::g", 8080, 80, "tcp"), "no IP address"),
    ],
)
def test_a_port_nobody_could_publish(port: ports.Port, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        stage.check(asking([port]))


def test_the_same_port_twice() -> None:
    with pytest.raises(UsageError, match=r"both want port 8080/tcp"):
        stage.check(asking([("", 8080, 80, "tcp"), ("0.0.0.0", 8080, 81, "tcp")]))
    stage.check(asking([("", 8080, 80, "tcp"), ("", 8080, 80, "udp")]))


def test_more_networks_than_a_container_may_have() -> None:
    many = [requests.Endpoint(f"n{number}") for number in range(messages.MOST_LINKS + 1)]
    with pytest.raises(UsageError, match=f"given {len(many)} times: {messages.MOST_LINKS} at most"):
        stage.check(asking([], many))
    stage.check(asking([], many[1:]))
