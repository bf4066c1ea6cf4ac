"""`pause`, `resume`, `update`."""

from __future__ import annotations

import json
import time

import pytest

from oci.box import Box
from oci.limits import needed
from oci.marks import shows
from waiting import PATIENCE

V1 = pytest.mark.needs("cgroup1")
V2 = pytest.mark.needs("cgroup2")
MB = 1 << 20


@pytest.fixture
def running(box: Box) -> Box:
    """A container that counts, with limits to be updated."""
    box.resources["memory"] = {"limit": 64 * MB, "swap": 96 * MB}
    box.resources["pids"] = {"limit": 50}
    box.resources["cpu"] = {"shares": 512, "quota": 50000, "period": 100000}
    box.detach("sh", "-c", "while :; do echo; sleep 0.01; done")
    return box


@shows("pause", "resume", "state: paused")
def test_pause_and_resume(running: Box) -> None:
    running.output(lambda text: len(text) > 3)
    running.ok("pause", running.id)
    assert running.status == "paused"
    size = running._output.stat().st_size
    time.sleep(0.1 * PATIENCE)  # ten lines of one that runs
    assert running._output.stat().st_size == size
    running.ok("resume", running.id)
    assert running.status == "running"
    running.output(lambda text: len(text) > size)


@shows("pause", "errors: pause of what does not run")
def test_pause_of_a_stopped_container(box: Box) -> None:
    box.detach("true")
    box.wait_for("stopped")
    box.fails("pause", box.id)


@shows("resume", "errors: resume of what is not paused", differs={"crun": "succeeds"})
def test_resume_of_a_running_container(running: Box) -> None:
    running.fails("resume", running.id)
    assert running.status == "running"


@shows("pause", "kill", "kill: SIGKILL reaches a paused container")
def test_kill_of_a_paused_container(running: Box) -> None:
    running.known_to_differ("crun", "does not thaw it")
    running.ok("pause", running.id)
    running.ok("kill", running.id, "KILL")
    running.wait_for("stopped")


UPDATES_V1 = [
    ("--cpu-period", "200000", "cpu", "cpu.cfs_period_us", "200000"),
    ("--cpu-quota", "40000", "cpu", "cpu.cfs_quota_us", "40000"),
    ("--cpu-share", "200", "cpu", "cpu.shares", "200"),
    ("--cpuset-cpus", "0", "cpuset", "cpuset.cpus", "0"),
    ("--cpuset-mems", "0", "cpuset", "cpuset.mems", "0"),
    ("--memory", str(32 * MB), "memory", "memory.limit_in_bytes", str(32 * MB)),
    ("--memory-reservation", str(16 * MB), "memory", "memory.soft_limit_in_bytes", str(16 * MB)),
    ("--memory-swap", str(80 * MB), "memory", "memory.memsw.limit_in_bytes", str(80 * MB)),
    ("--pids-limit", "20", "pids", "pids.max", "20"),
    ("--pids-limit", "-1", "pids", "pids.max", "max"),
    ("--blkio-weight", "300", "blkio", "blkio.bfq.weight", "300"),
]


@V1
@pytest.mark.parametrize(
    ("flag", "value", "controller", "name", "content"),
    [
        pytest.param(*row, marks=[shows(f"update {row[0]}"), *needed(row[3])], id=f"{row[0]}={row[1]}")
        for row in UPDATES_V1
    ],
)
def test_update_v1(running: Box, flag: str, value: str, controller: str, name: str, content: str) -> None:
    if flag == "--blkio-weight":
        running.known_to_differ("crun", "before 1.8.2 it writes blkio.weight only")
    if value == "-1":
        running.known_to_differ("crun", "before 1.13 it writes -1")
    running.ok("update", flag, value, running.id)
    assert running.limit(controller, name) == content


