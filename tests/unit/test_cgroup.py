"""Which cgroup hierarchies there are, where a container goes in them, what linux.resources become in each version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobs import job_of, placed
from pyrun.cgroups import files, layout, limits_v1, limits_v2, processes, rootless
from pyrun.errors import UsageError
from pyrun.plan.job import Job
from pyrun.plan.operations import Operation
from pyrun.spec.oci import Config, Mapping, Mount
from pyrun.stages import cgroup
from pyrun.store import paths

HYBRID_MOUNTS = """\
25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
28 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
29 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
30 25 0:27 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
40 20 0:26 /docker/x /somewhere/else rw - cgroup cgroup rw,memory
"""
HYBRID_OWN = "4:devices:/\n3:memory:/\n2:cpu,cpuacct:/user\n1:name=systemd:/init.scope\n0::/\n"
V2_MOUNTS = "30 20 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
V2_OWN = "0::/user.slice/session-1.scope\n"


def hybrid() -> list[layout.Hierarchy]:
    return layout.layout(HYBRID_MOUNTS, HYBRID_OWN)


def v2() -> list[layout.Hierarchy]:
    return layout.layout(V2_MOUNTS, V2_OWN)


def test_mounts_are_read_until_every_hierarchy_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand named network namespaces come after them in /proc/self/mountinfo."""
    given: list[str] = []

    def lines(path: str) -> Iterator[str]:
        for line in (HYBRID_MOUNTS + "900 1 0:4 net:[1] /run/netns/web rw - nsfs nsfs rw\n" * 9).split("\n"):
            given.append(line)
            yield line

    monkeypatch.setattr(paths, "lines", lines)
    assert layout.layout(membership=HYBRID_OWN) == layout.layout(HYBRID_MOUNTS, HYBRID_OWN)
    assert given == HYBRID_MOUNTS.split("\n")[: len(given)] and "cgroup" in given[-1]
    given.clear()
    layout.layout(membership=HYBRID_OWN + "77:perf_event:/\n")
    assert len(given) == HYBRID_MOUNTS.count("\n") + 10, "one is not mounted: all are read"


def test_hybrid() -> None:
    found = hybrid()
    assert [names for names, _, _ in found] == ["unified", "name=systemd", "cpu,cpuacct", "memory", "devices"]
    assert not layout.is_v2(found)
    assert layout.directories(found, "/pyrun/x")[3] == ("memory", "/sys/fs/cgroup/memory/pyrun/x")


def test_pure_v2() -> None:
    assert layout.is_v2(v2())


def test_a_named_v1_hierarchy_beside_v2_does_not_make_it_v1() -> None:
    """Mounted for old containers, or by hand: the controllers are in v2 all the same."""
    named = "31 20 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
    found = layout.layout(V2_MOUNTS + named, V2_OWN + "1:name=systemd:/\n")
    assert layout.is_v2(found)


@pytest.mark.parametrize("first", [True, False])
def test_a_v1_controller_beside_v2_does_not_make_it_v1(first: bool) -> None:
    """net_cls, which v2 does not have, for some VPN: limits and device rules are v2's all the same."""
    mount = "31 20 0:31 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls\n"
    found = layout.layout(mount + V2_MOUNTS if first else V2_MOUNTS + mount, V2_OWN + "1:net_cls:/\n")
    assert found == v2()


def test_in_a_container_without_a_cgroup_namespace() -> None:
    """The mount's root is our own place: paths begin there."""
    mounts = "29 25 0:26 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    assert layout.layout(mounts, "3:memory:/docker/x\n") == [("memory", "/sys/fs/cgroup/memory", "/")]


def test_our_own_place_may_lie_outside_the_namespace() -> None:
    assert layout.places("0::/../../other\n") == {"unified": "/"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", "/sys/fs/cgroup/cpu,cpuacct/a/b"),
        ("a/b", "/sys/fs/cgroup/cpu,cpuacct/user/a/b"),
        ("/../../a", "/sys/fs/cgroup/cpu,cpuacct/a"),
        ("../a/./b//", "/sys/fs/cgroup/cpu,cpuacct/user/a/b"),
        ("", "/sys/fs/cgroup/cpu,cpuacct/pyrun-oci-c1"),
    ],
)
def test_paths_of_v1(path: str, expected: str) -> None:
    found = placed(hybrid(), {"linux": {"cgroupsPath": path}})
    assert dict(found.groups)["cpu,cpuacct"] == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a", "/sys/fs/cgroup/a"),
        # beside our own: below it no controllers could be had
        ("a", "/sys/fs/cgroup/user.slice/a"),
    ],
)
def test_paths_of_v2(path: str, expected: str) -> None:
    assert placed(v2(), {"linux": {"cgroupsPath": path}}).groups == [("unified", expected)]


