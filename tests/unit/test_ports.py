"""Published ports on the host: settled, claimed, reserved; what excludes what."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pyrun.errors import Conflict, NetworkError
from pyrun.network import claims
from pyrun.network.publishing import choosing, occupant, ports, reservation
from pyrun.network.publishing.ports import ANY, ANY6, HostRange, Port
from waiting import until


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PYRUN_RUNROOT", str(tmp_path))
    (tmp_path / "networks").mkdir()
    yield tmp_path
    reservation.let_go()


def record(letter: str) -> str:
    return claims.write_record(claims.owner(letter * 64), [f"name {letter}{letter}"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# ── what is on disk ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "published",
    [
        [],
        [(ANY, 8080, 80, "tcp"), ("192.0.2.1", 53, 5353, "udp")],
        [(ANY, 8000 + n, 9000 + n, "tcp") for n in range(5)],
        [(ANY, 8000, 80, "tcp"), (ANY, 8001, 80, "tcp"), (ANY, 8002, 81, "tcp"), (ANY, 8003, 82, "udp")],
        [(ANY, 8000, 80, "tcp"), (ANY6, 8000, 80, "tcp"), (ANY, 8001, 81, "tcp"), (ANY6, 8001, 81, "tcp")],
        [("::1", 8000, 80, "tcp"), ("2001:db8::1", 8000, 80, "sctp")],
    ],
)
def test_ports_come_back_from_a_record(published: list[Port]) -> None:
    assert ports.parse(["id 1 2", "name web", *ports.lines(published)]) == published


def test_a_range_is_one_line() -> None:
    assert ports.lines([(ANY, 8000, 80, "tcp")]) == ["port tcp 0.0.0.0 8000 80"]
    assert ports.lines([(ANY, 8000 + n, 80 + n, "tcp") for n in range(5000)]) == [
        "port tcp 0.0.0.0 8000 80 5000"
    ]


# ── what excludes what ─────────────────────────────────────────────────────────────────────────────

PLACES = (ANY, "127.0.0.1", "127.0.0.2", ANY6, "::1", "2001:db8::1")


def excludes(one: str, other: str) -> bool:
    same_family = (":" in one) == (":" in other)
    return same_family and (one == other or {one, other} & {ANY, ANY6} != set())


@pytest.mark.parametrize("first", PLACES)
@pytest.mark.parametrize("second", PLACES)
def test_every_pair_of_addresses(first: str, second: str) -> None:
    one, two = record("a"), record("b")
    ports.claim((first, 8080, 80, "tcp"), one)
    port = (second, 8080, 80, "tcp")
    if not excludes(first, second):
        ports.refuse_taken([port])
        ports.claim(port, two)
        return
    with pytest.raises(Conflict, match=r":8080/tcp is already published by container aa"):
        ports.refuse_taken([port])
    with pytest.raises(Conflict, match=r":8080/tcp is already published by container aa"):
        ports.claim(port, two)
    # nothing half-made: whoever lost holds nothing
    assert claims.holder(ports.path(port)) in ("", claims.holder(one))
    ports.claim((second, 8080, 80, "udp"), two)
    ports.claim((second, 8081, 80, "tcp"), two)


def test_a_wildcard_excludes_every_address(run_directory: Path) -> None:
    one = claims.write_record(claims.owner("a" * 64), ["name one"])
    ports.claim(("127.0.0.1", 8080, 80, "tcp"), one)
    claims.forget(one)
    two = claims.write_record(claims.owner("b" * 64), ["name two"])
    for place in ("0.0.0.0", "127.0.0.1"):
        with pytest.raises(Conflict, match=f"port {place}:8080/tcp is already published by container one"):
            ports.claim((place, 8080, 80, "tcp"), two)
    ports.claim(("127.0.0.2", 8080, 80, "tcp"), two)
    ports.claim(("0.0.0.0", 8080, 80, "udp"), two)
    names = sorted(path.name for path in (run_directory / "ports").iterdir())
    assert names == ["tcp-127.0.0.1-8080", "tcp-127.0.0.2-8080", "udp-0.0.0.0-8080"]


def test_a_claim_of_the_dead_excludes_nobody(run_directory: Path) -> None:
    dead = claims.write_record(f"{'d' * 64} 999999 1", ["name dead"])
    ports.claim(("127.0.0.1", 8080, 80, "tcp"), dead)
    ports.claim((ANY, 8080, 80, "tcp"), record("a"))


class Looked:
    """In the place of claims.holder: nobody holds anything."""

    times = 0

    def __call__(self, path: str) -> str:
        self.times += 1
        return ""


def test_the_cost_of_a_wildcard_does_not_depend_on_how_much_is_published(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the addresses are looked at: with 3 of them as many claims are asked for beside 2 ports as beside 600."""
    asked: list[int] = []
    one = record("a")
    for count in (2, 600):
        for number in range(2000, 2000 + count):
            for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
                if not os.path.exists(ports.path((host, number, 80, "tcp"))):
                    ports.claim((host, number, 80, "tcp"), one)
        looked_at = Looked()
        with monkeypatch.context() as patched:
            patched.setattr(claims, "holder", looked_at)
            ports.claim((ANY, 9000 + count, 80, "tcp"), record("b"))
        asked.append(looked_at.times)
    assert asked[0] == asked[1] == 3
    assert len(os.listdir(run_directory / "ports-at")) == 3


