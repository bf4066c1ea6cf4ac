"""The systemd driver against systemd itself: scopes, their properties, their end; new limits; what must not be left."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command import Pyrun
from waiting import until

pytestmark = pytest.mark.needs("systemd")
TOP = Path("/sys/fs/cgroup")


def show(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit as systemd has them."""
    done = subprocess.run(
        ["systemctl", "show", unit, *[f"--property={name}" for name in names]],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def loaded(unit: str) -> bool:
    return show(unit, "LoadState")["LoadState"] == "loaded"


class Box:
    """`pyrun-oci --systemd-cgroup` with a bundle of the busybox image."""

    def __init__(self, pyrun: Pyrun, directory: Path) -> None:
        self.directory, self.root = directory / "bundle", directory / "state"
        self.binary = pyrun.binary.with_name("pyrun-oci")
        self.directory.mkdir()
        (layer,) = json.loads(next(pyrun.root.glob("images/*/image.json")).read_text())["layers"]
        subprocess.run(["cp", "-a", layer, str(self.directory / "rootfs")], check=True)
        self("spec", "--bundle", str(self.directory))
        self.config: dict[str, Any] = json.loads((self.directory / "config.json").read_text())
        self.config["process"].update(terminal=False, args=["sleep", "1000"])
        self.linux: dict[str, Any] = self.config["linux"]
        self.linux.update(maskedPaths=[], readonlyPaths=[])  # another test's matter

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it; its container may keep standard output, so that goes to a file."""
        (self.directory / "config.json").write_text(json.dumps(self.config)) if hasattr(
            self, "config"
        ) else None
        with open(self.directory.parent / "out", "w+") as out:
            done = subprocess.run(
                [str(self.binary), "--root", str(self.root), "--systemd-cgroup", *words], stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT, timeout=120, cwd=self.directory, check=False,
            )  # fmt: skip
        text = (self.directory.parent / "out").read_text()
        return subprocess.CompletedProcess(done.args, done.returncode, text, text)

    def ok(self, *words: str) -> str:
        done = self(*words)
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def box(pyrun: Pyrun, tmp_path: Path) -> Iterator[Box]:
    made = Box(pyrun, tmp_path)
    yield made
    for each in ("c1", "c2"):
        made("delete", "--force", each)
    # slices stay until somebody says so
    subprocess.run(["systemctl", "stop", "system-test.slice"], check=False)


def test_a_scope_with_its_limits(box: Box) -> None:
    box.linux["cgroupsPath"] = "system-test.slice:pyrun:c1"
    box.linux["resources"].update(
        memory={"limit": 64 << 20, "swap": 96 << 20, "reservation": 8 << 20}, pids={"limit": 33},
        cpu={"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"}, unified={"memory.high": "50331648"},
    )  # fmt: skip
    box.ok("run", "-d", "c1")
    unit, directory = "pyrun-c1.scope", TOP / "system.slice/system-test.slice/pyrun-c1.scope"
    found = show(unit, "Slice", "Delegate", "MemoryMax", "MemorySwapMax", "MemoryLow", "MemoryHigh", "TasksMax",
                 "CPUWeight", "CPUQuotaPerSecUSec", "AllowedCPUs", "DevicePolicy", "ControlGroup")  # fmt: skip
    assert found == {
        "Slice": "system-test.slice", "Delegate": "yes", "MemoryMax": str(64 << 20), "MemorySwapMax": str(32 << 20),
        "MemoryLow": str(8 << 20), "MemoryHigh": "50331648", "TasksMax": "33", "CPUWeight": "59",
        "CPUQuotaPerSecUSec": "500ms", "AllowedCPUs": "0", "DevicePolicy": "strict",
        "ControlGroup": str(directory).removeprefix(str(TOP)),
    }  # fmt: skip
    files = {"memory.max": str(64 << 20), "memory.swap.max": str(32 << 20), "memory.low": str(8 << 20),
             "pids.max": "33",
             "cpu.weight": "59", "cpu.max": "50000 100000", "cpuset.cpus": "0", "memory.high": "50331648"}  # fmt: skip
    for name, value in files.items():
        assert (directory / name).read_text().strip() == value, name
    pid = json.loads(box.ok("state", "c1"))["pid"]
    assert Path(f"/proc/{pid}/cgroup").read_text().strip() == f"0::{str(directory).removeprefix(str(TOP))}"
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    for name, value in files.items():
        assert (directory / name).read_text().strip() == value, f"{name} after daemon-reload"
    box.ok("delete", "--force", "c1")
    assert not directory.exists()
    assert not loaded(unit)


def test_the_default(box: Box) -> None:
    box.linux.pop("cgroupsPath", None)
    box.ok("run", "-d", "c1")
    assert (TOP / "system.slice/pyrun-oci-c1.scope/cgroup.procs").read_text().strip()
    assert len(json.loads(box.ok("ps", "-f", "json", "c1"))) == 1
    box.ok("pause", "c1")
    assert json.loads(box.ok("state", "c1"))["status"] == "paused"
    box.ok("resume", "c1")
    assert box.ok("exec", "c1", "cat", "/proc/self/cgroup").startswith("0::/")
    box.ok("kill", "c1", "KILL")
    until(lambda: not loaded("pyrun-oci-c1.scope"))
    box.ok("delete", "c1")


def test_updates_reach_systemd(box: Box) -> None:
    box.ok("run", "-d", "c1")
    directory = TOP / "system.slice/pyrun-oci-c1.scope"
    box.ok(
        "update", "--memory", "48m", "--memory-swap", "48m", "--pids-limit", "44", "--cpu-share", "2048", "c1"
    )
    found = show("pyrun-oci-c1.scope", "MemoryMax", "MemorySwapMax", "TasksMax", "CPUWeight")
    assert found == {"MemoryMax": str(48 << 20), "MemorySwapMax": "0", "TasksMax": "44", "CPUWeight": "174"}
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert (directory / "memory.max").read_text().strip() == str(48 << 20)
    assert (directory / "cpu.weight").read_text().strip() == "174"


def test_devices(box: Box) -> None:
    """Both programs, systemd's and ours, let through what is allowed and nothing else."""
    for kind in ("bounding", "permitted", "effective"):
        box.config["process"]["capabilities"][kind].append("CAP_MKNOD")
    box.config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 240, "minor": 7, "access": "r"},
    ]
    box.linux["resources"]["devices"] = rules
    box.ok("run", "-d", "c1")
    for minor, answer in ((7, "No such device"), (8, "not permitted")):
        box.ok("exec", "c1", "mknod", f"/tmp/{minor}", "c", "240", str(minor))
        assert answer in box("exec", "c1", "cat", f"/tmp/{minor}").stdout
    (box.directory / "new.json").write_text(json.dumps({"devices": rules[:1]}))
    box.ok("update", "-r", "new.json", "c1")
    assert "not permitted" in box("exec", "c1", "cat", "/tmp/7").stdout
    box.ok("exec", "c1", "sh", "-c", "echo x > /dev/null")


