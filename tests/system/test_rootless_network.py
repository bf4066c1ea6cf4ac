"""The network of an ordinary user's container: pasta, slirp4netns, none, host; and that they end with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from unprivileged import UserPyrun, network_helpers
from waiting import emptied, runs, soon, until

pytestmark = pytest.mark.needs("user_namespaces")
with_pasta, with_slirp = pytest.mark.needs("pasta"), pytest.mark.needs("slirp4netns")
both = pytest.mark.parametrize(
    "mode", [pytest.param("pasta", marks=with_pasta), pytest.param("slirp4netns", marks=with_slirp)]
)

SERVE = "mkdir /w; echo hello >/w/index.html; exec httpd -f -h /w -p 80"


def fetch(place: str, port: int, timeout_s: float = 5.0) -> str:
    """The page, once somebody answers; empty if nobody does."""
    words = ["curl", "-s", "-m", "2", f"http://{place}:{port}/"]
    return soon(lambda: subprocess.run(words, capture_output=True, text=True).stdout, timeout_s)


def helpers(user: UserPyrun) -> list[str]:
    return network_helpers(str(user.runroot)) or network_helpers("slirp.sock")


@with_pasta
def test_pasta_is_the_default(tess: UserPyrun, internet: SimpleNamespace) -> None:
    """The host's address and route, its name servers by way of pasta, and what the world sees is the host."""
    script = "ip -4 -o addr show eth0; ip route; cat /etc/resolv.conf; wget -qO- http://internet.test/; hostname -i"
    printed = tess.ok("run", "--rm", "busybox", "sh", "-c", script)
    assert f"inet {internet.host}/24" in printed and f"default via {internet.gateway}" in printed
    assert f"nameserver 169.254.1.1\nnameserver {internet.gateway}\n" in printed
    assert f"you are {internet.host}" in printed and printed.splitlines()[-1] == internet.host


@both
def test_the_world_is_reached(solo: UserPyrun, internet: SimpleNamespace, mode: str) -> None:
    printed = solo.ok("run", "--rm", f"--net={mode}", "busybox", "wget", "-qO-", f"http://{internet.far}/")
    assert printed == f"you are {internet.host}"


@both
def test_published_ports(solo: UserPyrun, internet: SimpleNamespace, mode: str) -> None:
    words = ("run", "-d", "--name", "web", f"--net={mode}", "-p", "8080:80", "-p", "127.0.0.1:8081:80")
    solo.ok(*words, "busybox", "sh", "-c", SERVE)
    assert fetch("127.0.0.1", 8080) == fetch(internet.host, 8080) == fetch("127.0.0.1", 8081) == "hello\n"
    assert internet.at("neighbour", "curl", "-s", "-m", "3", f"http://{internet.host}:8080/") == "hello\n"
    assert (
        internet.at("neighbour", "curl", "-s", "-m", "3", f"http://{internet.host}:8081/", check=False) == ""
    )
    assert "0.0.0.0:8080->80/tcp" in solo.ok("ps")
    solo.ok("rm", "-f", "web")
    assert not emptied(lambda: helpers(solo))
    solo.ok("run", "-d", "--name", "web", f"--net={mode}", "-p", "8080:80", "busybox", "sh", "-c", SERVE)
    assert fetch("127.0.0.1", 8080) == "hello\n"  # free again at once


@both
def test_from_where_a_port_is_reachable(solo: UserPyrun, internet: SimpleNamespace, mode: str) -> None:
    """What the host's firewall makes of it is for root to read: said, and no reason to tell nothing."""
    words = ("run", "-d", "--name", "web", f"--net={mode}", "-p", "8080:80", "-p", "127.0.0.1:8081:80")
    solo.ok(*words, "busybox", "sleep", "100")
    listed = map(json.loads, solo.ok("port", "--format", "json", "web").splitlines())
    told = {row["HostPort"]: (row["ReachableFrom"], row["Firewall"]) for row in listed}
    unknown = "unknown: only root can read its rules"
    assert told == {
        8080: ({"host": True, "lan": [internet.host], "containers": True}, unknown),
        8081: ({"host": True, "lan": [], "containers": False}, ""),
    }
    assert unknown in solo.ok("port", "--format", "table", "web")


ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
print("ready", flush=True)
data, address = server.recvfrom(100)
server.sendto(data.upper(), address)
"""


ASK = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.settimeout(5)
sender.sendto(b"ping", (sys.argv[1], 5300))
print(sender.recv(100).decode())
"""


