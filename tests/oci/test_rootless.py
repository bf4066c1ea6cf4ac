"""An ordinary user calls the runtime: a user namespace, one id of its own or ranges, no cgroup of its own.

The container's root file system is the user's; without ranges in /etc/subuid only one id is mapped, and setgroups is
gone for good.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oci import runtime as runtimes
from oci.box import Box
from oci.marks import shows
from unprivileged import COUNT, SOLO, TESS, User, as_user, make_users

pytestmark = pytest.mark.needs("user_namespaces")
_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class UsersRuntime(runtimes.Runtime):
    """A runtime as *user* calls it."""

    user: User = SOLO

    def command(self, root: Path, words: tuple[str, ...], globals_: tuple[str, ...] = ()) -> list[str]:
        line = super().command(root, words, globals_)
        at = line.index(self.program)
        return [*line[:at], *as_user(self.user, *line[at:])]


class UsersBox(Box):
    """A bundle that is the user's, with what `spec --rootless` would change in it."""

    def __init__(
        self, runtime: runtimes.Runtime, user: User, directory: Path, template: Path, name: str
    ) -> None:
        super().__init__(UsersRuntime(**dataclasses.asdict(runtime), user=user), directory, template, name)
        self.user = user
        self.namespace("user")
        self.map(user.uid)
        del self.linux["cgroupsPath"], self.linux["resources"]
        for mount in self.config["mounts"]:
            mount["options"] = [each for each in mount.get("options", []) if each != "gid=5"]
        paths = [str(path) for path in (directory, self.bundle, self.rootfs, *self.rootfs.iterdir())]
        subprocess.run(["chown", "-h", f"{user.uid}:{user.uid}", *paths], check=True)

    def map(self, own: int, first: int = 0) -> None:
        """Root is the user; with *first*, the ids from 1 on are those from there on."""
        ranges = [{"containerID": 0, "hostID": own, "size": 1}]
        if first:
            ranges.append({"containerID": 1, "hostID": first, "size": COUNT})
        self.linux["uidMappings"] = self.linux["gidMappings"] = ranges


@pytest.fixture(params=[SOLO, TESS], ids=lambda user: user.name)
def user(request: pytest.FixtureRequest) -> User:
    make_users()
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def box(runtime: runtimes.Runtime, user: User, work: Path, root_template: Path) -> Iterator[UsersBox]:
    name = f"user-{os.getpid()}-{next(_numbers)}"
    box = UsersBox(runtime, user, work / name, root_template, name)
    yield box
    box.close()
    states = [path.name for path in box.root.rglob("*") if not (path.name.startswith(".") and path.is_dir())]
    shutil.rmtree(box.directory, ignore_errors=True)
    assert runtime.name != "pyrun-oci" or not states, f"left in the state directory: {states}"


tess = pytest.mark.parametrize("user", [TESS], indirect=True, ids=["tess"])
solo = pytest.mark.parametrize("user", [SOLO], indirect=True, ids=["solo"])


@shows("config: linux.uidMappings[].hostID", "config: linux.gidMappings[].hostID")
def test_root_inside_is_the_user_outside(box: UsersBox, user: User) -> None:
    box.config["mounts"][-1]["options"] = ["nosuid", "noexec", "nodev", "ro"]
    box.bind("/data", box.rootfs / "data")
    printed = box.sh("id -u; id -g; cat /proc/self/uid_map; touch /data/file; ls -ln /data/file")
    assert printed.splitlines()[:2] == ["0", "0"]
    assert printed.splitlines()[2].split() == ["0", str(user.uid), "1"]
    status = (box.rootfs / "data/file").stat()
    assert (status.st_uid, status.st_gid) == (user.uid, user.uid)


@tess
@shows("config: linux.uidMappings[].hostID", "config: linux.gidMappings[].hostID")
def test_ranges_of_subuid(box: UsersBox, user: User) -> None:
    """By newuidmap and newgidmap: then there are users and groups."""
    box.known_to_differ("runc", "it refuses additional groups to whoever is not root")
    box.map(user.uid, user.first)
    box.process["user"] = {"uid": 33, "gid": 34, "additionalGids": [5]}
    assert box.sh("id -u; id -g; id -G; wc -l </proc/self/uid_map").split() == ["33", "34", "34", "5", "2"]


@tess
def test_a_range_of_somebody_else(box: UsersBox, user: User) -> None:
    box.map(user.uid, 400_000)
    assert "not allowed" in box.refuses("true")


@solo
def test_lifecycle(box: UsersBox) -> None:
    box.create("sleep", "1000")
    assert box.status == "created"
    box.start()
    assert box.status == "running"
    assert box.exec("id", "-u") == "0"
    assert os.stat(f"/proc/{box.pid}").st_uid in (SOLO.uid, 0)
    assert box.exec("sh", "-c", "kill -0 1; echo $?") == "0"
    box.ok("kill", box.id, "KILL")
    box.wait_for("stopped")
    box.ok("delete", box.id)
    box.fails("state", box.id)


@solo
@shows("delete --force")
def test_delete_force(box: UsersBox) -> None:
    box.detach()
    box.ok("delete", "--force", box.id)
    box.fails("state", box.id)


