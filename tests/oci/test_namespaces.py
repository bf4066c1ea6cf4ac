"""config.json: `linux.namespaces`, id mappings, time offsets, `sysctl`, `netDevices`, `personality`, `memoryPolicy`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oci.box import Box
from oci.marks import NEITHER, rows, shows
from waiting import until

TYPE = "config: linux.namespaces[].type="
# the name in config.json, and the one below /proc/PID/ns
FILES = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
}
TIME: dict[str, Any] = {"since": {"runc": "1.2", "crun": "1.8.4"}}


def _own(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")


@shows("config: linux.namespaces[].type")
@pytest.mark.parametrize("kind", [*rows(TYPE, *FILES), *rows(TYPE, "time", **TIME)])
def test_new(box: Box, kind: str) -> None:
    name = FILES.get(kind, kind)
    box.namespace(kind)
    if kind == "user":
        box.map_ids()
    box.detach()
    assert os.readlink(f"/proc/{box.pid}/ns/{name}") != _own(name)


@shows("config: linux.namespaces[].type", "namespaces: those not named are the runtime's")
@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "cgroup"])
def test_not_named(box: Box, kind: str) -> None:
    box.without_namespace(kind)
    if kind == "uts":
        del box.config["hostname"]
    box.detach()
    assert os.readlink(f"/proc/{box.pid}/ns/{FILES[kind]}") == _own(FILES[kind])


@pytest.fixture
def other(work: Path) -> Iterator[dict[str, str]]:
    """A process with namespaces of its own: the paths by kind."""
    flags = ["--pid", "--net", "--ipc", "--uts", "--cgroup", "--time", "--mount", "--fork"]
    process = subprocess.Popen(
        ["unshare", *flags, "--propagation", "private", "sh", "-c", "echo ready; exec sleep 1000"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "ready\n"
    (pid,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    yield {kind: f"/proc/{pid}/ns/{name}" for kind, name in (FILES | {"time": "time"}).items()}
    subprocess.run(["kill", "-KILL", pid], check=True)
    process.wait()
    process.stdout.close()


@shows("config: linux.namespaces[].path")
@pytest.mark.parametrize(
    "kind", [*rows(TYPE, *(k for k in FILES if k not in ("user", "mount"))), *rows(TYPE, "time", **TIME)]
)
def test_joined(box: Box, other: dict[str, str], kind: str) -> None:
    box.namespace(kind, other[kind])
    if kind == "uts":
        del box.config["hostname"]
    box.detach()
    assert os.readlink(f"/proc/{box.pid}/ns/{FILES.get(kind, kind)}") == os.readlink(other[kind])


@shows("kill", "kill: KILL in a pid namespace of somebody else's is for the whole container")
def test_kill_in_a_joined_pid_namespace(box: Box, other: dict[str, str]) -> None:
    """Whoever is its first process there ends nobody with it."""
    box.known_to_differ("runc", "before 1.2 the first process alone")
    box.known_to_differ("crun", "the first process alone")
    box.namespace("pid", other["pid"])
    box.detach("sh", "-c", "sleep 994 & wait; sleep 994")
    listed = box.cgroup("pids") / "cgroup.procs"
    until(lambda: len(listed.read_text().split()) == 2, "the child")
    box.ok("kill", box.id, "KILL")
    until(lambda: not listed.exists() or not listed.read_text().split(), "the end of both")
    box.wait_for("stopped")


@shows("kill", "kill: those who outlive the first process in a shared pid namespace are reached")
@pytest.mark.parametrize("words", [("kill", "KILL"), ("kill", "TERM"), ("delete", "--force")])
def test_those_who_outlive_the_first_process_are_reached(
    box: Box, other: dict[str, str], words: tuple[str, ...]
) -> None:
    box.known_to_differ("runc", "before 1.5 not by kill")
    box.known_to_differ("crun", "not by kill")
    box.namespace("pid", other["pid"])
    box.detach("sh", "-c", "sleep 994 & sleep 0.1")
    listed = box.cgroup("pids") / "cgroup.procs"
    until(lambda: box.status == "stopped", "the end of the first")
    assert len(listed.read_text().split()) == 1
    verb, word = words
    box.ok(*((verb, box.id, word) if verb == "kill" else (verb, word, box.id)))
    until(lambda: not listed.exists() or not listed.read_text().split(), "the end of the other")
    if verb == "kill":
        assert "not running" in box.fails("kill", box.id, word)
        box.ok("delete", box.id)


@shows(
    "config: linux.namespaces[].path",
    f"{TYPE}mount",
    differs={"runc": "cannot change its root", "crun": "cannot"},
)
def test_joined_mount_namespace(box: Box, other: dict[str, str]) -> None:
    """The container is made in that mount namespace; its own root is still config.json's."""
    box.namespace("mount", other["mount"])
    box.config["mounts"] = [each for each in box.config["mounts"] if each["destination"] == "/proc"]
    box.linux["maskedPaths"] = box.linux["readonlyPaths"] = []
    (box.rootfs / "etc/mark").write_text("here")
    box.detach("sh", "-c", "cat /etc/mark; sleep 1000")
    assert os.readlink(f"/proc/{box.pid}/ns/mnt") == os.readlink(other["mount"])
    assert box.output() == "here"


