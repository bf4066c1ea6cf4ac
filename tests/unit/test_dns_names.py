"""Who is called what on which network, told from the files of leases alone."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from name_server import TYPE_AAAA, TYPE_MX, TYPE_PTR, Answer, Networks, question
from pyrun.network.dns import budget, cache, names, upstream, wire

WEB, DB, CLIENT, OTHER = "a" * 64, "b" * 64, "c" * 64, "d" * 64


@pytest.fixture
def networks(tmp_path: Path) -> Networks:
    """Two networks; the client is on both, web on the first, db on the second with an alias, other only there."""
    made = Networks(tmp_path)
    made.network("front", "10.1.0.1", "fd01::1")
    made.network("back", "10.2.0.1", internal=True)
    made.lease("front", "10.1.0.2", WEB, "name web", "hostname Web-Host", "alias www", "alias shop.example")
    made.lease("front", "fd01::2", WEB, "name web", "hostname Web-Host", "alias www", "alias shop.example")
    made.lease("front", "10.1.0.9", CLIENT, "name client", "dns 192.0.2.53", "dns 192.0.2.54")
    made.lease("back", "10.2.0.9", CLIENT, "name client")
    made.lease("back", "10.2.0.3", DB, "name db", "alias www")
    made.lease("back", "10.2.0.4", OTHER, "name other")
    return made


class Asker:
    """Asks Names directly; the time goes on by more than any of its intervals with every question."""

    def __init__(self, networks: Networks) -> None:
        self.known = names.Names(str(networks.run))
        self.known.add("front", ["10.1.0.1", "fd01::1"])
        self.known.add("back", ["10.2.0.1"])
        self.now_ns = 10**9

    def view(self, source: str, network: str) -> names.View | None:
        self.now_ns += 10**9
        return self.known.view(source, network, self.now_ns)

    def __call__(
        self, name: str, kind: int = 1, source: str = "10.1.0.9", network: str = "front"
    ) -> list[str] | int:
        """The values of the answer, its rcode when there are none; -1: it would be asked outside."""
        view = self.view(source, network)
        assert view is not None
        found = names.answers(wire.question(question(name, kind)), view, self.known)
        if not found:
            return -1
        answer = Answer(b"\x12\x34" + found[0])
        return answer.values or answer.rcode


@pytest.fixture
def ask(networks: Networks) -> Asker:
    return Asker(networks)


@pytest.mark.parametrize(
    "name", ["web", "WEB", "web-host", "www", "shop.example", "a" * 12, "web.front", "www.front"]
)
def test_a_container_goes_by_many_names(ask: Asker, name: str) -> None:
    assert ask(name) == ["10.1.0.2"]


def test_names_of_a_network_are_known_on_it_alone(ask: Asker) -> None:
    assert ask("db") == ["10.2.0.3"]
    assert ask("db", source="10.1.0.2") == -1, "web is not on back"
    assert ask("other", source="10.1.0.2") == ask("other.back", source="10.1.0.2") == -1
    assert ask("db.front") == -1


def test_the_network_asked_comes_first(ask: Asker) -> None:
    assert ask("www") == ["10.1.0.2"]
    assert ask("www", source="10.2.0.9", network="back") == ["10.2.0.3"]
    assert ask("www.back") == ["10.2.0.3"]


def test_a_name_without_such_an_address_is_not_denied(ask: Asker) -> None:
    assert ask("web", TYPE_AAAA) == ["fd01::2"]
    assert ask("db", TYPE_AAAA) == ask("web", TYPE_MX) == 0


def test_backwards(ask: Asker) -> None:
    assert ask("2.0.1.10.in-addr.arpa", TYPE_PTR) == ["web.front"]
    assert ask("2" + ".0" * 27 + ".1.0.d.f.ip6.arpa", TYPE_PTR) == ["web.front"]
    assert ask("3.0.2.10.in-addr.arpa", TYPE_PTR) == ["db.back"]


@pytest.mark.parametrize("name", ["n" * 70, "a..b", "dot.", ".".join(["n" * 60] * 5), "\xe4" * 60])
def test_backwards_where_a_name_is_none_of_dns(networks: Networks, ask: Asker, name: str) -> None:
    """The short id, which leads to it as well; a stranger, who has none, is told of nobody."""
    networks.lease("front", "10.1.0.70", OTHER, f"name {name}")
    assert ask("70.0.1.10.in-addr.arpa", TYPE_PTR) == ["d" * 12 + ".front"]
    networks.network("x" * 70, "10.3.0.1")
    networks.lease("x" * 70, "10.3.0.9", CLIENT, "name client")
    ask.known.add("x" * 70, ["10.3.0.1"])
    assert ask("9.0.3.10.in-addr.arpa", TYPE_PTR) == ["c" * 12]
    (networks.run / "networks/front/leases/10.1.0.71").write_text("/sys/class/net/br666 1\n")
    assert ask("71.0.1.10.in-addr.arpa", TYPE_PTR) == 3


def test_our_own_addresses_are_asked_of_nobody(ask: Asker) -> None:
    assert ask("77.0.1.10.in-addr.arpa", TYPE_PTR) == 3
    assert ask("4.0.2.10.in-addr.arpa", TYPE_PTR, source="10.1.0.2") == 3, "a network it is not on"
    assert ask("4.0.3.10.in-addr.arpa", TYPE_PTR) == -1
    for nonsense in (
        "in-addr.arpa",
        "x.0.1.10.in-addr.arpa",
        "300.0.1.10.in-addr.arpa",
        "1.ip6.arpa",
        "g" * 32,
    ):
        assert ask(nonsense, TYPE_PTR) == -1


def test_further_subnets_are_ours_as_well(networks: Networks) -> None:
    """As network.json tells of them; one that cannot be read tells of nothing, and harms nobody."""
    four = [
        {"subnet": "10.1.0.0/24", "gateway": "10.1.0.1"},
        {"subnet": "10.7.0.0/16", "gateway": "10.7.0.1"},
    ]
    subnets = {"subnets4": four, "subnets6": [{"subnet": "fd07::/64", "gateway": "fd07::1"}]}
    networks.lease("front", "10.7.0.2", OTHER, "name far")
    file = networks.run / "networks/front/network.json"
    far, nobody, nobody6 = (
        "2.0.7.10.in-addr.arpa",
        "9.0.7.10.in-addr.arpa",
        "9" + ".0" * 27 + ".7.0.d.f.ip6.arpa",
    )
    for text, expected in (
        (json.dumps(subnets), 3),
        ("{", -1),
        ('{"subnets4": 5, "subnets6": [7]}', -1),
        ("[]", -1),
    ):
        file.write_text(text)
        ask = Asker(networks)
        assert ask(far, TYPE_PTR) == ["far.front"]
        assert ask(nobody, TYPE_PTR) == ask(nobody6, TYPE_PTR) == expected, text
        assert ask("77.0.1.10.in-addr.arpa", TYPE_PTR) == 3
        # the host itself, which asks from the gateway; and no question is ever forwarded to us
        gateways = {"10.1.0.1", "fd01::1", "10.2.0.1"} | ({"10.7.0.1", "fd07::1"} if expected == 3 else set())
        assert set(ask.known.gateways) == gateways
        assert (ask.view("10.7.0.1", "front") is not None) is (expected == 3)
    ask.known.forget("front")
    assert set(ask.known.gateways) == {"10.2.0.1"}


def test_several_addresses_take_turns(networks: Networks, ask: Asker) -> None:
    for number in range(20, 23):
        networks.lease("front", f"10.1.0.{number}", f"{number}" * 32, f"name w{number}", "alias pool")
    view = ask.view("10.1.0.9", "front")
    assert view is not None
    found = [
        Answer(b"\0\0" + each).values
        for each in names.answers(wire.question(question("pool")), view, ask.known)
    ]
    assert len(found) == 3 and {each[0] for each in found} == set(found[0])
    assert all(sorted(each) == sorted(found[0]) for each in found)


def test_who_was_killed_before_it_had_an_undo_list_is_no_answer(networks: Networks, ask: Asker) -> None:
    networks.lease("front", "10.1.0.50", "e" * 64, "name twice")
    networks.lease("front", "10.1.0.51", "f" * 64, "name twice")
    os.rmdir(networks.run / "containers" / ("e" * 64))
    assert ask("twice") == ["10.1.0.51"]


def test_servers_of_its_own_and_internal(ask: Asker) -> None:
    client, web, other = (
        ask.view("10.1.0.9", "front"),
        ask.view("10.1.0.2", "front"),
        ask.view("10.2.0.4", "back"),
    )
    assert client is not None and web is not None and other is not None
    assert client.dns == ("192.0.2.53", "192.0.2.54") and web.dns == ()
    assert not client.internal and not web.internal and other.internal


@pytest.mark.parametrize(
    ("text", "internal"),
    [
        ("pyrun-template 4\nname front\ninternal False\ngateway 10.1.0.1\nprefix 24\nend\n", False),
        ("pyrun-template 4\nname front\ninternal True\ngateway 10.1.0.1\nprefix 24\nend\n", True),
        ("pyrun-template 9\nsomething:else\n", True),
        ("", True),
    ],
)
def test_a_network_of_another_version(networks: Networks, text: str, internal: bool) -> None:
    """What cannot be read is not let out."""
    (networks.run / "networks/front/template").write_text(text)
    view = Asker(networks).view("10.1.0.2", "front")
    assert view is not None and view.internal is internal


def test_a_template_as_it_is_made_is_understood(networks: Networks) -> None:
    from pyrun.network import records, templates

    told = {"name": "front", "bridge": "pyr1", "index": 1, "mtu": 1500, "gateway": "10.1.0.1", "prefix": 24,
               "gateway6": "", "internal": False}  # fmt: skip
    for leads_out in (True, False):
        text = templates.text(records.parsed({**told, "internal": not leads_out}))
        (networks.run / "networks/front/template").write_text(text)
        view = Asker(networks).view("10.1.0.2", "front")
        assert view is not None and view.internal is not leads_out


def test_the_host_itself_may_ask_for_names_and_nobody_else(ask: Asker) -> None:
    assert ask("web", source="10.1.0.1") == ["10.1.0.2"]
    host = ask.view("10.1.0.1", "front")
    assert host is not None and host.internal
    assert ask.view("10.1.0.77", "front") is None and ask.view("10.2.0.9", "front") is None


def test_leases_that_come_and_go_are_seen_at_once(networks: Networks, ask: Asker) -> None:
    """However coarse the directory's time is: a change within the tick of the last listing counts too."""
    for number in range(100):
        path = networks.lease("front", "10.1.0.60", f"{number:064d}", f"name n{number}")
        assert ask(f"n{number}") == ["10.1.0.60"]
        assert ask(f"n{number - 1}") == -1
        path.unlink()
        assert ask(f"n{number}") == -1


