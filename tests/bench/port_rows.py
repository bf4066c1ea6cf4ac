"""The rows of published ports: what one more costs, what a connection to one of thousands costs, and what goes through.

Everything is asked from the lab's "internet", over the host's uplink, and of pyrun, Docker and iptables in turns. What
is published is a server of ours (port_work.py) in the network namespace of a container; who publishes it is the row.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contenders import NoPeer, Peers, output
from hyperfine import Effort, Samples
from rows import Figure, Row

WORKER = Path(__file__).with_name("port_work.py")
HOST = "198.51.100.2"
MANY, FIRST = 5000, 20000
LAST = FIRST + MANY - 1
RULES, FIRST_RULE = 1000, 30000  # of iptables, as Docker writes them
LAST_RULE = FIRST_RULE + RULES - 1
# To each port, a run. All rounds together stay below the source ports a client has for one destination, so that no
# connection is one the host remembers, and far below as many as it can remember.
CONNECTIONS = 100
SERVED = 5201
MEGABYTES = 512
SLEEP = ("sleep", "600")


def work(*words: str, inside: str = "") -> list[str]:
    """The command line of port_work.py, in a network namespace if one is named."""
    enter = ["nsenter", f"--net={inside}"] if inside else []
    return [*enter, sys.executable, str(WORKER), *words]


def asked(*words: str, inside: str = "") -> object:
    """What it prints."""
    return json.loads(output(*work(*words, inside=inside)).splitlines()[-1])


INTERNET = "/run/pyrun-lab/internet"


@contextmanager
def serving(inside: str, *numbers: int, how: str = "serve") -> Iterator[None]:
    """A server in the namespace *inside*, ready; *how*: port_work.py tells serve from listen."""
    with subprocess.Popen(work(how, *map(str, numbers), inside=inside), stdout=subprocess.PIPE) as server:
        assert server.stdout and server.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            server.kill()


@contextmanager
def container(peers: Peers, name: str, *options: str, who: str = "pyrun") -> Iterator[str]:
    """A container that sleeps; its network namespace."""
    output(*peers.run(who, "-d", "--name", name, *options, command=SLEEP))
    try:
        if who == "pyrun":
            yield f"/run/netns/{name}"
        else:
            pid = output(*peers.docker, "inspect", "-f", "{{.State.Pid}}", name)
            yield f"/proc/{pid}/ns/net"
    finally:
        peers.remove(who, name)


def publish_row(peers: Peers, effort: Effort) -> list[Figure]:
    """One port more, in process, beside MANY published against beside 1, and against two iptables calls."""
    times = str(20 * effort.runs)
    few, many = Samples(), Samples()
    iptables = Samples()
    os.environ["PYRUN_BINARY"] = peers.pyrun
    with container(peers, "bench-one", "-p", "8080:80"):
        for number in range(effort.rounds):
            few.wall_ms += in_ms(asked("publish", "bench-one", times))
            with container(peers, "bench-many", "-p", f"{FIRST}-{LAST}:{FIRST}-{LAST}"):
                many.wall_ms += in_ms(asked("publish", "bench-one", times))
            iptables.wall_ms += [two_rules(number) for _ in range(effort.runs)]
    what = "publish one more port, in process, "
    samples = {"pyrun": many, "pyrun beside 1": few, "iptables": iptables}
    return [
        Figure(
            f"{what}with {MANY} published against with 1",
            "itself",
            many.median_ms,
            few.median_ms,
            1.2,
            samples=samples,
        ),
        Figure(
            f"{what}against two iptables calls",
            "iptables",
            few.median_ms,
            iptables.median_ms,
            0.05,
            samples=samples,
        ),
    ]


def in_ms(taken_us: object) -> list[float]:
    """Microseconds as the table has them."""
    assert isinstance(taken_us, list)
    return [each / 1000 for each in taken_us]


def two_rules(number: int) -> float:
    """What Docker calls for one port; ms. They are deleted again, unmeasured."""
    port = str(FIRST_RULE + number)
    rules = (
        [
            "-t",
            "nat",
            "PREROUTING",
            "-p",
            "tcp",
            "--dport",
            port,
            "-j",
            "DNAT",
            "--to-destination",
            "192.0.2.9:80",
        ],
        ["-t", "filter", "FORWARD", "-d", "192.0.2.9", "-p", "tcp", "--dport", "80", "-j", "ACCEPT"],
    )
    began = time.perf_counter()
    for rule in rules:
        subprocess.run(["iptables", *rule[:2], "-A", *rule[2:]], check=True)
    taken = time.perf_counter() - began
    for rule in rules:
        subprocess.run(["iptables", *rule[:2], "-D", *rule[2:]], check=True)
    return taken * 1000


def connect_row(peers: Peers, effort: Effort) -> list[Figure]:
    """A connection from outside to the last of MANY ports against the first, and against the last of RULES rules."""
    times = str(CONNECTIONS * effort.runs)
    samples = {"pyrun": Samples(), "pyrun, the first": Samples(), "iptables": Samples()}

    def connected(whom: dict[str, int]) -> None:
        found = asked("connect", HOST, times, *map(str, whom.values()), inside=INTERNET)
        assert isinstance(found, dict)
        for who, port in whom.items():
            samples[who].wall_ms += in_ms(found[str(port)])
            samples[who].rounds += 1

    with (
        container(peers, "bench-ports", "-p", f"{FIRST}-{LAST}:{FIRST}-{LAST}") as inside,
        serving(inside, FIRST, LAST, LAST_RULE, how="listen"),
    ):
        address = address_in(inside)
        for number in range(effort.rounds):
            for who in sorted(("iptables", "pyrun"), reverse=bool(number % 2)):
                if who == "pyrun":
                    connected({"pyrun, the first": FIRST, "pyrun": LAST})
                else:
                    with docker_like_rules(address):
                        connected({"iptables": LAST_RULE})
    ours, first, rules = (samples[who].median_ms for who in ("pyrun", "pyrun, the first", "iptables"))
    what = f"connection to the last of {MANY} published ports"
    return [
        Figure(f"{what} against the first", "itself", ours, first, 1.2, samples=samples),
        Figure(
            f"{what} against the last of {RULES} with Docker's rules",
            "iptables",
            ours,
            rules,
            0.2,
            samples=samples,
        ),
    ]


@contextmanager
def docker_like_rules(address: str) -> Iterator[None]:
    """RULES ports published as Docker does: three rules for each, in three chains that every new connection walks."""
    nat, filtering = ["*nat", ":BENCH - [0:0]", ":BENCH-OUT - [0:0]"], ["*filter", ":BENCH - [0:0]"]
    for port in range(FIRST_RULE, FIRST_RULE + RULES):
        there = f"-p tcp -m tcp --dport {port} -j"
        nat.append(f"-A BENCH ! -i pyrun0 {there} DNAT --to-destination {address}:{port}")
        nat.append(f"-A BENCH-OUT -s {address}/32 -d {address}/32 {there} MASQUERADE")
        filtering.append(f"-A BENCH -d {address}/32 ! -i pyrun0 -o pyrun0 {there} ACCEPT")
    nat += ["-A PREROUTING -m addrtype --dst-type LOCAL -j BENCH", "-A POSTROUTING -j BENCH-OUT", "COMMIT"]
    filtering += ["-I FORWARD -j BENCH", "COMMIT", ""]
    subprocess.run(["iptables-restore", "--noflush"], input="\n".join(nat + filtering), text=True, check=True)
    try:
        yield
    finally:
        for words in (
            "-t nat -D PREROUTING -m addrtype --dst-type LOCAL -j BENCH", "-t nat -D POSTROUTING -j BENCH-OUT",
            "-t filter -D FORWARD -j BENCH", "-t nat -F BENCH", "-t nat -X BENCH", "-t nat -F BENCH-OUT",
            "-t nat -X BENCH-OUT", "-t filter -F BENCH", "-t filter -X BENCH",
        ):  # fmt: skip
            subprocess.run(["iptables", *words.split()], check=True)


def throughput_row(peers: Peers, effort: Effort) -> list[Figure]:
    """MEGABYTES through a published port, from outside: against Docker's DNAT, and against its proxy."""
    if not peers.docker:
        raise NoPeer(peers.missing.get("docker", "docker is missing"))
    ways = {"pyrun": 9001, "docker": 9002, "docker-proxy": 9003}
    samples = {who: Samples() for who in ways}
    with (
        container(peers, "bench-through", "-p", f"9001:{SERVED}") as ours,
        container(peers, "bench-through", "-p", f"9002:{SERVED}", who="docker") as theirs,
        serving(ours, SERVED),
        serving(theirs, SERVED),
        proxy(9003, address_in(theirs)),
    ):
        for number in range(effort.rounds * 2):
            for who in sorted(ways, reverse=bool(number % 2)):
                seconds = asked("send", HOST, str(ways[who]), str(MEGABYTES), inside=INTERNET)
                assert isinstance(seconds, float)
                samples[who].wall_ms.append(seconds * 1000)
                samples[who].rounds += 1
    what, median = (
        f"{MEGABYTES} MB through a published port",
        {who: samples[who].median_ms for who in samples},
    )
    return [
        Figure(what, peer, median["pyrun"], median[who], round(1 / least, 3), samples=samples)
        for who, peer, least in (("docker-proxy", "docker-proxy", 1.6), ("docker", "Docker's DNAT", 0.95))
    ]


@contextmanager
def proxy(port: int, address: str) -> Iterator[None]:
    """Docker's userland proxy, as its daemon starts it for a port where iptables are not to be touched."""
    words = f"-proto tcp -host-ip 0.0.0.0 -host-port {port} -container-ip {address} -container-port {SERVED}"
    # it says on descriptor 3 that it listens
    with subprocess.Popen(
        ["sh", "-c", f"exec 3>&1; exec docker-proxy {words}"], stdout=subprocess.PIPE
    ) as running:
        assert running.stdout and running.stdout.read(1) == b"0"
        try:
            yield
        finally:
            running.kill()


def address_in(inside: str) -> str:
    """The IPv4 address of eth0 in that namespace."""
    listed = output("nsenter", f"--net={inside}", "ip", "-4", "-o", "address", "show", "eth0")
    return listed.split()[3].split("/")[0]


ROWS: dict[str, Row] = {
    "port-publish": publish_row,
    "port-connect": connect_row,
    "port-throughput": throughput_row,
}
