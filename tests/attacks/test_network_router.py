"""The host as a router for others: pyrun switches forwarding on, for its own networks alone, and off again.

    LAN neighbour ── eth0 ── lab host ── LINK ── a machine of the host's, which nobody outside is to reach

Forwarding is off on the lab host. Rules: network/firewall/routed.py; the switch: network/forwarding.py.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import ruleset
from command import Pyrun
from places import setting
from waiting import soon
from yard import LAN6, connects, run

OTHERS = "pyrun has switched forwarding on, for its own networks alone"
SWITCHES = {4: Path("/proc/sys/net/ipv4/ip_forward"), 6: Path("/proc/sys/net/ipv6/conf/all/forwarding")}
HOST = {4: "192.0.2.1", 6: "2001:db8:5::1"}
MACHINE = {4: "192.0.2.2", 6: "2001:db8:5::2"}
LAN = {4: "198.51.100.3", 6: f"{LAN6}3"}
PREFIX = {4: 24, 6: 64}
# After the last container the guard waits for two seconds.
REST_S = 20


class Machine:
    """A network namespace behind a link of the host, reached from and reaching the LAN if the host lets it."""

    def __init__(self, internet: SimpleNamespace, link: str) -> None:
        self.internet, self.link = internet, link
        self.process = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        own = os.readlink("/proc/self/ns/net")
        assert soon(lambda: os.readlink(f"/proc/{self.process.pid}/ns/net") != own, 5)
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(self.process.pid))
        run("ip", "link", "set", link, "up")
        for words in (("lo", "up"), ("eth0", "up")):
            self.inside("ip", "link", "set", *words)
        run("ip", "-6", "address", "add", f"{LAN6}2/64", "dev", "eth0", "nodad")
        internet.at("neighbour", "ip", "-6", "address", "add", f"{LAN6}3/64", "dev", "eth0", "nodad")
        for version, gateway in ((4, internet.host), (6, f"{LAN6}2")):
            no_dad = ["nodad"] if version == 6 else []
            run("ip", "address", "add", f"{HOST[version]}/{PREFIX[version]}", "dev", link, *no_dad)
            self.inside(
                "ip", "address", "add", f"{MACHINE[version]}/{PREFIX[version]}", "dev", "eth0", *no_dad
            )
            self.inside("ip", "route", "add", "default", "via", HOST[version])
            internet.at("neighbour", "ip", "route", "add", f"{MACHINE[version]}/128" if version == 6 else
                        f"{MACHINE[version]}/32", "via", gateway)  # fmt: skip

    def inside(self, *words: str, check: bool = True) -> bool:
        command = ["nsenter", "-t", str(self.process.pid), "--net", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done.returncode == 0

    def reached(self, version: int = 4) -> bool:
        """Whether the LAN neighbour gets an answer of the machine."""
        shown: str = self.internet.at("neighbour", "ping", "-c1", "-W1", MACHINE[version], check=False)
        return "1 received" in shown

    def reaches(self, version: int = 4) -> bool:
        """Whether the machine gets an answer of the LAN neighbour."""
        return self.inside("ping", "-c1", "-W1", LAN[version], check=False)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        subprocess.run(["ip", "link", "delete", self.link], capture_output=True, check=False)
        run("ip", "-6", "address", "delete", f"{LAN6}2/64", "dev", "eth0")
        self.internet.at(
            "neighbour", "ip", "-6", "address", "delete", f"{LAN6}3/64", "dev", "eth0", check=False
        )
        for version, size in ((4, 32), (6, 128)):
            self.internet.at("neighbour", "ip", "route", "delete", f"{MACHINE[version]}/{size}", check=False)


@contextmanager
def machine_behind(internet: SimpleNamespace, link: str) -> Iterator[Machine]:
    made = Machine(internet, link)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def machine(internet: SimpleNamespace) -> Iterator[Machine]:
    with machine_behind(internet, "vm0") as made:
        yield made


def start(pyrun: Pyrun, name: str = "box", env: dict[str, str] | None = None) -> None:
    if not (pyrun.runroot / "networks/six").exists():
        pyrun.ok("network", "create", "--ipv6", "six", env=env)
    pyrun.ok("run", "-d", "--name", name, "--network", "six", "busybox", "sleep", "1000", env=env)
    assert is_on()


def are(value: str) -> bool:
    """They are turned one after the other: for a moment they differ."""
    return {path.read_text() for path in SWITCHES.values()} == {f"{value}\n"}


def is_on() -> bool:
    return are("1")


def is_off() -> bool:
    return are("0")


@pytest.mark.parametrize("version", [4, 6])
def test_the_host_is_no_router_for_others(machine: Machine, pyrun: Pyrun, version: int) -> None:
    start(pyrun)
    assert not machine.reached(version) and not machine.reaches(version)
    ruleset.take_out(pyrun.runroot, OTHERS)
    assert machine.reached(version) and machine.reaches(version)


def test_containers_reach_what_they_reached(
    machine: Machine, pyrun: Pyrun, internet: SimpleNamespace
) -> None:
    """Out of pyrun's bridges, and in by published ports; with an established connection between others too."""
    start(pyrun)
    serve = ("sh", "-c", "mkdir /www; echo hello >/www/index.html; exec httpd -f -p 80 -h /www")
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", *serve)
    for place in (MACHINE[4], LAN[4]):
        pyrun.ok("exec", "web", "ping", "-c1", "-W2", place)
    assert soon(lambda: connects(internet, "neighbour", internet.host, 8080), 3)


