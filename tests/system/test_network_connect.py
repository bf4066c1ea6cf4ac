"""`network connect` and `disconnect`: a running container gets an interface more or less, and nothing stays behind."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import killing
from command import Pyrun
from kill_points import points
from waiting import soon

SLEEP = ("busybox", "sleep", "1000")


@pytest.fixture
def two(pyrun: Pyrun) -> Pyrun:
    """Networks front and back, both of IPv4 and IPv6."""
    for number, name in enumerate(("front", "back"), 1):
        subnets = (f"--subnet=10.{number}.0.0/24", f"--subnet=fd00:{number}::/64")
        pyrun.ok("network", "create", *subnets, name)
    return pyrun


def inside(pyrun: Pyrun, name: str, words: str) -> str:
    return pyrun.ok("exec", name, "sh", "-c", words)


def interfaces(pyrun: Pyrun, name: str) -> list[str]:
    return re.findall(r"^\d+: (\w+)[@:]", inside(pyrun, name, "ip -o link"), re.MULTILINE)


def defaults(pyrun: Pyrun, name: str) -> list[str]:
    """Interfaces of the default routes of IPv4 and of IPv6."""
    lines = inside(pyrun, name, "ip route; ip -6 route").splitlines()
    return [line.split(" dev ")[1].split()[0] for line in lines if line.startswith("default")]


def connected(pyrun: Pyrun, network: str) -> dict[str, dict[str, Any]]:
    """By the container's name, what inspect tells."""
    (told,) = json.loads(pyrun.ok("network", "inspect", network))
    return {each["Name"]: each for each in told["Containers"].values()}


def reaches(pyrun: Pyrun, name: str, *addresses: str) -> None:
    for address in addresses:
        inside(pyrun, name, f"ping -c1 -W2 {address}")


def leases(pyrun: Pyrun, network: str) -> list[str]:
    return sorted(path.name for path in (pyrun.runroot / "networks" / network / "leases").iterdir())


def host_links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith("pyv")}


def pins() -> str:
    return subprocess.run(
        ["nft", "list", "table", "bridge", "pyrun"], capture_output=True, text=True, check=True
    ).stdout


def test_connect_and_disconnect_while_it_runs(two: Pyrun) -> None:
    two.ok("run", "-d", "--name=web", "--network=front", *SLEEP)
    two.ok("run", "-d", "--name=db", "--network=back", *SLEEP)
    before = (leases(two, "back"), host_links(), pins())
    two.ok("network", "connect", "--alias=shop", "--ip=10.2.0.9", "--ip6=fd00:2::9", "back", "web")
    assert interfaces(two, "web") == ["lo", "eth0", "eth1"]
    assert defaults(two, "web") == ["eth0", "eth0"], "of the first network, as before"
    reaches(two, "web", "10.1.0.1", "fd00:1::1", "10.2.0.2", "fd00:2::a02:2")
    reaches(two, "db", "10.2.0.9", "fd00:2::9", "shop", "web")
    told = connected(two, "back")["web"]
    assert (told["IPv4Address"], told["IPv6Address"]) == ("10.2.0.9/24", "fd00:2::9/64")
    assert (told["Interface"], told["Aliases"]) == ("eth1", ["shop"])
    assert told["HostInterface"] in host_links()
    row = json.loads(two.ok("ps", "--format=json", "-f", "name=web"))
    assert row["Networks"] == "front,back"
    again = two.fails(1, "network", "connect", "back", "web")
    assert again.startswith("pyrun: container web is on network back already\nhint: ")

    two.ok("network", "disconnect", "back", "web")
    assert interfaces(two, "web") == ["lo", "eth0"]
    assert (leases(two, "back"), host_links(), pins()) == before
    assert list(connected(two, "back")) == ["db"]
    reaches(two, "web", "10.1.0.1")
    error = two.fails(1, "network", "disconnect", "back", "web")
    assert error.startswith("pyrun: container web is not on network back\nhint: ")
    two.ok("network", "disconnect", "-f", "back", "web")


