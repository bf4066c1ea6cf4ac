"""An egress policy follows its container: to the network it is connected to, and away from an address it gives up.

Whoever has the address next has no policy, and sends what it likes; the container itself never sends what its policy
does not allow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

import killing
from command import Pyrun
from kill_points import points
from places import REFUSED, address_of, entering, listening, page, setting
from segments import CARD
from waiting import soon
from yard import SERVE, SLEEP, run

TAKEN, TAKEN6 = "10.22.0.60", "fd00:22::60"
AT = f"--ip={TAKEN}", f"--ip6={TAKEN6}"


@pytest.fixture
def two(pyrun: Pyrun) -> Pyrun:
    """Networks n1 and n2, the second of IPv6, too."""
    pyrun.ok("network", "create", "--subnet=10.21.0.0/24", "n1")
    pyrun.ok("network", "create", "--subnet=10.22.0.0/24", "--subnet=fd00:22::/64", "n2")
    return pyrun


def sets_with(*addresses: str) -> list[str]:
    """The sets of the firewall that have elements of these addresses."""
    told = json.loads(run("nft", "-j", "list", "table", "inet", "pyrun"))["nftables"]
    found = [each["set"] for each in told if "set" in each]
    return sorted(
        each["name"]
        for each in found
        if any(f'"{address}"' in json.dumps(each.get("elem", [])) for address in addresses)
        and each["name"].startswith(("policed", "allowed", "denied", "admitted"))
    )


def start(pyrun: Pyrun, name: str, policy: str, *options: str) -> None:
    pyrun.ok("run", "-d", "--name", name, "--egress", policy, *options, "busybox", *SLEEP)


def the_next_owner_is_free(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """Nothing is left of the addresses, and a container without a policy gets out from there."""
    assert sets_with(TAKEN, TAKEN6) == []
    network = f"n2:ip={TAKEN},ip6={TAKEN6}"
    pyrun.ok("run", "-d", "--name", "next", "--network", network, "busybox", *SLEEP)
    assert page("next", internet.far) == f"you are {internet.host}"
    pyrun.ok("rm", "-f", "next")


# ── connected ──────────────────────────────────────────────────────────────────────────────────────


def test_connected_and_removed(two: Pyrun, internet: SimpleNamespace) -> None:
    start(two, "box", f"{internet.gateway}:80/tcp,deny:203.0.113.9,[fd00:9::]:80", "--network", "n1")
    two.ok("network", "connect", *AT, "--gw-priority=1", "n2", "box")
    assert sets_with(TAKEN, TAKEN6) == ["allowed", "allowed6", "denied", "policed", "policed6"]
    assert page("box", internet.gateway) == f"you are {internet.host}"
    assert page("box", internet.far) == REFUSED
    two.ok("rm", "-f", "box")
    the_next_owner_is_free(two, internet)


def test_connected_changed_and_removed(two: Pyrun, internet: SimpleNamespace) -> None:
    """What is changed last is undone as well, and of what it was before nothing is noted any more."""
    start(two, "box", "none", "--network", "n1")
    two.ok("network", "connect", *AT, "--gw-priority=1", "n2", "box")
    two.ok("network", "policy", "box", "internet.test")
    noted = two.runroot / "containers" / str(two.state("box")["id"]) / "more.undo"
    begun = [line.split("\t")[0] for line in noted.read_text().splitlines()]
    assert begun[:4] == ["netlink", "netlink", "finish", "unlink"], (
        "both links go down before their policy goes"
    )
    lines = len(begun)
    for policy in (f"{internet.far},deny:203.0.113.9", "all", "dns", f"{internet.gateway},deny:203.0.113.9"):
        two.ok("network", "policy", "box", policy)
    assert len(noted.read_text().splitlines()) <= lines
    assert (page("box", internet.gateway), page("box", internet.far)) == (f"you are {internet.host}", REFUSED)
    two.ok("rm", "-f", "box")
    the_next_owner_is_free(two, internet)


def test_connected_and_everybody_killed(two: Pyrun, internet: SimpleNamespace) -> None:
    start(two, "box", f"{internet.gateway}", "--network", "n1")
    two.ok("network", "connect", *AT, "n2", "box")
    two.ok("network", "policy", "box", "dns,deny:203.0.113.9")
    assert sets_with(TAKEN)
    state = two.state("box")
    for pid in (state["monitor_pid"], state["pid"]):
        os.kill(int(str(pid)), signal.SIGKILL)
    assert soon(lambda: not os.path.exists(f"/proc/{state['pid']}/ns/net"), 5)
    two.ok("system", "reconcile")
    the_next_owner_is_free(two, internet)


def test_connecting_disturbs_nothing_that_runs(two: Pyrun, internet: SimpleNamespace) -> None:
    """What the resolver's answers admitted stays admitted, and connections go on."""
    start(two, "box", "internet.test", "--network", "n1")
    two.ok("exec", "box", "nslookup", internet.name)
    script = f"""
import http.client
connection = http.client.HTTPConnection("{internet.far}", timeout=3)
for word in ("first", "second"):
    connection.request("GET", "/"); connection.getresponse().read(); print(word, flush=True); input()
"""
    words = [*entering("box"), sys.executable, "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin and client.stdout
        assert client.stdout.readline() == "first\n"
        two.ok("network", "connect", *AT, "n2", "box")
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.stdout.readline() == "second\n"
        client.stdin.close()
    assert page("box", internet.far) == f"you are {internet.host}"


def test_connected_where_the_host_does_not_look_at_bridged_frames(two: Pyrun) -> None:
    two.ok("run", "-d", "--name", "web", "--network", "n2", "busybox", *SERVE)
    listening("web")
    web = address_of("web")
    with setting("net/bridge/bridge-nf-call-iptables", "0"):
        for name, policy in (("box", "192.0.2.1"), ("free", web)):
            start(two, name, policy, "--network", "n1")
            said = two("network", "connect", "n2", name)
            assert (said.returncode, said.stderr) == (0, ""), "the rules see its frames: none is cut off"
        assert (page("box", web), page("free", web)) == (REFUSED, "a secret")


def test_a_policy_is_not_escaped_beside_a_card(card: None, pyrun: Pyrun) -> None:
    """On a network whose packets meet no rules a policy would be worth nothing."""
    pyrun.ok(
        "network", "create", "-d", "macvlan", "-o", f"parent={CARD}", "--subnet", "192.168.50.0/24", "aside"
    )
    start(pyrun, "box", "none")
    assert "has an egress policy" in pyrun.fails(1, "network", "connect", "aside", "box")
    assert "eth1" not in pyrun.ok("exec", "box", "ip", "link")
    pyrun.ok("network", "policy", "box", "all")
    pyrun.ok("network", "connect", "aside", "box")
    error = pyrun.fails(1, "network", "policy", "box", "none")
    assert error.startswith(
        "pyrun: container box is on network aside: nothing it sends there meets our rules"
    )


# ── disconnected ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.alone
def test_disconnected_and_another_has_the_address(two: Pyrun, internet: SimpleNamespace) -> None:
    n2 = f"n2:ip={TAKEN},ip6={TAKEN6}"
    policy = "internet.test,*.internet.test:80/tcp,[fd00:9::]:80,deny:203.0.113.9"
    start(two, "box", policy, "--network", n2, "--network", "n1")
    for name in (internet.name, "www.internet.test"):
        assert internet.far in two.ok("exec", "box", "nslookup", name)
    assert sets_with(TAKEN) == ["admitted", "admitted_at", "denied", "policed"]
    two.ok("network", "disconnect", "n2", "box")
    the_next_owner_is_free(two, internet)
    run("nft", "flush", "ruleset")
    two("network", "reload")
    two.ok("network", "policy", "box", f"{internet.gateway}")
    assert (page("box", internet.gateway), page("box", internet.far)) == (f"you are {internet.host}", REFUSED)
    the_next_owner_is_free(two, internet)
    two.ok("rm", "-f", "box")
    the_next_owner_is_free(two, internet)


def test_to_and_fro(two: Pyrun, internet: SimpleNamespace) -> None:
    """Without any network the policy is kept and can be changed; the address it comes back to is covered again."""
    start(two, "box", f"{internet.far}", "--network", "n1")
    noted = two.runroot / "containers" / str(two.state("box")["id"]) / "more.undo"
    two.ok("network", "disconnect", "n1", "box")
    lengths = []
    for _ in range(3):
        two.ok("network", "policy", "box", f"{internet.gateway}")
        two.ok("network", "connect", *AT, "n2", "box")
        assert page("box", internet.gateway) == f"you are {internet.host}"
        assert page("box", internet.far) == REFUSED
        two.ok("network", "disconnect", "n2", "box")
        the_next_owner_is_free(two, internet)
        lengths.append(noted.stat().st_size)
    assert len(set(lengths)) == 1, "what is undone is noted no longer"
    two.ok("network", "connect", *AT, "n2", "box")
    two.ok("rm", "-f", "box")
    the_next_owner_is_free(two, internet)


def test_a_disconnect_said_again_is_no_matter_of_the_next_owner(
    two: Pyrun, internet: SimpleNamespace, sandbox_fork: Callable[..., killing.Traced]
) -> None:
    """Killed when the address was given up already: the record still tells of it, its next owner has a policy."""
    words = [str(two.binary), "network", "disconnect", "n2", "box"]
    start(two, "box", "none", "--network", "n1", "--network", f"n2:ip={TAKEN},ip6={TAKEN6}")
    whole = sandbox_fork(killing.trace, words, dict(two.env), None, flags=0)
    assert whole.status == 0, whole.output
    (at,) = [
        (role, number)
        for role, number, text in points(whole.steps)
        if text.startswith("rename") and "container.json" in text
    ][:1]
    two.ok("rm", "-f", "box")
    start(two, "box", "none", "--network", "n1", "--network", f"n2:ip={TAKEN},ip6={TAKEN6}")
    assert sandbox_fork(killing.trace, words, dict(two.env), at, flags=0).killed
    start(two, "other", "none", "--network", f"n2:ip={TAKEN},ip6={TAKEN6}")
    # refused where the kill came a step late, and the record was done
    two("network", "disconnect", "n2", "box")
    assert sets_with(TAKEN, TAKEN6) == ["policed", "policed6"]
    assert page("other", internet.far) == REFUSED
    assert TAKEN in two.ok("network", "inspect", "n2")
    two.ok("rm", "-f", "box", "other")
    the_next_owner_is_free(two, internet)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("verb", ["connect", "disconnect"])
def test_killed_on_the_way(
    verb: str, two: Pyrun, internet: SimpleNamespace, sandbox_fork: Callable[..., killing.Traced]
) -> None:
    """kill -9 of the verb at any point: the container's end takes all away, as does the verb said again."""
    words = {"connect": ("connect", *AT, "n2", "box"), "disconnect": ("disconnect", "n2", "box")}
    one, other = words[verb], words["connect" if verb == "disconnect" else "disconnect"]

    def killed(at: tuple[str, int] | None) -> killing.Traced:
        start(two, "box", f"{internet.gateway},deny:203.0.113.9", "--network", "n1")
        if verb == "disconnect":
            two.ok("network", *words["connect"])
        return sandbox_fork(killing.trace, [str(two.binary), "network", *one], dict(two.env), at, flags=0)

    whole = killed(None)
    assert whole.status == 0, whole.output
    two.ok("rm", "-f", "box")
    assert sets_with(TAKEN, TAKEN6) == []
    walked = [
        step for step in points(whole.steps) if not step[2].startswith(("recv", "epoll", "poll", "wait"))
    ]
    assert len(walked) > 10
    for turn, (role, number, text) in enumerate(walked[-24::2]):
        killed((role, number))
        if turn % 2:
            two("network", *one)
            two.ok("network", *other)
            if verb == "connect":
                assert sets_with(TAKEN, TAKEN6) == [], f"repeated after it was killed at {text}"
        two.ok("rm", "-f", "box")
        assert sets_with(TAKEN, TAKEN6) == [], f"killed at {text}"
    the_next_owner_is_free(two, internet)


def test_a_reload_finds_what_nobody_holds(two: Pyrun, internet: SimpleNamespace) -> None:
    start(two, "box", f"{internet.gateway}", "--network", "n1")
    run("nft", "add", "element", "inet", "pyrun", "policed", f"{{ {TAKEN} }}")
    run("nft", "add", "element", "inet", "pyrun", "policed6", f"{{ {TAKEN6} }}")
    assert f"the egress policy of {TAKEN} was left over" in two.ok("network", "reload")
    the_next_owner_is_free(two, internet)
    assert (page("box", internet.gateway), page("box", internet.far)) == (f"you are {internet.host}", REFUSED)
    assert "left over" not in two.ok("network", "reload")
