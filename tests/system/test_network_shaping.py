"""--net-rate and --net-fault as they are felt: by a container's downloads and uploads, and by tc."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import Pyrun
from places import listening
from segments import CARD, FAR, GATEWAY, pings, segment

BYTES = 1_000_000


def seconds(pyrun: Pyrun, *options: str, command: str) -> float:
    """How long a command in a container took, told by itself."""
    script = f"A=$(cat /proc/uptime); {command}; echo $A; cat /proc/uptime"
    before, after = pyrun.ok("run", "--rm", *options, "busybox", "sh", "-c", script).splitlines()[-2:]
    return float(after.split()[0]) - float(before.split()[0])


def links(prefix: str) -> list[str]:
    return [path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(prefix)]


def test_what_arrives_is_as_slow_as_asked(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    get = f"wget -qO /dev/null http://{internet.far}/bytes/{BYTES}"
    took = seconds(pyrun, "--net-rate=in=8mbit", command=get)
    assert 0.7 < took < 2.5, "a megabyte by a line of eight megabits"
    assert seconds(pyrun, command=get) < took / 2


def test_what_is_sent_is_as_slow_as_asked(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """To a neighbour that swallows it; the way in stays quick."""
    sink = ["nsenter", "--net=/run/pyrun-lab/neighbour", "busybox", "nc", "-l", "-p", "9999"]
    send = f"dd if=/dev/zero bs={BYTES} count=1 2>/dev/null | nc -w 5 {internet.neighbour} 9999"
    listener = subprocess.Popen(sink, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    listening("neighbour", ":9999 ")
    started = time.monotonic()
    client = pyrun.start("run", "--rm", "--net-rate=in=1gbit,out=8mbit", "busybox", "sh", "-c", send)
    assert listener.stdout is not None
    received = 0
    while received < BYTES and (data := listener.stdout.read1(65536)):
        received += len(data)
    took = time.monotonic() - started
    listener.kill()
    listener.communicate()
    client.wait(20)
    assert received == BYTES
    assert 0.7 < took < 4


def test_the_container_cannot_take_it_off_and_it_goes_with_it(pyrun: Pyrun) -> None:
    ident = pyrun.ok(
        "run",
        "-d",
        "--name",
        "web",
        "--cap-add=NET_ADMIN",
        "--net-rate=in=3mbit,out=2mbit",
        "busybox",
        "sleep",
        "100",
    )
    short = ident[:12]
    told = subprocess.run(["tc", "qdisc", "show"], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"tbf 1: dev pyv{short} root .*rate 3Mbit", told), told
    assert re.search(rf"tbf 1: dev pyi{short} root .*rate 2Mbit", told), told
    assert "noqueue" in pyrun.ok("exec", "web", "ip", "link", "show", "eth0"), (
        "nothing of it is on the container's side"
    )
    pyrun.ok("rm", "-f", "web")
    assert links("pyi") == []


def test_every_link_of_the_container(pyrun: Pyrun) -> None:
    pyrun.ok("network", "create", "back")
    pyrun.ok(
        "run",
        "-d",
        "--name",
        "web",
        "--network=bridge",
        "--network=back",
        "--net-rate=out=2mbit",
        "busybox",
        "sleep",
        "9",
    )
    assert len(links("pyi")) == 2
    pyrun.ok("rm", "-f", "web")
    assert links("pyi") == []
    pyrun.ok("network", "rm", "back")


def test_a_network_that_is_connected_later_is_as_slow(pyrun: Pyrun) -> None:
    for name in ("back", "more"):
        pyrun.ok("network", "create", name)
    slow = ("--net-rate=in=3mbit,out=2mbit", "busybox", "sleep", "100")
    short = pyrun.ok("run", "-d", "--name", "web", "--network=bridge", *slow)[:11]
    pyrun.ok("network", "connect", "back", "web")
    told = subprocess.run(["tc", "qdisc", "show"], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"tbf 1: dev pyv{short}g root .*rate 3Mbit", told), told
    assert re.search(rf"tbf 1: dev pyi{short}g root .*rate 2Mbit", told), told
    pyrun.ok("network", "disconnect", "back", "web")
    assert len(links("pyi")) == 1
    for name in ("back", "more"):
        pyrun.ok("network", "connect", name, "web")
    assert len(links("pyi")) == 3
    pyrun.ok("rm", "-f", "web")
    assert links("pyi") == []
    pyrun.ok("network", "rm", "back", "more")


@pytest.fixture
def bridged(lab: None) -> Iterator[None]:
    with segment(bridged=True):
        yield


@pytest.mark.alone
def test_beside_a_card(bridged: None, pyrun: Pyrun) -> None:
    wanted = (
        "--net-rate=in=1mbit,out=1mbit",
        f"--network=l2:{CARD}:ip=192.168.50.9",
        "busybox",
        "sleep",
        "100",
    )
    pyrun.ok("run", "-d", "--name", "web", *wanted)
    assert pings("192.168.50.9", at=FAR)
    assert "1 packets received" in pyrun.ok("exec", "web", "ping", "-c1", "-W1", GATEWAY)
    assert len(links("pyk")) == 1
    pyrun.ok("rm", "-f", "web")
    assert links("pyk") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--net-rate=in=fast"], "--net-rate in=fast: no rate"),
        (["--net-rate=up=1mbit"], "--net-rate 'up=1mbit': 'up=1mbit' is no setting"),
        (["--net-rate=in=1kbit"], "--net-rate in=1kbit: must be 8kbit to 32gbit"),
        (
            ["--net-rate=in=1mbit", "--network=none"],
            "--net-rate: the container has no link with an end on the host",
        ),
        (
            ["--net-rate=in=1mbit", "--network=host"],
            "--net-rate: the container has no link with an end on the host",
        ),
        (["--net-fault=loss=101%"], "--net-fault loss=101%: must be 0% to 100%"),
        (["--net-fault=jitter=5ms"], "--net-fault jitter: needs a delay"),
    ],
)
def test_bad_input_is_one_line(pyrun: Pyrun, options: list[str], message: str) -> None:
    assert pyrun.fails(125, "run", "--rm", *options, "busybox", "true").startswith(f"pyrun: {message}")
    assert not list(pyrun.runroot.glob("containers/*"))


@pytest.mark.needs("netem")
def test_a_delay_and_a_loss(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    ping = f"ping -c3 -i 0.2 -W2 {internet.gateway}"
    seen = pyrun.ok("run", "--rm", "--net-fault=delay=150ms", "busybox", "sh", "-c", ping)
    slowest = float(seen.rsplit("=", 1)[1].split("/")[0])
    assert 150 <= slowest < 1000, "a round trip has the delay once"
    assert (
        "100% packet loss"
        in pyrun("run", "--rm", "--net-fault=loss=100%", "busybox", "sh", "-c", ping).stdout
    )
    both = ("--net-fault=delay=20ms,jitter=5ms,duplicate=1%,reorder=10%,corrupt=0.1%", "--net-rate=in=10mbit")
    pyrun.ok("run", "-d", "--name", "web", *both, "busybox", "sleep", "100")
    told = subprocess.run(["tc", "qdisc", "show"], capture_output=True, text=True, check=True).stdout
    (netem,) = [line for line in told.splitlines() if "netem" in line]
    for words in ("delay 20ms  5ms", "duplicate 1%", "reorder 10%", "corrupt 0.1%"):
        assert words in netem
    assert re.search(r"tbf 2: dev pyv\w+ parent 1:1 rate 10Mbit", told), told
    pyrun.ok("rm", "-f", "web")


@pytest.mark.needs("no_netem")
def test_a_kernel_without_netem_is_told_before_anything_is_made(pyrun: Pyrun) -> None:
    error = pyrun.fails(125, "run", "--rm", "--net-fault=delay=1ms", "busybox", "true")
    assert error.startswith("pyrun: --net-fault: this kernel has no network emulator (CONFIG_NET_SCH_NETEM)")
    assert not Path("/sys/class/net/pyrun0").exists()
