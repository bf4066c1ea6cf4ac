"""pyrun-oci's control groups, from the command line: nothing is left, limits are felt, errors name the field."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command import Pyrun
from waiting import until

TOP = Path("/sys/fs/cgroup")
V2 = (TOP / "cgroup.controllers").exists()


class Bundle:
    """A bundle of the busybox image and `pyrun-oci` with a state directory of its own."""

    def __init__(self, pyrun: Pyrun, directory: Path) -> None:
        self.directory, self.root = directory / "bundle", directory / "state"
        self.binary = pyrun.binary.with_name("pyrun-oci")
        self.directory.mkdir()
        (layer,) = json.loads(next(pyrun.root.glob("images/*/image.json")).read_text())["layers"]
        subprocess.run(["cp", "-a", layer, str(self.directory / "rootfs")], check=True)
        self("spec", "--bundle", str(self.directory))
        self.config: dict[str, Any] = json.loads((self.directory / "config.json").read_text())
        self.config["process"]["terminal"] = False
        self.resources: dict[str, Any] = self.config["linux"]["resources"]

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.binary), "--root", str(self.root), *words], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=60, cwd=self.directory,
        )  # fmt: skip

    def ok(self, *words: str) -> str:
        done = self(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *words: str) -> str:
        done = self(*words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def write(self, *command: str) -> None:
        self.config["process"]["args"] = list(command)
        (self.directory / "config.json").write_text(json.dumps(self.config))

    def detached(self, *words: str) -> None:
        """A command whose container outlives it: nobody must wait for the end of its output."""
        with open(self.directory / "out", "w") as out:
            subprocess.run(
                [str(self.binary), "--root", str(self.root), *words],
                check=True, cwd=self.directory, stdout=out, stdin=subprocess.DEVNULL, timeout=60,
            )  # fmt: skip

    def start(self, identifier: str, *command: str) -> dict[str, Any]:
        """A container that runs; its standard output goes to the file `out`."""
        self.write(*command)
        self.detached("run", "-d", identifier)
        state: dict[str, Any] = json.loads((self.root / identifier / "state.json").read_text())
        return state


@pytest.fixture
def bundle(pyrun: Pyrun, tmp_path: Path) -> Iterator[Bundle]:
    before = cgroups()
    made = Bundle(pyrun, tmp_path)
    yield made
    for identifier in made("list", "-q").stdout.split():
        made("delete", "--force", identifier)
    until(lambda: cgroups() <= before)


def cgroups() -> set[Path]:
    return {path for path in TOP.rglob("*") if path.is_dir() and "pyrun-lab" not in str(path)}


def group(state: dict[str, Any], controller: str) -> Path:
    found = {name: path for names, path in state["cgroups"] for name in names.split(",")}
    return Path(found["unified"] if V2 else found[controller])


@pytest.mark.parametrize("path", ["", "/made/for/it", "relative/of/ours"])
def test_parents_that_were_made_go_with_the_container(bundle: Bundle, path: str) -> None:
    before = cgroups()
    bundle.config["linux"]["cgroupsPath"] = path
    state = bundle.start("c1", "sleep", "100")
    assert group(state, "memory").is_dir()
    bundle.ok("delete", "--force", "c1")
    assert cgroups() == before


def test_a_parent_that_somebody_else_uses_stays(bundle: Bundle) -> None:
    bundle.config["linux"]["cgroupsPath"] = "/shared/one"
    first = bundle.start("c1", "sleep", "100")
    bundle.config["linux"]["cgroupsPath"] = "/shared/two"
    second = bundle.start("c2", "sleep", "100")
    began = time.monotonic()
    bundle.ok("delete", "--force", "c1")
    assert time.monotonic() - began < 1.5, "nobody waits for a parent that is in use"
    assert not group(first, "memory").exists()
    assert group(second, "memory").exists()
    bundle.ok("delete", "--force", "c2")
    for path in cgroups():  # c2 found it there: not its own to take away
        if path.name == "shared":
            path.rmdir()


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("pids", {"limit": 1}, ""),
        ("unified", {"nonsense.max": "1"}, "linux.resources.unified"),
        ("hugepageLimits", [{"pageSize": "3MB", "limit": 1}], "linux.resources.hugepageLimits"),
        ("rdma", {"nosuch0": {"hcaHandles": 1}}, "linux.resources.rdma.nosuch0"),
    ],
)
def test_a_start_that_fails_leaves_nothing(bundle: Bundle, section: str, value: object, words: str) -> None:
    before = cgroups()
    bundle.config["linux"]["cgroupsPath"] = "/made/for/it"
    if words:
        bundle.resources[section] = value
    else:
        bundle.config["linux"]["rootfsPropagation"] = "shared"
        bundle.config["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "x"})
    bundle.write("true")
    assert words in bundle.fails("create", "c1")
    assert cgroups() == before
    assert bundle("list", "-q").stdout == ""


def test_a_cgroup_that_is_lived_in(bundle: Bundle) -> None:
    bundle.config["linux"]["cgroupsPath"] = "/taken"
    bundle.start("c1", "sleep", "100")
    assert "container's cgroup is not empty: " in bundle.fails("create", "c2")
    assert '"running"' in bundle.ok("state", "c1")


def test_disabled(bundle: Bundle) -> None:
    """crun's --cgroup-manager=disabled: the container stays where its caller is."""
    before = cgroups()
    bundle.resources.clear()
    bundle.write("cat", "/proc/self/cgroup")
    done = bundle("--cgroup-manager", "disabled", "run", "c1")
    assert done.returncode == 0, done.stderr
    assert cgroups() == before
    bundle.resources["pids"] = {"limit": 5}
    bundle.write("true")
    assert "linux.resources.pids" in bundle.fails("--cgroup-manager", "disabled", "run", "c1")


