"""Beside libvirt's default network, as its own daemon makes it: virbr0, dnsmasq, the chains LIBVIRT_*.

    lab host ──┬── virbr0 192.168.122.1/24 ── machine   where a virtual machine would be: a cable in the bridge, an
               │                                        address from libvirt's DHCP server, a page on port 80
               └── pyrun0 ── web (8080), box

Each side works as if it were alone, whoever came first, and neither opens the other's closed doors.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import leftovers
from command import Pyrun
from places import NEIGHBOUR, address_of, command, listening, page, setting, telling
from segments import shell
from waiting import soon
from yard import SERVE, SLEEP

pytestmark = [pytest.mark.needs("libvirtd"), pytest.mark.alone]

ASK = ("timeout", "3", "wget", "-q", "-O-")
MACHINE, SUBNET, BRIDGE = "machine", "192.168.122.0/24", "virbr0"
# As /usr/share/libvirt/networks/default.xml, without what takes seconds: STP keeps a new port silent, dnsmasq asks
# whether somebody has an address before it gives it away.
NETWORK = f"""<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'><name>default</name>
<bridge name='{BRIDGE}' stp='off'/><forward/><ip address='192.168.122.1' netmask='255.255.255.0'>
<dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip>
<dnsmasq:options><dnsmasq:option value='no-ping'/></dnsmasq:options></network>"""
# What libvirt 11.3 has instead of its chains in FORWARD and POSTROUTING with firewall_backend = "nftables" in
# network.conf, as `nft list ruleset` showed it. Older ones cannot make it, and for the tc filter that comes with it
# there must be CONFIG_NET_ACT_CSUM.
NFTABLES = f"""
table ip libvirt_network {{
    chain guest_output {{
        ip saddr {SUBNET} iif {BRIDGE} counter accept
        iif {BRIDGE} counter reject
    }}
    chain guest_input {{
        oif {BRIDGE} ip daddr {SUBNET} ct state established,related counter accept
        oif {BRIDGE} counter reject
    }}
    chain guest_cross {{
        iif {BRIDGE} oif {BRIDGE} counter accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        counter jump guest_cross
        counter jump guest_input
        counter jump guest_output
    }}
    chain guest_nat {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {SUBNET} ip daddr 224.0.0.0/24 counter return
        ip saddr {SUBNET} ip daddr 255.255.255.255 counter return
        meta l4proto tcp ip saddr {SUBNET} ip daddr != {SUBNET} counter masquerade to :1024-65535
        meta l4proto udp ip saddr {SUBNET} ip daddr != {SUBNET} counter masquerade to :1024-65535
        ip saddr {SUBNET} ip daddr != {SUBNET} counter masquerade
    }}
}}
"""
REPLACED = ("filter LIBVIRT_FWO", "filter LIBVIRT_FWI", "filter LIBVIRT_FWX", "nat LIBVIRT_PRT")
# Whom the daemon wants to know before it starts: the user its package for systems makes.
USERS = {"/etc/passwd": "libvirt-qemu:x:64055:64055::/nonexistent:/bin/false\n",
         "/etc/group": "libvirt-qemu:x:64055:\nkvm:x:64056:\n"}  # fmt: skip
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
LEASED = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface" && ip route add default via "$router"
"""


class Libvirt:
    """A daemon that runs; `up` and `down` are those of its default network."""

    def __init__(self, scratch: Path) -> None:
        self.nftables = False
        self.lease = scratch / "leased"
        self.lease.write_text(LEASED)
        self.lease.chmod(0o755)

    def virsh(self, *words: str, text: str = "") -> bool:
        done = subprocess.run(["virsh", "-c", "network:///system", *words], input=text, text=True,
                              capture_output=True, timeout=30, check=False)  # fmt: skip
        return done.returncode == 0

    def up(self) -> None:
        """Start the network, and connect the machine as one that boots."""
        assert self.virsh("net-create", "/dev/stdin", text=NETWORK)
        if self.nftables:
            shell(*[f"nft flush chain ip {chain}" for chain in REPLACED], f"nft -f - <<'X'\n{NFTABLES}\nX")
        shell(
            f"ip netns exec {MACHINE} ip link set lo up",
            f"ip link add vnet0 type veth peer name eth0 netns {MACHINE}",
            f"ip link set vnet0 master {BRIDGE} up; ip -n {MACHINE} link set eth0 up",
            f"ip netns exec {MACHINE} busybox udhcpc -q -n -t 10 -T 1 -i eth0 -s {self.lease} 2>&1",
        )

    def down(self) -> None:
        shell("ip link delete vnet0")
        assert self.virsh("net-destroy", "default")
        if self.nftables:
            shell("nft delete table ip libvirt_network")


