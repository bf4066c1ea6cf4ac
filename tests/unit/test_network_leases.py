"""Addresses: next-fit, never twice, taken over from the dead, and an error when none is left."""

from __future__ import annotations

import os
import posix
import signal
from pathlib import Path

import pytest

from pyrun.errors import Conflict, NetworkError
from pyrun.network import claims, foreign_leases, leases
from pyrun.store import paths

GATEWAY = "10.77.0.1"


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty network "bridge" in a run directory of this test's own; returns the directory of leases."""
    monkeypatch.setitem(posix.environ, b"PYRUN_RUNROOT", str(tmp_path).encode())
    directory = tmp_path / "networks" / "bridge" / "leases"
    directory.mkdir(parents=True)
    return directory


def record(number: int, lines: list[str] | None = None) -> str:
    return claims.write_record(claims.owner(f"{number:064x}"), lines or [])


def lease(number: int, prefix: int = 24) -> str:
    written = record(number)
    try:
        return leases.take("bridge", GATEWAY, prefix, "", written)
    finally:
        claims.forget(written)


def dead_claim(path: Path) -> None:
    path.write_text(f"{'d' * 64} 4194304 1\n")


def test_a_freed_address_is_not_handed_out_next(network: Path) -> None:
    first, second = lease(1), lease(2)
    (network / second).unlink()
    third = lease(3)
    assert [first, second, third] == ["10.77.0.2", "10.77.0.3", "10.77.0.4"]


def test_the_round_skips_the_ends_and_the_gateway(network: Path) -> None:
    taken = [lease(number, prefix=29) for number in range(5)]
    assert taken == [f"10.77.0.{number}" for number in (2, 3, 4, 5, 6)]
    (network / "10.77.0.4").unlink()
    assert lease(9, prefix=29) == "10.77.0.4"


def test_exhaustion_is_one_clear_error(network: Path) -> None:
    for number in range(5):
        lease(number, prefix=29)
    with pytest.raises(NetworkError, match=r"no free address left: all of 10\.77\.0\.0/29 are leased"):
        lease(9, prefix=29)


def test_a_dead_lease_is_taken_over_only_when_nothing_else_is_left(network: Path) -> None:
    dead_claim(network / "10.77.0.2")
    assert lease(1, prefix=29) == "10.77.0.3"
    for number in range(2, 5):
        lease(number, prefix=29)
    assert lease(5, prefix=29) == "10.77.0.2"


def test_a_lease_with_a_run_directory_is_alive_though_its_planner_is_dead(network: Path) -> None:
    dead_claim(network / "10.77.0.2")
    (network.parents[2] / "containers" / ("d" * 64)).mkdir(parents=True)
    assert claims.sweep(str(network)) == []


@pytest.mark.parametrize(
    "content", ["", "garbage\n", f"{'a' * 64} 1\n", f"{'a' * 64} x y\n", f"{'a' * 64} 1 0\n"]
)
def test_a_torn_claim_is_dead(network: Path, content: str) -> None:
    (network / "10.77.0.9").write_text(content)
    assert claims.sweep(str(network)) == ["10.77.0.9"]


