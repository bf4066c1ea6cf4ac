"""config.json: `mounts`. Options are read back from /proc/self/mountinfo inside."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oci.box import Box
from oci.marks import NEITHER, rows, shows
from pyrun import linux

OPTION = "config: mounts[].options[]="
RECURSIVE = {"since": {"runc": "1.1"}}


class Line:
    """One line of mountinfo."""

    def __init__(self, line: str) -> None:
        left, right = line.split(" - ")
        words = left.split()
        self.root, self.place, self.options, self.tags = words[3], words[4], words[5].split(","), words[6:]
        self.kind, self.source, options = right.split(" ", 2)
        self.super_options = options.split(",")


def lines(text: str) -> list[Line]:
    return [Line(each) for each in text.splitlines() if " - " in each]


def seen(box: Box, place: str = "/mnt") -> Line:
    """The topmost mount at *place*, as the container sees it."""
    return [each for each in lines(box.run("cat", "/proc/self/mountinfo")) if each.place == place][-1]


# ── what is mounted ────────────────────────────────────────────────────────────────────────────────


@shows(
    "config: mounts[].destination",
    "config: mounts[].type",
    "config: mounts[].source",
    "config: mounts[].options[]",
)
def test_tmpfs(box: Box) -> None:
    box.mount("/mnt", "tmpfs", "my-source", "size=64k", "mode=0710", "nosuid")
    line = seen(box)
    assert (line.kind, line.source) == ("tmpfs", "my-source")
    assert "nosuid" in line.options and {"size=64k", "mode=710"} <= set(line.super_options)


DATA = "mounts: what is meant for a file system has no effect on a bind mount"


@shows("config: mounts[].type", DATA)
@pytest.mark.parametrize("kind", ["bind", "none"])
@pytest.mark.parametrize("options", [["rbind", "mode=755"], ["bind", "ro", "mode=755", "size=1m"]])
def test_a_bind_mount_with_options_of_a_file_system(box: Box, kind: str, options: list[str]) -> None:
    if box.runtime.version >= (1, 2):
        box.known_to_differ("runc", "since 1.2 it is an error")
    source = box.directory / "source"
    source.mkdir(mode=0o711)
    box.mount("/mnt", kind, source, *options)
    line = seen(box)
    assert line.root.endswith("/source") and ("ro" in line.options) == ("ro" in options)
    assert source.stat().st_mode & 0o777 == 0o711


@shows("config: mounts[].type", DATA, since=NEITHER)
@pytest.mark.parametrize("options", [["mode=755"], ["bind", "mode=755"]])
def test_it_is_told_that_they_have_none(box: Box, options: list[str]) -> None:
    box.mount("/mnt", "bind", box.directory, *options)
    box.write("true")
    done = box.call("run", "--bundle", str(box.bundle), box.id)
    assert done.status == 0 and "'mode=755' has no effect on a bind mount" in done.err


@shows("config: mounts[].destination", "mounts: onto / is the root from there on",
       differs={"crun": "refuses it, or mounts out of sight"})  # fmt: skip
@pytest.mark.parametrize("destination", ["/", "/data/.."])
def test_a_mount_onto_the_root(box: Box, root_template: Path, destination: str) -> None:
    """What comes before it is covered, what comes after it is in it; so are /dev and masks. Its own root stays."""
    other = box.directory / "other"
    shutil.copytree(root_template, other, symlinks=True)
    (other / "etc/mark").write_text("the other\n")
    box.config["mounts"].insert(0, {"destination": "/mnt", "type": "tmpfs", "source": "covered"})
    box.config["mounts"].insert(
        1, {"destination": destination, "type": "bind", "source": str(other), "options": ["bind", "nosuid"]}
    )
    box.config["root"]["readonly"] = True
    script = "cat /etc/mark; touch /x; cat /proc/kcore; mount | grep covered; cat /proc/self/mountinfo"
    told = box.sh(f"{{ {script}; }} 2>/dev/null; echo x >/dev/null; touch /x 2>&1; true").splitlines()
    assert told[0] == "the other" and "Read-only" in told[-1]
    root = [each for each in lines("\n".join(told)) if each.place == "/"][-1]
    assert root.root.endswith("/other")
    assert "nosuid" in root.options or box.runtime.name == "runc"  # whose read-only remount forgets it
    assert not (other / "x").exists() and not [line for line in told if line.startswith("covered")]
    assert not (box.rootfs / "mnt/x").exists()


@shows("config: mounts[].destination", "mounts: onto / is the root from there on", since=NEITHER)
def test_a_root_mounted_over_in_a_user_namespace(box: Box, root_template: Path) -> None:
    """HOME is from its passwd, too."""
    other = box.directory / "other"
    shutil.copytree(root_template, other, symlinks=True)
    (other / "etc/passwd").write_text("root:x:0:0:root:/other:/bin/sh\n")
    box.map_ids()
    box.config["mounts"].insert(
        0, {"destination": "/", "type": "bind", "source": str(other), "options": ["rbind"]}
    )
    assert box.sh("echo $HOME; ls /proc/self/status") == "/other\n/proc/self/status"


@shows("config: mounts[].destination", "mounts: the root itself is not remounted", since=NEITHER)
def test_the_root_is_not_remounted(box: Box) -> None:
    """Of the file system of the host that it is on everything would be read-only."""
    box.mount("/", "none", "none", "remount", "ro")
    assert "mounts[6].destination: the root itself cannot be" in box.refuses("true")


@shows("config: mounts[].destination", "mounts: the destination is made")
def test_destination_is_made(box: Box) -> None:
    box.mount("/made/deep/down", "tmpfs", "tmpfs")
    assert seen(box, "/made/deep/down").kind == "tmpfs"


@shows("config: mounts[].destination", "mounts: the destination of a file is made")
def test_destination_file_is_made(box: Box) -> None:
    source = box.directory / "file"
    source.write_text("content")
    box.bind("/made/deep/file", source)
    assert box.run("cat", "/made/deep/file") == "content"


@shows("config: mounts[].destination", "mounts: a relative destination is below /")
def test_relative_destination(box: Box) -> None:
    box.mount("mnt", "tmpfs", "tmpfs")
    if box.runtime.name == "pyrun-oci" or box.runtime.version >= (1, 2):
        assert seen(box).kind == "tmpfs"
    else:
        box.run("true")


@shows("config: mounts[].destination", "mounts: in the listed order")
def test_order(box: Box) -> None:
    box.mount("/mnt", "tmpfs", "one")
    box.mount("/mnt/sub", "tmpfs", "two")
    box.mount("/data/sub", "tmpfs", "three")
    box.mount("/data", "tmpfs", "four")
    mounted = {each.place: each for each in lines(box.run("cat", "/proc/self/mountinfo"))}
    assert mounted["/mnt/sub"].source == "two"
    assert mounted["/data"].source == "four"


@shows("config: mounts[].destination", "mounts: symbolic links in the root are followed inside it",
       differs={"crun": "does not make what a dangling link leads to"})  # fmt: skip
def test_symlinks_stay_inside(box: Box) -> None:
    (box.rootfs / "data/link").symlink_to("/mnt")
    (box.rootfs / "data/out").symlink_to("../../../../../../../mnt/far")
    box.mount("/data/link", "tmpfs", "one")
    box.mount("/data/out", "tmpfs", "two")
    mounted = {each.place: each for each in lines(box.run("cat", "/proc/self/mountinfo"))}
    assert mounted["/mnt"].source == "one"
    assert mounted["/mnt/far"].source == "two"


# What links of the root lead to, the destination, where that is mounted, and what is made for it.
DANGLING = [
    ({"lnk": "/gone"}, "/lnk", "/gone", ["gone"]),
    ({"lnk": "/gone/a/b"}, "/lnk", "/gone/a/b", ["gone", "gone/a", "gone/a/b"]),
    ({"data/lnk": "gone"}, "/data/lnk", "/data/gone", ["data/gone"]),
    ({"data/lnk": "../gone"}, "/data/lnk/x", "/gone/x", ["gone", "gone/x"]),
    ({"data/lnk": "../../../../../../gone"}, "/data/lnk", "/gone", ["gone"]),
    ({"lnk": "/gone"}, "/lnk/sub/x", "/gone/sub/x", ["gone", "gone/sub", "gone/sub/x"]),
    ({"l1": "l2/x", "l2": "/gone"}, "/l1/y", "/gone/x/y", ["gone", "gone/x", "gone/x/y"]),
    # what is not there is no link: ".." leads back by its name, and is not made
    ({"lnk": "/gone/../other"}, "/lnk", "/other", ["other"]),
    ({"lnk": "/gone/./deep/../../other/."}, "/lnk/x", "/other/x", ["other", "other/x"]),
    ({"lnk": "/data/gone/.."}, "/lnk/x", "/data/x", ["data/x"]),
    ({"lnk": "/gone/"}, "/lnk", "/gone", ["gone"]),
    ({"lnk": "."}, "/lnk/gone", "/gone", ["gone"]),
    ({"lnk": "/dev/gone"}, "/lnk", "/dev/gone", []),
    ({"l1": "/l2", "l2": "/l1"}, "/l1/x", "", []),
    ({"lnk": "/etc/passwd/x"}, "/lnk", "", []),
    ({"lnk": "/proc/gone"}, "/lnk", "", []),
]


@shows("mounts: what a dangling link leads to is made inside the root", differs={"crun": "only some of it"})
@pytest.mark.parametrize("kind", ["directory", "file"])
@pytest.mark.parametrize(("links", "destination", "place", "made"), DANGLING)
def test_dangling_links(
    box: Box, links: dict[str, str], destination: str, place: str, made: list[str], kind: str
) -> None:
    """As a component and at the end: the same places are made as by runc, and nothing else."""
    for name, target in links.items():
        (box.rootfs / name).symlink_to(target)
    source = box.directory / "source"
    source.mkdir()
    (source / "f").touch()
    box.bind(destination, source if kind == "directory" else source / "f")
    before = {str(path.relative_to(box.rootfs)) for path in box.rootfs.rglob("*")}
    if not place:
        box.refuses("true")
    else:
        mounted = {each.place: each.root for each in lines(box.run("cat", "/proc/self/mountinfo"))}
        assert mounted[place].endswith("/source" if kind == "directory" else "/source/f")
    after = {str(path.relative_to(box.rootfs)) for path in box.rootfs.rglob("*")}
    assert sorted(after - before) == made
    if made:
        assert (box.rootfs / made[-1]).is_dir() == (kind == "directory")


@shows("config: mounts[].source", "mounts: a source relative to the bundle")
def test_relative_source(box: Box) -> None:
    (box.bundle / "dir").mkdir()
    (box.bundle / "dir/f").write_text("content")
    box.bind("/mnt", "dir")
    assert box.run("cat", "/mnt/f", cwd=box.bundle) == "content"


@shows("config: mounts[].source", "errors: the source is not there")
def test_absent_source(box: Box) -> None:
    box.bind("/mnt", box.directory / "absent")
    box.refuses("true")


@shows("config: mounts[].type", "mounts: a bind mount's type does not matter")
@pytest.mark.parametrize("kind", ["none", "bind", "tmpfs", "", None])
def test_type_of_a_bind_mount(box: Box, kind: str | None) -> None:
    (box.directory / "f").write_text("content")
    box.bind("/mnt/f", box.directory / "f")
    box.config["mounts"][-1]["type"] = kind
    if kind is None:
        del box.config["mounts"][-1]["type"]
    assert box.run("cat", "/mnt/f") == "content"


@shows("config: mounts[].type", "mounts: the kinds of the default file systems")
def test_default_filesystems(box: Box) -> None:
    mounted = {each.place: each for each in lines(box.run("cat", "/proc/self/mountinfo"))}
    kinds = {
        place: mounted[place].kind
        for place in ("/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys")
    }
    assert kinds == {"/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/dev/shm": "tmpfs",
                     "/dev/mqueue": "mqueue", "/sys": "sysfs"}  # fmt: skip


@shows("mounts: nothing of the host is left")
def test_nothing_of_the_host(box: Box) -> None:
    out = box.sh("cat /proc/self/mountinfo; ls /..")
    assert "conformance" not in "".join(each.place for each in lines(out))
    assert len([each for each in lines(out) if each.place == "/"]) == 1


@shows("config: mounts[].type", "mounts: cgroup")
@pytest.mark.needs("cgroup1")
@pytest.mark.parametrize("own", [True, False], ids=["cgroup namespace", "none"])
def test_cgroup_mount_v1(box: Box, own: bool) -> None:
    """Every hierarchy below /sys/fs/cgroup, showing the container's own cgroup as its root."""
    if own:
        box.namespace("cgroup")
    box.mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")
    out = box.sh(
        "cat /proc/self/mountinfo; cat /sys/fs/cgroup/pids/cgroup.procs; cat /sys/fs/cgroup/memory/tasks"
    )
    mounted = {each.place: each for each in lines(out)}
    assert mounted["/sys/fs/cgroup"].kind == "tmpfs"
    assert mounted["/sys/fs/cgroup/memory"].kind == "cgroup"
    assert "ro" in mounted["/sys/fs/cgroup/memory"].options
    assert "1" in out.split("\n")[-4:]


