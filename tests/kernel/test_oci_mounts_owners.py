"""Owners that a mount maps: idmap, ridmap, the maps of a user namespace.

"The host" is the mount namespace of a forked child; see mounted.py.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mounted import MAP, Run, bind, sh
from pyrun import linux
from sandbox import in_child

needs_user = pytest.mark.needs("user_namespaces")
OWNERS = "stat -c '%n %u:%g' /t/0 /t/5 /t/below; touch /t/new; stat -c %u /t/new 2>&1"


def owned(directory: Path) -> Callable[[], None]:
    def host() -> None:
        sh("mount", "-t", "tmpfs", "tmpfs", str(directory))
        for uid in (0, 5):
            (directory / str(uid)).touch()
            os.chown(directory / str(uid), uid, uid + 1)
        (directory / "below").mkdir()
        sh("mount", "-t", "tmpfs", "tmpfs", str(directory / "below"))

    return host


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


@in_child
def test_owners_need_a_namespace_with_maps() -> None:
    fd = linux.user_namespace("0 5 1\n1 100 10\n", "0 6 1\n")
    assert os.readlink(f"/proc/self/fd/{fd}").startswith("user:")
    os.close(fd)
    with pytest.raises(OSError) as caught:
        linux.user_namespace("0 0", "")
    assert caught.value.errno == errno.EINVAL
