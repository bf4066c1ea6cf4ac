"""config.json: `linux.devices`, the default devices, masked and read-only paths, propagation of the root."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import capabilities
from oci.box import Box
from oci.marks import shows

DEVICE = "config: linux.devices[]."
DEFAULT = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}


# ── devices ────────────────────────────────────────────────────────────────────────────────────────


@shows("devices: the default devices")
@pytest.mark.parametrize("name", DEFAULT)
def test_default_devices(box: Box, name: str) -> None:
    assert (
        box.run("stat", "-c", "%t:%T %a %F", f"/dev/{name}") == f"{DEFAULT[name]} 666 character special file"
    )


@shows("devices: the default devices can be used")
def test_default_devices_work(box: Box) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1000}
    script = "echo x >/dev/null; head -c 3 /dev/zero /dev/urandom /dev/random | wc -c; "
    script += "echo x >/dev/full 2>/dev/null || echo full"
    assert box.sh(script).splitlines()[-1] == "full"


@shows("devices: ptmx and the links of /dev")
def test_links_of_dev(box: Box) -> None:
    out = box.sh(
        "for n in fd stdin stdout stderr ptmx; do readlink /dev/$n; done; test -c /dev/pts/ptmx && echo ptmx"
    )
    assert out.split() == [
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "pts/ptmx",
        "ptmx",
    ]


@shows(f"{DEVICE}type", f"{DEVICE}path", f"{DEVICE}major", f"{DEVICE}minor", f"{DEVICE}fileMode", f"{DEVICE}uid",
       f"{DEVICE}gid")  # fmt: skip
@pytest.mark.parametrize(("kind", "text"), [("c", "character special file"), ("u", "character special file"),
                                            ("b", "block special file"), ("p", "fifo")])  # fmt: skip
def test_devices(box: Box, kind: str, text: str) -> None:
    box.linux["devices"] = [{"path": "/dev/mine", "type": kind, "fileMode": 0o640, "uid": 3, "gid": 4}]
    if kind != "p":
        box.linux["devices"][0] |= {"major": 7, "minor": 200}
    out = box.run("stat", "-c", "%F|%a|%u|%g|%t:%T", "/dev/mine").split("|")
    assert out[:4] == [text, "640", "3", "4"]
    assert kind == "p" or out[4] == "7:c8"


@shows(f"{DEVICE}path", "devices: outside /dev")
def test_device_outside_dev(box: Box) -> None:
    box.linux["devices"] = [
        {"path": "/data/sub/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}
    ]
    assert box.run("stat", "-c", "%t:%T", "/data/sub/mine") == "1:3"


@shows(f"{DEVICE}fileMode", "devices: umask does not matter")
def test_device_mode_and_umask(box: Box) -> None:
    box.linux["devices"] = [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}]
    box.write("stat", "-c", "%a", "/dev/mine")
    assert box.ok("run", box.id, prefix=("sh", "-c", 'umask 0077; exec "$@"', "sh")) == "666"


@shows(
    f"{DEVICE}path",
    "errors: a file of another kind is there",
    differs={"runc": "takes it", "crun": "takes it"},
)
def test_device_is_another_file(box: Box) -> None:
    (box.rootfs / "data/mine").write_text("a file")
    box.linux["devices"] = [{"path": "/data/mine", "type": "c", "major": 1, "minor": 3}]
    box.refuses("true")


@shows(f"{DEVICE}type", "errors: devices", differs={"crun": "some are taken"})
@pytest.mark.parametrize(
    "device",
    [
        {"path": "/dev/x", "type": "x", "major": 1, "minor": 3},
        {"path": "/dev/x", "type": "c"},
        {"type": "c", "major": 1, "minor": 3},
    ],
    ids=str,
)
def test_bad_devices(box: Box, device: dict[str, object]) -> None:
    if "path" not in device or "major" not in device:
        box.known_to_differ("runc", "takes it")
    box.linux["devices"] = [device]
    box.refuses("true")


@shows(f"{DEVICE}major", "devices: with a user namespace")
def test_devices_with_a_user_namespace(box: Box) -> None:
    """No node can be made there: the host's is bound."""
    box.map_ids()
    assert box.run("stat", "-c", "%t:%T", "/dev/null") == "1:3"