def test_the_default_route_moves(two: Pyrun) -> None:
    two.ok("run", "-d", "--name=web", "--network=front", *SLEEP)
    two.ok("network", "connect", "--gw-priority=1", "back", "web")
    assert defaults(two, "web") == ["eth1", "eth1"]
    reaches(two, "web", "198.51.100.1")
    two.ok("network", "disconnect", "back", "web")
    assert defaults(two, "web") == ["eth0", "eth0"]
    reaches(two, "web", "198.51.100.1")
    two.ok("network", "connect", "back", "web")
    two.ok("network", "disconnect", "front", "web")
    assert (interfaces(two, "web"), defaults(two, "web")) == (["lo", "eth1"], ["eth1", "eth1"])
    reaches(two, "web", "198.51.100.1")
    two.ok("network", "disconnect", "back", "web")
    assert (interfaces(two, "web"), defaults(two, "web")) == (["lo"], [])
    assert json.loads(two.ok("ps", "--format=json"))["Networks"] == "none"
    two.ok("network", "connect", "back", "web")
    assert (interfaces(two, "web"), defaults(two, "web")) == (["lo", "eth0"], ["eth0", "eth0"])


def test_a_container_without_network_gets_one(two: Pyrun) -> None:
    two.ok("run", "-d", "--name=web", "--network=none", *SLEEP)
    two.ok("network", "connect", "--ifname=lan0", "--mac-address=02:00:00:00:00:99", "front", "web")
    assert interfaces(two, "web") == ["lo", "lan0"]
    assert "02:00:00:00:00:99" in inside(two, "web", "ip link show lan0")
    reaches(two, "web", "10.1.0.1", "fd00:1::1", "198.51.100.1")


def test_the_containers_end_undoes_what_came_later(two: Pyrun) -> None:
    idle = (leases(two, "back"), host_links(), pins())
    ident = two.ok("run", "-d", "--name=web", "--network=front", *SLEEP)
    two.ok("network", "connect", "back", "web")
    two.ok("network", "disconnect", "back", "web")
    assert (two.runroot / "containers" / ident / "more.undo").read_text() == ""
    two.ok("network", "connect", "--ip=10.2.0.2", "back", "web")
    assert leases(two, "back") == ["10.2.0.2", "fd00:2::a02:2"]
    two.ok("kill", "web")
    assert soon(lambda: (leases(two, "back"), host_links(), pins()) == idle)
    assert two.fails(1, "network", "connect", "back", "web").startswith("pyrun: container web does not run")
    two.ok("network", "rm", "front", "back")


def test_published_ports_stay_where_they_are_answered(two: Pyrun) -> None:
    """Answers take the default route: it does not move away from under published ports."""
    two.ok("run", "-d", "--name=web", "--network=front", "-p", "8080:80", *SLEEP)
    for words in (("connect", "--gw-priority=5", "back", "web"), ("disconnect", "front", "web")):
        error = two.fails(1, "network", *words)
        assert error.startswith("pyrun: published ports of web lead to network front (0.0.0.0:8080/tcp)"), (
            error
        )
        assert "hint: pyrun port rm web 8080/tcp" in error
    assert (interfaces(two, "web"), leases(two, "back")) == (["lo", "eth0"], [])
    two.ok("network", "connect", "back", "web")
    assert defaults(two, "web") == ["eth0", "eth0"]


def test_a_network_is_held_by_those_ports_alone_that_lead_there(two: Pyrun) -> None:
    """Not by those of the other family, nor by one that was published beside them and is withdrawn."""
    two.ok("network", "create", "--subnet=10.3.0.0/24", "four")
    two.ok("run", "-d", "--name=web", "--network=four", "--network=front", "-p", "127.0.0.1:8080:80", "-p", "8081:80",
           *SLEEP)  # fmt: skip
    error = two.fails(1, "network", "disconnect", "front", "web")
    assert error.startswith("pyrun: published ports of web lead to network front ([::]:8081/tcp)"), error
    two.ok("port", "rm", "web", "8081")
    two.ok("network", "disconnect", "front", "web")
    error = two.fails(1, "network", "disconnect", "four", "web")
    assert error.startswith("pyrun: published ports of web lead to network four (127.0.0.1:8080/tcp)"), error


