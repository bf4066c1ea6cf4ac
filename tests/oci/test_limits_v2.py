"""config.json: `linux.resources` on cgroup v2, read back from the cgroup's files."""

from __future__ import annotations

import os

import pytest

from oci.box import Box
from oci.limits import BURST, DISK, FIELD, MB, THROTTLES, V2, applied, put, throttle, throttle_rows
from oci.marks import shows

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
    put(box, path, value)
    box.create("true")
    assert box.limit("", name) == content


@V2
@shows(f"{FIELD}memory.swap")
@pytest.mark.parametrize(("swap", "content"), [(96 * MB, str(32 * MB)), (64 * MB, "0"), (-1, "max")])
def test_memory_swap_v2(box: Box, swap: int, content: str) -> None:
    """memory+swap of v1 less the memory."""
    assert applied(box, "", "memory.swap.max", memory={"limit": 64 * MB, "swap": swap}) == content


@V2
@shows(f"{FIELD}cpu.shares")
@pytest.mark.parametrize(("shares", "weights"), [(2, {"1"}), (1024, {"39", "100"}), (262144, {"10000"})])
def test_cpu_shares_v2(box: Box, shares: int, weights: set[str]) -> None:
    assert applied(box, "", "cpu.weight", cpu={"shares": shares}) in weights


@V2
@shows(f"{FIELD}cpu.period", f"{FIELD}cpu.quota")
def test_cpu_period_v2(box: Box) -> None:
    assert applied(box, "", "cpu.max", cpu={"quota": 30000, "period": 60000}) == "30000 60000"


@V2
@shows(f"{FIELD}cpu.burst", since={"runc": "1.2", "crun": "1.11"})
def test_cpu_burst_v2(box: Box) -> None:
    assert applied(box, "", "cpu.max.burst", cpu=BURST) == "10000"


@V2
@shows(f"{FIELD}cpu.idle", since={"runc": "1.2"})
def test_cpu_idle_v2(box: Box) -> None:
    assert applied(box, "", "cpu.idle", cpu={"idle": 1}) == "1"


@V2
@pytest.mark.parametrize("field", throttle_rows())
def test_throttle_v2(box: Box, field: str) -> None:
    (line,) = applied(box, "", "io.max", blockIO=throttle(field)).splitlines()
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
