"""Networks a user makes: created, used several at a time, inspected, removed; what is wrong leaves nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import leftovers
from command import Pyrun
from kill_points import make_bundle

SLEEP = ("busybox", "sleep", "1000")
FRONT = ("--subnet=10.1.0.0/24", "--subnet=fd00:1::/64", "front")
BACK = ("--subnet=10.2.0.0/24", "back")
SHOW = (
    "ip -o addr show scope global | awk '{print $2, $4}'; ip route | grep default; ip -6 route | grep default"
)


def test_create_inspect_ls_rm(pyrun: Pyrun) -> None:
    identifier = pyrun.ok(
        "network", "create", "--label", "team=a", "--ip-range=10.1.0.64/26", "--gateway=10.1.0.9", *FRONT
    )
    assert re.fullmatch("[0-9a-f]{64}", identifier)
    pyrun.ok("run", "-d", "--name=web", "--network=front:alias=db", *SLEEP)
    (told,) = json.loads(pyrun.ok("network", "inspect", identifier[:12]))
    assert (told["Name"], told["Id"], told["Labels"]) == ("front", identifier, {"team": "a"})
    assert told["IPAM"]["Config"] == [
        {"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.9", "IPRange": "10.1.0.64/26"},
        {"Subnet": "fd00:1::/64", "Gateway": "fd00:1::1"},
    ]
    (container,) = told["Containers"].values()
    assert (container["Name"], container["IPv4Address"]) == ("web", "10.1.0.64/24")
    assert (container["IPv6Address"], container["Aliases"]) == ("fd00:1::a01:40/64", ["db"])
    rows = [json.loads(line) for line in pyrun.ok("network", "ls", "--format=json").splitlines()]
    assert [row["Name"] for row in rows] == ["bridge", "front", "host", "none"]
    assert rows[1]["Containers"] == {"web": "10.1.0.64"} and rows[1]["Subnet6"] == "fd00:1::/64"
    assert pyrun.fails(1, "network", "rm", "front").startswith("pyrun: network front is used by web")
    pyrun.ok("rm", "-f", "web")
    assert pyrun.ok("network", "rm", "front") == "front"
    assert pyrun.fails(1, "network", "rm", "front").startswith("pyrun: no such network: front")
    pyrun.ok("network", "rm", "-f", "front")
    assert pyrun.fails(1, "network", "inspect", "front").startswith("pyrun: no such network: front")
    for name in ("host", "none"):
        assert pyrun.fails(1, "network", "rm", name).startswith(f"pyrun: network {name} is built in")


def test_the_counters_count(pyrun: Pyrun) -> None:
    pyrun.ok("network", "create", *FRONT)
    pyrun.ok("run", "-d", "--name=web", "--network=front", *SLEEP)

    def counters() -> dict[str, int]:
        (told,) = json.loads(pyrun.ok("network", "inspect", "front"))
        (container,) = told["Containers"].values()
        found: dict[str, int] = container["Counters"]
        return found

    before = counters()
    pyrun.ok("exec", "web", "ping", "-q", "-c", "10", "-i", "0.01", "-s", "1000", "10.1.0.1")
    after = counters()
    for way in ("sent", "received"):
        assert 10 <= after[f"{way}_packets"] - before[f"{way}_packets"] <= 20, way
        assert 10420 <= after[f"{way}_bytes"] - before[f"{way}_bytes"] <= 12000, way


def test_several_networks_in_order(pyrun: Pyrun) -> None:
    pyrun.ok("network", "create", *FRONT)
    pyrun.ok("network", "create", *BACK)
    networks = (
        "--network=back:gw-priority=-1",
        "--network=front:ifname=lan0,ip=10.1.0.7",
        "--network=bridge",
    )
    shown = pyrun.ok("run", "--rm", *networks, "busybox", "sh", "-c", SHOW).splitlines()
    addresses = [tuple(line.split()) for line in shown if "/" in line]
    assert addresses == [
        ("eth0", "10.2.0.2/24"), ("lan0", "10.1.0.7/24"), ("lan0", "fd00:1::a01:7/64"), ("eth2", "10.77.0.2/16"),
    ]  # fmt: skip
    routes = [line.split(" metric")[0].strip() for line in shown if line.startswith("default")]
    assert routes == ["default via 10.1.0.1 dev lan0", "default via fd00:1::1 dev lan0"]


def test_names_are_answered_in_every_subnet(pyrun: Pyrun) -> None:
    """In a further subnet of a network the resolver is at the gateway of that subnet, whether it leads out or not."""
    for ten, more in ((8, ()), (9, ("--internal",))):
        four = (f"--subnet=10.{ten}.0.0/30", f"--subnet=10.{ten}.1.0/24")
        six = (f"--subnet=fd00:{ten}::/64", f"--subnet=fd00:{ten}:1::/64")
        pyrun.ok("network", "create", *more, *four, *six, "net")
        for name in ("web", "box"):  # the first subnet has one address
            pyrun.ok("run", "-d", f"--name={name}", "--network=net", *SLEEP)
        (told,) = json.loads(pyrun.ok("network", "inspect", "net"))
        addresses = {each["Name"]: each["IPv4Address"] for each in told["Containers"].values()}
        assert addresses == {"web": f"10.{ten}.0.2/30", "box": f"10.{ten}.1.2/24"}
        shown = pyrun.ok("exec", "box", "sh", "-c", "ip -o -4 addr show eth0; cat /etc/resolv.conf")
        assert f"10.{ten}.1.2/24" in shown and f"nameserver 10.{ten}.1.1" in shown
        assert f"10.{ten}.0.2" in pyrun.ok("exec", "box", "nslookup", "-type=a", "web")
        words = (f"--network=net:ip6=fd00:{ten}:1::9", "busybox", "nslookup", "-type=a", "web")
        assert f"10.{ten}.0.2" in pyrun.ok("run", "--rm", *words, f"fd00:{ten}:1::1")
        backwards = pyrun("exec", "box", "nslookup", "-type=ptr", f"77.1.{ten}.10.in-addr.arpa")
        assert "NXDOMAIN" in backwards.stdout + backwards.stderr, "nobody's, and asked of nobody outside"
        outside = pyrun("exec", "box", "nslookup", "-type=a", "internet.test")
        assert ("203.0.113.80" in outside.stdout) is not bool(more)
        pyrun.ok("rm", "-f", "web", "box")
        pyrun.ok("network", "rm", "net")


def test_static_addresses_on_the_default_network(pyrun: Pyrun) -> None:
    words = ("--ip=10.77.9.9", "--mac-address=02:00:00:00:00:99")
    shown = pyrun.ok("run", "--rm", *words, "busybox", "ip", "addr", "show", "eth0")
    assert "inet 10.77.9.9/16" in shown and "link/ether 02:00:00:00:00:99" in shown
    pyrun.ok("run", "-d", "--name=web", "--ip=10.77.9.9", *SLEEP)
    error = pyrun.fails(125, "run", "--rm", "--ip=10.77.9.9", "busybox", "true")
    assert error.startswith("pyrun: the address 10.77.9.9 of network bridge is held by container web")


@pytest.mark.alone
def test_a_definition_outlives_a_reboot(pyrun: Pyrun) -> None:
    """An empty run directory, no links, no rules: as the machine comes up."""
    pyrun.ok("network", "create", *FRONT)
    (before,) = json.loads(pyrun.ok("network", "inspect", "front"))
    subprocess.run(["ip", "link", "del", before["Pyrun"]["Bridge"]], check=True)
    subprocess.run("nft delete table inet pyrun; nft delete table bridge pyrun", shell=True, check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("0")
    shutil.rmtree(pyrun.runroot)
    (after,) = json.loads(pyrun.ok("network", "inspect", "front"))
    assert after == {**before, "Pyrun": {**before["Pyrun"], "Built": False, "Mtu": 0}}
    shown = pyrun.ok(
        "run", "--rm", "--network=front", "busybox", "sh", "-c", "ping -c1 -W2 10.1.0.1; ip addr"
    )
    assert "10.1.0.2/24" in shown and "1 packets received" in shown
    (again,) = json.loads(pyrun.ok("network", "inspect", "front"))
    assert again["Pyrun"]["Built"] and again["Id"] == before["Id"]


def test_prune_leaves_networks_in_use(pyrun: Pyrun) -> None:
    pyrun.ok("network", "create", *FRONT)
    pyrun.ok("network", "create", *BACK)
    pyrun.ok("network", "create", "--driver=none", "paper")
    pyrun.ok("run", "-d", "--name=web", "--network=front", *SLEEP)
    assert pyrun.ok("network", "prune").splitlines() == ["back", "paper"]
    assert sorted(os.listdir(pyrun.root / "networks")) == ["front.json"]
    pyrun.ok("rm", "-f", "web")
    assert "front" in pyrun.ok("network", "prune")
    assert os.listdir(pyrun.root / "networks") == []


def test_a_network_of_the_driver_none_is_kept_while_a_container_is_on_it(pyrun: Pyrun) -> None:
    pyrun.ok("network", "create", "--driver=none", "paper")
    ident = pyrun.ok("run", "-d", "--name=web", "--network=paper", *SLEEP)
    for words in (("rm", "paper"), ("rm", "-f", "paper")):
        assert pyrun.fails(1, "network", *words).startswith("pyrun: network paper is used by web")
    assert pyrun.ok("network", "prune") == ""
    (found,) = json.loads(pyrun.ok("network", "inspect", "paper"))
    assert found["Containers"] == {ident: {"Name": "web"}}
    (row,) = (row for row in pyrun.ok("network", "ls", "--format=json").splitlines() if "paper" in row)
    assert json.loads(row)["Containers"] == {"web": ""}
    pyrun.ok("rm", "-f", "web")
    pyrun.ok("run", "--rm", "--network=paper", "busybox", "true")
    assert pyrun.ok("network", "rm", "paper") == "paper"
    assert not (pyrun.runroot / "networks/paper").exists()
    error = pyrun.fails(125, "run", "--rm", "--network=paper", "busybox", "true")
    assert error.startswith("pyrun: no such network: paper")


REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("a/b",), "network create 'a/b' is no name of a network"),
    (("host",), "network create host: the name is pyrun's own"),
    (("bridge",), "network create bridge: the name is pyrun's own"),
    (("other",), "network other exists"),
    (("--subnet=10.1.0.5/24", "x"), "--subnet '10.1.0.5/24': no subnet"),
    (("--subnet=banana", "x"), "--subnet 'banana': no subnet"),
    (("--subnet=127.0.0.0/8", "x"), "--subnet 127.0.0.0/8: is no range containers can have"),
    (("--subnet=198.51.100.0/25", "x"), "--subnet 198.51.100.0/25: overlaps 198.51.100.0/24"),
    (("--subnet=10.9.0.0/16", "x"), "--subnet 10.9.0.0/16: overlaps 10.9.0.0/24 of network other"),
    (("--subnet=10.1.0.0/24", "--subnet=10.1.0.128/25", "x"), "128/25: overlaps the other --subnet 10.1.0.0/24"),
    (("--subnet=10.1.0.0/24", "--gateway=10.2.0.1", "x"), "--gateway 10.2.0.1: in no subnet"),
    (("--subnet=10.1.0.0/24", "--gateway=10.1.0.255", "x"), "is an end of the subnet"),
    (("--subnet=10.1.0.0/24", "--ip-range=10.2.0.0/26", "x"), "--ip-range 10.2.0.0/26: in no subnet"),
    (("--driver=overlay", "x"), "--driver overlay: no such driver"),
    (("--mtu=20", "x"), "--mtu 20: must be 68 to 65535"),
    (("--mtu=many", "x"), "option --mtu needs a whole number, not 'many'"),
    (("--ipv6", "--mtu=1000", "x"), "--mtu 1000: must be 68 to 65535, with IPv6 at least 1280"),
    (("-o", "com.docker.network.bridge.name=eth0", "x"), "bridge name 'eth0': must begin with pyr"),
    (("-o", "com.docker.network.driver.mtu=x", "x"), "-o com.docker.network.driver.mtu x: is no number of bytes"),
    (("-d", "macvlan", "x"), "network x: the driver macvlan needs a card of the host"),
    (("-d", "ipvlan", "-o", "parent=nowhere", "x"), "this host has no interface nowhere"),
    ((), "pyrun network create needs at least 1 argument"),
    (("x", "y"), "pyrun network create takes at most 1 argument"),
)  # fmt: skip


def test_a_network_that_is_refused_leaves_nothing(pyrun: Pyrun) -> None:
    pyrun.ok("network", "create", "--subnet=10.9.0.0/24", "other")

    def there() -> list[object]:
        files = [
            str(path)
            for top in (pyrun.root / "networks", pyrun.runroot / "networks")
            for path in top.rglob("*")
        ]
        return [leftovers.links(), leftovers.rules(), sorted(files)]

    before = there()
    for words, named in REFUSED:
        error = pyrun.fails(125 if "--mtu=many" in words else 1, "network", "create", *words)
        assert named in error.splitlines()[0], error
        assert len(error.splitlines()) <= 2, "one line, and a hint"
        assert there() == before, words


def test_reload_says_what_it_heals(pyrun: Pyrun) -> None:
    pyrun.ok("network", "create", *FRONT)
    pyrun.ok("network", "create", *BACK)
    (told,) = json.loads(pyrun.ok("network", "inspect", "front"))
    bridge = told["Pyrun"]["Bridge"]
    assert pyrun.ok("network", "reload") == "nothing was missing"
    assert pyrun.ok("network", "reload", "--quiet") == ""
    subprocess.run(["ip", "link", "del", bridge], check=True)
    assert (
        pyrun.ok("network", "reload") == f"network front: bridge {bridge} was missing and has been restored"
    )
    assert bridge in leftovers.links()


# ── several networks, explained, and of a bundle ───────────────────────────────────────────────────


def test_several_networks_explained(pyrun: Pyrun) -> None:
    """The dry run touches nothing, says everything once a network, and what it says is what is done then."""
    pyrun.ok("network", "create", *FRONT)
    pyrun.ok("network", "create", *BACK)
    words = ("--name=web", "--network=back", "--network=front:ifname=lan0,ip=10.1.0.7", "-p", "8080:80")
    files = sorted(str(path) for path in pyrun.runroot.rglob("*"))
    before = leftovers.picture()
    text = pyrun.ok("run", "--dry-run", "--explain=json", *words, *SLEEP)
    assert (leftovers.picture(), sorted(str(path) for path in pyrun.runroot.rglob("*"))) == (before, files)
    operations = json.loads(text.splitlines()[0])["operations"]
    kinds = [each["kind"] for each in operations]
    assert kinds.count("VETH") == kinds.count("PIN") == kinds.count("SETTLE") == kinds.count("ADDRESS") == 2
    assert (
        kinds.count("IPV6") == kinds.count("ADDRESS6") == kinds.count("ROUTE") == kinds.count("ROUTE6") == 1
    )
    leased = [each["arguments"] for each in operations if each["kind"] == "LEASE"]
    assert leased == [["10.2.0.2", "back"], ["10.1.0.7", "front"], ["fd00:1::a01:7", "front"]]
    ran = pyrun("run", "-d", "--explain=json", *words, *SLEEP)
    done = json.loads(next(line for line in ran.stderr.splitlines() if line.startswith("{")))["operations"]
    assert [each["kind"] for each in done] == kinds
    assert "default via 10.2.0.1 dev eth0" in pyrun.ok("exec", "web", "ip", "route")
    for each in done:
        if each["kind"] in (
            "VETH",
            "IPV6",
            "PIN",
            "ADDRESS",
            "ADDRESS6",
            "ROUTE",
            "ROUTE6",
            "SETTLE",
            "RESOLVER",
            "ANNOUNCE",
        ):
            subprocess.run(each["see"], shell=True, check=True, stdout=subprocess.DEVNULL)


def test_a_bundle_on_networks(pyrun: Pyrun, tmp_path: Path) -> None:
    bundle = make_bundle(pyrun, tmp_path / "bundle")
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["args"] = ["sh", "-c", f"{SHOW}; wget -qO- http://198.51.100.1/"]
    (bundle / "config.json").write_text(json.dumps(config))
    pyrun.ok("network", "create", *FRONT)
    pyrun.ok("network", "create", *BACK)
    words = ("--network=front", "--network=back:ifname=lan0", "--ip=10.1.0.7")
    shown = pyrun.ok("run", "--bundle", str(bundle), *words, "job")
    assert "default via 10.1.0.1 dev eth0" in shown and "lan0" in shown and "you are 198.51.100.2" in shown
    for name in ("front", "back"):
        assert not list((pyrun.runroot / "networks" / name / "leases").iterdir())
    error = pyrun.fails(125, "run", "--bundle", str(bundle), "--network=nowhere", "job")
    assert error.startswith("pyrun: no such network: nowhere")
    assert not list(pyrun.runroot.glob("containers/*"))