@shows("config: mounts[].type", "mounts: cgroup")
@pytest.mark.needs("cgroup2")
@pytest.mark.parametrize("own", [True, False], ids=["cgroup namespace", "none"])
@pytest.mark.parametrize("kind", ["cgroup", "cgroup2"])
def test_cgroup_mount_v2(box: Box, own: bool, kind: str) -> None:
    if own:
        box.namespace("cgroup")
    box.mount("/sys/fs/cgroup", kind, "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")
    out = box.sh("cat /proc/self/mountinfo; cat /sys/fs/cgroup/cgroup.procs")
    mounted = {each.place: each for each in lines(out)}
    assert mounted["/sys/fs/cgroup"].kind == "cgroup2"
    assert "ro" in mounted["/sys/fs/cgroup"].options
    assert out.split("\n")[-2:] != []


# ── options ────────────────────────────────────────────────────────────────────────────────────────

# option -> (what is given before it, what must be among the mount's options, what must not)
FLAGS: dict[str, tuple[list[str], set[str], set[str]]] = {
    "ro": ([], {"ro"}, {"rw"}),
    "rw": (["ro"], {"rw"}, {"ro"}),
    "nosuid": ([], {"nosuid"}, set()),
    "suid": (["nosuid"], set(), {"nosuid"}),
    "nodev": ([], {"nodev"}, set()),
    "dev": (["nodev"], set(), {"nodev"}),
    "noexec": ([], {"noexec"}, set()),
    "exec": (["noexec"], set(), {"noexec"}),
    "noatime": ([], {"noatime"}, {"relatime"}),
    "atime": (["noatime"], set(), {"noatime"}),
    "nodiratime": ([], {"nodiratime"}, set()),
    "diratime": (["nodiratime"], set(), {"nodiratime"}),
    "relatime": ([], {"relatime"}, {"noatime"}),
    "norelatime": ([], set(), {"noatime"}),
    "strictatime": ([], set(), {"relatime", "noatime"}),
    "nostrictatime": (["strictatime"], {"relatime"}, set()),
    "defaults": ([], {"rw"}, {"nosuid", "nodev", "noexec"}),
    "nosymfollow": ([], {"nosymfollow"}, set()),
    "symfollow": (["nosymfollow"], set(), {"nosymfollow"}),
}
SYMFOLLOW: dict[str, Any] = {"since": {"runc": "1.2", "crun": "1.15"}}
_FLAG_ROWS = [*rows(OPTION, *(each for each in FLAGS if "symfollow" not in each)),
              *rows(OPTION, "nosymfollow", "symfollow", **SYMFOLLOW)]  # fmt: skip


