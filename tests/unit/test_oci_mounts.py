"""config.json's mounts as operations: every option string of the specification, targets, propagation, devices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs import job_of
from pyrun import linux
from pyrun.cgroups.layout import Group, Hierarchy
from pyrun.errors import UsageError
from pyrun.plan.catalogue import explain
from pyrun.plan.job import Job
from pyrun.plan.operations import Operation
from pyrun.spec import mount_options as options
from pyrun.stages import mounts, rootfs

OPS = Path(__file__).resolve().parents[2] / "csrc/ops.h"

# runtime-spec 1.3, config.md#linux-mount-options, in its order.
SPECIFIED = """
async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec
noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime
remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro
rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync
tmpcopyup unbindable idmap ridmap
""".split()


V2: list[Hierarchy] = [("unified", "/sys/fs/cgroup", "/")]


def job(
    hierarchies: list[Hierarchy] = V2,
    groups: Sequence[Group] = (("unified", "/sys/fs/cgroup/x"),),
    **more: object,
) -> Job:
    own: dict[str, object] = {
        "root": "/bundle/rootfs",
        "bundle": "/bundle",
        "namespaces": ["mount", "cgroup"],
    }
    return job_of(hierarchies, list(groups), **(own | more))


def plan(*entries: dict[str, object], given: Job | None = None, **linux_section: object) -> list[Operation]:
    given = job() if given is None else given
    return mounts.plan({"mounts": list(entries), "linux": linux_section}, given, [])[0]


def bind(*words: str, **more: object) -> dict[str, object]:
    return {"destination": "/t", "source": "/s", "options": ["bind", *words], **more}


def tmpfs(*words: str, **more: object) -> dict[str, object]:
    return {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": list(words), **more}


# ── the table ──────────────────────────────────────────────────────────────────────────────────────


def test_the_table_of_the_specification_is_complete() -> None:
    assert len(SPECIFIED) == len(set(SPECIFIED)) == 61
    assert set(SPECIFIED) <= set(options.known())
    assert options.known() == sorted(options.known())


@pytest.mark.parametrize("word", [each for each in SPECIFIED if each not in options.SUPERBLOCK])
def test_no_specified_option_reaches_the_file_system(word: str) -> None:
    assert options.parse([word]).data == []


@pytest.mark.parametrize("word", ["sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"])
def test_options_of_the_superblock_do_by_their_own_names(word: str) -> None:
    found = options.parse([word])
    assert (found.data, found.named, found.old) == ([word], 0, False)


@pytest.mark.parametrize(
    ("word", "bit"),
    [
        ("ro", linux.MOUNT_ATTR_RDONLY),
        ("nosuid", linux.MOUNT_ATTR_NOSUID),
        ("nodev", linux.MOUNT_ATTR_NODEV),
        ("noexec", 0x08),
        ("noatime", 0x10),
        ("strictatime", 0x20),
        ("nodiratime", 0x80),
        ("nosymfollow", 0x200000),
    ],
)  # fmt: skip  (the numbers are those of linux/mount.h)
def test_attributes_are_set_and_taken_back(word: str, bit: int) -> None:
    cleared = {"ro": "rw", "noatime": "relatime", "strictatime": "relatime"}.get(
        word, word.removeprefix("no")
    )
    found = options.parse([word])
    assert found.set == bit and found.named & bit
    assert options.parse([word, cleared]).set == 0
    assert options.parse([cleared, word]).set == bit
    tree = options.parse(["r" + word])
    assert (tree.set, tree.tree_set) == (0, bit) and tree.tree_named & bit
    assert options.parse(["r" + word, "r" + cleared]).tree_set == 0


@pytest.mark.parametrize("word", ["noatime", "relatime", "strictatime", "atime", "nostrictatime"])
def test_an_access_time_mode_clears_the_whole_mode(word: str) -> None:
    """mount_setattr refuses a mode that is set without all of MOUNT_ATTR__ATIME cleared."""
    for found in (options.parse([word]), options.parse(["noatime", "strictatime", word])):
        assert found.named & options.ATIME == options.ATIME
        assert found.cleared() & options.ATIME == options.ATIME
        assert found.set & options.ATIME == options.ATTRIBUTES[word][1]
    tree = options.parse(["r" + word])
    assert tree.tree_named == options.ATIME


def test_norelatime_takes_back_relatime_and_nothing_else() -> None:
    assert options.parse(["norelatime"]).named == 0
    assert options.parse(["relatime", "norelatime"]).named == 0
    assert options.parse(["noatime", "norelatime"]).set == options.NOATIME
    assert options.parse(["rnorelatime"]).tree_named == options.ATIME


@pytest.mark.parametrize("word", ["iversion", "noiversion", "silent", "loud"])
def test_what_only_the_old_call_has_a_flag_for(word: str) -> None:
    found = options.parse([word])
    assert found.data == []
    assert found.old == (word == "iversion")
    assert not options.parse(["iversion", "noiversion"]).old


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("size=64m", ["size=64m"]),
        ("mode=755,size=1m", ["mode=755", "size=1m"]),
        ('context="system_u:object_r:t:s0:c1,c2"', ["context=system_u:object_r:t:s0:c1,c2"]),
        ('a,context="x,y",b', ["a", "context=x,y", "b"]),
        (",,a,,", ["a"]),
        ("", []),
        ('context="open,b', ["context=open,b"]),
        ("nosuchoption", ["nosuchoption"]),
        ("x-systemd.automount", []),
        ("_netdev", []),
    ],
)
def test_what_is_left_goes_to_the_file_system_one_by_one(word: str, expected: list[str]) -> None:
    assert options.parse([word]).data == expected


def test_a_value_fsconfig_has_no_room_for() -> None:
    assert not options.parse(["lowerdir=" + "x" * 255]).old
    assert options.parse(["lowerdir=" + "x" * 256]).old
    (operation,) = plan(tmpfs("lowerdir=" + "x" * 300, "ro", "sync", destination="/o", type="overlay"))
    assert operation.kind == "MOUNT_OLD"
    assert operation.args[3] == 1 | 16
    assert "sync" not in operation.args


# ── what becomes of them ───────────────────────────────────────────────────────────────────────────


def test_a_bind_mount_without_options_keeps_what_the_source_has() -> None:
    assert plan(bind()) == [Operation("BIND", "/t", "/s", 0, 0, 0)]
    assert plan(bind("rbind", "rprivate")) == [
        Operation("BIND", "/t", "/s", 0, 1, linux.MS_PRIVATE | linux.MS_REC)
    ]


def test_a_bind_mount_with_one_has_no_others() -> None:
    """mount(8) and runc: --bind -o ro makes it ro, and neither nosuid nor noexec whatever the source is."""
    (operation,) = plan(bind("ro", "suid"))
    _, _, attributes, _, _, clear, named = operation.args
    assert attributes == options.RDONLY
    assert clear == options.PLAIN
    assert named == options.RDONLY | options.NOSUID | options.NOSYMFOLLOW  # for where the rest is locked


def test_access_times_of_a_bind_mount_stay_unless_one_is_named() -> None:
    assert options.parse(["ro"]).cleared() & (options.ATIME | options.NODIRATIME) == 0
    assert options.parse(["nodiratime"]).cleared() & (options.ATIME | options.NODIRATIME) == 0xF0
    assert options.parse(["diratime"]).cleared() & (options.ATIME | options.NODIRATIME) == options.NODIRATIME


def test_several_propagations_are_done_in_order() -> None:
    (operation,) = plan(bind("rslave", "shared", "rro"))
    assert operation.args[4] == linux.MS_SLAVE | linux.MS_REC
    assert operation.args[-1] == linux.MS_SHARED
    assert operation.args[9:11] == (options.RDONLY, options.RDONLY)
    spread = plan(tmpfs("rshared"))[1:]
    assert spread == [Operation("ATTRIBUTES", "/t", 0, 0, 1, linux.MS_SHARED)]


def test_a_relative_source_is_the_bundles() -> None:
    assert plan(bind(source="data"))[0].args[1] == "/bundle/data"
    assert plan({"destination": "/t", "type": "bind", "source": "/s"})[0].kind == "BIND"


def test_a_tmpfs_turns_read_only_when_all_is_in_its_place() -> None:
    config = {"mounts": [tmpfs("ro", "nodev", "size=1m"), tmpfs("rro", destination="/u")], "root": {}}
    operations, targets = mounts.plan(config, job(), [])
    assert operations == [
        Operation("MOUNT", "/t", "tmpfs", "tmpfs", options.NODEV, "size=1m"),
        Operation("MOUNT", "/u", "tmpfs", "tmpfs", 0),
    ]
    late = rootfs.plan_pivot(config, job(), targets)
    assert late == [
        Operation("ATTRIBUTES", "/t", options.RDONLY, 0, 0, 0),
        Operation("ATTRIBUTES", "/u", options.RDONLY, 0, 0, 0),
        Operation("PIVOT"),
    ]


def test_a_device_is_opened_read_only() -> None:
    (operation,) = plan({"destination": "/d", "type": "ext4", "source": "/dev/vdb", "options": ["ro"]})
    assert operation == Operation("MOUNT", "/d", "ext4", "/dev/vdb", options.RDONLY, "ro")


def test_tmpcopyup_and_remount() -> None:
    assert plan(tmpfs("tmpcopyup", "mode=700")) == [Operation("TMPFS_COPY", "/t", 0, "mode=700")]
    assert plan(tmpfs("remount", "size=2m", "ro")) == [
        Operation("REMOUNT", "/t", options.RDONLY, options.PLAIN, "size=2m", "ro")
    ]
    assert plan(bind("remount", "noexec")) == [Operation("REMOUNT", "/t", options.NOEXEC, options.PLAIN)]


# ── owners, user namespaces ────────────────────────────────────────────────────────────────────────

MAP = [{"containerID": 0, "hostID": 100000, "size": 10}]
TEXT = "0 100000 10\n"


def test_owners_are_mapped_by_init_where_it_may() -> None:
    given = job()
    (operation,) = plan(bind("ridmap", uidMappings=MAP, gidMappings=MAP), given=given)
    assert given.descriptors == [("idmap", ("/t", TEXT, TEXT))]
    assert operation.args[3] == mounts.OWNERS_TREE
    assert operation.args[7:9] == (-1, 16)


def test_owners_are_mapped_by_the_planner_for_a_user_namespace() -> None:
    given = job(user_namespace=True)
    operations = plan(bind("rbind", "idmap"), bind(), given=given, uidMappings=MAP, gidMappings=MAP)
    how = mounts.TREE | mounts.LOCKED | mounts.PASSED
    assert given.descriptors == [
        ("tree", ("/s", how, "/t", TEXT, TEXT)),
        ("tree", ("/s", mounts.LOCKED, "/t")),
    ]
    assert [each.args[3] for each in operations] == [how, mounts.LOCKED]
    assert [each.args[7] for each in operations] == [16, 17]


def test_owners_as_in_a_namespace_that_is_joined() -> None:
    given = job()
    plan(bind("idmap"), given=given, namespaces=[{"type": "user", "path": "/proc/7/ns/user"}])
    assert given.descriptors == [("idmap", ("/t", "/proc/7/ns/user"))]


def test_without_root_init_opens_everything_itself() -> None:
    given = job(user_namespace=True, rootless=True)
    assert plan(bind(), given=given) == [Operation("BIND", "/t", "/s", 0, 0, 0)]
    assert given.descriptors == []
    assert rootfs.plan_root({}, given)[1] == Operation("ROOT_BIND", "/bundle/rootfs")
    with pytest.raises(UsageError, match="root only"):
        plan(bind("idmap", uidMappings=MAP, gidMappings=MAP), given=given)


def test_the_root_is_opened_for_a_user_namespace() -> None:
    given = job(user_namespace=True)
    assert rootfs.plan_root({}, given)[1] == Operation("ROOT_BIND", "/bundle/rootfs", 16)
    assert given.descriptors == [("tree", ("/bundle/rootfs", 1, "/"))]


# ── targets ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "target", ["/proc/sys", "/proc/self/attr", "/proc/kcore", "/x/../proc/sys", "/proc//1"]
)
def test_nothing_is_mounted_inside_proc(target: str) -> None:
    for entry in (bind(destination=target), tmpfs(destination=target)):
        with pytest.raises(
            UsageError, match=r"config.json: mounts\[0\]\.destination: .* because it is inside /proc"
        ):
            plan(entry)


@pytest.mark.parametrize("target", [*options.PROC_FILES, "/proc/../process", "/procx/sys"])
def test_but_what_lxcfs_emulates(target: str) -> None:
    assert plan(bind(destination=target))


def test_proc_itself_is_a_procfs() -> None:
    assert plan({"destination": "/proc", "type": "proc", "source": "proc"})
    assert plan(bind(destination="/proc", source="/proc"))  # init looks at what is bound
    with pytest.raises(UsageError, match="not of type proc"):
        plan(tmpfs(destination="/proc"))


def test_a_target_that_names_the_root_is_below_it() -> None:
    assert plan(bind(destination="/bundle/rootfs/data"))[0].args[0] == "/data"
    assert plan(bind(destination="/bundle/rootfs2/data"))[0].args[0] == "/bundle/rootfs2/data"


# ── cgroups ────────────────────────────────────────────────────────────────────────────────────────

CGROUP = {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["nosuid"]}


def test_the_unified_hierarchy() -> None:
    assert plan(CGROUP) == [Operation("CGROUP2", "/sys/fs/cgroup", "/sys/fs/cgroup/x", options.NOSUID)]
    shared = plan(CGROUP, given=job(namespaces=["mount"]))
    assert shared == [Operation("CGROUP2", "/sys/fs/cgroup", "/sys/fs/cgroup", options.NOSUID)]


@pytest.mark.parametrize("who", ["rootless", "user_namespace"])
def test_the_hosts_cgroups_are_read_only_for_everybody_else(who: str) -> None:
    """CVE-2023-25809."""
    given = job(namespaces=["mount"], **{who: True})
    assert plan(CGROUP, given=given)[0].args[2] == options.NOSUID | options.RDONLY
    v1 = job([("pids", "/c/pids", "/")], [("pids", "/c/pids/x")], namespaces=["mount"], **{who: True})
    operations = plan(CGROUP, given=v1)
    assert operations[1].args[:3] == ("/sys/fs/cgroup/pids", "/c/pids/x", options.NOSUID | options.RDONLY)
    assert operations[-1] == Operation("ATTRIBUTES", "/sys/fs/cgroup", options.RDONLY, 0, 0, 0)


def test_without_any_cgroup_there_is_an_empty_directory() -> None:
    (operation,) = plan(CGROUP, given=job(groups=[]))
    assert operation.args[1] == "tmpfs" and operation.args[3] == options.NOSUID | options.RDONLY


# ── labels, propagation, devices, masks ────────────────────────────────────────────────────────────


def test_mount_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enforce = tmp_path / "enforce"
    config = {"linux": {"mountLabel": "u:r:t:s0:c1,c2"}}
    with pytest.raises(UsageError, match=r"linux\.mountLabel"):
        mounts.label_of(config, str(enforce))
    enforce.write_text("1")
    assert mounts.label_of(config, str(enforce)) == "u:r:t:s0:c1,c2"
    monkeypatch.setattr(mounts, "label_of", lambda config: "u:r:t:s0:c1,c2")
    assert plan(tmpfs())[0].args[-1] == "context=u:r:t:s0:c1,c2"
    assert plan({"destination": "/proc", "type": "proc"})[0].args[4:] == ()
    assert plan({"destination": "/q", "type": "mqueue"})[1] == Operation(
        "MOUNT_LABEL", "/q", "u:r:t:s0:c1,c2"
    )
    assert rootfs.plan_hidden({"linux": {"maskedPaths": ["/a"], "mountLabel": "l"}}) == [
        Operation("MASK", "/a", "context=l")
    ]


def test_what_is_hidden_twice_is_hidden_once() -> None:
    """And in the shortest form, by which init finds the mount that holds it."""
    section = {"maskedPaths": ["/a/b", "/c", "//a/./b/", "/c"], "readonlyPaths": ["/x/../d", "/d", "/c"]}
    assert rootfs.plan_hidden({"linux": section}) == [
        Operation("MASK", "/a/b"), Operation("MASK", "/c"), Operation("READONLY", "/d"), Operation("READONLY", "/c"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "first", "last"),
    [
        (None, Operation("PROPAGATION", linux.MS_SLAVE), None),
        ("slave", Operation("PROPAGATION", linux.MS_SLAVE), None),
        ("rslave", Operation("PROPAGATION", linux.MS_SLAVE), None),
        ("private", Operation("PROPAGATION", linux.MS_PRIVATE), None),
        ("unbindable", Operation("PROPAGATION", linux.MS_PRIVATE), (0, linux.MS_UNBINDABLE)),
        ("shared", Operation("ROOT_PARENT", "/bundle/rootfs", linux.MS_PRIVATE), (0, linux.MS_SHARED)),
        ("rshared", Operation("ROOT_PARENT", "/bundle/rootfs", linux.MS_PRIVATE), (1, linux.MS_SHARED)),
    ],
)
def test_propagation_of_the_root(word: str | None, first: Operation, last: tuple[int, int] | None) -> None:
    config = {"linux": {"rootfsPropagation": word} if word else {}, "root": {"readonly": True}}
    assert rootfs.plan_root(config, job())[0] == first
    operations = rootfs.plan_pivot(config, job(), [])
    shared = first.kind == "ROOT_PARENT"
    assert operations[0] == (Operation("PIVOT", 1) if shared else Operation("PIVOT"))
    assert operations[1:-1] == ([Operation("ATTRIBUTES", "/", 0, 0, *last)] if last else [])
    assert operations[-1] == Operation("ROOT_READONLY")


def devices(*given: dict[str, object], mounts: tuple[dict[str, object], ...] = ()) -> dict[str, Operation]:
    config = {"linux": {"devices": list(given)}, "mounts": list(mounts)}
    return {str(each.args[0]): each for each in rootfs.plan_devices(config)}


def test_devices_of_every_kind() -> None:
    found = devices(
        {"path": "/dev/a", "type": "u", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 3, "gid": 4},
        {"path": "/x/b", "type": "b", "major": 7, "minor": 1, "fileMode": 0},
        {"path": "/dev/p", "type": "p"},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
    )
    assert found["/dev/a"].args[1:] == (0o020600, 1, 5, 3, 4, "/dev/zero")
    assert found["/x/b"].args[1:] == (0o060000, 7, 1, 0, 0, "/x/b")
    assert found["/dev/p"].args[1:] == (0o010666, 0, 0, 0, 0)
    assert found["/dev/null"].args[1:] == (0o020666, 1, 3, 0, 0, "/dev/null")
    assert found["/dev/ptmx"] == Operation("SYMLINK", "/dev/ptmx", "pts/ptmx", 1)
    assert {
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
        "/dev/tty",
        "/dev/fd",
        "/dev/stdin",
    } <= set(found)


@pytest.mark.parametrize("words", [["bind"], ["rbind", "rw"]])
def test_a_dev_that_is_bound_is_left_alone(words: list[str]) -> None:
    mount = {"destination": "/dev/", "source": "/dev", "options": words}
    given = {"path": "/dev/a", "type": "c", "major": 1, "minor": 5}
    assert set(devices(given, {**given, "path": "/x"}, mounts=(mount,))) == {"/x"}


def test_no_pivot_takes_the_hosts_proc_and_sysfs_away() -> None:
    text = (
        "1 0 0:1 / /proc rw - proc proc rw\n2 0 0:1 /sys /other rw - proc proc rw\n"
        "3 0 0:1 / /a\\040b rw shared:1 - sysfs s rw\n"
        "4 0 0:1 / /bundle/rootfs/proc rw - proc proc rw\n5 0 0:1 / /t rw - tmpfs t rw\n"
    )
    assert rootfs._full_pseudo_mounts("/bundle/rootfs", text) == ["/proc", "/a b"]
    assert rootfs.plan_pivot({"root": {}}, job(no_pivot=True), [])[0].kind == "ROOT_MOVE"


# ── words ──────────────────────────────────────────────────────────────────────────────────────────


def test_every_operation_is_explained() -> None:
    given = job()
    operations = plan(
        bind("ro", "suid", "rnoexec", "rslave", "shared", "noatime"), bind("idmap", uidMappings=MAP, gidMappings=MAP),
        tmpfs("tmpcopyup", "nodev"), tmpfs("iversion"), tmpfs("remount", "ro", "exec"), tmpfs("rshared"), CGROUP,
        given=given,
    )  # fmt: skip
    operations += [
        *rootfs.plan_root({"linux": {"rootfsPropagation": "shared"}}, given),
        Operation("ROOT_MOVE", "/proc"), Operation("MOUNT_LABEL", "/q", "l"),
        *devices({"path": "/p", "type": "p"}).values(),
    ]  # fmt: skip
    for operation in operations:
        sentence, shell, see = explain(operation)
        assert sentence and see and "\n" not in sentence + shell + see, operation
        assert not re.search(r"\{[0-9]", sentence + shell + see)
    sentence, shell, _ = explain(operations[0])
    assert sentence == "show the host's /s at /t (read-only)"
    assert shell == (
        "mkdir -p $ROOT/t; mount --bind -o ro,suid,noatime,rnoexec --make-rslave --make-shared /s $ROOT/t"
    )


def test_numbers_are_those_of_the_table() -> None:
    known = dict(re.findall(r"#define (BIND_\w+) (\d+)", OPS.read_text()))
    mine = {"BIND_TREE": mounts.TREE, "BIND_PASSED": mounts.PASSED, "BIND_LOCKED": mounts.LOCKED}
    assert {name: int(known[name]) for name in mine} == mine
    assert int(known["BIND_OWNERS_TREE"]) == mounts.OWNERS_TREE
