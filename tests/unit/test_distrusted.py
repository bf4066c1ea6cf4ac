"""store/distrusted.py: what counts as a file of others, and how much of it is read."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

import hostile
from pyrun import linux
from pyrun.store import distrusted


def refusal(path: Path | str) -> str:
    with pytest.raises(OSError) as caught:
        os.close(distrusted.open_file(str(path)))
    return str(caught.value.strerror)


def test_what_is_no_file(tmp_path: Path) -> None:
    hostile.odd_file(tmp_path / "fifo", "fifo")
    (tmp_path / "link").symlink_to("/proc/self/status")
    assert refusal(tmp_path / "fifo") == "not a regular file"
    assert refusal("/dev/zero") == "not a regular file"
    assert refusal(tmp_path) == "Is a directory"
    assert refusal(tmp_path / "link") == "a file of the kernel"
    assert refusal(tmp_path / "none") == "No such file or directory"


@pytest.mark.parametrize(
    "path", ["/proc/self/environ", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/self/ns/net"]
)
def test_files_of_the_kernel(path: str) -> None:
    if os.path.exists(path):
        assert refusal(path) in ("a file of the kernel", "not a regular file")


def test_no_link_leads_out_of_a_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "root/secret").symlink_to(tmp_path / "secret")
    fd = os.open(tmp_path / "root", os.O_PATH)
    with pytest.raises(FileNotFoundError):
        distrusted.open_file("secret", fd, distrusted.IN_ROOT)
    os.close(fd)


def test_it_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 200_000)
    assert len(distrusted.read(str(tmp_path / "f"), 200_000)) == 200_000
    assert len(distrusted.read(str(tmp_path / "f"), 100_000)) == 100_001
    hostile.odd_file(tmp_path / "huge", "huge")
    assert len(distrusted.read(str(tmp_path / "huge"), 1000)) == 1001


def test_a_lease_is_not_waited_for(tmp_path: Path) -> None:
    """Who holds one may keep an ordinary open() waiting for 45 s (/proc/sys/fs/lease-break-time)."""
    (tmp_path / "f").write_text("x")
    reading_fd, writing_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        fcntl.fcntl(os.open(tmp_path / "f", os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)
        os.write(writing_fd, b"1")
        os.read(os.pipe()[0], 1)
    try:
        os.read(reading_fd, 1)
        with pytest.raises(BlockingIOError):
            distrusted.read(str(tmp_path / "f"), 10)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(reading_fd)
        os.close(writing_fd)


def test_a_place_is_on_one_mount(tmp_path: Path) -> None:
    fds = [os.open(path, os.O_PATH) for path in (tmp_path, tmp_path.parent, "/proc")]
    here, above, proc = (linux.mount_id(fd, "") for fd in fds)
    assert here == above != proc
    for fd in fds:
        os.close(fd)