@pytest.mark.parametrize("option", _FLAG_ROWS)
@shows(
    differs={
        "crun": "keeps the flag of an earlier option",
        "runc": "1.1 hands `defaults` on to the file system",
    }
)
def test_flags_of_a_tmpfs(box: Box, option: str) -> None:
    before, wanted, unwanted = FLAGS[option]
    box.mount("/mnt", "tmpfs", "tmpfs", *before, option)
    line = seen(box)
    assert wanted <= set(line.options), line.options
    assert not unwanted & set(line.options), line.options


@pytest.mark.parametrize("option", _FLAG_ROWS)
@shows(
    differs={
        "crun": "keeps the flag of an earlier option",
        "runc": "1.1 hands `defaults` on to the file system",
    }
)
def test_flags_of_a_bind_mount(box: Box, option: str) -> None:
    """A bind mount begins with its source's flags and needs a second call to change them."""
    before, wanted, unwanted = FLAGS[option]
    source = box.directory / "source"
    source.mkdir()
    box.bind("/mnt", source, *before, option)
    line = seen(box)
    assert wanted <= set(line.options), line.options
    assert not unwanted & set(line.options), line.options


# option -> (before, wanted among the file system's own options, unwanted)
SUPER: dict[str, tuple[list[str], set[str], set[str]]] = {
    "sync": ([], {"sync"}, set()),
    "async": (["sync"], set(), {"sync"}),
    "dirsync": ([], {"dirsync"}, set()),
    "lazytime": ([], {"lazytime"}, set()),
    "nolazytime": (["lazytime"], set(), {"lazytime"}),
    "iversion": ([], set(), set()),  # the kernel shows it for no file system that can be mounted here
    "noiversion": (["iversion"], set(), set()),
    "silent": ([], set(), set()),
    "loud": (["silent"], set(), set()),
    "mand": ([], set(), set()),  # without effect since 5.15
    "nomand": (["mand"], set(), set()),
}
_LATER = {"lazytime", "nolazytime", "silent", "loud", "iversion"}