def test_the_limits_hold(bundle: Bundle) -> None:
    bundle.resources.update(pids={"limit": 4}, memory={"limit": 32 << 20, "swap": 32 << 20})
    forks = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
    bundle.write("sh", "-c", forks)
    assert "fork" in bundle("run", "c1").stderr
    bundle.write("sh", "-c", "x=$(head -c 60000000 /dev/zero | tr '\\0' a); echo never")
    done = bundle("run", "c2")
    assert done.returncode != 0 and "never" not in done.stdout


def test_pause_update_resume(bundle: Bundle) -> None:
    state = bundle.start("c1", "sh", "-c", "while :; do echo x; sleep 0.02; done")
    out = bundle.directory / "out"
    until(lambda: out.stat().st_size > 4)
    bundle.ok("pause", "c1")
    assert json.loads(bundle.ok("state", "c1"))["status"] == "paused"
    size = out.stat().st_size
    assert "container not running" in bundle.fails("pause", "c1")
    bundle.ok("update", "--pids-limit", "50", "--memory", "64m", "c1")
    assert (group(state, "pids") / "pids.max").read_text() == "50\n"
    assert out.stat().st_size == size
    bundle.ok("resume", "c1")
    assert "container not paused" in bundle.fails("resume", "c1")
    until(lambda: out.stat().st_size > size)


def test_a_created_container_can_be_paused(bundle: Bundle) -> None:
    bundle.write("true")
    bundle.detached("create", "c1")
    bundle.ok("pause", "c1")
    bundle.ok("resume", "c1")
    bundle.ok("start", "c1")
    until(lambda: json.loads(bundle.ok("state", "c1"))["status"] == "stopped")
    assert "container not running" in bundle.fails("pause", "c1")


def test_an_update_is_remembered(bundle: Bundle) -> None:
    """The second one knows of the first: quota and period are one file in v2."""
    bundle.resources["cpu"] = {"quota": 20000, "period": 100000}
    state = bundle.start("c1", "sleep", "100")
    bundle.ok("update", "--cpu-quota", "30000", "c1")
    bundle.ok("update", "--cpu-period", "50000", "c1")
    cpu = json.loads((bundle.root / "c1" / "config.json").read_text())["linux"]["resources"]["cpu"]
    assert cpu == {"quota": 30000, "period": 50000}
    if V2:
        assert (group(state, "cpu") / "cpu.max").read_text() == "30000 50000\n"
    else:
        assert (group(state, "cpu") / "cpu.cfs_quota_us").read_text() == "30000\n"


