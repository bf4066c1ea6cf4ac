"""What a start plans for its network: the operations, and the list that undoes them."""

from __future__ import annotations

import posix
import socket
from pathlib import Path

import pytest

from pyrun.network import (
    endpoint,
    host,
    live_undo,
    messages,
    requests,
    tags,
    wiring,
)
from pyrun.network.publishing import ports
from pyrun.plan import catalogue, performers
from pyrun.plan.catalogue import network
from pyrun.plan.operations import Operation


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(posix.environ, b"PYRUN_RUNROOT", str(tmp_path).encode())
    (tmp_path / "networks").mkdir()
    return tmp_path


def wire(template: messages.Template, ip: str = "") -> endpoint.Wire:
    wanted = requests.Endpoint("bridge")
    wanted.ip = ip
    return endpoint.look(wanted, template, "ab" * 32, 0, "eth0")


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


def connecting(made: endpoint.Wire, no_ipv6: list[str]) -> list[Operation]:
    had = wiring.Claimed("owner 1 2")
    had.wires, had.ports, had.shut = [made], list(PUBLISHED), SHUT
    return wiring._connecting("web", had, no_ipv6)


def test_every_operation_is_explained_and_performed(template: messages.Template, run_directory: Path) -> None:
    asked_for = wire(template, ip="10.77.0.9")
    planned = connecting(asked_for, ["eth0"])
    assert {operation.kind for operation in planned} <= set(performers.PERFORMERS)
    planned += [Operation("LEASE", "10.77.0.2", "bridge"), Operation("PORT", "0.0.0.0", 80, "tcp")]
    planned += [Operation("NETWORK", "pyrun0", "10.77.0.1", 16)]
    planned += [
        Operation("NETNS_FILE", "/x/netns"),
        Operation("USER_NETWORK", "pasta", "/x/pasta.pid", "/x/netns"),
    ]
    planned += [Operation("FORWARD", "0.0.0.0", 8080, 80, "tcp", "/x/slirp.sock")]
    assert {operation.kind for operation in planned} == set(network.ROWS)
    for operation in planned:
        sentence, _, see = catalogue.explain(operation)
        assert sentence[0].islower()
        assert see or operation.kind == "ANNOUNCE"


@pytest.mark.parametrize("there", [True, False])
def test_what_is_explained_can_be_typed_without_ipv6(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(host, "has_ipv6", lambda: there)
    veth = Operation("VETH", "pyv0", "pyrun0", "02:42:0a:4d:00:02", "web", "eth0", "bridge")
    lines = [catalogue.explain(each)[1] for each in (veth, Operation("NETNS_ENTER"))]
    assert ("addrgenmode" in lines[0]) is there
    assert ("ipv6" in lines[1]) is there


def test_a_port_is_closed_or_opened_by_its_address(template: messages.Template) -> None:
    """One element a port that anybody outside could reach, in the set of its family and kind, keyed as nft keys it."""
    from pyrun.network import elements, nft
    from pyrun.network.publishing import shutting

    planned = connecting(wire(template), [])
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
            assert made == nft.elements(kind, tags.table(), name.decode(), [{"key": address + port}])
            assert shutting.of_key(address + port, "" if address else place) == (place, 8081, "tcp")


def test_every_link_has_a_name_of_its_own() -> None:
    names = [messages.host_link("ab" * 32, number) for number in range(messages.MOST_LINKS)]
    assert len(set(names)) == messages.MOST_LINKS
    assert {len(name) for name in names} == {15}
    # a bundle's container may be called anything
    assert len({messages.host_link(name) for name in ("a", "b", "../x", "ä" * 99)}) == 4


# ── the undo list ──────────────────────────────────────────────────────────────────────────────────


def undo(template: messages.Template, wires: list[endpoint.Wire], published: list[ports.Port]) -> list[str]:
    templates = {each.network: template for each in wires}
    return wiring.undo("ab" * 32, "web", templates, wires, published, "o 1 2")


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
    assert live_undo.inserted(lines, ["more"]) == [*lines[:2], "more", *lines[2:]], "as a policy or a rate is"
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
