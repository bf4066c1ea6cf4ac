"""An egress policy after a loss: whatever somebody took away of rules or bridges, it holds again as it did.

What healing itself is, and who does it: test_network_faults.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import Pyrun
from places import REFUSED, address_of, entering, page, pings, setting
from waiting import soon
from yard import SLEEP, run

pytestmark = pytest.mark.alone

SWITCHES = ("iptables", "ip6tables")
# Asks once, tells so, and asks again by the same connection when it is told to.
TWICE = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=3)
connection.request("GET", "/"); connection.getresponse().read()
print("first", flush=True); input()
try: connection.request("GET", "/"); print("second", connection.getresponse().status)
except OSError: print("cut")
"""


def own_switch(switch: str) -> Path:
    """The default bridge's own switch."""
    return Path(f"/sys/class/net/pyrun0/bridge/nf_call_{switch}")


@pytest.fixture
def no_switch(lab: None, tmp_path: Path) -> Iterator[None]:
    """A kernel that shows the rules no bridged frames. Before `pyrun` in a test: it outlives its containers."""
    run("mount", "--bind", str(tmp_path), "/proc/sys/net/bridge")
    yield
    run("umount", "/proc/sys/net/bridge")


@pytest.mark.parametrize(
    "words", ["flush ruleset", "delete table bridge pyrun", "flush set bridge pyrun mute"]
)
def test_cut_off_from_its_neighbours(no_switch: None, pyrun: Pyrun, neighbour: str, words: str) -> None:
    pyrun.ok("run", "-d", "--name", "box", "--egress", "0.0.0.0/0", "busybox", *SLEEP)
    run("nft", *words.split())
    pyrun.ok("network", "reload")
    assert "pyv" in run("nft", "list", "set", "bridge", "pyrun", "mute")
    assert not pings("box", neighbour) and not pings("neighbour", address_of("box"))
    assert pyrun.ok("network", "reload") == "nothing was missing"


def test_the_bridge_is_made_anew(pyrun: Pyrun, neighbour: str) -> None:
    """Where the host shows the rules the frames of no bridge, it is the bridge of ours that does."""
    with setting("net/bridge/bridge-nf-call-iptables", "0"):
        pyrun.ok("run", "-d", "--name", "box", "--egress", "192.0.2.1", "busybox", *SLEEP)
        run("ip", "link", "del", "pyrun0")
        pyrun("network", "reload")
        assert soon(lambda: pings("", neighbour), 5), "the cables are back"
        assert page("box", neighbour) == REFUSED


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_switch_of_all_bridges_is_turned_later(pyrun: Pyrun, neighbour: str, switch: str) -> None:
    """It does not matter: the bridge has its own, from the start, whatever is said for all of them."""
    with setting(f"net/bridge/bridge-nf-call-{switch}", "1"):
        pyrun.ok("run", "-d", "--name", "box", "--egress", "192.0.2.1", "busybox", *SLEEP)
    with setting(f"net/bridge/bridge-nf-call-{switch}", "0"):
        assert own_switch(switch).read_text() == "1\n"
        assert page("box", neighbour) == REFUSED


@pytest.mark.parametrize("how", ["a file of sysfs", "ip link"])
@pytest.mark.parametrize("switch", SWITCHES)
def test_the_switch_of_the_bridge_is_turned_off(pyrun: Pyrun, neighbour: str, switch: str, how: str) -> None:
    """The guard hears of it, in whichever way; where there is no policy it does nothing."""
    with setting(f"net/bridge/bridge-nf-call-{switch}", "0"):
        pyrun.ok("run", "-d", "--name", "box", "--egress", "192.0.2.1", "busybox", *SLEEP)
        own = own_switch(switch)
        for _ in range(2):
            turn_off(switch, how)
            assert soon(lambda: own.read_text() == "1\n", within_s=4), "it was not noticed"
        assert page("box", neighbour) == REFUSED
        assert pyrun.ok("network", "reload") == "nothing was missing"
        pyrun.ok("rm", "-f", "box")
        turn_off(switch, how)
        assert not soon(lambda: own.read_text() == "1\n", within_s=1.5)
        assert pyrun.ok("network", "reload") == "nothing was missing"


def turn_off(switch: str, how: str) -> None:
    if how == "ip link":
        run("ip", "link", "set", "pyrun0", "type", "bridge", f"nf_call_{switch}", "0")
    else:
        own_switch(switch).write_text("0")


def test_what_began_without_rules_is_judged(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """And what the policy allows goes on."""
    pyrun.ok("run", "-d", "--name", "box", "--egress", internet.gateway, "busybox", *SLEEP)
    run("nft", "flush", "set", "inet", "pyrun", "policed")
    answers = {}
    with asking(internet.far) as refused, asking(internet.gateway) as allowed:
        pyrun.ok("network", "reload")
        for which, client in (("refused", refused), ("allowed", allowed)):
            answers[which] = client.communicate("\n", timeout=10)[0]
    assert answers == {"refused": "cut\n", "allowed": "second 200\n"}


def asking(address: str) -> subprocess.Popen[str]:
    """TWICE in the container box, after its first answer."""
    words = [*entering("box"), sys.executable, "-c", TWICE, address]
    client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdout and client.stdout.readline() == "first\n"
    return client
