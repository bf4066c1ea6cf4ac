"""Hosts that lack something or have it otherwise: addresses, subnets, IPv6, nftables, br_netfilter, old iptables.

Either it works all the same, or one line says why not and nothing is left half-made.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

import capabilities
import hostile
import leftovers
from command import Pyrun
from deprived import deprived
from places import setting
from waiting import soon
from yard import SERVE, page, run

pytestmark = pytest.mark.alone

ASK = ("timeout", "3", "wget", "-q", "-O-")


def networks(pyrun: Pyrun) -> dict[str, dict[str, object]]:
    rows = map(json.loads, pyrun.ok("network", "ls", "--format", "json").splitlines())
    return {str(row["Name"]): row for row in rows}


def on(what: str, pyrun: Pyrun, *words: str) -> subprocess.CompletedProcess[str]:
    """pyrun on a host that lacks something."""
    command = [*deprived(what), str(pyrun.binary), *words]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=pyrun.env, timeout=60, check=False
    )  # fmt: skip


# ── addresses ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "free"),
    [(("--subnet=192.0.2.0/29",), 5), (("--subnet=192.0.2.0/24", "--ip-range=192.0.2.64/30"), 4),
     (("--subnet=192.0.2.0/29", "--gateway=192.0.2.3"), 5)],
)  # fmt: skip
def test_a_pool_is_exhausted(pyrun: Pyrun, options: tuple[str, ...], free: int) -> None:
    """Every address is given away, once; the next start is told and leaves nothing; a freed one is found."""
    pyrun.ok("network", "create", *options, "small")

    def start(number: int) -> subprocess.CompletedProcess[str]:
        return pyrun("run", "-d", "--name", f"c{number}x", "--network=small", "busybox", "sleep", "1000")

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(start, range(free + 3)))
    given = networks(pyrun)["small"]["Containers"]
    assert isinstance(given, dict) and len(set(given.values())) == len(given) == free
    refused = [each for each in done if each.returncode]
    assert len(refused) == 3
    for each in refused:
        line, _, hint = each.stderr.partition("\n")
        assert line.startswith("pyrun: network 'small' has no free address left"), each.stderr
        assert hint.startswith("hint: remove containers"), each.stderr
    stored = hostile.stored(pyrun)
    assert pyrun("run", "--rm", "--network=small", "busybox", "true").returncode == 125
    assert hostile.stored(pyrun) == stored
    victim = next(iter(given))
    pyrun.ok("rm", "-f", victim)
    assert pyrun.ok("run", "--rm", "--network=small", "busybox", "hostname", "-i").split() == [given[victim]]


def test_subnets_are_in_nobodys_way(pyrun: Pyrun) -> None:
    """An address, routes of a VPN in a table of its own, a name server: the next candidates are taken instead."""
    run("ip", "address", "add", "10.77.3.4/32", "dev", "eth0")
    run("ip", "route", "add", "10.78.0.0/15", "dev", "eth0", "table", "51820")
    run("ip", "rule", "add", "fwmark", "51820", "lookup", "51820")
    run("ip", "route", "add", "unreachable", "10.80.0.0/16", "table", "7")
    run("ip", "route", "add", "0.0.0.0/1", "dev", "eth0", "table", "51820")
    run("ip", "route", "add", "128.0.0.0/1", "dev", "eth0", "table", "51820")
    try:
        pyrun.ok("run", "--rm", "busybox", "true")
        assert networks(pyrun)["bridge"]["Subnet"] == "10.81.0.0/16"
        error = pyrun.fails(1, "network", "create", "--subnet=10.78.9.0/24", "clash")
        assert "10.78.9.0/24" in error and "10.78.0.0/15" in error
        error = pyrun.fails(1, "network", "create", "--subnet=10.81.0.0/24", "clash")
        assert "bridge" in error
        assert "clash" not in networks(pyrun)
        pyrun.ok("network", "create", "free")
        free = ipaddress.ip_network(str(networks(pyrun)["free"]["Subnet"]))
        assert not any(
            free.overlaps(ipaddress.ip_network(other)) for other in ("10.76.0.0/14", "10.80.0.0/15")
        )
    finally:
        run("ip", "rule", "delete", "fwmark", "51820", "lookup", "51820")
        for table in ("51820", "7"):
            run("ip", "route", "flush", "table", table)
        run("ip", "address", "delete", "10.77.3.4/32", "dev", "eth0")


def test_a_subnet_that_is_taken_later(pyrun: Pyrun) -> None:
    """A VPN comes after the network was made: what stands goes on, and a start says nothing wrong."""
    pyrun.ok("run", "-d", "--name=web", "busybox", *SERVE)
    address = networks(pyrun)["bridge"]["Containers"]["web"]  # type: ignore[index]
    run("ip", "route", "add", "10.0.0.0/8", "dev", "eth0", "table", "51820")
    run("ip", "rule", "add", "prio", "40000", "lookup", "51820")
    try:
        assert pyrun.ok("run", "--rm", "busybox", *ASK, f"http://{address}/") == "a secret"
    finally:
        run("ip", "rule", "delete", "prio", "40000")
        run("ip", "route", "flush", "table", "51820")


# ── without IPv6, without nftables ─────────────────────────────────────────────────────────────────


def test_a_host_without_ipv6(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """Networks, names and ports as ever; what needs IPv6 is refused in one line."""
    done = on("ipv6", pyrun, "run", "-d", "--name=web", "-p", "8080:80", "busybox", *SERVE)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    shown = on("ipv6", pyrun, "run", "--rm", "busybox", "sh", "-c",
               f"wget -q -O- http://web/ && wget -q -O- http://{internet.far}/")  # fmt: skip
    assert shown.stdout == f"a secret\nyou are {internet.host}\n", shown.stderr
    for command in (("-p", "[::1]:80:80"), ("--ip6", "fd00::9")):
        refused = on("ipv6", pyrun, "run", "--rm", *command, "busybox", "true")
        assert refused.returncode == 125 and refused.stderr.startswith("pyrun: -"), refused.stderr
        assert command[1].removesuffix(":80") in refused.stderr and "may be a bug" not in refused.stderr
    assert on("ipv6", pyrun, "network", "reload").stdout == "nothing was missing\n"
    assert on("ipv6", pyrun, "rm", "-f", "web").returncode == 0


def test_a_kernel_without_nftables(pyrun: Pyrun) -> None:
    """Nothing can be published or kept apart there: it is said, nothing is made, and other networks work."""
    before = leftovers.picture()
    for words in (("run", "--rm", "busybox", "true"), ("network", "create", "yard")):
        refused = on("nft", pyrun, *words)
        assert refused.returncode == (125 if words[0] == "run" else 1), refused
        line, _, hint = refused.stderr.partition("\n")
        assert line.startswith("pyrun: ") and "nftables" in line, refused.stderr
        assert hint.startswith("hint: ") and "may be a bug" not in hint, refused.stderr
    assert not hostile.stored(pyrun)
    assert leftovers.settle(before) == []
    assert on("nft", pyrun, "run", "--rm", "--net=none", "busybox", "echo", "up").stdout == "up\n"
    assert on("nft", pyrun, "run", "--rm", "--net=host", "busybox", "echo", "up").stdout == "up\n"


def test_without_the_programs_nft_and_iptables(
    pyrun: Pyrun, internet: SimpleNamespace, tmp_path: Path
) -> None:
    """pyrun speaks to the kernel itself."""
    done = pyrun(
        "run",
        "--rm",
        "-p",
        "8080:80",
        "busybox",
        *ASK,
        f"http://{internet.far}/",
        env={"PATH": str(tmp_path)},
    )
    assert done.stdout == f"you are {internet.host}\n", done.stderr


# ── bridges and netfilter ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("passed", ["0", "1"])
def test_whether_bridges_pass_frames_to_iptables(
    pyrun: Pyrun, internet: SimpleNamespace, passed: str
) -> None:
    """Without br_netfilter, or with it switched off, neighbours, hairpins and --icc=false are as with it."""
    with (
        setting("net/bridge/bridge-nf-call-iptables", passed),
        setting("net/bridge/bridge-nf-call-ip6tables", passed),
    ):
        pyrun.ok("run", "-d", "--name=web", "-p", "8080:80", "busybox", *SERVE)
        assert soon(
            lambda: pyrun("exec", "web", *ASK, f"http://{internet.host}:8080/").stdout == "a secret\n", 3
        )
        assert pyrun.ok("run", "--rm", "busybox", *ASK, "http://web/") == "a secret"
        assert pyrun.ok("run", "--rm", "busybox", *ASK, f"http://{internet.host}:8080/") == "a secret"
        pyrun.ok("network", "create", "--icc=false", "apart")
        pyrun.ok("run", "-d", "--name=alone", "--network=apart", "busybox", *SERVE)
        address = networks(pyrun)["apart"]["Containers"]["alone"]  # type: ignore[index]
        run("ping", "-c1", "-W2", address)
        ask = ("run", "--rm", "--network=apart", "busybox", "timeout", "1", "wget", "-q", "-O-")
        assert pyrun(*ask, f"http://{address}/").stdout == ""
        assert pyrun.ok(*ask, f"http://{internet.far}/") == f"you are {internet.host}"


@pytest.fixture
def legacy(lab: None) -> Iterator[None]:
    """iptables-legacy, whose chains nft does not show, drops what is forwarded and what comes in."""
    words = [("iptables-legacy", "-A", "INPUT", "-i", "lo", "-j", "ACCEPT"),
             ("iptables-legacy", "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"),
             ("iptables-legacy", "-P", "INPUT", "DROP"), ("iptables-legacy", "-P", "FORWARD", "DROP")]  # fmt: skip
    if subprocess.run(words[0], capture_output=True, check=False).returncode:
        pytest.skip(capabilities.missing("iptables_legacy"))
    for each in words[1:]:
        run(*each)
    yield
    for chain in ("INPUT", "FORWARD"):
        run("iptables-legacy", "-P", chain, "ACCEPT")
        run("iptables-legacy", "-F", chain)


def test_beside_iptables_legacy(legacy: None, pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """Ways out, names and published ports, in spite of chains that drop; they are as before in the end."""
    before = run("iptables-legacy-save", "-t", "filter")
    closed = pyrun("run", "-d", "--name=closed", "-p", "8081:80", "busybox", *SERVE)
    assert (
        closed.returncode == 0 and "8081" in closed.stderr and "--publish-through-firewall" in closed.stderr
    ), closed
    pyrun.ok("run", "-d", "--name=web", "-p", "8080:80", "--publish-through-firewall", "busybox", *SERVE)
    assert pyrun.ok("run", "--rm", "busybox", *ASK, f"http://{internet.far}/") == f"you are {internet.host}"
    assert pyrun.ok("run", "--rm", "busybox", *ASK, "http://web/") == "a secret"
    assert page(internet, f"{internet.host}:8080") == "a secret"
    assert page(internet, f"{internet.host}:8081") == ""
    pyrun.ok("rm", "-f", "web", "closed")
    pyrun.ok("network", "prune")
    strip = lambda text: [line for line in text.splitlines() if line[:1] not in ("#", ":")]  # noqa: E731
    assert strip(run("iptables-legacy-save", "-t", "filter")) == strip(before)