def test_devices_are_updated(bundle: Bundle) -> None:
    """podman and Docker hand over whole resources, the device rules among them."""
    for kind in ("bounding", "permitted", "effective"):
        bundle.config["process"]["capabilities"][kind].append("CAP_MKNOD")
    bundle.config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    bundle.resources["devices"] = [{"allow": False, "access": "rwm"}]
    bundle.start("c1", "sleep", "100")
    bundle.ok("exec", "c1", "mknod", "/tmp/z", "c", "240", "7")  # a number without a driver
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 240, "minor": 7, "access": "r"},
    ]
    for given, answer in ((None, "not permitted"), (rules, "No such device"), (rules[:1], "not permitted")):
        if given:
            (bundle.directory / "new.json").write_text(json.dumps({"devices": given}))
            bundle.ok("update", "-r", "new.json", "c1")
        assert answer in bundle("exec", "c1", "cat", "/tmp/z").stderr
    bundle.ok("exec", "c1", "sh", "-c", "echo x >/dev/null")


def test_oom_events(bundle: Bundle) -> None:
    bundle.resources["memory"] = {"limit": 32 << 20, "swap": 32 << 20}
    eats = "sleep 1; (x=$(head -c 60000000 /dev/zero | tr '\\0' a)); sleep 1"
    bundle.start("c1", "sh", "-c", eats)
    done = bundle("events", "--interval", "300ms", "c1")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"type": "oom", "id": "c1"} in found
    assert any(each["type"] == "stats" and each["data"]["pids"]["current"] for each in found)


def test_ps(bundle: Bundle) -> None:
    bundle.start("c1", "sh", "-c", "sleep 100 & sleep 101 & wait")
    until(lambda: len(json.loads(bundle.ok("ps", "-f", "json", "c1"))) == 3)
    lines = bundle.ok("ps", "c1", "-o", "pid,args").splitlines()
    assert lines[0].split() == ["PID", "COMMAND"]
    assert {line.split(None, 1)[1] for line in lines[1:]} >= {"sleep 100", "sleep 101"}
    assert "couldn't find PID field" in bundle.fails("ps", "c1", "-o", "args")


@pytest.mark.needs("no_resctrl")
def test_rdt_that_is_not_there(bundle: Bundle) -> None:
    bundle.config["linux"]["intelRdt"] = {"closID": "gold"}
    bundle.write("true")
    assert "linux.intelRdt: this host has no resctrl file system" in bundle.fails("create", "c1")


def test_exec_joins_the_resctrl_group(bundle: Bundle, tmp_path: Path) -> None:
    """Directories take the place of groups; which they are is noted by `create`."""
    state = bundle.start("c1", "sleep", "100")
    assert state["rdt"] is None
    group, monitor = tmp_path / "gold", tmp_path / "gold/mon_groups/c1"
    monitor.mkdir(parents=True)
    for each in (group, monitor):
        (each / "tasks").touch()
    state["rdt"] = {"directory": str(group), "monitor": str(monitor)}
    (bundle.root / "c1/state.json").write_text(json.dumps(state))
    bundle.detached("exec", "-d", "--pid-file", str(tmp_path / "pid"), "c1", "sleep", "100")
    entered = (group / "tasks").read_text()
    assert entered == (monitor / "tasks").read_text()
    # init's, of which the command is a child: the kernel has it in the group of its parent
    assert 1 < int(entered) < int((tmp_path / "pid").read_text()) and not Path(f"/proc/{entered}").exists()


@pytest.mark.needs("cgroup2")
def test_delegation(bundle: Bundle) -> None:
    """The container's root may make cgroups below its own, and cannot change its own limits."""
    linux = bundle.config["linux"]
    linux["namespaces"] += [{"type": "user"}] + (
        [] if {"type": "cgroup"} in linux["namespaces"] else [{"type": "cgroup"}]
    )
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    linux.update(uidMappings=mapping, gidMappings=mapping)
    bundle.resources["pids"] = {"limit": 50}
    subprocess.run(["chown", "-R", "100000:100000", str(bundle.directory / "rootfs")], check=True)
    os.chmod(bundle.directory.parent, 0o755)
    for mount in bundle.config["mounts"]:
        if mount["type"] in ("cgroup", "cgroup2"):
            mount["options"] = ["nosuid", "noexec", "nodev"]
    script = "cd /sys/fs/cgroup && mkdir a && echo $$ > a/cgroup.procs && echo +pids > cgroup.subtree_control"
    bundle.write("sh", "-c", f"{script} && cat a/pids.max; echo 60 > pids.max || echo kept")
    done = bundle("run", "c1")
    assert done.stdout.split() == ["max", "kept"], done.stderr