def test_a_listing_of_a_young_directory_is_not_trusted(networks: Networks, ask: Asker) -> None:
    """A clock of 10 ms and more, as some kernels have: two changes with one time."""
    directory = networks.run / "networks" / "front" / "leases"
    now_ns = time.time_ns()
    os.utime(directory, ns=(now_ns, now_ns))
    assert ask("late") == -1
    networks.lease("front", "10.1.0.61", OTHER, "name late")
    os.utime(directory, ns=(now_ns, now_ns))
    assert ask("late") == ["10.1.0.61"]


def test_a_network_that_is_forgotten(ask: Asker) -> None:
    ask.known.forget("back")
    assert ask("db") == -1 and ask("web") == ["10.1.0.2"]


def on_a_card(networks: Networks, ask: Asker, *lines: str) -> None:
    """OTHER is on a card's network besides, and asks inside its own namespace."""
    (networks.run / "networks/lan/leases").mkdir(parents=True)
    (networks.run / "networks/lan/network.json").write_text('{"subnets4": [{"subnet": "192.0.2.0/24"}]}')
    networks.lease("lan", "192.0.2.8", OTHER, "name other", "dns 192.0.2.53", *lines)
    networks.lease("lan", "192.0.2.9", CLIENT, "name client", "internal")
    ask.known.add("lan", ["", ""])
    ask.known.add_container(OTHER)