@V1
@pytest.mark.needs("no_bfq")
@shows("update --blkio-weight", "errors: a weight without BFQ", absent=True)
def test_update_weight_without_bfq_v1(running: Box) -> None:
    running.known_to_differ("crun", "before 1.8.2 it writes blkio.weight only")
    error = running.fails("update", "--blkio-weight", "300", running.id)
    if running.runtime.name == "pyrun-oci":
        for word in ("--blkio-weight 300: ", "blkio.bfq.weight", "CONFIG_IOSCHED_BFQ"):
            assert word in error.splitlines()[0]
    assert running.status == "running"
    running.ok("update", "--pids-limit", "44", running.id)
    assert running.limit("pids", "pids.max") == "44"


@shows("update --memory", "update: without a limit on memory there is none on swap, later neither")
def test_update_of_memory_that_had_no_limit(running: Box) -> None:
    """The swap limit of the config went with it, and does not stand in the way of a greater one."""
    running.known_to_differ("crun", "writes memory and swap in an order that v1 refuses")
    name = "memory.max" if (running.cgroup("memory") / "memory.max").exists() else "memory.limit_in_bytes"
    for limit in (-1, 200 * MB):
        running.ok("update", "--memory", str(limit), running.id)
    assert running.limit("memory", name) == str(200 * MB)


@V1
@shows("update --cpu-burst", since={"runc": "1.2", "crun": None})
def test_update_cpu_burst_v1(running: Box) -> None:
    running.ok("update", "--cpu-burst", "5000", running.id)
    assert running.limit("cpu", "cpu.cfs_burst_us") == "5000"


@V1
@shows("update --cpu-idle", since={"runc": "1.2", "crun": None})
def test_update_cpu_idle_v1(running: Box) -> None:
    running.ok("update", "--cpu-idle", "1", running.id)
    assert running.limit("cpu", "cpu.idle") == "1"


@V1
@shows("update --cpu-rt-period", "update --cpu-rt-runtime",
       differs={"runc": "runtime before period", "crun": "the host has no real-time time left"})  # fmt: skip
def test_update_realtime_v1(running: Box) -> None:
    """Both in one call; the parents' budgets are 0, so a runtime other than 0 would be refused by the kernel."""
    running.ok("update", "--cpu-rt-period", "500000", "--cpu-rt-runtime", "0", running.id)
    assert running.limit("cpu", "cpu.rt_period_us") == "500000"


@shows("update --kernel-memory", "update --kernel-memory-tcp")
@pytest.mark.parametrize("flag", ["--kernel-memory", "--kernel-memory-tcp"])
def test_update_kernel_memory_is_ignored(running: Box, flag: str) -> None:
    """Hidden and without effect: the kernel has taken these limits away."""
    running.known_to_differ("crun", "writes the file, which the kernel refuses")
    done = running.call("update", flag, str(50 * MB), running.id)
    assert done.status == 0
    assert "level=warning" in done.err
    assert "ignored" in done.err


UPDATES_V2 = [
    ("--cpu-period", "200000", "cpu.max", "50000 200000"),
    ("--cpu-quota", "40000", "cpu.max", "40000 100000"),
    ("--cpu-quota", "-1", "cpu.max", "max 100000"),
    ("--cpuset-cpus", "0", "cpuset.cpus", "0"),
    ("--cpuset-mems", "0", "cpuset.mems", "0"),
    ("--memory", str(32 * MB), "memory.max", str(32 * MB)),
    ("--memory-reservation", str(16 * MB), "memory.low", str(16 * MB)),
    ("--memory-swap", str(80 * MB), "memory.swap.max", str(16 * MB)),
    ("--pids-limit", "20", "pids.max", "20"),
    ("--pids-limit", "-1", "pids.max", "max"),
]


@V2
@pytest.mark.parametrize(
    ("flag", "value", "name", "content"),
    [pytest.param(*row, marks=shows(f"update {row[0]}"), id=f"{row[0]}={row[1]}") for row in UPDATES_V2],
)
def test_update_v2(running: Box, flag: str, value: str, name: str, content: str) -> None:
    running.ok("update", flag, value, running.id)
    assert running.limit("", name) == content


