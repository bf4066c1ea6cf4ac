"""Networks by their ids, and networks of the driver none: wherever a network is named, and what the listing shows."""

from __future__ import annotations

import json
import time

import pytest

import hostile
from command import Pyrun

SLEEP = ("busybox", "sleep", "1000")
INTERFACES = ("busybox", "ls", "/sys/class/net")


# ── ids ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("digits", [64, 12, 4])
def test_an_id_or_its_beginning_is_as_good_as_the_name(pyrun: Pyrun, digits: int) -> None:
    identifier = pyrun.ok("network", "create", "--subnet=10.1.0.0/24", "front")[:digits]
    pyrun.ok("run", "-d", "--name=web", f"--network={identifier}:ip=10.1.0.9,alias=db", *SLEEP)
    pyrun.ok("run", "-d", "--name=other", *SLEEP)
    row = json.loads(pyrun.ok("ps", "--format=json", "-f", "name=web"))
    assert row["Networks"] == "front", "what is kept is the name"
    assert "10.1.0.9" in pyrun.ok(
        "run", "--rm", f"--net={identifier}", "busybox", "nslookup", "-type=a", "db"
    )
    pyrun.ok("network", "connect", identifier, "other")
    (told,) = json.loads(pyrun.ok("network", "inspect", identifier))
    assert {each["Name"] for each in told["Containers"].values()} == {"web", "other"}
    pyrun.ok("network", "disconnect", identifier, "other")
    assert "eth1" not in pyrun.ok("exec", "other", "ls", "/sys/class/net")
    assert "10.1.0." in pyrun.ok("run", "--rm", "--dry-run", f"--network={identifier}", "busybox", "true")
    error = pyrun.fails(125, "run", "--rm", f"--network={identifier}", "--network=front", "busybox", "true")
    assert error == "pyrun: --network: front is given twice\nhint: once for each network"
    assert pyrun.fails(1, "network", "rm", identifier).startswith("pyrun: network front is used by web")
    pyrun.ok("rm", "-f", "web", "other")
    assert pyrun.ok("network", "rm", identifier) == identifier
    assert pyrun.fails(1, "network", "inspect", "front").startswith("pyrun: no such network: front")


def test_the_listing_shows_ids(pyrun: Pyrun) -> None:
    identifier = pyrun.ok("network", "create", "front")
    ids = pyrun.ok("network", "ls", "-q").split()
    assert ids[1] == identifier[:12] and {len(each) for each in ids} == {12}
    lines = [line.split() for line in pyrun.ok("network", "ls").splitlines()]
    assert lines[0][:4] == ["NETWORK", "ID", "NAME", "DRIVER"]
    assert [line[:3] for line in lines[1:]] == [
        [ids[0], "bridge", "bridge"], [ids[1], "front", "bridge"], [ids[2], "host", "host"], [ids[3], "none", "null"],
    ]  # fmt: skip
    assert identifier in pyrun.ok("network", "ls", "--no-trunc")
    assert pyrun.ok("network", "ls", "-q", "--no-trunc").split()[1] == identifier
    (told,) = json.loads(pyrun.ok("network", "inspect", pyrun.ok("network", "ls", "-q").split()[1]))
    assert told["Name"] == "front"


def test_the_listing_as_json_has_docker_s_keys(pyrun: Pyrun) -> None:
    """With Docker's kind of values, and beside them, in its style, what only pyrun tells."""
    identifier = pyrun.ok(
        "network",
        "create",
        "--internal",
        "--label=a=1",
        "--label=b",
        "--ipv6",
        "--subnet=10.1.0.0/24",
        "front",
    )
    rows = [json.loads(line) for line in pyrun.ok("network", "ls", "--format=json").splitlines()]
    row = next(row for row in rows if row["Name"] == "front")
    docker = {
        "Driver": "bridge", "ID": identifier[:12], "IPv4": "true", "IPv6": "true", "Internal": "true",
        "Labels": "a=1,b=", "Name": "front", "Scope": "local",
    }  # fmt: skip
    assert {key: row[key] for key in docker} == docker
    assert row["CreatedAt"].startswith(time.strftime("%Y-")) and row["Subnet"] == "10.1.0.0/24"
    host = next(row for row in rows if row["Name"] == "host")
    assert (host["Internal"], host["IPv6"], host["CreatedAt"]) == ("false", "false", "")
    assert identifier in pyrun.ok("network", "ls", "--format=json", "--no-trunc")


def test_an_inspection_in_one_line(pyrun: Pyrun) -> None:
    whole = pyrun.ok("network", "inspect", "host", "none")
    for words in (("--format", "json"), ("-f", "json"), ("--format=json",)):
        line = pyrun.ok("network", "inspect", *words, "host", "none")
        assert "\n" not in line and json.loads(line) == json.loads(whole)
    assert pyrun.fails(1, "network", "inspect", "-f", "xml", "host") == (
        "pyrun: unknown --format 'xml'\nhint: json, or none"
    )


# ── the driver none ────────────────────────────────────────────────────────────────────────────────


def test_on_a_network_of_the_driver_none_is_nothing_but_the_loopback(pyrun: Pyrun) -> None:
    pyrun.ok("network", "create", "-d", "none", "nowhere")
    assert pyrun.ok("run", "--rm", "--network=nowhere", *INTERFACES) == "lo"
    assert ",UP," in pyrun.ok("run", "--rm", "--network=nowhere", "busybox", "ip", "link", "show", "lo")
    pyrun.ok("run", "--rm", "--dry-run", "--network=nowhere", *INTERFACES)
    pyrun.ok("run", "-d", "--name=alone", "--network=nowhere", *SLEEP)
    row = json.loads(pyrun.ok("ps", "--format=json"))
    assert row["Networks"] == "nowhere"
    rows = [json.loads(line) for line in pyrun.ok("network", "ls", "--format=json").splitlines()]
    assert [row["Containers"] for row in rows if row["Name"] == "nowhere"] == [{"alone": ""}], (
        "without an address"
    )
    pyrun.ok("network", "create", "front")
    pyrun.ok("network", "connect", "front", "alone")
    assert pyrun.ok("exec", "alone", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    pyrun.ok("network", "disconnect", "front", "alone")
    pyrun.ok("run", "-d", "--name=web", *SLEEP)
    error = pyrun.fails(1, "network", "connect", "nowhere", "web").splitlines()
    assert (
        error[0]
        == "pyrun: network connect: nowhere is of the driver none, and there is nothing in it to connect to"
    )
    pyrun.ok("rm", "-f", "alone", "web")
    pyrun.ok("network", "rm", "nowhere")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--network=front",), "stands alone"),
        (("--ip=10.1.0.9",), "has no interface"),
        (("--network-alias=db",), "has no interface"),
        (("--egress=none",), "--egress: has no meaning"),
        (("--net-rate=in=1mbit",), "--net-rate: the container has no link"),
    ],
)
def test_what_needs_an_interface_is_refused_there(pyrun: Pyrun, options: tuple[str, ...], named: str) -> None:
    pyrun.ok("network", "create", "-d", "none", "nowhere")
    pyrun.ok("network", "create", "front")
    before = hostile.stored(pyrun)
    assert named in pyrun.fails(125, "run", "--rm", "--network=nowhere", *options, "busybox", "true")
    assert hostile.stored(pyrun) == before