def test_a_container_is_answered_inside(networks: Networks, ask: Asker) -> None:
    on_a_card(networks, ask)
    inside = {"source": OTHER, "network": OTHER}
    assert ask.known.alone(OTHER) == OTHER and ask.known.alone("lan") == ""
    assert ask("client", **inside) == ["10.2.0.9"], "of the first network that knows it"
    assert ask("client.lan", **inside) == ["192.0.2.9"]
    view = ask.view(OTHER, OTHER)
    assert view is not None and view.inside == OTHER and view.dns == ("192.0.2.53",)
    ask.known.forget(OTHER)
    assert ask.view(OTHER, OTHER) is None


def test_a_segment_is_somebody_elses(networks: Networks, ask: Asker) -> None:
    """Its addresses may have names outside, and its gateway is no address of this host's."""
    on_a_card(networks, ask)
    assert ask("7.2.0.192.in-addr.arpa", 12) == -1
    assert "192.0.2.1" not in ask.known.gateways


@pytest.mark.parametrize("confined", [True, False])
def test_an_internal_network_on_a_card(networks: Networks, ask: Asker, confined: bool) -> None:
    on_a_card(networks, ask, *(["internal"] if confined else []))
    ask.known.forget("back")
    view = ask.view(OTHER, OTHER)
    assert view is not None and view.internal is confined