@pytest.mark.parametrize("option", rows(OPTION, *SUPER))
def test_options_of_the_file_system(box: Box, option: str) -> None:
    before, wanted, unwanted = SUPER[option]
    if option in _LATER:
        box.known_to_differ("runc", "1.1 does not know it")
    if option in {"lazytime", "nolazytime", "loud", "silent", "iversion", "noiversion", "async"}:
        box.known_to_differ("crun", "1.8 does not know it, or keeps an earlier option")
    box.mount("/mnt", "tmpfs", "tmpfs", *before, option)
    line = seen(box)
    assert wanted <= set(line.super_options), line.super_options
    assert not unwanted & set(line.super_options), line.super_options


@shows(f"{OPTION}remount")
def test_remount(box: Box) -> None:
    """A later entry changes the flags of what an earlier one mounted."""
    box.mount("/mnt", "tmpfs", "tmpfs", "size=64k")
    box.mount("/mnt", "tmpfs", "tmpfs", "remount", "ro", "size=128k")
    mounted = [each for each in lines(box.run("cat", "/proc/self/mountinfo")) if each.place == "/mnt"]
    assert len(mounted) == 1
    assert "ro" in mounted[0].super_options + mounted[0].options
    assert "size=128k" in mounted[0].super_options


@shows("config: mounts[].options[]", "mounts: unknown options are the file system's")
def test_unknown_option(box: Box) -> None:
    box.mount("/mnt", "tmpfs", "tmpfs", "nr_inodes=77")
    assert "nr_inodes=77" in seen(box).super_options
    box.config["mounts"][-1]["options"] = ["nosuchoption=1"]
    box.refuses("true")


