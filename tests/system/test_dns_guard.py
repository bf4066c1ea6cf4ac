"""One guard and one resolver behind it, on the lab host, in time: when they begin and end, and what heals a loss."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from pathlib import Path

import pytest

from name_server import (
    CLIENT_ID,
    GATEWAY,
    OTHER_ID,
    WEB,
    WEB_ID,
    Answer,
    Site,
    guards,
    is_taken,
    question,
    resolvers,
)
from pyrun.network import foreign_leases, guard, guard_start
from waiting import seconds_until, until

pytestmark = pytest.mark.needs("ipv6")


# ── one guard, one resolver, in time ───────────────────────────────────────────────────────────────


def test_two_hundred_starts_at_once_make_one_guard(site: Site) -> None:
    """However they come: each gets the port, and there is one process."""
    begin, started = os.pipe()
    children = []
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(started)
                os.read(begin, 1)
                status = 0 if site.need() == {"dnsa": 53} else 2
            finally:
                os._exit(status)
        children.append(pid)
    os.close(begin)
    os.close(started)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 200
    assert len(guards(site)) == 1


def test_asking_a_guard_that_is_there_is_quick(site: Site) -> None:
    site.need()
    taken = []
    for _ in range(300):
        began = time.perf_counter()
        site.need()
        taken.append(time.perf_counter() - began)
    assert sorted(taken)[150] < 0.0005, f"{sorted(taken)[150] * 1e6:.0f} us"


def test_it_ends_two_seconds_after_the_last_lease(site: Site) -> None:
    site.need()
    site.client.ask(GATEWAY, "web")
    for lease in (site.run / "networks/dnsa/leases").iterdir():
        lease.unlink()
    assert 1.5 < seconds_until(lambda: not guards(site) and not resolvers(site)) < 3.0
    assert not (site.run / "networks/guard.sock").exists()


def test_who_is_no_living_container_does_not_keep_it(site: Site) -> None:
    """Whoever was on an adopted bridge before, and a start that was killed between its claim and its run directory."""
    leases = site.run / "networks/dnsa/leases"
    foreign_leases.note("dnsa", "/run/netns/dnsweb", "web", "eth0", ["10.99.0.8"])
    (leases / "10.99.0.9").write_text(f"{'e' * 64} 4194304 1\nname lost\n")
    site.need()
    for lease in leases.glob("*[2-4]"):
        lease.unlink()
    assert seconds_until(lambda: not guards(site)) < 3.0
    # the one that was lost is swept by what a guard calls in the end
    assert (leases / "10.99.0.8").exists() and guard_start.standing() == []


def test_a_start_in_the_meantime_keeps_it(site: Site) -> None:
    site.need()
    (own,) = guards(site)
    leases = site.run / "networks/dnsa/leases"
    for lease in leases.iterdir():
        lease.unlink()
    time.sleep(1.2)  # it ends after two seconds without leases
    site.networks.lease("dnsa", "10.99.0.7", "d" * 64, "name seven")
    site.need()
    time.sleep(2.5)  # in which it does not end
    assert guards(site) == [own]


def test_it_ends_with_the_last_network(site: Site) -> None:
    site.need()
    for lease in (site.run / "networks/dnsa/leases").iterdir():
        lease.unlink()
    (site.run / "networks/dnsa/leases").rmdir()
    assert seconds_until(lambda: not guards(site)) < 1.0


def test_starts_while_guards_end_always_find_one(site: Site) -> None:
    """Leases that come and go around the moment of the end: no request is lost, no second guard stays."""
    chance = random.Random(4)
    leases = [path.name for path in (site.run / "networks/dnsa/leases").iterdir()]
    for name in leases:
        (site.run / "networks/dnsa/leases" / name).unlink()
    for _ in range(4):
        assert site.need() == {"dnsa": 53}
        time.sleep(1.98 + chance.random() * 0.06)  # about when it ends
        assert site.need() == {"dnsa": 53}
        assert len(guards(site)) == 1


# ── loss ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_resolver_that_was_killed_is_there_for_the_next_question(site: Site) -> None:
    site.need()
    site.client.ask(GATEWAY, "web")
    for _ in range(3):
        (pid,) = resolvers(site)
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        assert site.client.ask(GATEWAY, "web").values == [WEB]
        assert time.monotonic() - began < 2.0


def end_unreaped(pid: int) -> None:
    """Kill a process whose parent is stopped."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z", timeout_s=5)


def test_a_resolver_that_ends_beside_another_child_takes_nobody_along(site: Site) -> None:
    """The guard hears of both ends at once, and of the first before it looks at what the second left."""
    site.need()
    site.client.ask(GATEWAY, "web")
    (own,), (resolver,) = guards(site), resolvers(site)
    spare = guard.status()["spare"]
    os.kill(own, signal.SIGSTOP)
    for child in (spare, resolver):
        end_unreaped(child)
    os.kill(own, signal.SIGCONT)
    assert site.client.ask(GATEWAY, "web").values == [WEB]
    assert guards(site) == [own]