@both
def test_a_published_udp_port(solo: UserPyrun, internet: SimpleNamespace, mode: str) -> None:
    """From elsewhere: what the host itself sends, Debian 12's pasta and slirp4netns do not answer."""
    solo.ok("run", "-d", "--name", "box", f"--net={mode}", "-p", "5300:53/udp", "busybox", "sleep", "100")
    words = ["nsenter", f"--net=/proc/{solo.state('box')['pid']}/ns/net", sys.executable, "-c", ECHO]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
        assert server.stdout and server.stdout.readline() == b"ready\n"
        assert internet.at("neighbour", sys.executable, "-c", ASK, internet.host) == "PING\n"


def test_a_port_in_use(solo: UserPyrun) -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        error = solo.fails(125, "run", "--rm", "-p", f"{port}:80", "busybox", "true")
    assert f"port 0.0.0.0:{port}/tcp is in use by another program of this host" in error


@both
def test_a_port_of_the_users_own_container(solo: UserPyrun, mode: str) -> None:
    """It has a name, as among root's."""
    solo.ok("run", "-d", "--name", "web", f"--net={mode}", "-p", "8080:80", "busybox", "sleep", "100")
    for word, place in (("8080:80", "0.0.0.0:8080"), ("127.0.0.1:8080:80", "127.0.0.1:8080")):
        error = solo.fails(125, "run", "--rm", f"--net={mode}", "-p", word, "busybox", "true")
        assert error.startswith(f"pyrun: port {place}/tcp is already published by container web\n")


@with_pasta
def test_an_ipv6_port_where_pasta_has_no_ipv6(solo: UserPyrun) -> None:
    error = solo.fails(125, "run", "--rm", "-p", "[::1]:8105:80", "busybox", "true")
    assert error.startswith("pyrun: -p [::1]:8105:80: pasta cannot listen there\n")
    assert "this host has no IPv6 default route, and without one pasta has no IPv6" in error
    ip = ("ip", "-6")
    subprocess.run([*ip, "addr", "add", "2001:db8:77::2/64", "dev", "eth0", "nodad"], check=True)
    try:
        subprocess.run([*ip, "route", "add", "default", "via", "2001:db8:77::1"], check=True)
        solo.ok("run", "-d", "--name", "web", "-p", "[::1]:8105:80", "busybox", "sleep", "100")
        error = solo.fails(125, "run", "--rm", "-p", "[::1]:8105:80", "busybox", "true")
    finally:
        subprocess.run([*ip, "addr", "del", "2001:db8:77::2/64", "dev", "eth0"], check=True)
    assert error.startswith("pyrun: port [::1]:8105/tcp is already published by container web\n")


@with_slirp
def test_an_ipv6_port_of_slirp4netns(solo: UserPyrun) -> None:
    words = ("run", "--rm", "--net=slirp4netns", "-p", "[::1]:8105:80", "busybox", "true")
    assert solo.fails(125, *words).startswith(
        "pyrun: -p [::1]:8105:80: slirp4netns publishes on IPv4 addresses alone"
    )


@with_pasta
def test_ports_are_those_of_the_start(solo: UserPyrun) -> None:
    """What is proposed instead is possible: a network of the host is not, for a user."""
    solo.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sleep", "100")
    solo.ok("run", "-d", "--name", "lone", "--net=none", "busybox", "sleep", "100")
    for verb, port in (("add", "8081:80"), ("rm", "8080:80")):
        assert solo.fails(1, "port", verb, "web", port).splitlines() == [
            "pyrun: container web: pasta takes no more ports while it runs, and gives none up",
            "hint: start it anew: pyrun rm -f web; pyrun run -p ...",
        ]
    assert "pyrun run --network=pasta -p" in solo.fails(1, "port", "add", "lone", "8081:80")
    for verb, name in (("connect", "web"), ("connect", "lone"), ("disconnect", "web")):
        error = solo.fails(1, "network", verb, "bridge", name)
        assert error.startswith("pyrun: only root can connect a container to a network of the host")


def test_a_port_below_1024(solo: UserPyrun) -> None:
    error = solo.fails(125, "run", "--rm", "-p", "80:80", "busybox", "true")
    assert error.startswith("pyrun: -p 0.0.0.0:80:80/tcp: ports below 1024 are root's")
    assert "net.ipv4.ip_unprivileged_port_start=80" in error