@shows(f"{OPTION}bind", f"{OPTION}rbind")
@pytest.mark.parametrize("how", ["bind", "rbind"])
def test_bind_and_rbind(box: Box, how: str) -> None:
    source = _tree(box)
    box.mount("/mnt", "none", source, how)
    places = [each.place for each in lines(box.run("cat", "/proc/self/mountinfo"))]
    assert "/mnt" in places
    assert ("/mnt/sub" in places) == (how == "rbind")


@shows(f"{OPTION}ro", "mounts: ro of a recursive bind mount is for its top")
def test_ro_is_not_recursive(box: Box) -> None:
    box.bind("/mnt", _tree(box), "rbind", "ro")
    mounted = {each.place: each for each in lines(box.run("cat", "/proc/self/mountinfo"))}
    assert "ro" in mounted["/mnt"].options and "rw" in mounted["/mnt/sub"].options


def _tree(box: Box, *options: str) -> Path:
    """A directory with a mount on its directory `sub`."""
    source = box.directory / "tree"
    (source / "sub").mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(("rw", *options)), "sub", str(source / "sub")], check=True
    )
    return source


# option -> (flags of the mount below, wanted after it, unwanted)
ALL: dict[str, tuple[list[str], set[str], set[str]]] = {
    "rro": ([], {"ro"}, set()),
    "rrw": (["ro"], {"rw"}, {"ro"}),
    "rnosuid": ([], {"nosuid"}, set()),
    "rsuid": (["nosuid"], set(), {"nosuid"}),
    "rnodev": ([], {"nodev"}, set()),
    "rdev": (["nodev"], set(), {"nodev"}),
    "rnoexec": ([], {"noexec"}, set()),
    "rexec": (["noexec"], set(), {"noexec"}),
    "rnodiratime": ([], {"nodiratime"}, set()),
    "rdiratime": (["nodiratime"], set(), {"nodiratime"}),
    "rnoatime": ([], {"noatime"}, {"relatime"}),
    "ratime": (["noatime"], set(), {"noatime"}),
    "rrelatime": (["noatime"], {"relatime"}, {"noatime"}),
    "rnorelatime": ([], set(), set()),
    "rstrictatime": (["relatime"], set(), {"relatime", "noatime"}),
    "rnostrictatime": (["strictatime"], set(), {"noatime"}),
    "rnosymfollow": ([], {"nosymfollow"}, set()),
    "rsymfollow": (["nosymfollow"], set(), {"nosymfollow"}),
}