# ── linux.resources, field by field ────────────────────────────────────────────────────────────────

M = 1 << 20
# (resources, v1's files, v2's files); an exception's words instead of files
TABLE: list[tuple[dict[str, Any], Any, Any]] = [
    ({}, [], []),
    # memory
    ({"memory": {"limit": 64 * M}}, [("memory.limit_in_bytes", f"{64 * M}")], [("memory.max", f"{64 * M}")]),
    ({"memory": {"limit": 0, "swap": 0, "reservation": 0}}, [], []),
    (
        {"memory": {"limit": 64 * M, "swap": 100 * M}},
        [("memory.limit_in_bytes", f"{64 * M}"), ("memory.memsw.limit_in_bytes", f"{100 * M}")],
        [("memory.swap.max", f"{36 * M}"), ("memory.max", f"{64 * M}")],
    ),
    (
        {"memory": {"limit": 64 * M, "swap": 64 * M}},
        [("memory.limit_in_bytes", f"{64 * M}"), ("memory.memsw.limit_in_bytes", f"{64 * M}")],
        [("memory.swap.max?", "0"), ("memory.max", f"{64 * M}")],
    ),
    (
        {"memory": {"limit": 64 * M, "swap": -1}},
        [("memory.limit_in_bytes", f"{64 * M}"), ("memory.memsw.limit_in_bytes", "-1")],
        [("memory.swap.max?", "max"), ("memory.max", f"{64 * M}")],
    ),
    (
        {"memory": {"limit": -1}},
        [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes?", "-1")],
        [("memory.swap.max?", "max"), ("memory.max", "max")],
    ),
    (
        {"memory": {"limit": -1, "swap": 5 * M}},
        [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", f"{5 * M}")],
        [("memory.swap.max", f"{5 * M}"), ("memory.max", "max")],
    ),
    ({"memory": {"limit": 64 * M, "swap": 1 * M}}, None, "linux.resources.memory.swap: must be at least memory.limit"),
    ({"memory": {"swap": 1 * M}}, [("memory.memsw.limit_in_bytes", f"{M}")], "memory.swap: needs a memory limit"),
    ({"memory": {"reservation": M}}, [("memory.soft_limit_in_bytes", f"{M}")], [("memory.low", f"{M}")]),
    ({"memory": {"swappiness": 0}}, [("memory.swappiness", "0")], "linux.resources.memory.swappiness: cannot be had"),
    ({"memory": {"disableOOMKiller": True}}, [("memory.oom_control", "1")], "memory.disableOOMKiller: cannot be had"),
    ({"memory": {"disableOOMKiller": False, "swappiness": None}}, [], []),
    ({"memory": {"kernel": M, "kernelTCP": M, "useHierarchy": True, "checkBeforeUpdate": True}}, [], []),
    # cpu
    ({"cpu": {"shares": 1024}}, [("cpu.shares", "1024")], [("cpu.weight", "100")]),
    ({"cpu": {"shares": 2}}, [("cpu.shares", "2")], [("cpu.weight", "1")]),
    ({"cpu": {"shares": 262144}}, [("cpu.shares", "262144")], [("cpu.weight", "10000")]),
    ({"cpu": {"shares": 1}}, "linux.resources.cpu.shares: must be 2 to 262144", [("cpu.weight", "1")]),
    ({"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}}, [], []),
    ({"cpu": {"quota": 50000}}, [("cpu.cfs_quota_us", "50000")], [("cpu.max", "50000 100000")]),
    ({"cpu": {"quota": -1}}, [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max 100000")]),
    ({"cpu": {"period": 20000}}, [("cpu.cfs_period_us", "20000")], [("cpu.max", "max 20000")]),
    (
        {"cpu": {"quota": 50000, "period": 20000, "burst": 9000}},
        [("cpu.cfs_period_us", "20000"), ("cpu.cfs_quota_us", "50000"), ("cpu.cfs_burst_us", "9000")],
        [("cpu.max", "50000 20000"), ("cpu.max.burst", "9000")],
    ),
    ({"cpu": {"burst": 0}}, [("cpu.cfs_burst_us?", "0")], [("cpu.max.burst?", "0")]),
    (
        {"cpu": {"realtimePeriod": 100, "realtimeRuntime": 50}},
        [("cpu.rt_period_us", "100"), ("cpu.rt_runtime_us", "50")],
        "linux.resources.cpu.realtimeRuntime: cannot be had",
    ),
    (
        {"cpu": {"cpus": "0-1", "mems": "0"}},
        [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
        [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
    ),
    ({"cpu": {"idle": 1}}, [("cpu.idle", "1")], [("cpu.idle", "1")]),
    ({"cpu": {"idle": 0}}, [("cpu.idle?", "0")], [("cpu.idle?", "0")]),
    # an idle cgroup takes no weight: the weight goes first
    (
        {"cpu": {"idle": 1, "shares": 1024}},
        [("cpu.shares", "1024"), ("cpu.idle", "1")],
        [("cpu.weight", "100"), ("cpu.idle", "1")],
    ),
    # pids
    ({"pids": {"limit": 9}}, [("pids.max", "9")], [("pids.max", "9")]),
    ({"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
    ({"pids": {"limit": 0}}, [("pids.max", "1")], [("pids.max", "1")]),
    ({"pids": {"limit": None}}, [], []),
    # blockIO
    (
        {"blockIO": {"weight": 10}},
        [("blkio.weight|blkio.bfq.weight", "10")],
        [("io.bfq.weight|io.weight", "10|1")],
    ),
    (
        {"blockIO": {"weight": 1000}},
        [("blkio.weight|blkio.bfq.weight", "1000")],
        [("io.bfq.weight|io.weight", "1000|10000")],
    ),
    ({"blockIO": {"leafWeight": 20}}, [("blkio.leaf_weight", "20")], "resources.blockIO.leafWeight: cannot be had"),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 500}]}},
        [("blkio.weight_device|blkio.bfq.weight_device", "8:0 500")],
        [("io.bfq.weight|io.weight", "8:0 500|8:0 4950")],
    ),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 500}]}},
        [("blkio.leaf_weight_device", "8:0 500")],
        "linux.resources.blockIO.weightDevice: cannot be had",
    ),
    (
        {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 16, "rate": 2}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 3}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
            }
        },
        [
            ("blkio.throttle.read_bps_device", "8:0 1"),
            ("blkio.throttle.read_bps_device", "8:16 2"),
            ("blkio.throttle.write_bps_device", "8:0 3"),
            ("blkio.throttle.read_iops_device", "8:0 4"),
            ("blkio.throttle.write_iops_device", "8:0 0"),
        ],
        [
            ("io.max", "8:0 rbps=1"),
            ("io.max", "8:16 rbps=2"),
            ("io.max", "8:0 wbps=3"),
            ("io.max", "8:0 riops=4"),
            ("io.max", "8:0 wiops=max"),
        ],
    ),
    # the rest
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * M}]},
        [("hugetlb.2MB.limit_in_bytes", f"{4 * M}"), ("hugetlb.2MB.rsvd.limit_in_bytes?", f"{4 * M}")],
        [("hugetlb.2MB.max", f"{4 * M}"), ("hugetlb.2MB.rsvd.max?", f"{4 * M}")],
    ),
    ({"network": {"classID": 1048577}}, [("net_cls.classid", "1048577")], "linux.resources.network.classID: cannot be"),
    (
        {"network": {"priorities": [{"name": "lo", "priority": 5}]}},
        [("net_prio.ifpriomap", "lo 5")],
        "linux.resources.network.priorities: cannot be had",
    ),
    ({"network": {"classID": 0, "priorities": []}}, [], []),
    (
        {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 0}, "mlx4_0": {"hcaObjects": 1000}, "x": {}}},
        [("rdma.max", "mlx5_1 hca_handle=3 hca_object=0"), ("rdma.max", "mlx4_0 hca_object=1000")],
        [("rdma.max", "mlx5_1 hca_handle=3 hca_object=0"), ("rdma.max", "mlx4_0 hca_object=1000")],
    ),
    ({"unified": {"memory.high": "10"}}, "linux.resources.unified: is for cgroup v2", [("memory.high", "10")]),
    (
        {"unified": {"io.max": "8:0 rbps=1\n8:16 rbps=2\n"}},
        "linux.resources.unified: is for cgroup v2",
        [("io.max", "8:0 rbps=1"), ("io.max", "8:16 rbps=2")],
    ),
    ({"unified": {"a/b.max": "1"}}, None, "linux.resources.unified: a/b.max: must be the name of a file"),
    ({"unified": {"memory": "1"}}, None, "linux.resources.unified: memory: must be a name like CONTROLLER.FILE"),
    ({"unified": {}}, [], []),
    # after what the named fields say: unified has the last word
    (
        {"memory": {"limit": M}, "unified": {"memory.max": "5"}},
        None,
        [("memory.max", f"{M}"), ("memory.max", "5")],
    ),
]  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[0])[:60])
def test_every_field(row: tuple[dict[str, Any], Any, Any], version: int) -> None:
    resources, expected, module = row[0], row[version], (limits_v1, limits_v2)[version - 1]
    if expected is None:
        return
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=r"^config.json: linux") as caught:
            module.limits(resources)
        assert expected in caught.value.message
        return
    found = module.limits(resources)
    assert [(file, value) for file, value, _ in found] == expected
    section = next(iter(resources), "")
    assert all(field.startswith(section) or section == "memory" for _, _, field in found)