def test_who_takes_what_was_given_up_meanwhile_keeps_it(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finder of a dead claim looks again, and finds none: its owner's undo list freed it. Then somebody takes it."""
    path = network / "10.77.0.2"
    live, read = record(1), paths.read

    def taken_after_reading(file: str) -> bytes:
        try:
            return read(file)
        finally:
            claims.take(live, str(path))

    monkeypatch.setattr(paths, "read", taken_after_reading)
    assert claims.reclaim(str(path)), "free, as far as could be seen"
    assert claims.holder(str(path)) == claims.owner(f"{1:064x}")


def test_a_recycled_pid_does_not_keep_a_lease_alive(network: Path) -> None:
    (network / "10.77.0.2").write_text(f"{'d' * 64} {os.getpid()} 1\n")
    assert claims.sweep(str(network)) == ["10.77.0.2"]


def test_peek_tells_the_next_address_and_leaves_nothing(network: Path) -> None:
    lease(1)
    assert leases.peek("bridge", GATEWAY, 24) == "10.77.0.3"
    assert [path.name for path in network.iterdir()] == ["10.77.0.2"]
    assert leases.peek("other", GATEWAY, 24) == "10.77.0.2"


def test_the_mac_belongs_to_the_address() -> None:
    assert leases.mac("10.77.1.255") == "02:42:0a:4d:01:ff"


def test_a_removed_network_gives_no_lease(network: Path) -> None:
    network.rmdir()
    written = record(1)
    with pytest.raises(FileNotFoundError):
        leases.take("bridge", GATEWAY, 24, "", written)


def test_release_leaves_what_is_not_ones_own(network: Path) -> None:
    dead_claim(network / "10.77.0.2")
    claims.release(str(network / "10.77.0.2"), claims.owner("e" * 64))
    assert (network / "10.77.0.2").exists()


def test_200_parallel_starts_get_200_addresses(network: Path) -> None:
    """Each in a process of its own that stays alive; they race for dead leases as well."""
    for number in range(2, 60):
        dead_claim(network / f"10.77.0.{number}")
    answers_fd, answer_fd = os.pipe()
    gate_fd, opener_fd = os.pipe()
    children = [start_racing(number, gate_fd, opener_fd, answer_fd) for number in range(200)]
    os.close(gate_fd)
    os.close(opener_fd)  # the last writer of the gate: every child reads its end now
    text = b""
    while text.count(b"\n") < 200:
        text += os.read(answers_fd, 65536)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.close(answers_fd)
    os.close(answer_fd)
    got = text.decode().split()
    assert sorted(set(got)) == sorted(got)
    assert all(address.startswith("10.77.0.") for address in got)


def start_racing(number: int, gate_fd: int, opener_fd: int, answer_fd: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.close(opener_fd)
    os.read(gate_fd, 1)
    try:
        answer = lease(number)
    except BaseException as error:  # noqa: BLE001 - told to the parent
        answer = type(error).__name__
    os.write(answer_fd, f"{answer}\n".encode())
    while True:
        signal.pause()


# ── IPv6, parts of a subnet, addresses asked for ───────────────────────────────────────────────────

GATEWAY6 = "fd77:1::1"


def lease6(number: int, prefix: int = 64, within: str = "") -> str:
    written = record(number)
    try:
        return leases.take("bridge", GATEWAY6, prefix, within, written)
    finally:
        claims.forget(written)


def beside(number: int, address: str, prefix: int = 64, within: str = "") -> str:
    written = record(number)
    try:
        return leases.take_beside(address, "bridge", GATEWAY6, prefix, within, written)
    finally:
        claims.forget(written)


def test_ipv6_addresses_are_leased_next_fit_beside_those_of_ipv4(network: Path) -> None:
    assert [lease(1), lease6(1), lease(2), lease6(2)] == ["10.77.0.2", "fd77:1::2", "10.77.0.3", "fd77:1::3"]
    (network / "fd77:1::3").unlink()
    assert lease6(3) == "fd77:1::4", "the pointers of both families are apart"


def test_a_small_ipv6_subnet_is_exhausted(network: Path) -> None:
    taken = [lease6(number, prefix=125) for number in range(5)]
    assert taken == [f"fd77:1::{number}" for number in (2, 3, 4, 5, 6)], "the last one could be had, as ::7"
    with pytest.raises(NetworkError, match="no free address left"):
        lease6(9, prefix=125)


def test_a_huge_subnet_is_not_searched_through(network: Path) -> None:
    """With the first of a /64 taken: whatever is free, at once."""
    for number in range(2, 80):
        (network / f"fd77:1::{number:x}").write_text(f"{'d' * 64} {os.getpid()} 1\n")
    (network.parent / "next6").write_text("fd77:1::10")
    found = lease6(1)
    assert found.startswith("fd77:1::") and found not in [f"fd77:1::{number:x}" for number in range(80)]


def test_the_ipv6_address_goes_with_the_ipv4_one(network: Path) -> None:
    assert beside(1, "10.77.0.2") == "fd77:1::a4d:2"
    assert beside(2, "10.77.0.2") == "", "it is taken"
    assert beside(3, "10.77.0.9", prefix=120) == "fd77:1::9"
    assert beside(4, "10.77.9.1", prefix=120) == "", "that is the gateway"
    assert beside(5, "10.77.9.0", prefix=120) == "", "that is every router of the subnet"
    assert beside(6, "10.77.0.2", within="fd77:1:0:0:5::/80") == "fd77:1::5:0:a4d:2"
    assert leases.beside("10.77.0.2", GATEWAY6, 64) == "fd77:1::a4d:2"


@pytest.mark.parametrize(
    ("within", "expected"),
    [
        ("10.77.0.8/30", ["10.77.0.8", "10.77.0.9", "10.77.0.10", "10.77.0.11"]),  # in the middle: all of it
        ("10.77.0.0/30", ["10.77.0.2", "10.77.0.3"]),  # neither the subnet's own address nor the gateway
        ("10.77.0.252/30", ["10.77.0.252", "10.77.0.253", "10.77.0.254"]),  # not the broadcast address
        ("10.77.0.9/32", ["10.77.0.9"]),
    ],
)
def test_only_the_range_is_handed_out(network: Path, within: str, expected: list[str]) -> None:
    def one(number: int) -> str:
        written = record(number)
        try:
            return leases.take("bridge", GATEWAY, 24, within, written)
        finally:
            claims.forget(written)

    assert leases.peek("bridge", GATEWAY, 24, within) == expected[0]
    assert [one(number) for number in range(len(expected))] == expected
    with pytest.raises(NetworkError, match=f"all of {within} are leased"):
        one(99)
    assert leases.peek("bridge", GATEWAY, 24, within) == ""
    (network / expected[-1]).unlink()
    assert one(100) == expected[-1]


def this(number: int, address: str, name: str = "") -> str:
    written = record(number, [f"name {name}"] if name else [])
    try:
        return leases.take_this("bridge", address, written)
    finally:
        claims.forget(written)


def test_an_address_asked_for_is_had_or_its_holder_named(network: Path) -> None:
    assert this(1, "10.77.0.9", "web") == "10.77.0.9"
    for address in ("10.77.0.9", "fd77:1::9"):
        if ":" in address:
            this(1, address, "web")
        with pytest.raises(Conflict, match=f"{address} of network bridge is held by container web"):
            this(2, address)
    dead_claim(network / "10.77.0.10")
    assert this(2, "10.77.0.10") == "10.77.0.10", "the holder is dead"


def test_a_stranger_who_holds_an_address_is_told_by_where_it_is(network: Path) -> None:
    foreign_leases.note("bridge", "/sys/class/net/lo", "", "", ["10.77.0.9"])
    foreign_leases.note("bridge", "/sys/class/net/lo", "lo", "", ["10.77.0.10"])
    foreign_leases.note("bridge", "/proc/1/ns/net", "", "eth0", ["10.77.0.11"])
    holders = ("a neighbour on lo", "this host itself, on lo", "process 1")
    for number, holder in enumerate(holders, 9):
        with pytest.raises(Conflict, match=f"10.77.0.{number} of network bridge is held by {holder}$"):
            this(2, f"10.77.0.{number}")


def test_the_ones_asked_for_are_passed_over(network: Path) -> None:
    this(1, "10.77.0.2")
    this(1, "10.77.0.4")
    assert [lease(2), lease(3)] == ["10.77.0.3", "10.77.0.5"]


def test_a_pointer_somebody_damaged_is_only_a_hint(network: Path) -> None:
    for text in ("", "garbage", "10.99.0.1", "fd77:1::1", "10.77.0.255"):
        (network.parent / "next").write_text(text)
        assert leases.peek("bridge", GATEWAY, 24) == "10.77.0.2", text


def test_held_tells_the_leases_of_the_living(network: Path) -> None:
    this(1, "10.77.0.2", "web")
    dead_claim(network / "10.77.0.3")
    assert list(leases.held("bridge")) == ["10.77.0.2"]
    assert claims.name_in(leases.held("bridge")["10.77.0.2"]) == "web"


def test_a_lease_that_says_nothing_is_nobodys(network: Path) -> None:
    """Its planner was killed before it wrote, or it was given up while we looked."""
    mine = lease(1)
    (network / "10.77.0.9").touch()
    dead_claim(network / "10.77.0.10")
    dead_claim(network / ("d" * 64))
    assert list(leases.held("bridge")) == [mine]
    assert leases.members("bridge") == {}
    (network / ("a" * 64)).write_text(record_of_mine := (network / mine).read_text())
    assert leases.members("bridge") == {"a" * 64: record_of_mine.splitlines()}
    assert list(leases.held("bridge")) == [mine]


# ── claims ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_claim_of_the_dead_is_taken_over_and_one_of_the_living_is_not(network: Path) -> None:
    mine = record(1)
    fresh, dead, taken = network / "new" / "10.77.0.5", network / "10.77.0.6", network / lease(2)
    dead_claim(dead)
    try:
        assert claims.take_over(mine, str(fresh)), "its directory is made"
        assert not claims.take(mine, str(dead)) and claims.take_over(mine, str(dead))
        assert not claims.take_over(mine, str(taken)) and not claims.take_over(mine, str(dead))
    finally:
        claims.forget(mine)
    assert not Path(mine).exists()
    own = claims.owner(f"{1:064x}")
    assert [claims.holder(str(each)) for each in (fresh, dead)] == [own, own]
    claims.release(str(taken), own)
    claims.release(str(dead), own)
    assert (taken.exists(), dead.exists()) == (True, False)
    assert claims.reclaim(str(dead)) and not claims.reclaim(str(taken))


def test_whose_a_claim_is(network: Path) -> None:
    claim = network / "10.77.0.9"
    for text, told in (
        (f"{'a' * 64} 1 1\nname web\n", "container web"), (f"{'a' * 64} 1 1\nmac x\n", "container aaaaaaaaaaaa"),
        ("/sys/class/net/eth0 5 0\nname x\n", "this host itself, on eth0"),
        ("/sys/class/net/eth0 5 0\n", "a neighbour on eth0"), ("/proc/17/ns/net 5 0\n", "process 17"),
    ):  # fmt: skip
        claim.write_text(text)
        assert claims.whose(str(claim)) == told


@pytest.mark.parametrize(
    ("owner", "alive"),
    [
        ("", False), ("a", False), ("a 1", False), ("a 1 1 1", False), ("a x 1", False), ("a 4194304 0", False),
        ("/proc/self/ns/net 1 0", False), ("/no/such 1 0", False), ("here 4194304 1", True),
    ],
)  # fmt: skip
def test_who_is_alive(network: Path, owner: str, alive: bool) -> None:
    (network.parents[2] / "containers/here").mkdir(parents=True)
    assert claims.alive(owner) is alive
    assert claims.alive(claims.owner("nowhere")) and claims.alive(
        claims.owner_of_namespace("/proc/self/ns/net")
    )


def test_what_planners_left_that_were_killed_is_swept(network: Path) -> None:
    run = network.parents[2]
    mine = Path(record(1))
    mine.with_name(f".record-{'d' * 64}-4194304-1").touch()
    (run / "containers/box").mkdir(parents=True)
    kept = [mine, run / f"containers/box/state.json.{os.getpid()}.tmp", run / "containers/box/state.json",
            run / "containers/box/a.4194304.tmpx", run / "networks/bridge/x.tmp"]  # fmt: skip
    gone = [run / "containers/box/state.json.4194304.tmp", run / "networks/bridge/template.4194304.tmp",
            run / "networks/x.4194304.tmp"]  # fmt: skip
    for path in (*kept[1:], *gone):
        path.touch()
    claims.sweep_records()
    left = {path for path in run.rglob("*") if path.is_file()}
    assert left == set(kept)
    claims.forget(str(mine))


def test_of_two_who_sweep_at_once_none_fails(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has the names, and one of them removes first."""
    dead = [f".record-{'d' * 64}-4194304-1", "x.4194304.tmp"]
    monkeypatch.setattr(claims, "names", lambda place: dead if place == str(network.parents[1]) else [])
    claims.sweep_records()
