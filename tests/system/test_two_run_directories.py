"""Two run directories on one host: each has bridges, tables and subnets of its own, and neither touches the other's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import leftovers
from command import Pyrun
from published import fetch

pytestmark = pytest.mark.alone
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
PAGE = "mkdir -p /www; echo $0 >/www/index.html; exec httpd -f -p 80 -h /www"


@pytest.fixture
def both(static_binary: Path, prepared_store: Path, tmp_path: Path) -> Iterator[tuple[Pyrun, Pyrun]]:
    with leftovers.nothing_is_left():
        made = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            made.append(Pyrun(static_binary, tmp_path / name))
            made[-1].runroot = Path(f"{made[-1].runroot}-{name}")
            made[-1].env = {**made[-1].env, "PYRUN_RUNROOT": str(made[-1].runroot)}
            made[-1].copy_store(prepared_store)
        yield made[0], made[1]
        for each in made:
            each.close()


def shell(line: str) -> str:
    return subprocess.run(line, shell=True, check=True, capture_output=True, text=True, timeout=30).stdout


def serve(pyrun: Pyrun, name: str, port: int) -> str:
    """A server on the default network; returns its address."""
    pyrun.ok("run", "-d", "--name", name, "-p", f"{port}:80", "busybox", "sh", "-c", PAGE, name)
    (row,) = json.loads(pyrun.ok("network", "inspect", "bridge"))
    (container,) = row["Containers"].values()
    return str(container["IPv4Address"]).partition("/")[0]


def works(pyrun: Pyrun, name: str, port: int, internet: SimpleNamespace) -> None:
    """Its published port, its name, and the way out."""
    assert fetch(f"127.0.0.1:{port}") == fetch(f"{internet.host}:{port}", at="neighbour") == name
    seen = pyrun.ok(
        "run", "--rm", "busybox", "sh", "-c", f"wget -qO- http://{name}/; wget -qO- http://{internet.far}/"
    )
    assert seen.splitlines() == [name, f"you are {internet.host}"]


@pytest.mark.parametrize("first", [0, 1])
def test_each_beside_the_other(both: tuple[Pyrun, Pyrun], internet: SimpleNamespace, first: int) -> None:
    """They start in turn, and *first* ends first: what it takes away is its own."""
    one, two = both
    addresses = [serve(one, "alpha", 8181), serve(two, "beta", 8182)]
    assert addresses[0].startswith("10.77.") and not addresses[1].startswith("10.77."), addresses
    works(one, "alpha", 8181, internet)
    works(two, "beta", 8182, internet)
    tables = shell("nft list tables").split("\n")
    assert {"table inet pyrun", "table bridge pyrun", "table inet pyrun-A", "table bridge pyrun-A"} <= set(
        tables
    )
    for pyrun, bridge, table in ((one, "pyrun0", "pyrun"), (two, "pyrunA", "pyrun-A")):
        assert f"alias {pyrun.runroot}: network bridge" in shell(f"ip -d link show {bridge}")
        assert f'comment "{pyrun.runroot}"' in shell(f"nft list table inet {table}")
    before = FORWARD.read_text()
    assert before == "1\n"

    ending, staying = (one, two) if first == 0 else (two, one)
    name, port = (("alpha", 8181), ("beta", 8182))[first]
    other, other_port = (("beta", 8182), ("alpha", 8181))[first]
    ending.ok("rm", "-f", name)
    assert "bridge" in ending.ok("network", "prune")
    works(staying, other, other_port, internet)
    assert FORWARD.read_text() == "1\n"
    assert staying.ok("network", "reload") == "nothing was missing"
    # and it begins again
    serve(ending, name, port)
    works(ending, name, port, internet)
    works(staying, other, other_port, internet)
    for pyrun in (staying, ending):
        pyrun.ok("rm", "-f", *pyrun.ok("ps", "-aq").split())
        pyrun.ok("network", "prune")
    assert "pyrun" not in shell("nft list tables; ip -br link")
    assert FORWARD.read_text() == "0\n", "the last one puts back what the first one found"


def test_they_are_apart(both: tuple[Pyrun, Pyrun]) -> None:
    """As two networks of one run directory: the published port is reached, the container itself is not."""
    one, two = both
    address = serve(one, "alpha", 8181)
    serve(two, "beta", 8182)
    reach = ("run", "--rm", "--init", "busybox", "timeout", "2", "wget", "-qO-")
    done = two(*reach, f"http://{address}/")
    assert (done.returncode != 0, done.stdout) == (True, ""), done
    assert two.ok(*reach, "http://198.51.100.2:8181/") == "alpha"
    assert one.ok(*reach, "http://198.51.100.2:8182/") == "beta"
    told = two("run", "--rm", "busybox", "nslookup", "alpha")
    assert "10.77." not in told.stdout.partition("Name:")[2]
    refused = two.fails(125, "run", "--rm", "-p", "8181:80", "busybox", "true")
    assert "8181" in refused


def test_addresses_cannot_be_taken_over(both: tuple[Pyrun, Pyrun]) -> None:
    """Each one's rules about frames hold for its own links, with both tables there."""
    one, two = both
    serve(one, "alpha", 8181)
    serve(two, "beta", 8182)
    spoof = "ip addr flush dev eth0; ip addr add {} dev eth0; ping -c1 -W1 {}"
    for pyrun, bridge in ((one, "pyrun0"), (two, "pyrunA")):
        gateway = shell(f"ip -4 -o addr show {bridge}").split()[3]
        base = gateway.partition("/")[0].rpartition(".")[0]
        words = ("run", "--rm", "--cap-add=NET_ADMIN", "busybox", "sh", "-c")
        assert pyrun(*words, spoof.format(f"{base}.200/16", f"{base}.1")).returncode != 0
        assert pyrun(*words, f"ping -c1 -W1 {base}.1").returncode == 0


def test_networks_of_ones_own(both: tuple[Pyrun, Pyrun]) -> None:
    """The subnets of created ones are found and avoided too, one asked for is refused; prune leaves the other's."""
    one, two = both
    one.ok("network", "create", "front")
    two.ok("network", "create", "front")
    subnets = [json.loads(each.ok("network", "inspect", "front"))[0] for each in both]
    ranges = [each["IPAM"]["Config"][0]["Subnet"] for each in subnets]
    assert ranges[0] != ranges[1]
    assert "overlaps" in two.fails(1, "network", "create", f"--subnet={ranges[0]}", "back")
    one.ok("network", "prune")
    assert subnets[1]["Pyrun"]["Bridge"] in shell("ip -br link")
    assert subnets[0]["Pyrun"]["Bridge"] not in shell("ip -br link")
    two.ok("run", "--rm", "--network=front", "busybox", "ping", "-c1", "-W1", ranges[1].replace("0/24", "1"))