@shows("config: linux.namespaces[].path", f"{TYPE}user")
def test_joined_user_namespace(box: Box) -> None:
    """Its mappings are there already; config.json names none."""
    process = subprocess.Popen(["unshare", "--user", "sleep", "1000"])
    try:
        _wait_for_namespace(process.pid)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text("0 100000 65536")
        box.map_ids()
        del box.linux["uidMappings"], box.linux["gidMappings"]
        box.namespace("user", f"/proc/{process.pid}/ns/user")
        if box.runtime.name == "runc":  # before 1.2 it has to be told what is there
            box.linux["uidMappings"] = box.linux["gidMappings"] = [
                {"containerID": 0, "hostID": 100000, "size": 65536}
            ]
        box.detach()
        assert os.readlink(f"/proc/{box.pid}/ns/user") == os.readlink(f"/proc/{process.pid}/ns/user")
        assert Path(f"/proc/{box.pid}").stat().st_uid == 100000
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("verb", ["run", "create"])
@pytest.mark.parametrize("kinds", [("pid", "user"), ("pid", "user", "network", "ipc", "uts")])
def test_joined_as_in_a_pod_of_its_own_user_namespace(box: Box, verb: str, kinds: tuple[str, ...]) -> None:
    """Kubernetes' hostUsers: false, podman's --userns container:. The sandbox is a container of the same runtime."""
    sandbox = Box(box.runtime, box.directory / "sandbox", box.rootfs, f"{box.id}-sandbox")
    try:
        sandbox.map_ids()
        sandbox.detach()
        if "user" in kinds:
            box.map_ids()
            if box.runtime.name != "runc":
                del box.linux["uidMappings"], box.linux["gidMappings"]
        for kind in kinds:
            box.namespace(kind, f"/proc/{sandbox.pid}/ns/{FILES[kind]}")
        if "uts" in kinds:
            del box.config["hostname"]
        command = ("sh", "-c", "id -u; tr -d '\\0' </proc/1/cmdline; sleep 1000")
        if verb == "run":
            box.detach(*command)
        else:
            box.create(*command)
            box.start()
        assert box.output(lambda text: "sleep1000" in text).split() == ["0", "sleep1000"]
        for kind in kinds:
            name = FILES[kind]
            assert os.readlink(f"/proc/{box.pid}/ns/{name}") == os.readlink(f"/proc/{sandbox.pid}/ns/{name}")
        assert Path(f"/proc/{box.pid}").stat().st_uid == 100000
        assert box.exec("id", "-u") == "0"
        box.ok("delete", "--force", box.id)
    finally:
        sandbox.close()


@shows(
    "config: linux.namespaces[].path",
    "namespaces: a user namespace of its own in a pid namespace of the host's",
)
def test_new_user_namespace_in_a_pid_namespace_that_is_joined(box: Box, other: dict[str, str]) -> None:
    box.known_to_differ("runc", "needs a /proc of its own")
    box.map_ids()
    box.namespace("pid", other["pid"])
    box.config["mounts"] = [each for each in box.config["mounts"] if each["type"] != "proc"]
    box.linux["maskedPaths"] = box.linux["readonlyPaths"] = []
    box.detach()
    assert os.readlink(f"/proc/{box.pid}/ns/pid") == os.readlink(other["pid"])
    assert Path(f"/proc/{box.pid}").stat().st_uid == 100000
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "exit 0"]}
    box.ok("delete", "--force", box.id)
    if box.runtime.name == "pyrun-oci":
        box.config["hooks"] = {"createContainer": [hook]}
        assert "seen in the pid namespace" in box.refuses("true")


def _wait_for_namespace(pid: int) -> None:
    until(lambda: os.readlink(f"/proc/{pid}/ns/user") != _own("user"), "unshare")