# ── what the host says ─────────────────────────────────────────────────────────────────────────────


def test_a_port_of_another_program_is_a_conflict() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with pytest.raises(Conflict, match=f"port 127.0.0.1:{number}/tcp is in use by another program"):
            choosing.settle([("127.0.0.1", number, 80, "tcp")])
        with pytest.raises(Conflict, match=f"port 0.0.0.0:{number}/tcp is in use"):
            choosing.settle([("", number, 80, "tcp")])
        choosing.settle([("", number, 80, "udp"), ("::1", number, 80, "tcp")])


@pytest.mark.parametrize(
    ("family", "kind", "bound", "asked", "protocol"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", ANY, "tcp"),
        (socket.AF_INET, socket.SOCK_STREAM, ANY, "127.0.0.1", "tcp"),
        (socket.AF_INET6, socket.SOCK_STREAM, ANY6, ANY, "tcp"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::ffff:127.0.0.1", "127.0.0.1", "tcp"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::1", ANY6, "tcp"),
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1", "127.0.0.1", "udp"),
    ],
)
def test_the_program_that_has_a_port_is_named(
    family: int, kind: int, bound: str, asked: str, protocol: str
) -> None:
    with socket.socket(family, kind) as sock:
        sock.bind((bound, 0))
        number = sock.getsockname()[1]
        if protocol == "tcp":
            sock.listen()
        name = Path("/proc/self/comm").read_text().strip()
        with pytest.raises(Conflict, match=rf" of this host: {name} \(pid {os.getpid()}\)$") as told:
            choosing.settle([(asked, number, 80, protocol)])
        assert told.value.hint == "end it, or publish another port"


def test_of_two_programs_the_one_that_is_in_the_way_is_named() -> None:
    """By the address; another protocol's port of the same number is nobody's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        command = [
            sys.executable,
            "-c",
            f"import socket; s = socket.create_server(('127.0.0.2', {number})); input()",
        ]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as other:
            until(lambda: f"(pid {other.pid})" in occupant.named("127.0.0.2", number, "tcp"))
            assert f"(pid {os.getpid()})" in occupant.named("127.0.0.1", number, "tcp")
            assert not occupant.named("127.0.0.3", number, "tcp")
            assert not occupant.named("127.0.0.1", number, "udp")
            other.communicate(b"\n")


def test_a_program_that_cannot_be_found_is_not_named() -> None:
    """A TCP socket that does not listen is in no table of /proc/net."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        number = silent.getsockname()[1]
        with pytest.raises(Conflict, match=r" by another program of this host$") as told:
            choosing.settle([("127.0.0.1", number, 80, "tcp")])
    assert f"`ss -tanp 'sport = :{number}'`" in told.value.hint