def test_hostile_leases_harm_nobody(networks: Networks, ask: Asker) -> None:
    directory = networks.run / "networks" / "front" / "leases"
    (directory / "10.1.0.70").write_bytes(b"\xff\xfe\0\n\nname \n alias\nname\n" + b"x" * 70000)
    (directory / "10.1.0.71").write_bytes(b"")
    (directory / "no-address").mkdir()
    assert ask("web") == ["10.1.0.2"]
    assert ask.view("10.1.0.71", "front") is None


# ── memory of answers, accounts, servers ───────────────────────────────────────────────────────────


def test_answers_are_remembered_as_long_as_they_say_and_no_longer_than_we_do() -> None:
    known = cache.Cache()
    known.put(((), b"short"), b"1", [], 2.0, 100.0)
    known.put(((), b"long"), b"2", [("192.0.2.1", 86400)], 86400.0, 100.0)
    known.put(((), b"never"), b"3", [], 0, 100.0)
    assert known.get(((), b"short"), 101.9) == (b"1", []) and known.get(((), b"short"), 102.0) is None
    assert known.get(((), b"long"), 100.0 + cache.MOST_S - 0.1) == (b"2", [("192.0.2.1", 86400)])
    assert known.get(((), b"long"), 100.0 + cache.MOST_S) is None
    assert known.get(((), b"never"), 100.0) is None
    assert known.get((("192.0.2.9",), b"short"), 100.0) is None, "of other servers"


def test_the_memory_of_answers_is_bounded() -> None:
    known = cache.Cache()
    for number in range(cache.MOST_ANSWERS + 10):
        known.put(((), b"%d" % number), b"x", [], 5.0, 0.0)
    assert known.get(((), b"9"), 1.0) is None and known.get(((), b"10"), 1.0) is not None
    known.put(((), b"big"), b"x" * 5000, [], 5.0, 0.0)
    assert known.get(((), b"big"), 1.0) is None


def test_accounts() -> None:
    account = budget.Budget()
    account.renew(0.0)
    assert sum(account.may_read("a") for _ in range(10_000)) <= budget.COSTLY // budget.READ_COST + 1
    assert account.may_read("b"), "one's flood is not another's"
    assert not account.mutes("a", 10.0), "reading alone is no flood"
    account.spent["a"] = budget.FLOOD
    told = [account.mutes("a", at) for at in (10.0, 10.5, 11.0, 14.0, 15.0, 31.0, 91.0, 1000.0)]
    assert told == [1, 0, 4, 0, 16, 60, 60, 1], "longer for who does not stop, and forgiven"
    account.renew(budget.PERIOD_S)
    assert account.may_read("a")
    for number in range(10_000):
        account.spent[f"{number}"] = 1
    account.renew(budget.PERIOD_S * 1.5)
    assert len(account.spent) == 0


def test_servers_are_the_hosts_or_those_given(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# nameserver 192.0.2.9\nsearch x\nnameserver 127.0.0.53\nnameserver 2001:db8::1\n"
                    "nameserver nonsense\nnameserver 0.0.0.0\nnameserver 10.1.0.1\nnameserver\n")  # fmt: skip
    servers = upstream.Servers(str(file))
    servers.own = {"10.1.0.1"}
    assert servers.of((), 0.0) == ("127.0.0.53", "2001:db8::1")
    assert servers.of(("192.0.2.1", "10.1.0.1"), 0.0) == ("192.0.2.1",)
    servers.note("127.0.0.53", answered=False, now_s=0.0)
    assert servers.of((), 0.1) == ("2001:db8::1", "127.0.0.53"), "who was silent is asked last"
    servers.note("127.0.0.53", answered=True, now_s=0.2)
    assert servers.of((), 0.3)[0] == "127.0.0.53"
    file.write_text("nameserver 192.0.2.77\n")
    assert servers.of((), 0.5)[0] == "127.0.0.53" and servers.of((), 2.0) == ("192.0.2.77",)
    file.unlink()
    assert servers.of((), 4.0) == ()