@shows("config: linux.namespaces[].path", "errors: the path is of another kind")
@pytest.mark.parametrize("path", ["/proc/self/ns/uts", "/dev/null", "absent", "/proc/self/ns/absent"])
def test_bad_path(box: Box, path: str) -> None:
    if path == "/proc/self/ns/uts":
        box.known_to_differ("runc", "setns() tells it apart from 1.2 on only")
    box.namespace("network", path)
    box.refuses("true")


@shows("config: linux.namespaces[].type", "errors: duplicate namespaces", differs={"crun": "only since 1.18"})
def test_duplicates(box: Box) -> None:
    box.linux["namespaces"].append({"type": "ipc"})
    box.refuses("true")


@shows("config: linux.namespaces[].type", "errors: unknown namespace")
def test_unknown(box: Box) -> None:
    box.linux["namespaces"].append({"type": "weather"})
    box.refuses("true")


# ── user namespaces ────────────────────────────────────────────────────────────────────────────────


@shows(*(f"config: linux.{kind}[].{name}" for kind in ("uidMappings", "gidMappings")
         for name in ("containerID", "hostID", "size")))  # fmt: skip
def test_mappings(box: Box) -> None:
    box.map_ids()
    box.linux["gidMappings"] = [
        {"containerID": 0, "hostID": 100000, "size": 10},
        {"containerID": 10, "hostID": 300000, "size": 100},
    ]
    out = box.sh("cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /data/f")
    assert out.split() == "0 100000 65536 0 100000 10 10 300000 100 0".split()
    assert (box.rootfs / "data/f").stat().st_uid == 100000


@shows("config: linux.uidMappings[].containerID", "namespaces: the whole container with a user namespace")
def test_user_namespace(box: Box) -> None:
    """Devices, masks, a user other than root, additional groups, exec."""
    box.map_ids()
    box.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [7]}
    box.detach("sh", "-c", "echo x >/dev/null; id -G; test -e /proc/kcore; sleep 1000")
    assert box.output() == "6 7"
    assert Path(f"/proc/{box.pid}").stat().st_uid == 100005
    assert box.exec("id", "-u", options=("--user", "5")) == "5"
    assert os.readlink(f"/proc/{box.pid}/ns/user") != _own("user")


@shows("exec", "exec: into every kind of namespace at once")
@pytest.mark.parametrize("user", [True, False], ids=["user namespace", "none"])
def test_exec_with_every_namespace(box: Box, user: bool) -> None:
    if user:
        box.map_ids()
    kinds = [*FILES, "time"] if box.runtime.name == "pyrun-oci" else [*FILES]
    kinds.remove("user")
    for kind in kinds:
        box.namespace(kind)
    box.detach()
    names = " ".join(FILES.get(kind, kind) for kind in [*kinds, "user"])
    inside = box.exec("sh", "-c", f"cd /proc/self/ns; for n in {names}; do readlink $n; done").split()
    assert inside == [os.readlink(f"/proc/{box.pid}/ns/{name}") for name in names.split()]


@shows("config: linux.uidMappings[].size", "errors: a user namespace without mappings")
def test_no_mappings(box: Box) -> None:
    box.known_to_differ("crun", "makes up mappings")
    box.namespace("user")
    box.refuses("true")


@shows("config: linux.uidMappings[].size", "errors: mappings without a user namespace",
       differs={"crun": "ignores them", "runc": "ignores them"})  # fmt: skip
def test_mappings_without_namespace(box: Box) -> None:
    box.linux["uidMappings"] = box.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 10}]
    box.refuses("true")


# ── time ───────────────────────────────────────────────────────────────────────────────────────────


@shows("config: linux.timeOffsets.monotonic.secs", "config: linux.timeOffsets.monotonic.nanosecs",
       "config: linux.timeOffsets.boottime.secs", "config: linux.timeOffsets.boottime.nanosecs", **TIME)  # fmt: skip
def test_time_offsets(box: Box) -> None:
    box.namespace("time")
    box.linux["timeOffsets"] = {
        "monotonic": {"secs": 7881, "nanosecs": 2718281},
        "boottime": {"secs": 1337, "nanosecs": 3},
    }
    out = box.run("cat", "/proc/self/timens_offsets").split()
    assert out == ["monotonic", "7881", "2718281", "boottime", "1337", "3"]
    box.linux["timeOffsets"] = {"boottime": {"secs": 1_000_000}}
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 1_000_000 <= float(box.run("cat", "/proc/uptime").split()[0]) - uptime < 1_000_100


@shows("config: linux.timeOffsets.monotonic.secs", "errors: offsets without a time namespace", **TIME)
def test_time_offsets_without_namespace(box: Box) -> None:
    box.linux["timeOffsets"] = {"monotonic": {"secs": 1}}
    box.refuses("true")


