"""config.json without a mount namespace: the container's root is a chroot, its mounts are the host's, and go with it.

The mount namespace that is shared is the lab host's for pyrun-oci. References change the propagation of its root, and
leave their mounts behind: they get a copy of it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci.box import Box
from oci.marks import NEITHER, shows
from waiting import until

HERE = "namespaces: without a mount namespace the container is in the runtime's"
GONE = "namespaces: of mounts in the runtime's mount namespace none is left"
APART = ("unshare", "--mount", "--propagation", "private")
PLACES = "cut -d' ' -f5 /proc/self/mountinfo | sort | tr '\\n' ' '"


def shared(box: Box) -> Box:
    """Without a mount namespace, and what needs one."""
    box.without_namespace("mount")
    box.linux["maskedPaths"] = box.linux["readonlyPaths"] = []
    (box.rootfs / "etc/mark").write_text("the container's\n")
    return box


def mounted() -> list[str]:
    """Every mount of this namespace, with its propagation but without the numbers of mounts."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sorted(line.split(" ", 3)[3] for line in lines)


@pytest.fixture
def spreading(box: Box) -> Iterator[Box]:
    """State and bundle on a mount that is shared, as the root is where systemd is."""
    subprocess.run(["mount", "--bind", box.directory, box.directory], check=True)
    subprocess.run(["mount", "--make-shared", box.directory], check=True)
    yield shared(box)
    box.call("delete", "--force", box.id)
    subprocess.run(["umount", "--lazy", box.directory], check=True)


@shows("config: linux.namespaces[].type", HERE)
def test_the_same_as_under_runc(box: Box) -> None:
    shared(box)
    script = f"readlink /proc/self/ns/mnt; cat /etc/mark; pwd; touch /x; ls /etc; {PLACES}"
    told = box.sh(script, prefix=(*APART, "sh", "-c", 'readlink /proc/self/ns/mnt; exec "$@"', "sh"))
    ours, theirs, mark, where, *files, places = told.splitlines()
    assert ours == theirs or box.runtime.name == "crun"  # itself in a mount namespace of the tests
    assert (mark, where, sorted(files)) == ("the container's", "/", ["group", "mark", "passwd"])
    # crun has no mount for the root itself
    assert set(places.split()) | {"/"} == {"/", *[each["destination"] for each in box.config["mounts"]]}


@shows("config: root.readonly", HERE)
def test_a_read_only_root_is_the_containers_alone(box: Box) -> None:
    for name in ("runc", "crun"):
        box.known_to_differ(name, "writable without a mount namespace")
    shared(box).config["root"]["readonly"] = True
    assert "Read-only" in box.sh("touch /x 2>&1; true", prefix=APART)
    (box.rootfs / "x").touch()


@shows("exec", "exec: without a mount namespace in the container's root all the same", since=NEITHER)
def test_exec_is_in_the_containers_root(box: Box) -> None:
    shared(box).detach()
    assert box.exec("cat", "/etc/mark") == "the container's"
    assert box.exec("sh", "-c", "pwd; readlink /proc/1/ns/mnt") == f"/\n{os.readlink('/proc/self/ns/mnt')}"
    assert box.exec("sh", "-c", "cd ../../..; ls etc; echo $HOME") == "group\nmark\npasswd\n/root"


@shows("exec", HERE, since=NEITHER)
def test_exec_from_another_mount_namespace(box: Box) -> None:
    """The process gets into that of the container, whichever its caller is in."""
    shared(box).detach()
    script = f"readlink /proc/self/ns/mnt; {PLACES}"
    assert box.exec("sh", "-c", script, prefix=APART) == box.exec("sh", "-c", script)


@shows(GONE, since=NEITHER)
def test_the_hosts_mounts_stay_as_they_are(spreading: Box) -> None:
    """Neither their propagation changes, nor is anything seen twice where mounts are shared."""
    before = mounted()
    box = spreading
    box.detach()
    new = [line for line in mounted() if line not in before]
    assert len(new) == len(box.config["mounts"]) + 1
    assert not [line for line in before if line not in mounted()]
    assert not [line for line in new if f" {box.rootfs}" in line]
    box.ok("delete", "--force", box.id)
    assert mounted() == before