@solo
def test_exec_does_not_leave_the_container(box: UsersBox) -> None:
    """The process is in every namespace of the container's, with its identity and no more capabilities."""
    box.detach()
    pid = box.pid
    names = ("user", "pid", "mnt", "net", "ipc", "uts")
    there = [os.readlink(f"/proc/{pid}/ns/{name}") for name in names]
    script = "; ".join(f"readlink /proc/self/ns/{name}" for name in names)
    assert box.exec("sh", "-c", script).split() == there
    field = "grep CapEff /proc/self/status"
    assert box.exec("sh", "-c", field) == box.exec("sh", "-c", "grep CapEff /proc/1/status")


@solo
def test_an_unmapped_user(box: UsersBox) -> None:
    box.known_to_differ("crun", "it says: setresuid: Invalid argument")
    box.process["user"] = {"uid": 5, "gid": 0}
    assert "unmapped user" in box.refuses("true")
    box.process["user"] = {"uid": 0, "gid": 0}
    box.detach()
    assert "unmapped user" in box.fails("exec", "--user", "5", box.id, "true")


@solo
def test_groups_that_cannot_be_set_are_left_out(box: UsersBox) -> None:
    box.known_to_differ("runc", "it refuses the config instead")
    box.process["user"] = {"uid": 0, "gid": 0, "additionalGids": [5]}
    assert box.sh("cat /proc/self/setgroups; id -G").split() == ["deny", "0"]


@solo
def test_devices_are_the_hosts(box: UsersBox) -> None:
    script = "echo lost >/dev/null; head -c4 /dev/zero | wc -c; stat -c %t:%T /dev/null /dev/urandom"
    assert box.sh(script).split() == ["4", "1:3", "1:9"]
    assert os.stat("/dev/null").st_uid == 0


@solo
@shows("config: linux.resources.memory.limit")
def test_a_limit_without_a_cgroup(box: UsersBox) -> None:
    box.known_to_differ("crun", "it ignores limits that it cannot set")
    box.linux["resources"] = {"memory": {"limit": 64 << 20}}
    assert "cgroup" in box.refuses("true")


@solo
@pytest.mark.parametrize("how", ["sysfs", "rbind"])
def test_no_cgroup_of_the_hosts_can_be_written(box: UsersBox, how: str) -> None:
    """CVE-2023-25809: with the host's /sys and no cgroup namespace, the hierarchies in it stay read-only."""
    box.known_to_differ("runc", "it cannot mount cgroup v1 for a user without a cgroup namespace")
    mounts: list[dict[str, Any]] = box.config["mounts"]
    mounts.pop()
    if how == "sysfs":
        mounts.append({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]})
    else:
        box.without_namespace("network")
        options = ["rbind", "nosuid", "noexec", "nodev", "ro"]
        mounts.append({"destination": "/sys", "type": "none", "source": "/sys", "options": options})
    mounts.append(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid"]}
    )
    writable = (
        "find /sys/fs/cgroup -writable -type d 2>/dev/null | while read d; do mkdir $d/x && echo $d; done"
    )
    assert box.sh(f"{writable}; true") == ""


@solo
def test_spec_rootless(box: UsersBox) -> None:
    """What `spec --rootless` writes can be run as it is, by who wrote it."""
    box.known_to_differ("crun", "its `spec --rootless` leaves the mappings to `run`")
    bundle = box.directory / "written"
    bundle.mkdir()
    os.chown(bundle, SOLO.uid, SOLO.uid)
    box.ok("spec", "--rootless", "--bundle", str(bundle), cwd=bundle)
    config = json.loads((bundle / "config.json").read_text())
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": SOLO.uid, "size": 1}]
    config["process"] |= {"args": ["id", "-u"], "terminal": False}
    config["root"]["path"] = str(box.rootfs)
    (bundle / "config.json").write_text(json.dumps(config))
    assert box.ok("run", "--bundle", str(bundle), box.id) == "0"


@solo
def test_without_a_user_namespace(box: UsersBox) -> None:
    box.known_to_differ("crun", "it adds one")
    box.without_namespace("user")
    assert "user namespace" in box.refuses("true").lower()


@tess
def test_root_of_a_user_namespace(box: UsersBox, user: User) -> None:
    """As podman calls it: uid 0 of a user namespace, in a mount namespace of its own; no further user namespace."""
    box.without_namespace("user")
    del box.linux["uidMappings"], box.linux["gidMappings"]
    box.write("sh", "-c", "id -u; cat /proc/self/uid_map; ls -A /sys/class/net")
    line = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--",
        box.runtime.program,
        "--root",
        str(box.root),
    ]
    done = subprocess.run(as_user(user, *line, "run", "--bundle", str(box.bundle), box.id), capture_output=True,
                          text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)  # fmt: skip
    if box.runtime.name == "crun" and runtimes.is_hybrid():
        pytest.xfail("crun 1.8 refuses hybrid cgroups")
    assert done.stdout.split() == ["0", "0", str(user.uid), "1", "lo"], done.stderr


@solo
def test_hooks_where_the_caller_may_not_be(box: UsersBox, tmp_path: Path) -> None:
    """As after `sudo -u`, in a home of root's: there is a bundle to be in all the same."""
    (closed := tmp_path / "closed").mkdir(mode=0o700)
    script = ["sh", "-c", f"cat >/dev/null; pwd >{box.rootfs}/data/$0"]
    kinds = ("createRuntime", "poststart", "poststop")
    box.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": [*script, kind], "env": ["PATH=/usr/bin:/bin"]}] for kind in kinds
    }
    box.run("true", cwd=closed)
    assert [(box.rootfs / "data" / kind).read_text() for kind in kinds] == [f"{box.bundle}\n"] * 3
