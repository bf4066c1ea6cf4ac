"""Many at once: addresses, names and the first bridge are nobody's twice, and no first packet is lost.

Containers note the time themselves (/proc/uptime is the host's), so what overlapped is known afterwards.
"""

from __future__ import annotations

import json
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface

import pytest

from command import Pyrun

# a TCP packet that is lost is sent again after a second; a connection without loss takes some milliseconds
LIMIT_S = 0.5
OWN_ADDRESS = "ip -4 -o addr show eth0 | awk '{print $4}'"
NOW = "cut -d' ' -f1 /proc/uptime"
# a refusal (the server is not yet listening) is an answer, and comes at once
CONNECT = f"a=$({NOW}); until nc -w 5 $0 $1 </dev/null; do usleep 2000; done; echo $a $({NOW})"
SERVE = ["httpd", "-f", "-p", "7000"]


def network(pyrun: Pyrun) -> dict[str, object]:
    """The row of the default network."""
    rows = map(json.loads, pyrun.ok("network", "ls", "--format", "json").splitlines())
    return next(row for row in rows if row["Name"] == "bridge")


def address_of(pyrun: Pyrun, name: str) -> str:
    return str(network(pyrun)["Containers"][name])  # type: ignore[index]


def leases(pyrun: Pyrun) -> list[str]:
    return [path.name for path in pyrun.runroot.glob("networks/*/leases/*")]


# ── addresses ──────────────────────────────────────────────────────────────────────────────────────


def test_two_hundred_starts_and_no_address_twice(pyrun: Pyrun) -> None:
    """Twelve at a time; each says its address and from when to when it had it."""
    command = f"{NOW}; {OWN_ADDRESS}; usleep 100000; {NOW}"

    def start(_: int) -> subprocess.CompletedProcess[str]:
        return pyrun("run", "--rm", "busybox", "sh", "-c", command)

    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(start, range(200)))
    assert [each.stderr for each in done if each.returncode] == []
    lives = [(address, float(a), float(b)) for a, address, b in (each.stdout.split() for each in done)]
    clashes = [
        (one, other)
        for number, one in enumerate(lives)
        for other in lives[number + 1 :]
        if one[0] == other[0] and one[1] < other[2] and other[1] < one[2]
    ]
    assert clashes == []
    together = max(sum(a <= moment < b for _, a, b in lives) for _, moment, _ in lives)
    assert together >= 4, "too few ran at the same time to show anything"
    assert leases(pyrun) == []
    assert list(pyrun.runroot.glob("containers/*")) == [] == list(pyrun.root.glob("containers/*"))


def test_the_files_decide_who_gets_an_address(pyrun: Pyrun) -> None:
    """Not the pointer to the next one, which is written without a lock: here it is turned back all the time."""
    pyrun.ok("run", "--rm", "busybox", "true")
    pointer = pyrun.runroot / "networks" / "bridge" / "next"
    start_of_range = pointer.read_text()
    stop = threading.Event()

    def turn_back() -> None:
        while not stop.wait(0.002):
            pointer.write_text(start_of_range)

    turner = threading.Thread(target=turn_back)
    turner.start()
    try:
        starts = [
            pyrun.start("run", "--rm", "-i", "busybox", "sh", "-c", f"{OWN_ADDRESS}; read end")
            for _ in range(16)
        ]
        addresses = [process.stdout.readline().strip() for process in starts]  # type: ignore[union-attr]
    finally:
        stop.set()
        turner.join()
    assert "" not in addresses
    assert len(set(addresses)) == 16
    for process in starts:
        process.communicate("\n", timeout=30)
        assert process.returncode == 0


# ── the first start ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.alone
def test_thirty_first_starts_make_one_bridge(pyrun: Pyrun) -> None:
    starts = [
        pyrun.start("run", "--rm", "-i", "busybox", "sh", "-c", f"{OWN_ADDRESS}; read end") for _ in range(30)
    ]
    addresses = [process.stdout.readline().strip() for process in starts]  # type: ignore[union-attr]
    links = subprocess.run(
        ["ip", "-o", "link", "show", "type", "bridge"], capture_output=True, text=True, check=True
    )
    held = subprocess.run(
        ["ip", "-4", "-o", "addr", "show", "pyrun0"], capture_output=True, text=True, check=True
    )
    errors = [process.communicate("\n", timeout=60)[1] for process in starts]
    assert [error for error, process in zip(errors, starts, strict=True) if process.returncode] == []
    assert [line.split()[1] for line in links.stdout.splitlines()] == ["pyrun0:"]
    (line,) = held.stdout.splitlines()
    assert len(set(addresses)) == 30
    assert {ip_interface(each).network for each in addresses} == {ip_interface(line.split()[3]).network}
    assert sum("bridge pyrun0 made" in error for error in errors) == 1
    assert leases(pyrun) == []