def test_annotations(box: Box) -> None:
    box.config["annotations"] = {
        "org.systemd.property.TimeoutStopSec": "7",
        "org.systemd.property.MemoryHigh": "uint64 9000000",
    }
    box.ok("run", "-d", "c1")
    assert show("pyrun-oci-c1.scope", "TimeoutStopUSec", "MemoryHigh") == {
        "TimeoutStopUSec": "7s",
        "MemoryHigh": "9000000",
    }
    box.config["annotations"] = {"org.systemd.property.ExecStartPre": "'/bin/touch /run/owned'"}
    done = box("create", "c2")
    assert done.returncode == 1
    assert "ExecStartPre: this property may not be set" in done.stdout
    assert not Path("/run/owned").exists()


def test_killed_for_memory_and_collected(box: Box) -> None:
    """The unit fails (oom-kill); it goes all the same, and its name can be used again."""
    box.linux["resources"]["memory"] = {"limit": 24 << 20, "swap": 24 << 20}
    box.config["process"]["args"] = ["sh", "-c", "x=$(head -c 60000000 /dev/zero | tr '\\0' a); sleep 1000"]
    box.ok("run", "-d", "c1")
    until(lambda: json.loads(box.ok("state", "c1"))["status"] == "stopped", timeout_s=60)
    until(lambda: not loaded("pyrun-oci-c1.scope"))
    box.ok("delete", "c1")
    box.config["process"]["args"] = ["sleep", "1000"]
    box.ok("run", "-d", "c1")