def asked_without_waiting(site: Site) -> socket.socket:
    """A question that is in the gateway's socket; its answer may take long."""
    sock = site.client.socket()
    sock.settimeout(30)
    sock.sendto(question("web"), (GATEWAY, 53))
    return sock


def sleeps(pid: int) -> int:
    """How often a process waited for something, and so was woken."""
    told = Path(f"/proc/{pid}/status").read_text()
    return int(told.partition("voluntary_ctxt_switches:")[2].split()[0])


def test_a_resolver_that_hangs_is_replaced_and_who_waits_is_answered(site: Site) -> None:
    """Each has 5 to 15 s, and every further one that hangs as well longer than the one before."""
    site.need()
    site.client.ask(GATEWAY, "web")
    took = []
    for _ in range(2):
        (hanging,) = resolvers(site)
        os.kill(hanging, signal.SIGSTOP)
        began = time.monotonic()
        with asked_without_waiting(site) as sock:
            assert Answer(sock.recv(600)).values == [WEB]
        took.append(time.monotonic() - began)
        (other,) = resolvers(site)
        assert other != hanging
    assert 4.5 < took[0] < 16.5, took
    assert 9.5 < took[1] < 21.5, took


def test_a_resolver_that_is_slow_or_asked_nothing_is_left_alone(site: Site) -> None:
    """Stopped while nobody asks: nothing waits for it, and hardly anybody is woken. Then it has its turn for a moment
    every three seconds, while questions wait all the time."""
    site.need()
    site.client.ask(GATEWAY, "web")
    (pid,), (own,) = resolvers(site), guards(site)
    time.sleep(4)  # until it has seen that links were made and leases are there
    before = sleeps(own)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(21)  # two of its looks
    assert sleeps(own) - before <= 6, "the guard looks every 10 s; links tell of themselves now and then"
    assert resolvers(site) == [pid]
    end = time.monotonic() + 16
    while time.monotonic() < end:
        os.kill(pid, signal.SIGSTOP)
        with asked_without_waiting(site) as sock:
            time.sleep(3)  # its turn comes after that
            os.kill(pid, signal.SIGCONT)
            assert Answer(sock.recv(600)).values == [WEB]
            time.sleep(0.05)
    assert resolvers(site) == [pid]


def test_with_the_guard_everything_of_it_goes_and_the_next_start_heals(site: Site) -> None:
    second = site.networks.network("dnsb", "10.98.0.1")
    site.networks.lease("dnsb", "10.98.0.2", CLIENT_ID, "name client", "alias inb")
    guard.need([*site.gateways, second])
    site.client.ask(GATEWAY, "web")
    (own,) = guards(site)
    os.kill(own, signal.SIGKILL)
    until(lambda: not resolvers(site) and not guards(site), timeout_s=1.0)
    until(lambda: not is_taken(GATEWAY, 53, socket.SOCK_DGRAM), timeout_s=1.0)
    assert site.need() == {"dnsa": 53}
    assert guard.status()["dnsb"] == 53, "the other network was told too"
    assert site.client.ask(GATEWAY, "web").values == [WEB]
    assert site.client.ask(GATEWAY, "inb").values == ["10.98.0.2"]


def test_a_network_that_goes_takes_its_sockets_along(site: Site) -> None:
    second = site.networks.network("dnsb", "10.98.0.1")
    site.networks.lease("dnsb", "10.98.0.2", OTHER_ID, "name other")
    guard.need([*site.gateways, second])
    site.client.ask(GATEWAY, "web")
    (site.run / "networks/dnsb/leases/10.98.0.2").unlink()
    (site.run / "networks/dnsb/leases").rmdir()

    def is_free() -> bool:
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with socket.socket(socket.AF_INET, kind) as sock:
                    sock.bind(("10.98.0.1", 53))
        except OSError:
            return False
        return True

    until(is_free, timeout_s=1.0)
    assert "dnsb" not in guard.status() and site.client.ask(GATEWAY, "web").values == [WEB]
    (site.run / "networks/dnsb/leases").mkdir()
    assert guard.need([second]) == {"dnsb": 53}


def test_the_longest_name_of_a_network_is_one(site: Site) -> None:
    """On a card of the host, so that no bridge is needed."""
    site.networks.links = False
    network = site.networks.network("n" * 128, "")
    site.networks.lease("n" * 128, "10.96.0.2", WEB_ID, "name web")
    assert guard.need([*site.gateways, network]) == {"dnsa": 53, "n" * 128: 53}
