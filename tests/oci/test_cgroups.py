"""config.json: `linux.cgroupsPath` and `linux.resources`, read back from the cgroup's files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oci.box import CGROUP_PARENT, Box
from oci.marks import NEITHER, shows

V1 = pytest.mark.needs("cgroup1")
V2 = pytest.mark.needs("cgroup2")
MB = 1 << 20
BURST = {"quota": 50000, "period": 100000, "burst": 10000}
FIELD = "config: linux.resources."
UNIFIED = Path("/sys/fs/cgroup")


def _disk() -> tuple[int, int]:
    """A whole block device, as blkio rules want it."""
    for path in sorted(Path("/sys/block").iterdir()):
        if not path.name.startswith(("loop", "ram", "zram")):
            major, minor = (path / "dev").read_text().strip().split(":")
            return int(major), int(minor)
    return 7, 0


MAJOR, MINOR = _disk()
DISK = f"{MAJOR}:{MINOR}"


def _set(box: Box, path: str, value: object) -> None:
    """resources.a.b = value."""
    *parents, last = path.split(".")
    place = box.resources
    for each in parents:
        place = place.setdefault(each, {})
    place[last] = value


def _applied(box: Box, controller: str, name: str, **resources: object) -> str:
    """What a file of the cgroup says once a container with these resources is created."""
    box.resources.update(resources)
    box.create("true")
    return box.limit(controller, name)


# ── the path ───────────────────────────────────────────────────────────────────────────────────────


@shows("config: linux.cgroupsPath")
def test_absolute_path(box: Box) -> None:
    """Relative to the mount point of every hierarchy; made when it is not there, removed by delete."""
    box.create("true")
    directory = box.cgroup("memory")
    assert str(box.pid) in (directory / "cgroup.procs").read_text().split()
    box.ok("delete", "--force", box.id)
    assert not directory.exists()


@shows("config: linux.cgroupsPath", "cgroups: without a path")
def test_no_path(box: Box) -> None:
    """The runtime's choice: some cgroup of the container's own, named after it."""
    del box.linux["cgroupsPath"]
    box.resources["pids"] = {"limit": 42}
    box.create("true")
    (found,) = {
        p for p in UNIFIED.rglob("pids.max") if p.parent.name.endswith(box.id) and "unified" not in str(p)
    }
    assert found.read_text().strip() == "42"
    box.ok("delete", "--force", box.id)
    assert not found.parent.exists()


@shows("config: linux.cgroupsPath", "cgroups: a relative path")
def test_relative_path(box: Box) -> None:
    """The same place for the same value; it is somewhere below the root of the hierarchies."""
    box.linux["cgroupsPath"] = f"{CGROUP_PARENT}/{box.id}"
    box.create("true")
    memory = next(line for line in Path(f"/proc/{box.pid}/cgroup").read_text().splitlines())
    assert memory.endswith(f"{CGROUP_PARENT}/{box.id}")


@shows("config: linux.cgroupsPath", "cgroups: a path that leads out", differs={"crun": "goes there"})
def test_path_stays_below(box: Box) -> None:
    """`..` is resolved as if the mount point were /."""
    box.linux["cgroupsPath"] = f"/../../{CGROUP_PARENT}/{box.id}"
    box.write("true")
    done = box.call("create", box.id)
    assert done.status != 0 or box.cgroup("memory").is_dir()
    assert not Path("/sys/fs", CGROUP_PARENT).exists()


@shows("config: linux.cgroupsPath", "cgroups: two containers in one cgroup", differs={"crun": "1.8 lets it"})
@pytest.mark.parametrize("frozen", [False, True])
def test_occupied(box: Box, frozen: bool) -> None:
    """A cgroup that is not empty MAY be refused, a frozen one too: both would be shared with strangers."""
    if frozen:
        box.known_to_differ("crun", "waits without end")
    else:
        box.known_to_differ("runc", "1.1 warns only")
    directories = [box.cgroup(name) for name in ("freezer", "pids", "memory", "cpu", "devices")]
    process = subprocess.Popen(["sleep", "1000"])
    try:
        for each in dict.fromkeys(directories):
            each.mkdir(parents=True, exist_ok=True)
            if not frozen:
                (each / "cgroup.procs").write_text(str(process.pid))
        if frozen:
            state = directories[0] / "freezer.state"
            state.write_text("FROZEN") if state.exists() else (directories[0] / "cgroup.freeze").write_text(
                "1"
            )
        box.write("true")
        box.fails("create", box.id)
    finally:
        process.kill()
        process.wait()
        for each in dict.fromkeys(directories):
            if each.exists():
                if (each / "freezer.state").exists():
                    (each / "freezer.state").write_text("THAWED")
                subprocess.run(["rmdir", str(each)], check=False)


@shows("cgroups: every process of the container is in it")
def test_children_are_in_it(box: Box) -> None:
    box.detach("sh", "-c", "sleep 992 & sleep 991 & wait")
    box.exec("sh", "-c", "sleep 990 >/dev/null 2>&1 &")
    assert len((box.cgroup("pids") / "cgroup.procs").read_text().split()) == 4


# ── v1 ─────────────────────────────────────────────────────────────────────────────────────────────

# path below resources, value, controller, file, content
LIMITS_V1: list[tuple[str, object, str, str, str]] = [
    ("memory.limit", 64 * MB, "memory", "memory.limit_in_bytes", str(64 * MB)),
    ("memory.reservation", 32 * MB, "memory", "memory.soft_limit_in_bytes", str(32 * MB)),
    ("memory.swappiness", 33, "memory", "memory.swappiness", "33"),
    ("memory.disableOOMKiller", True, "memory", "memory.oom_control", "oom_kill_disable 1"),
    ("memory.useHierarchy", True, "memory", "memory.use_hierarchy", "1"),
    ("cpu.shares", 333, "cpu", "cpu.shares", "333"),
    ("cpu.quota", 50000, "cpu", "cpu.cfs_quota_us", "50000"),
    ("cpu.period", 50000, "cpu", "cpu.cfs_period_us", "50000"),
    ("cpu.cpus", "0", "cpuset", "cpuset.cpus", "0"),
    ("cpu.mems", "0", "cpuset", "cpuset.mems", "0"),
    ("pids.limit", 55, "pids", "pids.max", "55"),
    ("pids.limit", -1, "pids", "pids.max", "max"),
    ("blockIO.weight", 400, "blkio", "blkio.bfq.weight", "400"),
]


@V1
@pytest.mark.parametrize(("path", "value", "controller", "name", "content"), [
    pytest.param(*row, marks=shows(FIELD + row[0]), id=f"{row[0]}={row[1]}") for row in LIMITS_V1
])  # fmt: skip
def test_limits_v1(box: Box, path: str, value: object, controller: str, name: str, content: str) -> None:
    if path in ("blockIO.weight",):
        box.known_to_differ("crun", "before 1.8.2 it writes blkio.weight only")
    if value == -1 and path == "pids.limit":
        box.known_to_differ("crun", "before 1.13 it writes -1")
    _set(box, path, value)
    box.create("true")
    assert content in box.limit(controller, name)


@V1
@shows(f"{FIELD}memory.swap")
def test_memory_swap_v1(box: Box) -> None:
    both = {"limit": 64 * MB, "swap": 96 * MB}
    assert _applied(box, "memory", "memory.memsw.limit_in_bytes", memory=both) == str(96 * MB)


@V1
@shows(f"{FIELD}memory.limit", f"{FIELD}memory.swap")
def test_memory_without_a_limit_v1(box: Box) -> None:
    assert int(_applied(box, "memory", "memory.limit_in_bytes", memory={"limit": -1, "swap": -1})) > 1 << 50


@V1
@shows(f"{FIELD}memory.kernel", f"{FIELD}memory.kernelTCP")
@pytest.mark.parametrize("field", ["kernel", "kernelTCP"])
def test_kernel_memory_is_accepted_v1(box: Box, field: str) -> None:
    """NOT RECOMMENDED, and the kernel takes the first no more: no error; the second may have its effect."""
    if field == "kernel":
        box.known_to_differ("crun", "writes the file, which the kernel refuses")
    box.resources["memory"] = {field: 64 * MB}
    box.create("true")


@shows(f"{FIELD}memory.checkBeforeUpdate")
def test_check_before_update(box: Box) -> None:
    """A limit below what is used now is refused, by the kernel (v1) or by the runtime (v2)."""
    box.resources["memory"] = {"limit": 64 * MB, "checkBeforeUpdate": True}
    box.mount("/mnt", "tmpfs", "tmpfs")
    box.detach("sh", "-c", "head -c 20m /dev/zero >/mnt/f; echo ready; sleep 1000")
    box.output()
    box.fails("update", "--memory", str(4 * MB), box.id)
    assert box.status == "running"


@V1
@shows(f"{FIELD}cpu.burst", since={"runc": "1.2", "crun": "1.11"})
def test_cpu_burst_v1(box: Box) -> None:
    assert _applied(box, "cpu", "cpu.cfs_burst_us", cpu=BURST) == "10000"


@V1
@shows(f"{FIELD}cpu.idle", since={"runc": "1.2"})
def test_cpu_idle_v1(box: Box) -> None:
    box.known_to_differ("crun", "with cgroup v2 only")
    assert _applied(box, "cpu", "cpu.idle", cpu={"idle": 1}) == "1"


@V1
@shows(f"{FIELD}cpu.realtimePeriod", f"{FIELD}cpu.realtimeRuntime")
def test_cpu_realtime_v1(box: Box) -> None:
    """The parents' budget is 0 here, so 0 is all that the kernel grants."""
    realtime = {"realtimePeriod": 500000, "realtimeRuntime": 0}
    assert _applied(box, "cpu", "cpu.rt_period_us", cpu=realtime) == "500000"