@shows("config: linux.timeOffsets.monotonic.secs", "errors: unknown clock", **TIME)
def test_unknown_clock(box: Box) -> None:
    box.namespace("time")
    box.linux["timeOffsets"] = {"realtime": {"secs": 1}}
    box.refuses("true")


# ── sysctl ─────────────────────────────────────────────────────────────────────────────────────────


@shows("config: linux.sysctl{}")
@pytest.mark.parametrize(("name", "value"), [("net.ipv4.ip_forward", "1"), ("net/core/somaxconn", "333"),
                                             ("kernel.shmmax", "99999"), ("fs.mqueue.msg_max", "77")])  # fmt: skip
def test_sysctl(box: Box, name: str, value: str) -> None:
    """Those of namespaces; dots or slashes."""
    if "/" in name:
        box.known_to_differ("crun", "dots only")
    path = Path("/proc/sys", name.replace(".", "/"))
    before = path.read_text()
    box.linux["sysctl"] = {name: value}
    assert box.run("cat", str(path)) == value
    assert path.read_text() == before


@shows("config: linux.sysctl{}", "errors: a sysctl of the host")
@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("kernel.panic", ""),
        ("vm.swappiness", ""),
        ("net.ipv4.ip_forward", "network"),
        ("kernel.shmmax", "ipc"),
        ("kernel.hostname", "uts"),
    ],
)
def test_sysctl_of_the_host(box: Box, name: str, without: str) -> None:
    if name == "kernel.hostname":
        box.known_to_differ("crun", "not checked")
    path = Path("/proc/sys", name.replace(".", "/"))
    before = path.read_text()
    if without:
        box.without_namespace(without)
        box.config.pop("hostname")
    box.linux["sysctl"] = {name: "1"}
    box.refuses("true")
    assert path.read_text() == before


# ── network devices ────────────────────────────────────────────────────────────────────────────────

NET: dict[str, Any] = {"since": {"runc": "1.4", "crun": "1.23"}}


@pytest.fixture
def veth() -> Iterator[str]:
    """A veth end of the host with an address, a mtu and a hardware address."""
    name = "conf0"
    subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)
    subprocess.run(["ip", "link", "add", name, "mtu", "1400", "address", "02:00:00:00:00:77", "type", "veth",
                    "peer", "name", "conf1"], check=True)  # fmt: skip
    subprocess.run(["ip", "addr", "add", "10.77.0.2/24", "dev", name], check=True)
    yield name
    subprocess.run(["ip", "link", "del", "conf1"], capture_output=True, check=False)


@shows("config: linux.netDevices{}.name", **NET)
@pytest.mark.parametrize(("inside", "expected"), [(None, "conf0"), ("eth7", "eth7"), ("eth%d", "eth0")])
def test_net_device(box: Box, veth: str, inside: str | None, expected: str) -> None:
    """Moved, renamed on wish, up, with its addresses; gone from the host."""
    box.linux["netDevices"] = {veth: {"name": inside} if inside else {}}
    out = box.run("ip", "addr", "show", "dev", expected)
    assert "10.77.0.2/24" in out
    assert "mtu 1400" in out and "02:00:00:00:00:77" in out
    assert "UP" in out.split("<")[1].split(">")[0].split(",")


@shows("config: linux.netDevices{}.name", "errors: network devices", **NET)
@pytest.mark.parametrize("case", ["absent", "taken", "no namespace"])
def test_bad_net_device(box: Box, veth: str, case: str) -> None:
    box.linux["netDevices"] = {
        "absent0" if case == "absent" else veth: {"name": "lo"} if case == "taken" else {}
    }
    if case == "no namespace":
        box.without_namespace("network")
    box.refuses("true")
    assert Path("/sys/class/net", veth).exists()


# ── personality, memory policy, Resource Director Technology ───────────────────────────────────────


@shows("config: linux.personality.domain", since={"runc": "1.2"})
@pytest.mark.parametrize(("domain", "machine"), [
    pytest.param("LINUX", os.uname().machine, marks=shows("config: linux.personality.domain=LINUX")),
    pytest.param("LINUX32", "i686", marks=shows("config: linux.personality.domain=LINUX32")),
])  # fmt: skip
def test_personality(box: Box, domain: str, machine: str) -> None:
    box.linux["personality"] = {"domain": domain}
    assert box.run("uname", "-m") == machine
    box.detach()
    assert box.exec("uname", "-m") == machine