def test_every_field_of_the_specification_is_in_the_table() -> None:
    """The names in the schema's resources, but for devices, which test_device_rules has."""
    named: set[str] = set()
    for resources, _, _ in TABLE:
        for section, value in resources.items():
            named |= {section, *([f"{section}.{key}" for key in value] if isinstance(value, dict) else [])}
    wanted = """memory.limit memory.reservation memory.swap memory.kernel memory.kernelTCP memory.swappiness
        memory.disableOOMKiller memory.useHierarchy memory.checkBeforeUpdate cpu.shares cpu.quota cpu.burst cpu.period
        cpu.realtimeRuntime cpu.realtimePeriod cpu.cpus cpu.mems cpu.idle pids.limit blockIO.weight blockIO.leafWeight
        blockIO.weightDevice blockIO.throttleReadBpsDevice blockIO.throttleWriteBpsDevice
        blockIO.throttleReadIOPSDevice blockIO.throttleWriteIOPSDevice hugepageLimits network.classID
        network.priorities rdma unified""".split()
    assert set(wanted) <= named


@pytest.mark.parametrize(
    ("shares", "weight"),
    [
        (2, 1),
        (3, 2),
        (10, 4),
        (100, 17),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (4096, 303),
        (8192, 532),
        (262143, 10000),
    ],
)
def test_the_curve_from_shares_to_weight(shares: int, weight: int) -> None:
    """Values of 10^((l^2+125l)/612-7/34) rounded up, l = log2(shares)."""
    assert limits_v2.cpu_weight(shares) == weight