@pytest.mark.parametrize("option", rows(OPTION, *ALL))
def test_recursive_options(box: Box, option: str) -> None:
    before, wanted, unwanted = ALL[option]
    if option in ("ratime", "rrelatime", "rnorelatime", "rstrictatime", "rnostrictatime"):
        box.known_to_differ(
            "runc", "clears the bit without setting another, which the kernel refuses or ignores"
        )
    if "atime" in option or "diratime" in option or "symfollow" in option:
        box.known_to_differ("crun", "1.8 gives the kernel combinations that it refuses")
    box.bind("/mnt", _tree(box, *before), "rbind", option)
    mounted = {each.place: each for each in lines(box.run("cat", "/proc/self/mountinfo"))}
    for place in ("/mnt", "/mnt/sub"):
        assert wanted <= set(mounted[place].options), mounted[place].options
    assert not unwanted & set(mounted["/mnt/sub"].options), mounted["/mnt/sub"].options


PROPAGATION = {"private": [], "shared": ["shared:"], "slave": ["master:"], "unbindable": ["unbindable"]}


@pytest.mark.parametrize("option", rows(OPTION, *PROPAGATION, *(f"r{each}" for each in PROPAGATION)))
def test_propagation(box: Box, option: str) -> None:
    box.known_to_differ("crun", "makes everything private again unless rootfsPropagation is set")
    source = box.directory / "shared"
    (source / "sub").mkdir(parents=True)
    for place, name in ((source, "top"), (source / "sub", "below")):
        subprocess.run(["mount", "-t", "tmpfs", name, str(place)], check=True)
        subprocess.run(["mount", "--make-shared", str(place)], check=True)
        (source / "sub").mkdir(exist_ok=True)
    box.mount("/mnt", "bind", source, "rbind", option)
    mounted = {each.place: each for each in lines(box.run("cat", "/proc/self/mountinfo"))}
    places = ["/mnt", "/mnt/sub"] if option[0] == "r" else ["/mnt"]
    for place in places:
        tags = " ".join(mounted[place].tags)
        for tag in PROPAGATION[option.removeprefix("r") if option not in PROPAGATION else option]:
            assert tag in tags, f"{place}: {tags}"
        if option.endswith("private"):
            assert not tags


