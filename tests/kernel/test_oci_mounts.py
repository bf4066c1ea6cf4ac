"""Mount options as the kernel shows them in the container's /proc/self/mountinfo, one by one."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from mounted import SHOW, Run, Seen, bind, sh, tmpfs

# ── fresh file systems ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "there", "absent"),
    [
        ("ro", "ro", "rw"), ("rw", "rw", "ro"), ("ro rw", "rw", "ro"), ("rro", "ro", "rw"),
        ("nosuid", "nosuid", ""), ("nosuid suid", "", "nosuid"), ("rnosuid", "nosuid", ""),
        ("rnosuid rsuid", "", "nosuid"),
        ("nodev", "nodev", ""), ("nodev dev", "", "nodev"), ("rnodev", "nodev", ""), ("rnodev rdev", "", "nodev"),
        ("noexec", "noexec", ""), ("noexec exec", "", "noexec"), ("rnoexec", "noexec", ""),
        ("noexec rexec", "", "noexec"),
        ("noatime", "noatime", "relatime"), ("relatime", "relatime", "noatime"),
        ("noatime atime", "relatime", "noatime"),
        ("strictatime", "", "relatime noatime"), ("strictatime nostrictatime", "relatime", "noatime"),
        ("norelatime", "relatime", ""), ("noatime strictatime", "", "relatime noatime"),
        ("rnoatime", "noatime", "relatime"),
        ("rstrictatime", "", "relatime noatime"), ("rnoatime ratime", "relatime", "noatime"),
        ("nodiratime", "nodiratime relatime", ""), ("nodiratime diratime", "", "nodiratime"),
        ("noatime nodiratime", "noatime nodiratime", ""), ("rnodiratime", "nodiratime", ""),
        ("nosymfollow", "nosymfollow", ""), ("nosymfollow symfollow", "", "nosymfollow"),
        ("rnosymfollow", "nosymfollow", ""),
        ("defaults", "rw relatime", "nosuid nodev noexec"), ("silent loud async _netdev", "rw relatime", ""),
    ],
)  # fmt: skip
def test_attributes_of_a_fresh_mount(run: Run, words: str, there: str, absent: str) -> None:
    seen = run(tmpfs(*words.split())).mounts()["/t"]["options"]
    assert set(there.split()) <= seen  # type: ignore[operator]
    assert not set(absent.split()) & seen  # type: ignore[operator]


@pytest.mark.parametrize(
    ("words", "there"),
    [("sync", "sync"), ("dirsync", "dirsync"), ("lazytime", "lazytime"), ("sync async", ""),
    ("lazytime nolazytime", ""),
     ("size=64k mode=700", "size=64k mode=700"), ("size=64k,mode=1770", "size=64k mode=1770"),
     ("nr_inodes=7", "nr_inodes=7")],
)  # fmt: skip
def test_options_of_the_superblock(run: Run, words: str, there: str) -> None:
    seen = run(tmpfs(*words.split())).mounts()["/t"]["superblock"]
    assert set(there.split()) <= seen  # type: ignore[operator]
    assert not {"sync", "dirsync", "lazytime"} & seen - set(there.split())  # type: ignore[operator]


def test_iversion_goes_the_old_way(run: Run) -> None:
    seen = run(tmpfs("iversion", "noexec", "size=64k", "strictatime", "sync")).mounts()["/t"]
    assert seen["kind"] == "tmpfs" and {"size=64k", "sync"} <= seen["superblock"]  # type: ignore[operator]
    assert "noexec" in seen["options"] and "relatime" not in seen["options"]  # type: ignore[operator]


def test_values_that_are_too_long_for_fsconfig(run: Run, tmp_path: Path) -> None:
    lowers = []
    for number in range(9):
        lowers.append(tmp_path / ("lower" * 10 + str(number)))
        lowers[-1].mkdir()
        (lowers[-1] / f"f{number}").touch()
    word = "lowerdir=" + ":".join(map(str, lowers))
    entry = {"destination": "/t", "type": "overlay", "source": "overlay", "options": [word, "nodev"]}
    assert len(word) > 300
    assert run(entry, script="ls /t").lines() == [f"f{number}" for number in range(9)]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("nosuch=1", "nosuch=1: tmpfs: Unknown parameter 'nosuch'"),
        ("size=elephant", "size=elephant"),
        ("mode=9", "mode=9"),
    ],
)
def test_what_the_file_system_does_not_take_is_named(run: Run, words: str, named: str) -> None:
    failed = run(tmpfs("nodev", words)).failed
    assert failed is not None
    assert failed[:2] == ("MOUNT", errno.EINVAL) and named in failed[2]


def test_an_unknown_file_system(run: Run) -> None:
    failed = run({"destination": "/t", "type": "nosuchfs", "source": "x"}).failed
    assert failed is not None and failed[:2] == ("MOUNT", errno.ENODEV)


def test_read_only_tmpfs_may_hold_mounts(run: Run) -> None:
    seen = run(tmpfs("ro"), tmpfs(target="/t/inner"), script=f"touch /t/x; touch /t/inner/x && {SHOW}")
    assert "Read-only" in seen.output
    assert "ro" in Seen(None, seen.output.partition("\n")[2], None).mounts()["/t"]["options"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("mode", "words", "expected"),
    [(0o710, [], "710"), (0o1777, ["nodev"], "1777"), (0o710, ["mode=1500"], "1500")],
)
def test_a_tmpfs_has_the_mode_of_what_it_covers(
    run: Run, root: Path, mode: int, words: list[str], expected: str
) -> None:
    (root / "t").mkdir()
    (root / "t").chmod(mode)
    assert run(tmpfs(*words), script="stat -c %a /t").lines() == [expected]
    assert (root / "t").stat().st_mode & 0o7777 == mode
    assert run(tmpfs(target="/new/one"), script="stat -c %a /new/one").lines() == ["1777"]


def test_tmpcopyup(run: Run, root: Path) -> None:
    source = root / "t"
    (source / "sub/deeper").mkdir(parents=True)
    (source / "sub/file").write_text("content" * 1000)
    os.chmod(source / "sub/file", 0o4751)
    os.chown(source / "sub", 7, 8)
    os.chmod(source / "sub", 0o2770)
    (source / "link").symlink_to("/nowhere")
    os.mkfifo(source / "fifo")
    os.mknod(source / "null", 0o020666, os.makedev(1, 3))
    os.utime(source / "sub/file", (1000, 2000))
    script = (
        "cd /t; stat -c '%n %a %u:%g %F %s' sub sub/file fifo null; readlink link; stat -c %Y sub/file; touch new; "
        "cat sub/file >/dev/null && grep ' /t ' /proc/self/mountinfo"
    )
    os.chown(source / "sub/file", 7, 9)
    os.chmod(source / "sub/file", 0o4751)
    lines = run(tmpfs("tmpcopyup", "nosuid", "ro"), script=script).lines()
    assert lines[:4] == [
        "sub 2770 7:8 directory 80", "sub/file 4751 7:9 regular file 7000", "fifo 644 0:0 fifo 0",
        "null 644 0:0 character special file 0",
    ]  # fmt: skip
    assert lines[4:6] == ["/nowhere", "2000"]
    assert "Read-only" in lines[6] and "tmpfs" in lines[7]
    assert not (source / "new").exists()


def test_tmpcopyup_keeps_what_an_owner_would_take(run: Run, root: Path) -> None:
    """File capabilities, which a change of owner takes away; here CAP_NET_RAW (man 7 capabilities)."""
    program, name = root / "t/ping", "security.capability"
    program.parent.mkdir()
    program.touch(0o755)
    os.chown(program, 7, 9)
    wanted = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
    os.setxattr(program, name, wanted)
    seen = run(
        tmpfs("tmpcopyup"), script="echo ready; read x; stat -c '%a %u:%g' /t/ping",
        meanwhile=lambda pid: os.getxattr(f"/proc/{pid}/root/t/ping", name),
    )  # fmt: skip
    assert (seen.told, seen.lines()) == (wanted, ["755 7:9"])


def test_remount_of_a_mount_that_is_there(run: Run) -> None:
    seen = run(tmpfs("size=1m", "nodev"), tmpfs("remount", "size=2m", "noexec", "ro")).mounts()["/t"]
    assert {"size=2048k", "ro"} <= seen["superblock"]  # type: ignore[operator]
    assert {"noexec", "ro"} <= seen["options"] and "nodev" not in seen["options"]  # type: ignore[operator]
    assert run(tmpfs(), bind("/", "remount", "nodev")).mounts()["/t"]["options"] == {
        "rw",
        "nodev",
        "relatime",
    }


# ── bind mounts ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def source(source: Path) -> Path:
    (source / "below").mkdir()
    return source


def marked(directory: Path, words: str) -> Callable[[], None]:
    """The host's mount on *directory*, with attributes, and another below it."""

    def host() -> None:
        sh("mount", "-t", "tmpfs", "-o", "strictatime", "tmpfs", str(directory))
        (directory / "below").mkdir()
        sh("mount", "-t", "tmpfs", "-o", "nodev", "tmpfs", str(directory / "below"))
        if words:
            sh("mount", "-o", f"remount,bind,{words}", str(directory))

    return host


