"""Bad input about networks and addresses, as test_bad_input.py has it of the rest."""

from __future__ import annotations

import pytest

from command import Pyrun
from refusals import check_line, refused

BAD_NETWORKS: dict[tuple[str, ...], str] = {
    ("--subnet=10.9.0.0/24", "--subnet=10.9.0.0/25"): "overlaps the other --subnet 10.9.0.0/24",
    ("--gateway=10.9.0.1",): "--gateway 10.9.0.1: --subnet is missing",
    ("--ip-range=10.9.0.0/25",): "--ip-range 10.9.0.0/25: --subnet is missing",
    ("-o", "com.docker.network.driver.mtu=abc"): "-o com.docker.network.driver.mtu abc",
    ("-o", "com.docker.network.driver.mtu=5"): "-o com.docker.network.driver.mtu 5",
    ("-o", "com.docker.network.bridge.enable_icc=maybe"): "enable_icc=maybe",
    ("-o", "com.docker.network.bridge.name=pyrun0"): "is that of the default network",
    ("--mtu=10",): "--mtu 10",
    ("--subnet=10.9.0.0/31",): "--subnet 10.9.0.0/31",
    ("--subnet=127.0.0.0/24",): "--subnet 127.0.0.0/24",
    ("--subnet=10.9.0.0/24", "--gateway=10.9.0.255"): "--gateway 10.9.0.255",
    ("--subnet=10.9.0.0/24", "--gateway=10.8.0.1"): "--gateway 10.8.0.1",
    ("--subnet=10.9.0.0/24", "--gateway=bogus"): "--gateway 'bogus'",
    ("--subnet=10.9.0.0/24", "--gateway=10.9.0.1", "--gateway=10.9.0.2"): "--gateway 10.9.0.2",
    ("--subnet=10.9.0.0/24", "--ip-range=10.9.0.1/32"): "--ip-range 10.9.0.1/32",
}


@pytest.mark.parametrize("options", BAD_NETWORKS)
def test_bad_networks(pyrun: Pyrun, options: tuple[str, ...]) -> None:
    assert BAD_NETWORKS[options] in refused(pyrun, 1, "network", "create", *options, "x")


BAD_ADDRESSES = {
    "--network=front:ip=10.1.0.1": "--ip 10.1.0.1", "--network=front:ip=10.1.0.255": "--ip 10.1.0.255",
    "--network=front:ip=10.2.0.5": "--ip 10.2.0.5", "--network=front:ip=bogus": "ip=bogus",
    "--network=front:ip6=fd00::5": "--ip6 fd00::5", "--network=front:gw-priority=x": "gw-priority=x",
    "--network=front:ifname=a b": "ifname=a b", "--network=front:mac=ff": "mac=ff",
}  # fmt: skip


@pytest.mark.parametrize("option", BAD_ADDRESSES)
def test_bad_addresses(pyrun: Pyrun, option: str) -> None:
    pyrun.ok("network", "create", "--subnet=10.1.0.0/24", "front")
    assert BAD_ADDRESSES[option] in refused(pyrun, 125, "run", "--rm", option, "busybox", "true")


BAD_CONNECTIONS: dict[tuple[str, ...], int] = {
    ("connect", "front", "box"): 1, ("connect", "host", "box"): 1, ("connect", "--ip=10.3.0.1", "back", "box"): 1,
    ("connect", "--ifname=eth0", "back", "box"): 1, ("disconnect", "back", "box"): 1, ("connect", "back", "lone"): 1,
    ("rm", "none"): 1, ("policy", "box", "deny:nonsense"): 1,
}  # fmt: skip


def test_bad_connections(pyrun: Pyrun) -> None:
    pyrun.ok("network", "create", "--subnet=10.2.0.0/24", "front")
    pyrun.ok("network", "create", "--subnet=10.3.0.0/24", "back")
    pyrun.ok("run", "-d", "--name=box", "--network=front", "busybox", "sleep", "100")
    pyrun.ok("run", "-d", "--name=lone", "--network=host", "busybox", "sleep", "100")
    for words in BAD_CONNECTIONS:
        done = pyrun("network", *words)
        check_line(done, done.returncode)
        assert done.returncode == 1, done
    for words in (("port", "box", "99"), ("port", "rm", "box", "1.2.3:80"), ("port", "add", "box", "x")):
        done = pyrun(*words)
        check_line(done, done.returncode)
        assert done.returncode == 1, done


def test_words_about_networks(pyrun: Pyrun) -> None:
    """The remedy is told wherever a network is named that is none."""
    assert "hint: letters, digits" in refused(pyrun, 1, "network", "create", "a b")
    for verb in ("rm", "inspect"):
        assert "hint: there are bridge, host, none" in refused(pyrun, 1, "network", verb, "nope")
    pyrun.ok("network", "create", "front")
    words = ("run", "--rm", "--network=pasta", "--network=front", "busybox", "true")
    assert "is for ordinary users" in refused(pyrun, 125, *words)


def test_a_mac_in_use(pyrun: Pyrun) -> None:
    """One that another chose, one that follows from another's address, the bridge's; elsewhere it is free."""
    pyrun.ok("network", "create", "--subnet=10.1.0.0/24", "front")
    pyrun.ok("run", "-d", "--name=first", "--network=front:mac=02:00:00:00:00:aa", "busybox", "sleep", "100")
    pyrun.ok("run", "-d", "--name=second", "--network=front:ip=10.1.0.9", "busybox", "sleep", "100")
    pyrun.ok("run", "-d", "--name=third", "busybox", "sleep", "100")
    owners = {"02:00:00:00:00:aa": "container first", "02:42:0a:01:00:09": "container second",
              "02:42:0a:01:00:01": "the bridge"}  # fmt: skip
    for mac, owner in owners.items():
        words = ("--network=front", f"--mac-address={mac}", "busybox", "true")
        assert f"{mac} is that of {owner}" in refused(pyrun, 125, "run", "--rm", *words)
        assert owner in refused(pyrun, 1, "network", "connect", f"--mac-address={mac}", "front", "third")
    pyrun.ok("run", "--rm", "--mac-address=02:00:00:00:00:aa", "busybox", "true")
    pyrun.ok("rm", "-f", "first")
    pyrun.ok("network", "connect", "--mac-address=02:00:00:00:00:aa", "front", "third")