def test_a_start_that_fails_leaves_no_unit(box: Box) -> None:
    box.config["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "x"})
    assert box("create", "c1").returncode == 1
    until(lambda: not loaded("pyrun-oci-c1.scope"))
    assert not (TOP / "system.slice/pyrun-oci-c1.scope").exists()


def test_a_name_that_is_taken(box: Box) -> None:
    box.linux["cgroupsPath"] = "system.slice:pyrun:same"
    box.ok("run", "-d", "c1")
    done = box("create", "c2")
    assert done.returncode == 1
    assert "container's cgroup is not empty: " in done.stdout
    assert json.loads(box.ok("state", "c1"))["status"] == "running"


def test_a_path_for_the_other_driver(box: Box) -> None:
    box.linux["cgroupsPath"] = "/a/b"
    assert "must be SLICE:PREFIX:NAME with --systemd-cgroup" in box("create", "c1").stdout


# ── a user's own systemd ───────────────────────────────────────────────────────────────────────────


def users() -> list[str]:
    """Words that run a command as the guest's user, by that user's systemd."""
    return ["systemd-run", "--machine=user@.host", "--user", "--quiet", "--wait", "--pipe", "--collect"]


@pytest.fixture
def rootless(box: Box) -> Iterator[Path]:
    """A bundle of the user's."""
    where = Path("/var/tmp/rootless-bundle")
    subprocess.run(["cp", "-a", str(box.directory), str(where)], check=True)
    subprocess.run(["chown", "-R", "user:user", str(where)], check=True)
    (where / "config.json").unlink()
    subprocess.run([*users(), str(box.binary), "spec", "--rootless", "--bundle", str(where)], check=True)
    yield where
    subprocess.run(["rm", "-rf", str(where)], check=True)
    # what the user's systemd has started meanwhile (its bus, slices) is nothing of ours
    subprocess.run(["systemctl", "restart", "user@1000.service"], check=True)


def test_a_users_container_is_a_scope_of_the_users_systemd(box: Box, rootless: Path) -> None:
    config = json.loads((rootless / "config.json").read_text())
    config["process"].update(terminal=False, args=["sleep", "1000"])
    config["linux"]["resources"] = {"memory": {"limit": 32 << 20}, "pids": {"limit": 44}}
    (rootless / "config.json").write_text(json.dumps(config))
    command = [*users(), f"--working-directory={rootless}", str(box.binary)]
    done = subprocess.run([*command, "run", "u1"], capture_output=True, text=True, timeout=120)
    assert "linux.resources.memory: the container has no cgroup to set it in" in done.stdout + done.stderr
    running = subprocess.Popen([*command, "--systemd-cgroup", "run", "u1"], stdin=subprocess.DEVNULL)
    own = TOP / "user.slice/user-1000.slice/user@1000.service/user.slice/pyrun-oci-u1.scope"
    until(lambda: own.exists() and (own / "pids.max").read_text().strip() == "44", timeout_s=60)
    assert (own / "memory.max").read_text().strip() == str(32 << 20)
    until(
        lambda: (
            '"running"' in subprocess.run([*command, "state", "u1"], capture_output=True, text=True).stdout
        ),
        timeout_s=60,
    )
    subprocess.run(
        [*command, "--systemd-cgroup", "update", "--pids-limit", "50", "u1"], check=True, timeout=120
    )
    assert (own / "pids.max").read_text().strip() == "50"
    subprocess.run([*command, "kill", "u1", "KILL"], check=True, timeout=120)
    running.wait(60)
    until(lambda: not own.exists())