@both
def test_the_hosts_loopback_is_not_reached(solo: UserPyrun, internet: SimpleNamespace, mode: str) -> None:
    """Neither by the gateway nor by the container's own loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        places = f"127.0.0.1 {internet.gateway} 10.0.2.2 {internet.host}"
        script = (
            f"for place in {places}; do nc -w 2 $place {port} </dev/null && echo reached $place; done; true"
        )
        assert solo.ok("run", "--rm", f"--net={mode}", "busybox", "sh", "-c", script) == ""


@both
@pytest.mark.parametrize("how", ["exit", "stop", "kill", "rm -f"])
def test_it_ends_with_the_container(solo: UserPyrun, mode: str, how: str) -> None:
    command = ("sleep", "0.3") if how == "exit" else ("sleep", "1000")
    solo.ok("run", "-d", "--name", "box", f"--net={mode}", "busybox", *command)
    assert how == "exit" or len(helpers(solo)) == 1
    if how != "exit":
        solo.ok(*how.split(), *(("-t", "0") if how == "stop" else ()), "box")
    assert not emptied(lambda: helpers(solo))
    assert soon(lambda: f"{solo.runroot}/" not in solo.inside("cat", "/proc/self/mountinfo"))


@both
def test_it_ends_when_the_monitor_was_killed(solo: UserPyrun, mode: str) -> None:
    """The network outlives the monitor as the container does, and goes with the next command after its end."""
    solo.ok("run", "-d", "--name", "box", f"--net={mode}", "busybox", "sleep", "1000")
    state = solo.state("box")
    os.kill(int(str(state["monitor_pid"])), signal.SIGKILL)
    solo.ok("ps")
    assert len(helpers(solo)) == 1
    os.kill(int(str(state["pid"])), signal.SIGKILL)
    until(lambda: not runs(int(str(state["pid"]))), "its end")
    solo.ok("run", "--rm", "--net=none", "busybox", "true")
    assert not emptied(lambda: helpers(solo))


@both
def test_a_command_that_is_not_there_leaves_nothing(solo: UserPyrun, mode: str) -> None:
    assert solo("run", "--rm", f"--net={mode}", "-p", "8080:80", "busybox", "/nosuch").returncode == 127
    assert not emptied(lambda: helpers(solo))
    assert list((solo.runroot / "containers").iterdir()) == []


def test_none_and_host(solo: UserPyrun, internet: SimpleNamespace) -> None:
    assert solo.ok("run", "--rm", "--net=none", "busybox", "ls", "/sys/class/net") == "lo"
    printed = solo.ok("run", "--rm", "--net=host", "busybox", "wget", "-qO-", f"http://{internet.far}/")
    assert printed == f"you are {internet.host}"
    assert helpers(solo) == []


@pytest.mark.parametrize("mode", ["bridge", "mynet"])
def test_networks_of_the_host_are_roots(solo: UserPyrun, mode: str) -> None:
    error = solo.fails(125, "run", "--rm", f"--net={mode}", "busybox", "true")
    assert f"--network={mode}: only root can connect a container to a network of the host" in error
    assert "pasta" in error
    assert not Path("/sys/class/net/pyrun0").exists()


@with_slirp
def test_slirp4netns_where_there_is_no_pasta(solo: UserPyrun) -> None:
    programs = solo.home / "programs"
    programs.mkdir()
    (programs / "slirp4netns").symlink_to("/usr/bin/slirp4netns")
    for name in ("setpriv", "sh"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    env = {"PATH": str(programs)}
    printed = solo.ok("run", "--rm", "busybox", "ip", "-4", "-o", "addr", "show", "tap0", env=env)
    assert "10.0.2.100/24" in printed


@with_pasta
def test_there_is_no_gateway_to_this_host(solo: UserPyrun) -> None:
    """Its own loopback, which the name would mean, has none of this host's services."""
    error = solo.fails(125, "run", "--rm", "--add-host", "up:host-gateway", "busybox", "true")
    assert error.startswith(
        "pyrun: --add-host up:host-gateway: with --network=pasta the container reaches no address"
    )
    assert solo.ok("ps", "-aq") == ""


def test_neither_is_there(solo: UserPyrun) -> None:
    programs = solo.home / "programs"
    programs.mkdir()
    for name in ("setpriv", "sh"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    error = solo.fails(125, "run", "--rm", "busybox", "true", env={"PATH": str(programs)})
    assert error.startswith("pyrun: --network=pasta: there is no program pasta here")
    assert "apt-get install passt" in error


def test_network_listing(solo: UserPyrun) -> None:
    names = [line.split()[1] for line in solo.ok("network", "ls").splitlines()[1:]]
    assert names == ["host", "none", "pasta", "slirp4netns"]
    for name in names:
        assert json.loads(solo.ok("network", "inspect", name))[0]["Name"] == name
        assert "built in" in solo.fails(1, "network", "rm", name)
    for name in ("bridge", "nosuch"):
        error = solo.fails(1, "network", "inspect", name)
        assert error == f"pyrun: no such network: {name}\nhint: there are {', '.join(names)}"
    solo.ok("network", "prune", "-f")
