"""--dns, --dns-search and --dns-option in resolv.conf, whatever the network is; and Docker's options of a bridge."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import Pyrun

SHOW = ("busybox", "cat", "/etc/resolv.conf")


@pytest.mark.parametrize("network", ["host", "none", "bridge"])
def test_what_is_asked_for_stands_there(pyrun: Pyrun, network: str) -> None:
    words = (
        "--dns=192.0.2.1",
        "--dns=192.0.2.2",
        "--dns-search=a.test",
        "--dns-search=b.test",
        "--dns-option=ndots:3",
    )
    lines = pyrun.ok("run", "--rm", f"--network={network}", *words, "--dns-option=rotate", *SHOW).splitlines()
    servers = ["10.77.0.1"] if network == "bridge" else ["192.0.2.1", "192.0.2.2"]
    assert sorted(lines) == sorted(
        [*[f"nameserver {server}" for server in servers], "search a.test b.test", "options ndots:3 rotate"]
    )


@pytest.mark.parametrize("network", ["host", "none", "bridge"])
def test_no_search_domain(pyrun: Pyrun, network: str) -> None:
    file = Path("/etc/resolv.conf")
    whole = file.read_text()
    file.write_text(whole + "# a word\nsearch lan.test\noptions timeout:2\n")
    try:
        lines = pyrun.ok("run", "--rm", f"--network={network}", *SHOW).splitlines()
        assert "search lan.test" in lines
        assert ("# a word" in lines) is (network == "host"), "the host's own file, word for word"
        lines = pyrun.ok("run", "--rm", f"--network={network}", "--dns-search=.", *SHOW).splitlines()
        assert not [line for line in lines if line.startswith("search")]
        assert "options timeout:2" in lines
    finally:
        file.write_text(whole)


def test_a_name_is_looked_for_in_the_search_domain(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    del internet
    for network in ("host", "bridge"):
        words = (
            "run",
            "--rm",
            f"--network={network}",
            "--dns-search=test",
            "busybox",
            "ping",
            "-c1",
            "-W2",
            "internet",
        )
        assert "PING internet" in pyrun.ok(*words)


def test_dockers_options_of_a_bridge(pyrun: Pyrun) -> None:
    icc, binding = "com.docker.network.bridge.enable_icc", "com.docker.network.bridge.host_binding_ipv4"
    done = pyrun("network", "create", "-o", f"{icc}=false", "-o", f"{binding}=127.0.0.1", "apart")
    assert done.returncode == 0
    assert f"-o {binding}: no setting of the driver bridge, ignored\n" in done.stderr
    assert icc not in done.stderr
    (told,) = json.loads(pyrun.ok("network", "inspect", "apart"))
    assert told["Pyrun"]["Icc"] is False
    pyrun.ok("run", "-d", "--name=web", "--network=apart:ip=" + told["IPAM"]["Config"][0]["Gateway"][:-1] + "9",
             "busybox", "sleep", "100")  # fmt: skip
    words = ("busybox", "ping", "-c1", "-W1", "web")
    assert (
        "1 packets transmitted, 0 packets received" in pyrun("run", "--rm", "--network=apart", *words).stdout
    )
