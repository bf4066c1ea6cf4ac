"""A user with a systemd of their own: limits for pyrun-oci and for `pyrun run`, by cgroups delegated to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from unprivileged import User, UserPyrun
from vm.container import TOP, Container, Owner
from waiting import until

pytestmark = pytest.mark.needs("systemd")
MB = 1 << 20


# ── pyrun-oci --systemd-cgroup ─────────────────────────────────────────────────────────────────────


def test_life(users_container: Container, lingering: Owner) -> None:
    box = users_container
    box.resources.update(
        memory={"limit": 64 * MB, "swap": 64 * MB}, pids={"limit": 33}, cpu={"quota": 50000, "period": 100000}
    )
    box.create("sleep", "1000")
    place = box.place
    uid = lingering.uid
    assert place == TOP / f"user.slice/user-{uid}.slice/user@{uid}.service/guest.slice/{box.unit}"
    assert box.show("Slice", "Delegate", "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec", "ActiveState") == {
        "Slice": "guest.slice", "Delegate": "yes", "MemoryMax": str(64 * MB), "TasksMax": "33",
        "CPUQuotaPerSecUSec": "500ms", "ActiveState": "active",
    }  # fmt: skip
    names = ("memory.max", "memory.swap.max", "pids.max", "cpu.max")
    assert box.read(*names) == [str(64 * MB), "0", "33", "50000 100000"]
    assert place.stat().st_uid == uid
    box.start()
    assert os.stat(f"/proc/{box.pid}").st_uid == uid
    box.ok("kill", box.id, "KILL")
    box.wait_for("stopped")
    box.forget(place)


def test_every_process_is_in_the_scope(users_container: Container) -> None:
    """The user may not move a process across what systemd delegates; systemd may."""
    box = users_container
    box.detach()
    box.exec("sleep", "900", options=("--detach",))
    until(lambda: len(box.pids()) == 2, "two processes")
    assert len({Path(f"/proc/{pid}/cgroup").read_text() for pid in box.pids()}) == 1


def test_pause_update_resume(users_container: Container) -> None:
    box = users_container
    box.detach()
    box.ok("pause", box.id)
    assert box.status == "paused"
    box.ok("update", "--memory", "48m", "--memory-swap", "48m", "--pids-limit", "44", box.id)
    box.ok("resume", box.id)
    assert box.read("memory.max", "pids.max", "cgroup.freeze") == [str(48 * MB), "44", "0"]
    assert box.show("MemoryMax", "TasksMax") == {"MemoryMax": str(48 * MB), "TasksMax": "44"}


def test_the_limit_is_felt(users_container: Container) -> None:
    box = users_container
    box.resources["memory"] = {"limit": 24 * MB, "swap": 24 * MB}
    printed = box.sh("tail /dev/zero; echo $?")
    assert printed.splitlines()[-1] == "137"


def test_the_users_ranges(users_container: Container, lingering: Owner) -> None:
    box = users_container
    box.process["user"] = {"uid": 33, "gid": 34, "additionalGids": [5]}
    box.detach()
    assert os.stat(f"/proc/{box.pid}").st_uid == lingering.first + 32
    assert box.exec("id", "-G") == "34 5"


def test_forced_end(users_container: Container) -> None:
    box = users_container
    box.detach("sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000 & wait; sleep 1000")
    place = box.place
    box.ok("delete", "--force", box.id)
    assert not place.exists()
    until(lambda: box.show("LoadState")["LoadState"] == "not-found", "the end of the unit")


def test_spec_rootless(users_container: Container, lingering: Owner) -> None:
    """What `spec --rootless` writes, as it is: neither limits nor a cgroup."""
    box = users_container
    bundle = box.directory / "written"
    bundle.mkdir()
    os.chown(bundle, lingering.uid, lingering.uid)
    box.ok("spec", "--rootless", "--bundle", str(bundle), cwd=bundle)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": ["sh", "-c", "id -u; cat /proc/self/uid_map"], "terminal": False}
    config["root"]["path"] = str(box.rootfs)
    (bundle / "config.json").write_text(json.dumps(config))
    assert box.ok("run", "--bundle", str(bundle), box.id).split() == ["0", "0", str(lingering.uid), "1"]


# ── pyrun run ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def users_pyrun(static_binary: Path, prepared_store: Path, lingering: Owner) -> Iterator[UserPyrun]:
    command = UserPyrun(static_binary, User("user", lingering.uid, lingering.first))
    command.env["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path=/run/user/{lingering.uid}/bus"
    command.copy_store(prepared_store)
    yield command
    command.close()


def test_run_with_limits(users_pyrun: UserPyrun) -> None:
    """The user's systemd makes a scope for it, which ends with the container."""
    limits = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "30"]
    users_pyrun.ok("run", "-d", "--name", "box", "--net=none", *limits, "busybox", "sleep", "1000")
    pid = int(str(users_pyrun.state("box")["pid"]))
    (line,) = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    place = TOP / line.removeprefix("0::/")
    assert f"/user@{users_pyrun.user.uid}.service/" in str(place) and place.suffix == ".scope"
    names = ("memory.max", "cpu.max", "pids.max")
    assert [(place / name).read_text().strip() for name in names] == [str(64 * MB), "50000 100000", "30"]
    users_pyrun.ok("exec", "-d", "box", "sleep", "900")
    until(lambda: len((place / "cgroup.procs").read_text().split()) == 2, "the second process")
    users_pyrun.ok("stop", "-t", "1", "box")
    until(lambda: not place.exists(), "the end of the scope")


def test_run_beyond_the_memory_limit(users_pyrun: UserPyrun) -> None:
    done = users_pyrun("run", "--rm", "--net=none", "-m", "16m", "busybox", "tail", "/dev/zero")
    assert done.returncode == 137, done.stderr


def test_run_with_pasta(users_pyrun: UserPyrun) -> None:
    """The default network of a user; the guest has no other than lo, and pasta is content with it."""
    done = users_pyrun("run", "--rm", "busybox", "ls", "/sys/class/net")
    assert done.returncode == 0, done.stderr
    assert "lo" in done.stdout.split()
