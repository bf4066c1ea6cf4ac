"""The host's own firewall and published ports: what it would not let in stays closed to the outside, and is told.

Docker opens every published port past ufw, firewalld and a dropping INPUT policy; see publishing/host_firewall.py.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import places
import ruleset
from command import Pyrun
from places import HOST6, uplink6
from published import SERVE, fetch, refuses
from segments import FAR, HOST, segment, shell
from waiting import until

pytestmark = pytest.mark.alone

TOLD = "is open to this host and its containers only: "


def nft(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


CLOSED_SETS = ("closed", "closed_at", "closed6", "closed6_at")


def closed() -> set[str]:
    """The keys of everything that is closed to the outside, as `nft` prints them."""
    found: set[str] = set()
    for name in CLOSED_SETS:
        listed = subprocess.run(
            f"nft list set inet pyrun {name}".split(), capture_output=True, text=True, check=True
        )
        keys = listed.stdout.partition("elements = {")[2].partition("}")[0]
        found |= {f"{name} {key.strip()}" for key in keys.split(",") if key.strip()}
    return found


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
    done = pyrun("port", "web")
    assert (
        sorted(done.stdout.splitlines())[1] == "80/tcp -> 0.0.0.0:8081" and len(done.stdout.splitlines()) == 4
    )
    assert done.stderr.splitlines() == [
        f"port 0.0.0.0:8080/tcp is closed to the outside: {name} does not let it in",
        f"port 0.0.0.0:8081/tcp is closed to the outside: {name} lets it in from 10.0.0.0/8 only",
    ]
    assert pyrun("port", "--format=docker", "web").stderr == ""
    pyrun.ok("rm", "-f", "web")
    assert closed() == set()


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
    assert closed() == set()
    # published anew, through the firewall: nothing of the former verdict is left
    pyrun.ok("port", "add", "--publish-through-firewall", "web", "8080:80")
    expect(internet, 8080, outside=True)


def test_closed_ports_stay_closed_when_the_ruleset_is_flushed(
    pyrun: Pyrun, internet: SimpleNamespace, dropping_nft: str
) -> None:
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", *SERVE)
    subprocess.run("nft delete table inet pyrun".split(), check=True)
    pyrun.ok("network", "reload")
    assert closed() == {"closed tcp . 8080"}
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
    # or the guard was first, since a rule of ours went too
    told = Path(pyrun.runroot, "networks/events").read_text()
    assert "port 0.0.0.0:8080/tcp is open to the outside" in told
    assert "port 0.0.0.0:8443/tcp is closed to the outside" in told
    assert pyrun.ok("network", "reload") == "nothing was missing"
    expect(internet, 8080, outside=True)
    expect(internet, 8443, outside=False)


@pytest.fixture
def second_card() -> Iterator[None]:
    """A card to which no default route leads; links to containers of others, which are no segment."""
    links = ("br666", "virbr9")
    with segment():
        for number, name in enumerate(links):
            shell(
                f"ip link add {name} type bridge; ip addr add 10.0.{number}.1/24 dev {name}; ip link set {name} up"
            )
        nft("""table inet filter { chain input { type filter hook input priority filter; policy drop;
            ct state established,related accept
            iifname { "lo", "pyr*" } accept
            iifname "eth0" tcp dport { 8080, 8443 } accept
            iifname "lan1" tcp dport 8443 accept
        }; }""")
        yield
        nft("delete table inet filter")
        for name in links:
            shell(f"ip link delete {name}")


def test_every_segment_is_the_outside(second_card: None, pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """A port is open only where the rules let it in by whatever link somebody may come."""
    pyrun.ok("network", "adopt", "br666")
    done = pyrun("run", "-d", "--name", "web", "-p", "8080:80", "-p", "8443:80", "busybox", *SERVE)
    why = "chain input of table inet filter (nftables) does not let it in on lan1"
    assert f"port 8080/tcp {TOLD}{why}" in done.stderr
    assert places.page(FAR, f"{HOST}:8443") == "hello"
    assert places.page(FAR, f"{HOST}:8080").startswith("no:")
    assert closed() == {"closed tcp . 8080"}
    pyrun.ok("rm", "-f", "web")
    pyrun.ok("network", "rm", "br666")


# ── one port on several addresses ──────────────────────────────────────────────────────────────────

FURTHER = "198.51.100.20"


@pytest.fixture
def one_address_open(internet: SimpleNamespace) -> Iterator[None]:
    """A second address of the host, and rules which let 8080 in to that one alone."""
    subprocess.run(f"ip address add {FURTHER}/24 dev eth0".split(), check=True)
    nft(f"""table inet filter {{ chain input {{ type filter hook input priority filter; policy drop;
        ct state established,related accept
        meta l4proto ipv6-icmp accept
        iifname {{ "lo", "pyr*" }} accept
        ip daddr {FURTHER} tcp dport 8080 accept
        ip6 daddr {HOST6} tcp dport 8080 accept
    }}; }}""")
    yield
    nft("delete table inet filter")
    subprocess.run(f"ip address delete {FURTHER}/24 dev eth0".split(), check=True)


def both(internet: SimpleNamespace) -> list[str]:
    """What the neighbour gets from port 8080 of either address of the host: the first, the further one."""
    return [
        fetch(f"{address}:8080", at="neighbour", tries=40 if wanted else 1, timeout_s=0.5)
        for address, wanted in ((internet.host, False), (FURTHER, True))
    ]


def test_a_port_is_closed_on_one_address_and_open_on_another(
    pyrun: Pyrun, internet: SimpleNamespace, one_address_open: None
) -> None:
    """Two containers, one number: either has a verdict of its own, whatever becomes of the other."""
    shut = f"closed_at {internet.host} . tcp . 8080"
    pyrun.ok("run", "-d", "--name", "open", "-p", f"{FURTHER}:8080:80", "busybox", *SERVE)
    done = pyrun("run", "-d", "--name", "shut", "-p", f"{internet.host}:8080:80", "busybox", *SERVE)
    assert f"port {internet.host}:8080/tcp {TOLD}" in done.stderr
    assert fetch(f"{internet.host}:8080") == "hello", "it is there for the host"
    assert both(internet) == ["", "hello"] and closed() == {shut}
    rows = {
        name: json.loads(pyrun.ok("port", "--format", "json", name))["ReachableFrom"]["lan"]
        for name in ("open", "shut")
    }
    assert rows == {"open": [FURTHER], "shut": []}
    # made anew, judged anew: the same
    subprocess.run("nft delete table inet pyrun".split(), check=True)
    pyrun.ok("network", "reload")
    assert both(internet) == ["", "hello"] and closed() == {shut}
    # the end of the one that is open leaves the other closed; its successor is open again
    pyrun.ok("rm", "-f", "open")
    assert both(internet) == ["", ""] and closed() == {shut}
    pyrun.ok("run", "-d", "--name", "open", "-p", f"{FURTHER}:8080:80", "busybox", *SERVE)
    assert both(internet) == ["", "hello"]
    # and so for the other one, by `port rm`, `port add` and its end
    pyrun.ok("port", "rm", "shut", "8080")
    assert closed() == set() and both(internet) == ["", "hello"]
    pyrun.ok("port", "add", "shut", f"{internet.host}:8080:80")
    assert both(internet) == ["", "hello"] and closed() == {shut}
    pyrun.ok("rm", "-f", "shut")
    assert closed() == set()


def test_reload_judges_each_address_for_itself(
    pyrun: Pyrun, internet: SimpleNamespace, one_address_open: None
) -> None:
    pyrun.ok("run", "-d", "--name", "open", "-p", f"{FURTHER}:8080:80", "busybox", *SERVE)
    pyrun.ok("run", "-d", "--name", "shut", "-p", f"{internet.host}:8080:80", "busybox", *SERVE)
    assert both(internet) == ["", "hello"]
    nft(f"""flush chain inet filter input
        add rule inet filter input iifname {{ "lo", "pyr*" }} accept
        add rule inet filter input ct state established accept
        add rule inet filter input ip daddr {internet.host} tcp dport 8080 accept""")
    pyrun.ok("network", "reload")
    assert fetch(f"{internet.host}:8080", at="neighbour") == "hello"
    assert refuses(f"{FURTHER}:8080", at="neighbour")
    assert closed() == {f"closed_at {FURTHER} . tcp . 8080"}


def test_the_families_are_judged_apart(
    pyrun: Pyrun, internet: SimpleNamespace, one_address_open: None
) -> None:
    """0.0.0.0 of one container is closed, an IPv6 address of another open; and the other way round."""
    pyrun.ok("network", "create", "--ipv6", "six")
    with uplink6():
        words = ["--network", "six", "busybox", *SERVE]
        pyrun.ok("run", "-d", "--name", "four", "-p", "0.0.0.0:8080:80", *words)
        pyrun.ok("run", "-d", "--name", "open", "-p", f"[{HOST6}]:8080:80", *words)
        assert closed() == {"closed tcp . 8080"}
        assert fetch(f"{internet.host}:8080") == fetch(f"[{HOST6}]:8080") == "hello"
        assert fetch(f"[{HOST6}]:8080", at="internet") == "hello"
        assert both(internet)[0] == "" and refuses(f"{internet.host}:8080", at="internet")
        pyrun.ok("rm", "-f", "open", "four")
        assert closed() == set()
        pyrun.ok("run", "-d", "--name", "every", "-p", "8080:80", *words)
        assert closed() == {"closed tcp . 8080", "closed6 tcp . 8080"}
        assert fetch(f"[{HOST6}]:8080") == "hello" and refuses(f"[{HOST6}]:8080", at="internet")
        pyrun.ok("rm", "-f", "every")
        nft("""flush chain inet filter input
            add rule inet filter input ct state established accept
            add rule inet filter input meta l4proto ipv6-icmp accept
            add rule inet filter input meta nfproto ipv4 accept""")
        pyrun.ok("run", "-d", "--name", "four", "-p", "0.0.0.0:8080:80", *words)
        pyrun.ok("run", "-d", "--name", "one", "-p", f"[{HOST6}]:8080:80", *words)
        assert closed() == {f"closed6_at {HOST6} . tcp . 8080"}
        assert fetch(f"{internet.host}:8080", at="neighbour") == "hello"
        assert refuses(f"[{HOST6}]:8080", at="internet")
        nft("add rule inet filter input accept")
        pyrun.ok("network", "reload")
        assert closed() == set() and fetch(f"[{HOST6}]:8080", at="internet") == "hello"
        pyrun.ok("rm", "-f", "one", "four")


def test_what_an_older_pyrun_left_is_made_anew(
    pyrun: Pyrun, internet: SimpleNamespace, one_address_open: None
) -> None:
    """Its tables have no sets by address, its template no messages for them; containers of its time go on running."""
    pyrun.ok("run", "-d", "--name", "open", "-p", f"{FURTHER}:8080:80", "busybox", *SERVE)
    ruleset.end_guard(pyrun.runroot)
    template = Path(pyrun.runroot, "networks/bridge/template")
    template.write_text(template.read_text().replace("pyrun-template 7", "pyrun-template 5"))
    nft("flush chain inet pyrun refusing; delete set inet pyrun closed_at; delete set inet pyrun closed6_at")
    pyrun.ok("run", "-d", "--name", "shut", "-p", f"{internet.host}:8080:80", "busybox", *SERVE)
    assert template.read_text().startswith("pyrun-template 7\n")
    assert closed() == {f"closed_at {internet.host} . tcp . 8080"} and both(internet) == ["", "hello"]


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


@pytest.mark.needs("firewalld")
def test_an_adopted_bridge_stays_in_its_zone(pyrun: Pyrun, firewalld: None) -> None:
    """Whoever is on it is trusted no more than before; only its resolver is reached, and only while it is pyrun's."""

    def zone(name: str, *words: str) -> str:
        done = subprocess.run(
            ["firewall-cmd", f"--zone={name}", *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    shell("ip link add br666 type bridge; ip addr add 10.0.0.1/24 dev br666; ip link set br666 up")
    try:
        zone("block", "--add-interface=br666")
        before = zone("block", "--list-all")
        pyrun.ok("network", "adopt", "br666")
        assert zone("trusted", "--list-interfaces") == "" and zone("block", "--list-interfaces") == "br666"
        pyrun.ok("run", "-d", "--name", "web", "--network", "br666", "busybox", "sleep", "1000")
        script = "nslookup web; nc -w1 10.0.0.1 2222 </dev/null; echo $?"
        with socket.create_server(("10.0.0.1", 2222)):
            seen = pyrun.ok("run", "--rm", "--network", "br666", "busybox", "sh", "-c", script)
        assert "10.0.0.2" in seen and seen.endswith("1")
        zone("block", "--change-interface=br666")
        pyrun.ok("network", "reload")
        pyrun.ok("rm", "-f", "web")
        pyrun.ok("network", "rm", "br666")
        assert zone("block", "--list-all") == before
    finally:
        shell("ip link delete br666")