def test_an_address_this_host_has_not() -> None:
    for host in ("192.0.2.77", "2001:db8::77"):
        for number in (8080, 0, HostRange(8080, 8090)):
            with pytest.raises(NetworkError, match=f"this host has no address {host}"):
                choosing.settle([(host, number, 80, "tcp")])


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_port_0_is_a_free_one_that_nobody_else_chooses(protocol: str) -> None:
    asked: list[Port] = [("127.0.0.1", 0, 80, protocol), ("127.0.0.1", 0, 81, protocol)]
    first, second = choosing.settle(asked), choosing.settle(asked)
    numbers = [port[1] for port in first + second]
    assert len(set(numbers)) == 4
    assert all(number > 0 for number in numbers)


def test_a_free_port_is_free_in_both_families() -> None:
    (four, six) = choosing.settle([("", 0, 80, "tcp")], six=True)
    assert (four[0], six[0]) == (ANY, ANY6)
    assert four[1:] == six[1:]


def test_a_port_that_was_named_stays_bound_until_it_is_given_away() -> None:
    number = free_port()
    ((host, *_),) = choosing.settle([("", number, 80, "tcp")])
    with pytest.raises(Conflict):
        ports.bound(host, number, "tcp")
    sock = reservation.kept(ports.path((host, number, 80, "tcp")))
    assert sock is not None and sock.getsockname() == (ANY, number)
    sock.close()
    ports.bound(host, number, "tcp").close()


def test_who_has_just_chosen_a_port_is_named_as_soon_as_he_claims_it(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a guard too, which the first start has not made yet."""
    with closing(reservation.bound(ANY, 0, "tcp")) as chosen:
        number = int(chosen.getsockname()[1])
        port, his = (ANY, number, 80, "tcp"), record("a")
        monkeypatch.setattr(ports.time, "sleep", lambda _: ports.claim(port, his))
        with pytest.raises(Conflict, match="already published by container aa"):
            ports.bound(ANY, number, "tcp")


def test_the_first_free_port_of_a_range() -> None:
    number = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", number))
        asked: list[Port] = [("127.0.0.1", HostRange(number, number + 5), 80, "tcp")]
        first = choosing.settle(asked)[0][1]
        second = choosing.settle(asked)[0][1]
    assert number < first < second <= number + 5
    with pytest.raises(Conflict, match="no port of these is free"):
        choosing.settle([("127.0.0.1", HostRange(first, second), 80, "tcp")])


def test_a_range_leaves_out_what_the_same_command_asks_for() -> None:
    number = free_port()
    asked: list[Port] = [
        ("127.0.0.1", HostRange(number, number + 9), 80, "tcp"),
        ("127.0.0.1", number, 81, "tcp"),
    ]
    assert choosing.settle(asked)[0][1] > number


def test_a_range_leaves_out_what_containers_hold(run_directory: Path) -> None:
    number = free_port()
    ports.claim(("127.0.0.1", number, 80, "tcp"), record("a"))
    assert choosing.settle([("127.0.0.1", HostRange(number, number + 9), 80, "tcp")])[0][1] > number


def test_what_was_chosen_is_not_kept_where_a_program_binds_it_itself() -> None:
    ((host, number, _, _),) = choosing.settle([("127.0.0.1", 0, 80, "tcp")], keep=False)
    socket.create_server((host, number)).close()


def test_a_reservation_keeps_others_out_whatever_they_ask_for() -> None:
    with closing(reservation.bound(ANY, 0, "tcp")) as held:
        number = held.getsockname()[1]
        for host in (ANY, "127.0.0.1"):
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind((host, number))
        reservation.bound("::", number, "tcp").close()


def test_connections_that_linger_do_not_hold_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", number)), server.accept()[0]:
            pass
    reservation.bound("127.0.0.1", number, "tcp").close()


def test_the_container_that_holds_a_bound_port_is_named(run_directory: Path) -> None:
    """The guard holds the socket; what the user is told is whose it is."""
    with closing(reservation.bound("127.0.0.1", 0, "tcp")) as held:
        number = held.getsockname()[1]
        ports.claim(("127.0.0.1", number, 80, "tcp"), record("a"))
        with pytest.raises(Conflict, match="is already published by container aa"):
            choosing.settle([("", number, 80, "tcp")])
