"""The host's own firewall and published ports: what it would not let in stays closed to the outside, and is told.

Docker opens every published port past ufw, firewalld and a dropping INPUT policy; see publishing/host_firewall.py.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import Pyrun
from published import SERVE, fetch, refuses

TOLD = "is open to this host and its containers only: "


def nft(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


def closed() -> str:
    listed = subprocess.run(
        "nft list set inet pyrun closed".split(), capture_output=True, text=True, check=True
    )
    return listed.stdout


def expect(internet: SimpleNamespace, number: int, *, outside: bool) -> None:
    """The port is there for the host in any case, and for its neighbours only if *outside*."""
    assert fetch(f"127.0.0.1:{number}") == fetch(f"{internet.host}:{number}") == "hello"
    if outside:
        assert fetch(f"{internet.host}:{number}", at="neighbour") == "hello"
    else:
        assert refuses(f"{internet.host}:{number}", at="neighbour")


@pytest.fixture
def dropping_nft() -> Iterator[str]:
    """As the example of nftables.conf: everything that enters is dropped but for ssh and 8443."""
    nft("""table inet filter { chain input { type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname { "lo", "pyr*" } accept
        tcp dport { 22, 8443 } accept
        ip saddr 10.0.0.0/8 tcp dport 8081 accept
    }; }""")
    yield "chain input of table inet filter (nftables)"
    nft("delete table inet filter")


@pytest.fixture
def dropping_iptables() -> Iterator[str]:
    """As an administrator does by hand."""
    commands = ("-A INPUT -i lo -j ACCEPT", "-A INPUT -p tcp --dport 8443 -j ACCEPT",
                "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
                "-A INPUT -s 10.0.0.0/8 -p tcp --dport 8081 -j ACCEPT", "-P INPUT DROP")  # fmt: skip
    for command in commands:
        subprocess.run(["iptables", *command.split()], check=True)
    yield "the chain INPUT of iptables"
    _forget_iptables()


@pytest.fixture
def refusing_at_the_end() -> Iterator[str]:
    """As many distributions had it: the policy accepts, the last rule refuses the rest."""
    commands = ("-i lo -j ACCEPT", "-i pyr+ -j ACCEPT", "-p tcp --dport 8443 -j ACCEPT",
                "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
                "-s 10.0.0.0/8 -p tcp --dport 8081 -j ACCEPT", "-j REJECT")  # fmt: skip
    for command in commands:
        subprocess.run(["iptables", "-A", "INPUT", *command.split()], check=True)
    yield "the chain INPUT of iptables"
    _forget_iptables()


@pytest.mark.parametrize("firewall", ["dropping_nft", "dropping_iptables", "refusing_at_the_end"])
def test_a_dropping_policy(
    pyrun: Pyrun, internet: SimpleNamespace, firewall: str, request: pytest.FixtureRequest
) -> None:
    name = request.getfixturevalue(firewall)
    ports = ["-p", "8080:80", "-p", "8081:80", "-p", "8443:80", "-p", "127.0.0.1:8082:80"]
    done = pyrun("run", "-d", "--name", "web", *ports, "busybox", *SERVE)
    assert done.returncode == 0, done.stderr
    (told,) = [line for line in done.stderr.splitlines() if TOLD in line]
    assert told.startswith(f"port 8080/tcp and 1 more {TOLD}{name} does not let it in; ")
    assert "--publish-through-firewall" in told
    for number, outside in ((8080, False), (8081, False), (8443, True)):
        expect(internet, number, outside=outside)
    other = pyrun.ok("run", "--rm", "busybox", "wget", "-qO-", f"http://{internet.host}:8080/")
    assert other == "hello", "containers are not the outside"
    rows = {
        row["HostPort"]: row
        for row in map(json.loads, pyrun.ok("port", "--format", "json", "web").splitlines())
    }
    assert rows[8080]["ReachableFrom"] == {"host": True, "lan": [], "containers": True}
    assert rows[8080]["Firewall"] == f"{name} does not let it in: closed to the outside"
    assert rows[8081]["Firewall"] == f"{name} lets it in from 10.0.0.0/8 only: closed to the outside"
    assert rows[8443]["ReachableFrom"]["lan"] == [internet.host]
    assert (rows[8443]["Firewall"], rows[8082]["Firewall"]) == ("lets it in", "")
    pyrun.ok("rm", "-f", "web")
    assert "elements" not in closed()


def test_the_option_that_overrules(pyrun: Pyrun, internet: SimpleNamespace, dropping_nft: str) -> None:
    done = pyrun(
        "run", "-d", "--name", "web", "--publish-through-firewall", "-p", "8080:80", "busybox", *SERVE
    )
    assert done.returncode == 0 and TOLD not in done.stderr
    expect(internet, 8080, outside=True)
    (row,) = map(json.loads, pyrun.ok("port", "--format", "json", "web").splitlines())
    assert row["Firewall"] == f"{dropping_nft} does not let it in: overruled by --publish-through-firewall"
    # it stays so when the tables are made anew
    subprocess.run("nft delete table inet pyrun".split(), check=True)
    pyrun.ok("network", "reload")
    expect(internet, 8080, outside=True)


def test_a_port_that_is_added_is_judged_too(
    pyrun: Pyrun, internet: SimpleNamespace, dropping_nft: str
) -> None:
    pyrun.ok("run", "-d", "--name", "web", "busybox", *SERVE)
    done = pyrun("port", "add", "web", "8080:80", "8443:80")
    assert f"port 8080/tcp {TOLD}{dropping_nft} does not let it in" in done.stderr
    expect(internet, 8080, outside=False)
    expect(internet, 8443, outside=True)
    pyrun.ok("port", "rm", "web", "8080")
    assert "elements" not in closed()
    # published anew, through the firewall: nothing of the former verdict is left
    pyrun.ok("port", "add", "--publish-through-firewall", "web", "8080:80")
    expect(internet, 8080, outside=True)


def test_closed_ports_stay_closed_when_the_ruleset_is_flushed(
    pyrun: Pyrun, internet: SimpleNamespace, dropping_nft: str
) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", *SERVE)
    subprocess.run("nft delete table inet pyrun".split(), check=True)
    pyrun.ok("network", "reload")
    assert "tcp . 8080" in closed()
    expect(internet, 8080, outside=False)


def test_reload_judges_anew(pyrun: Pyrun, internet: SimpleNamespace, dropping_nft: str) -> None:
    """What was allowed meanwhile is opened, what was forbidden is closed; `pyrun port` says so before."""
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "-p", "8443:80", "busybox", *SERVE)
    nft("""flush chain inet filter input
        add rule inet filter input iifname { "lo", "pyr*" } accept
        add rule inet filter input ct state established accept
        add rule inet filter input tcp dport 8080 accept""")
    rows = {
        row["HostPort"]: row["Firewall"]
        for row in map(json.loads, pyrun.ok("port", "--format", "json", "web").splitlines())
    }
    assert rows[8080] == "lets it in now: `pyrun network reload` opens it"
    assert rows[8443] == f"{dropping_nft} does not let it in any more: `pyrun network reload` closes it"
    pyrun.ok("network", "reload")
    expect(internet, 8080, outside=True)
    expect(internet, 8443, outside=False)


def test_without_such_a_firewall_nothing_is_asked(pyrun: Pyrun, tmp_path: Path) -> None:
    """Not even `nft`: neither the programs nor the modules that read rules are loaded."""
    pyrun.ok("run", "--rm", "busybox", "true")
    done = pyrun("run", "--rm", "-p", "8080:80", "busybox", "true", env={"PATH": str(tmp_path)})
    assert done.returncode == 0 and done.stderr == ""


# ── ufw and firewalld themselves ───────────────────────────────────────────────────────────────────


@pytest.fixture
def ufw() -> Iterator[None]:
    subprocess.run(["ufw", "--force", "enable"], check=True, capture_output=True)
    subprocess.run(["ufw", "allow", "8443/tcp"], check=True, capture_output=True)
    yield
    subprocess.run(["ufw", "--force", "reset"], check=True, capture_output=True)
    _forget_iptables()


def _forget_iptables() -> None:
    for family in ("ip", "ip6"):
        for table in ("filter", "nat", "mangle", "raw", "security"):
            subprocess.run(["nft", "delete", "table", family, table], check=False, capture_output=True)


@pytest.mark.needs("ufw")
def test_ufw(pyrun: Pyrun, internet: SimpleNamespace, ufw: None) -> None:
    done = pyrun("run", "-d", "--name", "web", "-p", "8080:80", "-p", "8443:80", "busybox", *SERVE)
    assert f"port 8080/tcp {TOLD}ufw does not let it in" in done.stderr
    expect(internet, 8080, outside=False)
    expect(internet, 8443, outside=True)
    subprocess.run(["ufw", "allow", "8080/tcp"], check=True, capture_output=True)
    pyrun.ok("network", "reload")
    expect(internet, 8080, outside=True)
    pyrun.ok("rm", "-f", "web")
    pyrun.ok("network", "prune")


@pytest.fixture
def firewalld(tmp_path: Path) -> Iterator[None]:
    Path("/run/dbus").mkdir(exist_ok=True)
    bus = subprocess.Popen(["dbus-daemon", "--system", "--nofork", "--nopidfile"])
    until(lambda: Path("/run/dbus/system_bus_socket").exists())
    log = (tmp_path / "firewalld.log").open("w")
    daemon = subprocess.Popen(["firewalld", "--nofork", "--nopid"], stdout=log, stderr=log)
    until(
        lambda: (
            "running"
            in subprocess.run(["firewall-cmd", "--state"], capture_output=True, text=True, check=False).stdout
        )
    )
    for words in (["--zone=public", "--add-interface=eth0"], ["--zone=public", "--add-port=8443/tcp"]):
        subprocess.run(["firewall-cmd", *words], check=True, capture_output=True)
    yield
    daemon.terminate()
    daemon.wait(20)
    bus.terminate()
    bus.wait(20)
    log.close()
    _forget_iptables()


def until(true: object, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.needs("firewalld")
def test_firewalld(pyrun: Pyrun, internet: SimpleNamespace, firewalld: None) -> None:
    done = pyrun("run", "-d", "--name", "web", "-p", "8080:80", "-p", "8443:80", "busybox", *SERVE)
    assert f"port 8080/tcp {TOLD}firewalld does not let it in" in done.stderr
    expect(internet, 8080, outside=False)
    expect(internet, 8443, outside=True)
    subprocess.run(["firewall-cmd", "--add-port=8080/tcp"], check=True, capture_output=True)
    pyrun.ok("network", "reload")
    expect(internet, 8080, outside=True)
    pyrun.ok("rm", "-f", "web")
    pyrun.ok("network", "prune")
