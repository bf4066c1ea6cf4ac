"""What this machine can do, found out by trying: `@pytest.mark.needs("cgroup2")`.

These are the only reasons for which continuous integration may skip a test (see conftest.py): a text that merely looks
like one does not count. A new one is a function here without arguments that returns True or False; its docstring
completes "this machine lacks ...". A test of what is said where something is missing needs its lack: "no_netem".
What is no matter of the machine has its words in INAPPLICABLE.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

LACKS = "this machine lacks "
MEASURES = "measures; run it by `make bench`"
INAPPLICABLE = {
    "old runc": "not applicable: a fault of old versions, and there is no old runc here",
    "old crun": "not applicable: a fault of old versions, and there is no old crun here",
    "listed devices": "not applicable: runc 1.1 cannot be asked for it, a listed device is allowed",
    "some scenarios": "not applicable: only some of the scenarios were chosen",
}


def cgroup2() -> bool:
    """a pure cgroup v2 hierarchy"""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def cgroup1() -> bool:
    """cgroup v1 controllers"""
    return Path("/sys/fs/cgroup/memory/tasks").exists()


def bfq() -> bool:
    """weights of block devices in cgroup v1 (CONFIG_IOSCHED_BFQ)"""
    top = Path("/sys/fs/cgroup/blkio")
    if os.geteuid() != 0 or not (top / "tasks").exists():
        return False
    own = Path(tempfile.mkdtemp(prefix="probe-", dir=top))  # the root cgroup has no such file
    try:
        return (own / "blkio.bfq.weight").exists()
    finally:
        own.rmdir()


def unified() -> bool:
    """a mounted unified cgroup hierarchy"""
    return " - cgroup2 " in Path("/proc/self/mountinfo").read_text()


def cap_sys_resource() -> bool:
    """CAP_SYS_RESOURCE (hard limits cannot be raised)"""
    return bool(_effective_capabilities() >> 24 & 1)


def ipv6() -> bool:
    """IPv6"""
    return Path("/proc/sys/net/ipv6").is_dir()


def user_namespaces() -> bool:
    """user namespaces"""
    return _works("unshare", "--user", "true")


def newuidmap() -> bool:
    """newuidmap and newgidmap (apt-get install uidmap)"""
    return shutil.which("newuidmap") is not None and shutil.which("newgidmap") is not None


def pasta() -> bool:
    """pasta and a tun device (apt-get install passt)"""
    return shutil.which("pasta") is not None and Path("/dev/net/tun").exists()


def slirp4netns() -> bool:
    """slirp4netns and a tun device (apt-get install slirp4netns)"""
    return shutil.which("slirp4netns") is not None and Path("/dev/net/tun").exists()


def fuse_overlayfs() -> bool:
    """fuse-overlayfs and a fuse device (apt-get install fuse-overlayfs)"""
    return shutil.which("fuse-overlayfs") is not None and Path("/dev/fuse").exists()


def conntrack() -> bool:
    """connection tracking in nftables"""
    return _works("unshare", "--net", "nft", "add table ip t; add chain ip t c; add rule ip t c ct state new")


def conntrack_list() -> bool:
    """/proc/net/nf_conntrack (CONFIG_NF_CONNTRACK_PROCFS)"""
    return Path("/proc/net/nf_conntrack").exists()


def iptables_legacy() -> bool:
    """iptables-legacy in its kernel"""
    return _works("unshare", "--net", "iptables-legacy", "-A", "INPUT", "-j", "ACCEPT")


def br_netfilter() -> bool:
    """bridges whose frames iptables sees (CONFIG_BRIDGE_NETFILTER)"""
    return Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()


def netem() -> bool:
    """the network emulator (CONFIG_NET_SCH_NETEM)"""
    return _works("unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")


def ipvlan() -> bool:
    """ipvlan (CONFIG_IPVLAN)"""
    make = "ip link add probe0 type veth peer name probe1 && ip link add probe2 link probe0 type ipvlan"
    return _works("unshare", "--net", "sh", "-c", make)


def dummy() -> bool:
    """dummy interfaces (CONFIG_DUMMY)"""
    return _works("unshare", "--net", "ip", "link", "add", "probe0", "type", "dummy")


def sctp() -> bool:
    """SCTP (CONFIG_IP_SCTP)"""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError as error:
        if error.errno != errno.EPROTONOSUPPORT:
            raise
        return False
    return True


def cni_plugins() -> bool:
    """the CNI plugins (apt-get install containernetworking-plugins)"""
    return Path("/usr/lib/cni/bridge").exists() or Path("/opt/cni/bin/bridge").exists()


def numa() -> bool:
    """memory policies (NUMA)"""
    return Path("/proc/self/numa_maps").exists()


def apparmor() -> bool:
    """AppArmor"""
    return Path("/sys/kernel/security/apparmor/profiles").exists()


def selinux() -> bool:
    """SELinux with a policy loaded"""
    return Path("/sys/fs/selinux/enforce").exists()


def resctrl() -> bool:
    """a processor with Resource Director Technology (/sys/fs/resctrl)"""
    return "resctrl" in Path("/proc/filesystems").read_text()


def rdma() -> bool:
    """an RDMA device and its cgroup controller"""
    return Path("/sys/class/infiniband").is_dir()


def net_cls() -> bool:
    """the cgroup v1 controllers net_cls and net_prio (mounted)"""
    return Path("/sys/fs/cgroup/net_cls/tasks").exists() and Path("/sys/fs/cgroup/net_prio/tasks").exists()


def hugetlb1() -> bool:
    """the cgroup v1 controller hugetlb (mounted)"""
    return Path("/sys/fs/cgroup/hugetlb/tasks").exists()


def hugepages() -> bool:
    """huge pages of 2 MB"""
    return Path("/sys/kernel/mm/hugepages/hugepages-2048kB").is_dir()


def two_processors() -> bool:
    """a second processor"""
    return len(os.sched_getaffinity(0)) > 1


def realtime() -> bool:
    """real-time scheduling in a new cgroup (the kernel gives a cgroup no real-time budget)"""
    budget = Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us")
    return not budget.exists() and _works("chrt", "-f", "5", "true")


def deadline() -> bool:
    """deadline scheduling"""
    words = "--sched-runtime 10000000 --sched-deadline 30000000 --sched-period 40000000 0 true"
    return realtime() and _works("chrt", "-d", *words.split())


def systemd() -> bool:
    """systemd as the init of the machine"""
    return Path("/run/systemd/system").is_dir()


def ufw() -> bool:
    """ufw (apt-get install ufw)"""
    return shutil.which("ufw") is not None


def firewalld() -> bool:
    """firewalld and a D-Bus daemon (apt-get install firewalld dbus)"""
    return all(shutil.which(name) for name in ("firewalld", "firewall-cmd", "dbus-daemon"))


def libvirtd() -> bool:
    """libvirt's daemon with networks (apt-get install libvirt-daemon libvirt-clients dnsmasq-base)"""
    driver = Path("/usr/lib").glob("*/libvirt/connection-driver/libvirt_driver_network.so")
    return any(driver) and all(shutil.which(name) for name in ("libvirtd", "virsh", "dnsmasq"))