@shows("config: linux.personality.flags[]", since={"runc": "1.2", "crun": None})
def test_personality_flags(box: Box) -> None:
    """No flag is defined: any one is an error."""
    box.linux["personality"] = {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}
    box.refuses("true")


POLICY: dict[str, Any] = {"since": {"runc": "1.4", "crun": "1.25"}}
# mode -> (nodes, what numa_maps calls it)
MODES = {
    "MPOL_DEFAULT": ("", "default"),
    "MPOL_BIND": ("0", "bind:0"),
    "MPOL_INTERLEAVE": ("0", "interleave:0"),
    "MPOL_WEIGHTED_INTERLEAVE": ("0", "weighted interleave:0"),
    "MPOL_PREFERRED": ("0", "prefer:0"),
    "MPOL_PREFERRED_MANY": ("0", "prefer (many):0"),
    "MPOL_LOCAL": ("", "local"),
}


@shows("config: linux.memoryPolicy.mode", "config: linux.memoryPolicy.nodes", **POLICY)
@pytest.mark.parametrize("mode", rows("config: linux.memoryPolicy.mode=", *MODES, **POLICY))
def test_memory_policy(box: Box, mode: str) -> None:
    nodes, text = MODES[mode]
    box.linux["memoryPolicy"] = {"mode": mode} | ({"nodes": nodes} if nodes else {})
    assert text in box.run("cat", "/proc/self/numa_maps")


@shows("config: linux.memoryPolicy.flags[]", **POLICY)
@pytest.mark.parametrize(
    ("flag", "text"),
    [
        pytest.param(
            "MPOL_F_STATIC_NODES",
            "=static",
            marks=shows("config: linux.memoryPolicy.flags[]=MPOL_F_STATIC_NODES"),
        ),
        pytest.param(
            "MPOL_F_RELATIVE_NODES",
            "=relative",
            marks=shows("config: linux.memoryPolicy.flags[]=MPOL_F_RELATIVE_NODES"),
        ),
        pytest.param(
            "MPOL_F_NUMA_BALANCING",
            "bind",
            marks=shows("config: linux.memoryPolicy.flags[]=MPOL_F_NUMA_BALANCING"),
        ),
    ],
)
def test_memory_policy_flags(box: Box, flag: str, text: str) -> None:
    box.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}
    assert text in box.run("cat", "/proc/self/numa_maps")


@shows("config: linux.memoryPolicy.mode", "errors: memory policy", **POLICY)
@pytest.mark.parametrize(
    "policy",
    [
        {"mode": "MPOL_NOPE"},
        {"mode": "MPOL_BIND"},
        {"mode": "MPOL_BIND", "nodes": "x"},
        {"mode": "MPOL_BIND", "nodes": "0", "flags": ["X"]},
        {"nodes": "0"},
    ],
    ids=str,
)
def test_bad_memory_policy(box: Box, policy: dict[str, object]) -> None:
    box.linux["memoryPolicy"] = policy
    box.refuses("true")


RDT = {"closID": "conformance", "schemata": ["MB:0=50"], "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=50",
       "enableMonitoring": True}  # fmt: skip


@shows("config: linux.intelRdt.closID", "config: linux.intelRdt.schemata[]", "config: linux.intelRdt.l3CacheSchema",
       "config: linux.intelRdt.memBwSchema", "config: linux.intelRdt.enableMonitoring", since=NEITHER)  # fmt: skip
@pytest.mark.needs("resctrl")
@pytest.mark.parametrize("field", RDT)
def test_intel_rdt(box: Box, field: str) -> None:
    box.linux["intelRdt"] = {"closID": "conformance", field: RDT[field]}
    box.detach()
    group = Path("/sys/fs/resctrl/conformance")
    assert str(box.pid) in (group / "tasks").read_text().split()
    box.ok("delete", "-f", box.id)
    assert not group.exists()


@shows("config: linux.intelRdt.closID", "config: linux.intelRdt.schemata[]", "config: linux.intelRdt.l3CacheSchema",
       "config: linux.intelRdt.memBwSchema", "config: linux.intelRdt.enableMonitoring",
       "errors: no Resource Director Technology", since={"crun": "1.10"}, absent=True)  # fmt: skip
@pytest.mark.parametrize("field", RDT)
@pytest.mark.needs("no_resctrl")
def test_no_intel_rdt(box: Box, field: str) -> None:
    """The processor or kernel without it: asked for, it is an error."""
    if field in ("schemata", "enableMonitoring", "closID"):
        box.known_to_differ("runc", "before 1.4 no check, or no such field")
    box.linux["intelRdt"] = {field: RDT[field]}
    box.refuses("true")
