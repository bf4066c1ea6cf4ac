"""The pure parts of the network: what is encoded, what is chosen, what is refused."""

from __future__ import annotations

import os
import posix
import re
import socket
import struct
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pyrun import notice
from pyrun.errors import NetworkError, UsageError
from pyrun.network import (
    attach,
    endpoint,
    explain,
    explain_drivers,
    guard,
    health,
    host,
    later,
    leases,
    messages,
    rebuilding,
    records,
    requests,
    resolver,
    subnets,
    wiring,
)
from pyrun.network.egress import explain as explain_egress
from pyrun.network.publishing import ports, reservation
from pyrun.plan.operations import Operation
from pyrun.stages import network as stage

FOUR = {
    "subnet": "10.77.0.0/16",
    "gateway": "10.77.0.1",
    "prefix": 16,
    "broadcast": "10.77.255.255",
    "range": "",
}
SIX = {"subnet": "fd77:1::/64", "gateway": "fd77:1::1", "prefix": 64, "broadcast": "", "range": ""}
NETWORK: dict[str, object] = {
    **records.DEFAULTS,
    "name": "bridge",
    "id": "ab" * 32,
    "bridge": "pyrun0",
    "index": 77,
    "mtu": 1450,
    **FOUR,
    "subnets4": [FOUR],
    "gateway6": "fd77:1::1",
    "prefix6": 64,
    "subnets6": [SIX],
}


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(posix.environ, b"PYRUN_RUNROOT", str(tmp_path).encode())
    (tmp_path / "networks").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def template() -> messages.Template:
    from pyrun.network import templates

    parsed = messages.parsed(templates.text(NETWORK))
    assert parsed is not None
    return parsed


# ── templates ──────────────────────────────────────────────────────────────────────────────────────


def values(seed: int) -> dict[str, bytes]:
    """Values of a start, none of them a mark; for every mark there is."""
    found = {
        "name": f"pyv{seed:012x}".encode(),
        "alias": f"web-{seed}".ljust(messages.ALIAS_BYTES, "x").encode(),
        "inside": b"ethernet.twenty",
        "mac": bytes([2, 0x42, 10, 77, seed % 256, 9]),
        "namespace": messages.u32(seed % 1000 + 3),
        "index": messages.u32(seed % 500 + 2),
        "address": socket.inet_aton(f"10.77.{seed % 256}.9"),
        "broadcast": socket.inet_aton("10.77.255.255"),
        "gateway": socket.inet_aton("10.77.0.1"),
        "prefix": bytes([16 + seed % 8]),
        "address6": socket.inet_pton(socket.AF_INET6, f"fd77:1::{seed % 65536:x}"),
        "key": bytes([6, 0, 0, 0, seed % 256, 80, 0, 0]),
        "key-at": bytes([192, 0, 2, 1, 17, 0, 0, 0, seed % 256, 80, 0, 0]),
        "key6-at": bytes([0x20, 1, 13, 0xB8, *[0] * 12, 17, 0, 0, 0, seed % 256, 80, 0, 0]),
        "target": bytes([10, 77, 0, 9, 0, seed % 256, 0, 0]),
        "target6": bytes([0xFD, 0x77, *[0] * 14, 0, seed % 256, 0, 0]),
        "protocol": bytes([17]),
        "port": bytes([seed % 256, 53]),
    }
    from pyrun.network import templates

    assert set(found) == set(templates.MARKS), "a value for every mark"
    return found


def given(name: str, line: str, real: dict[str, bytes]) -> dict[str, bytes]:
    """The values that the message *name* has places for, as its *line* in the template tells."""
    fields = set(re.findall("<([a-z0-9]+)>", line))
    marks = {field: field for field in fields}
    if name.endswith("-at"):
        marks["key"] = "key6-at" if "6" in name else "key-at"
    if "6" in name:
        marks["target"] = "target6"
    return {field: real[marks[field]] for field in fields}