@shows(f"{OPTION}rslave", f"{OPTION}rshared", "mounts: propagation while it runs")
@pytest.mark.parametrize(("option", "arrives"), [("rslave", True), ("rshared", True), ("rprivate", False)])
def test_propagation_at_run_time(box: Box, option: str, arrives: bool) -> None:
    source = box.directory / "shared"
    source.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "shared", str(source)], check=True)
    subprocess.run(["mount", "--make-shared", str(source)], check=True)
    (source / "late").mkdir()
    box.linux["rootfsPropagation"] = "shared" if option == "rshared" else "slave"
    box.bind("/mnt", source, "rbind", option)
    box.detach()
    subprocess.run(["mount", "-t", "tmpfs", "late", str(source / "late")], check=True)
    assert ("/mnt/late" in Path(f"/proc/{box.pid}/mountinfo").read_text()) == arrives


@shows(f"{OPTION}tmpcopyup")
def test_tmpcopyup(box: Box) -> None:
    """The tmpfs begins with what the root has there."""
    (box.rootfs / "data/dir").mkdir(mode=0o750)
    (box.rootfs / "data/dir/file").write_text("content")
    os.chown(box.rootfs / "data/dir/file", 5, 6)
    (box.rootfs / "data/link").symlink_to("dir/file")
    box.mount("/data", "tmpfs", "tmpfs", "tmpcopyup")
    out = box.sh("cat /data/link; stat -c '%u %g' /data/dir/file; stat -c %a /data/dir; touch /data/new")
    assert out == "content5 6\n750"
    assert not (box.rootfs / "data/new").exists()


# ── mapped ids ─────────────────────────────────────────────────────────────────────────────────────

IDMAP: dict[str, Any] = {"since": {"runc": "1.2", "crun": "1.9"}}
MAPPING = [{"containerID": 0, "hostID": 3000, "size": 10}]


@shows(f"{OPTION}idmap", "config: mounts[].uidMappings[].containerID", "config: mounts[].uidMappings[].hostID",
       "config: mounts[].uidMappings[].size", "config: mounts[].gidMappings[].containerID",
       "config: mounts[].gidMappings[].hostID", "config: mounts[].gidMappings[].size", **IDMAP)  # fmt: skip
def test_idmap(box: Box) -> None:
    """A file of 0 on the host is one of 3000 in the container, and what 3000 makes is 0's on the host."""
    source = box.directory / "source"
    source.mkdir()
    (source / "f").touch()
    source.chmod(0o777)
    box.bind("/mnt", source, "idmap", "rw")
    box.config["mounts"][-1] |= {"uidMappings": MAPPING, "gidMappings": MAPPING}
    box.process["user"] = {"uid": 3001, "gid": 3002}
    assert box.sh("stat -c '%u %g' /mnt/f; touch /mnt/new") == "3000 3000"
    assert ((source / "new").stat().st_uid, (source / "new").stat().st_gid) == (1, 2)