def test_pyruns_own_share_of_swap_may_be_left_out() -> None:
    resources = {"memory": {"limit": M, "swap": 2 * M}}
    assert "memory.swap.max?" in [file for file, _, _ in limits_v2.limits(resources, lenient=True)]
    assert "memory.memsw.limit_in_bytes?" in [
        file for file, _, _ in limits_v1.limits(resources, lenient=True)
    ]


# ── operations ─────────────────────────────────────────────────────────────────────────────────────


def job_in(hierarchies: list[layout.Hierarchy], config: Config, *, user_namespace: bool = False) -> Job:
    return job_of(bundle="/b", cgroup=placed(hierarchies, config), user_namespace=user_namespace)


def test_limits_go_to_their_controllers_hierarchy() -> None:
    config: Config = {"linux": {"resources": {"cpu": {"shares": 7}, "memory": {"limit": 9}}}}
    found = cgroup.before(config, job_in(hybrid(), config))
    assert (
        Operation(
            "cgroup-write", "/sys/fs/cgroup/memory/pyrun-oci-c1/memory.limit_in_bytes", "9", "memory.limit"
        )
        in found
    )
    assert (
        Operation("cgroup-write", "/sys/fs/cgroup/cpu,cpuacct/pyrun-oci-c1/cpu.shares", "7", "cpu.shares")
        in found
    )