def dockerd() -> bool:
    """a Docker daemon program (apt-get install docker.io)"""
    return shutil.which("dockerd") is not None


def containerd() -> bool:
    """containerd, its client, and what makes an image for it (apt-get install containerd umoci skopeo)"""
    return all(shutil.which(name) for name in ("containerd", "ctr", "umoci", "skopeo"))


def podman() -> bool:
    """podman (apt-get install podman)"""
    return shutil.which("podman") is not None


def runc() -> bool:
    """runc (apt-get install runc)"""
    return shutil.which("runc") is not None


def sanitizers() -> bool:
    """a gcc with AddressSanitizer (apt-get install gcc libc6-dev)"""
    return _compiles("gcc", "-fsanitize=address,undefined")


def aarch64() -> bool:
    """a compiler for aarch64 and qemu (apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)"""
    return shutil.which("qemu-aarch64") is not None and _compiles("aarch64-linux-gnu-gcc", "-static")


def test_vm() -> bool:
    """a test VM around it (make test-vm runs this there)"""
    return os.environ.get("PYRUN_VM") == "1"


def vagrant() -> bool:
    """vagrant (apt-get install vagrant)"""
    return shutil.which("vagrant") is not None


_ALL = (
    cgroup1, cgroup2, bfq, unified, cap_sys_resource, ipv6, user_namespaces, newuidmap, pasta, slirp4netns,
    fuse_overlayfs, conntrack, conntrack_list, iptables_legacy, br_netfilter, netem, ipvlan, dummy, sctp,
    cni_plugins, apparmor, numa, selinux, resctrl, rdma, hugepages, net_cls, hugetlb1, two_processors, systemd,
    realtime, deadline, ufw, firewalld, libvirtd, dockerd, containerd, podman, runc, sanitizers, aarch64, test_vm,
    vagrant,
)  # fmt: skip
PROBES: dict[str, Callable[[], bool]] = {probe.__name__: functools.cache(probe) for probe in _ALL}


# For trials: `PYRUN_TEST_LACKS=bfq,netem make test` takes these as lacking, "all" whatever has a probe.
LACKING = frozenset(os.environ.get("PYRUN_TEST_LACKS", "").replace(",", " ").split())


def missing(name: str) -> str:
    """The reason to skip a test that needs *name*; "" when the machine has it. KeyError: no such probe."""
    bare = name.removeprefix("no_")
    there = not LACKING & {bare, "all"} and PROBES[bare]()
    return "" if there != name.startswith("no_") else _words(name)


def _words(name: str) -> str:
    lack = "the lack of " if name.startswith("no_") else ""
    return f"{LACKS}{lack}{PROBES[name.removeprefix('no_')].__doc__}"


def explains(reason: str) -> bool:
    """Whether a test may be skipped for *reason*: a probe says it now, or it is one of the texts above."""
    both = [name for probe in PROBES for name in (probe, f"no_{probe}")]
    named = [name for name in both if reason == _words(name)]
    return reason in (MEASURES, *INAPPLICABLE.values()) or any(missing(name) for name in named)


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _compiles(*compiler: str) -> bool:
    if not shutil.which(compiler[0]):
        return False
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "probe.c")
        source.write_text("int main(void) { return 0; }\n")
        command = [*compiler, str(source), "-o", f"{scratch}/probe"]
        return subprocess.run(command, capture_output=True).returncode == 0


def _works(*command: str) -> bool:
    if os.geteuid() != 0 or not shutil.which(command[0]):
        return False
    return subprocess.run(command, capture_output=True).returncode == 0
