"""config.json: `linux.cgroupsPath`, and what of `linux.resources` is the same on v1 and v2."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from oci.box import CGROUP_PARENT, Box
from oci.limits import FIELD, UNIFIED
from oci.marks import shows


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


@shows(f"{FIELD}rdma{{}}.hcaHandles", f"{FIELD}rdma{{}}.hcaObjects")
@pytest.mark.needs("rdma")
def test_rdma(box: Box) -> None:
    device = next(Path("/sys/class/infiniband").iterdir()).name
    box.resources["rdma"] = {device: {"hcaHandles": 3, "hcaObjects": 100}}
    box.create("true")
    assert f"{device} hca_handle=3 hca_object=100" in box.limit("rdma", "rdma.max")


@shows(f"{FIELD}rdma{{}}.hcaHandles", f"{FIELD}rdma{{}}.hcaObjects", "errors: no rdma controller",
       absent=True, differs={"runc": "ignores it", "crun": "ignores it"})  # fmt: skip
@pytest.mark.needs("no_rdma")
def test_no_rdma(box: Box) -> None:
    box.resources["rdma"] = {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 100}}
    box.refuses("true")
