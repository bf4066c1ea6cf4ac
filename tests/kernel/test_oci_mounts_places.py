"""Where mounts go and what they show: links and /proc, owners, propagation, devices, the pivot, cgroups.

"The host" is the mount namespace of a forked child; see mounted.py.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import capabilities
from mounted import DEV, MAP, PROC, SHOW, Run, Seen, bind, sh, tmpfs
from pyrun import linux
from pyrun.plan.operations import Operation

PTS = {"destination": "/dev/pts", "type": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}
needs_user = pytest.mark.needs("user_namespaces")


# ── links, /proc ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["proc", "sysfs"])
@pytest.mark.parametrize("made", ["link", "dangling", "parent", "file"])
def test_proc_and_sysfs_go_on_ordinary_directories(run: Run, root: Path, kind: str, made: str) -> None:
    """CVE-2019-19921, CVE-2023-27561."""
    target = "/p/sub" if made == "parent" else "/p"
    (root / "trap/sub").mkdir(parents=True)
    if made == "file":
        (root / "p").write_text("")
    else:
        (root / "p").symlink_to("/nowhere" if made == "dangling" else "/trap")
    failed = run({"destination": target, "type": kind, "source": kind}).failed
    assert failed == ("MOUNT", errno.ENOTDIR, "must be mounted on ordinary directory")


@pytest.mark.parametrize(
    "entry",
    [tmpfs(target="/link/sys/kernel"), bind("/etc/hostname", target="/link/uptime"), tmpfs(target="/direct")],
)
def test_no_link_leads_a_mount_into_proc(run: Run, root: Path, entry: dict[str, object]) -> None:
    """CVE-2019-16884: what the config does not say, a link of the image would."""
    (root / "link").symlink_to("/proc")
    (root / "direct").symlink_to("../../proc/sys")
    failed = run(entry).failed
    assert failed is not None and failed[1:] == (errno.ENOTDIR, "it leads into /proc")


def test_no_link_leads_a_mount_onto_proc(run: Run, root: Path, source: Path) -> None:
    (root / "link").symlink_to("/proc")
    for entry in (tmpfs(target="/link"), bind(source, target="/link")):
        for standard in ((PROC, DEV), (DEV,)):
            failed = run(entry, standard=standard).failed
            assert failed is not None and failed[1] == errno.ENOTDIR, standard


def test_only_a_procfs_is_bound_on_proc(run: Run, source: Path) -> None:
    failed = run(bind(source, target="/proc"), standard=(DEV,)).failed
    assert failed == ("BIND", errno.ENOTDIR, "/proc must be of type proc")
    assert run(bind("/proc", "rbind", target="/proc"), standard=(DEV,)).mounts()["/proc"]["kind"] == "proc"


def test_what_lxcfs_emulates_may_be_bound(run: Run, source: Path) -> None:
    entries = [bind(source / "file", target=f"/proc/{name}") for name in ("uptime", "net/dev", "cpuinfo")]
    # what is below /proc/net the kernel looks up anew each time: the bind is accepted, and gone
    assert run(*entries, script="cat /proc/uptime /proc/cpuinfo").output == "text" * 2


def test_links_that_lead_elsewhere_are_followed_inside(run: Run, root: Path) -> None:
    (root / "var").mkdir()
    (root / "var/run").symlink_to("/run")
    assert "/run/x" in run(tmpfs("ro", target="/var/run/x")).mounts()


def test_directories_made_for_a_mount(run: Run, root: Path) -> None:
    (root / "s").mkdir()
    (root / "s").chmod(0o7755)
    run(tmpfs(target="/s/a/b"))
    assert [oct((root / "s" / name).stat().st_mode & 0o7777) for name in ("", "a", "a/b")] == [
        "0o7755",
        "0o2755",
        "0o2755",
    ]


# ── owners ─────────────────────────────────────────────────────────────────────────────────────────


def owned(directory: Path) -> Callable[[], None]:
    def host() -> None:
        sh("mount", "-t", "tmpfs", "tmpfs", str(directory))
        for uid in (0, 5):
            (directory / str(uid)).touch()
            os.chown(directory / str(uid), uid, uid + 1)
        (directory / "below").mkdir()
        sh("mount", "-t", "tmpfs", "tmpfs", str(directory / "below"))

    return host


OWNERS = "stat -c '%n %u:%g' /t/0 /t/5 /t/below; touch /t/new; stat -c %u /t/new 2>&1"


@pytest.mark.parametrize(
    ("words", "below"),
    [
        (["idmap"], "0:0"),
        (["rbind", "idmap"], "0:0"),
        (["rbind", "ridmap"], "100000:100000"),
        (["rbind"], "0:0"),
    ],
)
def test_owners_are_mapped(run: Run, source: Path, words: list[str], below: str) -> None:
    entry = bind(source, *words, uidMappings=MAP, gidMappings=MAP)
    rbind = "rbind" in words
    lines = run(entry, host=owned(source), script=OWNERS).lines()
    assert lines[:2] == ["/t/0 100000:100001", "/t/5 100005:100006"]
    assert lines[2] == f"/t/below {below if rbind else '100000:100000'}"
    assert "too large" in lines[3]  # the container's root is nobody there: EOVERFLOW


@needs_user
@pytest.mark.parametrize("explicit", [True, False])
def test_owners_as_in_the_containers_user_namespace(
    run: Run, root: Path, source: Path, explicit: bool
) -> None:
    (root / "t").mkdir()
    maps = {"uidMappings": MAP, "gidMappings": MAP}
    entry = bind(source, "rbind", "ridmap", **(maps if explicit else {}))  # type: ignore[arg-type]
    seen = run(entry, host=owned(source), script=OWNERS, user=True, linux={} if explicit else maps)
    assert seen.lines() == ["/t/0 0:1", "/t/5 5:6", "/t/below 0:0", "0"]


def test_owners_of_a_namespace_that_is_joined(run: Run, source: Path) -> None:
    holder = subprocess.Popen(["unshare", "-U", "sleep", "30"])
    try:
        while Path(f"/proc/{holder.pid}/ns/user").readlink() == Path("/proc/self/ns/user").readlink():
            pass
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text("0 7000 10\n")
        path = f"/proc/{holder.pid}/ns/user"
        entry = bind(source, "idmap")
        seen = run(
            entry, host=owned(source), script=OWNERS, linux={"namespaces": [{"type": "user", "path": path}]}
        )
        assert seen.lines()[:2] == ["/t/0 7000:7001", "/t/5 7005:7006"]
    finally:
        holder.kill()
        holder.wait()


def test_a_file_system_without_mapped_owners_is_named(run: Run) -> None:
    failed = run(bind("/proc", "idmap", uidMappings=MAP, gidMappings=MAP)).failed
    assert failed is not None and failed[:2] == ("BIND", errno.EINVAL) and "idmap" in failed[2]


# ── propagation ────────────────────────────────────────────────────────────────────────────────────


def shared(directory: Path) -> Callable[[], None]:
    def host() -> None:
        sh("mount", "-t", "tmpfs", "tmpfs", str(directory))
        sh("mount", "--make-shared", str(directory))
        (directory / "in").mkdir()
        (directory / "out").mkdir()

    return host


@pytest.mark.parametrize(
    ("root_word", "word", "events"),
    [
        (None, "", "from"), (None, "rslave", "from"), (None, "slave", "from"), (None, "rprivate", ""),
        (None, "private", ""),
        ("shared", "rshared", "from to"), ("shared", "shared", "from to"), ("shared", "rslave", "from"),
        ("rslave", "rslave", "from"), ("private", "rslave", ""), ("private", "shared", ""), (None, "rshared", "from"),
        ("shared", "rprivate", ""), ("shared", "unbindable", ""),
    ],
)  # fmt: skip
def test_mounts_of_one_side_seen_from_the_other(
    run: Run, source: Path, root_word: str | None, word: str, events: str
) -> None:
    """from: a mount the host makes in a volume appears in the container; to: the other way."""

    def meanwhile(pid: int) -> bool:
        sh("mount", "-t", "tmpfs", "tmpfs", str(source / "in"))
        (source / "in/seen").touch()
        return f" {source}/out " in Path("/proc/self/mountinfo").read_text()

    script = "mount -t tmpfs tmpfs /t/out; echo ready; read x; ls /t/in"
    linux_section = {"rootfsPropagation": root_word} if root_word else {}
    seen = run(
        bind(source, "rbind", *word.split()),
        host=shared(source),
        meanwhile=meanwhile,
        script=script,
        linux=linux_section,
    )
    assert seen.lines() == (["seen"] if "from" in events else [])
    assert seen.told is ("to" in events)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (None, {"master"}),
        ("slave", {"master"}),
        ("private", set()),
        ("unbindable", {"unbindable"}),
        ("shared", {"shared"}),
    ],
)
def test_propagation_of_the_root_itself(run: Run, root: Path, word: str | None, expected: set[str]) -> None:
    """On a host where everything is shared, as systemd makes it; nothing of the container's gets out."""

    def host() -> None:
        sh("mount", "--make-rshared", "/")

    def meanwhile(pid: int) -> list[str]:
        return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]

    script = "mount -t tmpfs inner /t; echo ready; read x; cat /proc/self/mountinfo"
    (root / "t").mkdir()
    before = len(Path("/proc/self/mountinfo").read_text().splitlines())
    linux_section = {"rootfsPropagation": word} if word else {}
    seen = run(host=host, meanwhile=meanwhile, script=script, linux=linux_section)
    assert seen.mounts()["/"]["propagation"] == expected
    assert seen.told == []
    assert len(Path("/proc/self/mountinfo").read_text().splitlines()) == before


