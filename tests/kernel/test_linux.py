"""The system calls of linux.py against the real kernel: results, errors with their path, descriptors closed on exec."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from pyrun import linux
from sandbox import in_child

RESOLVE_BENEATH = 0x08  # of linux/openat2.h


def is_close_on_exec(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)


def test_openat2_stays_in_the_root(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "root"
    root.mkdir()
    (root / "up").symlink_to("../secret")
    (root / "absolute").symlink_to("/secret")
    (root / "secret").write_text("inside")
    root_fd = os.open(root, os.O_PATH)
    for name in ("up", "absolute"):
        fd = linux.openat2(root_fd, name, os.O_RDONLY, 0, linux.RESOLVE_IN_ROOT)
        assert os.read(fd, 100) == b"inside"
        assert is_close_on_exec(fd)
        os.close(fd)
    with pytest.raises(OSError, match="up") as caught:
        linux.openat2(root_fd, "up", os.O_RDONLY, 0, RESOLVE_BENEATH)
    assert caught.value.errno == errno.EXDEV
    os.close(root_fd)


def test_openat2_refuses_magic_links() -> None:
    root_fd = os.open("/", os.O_PATH)
    with pytest.raises(OSError, match="exe") as caught:
        linux.openat2(root_fd, "proc/self/exe", os.O_RDONLY, 0, linux.RESOLVE_NO_MAGICLINKS)
    assert caught.value.errno == errno.ELOOP
    os.close(root_fd)


def test_pidfd_signals_the_process_it_was_opened_for() -> None:
    pid = os.fork()
    if pid == 0:
        os.read(os.pipe()[0], 1)
        os._exit(1)
    pidfd = os.pidfd_open(pid)
    linux.pidfd_send_signal(pidfd, linux.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -linux.SIGKILL
    with pytest.raises(ProcessLookupError):
        linux.pidfd_send_signal(pidfd, linux.SIGKILL)
    os.close(pidfd)


@in_child
def test_the_mount_calls(tmp_path: Path) -> None:
    """Mount a tmpfs and make it read-only: the mount table says so."""
    directory = str(tmp_path)
    linux.mount("tmpfs", directory, "tmpfs", 2, "size=4096")  # MS_NOSUID
    mount_fd = linux.open_tree(linux.AT_FDCWD, directory, 0)
    assert is_close_on_exec(mount_fd)
    linux.mount_setattr(mount_fd, "", linux.AT_EMPTY_PATH, linux.MOUNT_ATTR_RDONLY)
    os.close(mount_fd)
    before = linux.mount_id(linux.AT_FDCWD, os.path.dirname(directory))
    assert linux.mount_id(linux.AT_FDCWD, directory) != before
    line = next(
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {directory} " in line
    )
    linux.umount2(directory, linux.MNT_DETACH)
    assert linux.mount_id(linux.AT_FDCWD, directory) == before
    with pytest.raises(OSError, match=directory):
        linux.umount2(directory, 0)
    assert {"ro", "nosuid"} <= set(line.split()[5].split(","))


@in_child
def test_a_mount_that_is_refused_names_its_place(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=str(tmp_path)) as caught:
        linux.mount("tmpfs", str(tmp_path), "tmpfs", 0, "no-such-option=1")
    assert caught.value.errno == errno.EINVAL


@in_child
def test_namespaces() -> None:
    """Leave a namespace by unshare, come back by setns."""
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    before = os.readlink("/proc/self/ns/uts")
    linux.unshare(linux.CLONE_NEWUTS)
    assert os.readlink("/proc/self/ns/uts") != before
    linux.setns(fd, linux.CLONE_NEWUTS)
    assert os.readlink("/proc/self/ns/uts") == before


def test_close_range_marks_what_was_left_open() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(fd, True)
    linux.close_range(fd, fd, linux.CLOSE_RANGE_CLOEXEC)
    assert is_close_on_exec(fd)
    os.close(fd)


def test_errors_are_oserrors_with_errno() -> None:
    with pytest.raises(FileNotFoundError, match="/no/such"):
        linux.open_tree(linux.AT_FDCWD, "/no/such", linux.OPEN_TREE_CLONE)
    with pytest.raises(OSError) as caught:
        linux.setns(0, linux.CLONE_NEWNS)
    assert caught.value.errno in (errno.EINVAL, errno.EBADF)
