"""pyrun-oci on cgroup v2 by both drivers: the life of a container, what can be asked of it, and its end, however wild.

The systemd driver's own matters: test_oci_systemd.py. What does not touch a cgroup is the lab host's.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from vm.container import Container
from waiting import until

COUNTS = "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.1; done"
# Every process leaves two, and none of them listens; pids.limit is the bound. A shell that cannot fork ends, and counts
# until somebody waits for it, which sleep does not: here only the last one can, so that nearly all of them live.
BOMB = (
    """trap "" TERM INT HUP; bomb() { sleep 1000 & bomb & exec sleep 1000; }; """
    """sleep 1000 & (bomb 2>/dev/null) & wait"""
)
BOMB_PROCESSES = 40


def test_life(container: Container) -> None:
    container.create("sleep", "1000")
    place = container.place
    assert container.status == "created"
    assert place.name == (container.unit if container.driver == "systemd" else container.id)
    assert container.read("cgroup.procs") == [str(container.pid)]
    assert os.readlink(f"/proc/{container.pid}/exe") != "/bin/busybox", "nothing of the container runs yet"
    container.start()
    assert container.status == "running"
    assert container.exec("cat", "/proc/self/cgroup") in (
        "0::/",
        f"0::/{place.relative_to('/sys/fs/cgroup')}",
    )
    assert container.pids() == [container.pid]
    assert "that is not stopped: running" in container.fails("delete", container.id)
    container.ok("kill", container.id, "KILL")
    container.wait_for("stopped")
    container.forget(place)
    container.fails("state", container.id)


def test_pause_and_resume(container: Container) -> None:
    container.detach("sh", "-c", COUNTS)
    container.output(lambda text: len(text) > 4)
    container.ok("pause", container.id)
    assert container.status == "paused"
    assert "frozen 1" in (container.place / "cgroup.events").read_text()
    before = container._output.read_text()
    assert "paused" in container.fails("exec", container.id, "true")
    container.ok("update", "--pids-limit", "55", container.id)
    assert container.read("pids.max", "cgroup.freeze") == ["55", "1"]
    time.sleep(0.5)  # more than a number of one that runs
    assert container._output.read_text() == before
    container.ok("resume", container.id)
    assert container.status == "running"
    container.output(lambda text: len(text) > len(before))


def test_kill_of_a_paused_one(container: Container) -> None:
    """SIGKILL reaches what is frozen."""
    container.detach()
    place = container.place
    container.ok("pause", container.id)
    container.ok("delete", "--force", container.id)
    assert not place.exists()


def test_update(container: Container) -> None:
    container.resources["cpu"] = {"shares": 1024, "quota": 20000, "period": 100000}
    container.detach()
    words = ["--memory", "48m", "--memory-swap", "64m", "--memory-reservation", "16m", "--cpu-quota", "30000",
             "--cpu-share", "2048", "--cpuset-cpus", "0", "--pids-limit", "44"]  # fmt: skip
    container.ok("update", *words, container.id)
    names = (
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "cpu.max",
        "cpu.weight",
        "cpuset.cpus",
        "pids.max",
    )
    weight = container.read("cpu.weight")[0]
    assert container.read(*names) == [
        str(48 << 20), str(16 << 20), str(16 << 20), "30000 100000", weight, "0", "44",
    ]  # fmt: skip
    assert 75 < int(weight) < 300
    container.fails("update", "--memory", "nonsense", container.id)
    assert container.read("memory.max") == [str(48 << 20)]


def test_statistics(container: Container) -> None:
    container.resources.update(memory={"limit": 64 << 20}, pids={"limit": 33})
    container.detach("sh", "-c", "sleep 1000 & sleep 1000 & wait")
    until(lambda: len(container.pids()) == 3, "three processes")
    data = json.loads(container.ok("events", "--stats", container.id))["data"]
    assert data["pids"] == {"current": 3, "limit": 33}
    assert 0 < data["memory"]["usage"]["usage"] < data["memory"]["usage"]["limit"] == 64 << 20
    assert data["cpu"]["usage"]["total"] > 0


def test_out_of_memory_is_an_event(container: Container) -> None:
    container.resources["memory"] = {"limit": 24 << 20, "swap": 24 << 20}
    container.detach("sh", "-c", "sleep 2; tail /dev/zero; sleep 3")
    printed = container.ok("events", "--interval", "500ms", container.id)
    assert {"type": "oom", "id": container.id} in [json.loads(line) for line in printed.splitlines()]


def test_the_roots_cgroup_in_a_user_namespace(container: Container) -> None:
    """Delegation: the files in /sys/kernel/cgroup/delegate are the container's, its limits are not."""
    container.map_ids()
    container.namespace("cgroup")
    container.mount("/sys/fs/cgroup", "cgroup2", "cgroup", "rw", "nosuid", "noexec", "nodev")
    container.resources["pids"] = {"limit": 50}
    container.detach()
    place = container.place
    delegated = Path("/sys/kernel/cgroup/delegate").read_text().split()
    assert "cgroup.procs" in delegated
    owners = {name: (place / name).stat().st_uid for name in [*delegated, "."] if (place / name).exists()}
    assert set(owners.values()) == {100000}, owners
    assert (place / "pids.max").stat().st_uid == 0
    script = "mkdir a && echo $$ >a/cgroup.procs && cat /proc/self/cgroup; echo 60 >pids.max || echo kept"
    assert container.exec("sh", "-c", f"cd /sys/fs/cgroup; {script} 2>/dev/null").split() == ["0::/a", "kept"]
    container.ok("delete", "--force", container.id)
    assert not place.exists(), "with the cgroup that the container made in it"


def test_the_end_of_a_fork_bomb(container: Container) -> None:
    """cgroup.kill: nothing is faster than it."""
    container.resources["pids"] = {"limit": BOMB_PROCESSES}
    container.resources["memory"] = {"limit": 128 << 20}
    container.detach("sh", "-c", BOMB)
    until(lambda: int(container.read("pids.current")[0]) == BOMB_PROCESSES, "as many as there may be")
    until(lambda: len(container.pids()) > BOMB_PROCESSES - 5, "nearly all of them alive")
    place, pids = container.place, container.pids()
    container.ok("delete", "--force", container.id)
    assert not place.exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}/cgroup").exists() and _in(pid, place)]


def _in(pid: int, place: Path) -> bool:
    return Path(f"/proc/{pid}/cgroup").read_text().strip().endswith(place.name)


def test_kill_all(container: Container) -> None:
    """`kill --all` without a pid namespace: the cgroup knows whom."""
    container.without_namespace("pid")
    container.detach("sh", "-c", "sleep 1001 & sleep 1002 & wait")
    until(lambda: len(container.pids()) == 3, "three processes")
    place, pids = container.place, container.pids()
    container.ok("kill", "--all", container.id, "KILL")
    container.wait_for("stopped")
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of all")
    container.forget(place)
