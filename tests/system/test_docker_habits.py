"""What scripts and people who know Docker look for: ids, columns, keys, ports, files of a container."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import Pyrun
from registries import Registry
from system.test_image_config import image
from system.test_run_pull import NAME, OWN, RUN, hub

__all__ = ["hub"]
SLEEP = ("busybox", "sleep", "1000")


def test_the_version_is_one_line(pyrun: Pyrun) -> None:
    for word in ("--version", "-v"):
        assert len(pyrun.ok(word).splitlines()) == 1
        assert pyrun.ok(word).startswith("pyrun version 0.")
    assert "kernel: " in pyrun.ok("version")


def test_a_long_name(pyrun: Pyrun) -> None:
    """Docker has no limit; ours is a file's."""
    name = "n" * 200
    pyrun.ok("run", "-d", "--name", name, *SLEEP)
    assert name in pyrun.ok("ps", "--no-trunc")
    assert pyrun.ok("exec", name, "true") == ""
    pyrun.ok("rm", "-f", name)
    assert "two to 240 letters" in pyrun.fails(125, "run", "--rm", "--name", "n" * 241, *SLEEP)


def test_every_network_has_an_id(pyrun: Pyrun) -> None:
    """That of the default network is the same before and after it is made."""
    before = pyrun.ok("network", "ls", "-q").splitlines()
    assert len(before) == len(set(before)) == 3 and all(len(each) == 12 for each in before)
    pyrun.ok("run", "--rm", "busybox", "true")
    assert pyrun.ok("network", "ls", "-q").splitlines() == before
    for short, name in zip(before, ("bridge", "host", "none"), strict=True):
        (found,) = json.loads(pyrun.ok("network", "inspect", short))
        assert (found["Name"], found["Id"][:12], len(found["Id"])) == (name, short, 64)
        assert f"network {name} is built in" in pyrun.fails(1, "network", "rm", name)
        assert f"network {name} is built in" in pyrun.fails(1, "network", "rm", short)
    assert "bridge" in pyrun.ok("network", "ls")


def test_columns_and_keys_are_dockers_before_ours(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name=web", *SLEEP)
    headers = pyrun.ok("network", "ls").splitlines()[0]
    assert headers.split() == "NETWORK ID NAME DRIVER SCOPE SUBNET GATEWAY BRIDGE CONTAINERS".split()
    (row,) = map(json.loads, pyrun.ok("ps", "--format=json").splitlines())
    assert list(row) == [
        "Command", "CreatedAt", "ID", "Image", "Labels", "LocalVolumes", "Mounts", "Names", "Networks", "Platform",
        "Ports", "RunningFor", "Size", "State", "Status", "NetworkCounters",
    ]  # fmt: skip
    assert row["Platform"] == {"architecture": OWN.architecture, "os": "linux"}
    row = json.loads(pyrun.ok("images", "--format=json", "busybox").splitlines()[0])
    assert {key: row[key] for key in ("Containers", "SharedSize", "UniqueSize")} == dict.fromkeys(
        ("Containers", "SharedSize", "UniqueSize"), "N/A"
    )
    assert row["VirtualSize"] == row["Size"]
    assert list(row)[-1] == "Platform"


def test_exposed_ports_are_listed(pyrun: Pyrun, tmp_path: Path) -> None:
    ports = {"80/tcp": {}, "81/tcp": {}, "53/udp": {}, "443/tcp": {}, "what": {}}
    name = image(pyrun, tmp_path, ExposedPorts=ports)
    pyrun.ok("run", "-d", "--name=web", "-p", "8097:443", "--expose=7000", name, "sleep", "1000")
    (row,) = map(json.loads, pyrun.ok("ps", "--format=json").splitlines())
    assert row["Ports"] == "53/udp, 80-81/tcp, 7000/tcp, 0.0.0.0:8097->443/tcp"
    pyrun.ok("stop", "-t0", "web")
    (row,) = map(json.loads, pyrun.ok("ps", "-a", "--format=json").splitlines())
    assert row["Ports"] == ""


def test_files_of_a_container(pyrun: Pyrun, tmp_path: Path) -> None:
    """As in Docker's; what the caller mounts on /etc gets nothing of it."""
    name = image(pyrun, tmp_path)  # it has no /etc
    for options in ((), ("--read-only",)):
        run = ("run", "--rm", "--net=none", *options)
        shown = pyrun.ok(
            *run, name, "sh", "-c", "stat -c %n:%s:%a /.dockerenv; stat -c %N /etc/mtab; cat /etc/mtab"
        )
        assert shown.splitlines()[:2] == ["/.dockerenv:0:755", "'/etc/mtab' -> '/proc/mounts'"]
        assert " / overlay " in shown
    (tmp_path / "etc").mkdir()
    pyrun.ok("run", "--rm", "--net=none", "-v", f"{tmp_path}/etc:/etc", name, "true")
    assert "mtab" not in [path.name for path in (tmp_path / "etc").iterdir()]


def test_an_environment_entry_without_a_name_is_left_out(pyrun: Pyrun, tmp_path: Path) -> None:
    name = image(pyrun, tmp_path, Env=["=bad", "A=b", "="])
    shown = pyrun.ok("run", "--rm", "--net=none", name, "sh", "-c", "cat /proc/self/environ")
    assert sorted(shown.strip("\0").split("\0"))[0] == "A=b"
    assert "bad" not in shown


def test_pull_prints_digest_and_status(pyrun: Pyrun, hub: Registry) -> None:
    digest, status, full = pyrun.ok("pull", NAME).splitlines()
    assert digest.startswith("Digest: sha256:") and len(digest) == 79
    assert (status, full) == (f"Status: Downloaded newer image for {NAME}", f"docker.io/{NAME}")
    again = pyrun.ok("pull", NAME).splitlines()
    assert again == [digest, f"Status: Image is up to date for {NAME}", full]
    assert pyrun.ok("pull", "-q", NAME) == full
    assert pyrun.ok("pull", "busybox").splitlines()[-2] == "Status: Image is up to date for busybox:latest"


def test_pull_of_what_is_stored_while_the_registry_is_down(pyrun: Pyrun, hub: Registry) -> None:
    pyrun.ok("pull", "-q", NAME)
    hub.close()
    told = pyrun.fails(1, "pull", NAME)
    assert "not in the local store" not in told
    assert "what is in the local store stays as it is" in told
    assert "not in the local store" in pyrun.fails(1, "pull", "me/other")
    pyrun.ok(*RUN, NAME, "true")


@pytest.mark.parametrize("first", ["s390x", "own"])
def test_the_digest_of_an_index_is_this_machines_image(pyrun: Pyrun, hub: Registry, first: str) -> None:
    """Also where another machine's was pulled by it."""
    if first == "own":
        pyrun.ok("pull", "-q", NAME)
    pyrun(*RUN, "--platform=linux/s390x", NAME, "true")
    rows = map(json.loads, pyrun.ok("images", "--digests", "--format=json").splitlines())
    (digest,) = {row["Digest"] for row in rows if row["Repository"] == "me/app"}
    assert pyrun.ok(*RUN, f"me/app@{digest}", "echo", "mine") == "mine"