REFUSED: tuple[tuple[int, tuple[str, ...], str], ...] = (
    (1, ("host", "web"), "network connect: host is no network one can be connected to"),
    (1, ("a/b", "web"), "network connect 'a/b' is no name of a network"),
    (1, ("nowhere", "web"), "no such network: nowhere"),
    (1, ("back", "nobody"), "no such container: nobody"),
    (1, ("back", "own"), "container own has --network=host: the namespace is not its own"),
    (1, ("--ip=10.1.0.9", "back", "web"), "--ip 10.1.0.9: not in network back"),
    (1, ("--ip=10.2.0.1", "back", "web"), "--ip 10.2.0.1: that is the gateway of network back"),
    (1, ("--ip=x", "back", "web"), "--ip x: 'x' is no IPv4 address"),
    (1, ("--ip=10.2.0.2", "back", "web"), "the address 10.2.0.2 of network back is held by container db"),
    (1, ("--ip6=fd00:2::a02:2", "back", "web"), "fd00:2::a02:2 of network back is held by container db"),
    (1, ("--mac-address=x", "back", "web"), "--mac-address x: 'x' is no MAC address"),
    (1, ("--ifname=a/b", "back", "web"), "'a/b' is no name of an interface"),
    (1, ("--ifname=eth0", "back", "web"), "--ifname eth0: the container has an interface of that name"),
    (1, ("--alias=a b", "back", "web"), "'a b' is no host name"),
)  # fmt: skip


def test_what_is_refused_leaves_nothing(two: Pyrun) -> None:
    for name, network in (("web", "front"), ("db", "back"), ("own", "host")):
        two.ok("run", "-d", f"--name={name}", f"--network={network}", *SLEEP)
    before = (leases(two, "back"), host_links(), pins())
    for status, words, named in REFUSED:
        error = two.fails(status, "network", "connect", *words)
        assert named in error.splitlines()[0], error
        assert (leases(two, "back"), host_links(), pins()) == before, words
    assert interfaces(two, "web") == ["lo", "eth0"]


def test_a_name_that_is_taken_inside_is_told_and_nothing_left(two: Pyrun) -> None:
    """The container made itself an interface of that name."""
    two.ok("run", "-d", "--name=web", "--network=front", "--cap-add=NET_ADMIN", *SLEEP)
    inside(two, "web", "ip link add eth1 type bridge")
    before = (leases(two, "back"), host_links(), pins())
    error = two.fails(1, "network", "connect", "back", "web")
    assert "network: cannot make a link pair: " in error and "eth1" in error and "File exists" in error
    assert (leases(two, "back"), host_links(), pins()) == before
    two.ok("network", "connect", "--ifname=lan1", "back", "web")
    reaches(two, "web", "10.2.0.1")


def test_connect_side_by_side(two: Pyrun) -> None:
    """Of two that connect the same container at the same time, both do, or one is told."""
    two.ok("run", "-d", "--name=web", "--network=none", *SLEEP)
    started = [two.start("network", "connect", name, "web") for name in ("front", "back", "front", "back")]
    statuses = [(process.communicate(timeout=60)[1], process.returncode)[1] for process in started]
    assert sorted(statuses) == [0, 0, 1, 1]
    assert interfaces(two, "web") == ["lo", "eth0", "eth1"]
    assert len(leases(two, "front")) == len(leases(two, "back")) == 2


# ── the files that name things ─────────────────────────────────────────────────────────────────────


def kept(pyrun: Pyrun, name: str, file: str) -> Path:
    """A file pyrun keeps for the container, as the host sees it."""
    return pyrun.root / "containers" / str(pyrun.state(name)["id"]) / file


def servers(pyrun: Pyrun, name: str) -> list[str]:
    return re.findall(r"^nameserver (\S+)$", inside(pyrun, name, "cat /etc/resolv.conf"), re.MULTILINE)


def own_addresses(pyrun: Pyrun, name: str, hostname: str = "") -> list[str]:
    """What /etc/hosts says of the container's own name."""
    hostname = hostname or inside(pyrun, name, "hostname")
    lines = [line.split() for line in inside(pyrun, name, "cat /etc/hosts").splitlines()]
    return [line[0] for line in lines if line[1:] == hostname.split()]


