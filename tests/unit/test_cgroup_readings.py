"""Statistics, Intel RDT and updates, on directories that stand for cgroups and resctrl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs import job_of
from pyrun import device_rules
from pyrun.cgroups import oom, processes, rdt, readings, stats_v1, stats_v2, update
from pyrun.engine import rootless
from pyrun.engine.oci import update as verb
from pyrun.errors import PyrunError, UsageError
from pyrun.spec.oci import Config

Files = dict[str, str]


def directory(path: Path, files: Files) -> str:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return str(path)


# ── statistics ─────────────────────────────────────────────────────────────────────────────────────

V2: Files = {
    "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\nnr_throttled 1\nthrottled_usec 9\n",
    "cpu.pressure": "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=8\n",
    "cpuset.cpus.effective": "0-2,5\n",
    "cpuset.mems.effective": "0\n",
    "memory.stat": "anon 10\nfile 20\n",
    "memory.current": "100\n",
    "memory.max": "max\n",
    "memory.peak": "200\n",
    "memory.swap.current": "30\n",
    "memory.swap.max": "50\n",
    "memory.events": "low 0\nmax 4\noom_kill 1\n",
    "pids.current": "3\n",
    "pids.max": "max\n",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n259:1 rbytes=5\nnonsense\n",
}


def test_v2(tmp_path: Path) -> None:
    found = stats_v2.collect([("unified", directory(tmp_path, V2))])
    assert found["cpu"]["usage"] == {"total": 5000, "kernel": 2000, "user": 3000}
    assert found["cpu"]["throttling"] == {"periods": 7, "throttledPeriods": 1, "throttledTime": 9000}
    assert found["cpu"]["psi"]["some"] == {"avg10": 1.5, "avg60": 0.25, "avg300": 0.0, "total": 77}
    assert found["cpuset"]["cpus"] == [0, 1, 2, 5]
    memory = found["memory"]
    assert memory["usage"] == {"limit": readings.UNLIMITED, "failcnt": 4, "usage": 100, "max": 200}
    assert memory["swap"] == {"limit": readings.UNLIMITED, "failcnt": 0, "usage": 130}
    assert (memory["cache"], memory["raw"]) == (20, {"anon": 10, "file": 20})
    assert found["pids"] == {"current": 3}, "no limit is no key, as with runc"
    assert found["blkio"]["ioServiceBytesRecursive"] == [
        {"major": 8, "value": 1, "op": "Read"}, {"major": 8, "value": 2, "op": "Write"},
        {"major": 259, "minor": 1, "value": 5, "op": "Read"},
    ]  # fmt: skip
    assert found["hugetlb"] == {}


def test_v2_without_controllers(tmp_path: Path) -> None:
    found = stats_v2.collect([("unified", directory(tmp_path, {"cgroup.procs": "1\n2\n"}))])
    assert found["pids"] == {"current": 2}
    assert found["memory"] == {}


def test_v1(tmp_path: Path) -> None:
    memory = {"memory.stat": "cache 7\nrss 8\n"}
    for prefix in ("", "memsw.", "kmem."):
        for name, value in (("usage", 1), ("max_usage", 2), ("limit", 3)):
            memory[f"memory.{prefix}{name}_in_bytes"] = f"{value}\n"
        memory[f"memory.{prefix}failcnt"] = "4\n"
    groups = [
        ("memory", directory(tmp_path / "memory", memory)),
        ("cpu,cpuacct", directory(tmp_path / "cpu", {
            "cpu.stat": "nr_periods 1\nnr_throttled 2\nthrottled_time 3\n",
            "cpuacct.stat": "user 10\nsystem 20\n", "cpuacct.usage": "99\n", "cpuacct.usage_percpu": "44 55 \n",
        })),
        ("pids", directory(tmp_path / "pids", {"pids.current": "1\n", "pids.max": "9\n"})),
        ("blkio", directory(tmp_path / "blkio", {
            "blkio.throttle.io_serviced": "8:0 Read 3\n8:0 Total 3\nTotal 3\n",
            "blkio.throttle.io_service_bytes": "8:0 Read 512\n",
        })),
    ]  # fmt: skip
    found = stats_v1.collect(groups)
    assert found["cpu"]["usage"]["total"] == 99
    assert found["cpu"]["usage"]["percpu"] == [44, 55]
    assert found["cpu"]["usage"]["user"] == 10 * 1_000_000_000 // readings.ticks_per_second()
    assert found["cpu"]["throttling"] == {"periods": 1, "throttledPeriods": 2, "throttledTime": 3}
    entry = {"limit": 3, "failcnt": 4, "usage": 1, "max": 2}
    assert [found["memory"][key] for key in ("usage", "swap", "kernel")] == [entry] * 3
    assert "kernelTCP" not in found["memory"]
    assert found["pids"] == {"current": 1, "limit": 9}
    assert found["blkio"]["ioServicedRecursive"][0] == {"major": 8, "value": 3, "op": "Read"}
    assert found["blkio"]["ioServiceBytesRecursive"] == [{"major": 8, "value": 512, "op": "Read"}]


def test_sizes_of_huge_pages(tmp_path: Path) -> None:
    for name in ("hugepages-64kB", "hugepages-2048kB", "hugepages-1048576kB", "other"):
        (tmp_path / name).mkdir()
    assert sorted(readings.huge_page_sizes(str(tmp_path))) == ["1GB", "2MB", "64KB"]


def test_a_watch_on_a_cgroup_that_is_gone(tmp_path: Path) -> None:
    watch = oom.Watch([("unified", str(tmp_path / "gone"))])
    assert watch.over()
    assert watch.wait(0) == 0
    watch.close()


def test_kills_are_counted(tmp_path: Path) -> None:
    where = directory(tmp_path, {"memory.events": "oom_kill 1\n", "cgroup.events": "populated 1\n"})
    watch = oom.Watch([("unified", where)])
    assert watch.wait(0) == 0
    directory(tmp_path, {"memory.events": "oom_kill 3\n"})
    assert watch.wait(0) == 2
    directory(tmp_path, {"cgroup.events": "populated 0\n"})
    assert watch.over()
    watch.close()


def test_who_is_inside(tmp_path: Path) -> None:
    directory(
        tmp_path / "devices",
        {"cgroup.procs": "3\n1\n0\n", "a/cgroup.procs": "7\n", "a/b/cgroup.procs": "9\n1\n"},
    )
    groups = [("unified", str(tmp_path / "unified")), ("devices", str(tmp_path / "devices"))]
    assert processes.all_of(groups) == [1, 3, 7, 9]


# ── Intel RDT ──────────────────────────────────────────────────────────────────────────────────────


def resctrl(path: Path) -> str:
    return directory(path / "resctrl", {
        "info/L3/cbm_mask": "fffff\n", "info/L3/min_cbm_bits": "1\n", "info/L3/num_closids": "16\n",
        "info/MB/bandwidth_gran": "10\n", "info/MB/min_bandwidth": "10\n", "info/MB/num_closids": "8\n",
        "schemata": "L3:0=fffff;1=fffff\nMB:0=100;1=100\n", "tasks": "", "info/last_cmd_status": "ok\n",
    })  # fmt: skip


def test_where_resctrl_is() -> None:
    line = "30 20 0:30 / /sys/fs/resctrl rw - resctrl resctrl rw\n"
    assert rdt.mount("25 20 0:22 / /sys rw - sysfs sysfs rw\n" + line) == "/sys/fs/resctrl"
    with pytest.raises(UsageError, match=r"linux.intelRdt: this host has no resctrl file system"):
        rdt.plan({"closID": "a"}, "c1")


def test_a_group_of_ones_own(tmp_path: Path) -> None:
    root = resctrl(tmp_path)
    planned = rdt.plan({"l3CacheSchema": "L3:0=ff;1=f", "memBwSchema": "MB:0=20;1=70", "schemata": ["L3:0=f"],
                        "enableMonitoring": True}, "c1", root)  # fmt: skip
    assert planned.ours and planned.lines == ["L3:0=ff;1=f", "MB:0=20;1=70", "L3:0=f"]
    # in a real resctrl the files appear with the directory
    directory(tmp_path / "resctrl/c1", {"schemata": "", "tasks": "", "mon_groups/c1/tasks": ""})
    rdt.join(planned, 4711)
    assert (tmp_path / "resctrl/c1/tasks").read_text() == "4711"
    assert (tmp_path / "resctrl/c1/mon_groups/c1/tasks").read_text() == "4711"
    assert rdt.undo(planned) == [f"rmdir\t{root}/c1/mon_groups/c1", f"rmdir\t{root}/c1"]


def test_somebody_elses_group(tmp_path: Path) -> None:
    root = resctrl(tmp_path)
    directory(
        tmp_path / "resctrl/gold", {"schemata": "    L3:0=000ff;1=0000f\n    MB:0= 20;1= 70\n", "tasks": ""}
    )
    planned = rdt.plan({"closID": "gold", "l3CacheSchema": "L3:1=F;0=ff"}, "c1", root)
    rdt.join(planned, 7)
    assert rdt.undo(planned) == [], "not ours to remove"
    with pytest.raises(UsageError, match=r"has L3:0=ff, not L3:0=f$"):
        rdt.plan({"closID": "gold", "l3CacheSchema": "L3:0=f"}, "c1", root)
    with pytest.raises(UsageError, match=r"closID: there is no group 'silver'"):
        rdt.plan({"closID": "silver"}, "c1", root)
    made = rdt.plan({"closID": "silver", "schemata": ["MB:0=10"]}, "c1", root)
    assert (made.exists, made.ours) == (False, False), "made, and left for whoever uses it next"


def test_the_root_group(tmp_path: Path) -> None:
    root = resctrl(tmp_path)
    planned = rdt.plan({"closID": "/", "enableMonitoring": True}, "c1", root)
    assert planned.directory == root
    assert rdt.undo(planned) == [f"rmdir\t{root}/mon_groups/c1"]


def test_a_users_bundle_without_limits_still_has_its_group() -> None:
    """It has no cgroup then, and is joined late all the same."""
    group = rdt.Rdt("/sys/fs/resctrl/c1")
    job = job_of([("unified", "/sys/fs/cgroup", "/")], [("unified", "/sys/fs/cgroup/x")])
    job.cgroup.rdt, job.cgroup.late = group, True
    config: Config = {"process": {}, "linux": {"intelRdt": {"enableMonitoring": False}}}
    rootless.adapt_bundle(config, job)
    assert (job.cgroup.hierarchies, job.cgroup.groups, job.cgroup.unprivileged) == ([], [], True)
    assert (job.cgroup.rdt, job.cgroup.late) == (group, True)


def test_an_allocation_the_processor_lacks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"this processor has no L2 allocation"):
        rdt.plan({"schemata": ["L2:0=f"]}, "c1", resctrl(tmp_path))


def test_a_schema_the_kernel_refuses(tmp_path: Path) -> None:
    root = resctrl(tmp_path)
    directory(tmp_path / "resctrl/info", {"last_cmd_status": "Mask f0f has non-consecutive 1-bits\n"})
    with pytest.raises(
        PyrunError, match=r"cannot write 'L3:0=f0f' to .* \(Mask f0f has non-consecutive 1-bits\)"
    ):
        rdt._write(f"{root}/gone/schemata", "L3:0=f0f\n")


def test_schemata_of_an_update(tmp_path: Path) -> None:
    root = resctrl(tmp_path)
    directory(tmp_path / "resctrl/c1", {"schemata": ""})
    rdt.update({"schemata": ["L3:0=f"]}, "c1", {"l3CacheSchema": "L3:0=1"}, root)
    assert (tmp_path / "resctrl/c1/schemata").read_text() == "L3:0=1\n"
    with pytest.raises(
        UsageError, match=r"--mem-bw-schema: the container was created without linux.intelRdt"
    ):
        rdt.update({}, "c1", {"memBwSchema": "MB:0=10"}, root)
    with pytest.raises(UsageError, match=r"--l3-cache-schema: this host has no resctrl file system"):
        rdt.update({}, "c1", {"l3CacheSchema": "L3:0=1"})


def test_statistics_of_rdt(tmp_path: Path) -> None:
    root = resctrl(tmp_path)
    data = "mon_data/mon_L3_00/"
    directory(tmp_path / "resctrl/c1", {
        "schemata": "L3:0=ff\nMB:0=20\n", f"mon_groups/c1/{data}mbm_total_bytes": "5\n",
        f"mon_groups/c1/{data}mbm_local_bytes": "3\n", f"mon_groups/c1/{data}llc_occupancy": "9\n",
    })  # fmt: skip
    found = rdt.stats({"enableMonitoring": True}, "c1", root)
    assert found["l3_cache_info"] == {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16}
    assert (found["l3_cache_schema"], found["mem_bw_schema_root"]) == ("L3:0=ff", "MB:0=100;1=100")
    assert found["schemata"] == ["L3:0=ff", "MB:0=20"]
    assert found["mbm_stats"] == [{"mbm_total_bytes": 5, "mbm_local_bytes": 3}]
    assert found["cmt_stats"] == [{"llc_occupancy": 9}]
    assert rdt.stats({}, "c1", root) == {}


# ── updates ────────────────────────────────────────────────────────────────────────────────────────

OLD: dict[str, Any] = {
    "devices": [{"allow": False, "access": "rwm"}],
    "memory": {"limit": 100, "swap": 200},
    "cpu": {"quota": 5000, "period": 10000, "shares": 5, "cpus": "0"},
    "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]},
}


def test_merging_keeps_what_is_not_given() -> None:
    given = {
        "memory": {"limit": 150, "swap": None},
        "cpu": {"quota": 7000},
        "blockIO": {
            "throttleReadBpsDevice": [
                {"major": 8, "minor": 0, "rate": 2},
                {"major": 8, "minor": 16, "rate": 3},
            ]
        },
    }
    whole = update.merged(OLD, given)
    assert whole["memory"] == {"limit": 150, "swap": 200}
    assert whole["cpu"] == {"quota": 7000, "period": 10000, "shares": 5, "cpus": "0"}
    assert [row["rate"] for row in whole["blockIO"]["throttleReadBpsDevice"]] == [2, 3]
    assert whole["devices"] == OLD["devices"]
    assert OLD["memory"]["limit"] == 100, "the old ones are left as they are"


def test_a_swap_limit_goes_with_that_of_memory() -> None:
    """Or the next limit on memory would bring it back, and be refused for it if it is greater."""
    whole = update.merged(OLD, {"memory": {"limit": -1}})
    assert whole["memory"] == {"limit": -1, "swap": -1}
    given = {"memory": {"limit": 500}}
    assert update.to_write(given, update.merged(whole, given)) == {"memory": {"limit": 500, "swap": -1}}
    assert update.merged({"memory": {"limit": 5}}, {"memory": {"limit": -1}})["memory"] == {"limit": -1}
    assert update.merged(OLD, {"memory": {"limit": -1, "swap": 7}})["memory"]["swap"] == 7


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"pids": {"limit": 5}}, {"pids": {"limit": 5}}),
        ({"memory": {"limit": 150}}, {"memory": {"limit": 150, "swap": 200}}),
        ({"memory": {"swap": 300}}, {"memory": {"limit": 100, "swap": 300}}),
        ({"memory": {"limit": -1}}, {"memory": {"limit": -1}}),
        ({"cpu": {"period": 20000}}, {"cpu": {"quota": 5000, "period": 20000}}),
        ({"cpu": {"shares": 7}}, {"cpu": {"shares": 7}}),
        ({"unified": {"memory.high": "5"}}, {"unified": {"memory.high": "5"}}),
        ({"memory": {}, "cpu": {}, "pids": {"limit": None}}, {}),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 3}]}},
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 3}]}},
        ),
    ],
)
def test_only_what_is_touched_is_written(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert update.to_write(given, update.merged(OLD, given)) == expected


def test_a_section_that_was_null_is_none() -> None:
    given = {"memory": {"limit": 5}, "blockIO": {"weight": 7}}
    whole = update.merged({"memory": None, "cpu": None, "blockIO": None}, given)
    assert whole == given
    assert update.to_write({**given, "cpu": {"shares": 3}}, whole) == given


def test_new_device_rules_take_the_place_of_all() -> None:
    given = {"devices": [{"allow": True, "access": "rwm"}]}
    assert device_rules.lines(update.merged(OLD, given)) == ["allow a"]


def test_writing_an_update_and_taking_it_back(tmp_path: Path) -> None:
    where = directory(tmp_path, {"memory.max": "100\n", "memory.swap.max": "100\n", "pids.max": "7\n"})
    update.apply([("unified", where)], {"memory": {"limit": 50, "swap": 80}, "pids": {"limit": 9}})
    assert [(tmp_path / name).read_text()[:2] for name in ("memory.max", "memory.swap.max")] == ["50", "30"]
    with pytest.raises(UsageError, match=r"linux.resources.cpu.shares"):  # there is no such file
        update.apply([("unified", where)], {"pids": {"limit": 5}, "cpu": {"shares": 100}})
    assert (tmp_path / "pids.max").read_text()[:1] == "9"


def test_a_limit_below_what_is_in_use(tmp_path: Path) -> None:
    groups = [("unified", directory(tmp_path, {"memory.current": "1000\n"}))]
    update.check_usage(groups, {"limit": 500})
    update.check_usage(groups, {"limit": 5000, "checkBeforeUpdate": True})
    with pytest.raises(UsageError, match=r"memory.limit: must be more than what is in use \(1000\), not 500"):
        update.check_usage(groups, {"limit": 500, "checkBeforeUpdate": True})


def test_the_flags() -> None:
    found = verb.requested({
        "memory": "64m", "memory_swap": "-1", "memory_reservation": "1024", "cpu_quota": "-1", "cpu_period": "20000",
        "cpu_burst": "0", "cpu_share": "5", "cpu_idle": "0", "cpu_rt_period": "7", "cpu_rt_runtime": "6",
        "cpuset_cpus": "0", "cpuset_mems": "", "blkio_weight": 0, "pids_limit": 0, "kernel_memory": "5m",
        "kernel_memory_tcp": "5m", "l3_cache_schema": "", "resources": "",
    })  # fmt: skip
    assert found == {
        "memory": {"limit": 64 << 20, "swap": -1, "reservation": 1024}, "pids": {"limit": 0},
        "cpu": {"quota": -1, "period": 20000, "burst": 0, "shares": 5, "idle": 0, "realtimePeriod": 7,
                "realtimeRuntime": 6, "cpus": "0"},
    }  # fmt: skip
    assert verb.requested({"pids_limit": None}) == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": "much"}, "invalid size for --memory"),
        ({"cpu_share": "1.5"}, "invalid value for --cpu-share"),
        ({"cpu_period": "5"}, "cpu.period"),
        ({"blkio_weight": 5}, "blockIO.weight"),
    ],
)
def test_flags_that_are_wrong(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        verb.requested(options)


def test_a_document_of_new_limits(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"memory": {"limit": 5}, "cpu": {"cpus": "0"}}')
    assert verb._document(str(path)) == {"memory": {"limit": 5}, "cpu": {"cpus": "0"}}
    for text, words in (
        ("{", "line 1 column 2"),
        ('{"memory": {"limit": "5"}}', "memory.limit"),
        ("[]", "object"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=words):
            verb._document(str(path))
    with pytest.raises(UsageError, match=r"--resources .*gone: No such file"):
        verb._document(str(tmp_path / "gone"))