@shows(f"{OPTION}ridmap", f"{OPTION}idmap", **IDMAP)
@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_ridmap(box: Box, option: str) -> None:
    source = _tree(box)
    (source / "sub/f").touch()
    box.mount("/mnt", "bind", source, "rbind", option, uidMappings=MAPPING, gidMappings=MAPPING)
    assert box.run("stat", "-c", "%u", "/mnt/sub/f") == ("3000" if option == "ridmap" else "0")


@shows(f"{OPTION}idmap", "mounts: idmap without mappings takes those of the user namespace", **IDMAP)
def test_idmap_of_the_user_namespace(box: Box) -> None:
    """The runtime MAY; runc and crun do. A file of 0 on the host is root's inside."""
    source = box.directory / "source"
    source.mkdir()
    (source / "f").touch()
    box.map_ids()
    box.bind("/mnt", source, "idmap")
    assert box.run("stat", "-c", "%u %g", "/mnt/f") == "0 0"


@shows(f"{OPTION}idmap", "errors: idmap without any mapping", **IDMAP)
@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_idmap_needs_a_mapping(box: Box, option: str) -> None:
    box.mount("/mnt", "bind", box.directory, "rbind", option)
    box.refuses("true")


@shows("config: mounts[].uidMappings[].size", "errors: uidMappings without gidMappings", **IDMAP)
@pytest.mark.parametrize("kind", ["uidMappings", "gidMappings"])
def test_mappings_come_together(box: Box, kind: str) -> None:
    box.bind("/mnt", box.directory, "idmap")
    box.config["mounts"][-1][kind] = MAPPING
    box.refuses("true")


@shows(
    "config: mounts[].source", "mounts: a source behind an id-mapped mount of the host, in a user namespace"
)
@pytest.mark.parametrize("options", [("rbind",), ("bind", "ro", "nosuid")])
def test_a_source_behind_an_idmapped_mount(box: Box, options: tuple[str, ...]) -> None:
    """Its directories are the container's root's alone, and on disk those of somebody else."""
    source, mapped = box.directory / "source", box.directory / "mapped"
    (source / "inner").mkdir(parents=True)
    mapped.mkdir()
    (source / "inner/f").write_text("here")
    subprocess.run(["chown", "-R", "1000:1000", source], check=True)
    subprocess.run(["chmod", "-R", "u=rwX,go=", source], check=True)
    box.map_ids()
    _show_mapped(source, mapped, "1000 100000 65536\n")
    try:
        box.bind("/mnt", mapped / "inner", *options)
        script = "stat -c %u /mnt/f; cat /mnt/f; echo; touch /mnt/g 2>/dev/null && echo made || echo refused"
        assert box.sh(script).split() == ["0", "here", "refused" if "ro" in options else "made"]
        assert not (source / "inner/g").exists() or (source / "inner/g").stat().st_uid == 1000
    finally:
        subprocess.run(["umount", mapped], check=True)


def _show_mapped(source: Path, place: Path, owners: str) -> None:
    """Source: man 2 move_mount."""
    fd = linux.open_tree(linux.AT_FDCWD, str(source), linux.OPEN_TREE_CLONE)
    namespace = linux.user_namespace(owners, owners)
    linux.mount_setattr(fd, "", linux.AT_EMPTY_PATH, linux.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    move_mount, from_descriptor = 429, 4  # on every machine; MOVE_MOUNT_F_EMPTY_PATH
    moved = ctypes.CDLL(None).syscall(
        move_mount, fd, b"", linux.AT_FDCWD, os.fsencode(place), from_descriptor
    )
    assert moved == 0
    os.close(fd)
    os.close(namespace)
