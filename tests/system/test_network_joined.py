"""Containers in somebody else's network namespace: another container's, and one made by `ip netns add`."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import hostile
from command import Pyrun
from segments import shell

BLUE = "blue"


@pytest.fixture
def blue(lab: None) -> Iterator[str]:
    """A namespace made by hand, with an address of its own."""
    shell(f"ip netns add {BLUE}", f"ip -n {BLUE} addr add 10.5.5.5/32 dev lo", f"ip -n {BLUE} link set lo up")
    yield BLUE
    shell(f"ip netns delete {BLUE}")


@pytest.fixture
def web(pyrun: Pyrun) -> Pyrun:
    """A running container to be joined."""
    pyrun.ok(
        "run", "-d", "--name", "web", "-h", "shop", "--add-host", "db:10.1.1.1", "busybox", "sleep", "100"
    )
    return pyrun


def test_a_container_shares_namespace_and_files(web: Pyrun) -> None:
    script = "hostname; cat /etc/hosts; ip -4 -o addr show eth0; echo 10.9.9.9 late >>/etc/hosts"
    seen = web.ok("run", "--rm", "--network=container:web", "busybox", "sh", "-c", script)
    assert seen.startswith("shop\n")
    assert "10.1.1.1\tdb" in seen
    address = web.ok("exec", "web", "ip", "-4", "-o", "addr", "show", "eth0").split()[3]
    assert f"inet {address}" in seen
    assert "10.9.9.9 late" in web.ok("exec", "web", "cat", "/etc/hosts"), "the file is one and the same"


def test_they_meet_on_the_loopback(web: Pyrun) -> None:
    serve = "mkdir -p /www; echo inside >/www/index.html; exec httpd -f -p 127.0.0.1:80 -h /www"
    web.ok("run", "-d", "--name", "server", "--network=container:web", "busybox", "sh", "-c", serve)
    fetch = "for i in $(seq 50); do wget -qO- http://127.0.0.1/ && exit; sleep 0.1; done"
    assert web.ok("exec", "web", "sh", "-c", fetch) == "inside"
    web.ok("rm", "-f", "server")
    assert "eth0" in web.ok("exec", "web", "ip", "link"), "the end of the guest changes nothing"


def test_a_bundle_shares_its_namespace_and_keeps_its_files(pyrun: Pyrun, tmp_path: Path) -> None:
    bundle = hostile.put_bundle(pyrun, tmp_path / "bundle", args=["sleep", "100"])
    for name, network in (("alone", []), ("wired", ["--network=bridge"])):
        pyrun.ok("run", "-d", "--bundle", str(bundle), *network, name)
        namespace = pyrun.ok("exec", name, "readlink", "/proc/self/ns/net")
        script = "readlink /proc/self/ns/net; cat /etc/hostname; cat /etc/hosts"
        words = ("--rm", f"--network=container:{name}", "busybox")
        seen = pyrun.ok("run", *words, "sh", "-c", script).splitlines()
        assert seen[0] == namespace and re.fullmatch("[0-9a-f]{12}", seen[1])
        assert "127.0.0.1\tlocalhost" in seen, "a bundle's own files are its own"


def test_by_its_id_and_when_it_is_gone(web: Pyrun) -> None:
    ident = (web.root / "names/web").read_text().split()[0]
    assert "eth0" in web.ok("run", "--rm", f"--network=container:{ident[:12]}", "busybox", "ip", "link")
    web.ok("stop", "-t", "0", "web")
    error = web.fails(125, "run", "--rm", "--network=container:web", "busybox", "true")
    assert error.startswith("pyrun: --network container:web: the container does not run")


def test_it_goes_while_a_start_joins_it(web: Pyrun, tmp_path: Path) -> None:
    """Between the look at the container and the start in its namespace; what is read in that time waits for us here."""
    profile = tmp_path / "profile"
    os.mkfifo(profile)
    words = ("run", "--rm", "--network=container:web", f"--security-opt=seccomp={profile}", "busybox", "true")
    starting = web.start(*words)
    with profile.open("w") as file:
        web.ok("rm", "-f", "web")
        file.write('{"defaultAction": "SCMP_ACT_ALLOW"}')
    _, told = starting.communicate(timeout=60)
    assert (starting.returncode, told.splitlines()) == (125, [
        "pyrun: --network container:web: it went while this container was starting",
        "hint: `pyrun ps` lists those that run",
    ])  # fmt: skip
    assert web.ok("ps", "-aq") == ""


def test_of_a_container_on_the_hosts_network_what_that_opens_is_told(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name", "web", "--net=host", "busybox", "sleep", "100")
    opens = "the container reaches what listens on this host's loopback, and its abstract sockets"
    for word in ("container:web", "ns:/proc/self/ns/net"):
        done = pyrun("run", "--rm", f"--network={word}", "busybox", "true")
        assert (done.returncode, done.stderr) == (
            0,
            f"with --network {word}, which is the host's own, {opens}\n",
        )
    assert pyrun("run", "--rm", "-q", "--network=container:web", "busybox", "true").stderr == ""


@pytest.mark.parametrize("path", [False, True])
def test_a_namespace_made_by_hand(blue: str, pyrun: Pyrun, path: bool) -> None:
    word = f"--network=/run/netns/{blue}" if path else f"--network=ns:{blue}"
    inode = os.stat(f"/run/netns/{blue}").st_ino
    seen = pyrun.ok("run", "--rm", word, "busybox", "sh", "-c", "readlink /proc/self/ns/net; ip -4 -o addr")
    assert f"net:[{inode}]" in seen
    assert "10.5.5.5/32" in seen
    assert os.stat(f"/run/netns/{blue}").st_ino == inode
    value = shell(f"ip netns exec {blue} sysctl -n net.ipv4.ip_unprivileged_port_start").strip()
    assert value == "1024", "its settings are not the container's to change"


def test_the_files_of_ip_netns_are_honoured(blue: str, pyrun: Pyrun) -> None:
    directory = Path("/etc/netns", blue)
    directory.mkdir(parents=True)
    (directory / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    try:
        seen = pyrun.ok("run", "--rm", f"--network=ns:{blue}", "busybox", "cat", "/etc/resolv.conf")
    finally:
        subprocess.run(["rm", "-rf", "/etc/netns"], check=True)
    assert seen == "nameserver 192.0.2.53"


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("container:nobody", "--network container:nobody: no such container"),
        ("ns:green", "--network ns:green: there is no /run/netns/green"),
        ("ns:../x", "--network ns:../x: is neither a name in /run/netns nor a whole path"),
        ("/etc/passwd", "--network /etc/passwd: /etc/passwd is no network namespace"),
        (
            "/proc/self/ns/pid",
            "--network /proc/self/ns/pid: /proc/self/ns/pid is a pid namespace, not a network namespace",
        ),
        ("/run", "--network /run: /run is no network namespace"),
    ],
)
def test_what_is_no_network_namespace(pyrun: Pyrun, network: str, message: str) -> None:
    assert pyrun.fails(125, "run", "--rm", f"--network={network}", "busybox", "true").startswith(
        f"pyrun: {message}"
    )


@pytest.mark.parametrize(
    ("option", "named"),
    [("-p=8080:80", "--publish"), ("--dns=192.0.2.1", "--dns"), ("--hostname=me", "--hostname"),
     ("--add-host=x:10.1.1.1", "--add-host"), ("--net-rate=in=1mbit", "--net-rate")],
)  # fmt: skip
def test_what_would_change_the_other_container(web: Pyrun, option: str, named: str) -> None:
    error = web.fails(125, "run", "--rm", "--network=container:web", option, "busybox", "true")
    assert error.startswith(
        f"pyrun: {named} is refused with --network container:web: it would change container web"
    )