@shows("config: mounts[].source", GONE, since=NEITHER)
def test_a_volume_is_told_of_mounts_and_tells_none(spreading: Box) -> None:
    box, volume = spreading, spreading.directory / "volume"
    for name in ("inside", "later"):
        (volume / name).mkdir(parents=True)
    box.mount("/data", "bind", volume, "rbind")
    box.mount("/data/inside", "tmpfs", "container")
    box.detach()
    assert not os.path.ismount(volume / "inside")
    subprocess.run(["mount", "-t", "tmpfs", "host", volume / "later"], check=True)
    assert "host" in box.exec("grep", "/data/later", "/proc/self/mountinfo")
    assert "container" in box.exec("grep", "/data/inside", "/proc/self/mountinfo")
    box.ok("delete", "--force", box.id)
    assert os.path.ismount(volume / "later")


@shows(GONE, since=NEITHER)
@pytest.mark.parametrize(
    "way", ["delete", "run", "failed", "elsewhere", "over the root", "the root is a mount"]
)
def test_nothing_is_left(box: Box, way: str) -> None:
    """However it ends, and what was mounted at the root before is still there."""
    with contextlib.ExitStack() as stack:
        if way == "the root is a mount":
            subprocess.run(["mount", "--bind", box.rootfs, box.rootfs], check=True)
            stack.callback(subprocess.run, ["umount", box.rootfs], check=True)
        before = mounted()
        shared(box)
        if way == "over the root":
            box.config["mounts"].insert(0, {"destination": "/", "type": "bind", "source": str(box.rootfs),
                                            "options": ["bind"]})  # fmt: skip
        if way == "run":
            box.run("true")
        elif way == "failed":
            box.refuses("/not/there")
        else:
            box.create("sleep", "1000")
            box.start()
            assert len(mounted()) > len(before)
            box.ok("delete", "--force", box.id, prefix=APART if way == "elsewhere" else ())
        assert mounted() == before


@shows(GONE, since=NEITHER)
def test_two_containers_of_one_bundle(box: Box) -> None:
    """The end of one takes nothing from the other."""
    before = mounted()
    shared(box).detach()
    other = f"{box.id}-other"
    box.ids.add(other)
    box.linux["cgroupsPath"] += "-other"
    box.write()
    box.ok("run", "--detach", "--bundle", str(box.bundle), other)
    box.ok("delete", "--force", box.id)
    assert box.ok("exec", other, "sh", "-c", PLACES).split()[:2] == ["/", "/dev"]
    box.ok("delete", "--force", other)
    assert mounted() == before


@shows("run --no-pivot", HERE, since=NEITHER)
def test_no_pivot_moves_nothing_over_the_hosts_root(box: Box) -> None:
    before = mounted()
    shared(box).detach("sh", "-c", "cat /etc/mark; sleep 1000", options=("--no-pivot",))
    assert box.output() == "the container's"
    assert not [line for line in before if line not in mounted()]


@shows("config: linux.maskedPaths[]", "config: linux.readonlyPaths[]", HERE,
       differs={"crun": "masks them for every container of the bundle"})  # fmt: skip
@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_what_cannot_be_hidden_is_refused(box: Box, key: str) -> None:
    shared(box).linux[key] = ["/proc/kcore"]
    assert "unable to restrict sys entries without a private MNT namespace" in box.refuses("true")


@shows("config: hooks.createContainer[].path", HERE, since=NEITHER)
def test_hooks_see_the_containers_mounts(box: Box) -> None:
    """createContainer in the host's root, startContainer in the container's."""
    shared(box)
    told = box.directory / "told"
    box.config["hooks"] = {
        "createContainer": [
            {"path": str(box.script("hook", f"grep -c {box.id} /proc/self/mountinfo >{told}"))}
        ],
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "cat /etc/mark >/hook"]}],
    }
    box.detach()
    until(lambda: (box.rootfs / "hook").exists(), "the hook in the container")
    assert int(told.read_text()) >= len(box.config["mounts"])
    assert (box.rootfs / "hook").read_text() == "the container's\n"
