"""A kernel that was started with ipv6.disable=1: networks, names and ports as ever; what needs IPv6 is refused.

tests/system/test_network_hosts.py denies pyrun the sockets and sysctls of IPv6; here the kernel has no such family, and
refuses every message that speaks of it. The lab host's kernel cannot show that, hence a boot of its own.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import hostile
from command import Pyrun
from published import fetch
from pyrun.network import records
from yard import SERVE

pytestmark = pytest.mark.needs("no_ipv6")

GET = ("timeout", "9", "wget", "-q", "-O-")


def test_networks_names_and_ports(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok("run", "-d", "--name=web", "-p", "8080:80", "busybox", *SERVE)
    assert fetch("127.0.0.1:8080", timeout_s=10) == "a secret"
    assert fetch(f"{internet.host}:8080", at="neighbour", timeout_s=10) == "a secret"
    get = " ".join(GET)
    inside = f"{get} http://web/; {get} http://{internet.name}/; ls -d /proc/net/if_inet6"
    shown = pyrun("run", "--rm", "busybox", "sh", "-c", inside)
    assert shown.stdout == f"a secret\nyou are {internet.host}\n", shown.stderr
    assert "if_inet6: No such file" in shown.stderr
    pyrun.ok("network", "create", "own")
    pyrun.ok("network", "connect", "--alias=page", "own", "web")
    assert pyrun.ok("run", "--rm", "--network=own", "busybox", *GET, "http://page/") == "a secret"
    pyrun.ok("port", "add", "web", "8081:80")
    assert fetch(f"{internet.host}:8081", at="neighbour", timeout_s=10) == "a secret"
    for words in (("-p", "[::1]:90:80"), ("--ip6", "fd00::9")):
        error = pyrun.fails(125, "run", "--rm", *words, "busybox", "true")
        assert error.startswith(f"pyrun: {words[0]} {words[1].removesuffix(':80')}"), error
        assert "may be a bug" not in error
        assert "no IPv6" in error
    assert pyrun.ok("network", "reload") == "nothing was missing"


def test_a_network_with_ipv6_is_refused(pyrun: Pyrun) -> None:
    """In one line, and nothing of it is left; one that was created before this boot, too, until it is removed."""
    line, hint = pyrun.fails(1, "network", "create", "--ipv6", "six").split("\n")
    assert line.startswith("pyrun: network 'six' cannot have fd") and line.endswith(
        ": this kernel has no IPv6"
    )
    assert hint.startswith("hint: a network without IPv6")
    assert not [*pyrun.root.glob("networks/*.json"), *pyrun.runroot.glob("networks/six")]
    six = {"subnet": "fd00:9::/64", "gateway": "fd00:9::1", "prefix": 64, "range": "fd00:9::/64"}
    told = {"name": "six", "id": "ab" * 32, "bridge": "pyrabababab", "ipv6": True, "subnets6": [six]}
    told |= {f"{key}6": value for key, value in six.items()}
    file = pyrun.root / "networks/six.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({**records.Network().record(), **told}))
    error = pyrun.fails(125, "run", "--rm", "--network=six", "busybox", "true")
    assert error.startswith("pyrun: network 'six' cannot have fd00:9::/64: this kernel has no IPv6\nhint: ")
    assert not hostile.stored(pyrun)
    assert pyrun.ok("network", "rm", "six") == "six"