# ── the allowed list ───────────────────────────────────────────────────────────────────────────────

RULE = "config: linux.resources.devices[]."


@shows(
    f"{RULE}allow",
    f"{RULE}access",
    "config: linux.resources.devices[]: the default devices are always allowed",
)
def test_everything_denied(box: Box) -> None:
    box.capabilities("CAP_MKNOD")
    box.linux["resources"]["devices"] = [{"allow": False, "access": "rwm"}]
    out = box.sh("cat /dev/null && echo null; mknod /data/n c 1 11 && echo made; cat /data/n; true 2>&1")
    assert out.splitlines()[0] == "null"
    assert not (box.rootfs / "data/n").exists() or "made" in out  # runc and crun allow every mknod


@shows(f"{RULE}allow", f"{RULE}type", f"{RULE}major", f"{RULE}minor", f"{RULE}access")
@pytest.mark.parametrize(
    ("access", "readable", "writable"),
    [("r", True, False), ("w", False, True), ("rw", True, True), ("", False, False)],
)
def test_allowed_device(box: Box, access: str, readable: bool, writable: bool) -> None:
    """/dev/kmsg (1:11) may be opened as the rule says."""
    box.capabilities("CAP_SYS_ADMIN", "CAP_SYSLOG")
    box.linux["devices"] = [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}]
    rules = box.linux["resources"]["devices"]
    if access:
        rules.append({"allow": True, "type": "c", "major": 1, "minor": 11, "access": access})
    elif box.runtime.name == "runc":
        pytest.skip(capabilities.INAPPLICABLE["listed devices"])
    out = box.sh(
        "(exec </dev/mine) 2>/dev/null && echo r; (exec >/dev/mine) 2>/dev/null && echo w; true"
    ).split()
    if box.runtime.name == "runc" or not access:
        return
    assert (("r" in out), ("w" in out)) == (readable, writable)


@shows(f"{RULE}allow", "config: linux.resources.devices[]: in the listed order")
@pytest.mark.parametrize("allowed_last", [True, False])
def test_rules_in_order(box: Box, allowed_last: bool) -> None:
    """The later entry counts."""
    box.linux["devices"] = [{"path": "/data/mine", "type": "c", "major": 10, "minor": 237, "fileMode": 0o666}]
    rule = {"type": "c", "major": 10, "minor": 237, "access": "rwm"}
    box.linux["resources"]["devices"] += [rule | {"allow": not allowed_last}, rule | {"allow": allowed_last}]
    out = box.sh("(exec </data/mine) 2>&1; true")
    assert ("not permitted" in out) != allowed_last


# ── masked and read-only paths ─────────────────────────────────────────────────────────────────────


@shows("config: linux.maskedPaths[]")
def test_masked_paths(box: Box) -> None:
    """A file reads as empty, a directory shows nothing, what is not there does not matter."""
    (box.rootfs / "data/dir").mkdir()
    (box.rootfs / "data/dir/secret").write_text("secret")
    (box.rootfs / "data/file").write_text("secret")
    box.linux["maskedPaths"] += ["/data/dir", "/data/file", "/data/absent"]
    out = box.sh(
        "cat /data/file; ls /data/dir; touch /data/dir/x 2>/dev/null || echo read-only; wc -c </data/file"
    )
    assert out.split() == ["read-only", "0"]


@shows("config: linux.readonlyPaths[]")
def test_readonly_paths(box: Box) -> None:
    (box.rootfs / "data/dir/sub").mkdir(parents=True)
    (box.rootfs / "data/file").write_text("content")
    box.linux["readonlyPaths"] += ["/data/dir", "/data/file", "/data/absent"]
    script = "cat /data/file; for f in dir/x dir/sub/x file; do (echo >/data/$f) 2>&1; done; "
    script += "(echo >/proc/sys/kernel/domainname) 2>&1"
    out = box.sh(f"{script}; true")
    assert out.startswith("content")
    assert out.count("ead-only") == 4, out