def test_names_are_answered_by_the_network_that_is_left(two: Pyrun) -> None:
    """The gateway named at the start is of a network the container leaves: resolv.conf and hosts follow, in place."""
    two.ok("run", "-d", "--name=web", *SLEEP)
    two.ok("run", "-d", "--name=beside", "--network=container:web", *SLEEP)
    two.ok("run", "-d", "--name=db", "--network=front", *SLEEP)
    inodes = [kept(two, "web", file).stat().st_ino for file in ("resolv.conf", "hosts")]
    (former,) = own_addresses(two, "web")
    two.ok("network", "connect", "front", "web")
    assert servers(two, "web") == ["10.77.0.1"], "the default route is where it was"
    assert own_addresses(two, "web") == [former, "10.1.0.3", "fd00:1::a01:3"]
    two.ok("network", "disconnect", "bridge", "web")
    for name in ("web", "beside"):
        assert servers(two, name) == ["10.1.0.1"]
        assert own_addresses(two, name) == ["10.1.0.3", "fd00:1::a01:3"]
        assert "10.1.0.2" in inside(two, name, "nslookup -type=a db")
        assert "203.0.113.80" in inside(two, name, "nslookup -type=a internet.test")
    assert inside(two, "web", "hostname -i").split()[0] == "10.1.0.3"
    assert [kept(two, "web", file).stat().st_ino for file in ("resolv.conf", "hosts")] == inodes
    two.ok("network", "connect", "--gw-priority=1", "back", "web")
    assert servers(two, "web") == ["10.2.0.1"], "of the interface with the default route"
    two.ok("network", "disconnect", "back", "web")
    assert servers(two, "web") == ["10.1.0.1"]


def test_names_of_a_container_that_began_without_a_network(two: Pyrun) -> None:
    two.ok("run", "-d", "--name=web", "--network=none", *SLEEP)
    two.ok("run", "-d", "--name=db", "--network=front", *SLEEP)
    first = [kept(two, "web", file).read_text() for file in ("resolv.conf", "hosts")]
    two.ok("network", "connect", "front", "web")
    assert servers(two, "web") == ["10.1.0.1"]
    assert own_addresses(two, "web") == ["10.1.0.3", "fd00:1::a01:3"]
    assert "10.1.0.2" in inside(two, "web", "nslookup -type=a db")
    two.ok("network", "disconnect", "front", "web")
    assert [kept(two, "web", file).read_text() for file in ("resolv.conf", "hosts")] == first


def test_a_network_that_leads_nowhere_answers_names_all_the_same(two: Pyrun) -> None:
    two.ok("network", "create", "--internal", "--subnet=10.3.0.0/24", "within")
    two.ok("run", "-d", "--name=web", "--network=front", *SLEEP)
    two.ok("run", "-d", "--name=db", "--network=within", *SLEEP)
    two.ok("network", "connect", "within", "web")
    assert servers(two, "web") == ["10.1.0.1"]
    two.ok("network", "disconnect", "front", "web")
    assert servers(two, "web") == ["10.3.0.1"] and own_addresses(two, "web") == ["10.3.0.3"]
    assert "10.3.0.2" in inside(two, "web", "nslookup -type=a db")


def test_what_the_start_said_of_names_stays(two: Pyrun) -> None:
    words = ("--dns=192.0.2.53", "--dns-search=shop.example", "--dns-option=ndots:2",
             "--add-host=printer:192.0.2.9", "--hostname=desk.example.com")  # fmt: skip
    own = "desk.example.com desk"
    two.ok("run", "-d", "--name=web", "--network=front", *words, *SLEEP)
    assert own_addresses(two, "web", own) == ["10.1.0.2", "fd00:1::a01:2"]
    two.ok("network", "connect", "back", "web")
    two.ok("network", "disconnect", "front", "web")
    told = "nameserver 10.2.0.1\nsearch shop.example\noptions ndots:2"
    assert inside(two, "web", "cat /etc/resolv.conf") == told
    assert own_addresses(two, "web", own) == ["10.2.0.2", "fd00:2::a02:2"]
    assert own_addresses(two, "web", "printer") == ["192.0.2.9"]
    lease = two.runroot / "networks" / "back" / "leases" / "10.2.0.2"
    assert "dns 192.0.2.53" in lease.read_text().splitlines(), "the resolver asks the servers that were given"
    two.ok("network", "disconnect", "back", "web")
    assert sorted(inside(two, "web", "cat /etc/resolv.conf").splitlines()) == [
        "nameserver 192.0.2.53", "options ndots:2", "search shop.example",
    ]  # fmt: skip
    assert own_addresses(two, "web", own) == [] and own_addresses(two, "web", "printer") == ["192.0.2.9"]
    assert "desk" not in inside(two, "web", "cat /etc/hosts")