@pytest.fixture
def libvirt(lab: None, tmp_path: Path) -> Iterator[Libvirt]:
    """Comes before `pyrun` in a test. The chains of the daemon's, which it leaves for good, are there already."""
    before = {path: Path(path).read_text() for path in USERS}
    for path, more in USERS.items():
        Path(path).write_text(before[path] + more)
    configuration = tmp_path / "libvirtd.conf"
    configuration.write_text('auth_unix_rw = "none"\nunix_sock_group = "root"\n')
    made = Libvirt(tmp_path)
    with (
        setting("net/ipv4/ip_forward", "0"),
        open(tmp_path / "log", "wb") as log,
        subprocess.Popen(["libvirtd", "--config", str(configuration)], stdout=log, stderr=log) as daemon,
    ):
        try:
            assert soon(lambda: made.virsh("net-list"), 20), (tmp_path / "log").read_text()
            shell(f"ip netns add {MACHINE}")
            assert made.virsh("net-create", "/dev/stdin", text=NETWORK) and made.virsh(
                "net-destroy", "default"
            )
            FORWARD.write_text("0")
            yield made
        finally:
            made.virsh("net-destroy", "default")
            daemon.terminate()
            for words in (["ip", "link", "delete", "vnet0"], ["ip", "netns", "delete", MACHINE],
                          ["nft", "flush", "ruleset"]):  # fmt: skip
                subprocess.run(words, capture_output=True, check=False)
            for path, text in before.items():
                Path(path).write_text(text)


@pytest.fixture(params=["iptables", "nftables"])
def network(request: pytest.FixtureRequest, libvirt: Libvirt) -> Iterator[Libvirt]:
    """Comes before `pyrun`: the network is there first, with the rules of either backend."""
    libvirt.nftables = request.param == "nftables"
    libvirt.up()
    yield libvirt
    libvirt.down()


def start(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name=web", "-p", "8080:80", "busybox", *SERVE)
    pyrun.ok("run", "-d", "--name=box", "busybox", *SLEEP)
    listening("web")


def containers_work(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    assert page(NEIGHBOUR, f"{internet.host}:8080") == page("", "127.0.0.1:8080") == "a secret"
    assert page("box", internet.far) == f"you are {internet.host}"
    assert pyrun.ok("exec", "box", *ASK, "http://web/") == "a secret"
    assert pyrun.ok("exec", "box", *ASK, f"http://{internet.name}/") == f"you are {internet.host}"


def machine_works(internet: SimpleNamespace) -> None:
    """The way out, the host, and the names that libvirt's dnsmasq knows."""
    assert page(MACHINE, internet.far) == f"you are {internet.host}"
    assert internet.far in command(MACHINE, "busybox", "nslookup", internet.name, "192.168.122.1")
    with telling(MACHINE):
        assert page("", address_of(MACHINE)) == "you are 192.168.122.1"


def apart(internet: SimpleNamespace) -> None:
    """A published port is the machine's as everybody's; everything else of the other side is nobody's."""
    assert page(MACHINE, f"{internet.host}:8080") == "a secret"
    assert page(MACHINE, address_of("web")).startswith("no:")
    with telling(MACHINE):
        assert page("box", address_of(MACHINE)).startswith("no:")


def test_libvirt_was_there_first(network: Libvirt, pyrun: Pyrun, internet: SimpleNamespace) -> None:
    before = leftovers.rules()
    start(pyrun)
    containers_work(pyrun, internet)
    machine_works(internet)
    apart(internet)
    assert SUBNET in pyrun.fails(1, "network", "create", f"--subnet={SUBNET}", "clash")
    network.down()
    containers_work(pyrun, internet)
    network.up()
    containers_work(pyrun, internet)
    machine_works(internet)
    apart(internet)
    assert pyrun.ok("network", "reload") == "nothing was missing"
    pyrun.ok("rm", "-f", "web", "box")
    pyrun.ok("network", "prune", "-f")
    assert leftovers.rules() == before
    machine_works(internet)


def test_libvirt_comes_later(libvirt: Libvirt, pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """It finds forwarding switched on; its machines keep that when the last container's network goes."""
    start(pyrun)
    libvirt.up()
    try:
        containers_work(pyrun, internet)
        machine_works(internet)
        apart(internet)
        pyrun.ok("rm", "-f", "web", "box")
        told = pyrun("network", "prune", "-f").stderr
        assert f"net.ipv4.ip_forward stays 1: {BRIDGE} came after" in told
        machine_works(internet)
    finally:
        libvirt.down()
        FORWARD.write_text("0")
