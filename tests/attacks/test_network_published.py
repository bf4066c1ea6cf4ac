"""What is published takes nothing else along, shows who asks, listens nowhere else; and what is flushed comes back.

See test_network_reach.py, whose other half this is.
"""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace

import frames
import ruleset
from waiting import soon
from yard import CONNECT, SERVE, Yard, connects, run

ADDRESSED = "only what is addressed to this host is redirected"

# ── what is published ──────────────────────────────────────────────────────────────────────────────


def test_a_published_port_takes_nothing_that_is_forwarded(yard: Yard, internet: SimpleNamespace) -> None:
    """CVE-2025-67499: who publishes 53 gets the questions to this host, not those others send through it."""
    yard.start("greedy", options=("-p", f"{internet.host}:5353:53/udp", "-p", "53:53/udp"))
    yard.start("third")

    def answer() -> str:
        done = yard.pyrun("exec", "third", "timeout", "3", "nslookup", "internet.test", internet.gateway)
        return done.stdout

    assert internet.far in answer()
    for handle in (rule["handle"] for rule in ruleset.rules("inet") if rule.get("comment") == ADDRESSED):
        ruleset.end_guard(yard.pyrun.runroot)
        ruleset.nft(
            "replace", "rule", "inet", "pyrun", "prerouting", "handle", str(handle), "jump", "publish"
        )
    assert internet.far not in answer()


def test_a_published_port_sees_who_asks(yard: Yard, internet: SimpleNamespace) -> None:
    """CVE-2021-20199: a relay would make everybody 127.0.0.1."""
    victim = yard.start("victim", *SERVE, options=("-p", "8081:80"))
    with frames.Sniffer(victim.link) as seen:
        assert soon(lambda: connects(internet, "neighbour", internet.host, 8081))
        connects(internet, "neighbour", internet.host, 8081)
        assert seen.has(frames.packed(internet.neighbour) + frames.packed(victim.address))
    with frames.Sniffer(victim.link) as seen:
        run(sys.executable, "-c", CONNECT, "127.0.0.1", "8081")
        assert seen.has(frames.packed(yard.gateway) + frames.packed(victim.address))
        assert not seen.has(b"\x7f\0\0\1", 0.05)


def test_nothing_listens_but_what_was_asked_for(yard: Yard) -> None:
    """CVE-2021-4024: `ss -ltn` shows the published port, as far as this host itself answers it, and the resolver's."""

    def listening() -> set[str]:
        return {" ".join(line.split()[:1] + line.split()[4:5]) for line in run("ss", "-Hlntu").splitlines()
                if "python" not in line}  # fmt: skip

    before = listening()
    yard.start("victim", *SERVE, options=("-p", "8081:80", "-p", "127.0.0.1:8082:80/udp"))
    resolver = {f"{kind} {at}:53" for kind in ("tcp", "udp") for at in (yard.gateway, f"[{yard.gateway6}]")}
    reserved = {"udp 127.0.0.1:8082"}  # bound, so that nobody else gets it; never read
    assert listening() - before == resolver | reserved | {"tcp [::]:8081"}  # for [::1] alone


def test_no_address_nobody_asked_for(yard: Yard) -> None:
    """CVE-2024-32473: a network without IPv6 has none, not even of the link."""

    def addresses(network: str) -> list[str]:
        shown = yard.pyrun.ok("run", "--rm", "--network", network, "busybox", "cat", "/proc/net/if_inet6")
        return [line for line in shown.splitlines() if line.split()[-1] != "lo"]

    assert addresses("bridge") == [] and len(addresses("yard")) == 2


def test_the_metadata_service(yard: Yard, internet: SimpleNamespace) -> None:
    """A policy that denies one address, on a host that leads there; the container without it is the control."""
    service = "169.254.169.254"
    internet.at("internet", "ip", "address", "add", f"{service}/32", "dev", "lo")
    try:
        ask = ("timeout", "2", "wget", "-q", "-O-", f"http://{service}/")
        assert yard.pyrun.ok("run", "--rm", "busybox", *ask) == f"you are {internet.host}"
        refused = yard.pyrun("run", "--rm", f"--egress=deny:{service}", "busybox", *ask)
        assert refused.returncode and not refused.stdout
        others = ("timeout", "2", "wget", "-q", "-O-", f"http://{internet.far}/")
        assert (
            yard.pyrun.ok("run", "--rm", f"--egress=deny:{service}", "busybox", *others)
            == f"you are {internet.host}"
        )
    finally:
        internet.at("internet", "ip", "address", "delete", f"{service}/32", "dev", "lo")


# ── what comes back ────────────────────────────────────────────────────────────────────────────────


def standing(family: str) -> bool:
    """Whether there is a table of ours."""
    return subprocess.run(["nft", "list", "table", family, "pyrun"], capture_output=True).returncode == 0


def test_a_flushed_ruleset_is_not_left_open(yard: Yard, routed: None, internet: SimpleNamespace) -> None:
    """CVE-2025-54388, CVE-2025-54410: after `nft flush ruleset` or a firewalld reload the isolation comes back."""
    victim = yard.start("victim", *SERVE)
    golden = ruleset.whole()
    assert not connects(internet, "neighbour", victim.address, 80)
    ruleset.delete()
    began = time.monotonic()
    assert soon(lambda: standing("bridge"), within_s=5), "nobody noticed"
    assert time.monotonic() - began < 3
    assert soon(lambda: ruleset.whole() == golden, within_s=2)
    assert not connects(internet, "neighbour", victim.address, 80)
    ruleset.end_guard(yard.pyrun.runroot)
    ruleset.delete()
    assert connects(internet, "neighbour", victim.address, 80), "there was nothing to protect"
    assert "table inet pyrun" in yard.pyrun.ok("network", "reload")
    assert ruleset.whole() == golden
    assert not connects(internet, "neighbour", victim.address, 80)