@pytest.mark.parametrize("how", ["flushed", "killed", "switched off"])
def test_it_stays_so_whatever_happens(machine: Machine, pyrun: Pyrun, how: str) -> None:
    start(pyrun)
    if how == "flushed":
        run("nft", "flush", "ruleset")
    elif how == "killed":
        for pid in ruleset.guards(pyrun.runroot):
            os.kill(pid, signal.SIGKILL)
    else:
        for path in SWITCHES.values():
            path.write_text("0")
        assert soon(is_on, 5)
    assert soon(lambda: "pyrun" in run("nft", "list", "tables"), 5)
    time.sleep(0.5)  # in which nothing opens it again
    assert is_on() and not machine.reached() and not machine.reached(6)


@pytest.mark.parametrize("how", ["rm", "kill -9", "guard killed"])
def test_it_is_switched_off_with_the_last_container(machine: Machine, pyrun: Pyrun, how: str) -> None:
    start(pyrun)
    start(pyrun, "last")
    pyrun.ok("rm", "-f", "box")
    time.sleep(3)  # longer than the guard waits after the last one
    assert is_on(), "somebody is there"
    if how == "kill -9":
        for key in ("monitor_pid", "pid"):
            os.kill(int(str(pyrun.state("last")[key])), signal.SIGKILL)
        pyrun.ok("system", "reconcile")
    elif how == "guard killed":
        for pid in ruleset.guards(pyrun.runroot):
            os.kill(pid, signal.SIGKILL)
    pyrun("rm", "-f", "last")
    assert soon(is_off, REST_S)
    assert not machine.reached() and pyrun.ok("network", "ls", "-q"), "its networks are there"
    # the next one has it again, and says no word about it
    done = pyrun("run", "--rm", "--network", "six", "busybox", "ping", "-c1", "-W2", LAN[4])
    assert done.returncode == 0 and done.stderr == "", done
    assert soon(is_off, REST_S)


def test_a_guard_that_was_ended_leaves_it_to_reconcile(pyrun: Pyrun) -> None:
    start(pyrun)
    ruleset.end_guard(pyrun.runroot)
    pyrun.ok("rm", "-f", "box")
    assert is_on()
    pyrun.ok("system", "reconcile")
    assert is_off()