def test_letting_go_of_a_shared_host_takes_nothing_away_from_it(run: Run, source: Path) -> None:
    def host() -> None:
        sh("mount", "-t", "tmpfs", "tmpfs", str(source))
        sh("mount", "--make-rshared", "/")
        (source / "below").mkdir()
        sh("mount", "-t", "tmpfs", "tmpfs", str(source / "below"))

    def meanwhile(pid: int) -> bool:
        return f" {source}/below " in Path("/proc/self/mountinfo").read_text()

    assert (
        run(
            host=host, meanwhile=meanwhile, script="echo ready; read x", linux={"rootfsPropagation": "shared"}
        ).told
        is True
    )


@pytest.mark.parametrize("word", ["shared", "slave", "private", "unbindable"])
def test_propagation_of_a_file_system(run: Run, word: str) -> None:
    seen = run(tmpfs(word), tmpfs("r" + word, target="/u")).mounts()
    expected = {"private": set(), "slave": set()}.get(word, {word})
    assert seen["/t"]["propagation"] == seen["/u"]["propagation"] == expected


# ── devices ────────────────────────────────────────────────────────────────────────────────────────

DEVICES = [
    {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4},
    {"path": "/odd/place", "type": "u", "major": 1, "minor": 7, "fileMode": 0},
    {"path": "/dev/block", "type": "b", "major": 7, "minor": 0},
    {"path": "/dev/pipe", "type": "p", "fileMode": 0o622},
]
LOOK = (
    "stat -c '%n %F %a %u:%g %t:%T' /dev/mine /odd/place /dev/block /dev/pipe /dev/null /dev/tty; "
    "readlink /dev/fd; readlink /dev/ptmx"
)