# (what the host's mount is, options, there, absent): those of runc's own tests of --bind
@pytest.mark.parametrize(
    ("host", "words", "there", "absent"),
    [
        ("ro,noexec,nosymfollow,nodiratime", "", "ro noexec nosymfollow nodiratime", "rw"),
        ("ro,noexec,nosymfollow,nodiratime", "dev", "rw nodiratime", "ro noexec nosymfollow"),
        ("ro", "nosuid nodev rprivate", "rw nosuid nodev", "ro"),
        ("ro", "rw nosuid nodev", "rw nosuid nodev", "ro"),
        ("nosuid,nodev,noexec,noatime", "dev suid exec", "rw noatime", "nosuid nodev noexec"),
        ("nodev,nosuid,noexec,noatime", "ro", "ro noatime", "nosuid nodev noexec"),
        ("nodev,nosymfollow", "ro symfollow", "ro", "nosymfollow nodev"),
        ("noatime", "", "noatime", "relatime"), ("noatime", "norelatime", "noatime", "relatime"),
        ("noatime", "relatime", "relatime", "noatime"), ("noatime", "nodiratime", "nodiratime relatime", "noatime"),
        ("nodiratime", "strictatime", "", "noatime relatime nodiratime"),
        ("noatime", "nodiratime strictatime", "nodiratime", "noatime relatime"),
        ("noatime", "atime", "relatime", "noatime"),
    ],
)  # fmt: skip
def test_attributes_of_a_bind_mount(
    run: Run, source: Path, host: str, words: str, there: str, absent: str
) -> None:
    seen = run(bind(source, *words.split()), host=marked(source, host)).mounts()["/t"]["options"]
    assert set(there.split()) <= seen and not set(absent.split()) & seen  # type: ignore[operator]