@shows("config: linux.readonlyPaths[]", "readonlyPaths: mounts below stay as they are flagged")
def test_readonly_path_keeps_flags(box: Box) -> None:
    out = box.run("grep", " /proc/sys ", "/proc/self/mountinfo").split()
    assert {"ro", "nosuid", "nodev", "noexec"} >= {each for each in out[5].split(",") if each == "ro"}
    assert "ro" in out[5].split(",")


@shows("config: linux.maskedPaths[]", "errors: a relative path", differs={"runc": "taken", "crun": "taken"})
@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
def test_paths_are_absolute(box: Box, field: str) -> None:
    """The values MUST be absolute paths in the container namespace."""
    box.linux[field] = ["proc/kcore"]
    box.refuses("true")


@shows("config: linux.mountLabel")
@pytest.mark.needs("selinux")
def test_mount_label(box: Box) -> None:
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    box.linux["mountLabel"] = label
    box.mount("/mnt", "tmpfs", "tmpfs")
    assert f'context="{label}"' in box.run("grep", " /mnt ", "/proc/self/mountinfo")


@shows("config: linux.mountLabel", "errors: SELinux is not there", differs={"crun": "ignored"}, absent=True)
@pytest.mark.needs("no_selinux")
def test_mount_label_without_selinux(box: Box) -> None:
    """runc hands the label on to the kernel, which refuses it."""
    box.known_to_differ("runc", "ignores it without SELinux")
    box.linux["mountLabel"] = "system_u:object_r:container_file_t:s0"
    box.refuses("true")


# ── propagation of the root ────────────────────────────────────────────────────────────────────────

ROOT = "config: linux.rootfsPropagation"


@shows(ROOT, differs={"runc": "1.1 changes the root of the host's view, not recursively"})
@pytest.mark.parametrize(("value", "tag"), [
    pytest.param("private", "", marks=shows(f"{ROOT}=private")),
    pytest.param("shared", "shared:", marks=shows(f"{ROOT}=shared")),
    pytest.param("slave", "", marks=shows(f"{ROOT}=slave")),
    pytest.param("unbindable", "unbindable", marks=shows(f"{ROOT}=unbindable")),
])  # fmt: skip
def test_rootfs_propagation(box: Box, value: str, tag: str) -> None:
    box.linux["rootfsPropagation"] = value
    line = next(x for x in box.run("cat", "/proc/self/mountinfo").splitlines() if x.split()[4] == "/")
    tags = " ".join(line.split(" - ")[0].split()[6:])
    assert tag in tags if tag else "shared" not in tags


@shows(f"{ROOT}=slave", f"{ROOT}=private", "propagation: mounts of the host below the root")
@pytest.mark.parametrize(("value", "arrives"), [("slave", True), ("rslave", True), ("private", False)])
def test_mounts_of_the_host_arrive(box: Box, value: str, arrives: bool) -> None:
    """`slave`: what the host mounts below the root appears in the container; `private`: it does not."""
    if arrives:
        box.known_to_differ("crun", "makes the root private at the end")
    if value == "slave":
        box.known_to_differ("runc", "only with rslave, as engines write it")
    subprocess.run(["mount", "--bind", str(box.rootfs), str(box.rootfs)], check=True)
    subprocess.run(["mount", "--make-shared", str(box.rootfs)], check=True)
    box.linux["rootfsPropagation"] = value
    box.detach()
    subprocess.run(["mount", "-t", "tmpfs", "late", str(box.rootfs / "data")], check=True)
    assert (" /data " in Path(f"/proc/{box.pid}/mountinfo").read_text()) == arrives


@shows(ROOT, "errors: unknown propagation", differs={"crun": "ignores it"})
def test_unknown_propagation(box: Box) -> None:
    box.linux["rootfsPropagation"] = "sideways"
    box.refuses("true")