def test_the_last_one_goes_while_networks_are_put_right(pyrun: Pyrun) -> None:
    """With no guard to see it: a killed one's spare runs `network reload`, which has found a container."""
    start(pyrun)
    ruleset.end_guard(pyrun.runroot)
    with (pyrun.runroot / "networks/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reload = pyrun.start("network", "reload", "--quiet")
        assert soon(lambda: f"{os.fstat(lock.fileno()).st_ino} " in waiting(reload.pid), 5)
        pyrun.ok("rm", "-f", "box")
        assert is_on()
    assert reload.wait(20) == 0 and is_off()


def waiting(pid: int) -> str:
    """The lines of /proc/locks about those that process waits for."""
    lines = Path("/proc/locks").read_text().splitlines()
    return "".join(line for line in lines if "->" in line and f" {pid} " in line)


def test_starts_and_ends_at_the_turn(pyrun: Pyrun) -> None:
    """Whoever starts in the moment it is put back is forwarded for."""
    start(pyrun)
    for pause_s in (1.9, 2.0, 2.05, 2.1, 2.15, 2.2, 2.3):
        pyrun.ok("rm", "-f", "box")
        time.sleep(pause_s)
        pyrun.ok("run", "-d", "--name", "box", "--network", "six", "busybox", "sleep", "1000")
        assert soon(is_on, 2), pause_s
        time.sleep(0.6)  # in which the end of the one before switches nothing off
        assert is_on(), pause_s


def test_the_administrator_says_otherwise(machine: Machine, pyrun: Pyrun) -> None:
    start(pyrun, env={"PYRUN_FORWARD": "accept"})
    assert machine.reached() and machine.reaches()
    assert soon(lambda: machine.reached(6), 5), "neighbours are looked for first"
    pyrun.ok("network", "reload", env={"PYRUN_FORWARD": "drop"})
    assert not machine.reached() and not machine.reached(6)
    pyrun.ok("network", "reload", env={"PYRUN_FORWARD": "accept"})
    run("nft", "flush", "ruleset")
    assert soon(lambda: "pyrun" in run("nft", "list", "tables"), 5) and machine.reached()
    message = pyrun.fails(1, "network", "reload", env={"PYRUN_FORWARD": "yes"})
    assert message.startswith("pyrun: PYRUN_FORWARD: 'yes' is neither drop nor accept\nhint: ")


def test_where_it_was_on_before_it_is_the_administrators(machine: Machine, pyrun: Pyrun) -> None:
    """Nothing is dropped, nothing put back; of one family as well."""
    with setting("net/ipv4/ip_forward", "1"):
        start(pyrun)
        assert machine.reached() and not machine.reached(6)
        pyrun.ok("rm", "-f", "box")
        assert soon(lambda: SWITCHES[6].read_text() == "0\n", REST_S)
        assert SWITCHES[4].read_text() == "1\n" and machine.reached()


def test_whoever_switches_it_on_after_a_pause_has_it(machine: Machine, pyrun: Pyrun) -> None:
    start(pyrun)
    pyrun.ok("rm", "-f", "box")
    assert soon(is_off, REST_S)
    with setting("net/ipv4/ip_forward", "1"):
        assert soon(machine.reached, 3)  # the guard takes its rules after it has switched off
        pyrun.ok("run", "--rm", "--network", "six", "busybox", "true")
        assert machine.reached()
        time.sleep(3)  # longer than the guard waits after the last one
        assert SWITCHES[4].read_text() == "1\n"


@pytest.mark.parametrize(
    ("link", "goes_out"), [("docker9", True), ("virbr9", True), ("cni0", True), ("dockyard", False)]
)
def test_other_engines_go_out_and_are_not_reached(
    internet: SimpleNamespace, pyrun: Pyrun, link: str, goes_out: bool
) -> None:
    """Those that came when forwarding was on have not switched it: without it they would be cut off."""
    start(pyrun)
    with machine_behind(internet, link) as machine:
        assert machine.reaches() is goes_out and not machine.reached()