@pytest.mark.parametrize("seed", [0, 1, 12345, 0xFFFFFFFFFFFF])
def test_a_filled_template_is_what_pyroute2_encodes(template: messages.Template, seed: int) -> None:
    from pyrun.network import templates

    real = values(seed)
    for name, encoded in templates.encode(NETWORK, real).items():
        filled = messages.filled(template, name, **given(name, template[f"message {name}"], real))
        assert filled == encoded, name


def test_every_place_is_as_long_as_its_value(template: messages.Template) -> None:
    """Each message's own length field still tells its length after filling."""
    real = values(7)
    for key in [key for key in template if key.startswith("message ")]:
        filled = messages.filled(
            template, key.removeprefix("message "), **given(key.removeprefix("message "), template[key], real)
        )
        assert 0 <= len(filled) - int.from_bytes(filled[:4], "little") < 4


@pytest.mark.parametrize(("said", "asked_again"), [(b"bridge\t5353", 0), (b"bridge\t-98", 1), (b"", 1)])
def test_a_resolver_that_was_asked_for_early(
    template: messages.Template, monkeypatch: pytest.MonkeyPatch, said: bytes, asked_again: int
) -> None:
    """While the links are made; a guard that ends meanwhile, or fails, is asked again, and tells why."""
    again: list[list[guard.Gateway]] = []
    noted: list[int] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        monkeypatch.setattr(guard, "connected", lambda: ours)
        monkeypatch.setattr(guard, "need", lambda asked: again.append(asked) or {"bridge": 53})
        monkeypatch.setattr(rebuilding, "note_resolver", lambda network, port: noted.append(port))
        link = attach.Attachment({"bridge": {**template, "dns_port": "53"}}, os.getpid(), None)
        try:
            attach.tell_guard(link, ["bridge"], [])
            assert theirs.recv(100).decode().split() == [
                "need",
                "bridge",
                template["gateway"],
                template["gateway6"],
            ]
            theirs.send(said) if said else theirs.close()
            attach.names(link, "bridge", "")
        finally:
            link.close()
    assert len(again) == asked_again
    assert noted == ([] if asked_again else [5353])
    assert ours.fileno() == -1