def test_v1_hands_nothing_down_in_the_empty_unified_hierarchy() -> None:
    makes = [each for each in cgroup.before({}, job_in(hybrid(), {})) if each.kind == "cgroup-make"]
    assert [each.args[2] for each in makes] == ["devices", "", "name=systemd", "cpu,cpuacct", "memory"]


def test_a_controller_that_is_not_mounted_is_named_with_the_field_and_the_file() -> None:
    config: Config = {"linux": {"resources": {"pids": {"limit": 5}}}}
    with pytest.raises(UsageError, match=r"linux.resources.pids.limit: needs the pids controller.*pids.max"):
        cgroup.before(config, job_in(hybrid(), config))


def test_a_bundle_is_never_without_device_rules() -> None:
    config: Config = {"linux": {}}
    kinds = [each.kind for each in cgroup.before(config, job_in(v2(), config))]
    assert kinds == ["cgroup-make", "cgroup-devices"]


def test_a_host_without_the_devices_controller_runs_no_bundle_of_roots() -> None:
    """Fatal for runc, too: the container could have every device it makes a node for."""
    hierarchies = [each for each in hybrid() if each[0] != "devices"]
    with pytest.raises(UsageError, match=r"linux.resources.devices: needs the devices controller"):
        cgroup.before({}, job_in(hierarchies, {}))
    job = job_in(hierarchies, {})
    job.cgroup.unprivileged = True
    assert "cgroup-devices" not in [each.kind for each in cgroup.before({}, job)], "a user makes no nodes"


def test_the_disabled_driver() -> None:
    assert placed(v2(), {}, "disabled").groups == []
    config: Config = {"linux": {"resources": {"memory": {"limit": 5}}}}
    with pytest.raises(UsageError, match=r"linux.resources.memory: the container has no cgroup"):
        placed(v2(), config, "disabled")
    job = job_of(bundle="/b", cgroup=placed(hybrid(), {}, "disabled"))
    assert (job.cgroup.hierarchies, job.cgroup.groups) == ([], []), "nothing to show in the container"
    assert cgroup.before({}, job) == []
    assert cgroup.plan(job) == []
    assert cgroup.undo(job.cgroup) == []


def test_undo_ends_processes_before_it_removes_directories() -> None:
    def undone(*groups: layout.Group) -> list[str]:
        return cgroup.undo(layout.Cgroup([], list(groups)))

    lines = undone(("memory", "/m/x"), ("pids", "/p/x"), ("unified", "/u/x"))
    assert lines == ["kill-cgroup\t/p/x", "rmcgroup\t/m/x", "rmcgroup\t/p/x", "rmcgroup\t/u/x"]
    frozen = undone(("pids", "/p/x"), ("freezer", "/f/x"))
    assert frozen[0] == "kill-cgroup\t/f/x", "in no other hierarchy can they be thawed"
    together = undone(("memory,devices", "/m/x"), ("freezer,pids", "/f/x"))
    assert together == ["kill-cgroup\t/f/x", "rmcgroup\t/m/x", "rmcgroup\t/f/x"]


def test_v2_ends_all_of_a_cgroup_at_once(tmp_path: Any) -> None:
    assert not processes.end([("unified", str(tmp_path))]), "before Linux 5.14"
    (tmp_path / "cgroup.kill").touch()
    assert not processes.end([("unified", str(tmp_path)), ("freezer", "/f/x")]), "a hybrid host's may be left"
    assert not (tmp_path / "cgroup.kill").read_text()
    assert processes.end([["unified", str(tmp_path)]])
    assert (tmp_path / "cgroup.kill").read_text() == "1"


def test_parents_that_have_to_be_made_are_taken_away_the_deepest_first(tmp_path: Any) -> None:
    (tmp_path / "there").mkdir()
    hierarchies = [("unified", str(tmp_path), "/")]
    lines = cgroup.undo(placed(hierarchies, {"linux": {"cgroupsPath": "/there/a/b/c"}}))
    assert lines[1:] == [
        f"rmcgroup\t{tmp_path}/there/a/b/c", f"rmdir-empty\t{tmp_path}/there/a/b", f"rmdir-empty\t{tmp_path}/there/a",
    ]  # fmt: skip