def test_devices(run: Run) -> None:
    assert run(linux={"devices": DEVICES}, script=LOOK).lines() == [
        "/dev/mine character special file 640 3:4 1:5",
        "/odd/place character special file 0 0:0 1:7",
        "/dev/block block special file 666 0:0 7:0",
        "/dev/pipe fifo 622 0:0 0:0",
        "/dev/null character special file 666 0:0 1:3",
        "/dev/tty character special file 666 0:0 5:0",
        "/proc/self/fd",
        "pts/ptmx",
    ]


def test_devices_without_a_dev_of_their_own(run: Run, root: Path) -> None:
    """The root's /dev is filled then, again and again, and an old ptmx gives way."""
    os.mknod(root / "dev/ptmx", 0o020666, os.makedev(5, 2))
    for _ in range(2):
        script = "stat -c '%t:%T' /dev/null; readlink /dev/ptmx"
        assert run(standard=(PROC,), script=script).lines() == ["1:3", "pts/ptmx"]


def test_something_else_in_a_devices_place_is_an_error(run: Run, root: Path) -> None:
    (root / "dev/mine").write_text("content")
    failed = run(standard=(PROC,), linux={"devices": DEVICES[:1]}).failed
    assert failed is not None and failed[:2] == ("DEVICE", errno.EEXIST)
    assert (root / "dev/mine").read_text() == "content"