def marked_and_hidden(directory: Path, words: str, hidden: bool) -> Callable[[], None]:
    """The same. hidden: where the root of a user namespace cannot look, so that the planner has to open it."""

    def host() -> None:
        marked(directory, words)()
        directory.parent.chmod(0o700 if hidden else 0o755)

    return host


# in a user namespace what the host's mount has is locked
@pytest.mark.parametrize(
    ("host", "words", "there", "absent"),
    [
        ("ro,noexec,nodiratime", "", "ro noexec nodiratime", "rw"),
        ("ro,noexec,nosymfollow", "dev", "ro noexec", "nosymfollow"),
        ("ro", "nosuid nodev rprivate", "ro nosuid nodev", "rw"),
        ("nodev,nosuid,noexec,noatime", "ro", "ro nosuid nodev noexec", ""),
        ("nodev,nosymfollow", "rw", "rw nodev", "nosymfollow"), ("noatime", "", "noatime", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.needs("user_namespaces")
def test_locked_attributes_stay(
    run: Run, source: Path, root: Path, hidden: bool, host: str, words: str, there: str, absent: str
) -> None:
    (root / "t").mkdir()
    prepare = marked_and_hidden(source, host, hidden)
    seen = run(bind(source, *words.split()), host=prepare, user=True).mounts()["/t"]["options"]
    assert set(there.split()) <= seen and not set(absent.split()) & seen  # type: ignore[operator]


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize(
    ("host", "word"), [("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec")]
)
@pytest.mark.needs("user_namespaces")
def test_locked_attributes_cannot_be_taken_away(
    run: Run, source: Path, root: Path, hidden: bool, host: str, word: str
) -> None:
    (root / "t").mkdir()
    prepare = marked_and_hidden(source, host, hidden)
    failed = run(bind(source, word), host=prepare, user=True).failed
    assert failed is not None and failed[:2] == ("BIND", errno.EPERM) and "locked" in failed[2]


@pytest.mark.parametrize(
    ("words", "there", "absent"),
    [
        ("rro", "ro", "rw"), ("rro rrw", "rw", "ro"), ("rnosuid", "nosuid", ""), ("rdev", "", "nodev"),
        ("rsuid", "", "nosuid"),
        ("rnoexec", "noexec", ""), ("rexec", "", "noexec"), ("rnodev", "nodev", ""),
        ("rnoatime", "noatime", "relatime"),
        ("rrelatime", "relatime", "noatime"), ("ratime", "relatime", "noatime"),
        ("rstrictatime", "", "relatime noatime"),
        ("rnostrictatime", "relatime", "noatime"), ("rnorelatime", "relatime", "noatime"),
        ("rnodiratime", "nodiratime", ""),
        ("rdiratime", "", "nodiratime"), ("rnosymfollow", "nosymfollow", ""), ("rsymfollow", "", "nosymfollow"),
    ],
)  # fmt: skip
def test_recursive_attributes(run: Run, source: Path, words: str, there: str, absent: str) -> None:
    found = run(bind(source, "rbind", *words.split()), host=marked(source, "")).mounts()
    for target in ("/t", "/t/below"):
        seen = found[target]["options"]
        assert set(there.split()) <= seen and not set(absent.split()) & seen, target  # type: ignore[operator]


def test_bind_and_rbind(run: Run, source: Path) -> None:
    assert "/t/below" not in run(bind(source), host=marked(source, "")).mounts()
    below = run(bind(source, "rbind", "ro"), host=marked(source, "")).mounts()["/t/below"]["options"]
    assert "rw" in below and "nodev" in below  # type: ignore[operator]


def test_a_file_and_a_relative_source(run: Run, root: Path, source: Path) -> None:
    assert run(bind(source / "file", target="/deep/er/f"), script="cat /deep/er/f").lines() == ["text"]
    assert run(bind("bin", target="/b"), script="ls /b/busybox").lines() == ["/b/busybox"]


def test_a_source_that_is_not_there(run: Run, root: Path) -> None:
    failed = run(bind("/no/such/source")).failed
    assert failed == ("BIND", errno.ENOENT, "/no/such/source")
    assert not (root / "t").exists()


def test_a_source_that_another_mount_makes(run: Run, root: Path, source: Path) -> None:
    """Mounts are done in order, so that a later one may show what an earlier one brought."""
    entries = (bind(source, target="/a"), bind(root / "a/below", target="/b"))
    assert run(*entries, script="touch /b/x; ls /a/below").lines() == ["x"]
    assert (source / "below/x").exists()