def test_without_a_path_there_is_no_parent_to_make(tmp_path: Any) -> None:
    lines = cgroup.undo(placed([("unified", str(tmp_path), "/")], {}))
    assert lines[-1] == f"rmcgroup\t{tmp_path}/pyrun-oci-c1"


# ── owners ─────────────────────────────────────────────────────────────────────────────────────────

CGROUP_MOUNT: Mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["rw"]}
MAPPED: list[Mapping] = [{"containerID": 0, "hostID": 100000, "size": 65536}]


@pytest.mark.parametrize(
    ("changes", "owner"),
    [
        ({}, 100000),
        ({"mounts": [{**CGROUP_MOUNT, "options": ["ro"]}]}, -1),
        ({"mounts": []}, -1),
        ({"process": {"user": {"uid": 7}}}, 100007),
        ({"process": {"user": {"uid": 70000}}}, -1),
        ({"linux": {"namespaces": [{"type": "user"}], "uidMappings": MAPPED}}, -1),
        ({"linux": {"namespaces": [{"type": "cgroup"}]}}, -1),  # root of the host has it already
        ({"linux": {"namespaces": [{"type": "cgroup"}]}, "process": {"user": {"uid": 7}}}, 7),
        (
            {
                "linux": {
                    "namespaces": [{"type": "cgroup", "path": "/x"}, {"type": "user"}],
                    "uidMappings": MAPPED,
                }
            },
            -1,
        ),
    ],
)
def test_who_owns_a_delegated_cgroup(changes: Config, owner: int) -> None:
    config: Config = {
        "process": {"user": {"uid": 0}},
        "mounts": [CGROUP_MOUNT],
        "linux": {"namespaces": [{"type": "cgroup"}, {"type": "user"}], "uidMappings": MAPPED},
        **changes,
    }
    assert rootless.owner(config) == owner


def test_v2_gives_the_cgroup_to_the_containers_root() -> None:
    config: Config = {
        "process": {"user": {"uid": 0}},
        "mounts": [CGROUP_MOUNT],
        "linux": {"namespaces": [{"type": "cgroup"}, {"type": "user"}], "uidMappings": MAPPED},
    }
    job = job_in(v2(), config, user_namespace=True)
    assert cgroup.before(config, job)[-1] == Operation("cgroup-owner", "/sys/fs/cgroup/pyrun-oci-c1", 100000)
    assert "cgroup-owner" not in [each.kind for each in cgroup.before(config, job_in(hybrid(), config))]
    config["process"] = {"user": {"uid": 7}}  # or to the user whose process it is, on the host as it is
    config["linux"] = {"namespaces": [{"type": "cgroup"}]}
    assert cgroup.before(config, job_in(v2(), config))[-1] == Operation(
        "cgroup-owner", "/sys/fs/cgroup/pyrun-oci-c1", 7
    )


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        ({}, ""),
        ({"devices": [{"allow": False, "access": "rwm"}]}, ""),
        ({"memory": {"disableOOMKiller": False}, "pids": {"limit": 0}, "cpu": {}, "blockIO": None}, ""),
        ({"memory": {"limit": 5}}, "memory"),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}, "hugepageLimits"),
        ({"unified": {"pids.max": "5"}}, "unified"),
    ],
)
def test_whether_a_limit_was_asked_for(resources: dict[str, Any], field: str) -> None:
    assert rootless.limit_asked(resources) == field


def test_writing(tmp_path: Any) -> None:
    """An open and a write; a ? lets a file be absent; of a|b the one that is there is taken, with its own value."""
    (tmp_path / "pids.max").write_text("")
    (tmp_path / "io.weight").write_text("")
    files.write(f"{tmp_path}/pids.max", "5", "pids.limit")
    assert (tmp_path / "pids.max").read_text() == "5"
    files.write(f"{tmp_path}/memory.swap.max?", "5")
    files.write(f"{tmp_path}/io.bfq.weight|io.weight", "10|1", "blockIO.weight")
    assert (tmp_path / "io.weight").read_text() == "1"
    with pytest.raises(
        UsageError, match=r"linux.resources.cpu.idle: cannot write '1' to .*cpu.idle: No such file"
    ):
        files.write(f"{tmp_path}/cpu.idle", "1", "cpu.idle")