@needs_user
def test_devices_of_a_user_namespace_are_the_hosts(run: Run, root: Path) -> None:
    odd = {"path": "/dev/odd", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 3}
    before = os.stat("/dev/zero")
    script = (
        "stat -c '%n %F %t:%T' /dev/odd /dev/null /dev/pipe; echo x >/dev/null && dd if=/dev/odd bs=4 count=1"
    )
    script += " 2>/dev/null"
    seen = run(linux={"devices": [odd, DEVICES[3]]}, user=True, script=script)
    assert seen.lines()[:3] == [
        "/dev/odd character special file 1:5", "/dev/null character special file 1:3", "/dev/pipe fifo 0:0",
    ]  # fmt: skip
    assert seen.output.endswith("\0\0\0\0")
    after = os.stat("/dev/zero")
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)


@needs_user
def test_a_device_the_host_has_not(run: Run) -> None:
    failed = run(
        linux={"devices": [{"path": "/dev/nosuch", "type": "c", "major": 99, "minor": 9}]}, user=True
    ).failed
    assert failed == ("DEVICE", errno.ENOENT, "/dev/nosuch")


def test_a_bound_dev_is_left_alone(run: Run, source: Path) -> None:
    (source / "null").write_text("")
    assert run(bind(source, target="/dev"), standard=(PROC,), script="ls /dev; stat -c %F /dev/null").lines() == [
        "file", "null", "regular empty file",
    ]  # fmt: skip


def test_console(run: Run, root: Path) -> None:
    """The terminal is one of the container's own devpts, and /dev/console is the same."""
    config = {"operations": [Operation("SESSION", 0), Operation("TERMINAL", 24, 80, 0, 1)]}
    script = "{ tty; stat -c '%t:%T %u' /dev/console /dev/pts/0; echo seen >/dev/console; } >/told 2>&1"
    assert run(PTS, config=config, script=script).failed is None
    assert (root / "told").read_text().split() == ["/dev/pts/0", "88:0", "0", "88:0", "0"]


# ── the pivot ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("readonly", [False, True])
def test_without_pivot_root(run: Run, root: Path, readonly: bool) -> None:
    script = "ls /; touch /x 2>/dev/null && echo written; ls /../.. | grep -c etc; cat /proc/self/mountinfo"
    seen = run(
        tmpfs("ro"), bind("/etc", "ro", target="/e"), script=script, job={"no_pivot": True},
        config={"root": {"readonly": readonly}},
    )  # fmt: skip
    lines = seen.lines()
    assert ("written" in lines) is not readonly
    assert "0" in lines and "busybox" not in lines
    found = Seen(None, "\n".join(line for line in lines if " - " in line), None).mounts()
    assert "ro" in found["/t"]["options"]  # type: ignore[operator]
    assert [each["kind"] for each in found.values()].count("sysfs") == 0
    assert {target for target, each in found.items() if each["kind"] == "proc"} == {"/proc"}


def test_without_pivot_root_a_shared_host_keeps_its_root(run: Run, root: Path, source: Path) -> None:
    def host() -> None:
        sh("mount", "-t", "tmpfs", "tmpfs", str(source))
        sh("cp", "-a", str(root), str(source / "root"))
        sh("mount", "--make-rshared", "/")

    def meanwhile(pid: int) -> list[str]:
        return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]

    job = {"no_pivot": True, "root": str(source / "root")}
    told = run(
        host=host,
        meanwhile=meanwhile,
        script="echo ready; read x",
        linux={"rootfsPropagation": "shared"},
        job=job,
    ).told
    assert isinstance(told, list) and told.count("/") == 1 and {"/proc", "/sys"} <= set(told)


@needs_user
def test_without_pivot_root_and_without_rights(run: Run) -> None:
    """The host's proc and sysfs cannot be taken away there: they are covered."""
    seen = run(
        script="ls /; mount -t sysfs s /t 2>&1; cat /proc/self/mountinfo", job={"no_pivot": True}, user=True
    )
    assert seen.failed is None


@needs_user
@pytest.mark.parametrize("hidden", [False, True])
def test_the_root_of_a_user_namespace(run: Run, root: Path, hidden: bool) -> None:
    """hidden: its directory cannot be reached from there; the planner has opened it."""
    os.chown(root, 100000, 100000)

    def host() -> None:
        root.parent.chmod(0o700 if hidden else 0o755)

    script = "ls /; id -u; touch /made; grep -c . /proc/self/mountinfo; readlink /proc/1/root"
    seen = run(host=host, user=True, script=script, config={"root": {"readonly": False}})
    lines = seen.lines()
    assert lines[:4] == ["bin", "dev", "proc", "0"] and lines[-1] == "/"
    assert int(lines[4]) < 20
    assert (root / "made").stat().st_uid == 100000
    failed = run(host=host, user=True, script="touch /again 2>&1", config={"root": {"readonly": True}})
    assert "Read-only" in failed.output