THROTTLES = {
    "throttleReadBpsDevice": ("blkio.throttle.read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("blkio.throttle.write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("blkio.throttle.read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("blkio.throttle.write_iops_device", "wiops"),
}


def _throttle_rows() -> list[Any]:
    return [
        pytest.param(
            field,
            id=field,
            marks=shows(*(f"{FIELD}blockIO.{field}[].{name}" for name in ("major", "minor", "rate"))),
        )
        for field in THROTTLES
    ]


def _throttle(field: str) -> dict[str, object]:
    return {field: [{"major": MAJOR, "minor": MINOR, "rate": 123456}]}


@V1
@pytest.mark.parametrize("field", _throttle_rows())
def test_throttle_v1(box: Box, field: str) -> None:
    assert _applied(box, "blkio", THROTTLES[field][0], blockIO=_throttle(field)) == f"{DISK} 123456"


WEIGHT_DEVICE = f"{FIELD}blockIO.weightDevice[]."


@shows(f"{WEIGHT_DEVICE}major", f"{WEIGHT_DEVICE}minor", f"{WEIGHT_DEVICE}weight", f"{WEIGHT_DEVICE}leafWeight",
       f"{FIELD}blockIO.leafWeight", since=NEITHER)  # fmt: skip
@pytest.mark.parametrize(
    "block",
    [
        {"weightDevice": [{"major": MAJOR, "minor": MINOR, "weight": 200}]},
        {"leafWeight": 200},
        {"weightDevice": [{"major": MAJOR, "minor": MINOR, "leafWeight": 200}]},
    ],
    ids=str,
)
def test_weights_that_need_a_scheduler(box: Box, block: dict[str, object]) -> None:
    """The kernel takes weights of devices only under the bfq scheduler, and leaf weights (of CFQ) never again:
    applied, or an error that names the field; not silence."""
    box.resources["blockIO"] = block
    box.write("true")
    done = box.call("create", box.id)
    if done.status == 0:
        files = list(box.cgroup("blkio").glob("*weight_device")) + list(
            box.cgroup("blkio").glob("io.bfq.weight")
        )
        assert any(DISK in path.read_text() for path in files)
    else:
        assert "eight" in done.err


@pytest.mark.needs("net_cls")
@shows(
    f"{FIELD}network.classID", f"{FIELD}network.priorities[].name", f"{FIELD}network.priorities[].priority"
)
def test_network_v1(box: Box) -> None:
    network = {"classID": 0x100001, "priorities": [{"name": "lo", "priority": 5}]}
    assert _applied(box, "net_cls", "net_cls.classid", network=network) == str(0x100001)
    assert "lo 5" in box.limit("net_prio", "net_prio.ifpriomap").splitlines()
    box.ok("delete", "--force", box.id)


@pytest.mark.needs("hugetlb1")
@shows(f"{FIELD}hugepageLimits[].pageSize", f"{FIELD}hugepageLimits[].limit")
def test_huge_pages_v1(box: Box) -> None:
    """The limit of reservations where the kernel has it, else (or too) that of use."""
    box.resources["hugepageLimits"] = [{"pageSize": "2MB", "limit": 4 * MB}]
    box.create("true")
    found = [box.limit("hugetlb", f"hugetlb.2MB.{name}limit_in_bytes") for name in ("", "rsvd.")]
    assert str(4 * MB) in found
    assert found[1] == str(4 * MB) or box.runtime.name != "pyrun-oci"
    box.ok("delete", "--force", box.id)


@V1
@shows(
    f"{FIELD}hugepageLimits[].pageSize",
    f"{FIELD}hugepageLimits[].limit",
    "errors: a controller that is not there",
)
def test_no_huge_pages_v1(box: Box) -> None:
    """runc and crun need the hierarchy to be mounted."""
    if (UNIFIED / "hugetlb").exists():
        pytest.skip("this machine lacks the lack of hugetlb")
    box.resources["hugepageLimits"] = [{"pageSize": "2MB", "limit": 4 * MB}]
    box.refuses("true")


@V1
@shows(f"{FIELD}network.classID", "errors: a controller that is not there")
def test_no_network_v1(box: Box) -> None:
    if (UNIFIED / "net_cls").exists():
        pytest.skip("this machine lacks the lack of net_cls")
    box.resources["network"] = {"classID": 5}
    box.refuses("true")


@V1
@shows(f"{FIELD}unified{{}}", "errors: unified with cgroup v1", differs={"crun": "ignores it"})
def test_unified_v1(box: Box) -> None:
    box.resources["unified"] = {"memory.high": "1000000"}
    box.refuses("true")


# ── v2 ─────────────────────────────────────────────────────────────────────────────────────────────

LIMITS_V2: list[tuple[str, object, str, str]] = [
    ("memory.limit", 64 * MB, "memory.max", str(64 * MB)),
    ("memory.reservation", 32 * MB, "memory.low", str(32 * MB)),
    ("cpu.quota", 50000, "cpu.max", "50000 100000"),
    ("cpu.cpus", "0", "cpuset.cpus", "0"),
    ("cpu.mems", "0", "cpuset.mems", "0"),
    ("pids.limit", 55, "pids.max", "55"),
    ("pids.limit", -1, "pids.max", "max"),
    ("unified", {"memory.high": "50000000", "pids.max": "44"}, "memory.high", "49999872"),
]


@V2
@pytest.mark.parametrize(("path", "value", "name", "content"), [
    pytest.param(*row, marks=shows(FIELD + row[0] + ("{}" if row[0] == "unified" else "")), id=f"{row[0]}={row[1]}")
    for row in LIMITS_V2
])  # fmt: skip
def test_limits_v2(box: Box, path: str, value: object, name: str, content: str) -> None:
    _set(box, path, value)
    box.create("true")
    assert box.limit("", name) == content


@V2
@shows(f"{FIELD}memory.swap")
@pytest.mark.parametrize(("swap", "content"), [(96 * MB, str(32 * MB)), (64 * MB, "0"), (-1, "max")])
def test_memory_swap_v2(box: Box, swap: int, content: str) -> None:
    """memory+swap of v1 less the memory."""
    assert _applied(box, "", "memory.swap.max", memory={"limit": 64 * MB, "swap": swap}) == content


@V2
@shows(f"{FIELD}cpu.shares")
@pytest.mark.parametrize(("shares", "weights"), [(2, {"1"}), (1024, {"39", "100"}), (262144, {"10000"})])
def test_cpu_shares_v2(box: Box, shares: int, weights: set[str]) -> None:
    assert _applied(box, "", "cpu.weight", cpu={"shares": shares}) in weights


@V2
@shows(f"{FIELD}cpu.period", f"{FIELD}cpu.quota")
def test_cpu_period_v2(box: Box) -> None:
    assert _applied(box, "", "cpu.max", cpu={"quota": 30000, "period": 60000}) == "30000 60000"


@V2
@shows(f"{FIELD}cpu.burst", since={"runc": "1.2", "crun": "1.11"})
def test_cpu_burst_v2(box: Box) -> None:
    assert _applied(box, "", "cpu.max.burst", cpu=BURST) == "10000"


@V2
@shows(f"{FIELD}cpu.idle", since={"runc": "1.2"})
def test_cpu_idle_v2(box: Box) -> None:
    assert _applied(box, "", "cpu.idle", cpu={"idle": 1}) == "1"


@V2
@pytest.mark.parametrize("field", _throttle_rows())
def test_throttle_v2(box: Box, field: str) -> None:
    (line,) = _applied(box, "", "io.max", blockIO=_throttle(field)).splitlines()
    assert line.startswith(f"{DISK} ") and f"{THROTTLES[field][1]}=123456" in line


@V2
@pytest.mark.needs("hugepages")
@shows(f"{FIELD}hugepageLimits[].pageSize", f"{FIELD}hugepageLimits[].limit")
def test_huge_pages_v2(box: Box) -> None:
    box.resources["hugepageLimits"] = [{"pageSize": "2MB", "limit": 4 * MB}]
    box.create("true")
    assert str(4 * MB) in (box.limit("", "hugetlb.2MB.max"), box.limit("", "hugetlb.2MB.rsvd.max"))


@V2
@shows(f"{FIELD}unified{{}}", "errors: unified with a file that is not there")
def test_bad_unified_v2(box: Box) -> None:
    box.resources["unified"] = {"memory.nosuchfile": "1"}
    box.refuses("true")


@V2
@shows("cgroups: delegation to the user of the container", since={"runc": "1.1", "crun": None})
def test_delegation_v2(box: Box) -> None:
    """With a cgroup namespace and a writable mount the cgroup belongs to the container's root, and only the files
    of /sys/kernel/cgroup/delegate in it."""
    box.map_ids()
    box.namespace("cgroup")
    box.mount("/sys/fs/cgroup", "cgroup2", "cgroup", "rw", "nosuid", "noexec", "nodev")
    box.detach()
    directory = box.cgroup("")
    assert directory.stat().st_uid == 100000
    assert (directory / "cgroup.procs").stat().st_uid == 100000
    assert (directory / "memory.max").stat().st_uid == 0
    box.exec("mkdir", "/sys/fs/cgroup/sub")
    assert os.path.isdir(directory / "sub")


@shows(f"{FIELD}rdma{{}}.hcaHandles", f"{FIELD}rdma{{}}.hcaObjects")
@pytest.mark.needs("rdma")
def test_rdma(box: Box) -> None:
    device = next(Path("/sys/class/infiniband").iterdir()).name
    box.resources["rdma"] = {device: {"hcaHandles": 3, "hcaObjects": 100}}
    box.create("true")
    assert f"{device} hca_handle=3 hca_object=100" in box.limit("rdma", "rdma.max")


@shows(f"{FIELD}rdma{{}}.hcaHandles", f"{FIELD}rdma{{}}.hcaObjects", "errors: no rdma controller",
       differs={"runc": "ignores it", "crun": "ignores it"})  # fmt: skip
def test_no_rdma(box: Box) -> None:
    from capabilities import missing

    if not missing("rdma"):
        pytest.skip("this machine lacks the lack of RDMA")
    box.resources["rdma"] = {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 100}}
    box.refuses("true")
