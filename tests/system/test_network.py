"""The network of containers as a user meets it: `pyrun run` on the lab host, with its internet and a neighbour."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import Pyrun
from published import SERVE, fetch


def test_a_container_without_ipv6(pyrun: Pyrun) -> None:
    """However the links of several networks come in time: none ever had it, and loopback keeps its address."""
    pyrun.ok("network", "create", "second")
    conf = "/proc/sys/net/ipv6/conf"
    command = [
        "sh",
        "-c",
        f"cd {conf}; grep '' default/disable_ipv6 *[a-z][0-9]/disable_ipv6; cat /proc/net/if_inet6",
    ]
    networks = ("--net=bridge", "--net=second:ifname=lan7")
    for _ in range(20):
        *switches, address = pyrun.ok("run", "--rm", *networks, "busybox", *command).splitlines()
        assert switches == [f"{each}/disable_ipv6:1" for each in ("default", "eth0", "lan7")]
        assert address.split() == ["0" * 31 + "1", "01", "80", "10", "80", "lo"]
    pyrun.ok("network", "rm", "second")


def test_sysctls_of_links_are_the_callers_last_word(pyrun: Pyrun) -> None:
    """They are written when the links are there, whatever the network has set before."""
    pyrun.ok("network", "create", "--ipv6", "six")
    wanted = {"ipv6.conf.eth0.accept_ra": "2", "ipv4.conf.eth0.rp_filter": "2", "ipv6.conf.all.disable_ipv6": "1",
              "ipv4.neigh.eth0.retrans_time_ms": "800"}  # fmt: skip
    options = [word for name, value in wanted.items() for word in ("--sysctl", f"net.{name}={value}")]
    names = " ".join(f"/proc/sys/net/{name.replace('.', '/')}" for name in wanted)
    for _ in range(20):
        script = f"cat {names} /proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip -6 addr show dev eth0"
        seen = pyrun.ok("run", "--rm", "--net=six", *options, "busybox", "sh", "-c", script)
        assert seen.split() == [*wanted.values(), "1"]
    pyrun.ok("network", "rm", "six")


def test_a_container_reaches_gateway_neighbours_and_the_internet(
    pyrun: Pyrun, internet: SimpleNamespace
) -> None:
    pyrun.ok("run", "-d", "--name", "web", "busybox", *SERVE)
    row = next(
        json.loads(line)
        for line in pyrun.ok("network", "ls", "--format", "json").splitlines()
        if '"bridge"' in line
    )
    address = row["Containers"]["web"]
    assert fetch(address) == "hello"
    script = f"ping -c1 -W1 {row['Gateway']} && wget -qO- http://{address}/ && wget -qO- http://{internet.gateway}/"
    seen = pyrun.ok("run", "--rm", "--net=bridge", "busybox", "sh", "-c", script)
    assert "hello" in seen
    assert f"you are {internet.host}" in seen, "not masqueraded"
    assert (
        "eth0"
        in subprocess.run(
            ["ip", "netns", "exec", "web", "ip", "addr"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_the_names_of_a_container(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    seen = pyrun.ok(
        "run",
        "--rm",
        "--name",
        "web",
        "-h",
        "shop",
        "busybox",
        "sh",
        "-c",
        "cat /etc/hosts /etc/resolv.conf; nslookup internet.test",
    )
    assert "10.77.0.2\tshop" in seen
    assert "nameserver 10.77.0.1" in seen, "the resolver of the network"
    assert "internet.test" in seen


def test_a_published_port_from_everywhere(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "busybox", *SERVE)
    assert fetch("127.0.0.1:8080") == "hello"
    assert fetch("127.0.0.1:8081") == "hello"
    for place in ("internet", "neighbour"):
        assert fetch(f"{internet.host}:8080", at=place) == "hello"
        assert fetch(f"{internet.host}:8081", at=place, tries=1) == ""
    error = pyrun.fails(125, "run", "--rm", "-p", "8080:80", "busybox", "true")
    assert error.startswith("pyrun: port 0.0.0.0:8080/tcp is already published by container web")
    pyrun.ok("rm", "-f", "web")
    assert fetch("127.0.0.1:8080", tries=1) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--net=nowhere"], "pyrun: no such network: nowhere"),
        (["--net=a/b"], "pyrun: --network 'a/b' is no name of a network"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(pyrun: Pyrun, options: list[str], message: str) -> None:
    assert pyrun.fails(125, "run", "--rm", *options, "busybox", "true").startswith(message)
    assert not list(pyrun.runroot.glob("containers/*"))
    assert not list(pyrun.runroot.glob("networks/*/leases/*"))


@pytest.mark.alone
def test_prune_says_what_it_restores(pyrun: Pyrun) -> None:
    done = pyrun("run", "--rm", "busybox", "true")
    assert "net.ipv4.ip_forward is now 1" in done.stderr
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
    assert "bridge" in pyrun.ok("network", "prune")
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "0\n"
    assert not Path("/sys/class/net/pyrun0").exists()


def test_a_flushed_ruleset_is_healed_by_the_next_start(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", *SERVE)
    for _ in range(5):  # on a busy machine the guard, which watches the table too, is sometimes quicker
        subprocess.run(["nft", "delete", "table", "inet", "pyrun"], check=True)
        done = pyrun("run", "--rm", "busybox", "true")
        if done.stderr:
            break
    assert "table inet pyrun was missing and has been restored" in done.stderr
    assert fetch(f"{internet.host}:8080", at="internet") == "hello"


def test_starts_side_by_side_share_nothing(pyrun: Pyrun) -> None:
    """All of them live until the last has been asked: an address that is given back may be another's."""
    starts = [pyrun.start("run", "-d", "busybox", "sleep", "600") for _ in range(12)]
    running = [process.communicate(timeout=60)[0].strip() for process in starts]
    addresses = [
        pyrun.ok("exec", each, "ip", "-4", "-o", "addr", "show", "eth0").split()[3] for each in running
    ]
    assert len(set(addresses)) == 12
