"""The rules as `nft` prints them: every one with its reason, kept in ruleset.nft beside this; and what they cost.

After a change that is meant: PYRUN_GOLDEN=write, and read the difference.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from pyrun.network import firewall, health, messages, nft, records, tags
from pyrun.network.firewall import bridged, routed
from sandbox import in_child

GOLDEN = Path(__file__).parent / "ruleset.nft"
# The version that printed it; others name some fields differently, and are asked for the reasons alone.
PRINTED_BY = "v1.0.6"

TOLD: list[dict[str, object]] = [
    {
        "name": "bridge", "driver": "bridge", "bridge": "pyrun0", "subnet": "10.77.0.0/16", "icc": True,
        "subnets4": [{"subnet": "10.77.0.0/16"}, {"subnet": "10.79.0.0/24"}], "shards": ["pyrun0s1"],
    },
    {
        "name": "inner", "driver": "bridge", "bridge": "pyrinner", "subnet": "10.78.0.0/16", "subnet6": "fd00:78::/64",
        "subnets6": [{"subnet": "fd00:78::/64"}], "internal": True, "icc": False, "isolate": True,
    },
    {"name": "l2", "driver": "l2", "bridge": "", "subnet": ""},
    {"name": "old", "driver": "bridge", "bridge": "br666", "subnet": "10.0.0.0/24", "adopted": True},
]  # fmt: skip
NETWORKS = [records.parsed(told) for told in TOLD]


def build(published: list[bytes] | None = None) -> None:
    sock = messages.opened(messages.NETLINK_NETFILTER)
    pins = firewall.pinned_elements(
        nft.NEW_ELEMENT,
        "pyv0123456789ab",
        "02:42:0a:4d:00:02",
        ["10.77.0.2"],
        ["fd00:78::2"],
        unpinned=True,
        alone=True,
    )
    firewall.build(sock, NETWORKS, published or [], pins)
    sock.close()


def listed(*more: str) -> str:
    done = subprocess.run(["nft", *more, "list", "ruleset"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.root
@in_child
def test_the_rules_as_they_are_printed() -> None:
    build()
    seen = listed()
    build()
    assert listed() == seen, "made anew it is the same"
    version = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=True).stdout
    if PRINTED_BY in version:
        if os.environ.get("PYRUN_GOLDEN") == "write":
            GOLDEN.write_text(seen)
        assert seen == GOLDEN.read_text()
    reasons = [why for _, _, why in [*routed.rules(), *bridged.rules()]]
    assert all(10 < len(why) < 120 for why in reasons), "a rule without its reason"
    printed = re.findall(r'comment "([^"]*)"', seen)
    assert sorted(printed) == sorted(reasons)


@pytest.mark.root
@in_child
def test_a_network_leaves_nothing() -> None:
    build()
    sock = messages.opened(messages.NETLINK_NETFILTER)
    for network in NETWORKS:
        firewall.commit(
            sock,
            firewall.network_elements(nft.DELETE_ELEMENT, network) or [nft.table(nft.NEW_TABLE, "pyrun")],
        )
    assert "elements" not in listed().partition("chain publish")[0]
    firewall.remove(sock)
    firewall.remove(sock)
    sock.close()
    assert "elements" not in listed()


@pytest.mark.root
@in_child
def test_the_errors_of_a_failed_transaction_are_its_own() -> None:
    """A socket that somebody keeps, as the resolver does, has none of them left."""
    sock = messages.opened(messages.NETLINK_NETFILTER)
    changes = [firewall.guest(nft.NEW_ELEMENT, f"10.0.0.{number}") for number in range(2, 9)]
    ends = []
    for stage in ("no table", "there", "a wrong one", "there"):
        if stage == "there":
            build()
        wrong = [firewall.guest(nft.DELETE_ELEMENT, "10.0.0.99")] if stage == "a wrong one" else []
        try:
            firewall.commit(sock, [*wrong, *changes])
            ends.append(0)
        except OSError as error:
            ends.append(error.errno or -1)
    assert ends == [errno.ENOENT, 0, errno.ENOENT, 0]


@pytest.mark.root
@in_child
def test_thousands_of_ports_are_one_transaction() -> None:
    keys = [bytes([6, 0, 0, 0]) + number.to_bytes(2, "big") + b"\0\0" for number in range(20000, 25000)]
    target = bytes([10, 77, 0, 2, 0, 80, 0, 0])
    ports = [
        nft.elements(nft.NEW_ELEMENT, tags.table(), firewall.PORTS, [{"key": key, "data": target}])
        for key in keys
    ]
    build(ports)
    assert listed().count("10.77.0.2 . 80") == 5000


@pytest.mark.root
@pytest.mark.parametrize(
    "damage", ["flush ruleset", "flush table inet pyrun", "flush chain inet pyrun forward", "delete table bridge pyrun",
               "flush chain bridge pyrun frames"],
)  # fmt: skip
@in_child
def test_a_start_notices_what_is_missing(damage: str) -> None:
    build()
    sock = messages.opened(messages.NETLINK_NETFILTER)
    template = {f"message {name}": message.hex() for name, message in firewall.checks(NETWORKS[1]).items()}
    assert health.standing_table(template, sock)
    started = time.perf_counter()
    for _ in range(100):
        health.standing_table(template, sock)
        health.standing_forward(template, sock)
    assert time.perf_counter() - started < 100 * 0.001, "asked at every start"
    subprocess.run(["nft", *damage.split()], check=True)
    assert not health.standing_table(template, sock)