@pytest.mark.parametrize("user", [False, pytest.param(True, marks=needs_user)])
def test_masks_and_read_only_paths(run: Run, root: Path, user: bool) -> None:
    (root / "t").mkdir()
    section = {
        "maskedPaths": ["/proc/keys", "/proc/acpi", "/t/d", "/none"],
        "readonlyPaths": ["/proc/sys", "/t/r", "/none"],
    }
    script = "cat /proc/keys; ls /t/d; touch /t/d/x /t/r/x 2>&1; echo 1 >/proc/sys/kernel/msgmax"
    seen = run(tmpfs(), tmpfs(target="/t/d"), tmpfs(target="/t/r"), linux=section, script=script, user=user)
    assert seen.output.count("Read-only file system") == 3 and len(seen.lines()) == 3


@needs_user
def test_many_sources_for_a_user_namespace(run: Run, root: Path, source: Path) -> None:
    """Each is a descriptor that init finds at its number, whatever numbers the planner has for them."""
    for number in range(150):
        (source / str(number)).mkdir()
        (source / str(number) / f"f{number}").touch()
    (root / "t").mkdir()
    entries = [bind(source / str(number), target=f"/t/{number}") for number in range(150)]

    def host() -> None:
        source.chmod(0o700)

    seen = run(tmpfs(), *entries, host=host, user=True, script="cd /t; for i in *; do ls $i; done")
    assert sorted(seen.lines()) == sorted(f"f{number}" for number in range(150))


# ── cgroups ────────────────────────────────────────────────────────────────────────────────────────

CGROUP = {"destination": "/c", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "nodev"]}


def hierarchy() -> dict[str, object]:
    """This machine's unified hierarchy, wherever it is."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            target = line.split()[4]
            return {"hierarchies": [("unified", target, "/")], "cgroups": [("unified", target)]}
    pytest.skip(capabilities.missing("unified"))


def test_the_unified_hierarchy(run: Run) -> None:
    for namespaces in ([], ["cgroup"]):
        seen = run(CGROUP, job={**hierarchy(), "namespaces": namespaces}).mounts()["/c"]
        assert seen["kind"] == "cgroup2" and {"rw", "nosuid", "nodev"} <= seen["options"]  # type: ignore[operator]


@needs_user
def test_the_unified_hierarchy_of_a_user_namespace_is_read_only(run: Run, root: Path) -> None:
    """CVE-2023-25809: without a cgroup namespace it is the host's, and may not even be mounted."""
    (root / "c").mkdir()
    seen = run(CGROUP, job={**hierarchy(), "namespaces": []}, user=True, script=f"touch /c/x 2>&1; {SHOW}")
    assert "Read-only" in seen.lines()[0]
    found = Seen(None, "\n".join(seen.lines()[1:]), None).mounts()["/c"]
    assert found["kind"] == "cgroup2" and "ro" in found["options"]  # type: ignore[operator]


@needs_user
def test_a_hierarchy_that_cannot_be_reached_is_an_empty_directory(run: Run, root: Path) -> None:
    (root / "c").mkdir()
    job = {
        "hierarchies": [("unified", "/no/such", "/")],
        "cgroups": [("unified", "/no/such")],
        "namespaces": [],
    }
    seen = run(CGROUP, job=job, user=True, script=f"ls -a /c; touch /c/x 2>&1; {SHOW}")
    assert seen.lines()[:2] == [".", ".."] and "Read-only" in seen.lines()[2]


def test_owners_need_a_namespace_with_maps(sandbox_fork: Callable[..., object]) -> None:
    def make() -> list[str]:
        fd = linux.user_namespace("0 5 1\n1 100 10\n", "0 6 1\n")
        path = os.readlink(f"/proc/self/fd/{fd}")
        os.close(fd)
        try:
            linux.user_namespace("0 0", "")
        except OSError as error:
            return [path.partition(":")[0], str(error.errno)]
        return ["no error"]

    assert sandbox_fork(make) == ["user", str(errno.EINVAL)]
