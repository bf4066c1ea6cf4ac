"""Device nodes, links in /dev, the console.

"The host" is the mount namespace of a forked child; see mounted.py.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mounted import PROC, Run, bind
from pyrun.plan.operations import Operation

PTS = {"destination": "/dev/pts", "type": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}
needs_user = pytest.mark.needs("user_namespaces")
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
    config = {"operations": [Operation("SESSION", 0), Operation("TERMINAL", 24, 80, 0, 1, 1, 0)]}
    script = "{ tty; stat -c '%t:%T %u' /dev/console /dev/pts/0; echo seen >/dev/console; } >/told 2>&1"
    assert run(PTS, config=config, script=script).failed is None
    assert (root / "told").read_text().split() == ["/dev/pts/0", "88:0", "0", "88:0", "0"]