@pytest.mark.parametrize(
    ("said", "told"), [(b"0", ""), (b"-2", ""), (b"-24", "cannot be reserved: Too many open")]
)
def test_published_ports_are_given_away_on_the_same_connection(
    template: messages.Template,
    monkeypatch: pytest.MonkeyPatch,
    said: bytes,
    told: str,
) -> None:
    """In front of the question, whose answer therefore is the second; what became of them is heard too."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard: list[str] = []
    monkeypatch.setattr(notice, "_sinks", [heard.append])
    monkeypatch.setattr(guard, "connected", lambda: ours)
    link = attach.Attachment({"bridge": {**template, "dns_port": "53"}}, os.getpid(), None)
    bound = reservation.bound("127.0.0.1", 0, "tcp")
    try:
        attach.tell_guard(link, ["bridge"], [("tcp-127.0.0.1-80", bound, "")])
        text, fds, _, _ = socket.recv_fds(theirs, 100, 2)
        with socket.socket(fileno=fds[0]) as given_away:
            assert text == b"hold\ntcp-127.0.0.1-80\t" and given_away.getsockname()[0] == "127.0.0.1"
        assert theirs.recv(100).startswith(b"need\nbridge\t") and bound.fileno() == -1
        theirs.send(b"tcp-127.0.0.1-80\t" + said)
        theirs.send(b"bridge\t53")
        attach.names(link, "bridge", "")
    finally:
        link.close()
        theirs.close()
    assert told in "".join(heard) and bool(told) is bool(heard)
    assert ours.fileno() == -1


def test_a_value_that_is_not_given_is_a_mistake(template: messages.Template) -> None:
    with pytest.raises(ValueError):
        messages.filled(template, "route", gateway=b"1234")


@pytest.mark.parametrize("by_chance", ["prefix", "protocol", "port", "index"])
def test_a_mark_by_chance_is_left_alone(by_chance: str) -> None:
    """In the number of a bridge, or in the MTU."""
    from pyrun.network import templates

    number = int.from_bytes(templates.MARKS[by_chance][:2], "little")
    network = {**NETWORK, "index": number, "mtu": number}
    found = messages.parsed(templates.text(network))
    assert found is not None
    real = values(3)
    for name, encoded in templates.encode(network, real).items():
        assert messages.filled(found, name, **given(name, found[f"message {name}"], real)) == encoded, name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pyrun-template 0\nend\n",
        "pyrun-template 4\nbridge\tpyrun0\nend\n",
        "pyrun-template 7\nbridge\tpyrun0\n",
    ],
)
def test_another_versions_template_is_none(text: str) -> None:
    assert messages.parsed(text) is None


def test_netlink_answers_are_split() -> None:
    data = b"".join(
        length.to_bytes(4, "little") + b"\2\0" + bytes(10) + bytes([length] * (length - 16))
        for length in (20, 24)
    )
    assert messages.split(data) == [(2, bytes([20] * 4)), (2, bytes([24] * 8))]


class Socket:
    """Answers with datagrams prepared before."""

    def __init__(self, *datagrams: bytes) -> None:
        self.datagrams = list(datagrams)

    def send(self, data: bytes) -> None:
        """Nobody reads it."""

    def recv(self, size: int) -> bytes:
        return self.datagrams.pop(0)


def test_a_dump_is_whole_wherever_its_end_comes() -> None:
    row, done = (message_of(kind, b"1234") for kind in (20, 3))
    for datagrams in ((row, row, done), (row + row + done,), (row, row + done)):
        assert messages.dump(Socket(*datagrams), b"") == row + row  # type: ignore[arg-type]
    assert messages.dump(Socket(done), b"") == b""  # type: ignore[arg-type]


def message_of(kind: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, 2, 0, 0) + payload


def test_attributes_of_a_torn_answer_do_not_loop() -> None:
    assert health.attributes(b"\0\0\0\0" + b"\0\0\5\0" * 3, 4) == {}
    assert health.policy(b"") == 1


# ── the plan ───────────────────────────────────────────────────────────────────────────────────────


def wanted(network: str = "bridge", **given: object) -> dict[str, object]:
    return {**requests.ENDPOINT, "network": network, **given}


def wire(template: messages.Template, **given: object) -> dict[str, object]:
    return endpoint.look(wanted(**given), template, "ab" * 32, 0, "eth0")


PUBLISHED = [
    ("0.0.0.0", 8080, 80, "tcp"),
    ("::", 8080, 80, "tcp"),
    ("127.0.0.1", 53, 53, "udp"),
    ("::1", 81, 80, "tcp"),
    ("192.0.2.1", 8081, 80, "tcp"),
    ("2001:db8::1", 8081, 80, "tcp"),
]
# Closed on one address of each family, and on all IPv4 addresses.
SHUT = [("0.0.0.0", 8080, "tcp"), ("192.0.2.1", 8081, "tcp")]


def test_every_operation_is_explained_and_performed(template: messages.Template, run_directory: Path) -> None:
    asked_for = wire(template, ip="10.77.0.9")
    planned = stage._connecting("web", "owner 1 2", [asked_for], PUBLISHED, SHUT, ["eth0"])
    assert {operation.kind for operation in planned} == set(attach.PERFORM)
    planned += [Operation("LEASE", "10.77.0.2", "bridge"), Operation("PORT", "0.0.0.0", 80, "tcp")]
    planned += [Operation("NETWORK", "pyrun0", "10.77.0.1", 16)]
    planned += [
        Operation("NETNS_FILE", "/x/netns"),
        Operation("USER_NETWORK", "pasta", "/x/pasta.pid", "/x/netns"),
    ]
    planned += [Operation("FORWARD", "0.0.0.0", 8080, 80, "tcp")]
    own = set(explain.EXPLAIN) - set(explain_drivers.EXPLAIN) - set(explain_egress.EXPLAIN)
    assert {operation.kind for operation in planned} == own
    for operation in planned:
        sentence, _, see = explain.EXPLAIN[operation.kind](operation)
        assert sentence[0].islower()
        assert see or operation.kind == "ANNOUNCE"


@pytest.mark.parametrize("there", [True, False])
def test_what_is_explained_can_be_typed_without_ipv6(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(host, "has_ipv6", lambda: there)
    veth = Operation("VETH", "pyv0", "pyrun0", "02:42:0a:4d:00:02", "web", "eth0", "bridge")
    lines = [explain.EXPLAIN[each.kind](each)[1] for each in (veth, Operation("NETNS_ENTER"))]
    assert ("addrgenmode" in lines[0]) is there
    assert ("ipv6" in lines[1]) is there


def test_a_port_is_closed_or_opened_by_its_address(template: messages.Template) -> None:
    """One element a port that anybody outside could reach, in the set of its family and kind, keyed as nft keys it."""
    from pyrun.network import elements, firewall, nft
    from pyrun.network.publishing import shutting

    planned = stage._connecting("web", "o 1 2", [wire(template)], PUBLISHED, SHUT, [])
    assert [(each.kind, *each.args) for each in planned if each.kind in ("CLOSE", "OPEN")] == [
        ("CLOSE", "0.0.0.0", 8080, "tcp"), ("OPEN", "::", 8080, "tcp"),
        ("CLOSE", "192.0.2.1", 8081, "tcp"), ("OPEN", "2001:db8::1", 8081, "tcp"),
    ]  # fmt: skip
    port = b"\6\0\0\0" + (8081).to_bytes(2, "big") + b"\0\0"
    for place, name, address in (
        ("0.0.0.0", b"closed", b""), ("192.0.2.1", b"closed_at", socket.inet_aton("192.0.2.1")),
        ("::", b"closed6", b""), ("2001:db8::1", b"closed6_at", socket.inet_pton(socket.AF_INET6, "2001:db8::1")),
    ):  # fmt: skip
        for action, kind in (("shut", nft.NEW_ELEMENT), ("unshut", nft.DELETE_ELEMENT)):
            made = elements.shut(template, action, place, 8081, "tcp")
            assert made == nft.elements(kind, firewall.TABLE, name.decode(), [{"key": address + port}])
            assert shutting.of_key(address + port, "" if address else place) == (place, 8081, "tcp")


def undo(
    template: messages.Template, wires: list[dict[str, object]], published: list[ports.Port]
) -> list[str]:
    request = {"id": "ab" * 32, "name": "web"}
    return wiring.undo(request, {str(each["network"]): template for each in wires}, wires, published, "o 1 2")


def test_links_go_down_before_what_came_later_is_undone_and_the_name_goes_last(
    template: messages.Template, run_directory: Path
) -> None:
    lines = undo(template, [wire(template)], [])
    assert [line.split("\t")[0] for line in lines] == [
        "netlink", "also", "netlink", "unlink-if", "unlink-if", "guard", "umount", "unlink", "unlink-if", "end",
    ]  # fmt: skip
    assert lines[0].startswith("netlink\t0"), (
        "the link goes down before its policy goes and its addresses are free"
    )
    assert lines[1] == f"also\t{run_directory}/containers/{'ab' * 32}/more.undo"
    assert later.inserted(lines, ["more"]) == [*lines[:2], "more", *lines[2:]], "as a policy or a rate is"
    assert lines[3].endswith("/leases/10.77.0.2\to 1 2") and lines[4].endswith("/leases/fd77:1::a4d:2\to 1 2")


def test_the_undo_list_frees_a_port_only_for_its_owner(
    template: messages.Template, run_directory: Path
) -> None:
    published = [("0.0.0.0", 53, 53, "udp"), ("::1", 80, 80, "tcp"), ("127.0.0.1", 80, 80, "tcp")]
    words = [line.split("\t") for line in undo(template, [wire(template)], published)]
    assert [row[0] for row in words][:17] == [
        "netlink", "also",
        "guard", "netlink", "end", "unlink-if",  # the first port: an element, a claim
        "unlink-if",  # what is relayed from ::1 has no element
        "guard", "netlink", "end", "unlink-if",
        "guard", "netlink", "end", "guard", "flows6", "end",  # flows to either address
    ]  # fmt: skip
    assert words[2][1:] == words[5][1:]
    assert words[2][1].endswith("/ports/udp-0.0.0.0-53")
    leased = {
        row[1]: number for number, row in enumerate(words) if row[0] == "unlink-if" and "/leases/" in row[1]
    }
    for number in (11, 14):
        assert leased[words[number][1]] > number, "flows are forgotten while the address is still leased"


def test_no_line_of_the_undo_list_is_longer_than_the_monitor_reads(
    template: messages.Template, run_directory: Path
) -> None:
    published = [("192.0.2.1", number, 80, "tcp") for number in range(1, 1001)]
    lines = undo(template, [wire(template)], published)
    assert max(map(len, lines)) < 65536
    assert len([line for line in lines if line.startswith("netlink\t12")]) >= 1000, "each port for itself"


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
        stage.check({"mode": "bridge", "ports": [port]})


def test_the_same_port_twice() -> None:
    with pytest.raises(UsageError, match=r"both want port 8080/tcp"):
        stage.check({"mode": "bridge", "ports": [("", 8080, 80, "tcp"), ("0.0.0.0", 8080, 81, "tcp")]})
    stage.check({"mode": "bridge", "ports": [("", 8080, 80, "tcp"), ("", 8080, 80, "udp")]})


def test_more_networks_than_a_container_may_have() -> None:
    many = [wanted(f"n{number}") for number in range(messages.MOST_LINKS + 1)]
    with pytest.raises(UsageError, match=f"given {len(many)} times: {messages.MOST_LINKS} at most"):
        stage.check({"mode": "bridge", "endpoints": many, "ports": []})
    stage.check({"mode": "bridge", "endpoints": many[1:], "ports": []})


def test_every_link_has_a_name_of_its_own() -> None:
    names = [messages.host_link("ab" * 32, number) for number in range(messages.MOST_LINKS)]
    assert len(set(names)) == messages.MOST_LINKS
    assert {len(name) for name in names} == {15}
    # a bundle's container may be called anything
    assert len({messages.host_link(name) for name in ("a", "b", "../x", "ä" * 99)}) == 4


# ── subnets and name servers ───────────────────────────────────────────────────────────────────────


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
    assert subnets.choose(map(IPv4Network, obstacles)) == IPv4Network(chosen)


def test_no_subnet_left() -> None:
    everything = map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
    with pytest.raises(NetworkError, match="no private subnet is free"):
        subnets.choose(everything)


def resolv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, behind: str = "") -> list[str]:
    (tmp_path / "resolv.conf").write_text(text)
    (tmp_path / "behind").write_text(behind)
    monkeypatch.setattr(resolver, "HOST_FILE", str(tmp_path / "resolv.conf"))
    monkeypatch.setattr(resolver, "BEHIND_STUB", str(tmp_path / "behind"))
    return resolver.reachable(fall_back=True)


def test_loopback_and_ipv6_servers_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "# a\nsearch example.org\nnameserver 127.0.0.1\nnameserver ::1\nnameserver\t192.0.2.53\noptions ndots:2\n"
    assert resolv(tmp_path, monkeypatch, text) == [
        "search example.org",
        "nameserver 192.0.2.53",
        "options ndots:2",
    ]


def test_the_servers_behind_the_stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolv(tmp_path, monkeypatch, "nameserver 127.0.0.53\n", "nameserver 192.0.2.9\n") == [
        "nameserver 192.0.2.9"
    ]


@pytest.mark.parametrize("text", ["", "nameserver 127.0.0.1\n", "nameserver\n"])
def test_nothing_left_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    said: list[str] = []
    monkeypatch.setattr(notice, "_sinks", [said.append])
    assert resolv(tmp_path, monkeypatch, text) == ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]
    assert len(said) == 1


def test_the_mac_of_a_lease_fits_its_place(template: messages.Template) -> None:
    assert len(bytes.fromhex(leases.mac("10.77.0.2").replace(":", ""))) == 6
    assert "<mac>" in template["message link"]
