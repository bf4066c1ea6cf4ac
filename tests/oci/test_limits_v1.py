"""config.json: `linux.resources` on cgroup v1, read back from the cgroup's files."""

from __future__ import annotations

import pytest

from oci.box import Box
from oci.limits import (
    BURST,
    DISK,
    FIELD,
    MAJOR,
    MB,
    MINOR,
    THROTTLES,
    V1,
    applied,
    needed,
    put,
    throttle,
    throttle_rows,
)
from oci.marks import NEITHER, shows

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
    pytest.param(*row, marks=[shows(FIELD + row[0]), *needed(row[3])], id=f"{row[0]}={row[1]}")
    for row in LIMITS_V1
])  # fmt: skip
def test_limits_v1(box: Box, path: str, value: object, controller: str, name: str, content: str) -> None:
    if path in ("blockIO.weight",):
        box.known_to_differ("crun", "before 1.8.2 it writes blkio.weight only")
    if value == -1 and path == "pids.limit":
        box.known_to_differ("crun", "before 1.13 it writes -1")
    put(box, path, value)
    box.create("true")
    assert content in box.limit(controller, name)


@V1
@pytest.mark.needs("no_bfq")
@shows(f"{FIELD}blockIO.weight", "errors: a weight without BFQ", absent=True)
def test_weight_without_bfq_v1(box: Box) -> None:
    box.known_to_differ("crun", "before 1.8.2 it writes blkio.weight only")
    put(box, "blockIO.weight", 400)
    error = box.refuses("true")
    assert not list(box.cgroup("blkio").parent.glob(box.id))
    if box.runtime.name == "pyrun-oci":
        assert len(error.splitlines()) == 1
        assert (
            "config.json: linux.resources.blockIO.weight: cannot set '400': this kernel's blkio controller has no file "
            f"blkio.bfq.weight ({box.cgroup('blkio')}): it lacks CONFIG_IOSCHED_BFQ" in error
        )


@V1
@shows(f"{FIELD}memory.swap")
def test_memory_swap_v1(box: Box) -> None:
    both = {"limit": 64 * MB, "swap": 96 * MB}
    assert applied(box, "memory", "memory.memsw.limit_in_bytes", memory=both) == str(96 * MB)


@V1
@shows(f"{FIELD}memory.limit", f"{FIELD}memory.swap")
def test_memory_without_a_limit_v1(box: Box) -> None:
    assert int(applied(box, "memory", "memory.limit_in_bytes", memory={"limit": -1, "swap": -1})) > 1 << 50


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
    assert applied(box, "cpu", "cpu.cfs_burst_us", cpu=BURST) == "10000"


@V1
@shows(f"{FIELD}cpu.idle", since={"runc": "1.2"})
def test_cpu_idle_v1(box: Box) -> None:
    box.known_to_differ("crun", "with cgroup v2 only")
    assert applied(box, "cpu", "cpu.idle", cpu={"idle": 1}) == "1"


@V1
@shows(f"{FIELD}cpu.realtimePeriod", f"{FIELD}cpu.realtimeRuntime")
def test_cpu_realtime_v1(box: Box) -> None:
    """The parents' budget is 0 here, so 0 is all that the kernel grants."""
    realtime = {"realtimePeriod": 500000, "realtimeRuntime": 0}
    assert applied(box, "cpu", "cpu.rt_period_us", cpu=realtime) == "500000"


@V1
@pytest.mark.parametrize("field", throttle_rows())
def test_throttle_v1(box: Box, field: str) -> None:
    assert applied(box, "blkio", THROTTLES[field][0], blockIO=throttle(field)) == f"{DISK} 123456"


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
    assert applied(box, "net_cls", "net_cls.classid", network=network) == str(0x100001)
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
    absent=True,
)
@pytest.mark.needs("no_hugetlb1")
def test_no_huge_pages_v1(box: Box) -> None:
    """runc and crun need the hierarchy to be mounted."""
    box.resources["hugepageLimits"] = [{"pageSize": "2MB", "limit": 4 * MB}]
    box.refuses("true")


@V1
@pytest.mark.needs("no_net_cls")
@pytest.mark.parametrize("network", [
    pytest.param({"classID": 5}, marks=shows(f"{FIELD}network.classID"), id="classID"),
    pytest.param({"priorities": [{"name": "lo", "priority": 5}]}, id="priorities",
                 marks=shows(f"{FIELD}network.priorities[].name", f"{FIELD}network.priorities[].priority")),
])  # fmt: skip
@shows("errors: a controller that is not there", absent=True)
def test_no_network_v1(box: Box, network: dict[str, object]) -> None:
    box.resources["network"] = network
    box.refuses("true")


@V1
@shows(f"{FIELD}unified{{}}", "errors: unified with cgroup v1", differs={"crun": "ignores it"}, absent=True)
def test_unified_v1(box: Box) -> None:
    box.resources["unified"] = {"memory.high": "1000000"}
    box.refuses("true")