@V2
@shows("update --cpu-share")
def test_update_cpu_share_v2(running: Box) -> None:
    """Shares become a weight: runc's line up to 1.3, the curve through (1024, 100) since."""
    running.ok("update", "--cpu-share", "1024", running.id)
    assert running.limit("", "cpu.weight") in ("39", "100")


@V2
@shows("update --blkio-weight", differs={"runc": "needs bfq", "crun": "needs bfq"})
def test_update_blkio_weight_v2(running: Box) -> None:
    running.ok("update", "--blkio-weight", "500", running.id)


@V2
@shows("update --cpu-burst", since={"runc": "1.2", "crun": None})
def test_update_cpu_burst_v2(running: Box) -> None:
    running.ok("update", "--cpu-burst", "5000", running.id)
    assert running.limit("", "cpu.max.burst") == "5000"


@V2
@shows("update --cpu-idle", since={"runc": "1.2", "crun": None})
def test_update_cpu_idle_v2(running: Box) -> None:
    running.ok("update", "--cpu-idle", "1", running.id)
    assert running.limit("", "cpu.idle") == "1"


@V2
@shows("update --cpu-rt-period", "update --cpu-rt-runtime", since={"runc": None, "crun": None})
def test_update_realtime_v2(running: Box) -> None:
    """cgroup v2 has no such limit: asking for one is an error, not silence."""
    running.fails("update", "--cpu-rt-runtime", "1000", running.id)


@shows("update --resources")
@pytest.mark.parametrize("flag", ["--resources", "-r"])
@pytest.mark.parametrize("how", ["file", "stdin"])
def test_update_resources(running: Box, flag: str, how: str) -> None:
    """From a file or from standard input; what is not named keeps its value, and the flags beside it are ignored."""
    document = json.dumps({"pids": {"limit": 33}})
    path = running.directory / "resources.json"
    path.write_text(document)
    running.ok("update", flag, "-" if how == "stdin" else str(path), running.id, input=document)
    assert running.limit("pids", "pids.max") == "33"
    name = "memory.max" if (running.cgroup("memory") / "memory.max").exists() else "memory.limit_in_bytes"
    assert running.limit("memory", name) == str(64 * MB)


@shows("update --resources", "errors: update with nonsense", differs={"crun": "ignores it"})
def test_update_with_nonsense(running: Box) -> None:
    running.fails("update", "-r", "-", running.id, input='{"pids": {"limit": "many"}}')
    running.fails("update", "--memory", "1x", running.id)
    assert running.limit("pids", "pids.max") == "50"


@shows("update", "update: the limits hold for a later update")
def test_updates_add_up(running: Box) -> None:
    running.ok("update", "--pids-limit", "21", running.id)
    running.ok("update", "--memory-reservation", str(16 * MB), running.id)
    assert running.limit("pids", "pids.max") == "21"


@shows("update --l3-cache-schema", "update --mem-bw-schema", since={"crun": None}, absent=True)
@pytest.mark.parametrize(("flag", "value"), [("--l3-cache-schema", "L3:0=f"), ("--mem-bw-schema", "MB:0=50")])
@pytest.mark.needs("no_resctrl")
def test_update_intel_rdt(running: Box, flag: str, value: str) -> None:
    """On a machine without it, a clear error."""
    running.fails("update", flag, value, running.id)


@shows("update", "update: of what was null at create")
def test_update_of_null(box: Box) -> None:
    box.resources.update(memory=None, cpu=None, pids=None)
    box.detach()
    box.ok("update", "--pids-limit", "77", box.id)
    assert box.limit("pids", "pids.max") == "77"


@shows("update", "errors: update of a stopped container", differs={"crun": "no check"})
def test_update_of_a_stopped_container(box: Box) -> None:
    box.detach("true")
    box.wait_for("stopped")
    box.fails("update", "--pids-limit", "20", box.id)