def test_of_many_starts_with_one_name_one_wins(pyrun: Pyrun) -> None:
    starts = [pyrun.start("run", "-d", "--name", "same", "busybox", "sleep", "1000") for _ in range(12)]
    output = [process.communicate(timeout=60) for process in starts]
    winners = [
        out.strip() for (out, _), process in zip(output, starts, strict=True) if process.returncode == 0
    ]
    assert len(winners) == 1
    assert pyrun.ok("ps", "-a", "-q", "--no-trunc").split() == winners
    assert len(leases(pyrun)) == 1
    for (_, error), process in zip(output, starts, strict=True):
        if process.returncode:
            assert process.returncode == 125
            said = [line for line in error.splitlines() if line.startswith("pyrun: ") and "same" in line]
            assert len(said) == 1, error


# ── the first packet ───────────────────────────────────────────────────────────────────────────────


class _Accept(socketserver.BaseRequestHandler):
    """Accepts, and hangs up."""


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


@pytest.fixture
def port() -> Iterator[str]:
    """A TCP server on every address of the host; its port."""
    with _Server(("", 0), _Accept) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield str(server.server_address[1])
        server.shutdown()
        thread.join()


def seconds(printed: str) -> float:
    """How long CONNECT took."""
    begin, end = printed.splitlines()[-1].split()
    return float(end) - float(begin)


def test_the_first_packet_is_never_lost(pyrun: Pyrun, port: str) -> None:
    """Fifty containers whose first act is a connection: half to the gateway, half to another container."""
    pyrun.ok("run", "-d", "--name", "server", "busybox", *SERVE)
    gateway, server = str(network(pyrun)["Gateway"]), address_of(pyrun, "server")

    pyrun.ok("run", "--rm", "busybox", "sh", "-c", CONNECT, server, "7000")  # until it listens

    def start(number: int) -> float:
        target = (server, "7000") if number % 2 else (gateway, port)
        begin = time.monotonic()
        pyrun.ok("run", "--rm", "busybox", "nc", "-w", "5", *target)
        return time.monotonic() - begin

    with ThreadPoolExecutor(4) as pool:
        took = list(pool.map(start, range(50)))
    assert max(took) < 2 * LIMIT_S, sorted(took)[-5:]  # with the start, and the end


def test_the_new_owner_of_an_address_answers_at_once(pyrun: Pyrun) -> None:
    """Host and neighbours talk to a container; it goes, another gets its address: nobody has to forget anything."""
    pyrun.ok("run", "-d", "--name", "client", "busybox", "sleep", "1000")
    pointer = pyrun.runroot / "networks" / "bridge" / "next"
    just_before = pointer.read_text()
    addresses, took = set(), []
    for _ in range(6):
        pointer.write_text(just_before)  # without this the address would come round after 65,000 others
        pyrun.ok("run", "-d", "--rm", "--name", "server", "busybox", *SERVE)
        address = address_of(pyrun, "server")
        addresses.add(address)
        took.append(seconds(pyrun.ok("exec", "client", "sh", "-c", CONNECT, address, "7000")))
        ping = subprocess.run(["ping", "-c1", "-W1", address], capture_output=True, text=True, check=False)
        assert ping.returncode == 0, ping.stdout
        pyrun.ok("rm", "-f", "server")
    assert len(addresses) == 1
    assert max(took) < LIMIT_S, took


def test_starts_and_connections_at_once_never_have_one_mac(pyrun: Pyrun) -> None:
    """A MAC that was chosen is one container's; it is free with its end, or when it is disconnected."""
    mac = "02:00:00:00:00:77"
    pyrun.ok("network", "create", "lan")
    for number in range(3):
        pyrun.ok("run", "-d", "--name", f"c{number}", "--network=none", "busybox", "sleep", "100")

    def connect(number: int) -> subprocess.CompletedProcess[str]:
        if number < 3:
            return pyrun("network", "connect", f"--mac-address={mac}", "lan", f"c{number}")
        return pyrun(
            "run", "-d", "--name", f"c{number}", f"--network=lan:mac={mac}", "busybox", "sleep", "100"
        )

    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(connect, range(6)))
    (owner,) = [number for number, each in enumerate(done) if each.returncode == 0]
    told = f"the MAC address {mac} is that of container c{owner} on "
    assert [told in each.stderr for each in done].count(True) == 5, [each.stderr for each in done]
    assert [path.name for path in pyrun.runroot.glob("macs/*")] == [f"network lan-{mac}"]
    pyrun.ok("network", "disconnect", "lan", f"c{owner}")
    assert not list(pyrun.runroot.glob("macs/*"))
    pyrun.ok("run", "--rm", f"--network=lan:mac={mac}", "busybox", "true")
    assert not list(pyrun.runroot.glob("macs/*"))