def test_what_the_container_wrote_itself_stays(two: Pyrun, tmp_path: Path) -> None:
    """A resolv.conf it changed is its own, one of the user's as well; of hosts, our own lines alone change."""
    two.ok("run", "-d", "--name=web", "--network=front", *SLEEP)
    inside(two, "web", "echo nameserver 192.0.2.1 > /etc/resolv.conf; printf '192.0.2.7 lamp' >> /etc/hosts")
    two.ok("network", "connect", "back", "web")
    two.ok("network", "disconnect", "front", "web")
    assert servers(two, "web") == ["192.0.2.1"]
    assert own_addresses(two, "web") == ["10.2.0.2", "fd00:2::a02:2"]
    assert own_addresses(two, "web", "lamp") == ["192.0.2.7"]

    given = tmp_path / "given.conf"
    given.write_text("nameserver 192.0.2.2\n")
    two.ok("run", "-d", "--name=own", "--network=front", f"--volume={given}:/etc/resolv.conf", *SLEEP)
    two.ok("network", "connect", "back", "own")
    two.ok("network", "disconnect", "front", "own")
    assert given.read_text() == "nameserver 192.0.2.2\n" and servers(two, "own") == ["192.0.2.2"]


def test_files_that_cannot_be_written_are_told_and_undo_nothing(two: Pyrun) -> None:
    two.ok("run", "-d", "--name=web", "--network=none", *SLEEP)
    hosts, resolv = (kept(two, "web", file) for file in ("hosts", "resolv.conf"))
    hosts.unlink()
    done = two("network", "connect", "front", "web")
    assert done.returncode == 0 and done.stderr.count("\n") == 1, done.stderr
    assert f"{hosts}: No such file or directory" in done.stderr
    assert interfaces(two, "web") == ["lo", "eth0"] and servers(two, "web") == ["10.1.0.1"]
    resolv.unlink()
    resolv.mkdir()
    done = two("network", "disconnect", "front", "web")
    assert done.returncode == 0 and f"{resolv}: Is a directory" in done.stderr
    assert interfaces(two, "web") == ["lo"] and leases(two, "front") == []


def test_nobody_reads_more_than_a_little_of_what_a_container_wrote(two: Pyrun) -> None:
    two.ok("run", "-d", "--name=web", "--network=none", *SLEEP)
    inside(two, "web", "truncate -s 1000000000 /etc/hosts")
    done = two("network", "connect", "front", "web")
    assert done.returncode == 0 and f"{kept(two, 'web', 'hosts')}: File too large" in done.stderr
    assert servers(two, "web") == ["10.1.0.1"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("verb", ["connect", "disconnect"])
def test_names_are_right_again_after_a_verb_was_killed(
    verb: str, two: Pyrun, sandbox_fork: Callable[..., killing.Traced]
) -> None:
    """kill -9 between record and files: the next connect or disconnect knows them as ours, and says what is true."""
    words = ("network", verb, "front", "web")

    def killed(at: tuple[str, int] | None) -> killing.Traced:
        two.ok("run", "-d", "--name=web", f"--network={'none' if verb == 'connect' else 'front'}", *SLEEP)
        return sandbox_fork(killing.trace, [str(two.binary), *words], dict(two.env), at, flags=0)

    whole = killed(None)
    assert whole.status == 0, whole.output
    two.ok("rm", "-f", "web")
    named = ("container.json", "/hosts", "/resolv.conf")
    walked = [step for step in points(whole.steps) if any(name in step[2] for name in named)]
    assert len(walked) > 5
    for role, number, text in walked[-12::2]:
        killed((role, number))
        two(*words)  # whether it was done already or not
        two.ok("network", "connect", "back", "web")
        left = ["10.1.0.1"] if verb == "connect" else ["10.2.0.1"]
        assert servers(two, "web") == left, f"killed at {text}"
        own = {address.rpartition(".")[0] for address in own_addresses(two, "web") if "." in address}
        assert own == ({"10.1.0", "10.2.0"} if verb == "connect" else {"10.2.0"}), f"killed at {text}"
        two.ok("rm", "-f", "web")
