"""An ordinary user's images: unpacked in the user namespace, whiteouts and all; where needed by fuse-overlayfs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from image_files import Image, directory, docker_archive, file, symlink, tar
from pyrun.store import platforms
from registries import Registry
from unprivileged import UserPyrun, network_helpers

pytestmark = pytest.mark.needs("user_namespaces")
newuidmap, fuse = pytest.mark.needs("newuidmap"), pytest.mark.needs("fuse_overlayfs")
HOST = platforms.host()


def layered(owner: int = 33) -> Image:
    """Three layers: the second takes a file and a directory away, the third makes an opaque directory."""
    busybox = Path("/bin/busybox").read_bytes()
    names = [
        symlink(f"bin/{name}", "busybox")
        for name in ("sh", "ls", "cat", "stat", "touch", "rm", "mkdir", "id")
    ]
    lowest = tar(
        directory("bin"), file("bin/busybox", busybox, mode=0o755), *names, directory("etc"), file("etc/kept", b"1"),
        file("etc/gone", b"2"), directory("old"), file("old/below", b"3"), directory("opaque"),
        file("opaque/below", b"4"), file("owned", b"5", uid=owner, gid=owner + 1),
    )  # fmt: skip
    second = tar(file("etc/.wh.gone"), file(".wh.old"), file("etc/new", b"6"))
    third = tar(directory("opaque"), file("opaque/.wh..wh..opq"), file("opaque/above", b"7"))
    return Image([lowest, second, third], HOST.architecture, HOST.variant, config={"Cmd": ["sh"]})


SCRIPT = """ls -A /etc /opaque; ls -d /old; stat -c %u:%g /owned
    rm -r /opaque; mkdir /opaque; ls -A /opaque; touch /etc/mine"""
LISTED = "/etc: hostname hosts kept mtab new resolv.conf /opaque: above 33:34"


def load(user: UserPyrun, image: Image, **environment: str) -> None:
    path = user.home / "image.tar"
    path.write_bytes(docker_archive(image, "test/layered:1"))
    user.ok("load", "-q", "-i", str(path), env=environment)


def listing(user: UserPyrun, **environment: str) -> str:
    done = user("run", "--rm", "--net=none", "test/layered:1", "sh", "-c", SCRIPT, env=environment)
    assert "No such file" in done.stderr
    return " ".join(done.stdout.split())


@newuidmap
def test_whiteouts_opaque_directories_and_owners(tess: UserPyrun) -> None:
    load(tess, layered())
    assert listing(tess) == LISTED
    assert (tess.root / "overlay").read_text() == "native\n"
    owned = next(tess.root.glob("layers/*/owned")).stat()
    assert (owned.st_uid, owned.st_gid) == (tess.user.first + 32, tess.user.first + 33)


@newuidmap
def test_pull(tess: UserPyrun) -> None:
    server = Registry()
    try:
        server.add("test/layered", "1", layered())
        tess.ok("pull", "-q", f"{server.host}/test/layered:1")
        printed = tess.ok(
            "run", "--rm", "--net=none", f"{server.host}/test/layered:1", "stat", "-c", "%u:%g", "/owned"
        )
    finally:
        server.close()
    assert printed == "33:34"
    assert "test/layered" in tess.ok("images")


@newuidmap
def test_what_was_unpacked_is_removed(tess: UserPyrun) -> None:
    """Files of ids that are not the user's own can be removed by nobody else."""
    load(tess, layered())
    tess.ok("rmi", "test/layered:1")
    assert list((tess.root / "layers").glob("*/owned")) == []


def test_owners_without_ranges(solo: UserPyrun) -> None:
    """One line that names the file, its owner and the remedy; nothing is left."""
    path = solo.home / "image.tar"
    path.write_bytes(docker_archive(layered(), "test/layered:1"))
    before = len(list((solo.root / "layers").iterdir()))
    error = solo.fails(1, "load", "-q", "-i", str(path))
    assert "'owned' belongs to user 33, group 34, which this user has no id for" in error
    assert "apt-get install uidmap" in error and "/etc/subuid" in error
    assert len(list((solo.root / "layers").iterdir())) == before


def test_an_image_of_root_alone_needs_no_ranges(solo: UserPyrun) -> None:
    load(solo, Image([tar(directory("bin"), file("bin/sh", Path("/bin/busybox").read_bytes(), mode=0o755))],
                     HOST.architecture, HOST.variant))  # fmt: skip
    assert solo.ok("run", "--rm", "--net=none", "test/layered:1", "/bin/sh", "-c", "echo works") == "works"


@fuse
@newuidmap
def test_fuse_overlayfs(tess: UserPyrun, usable_fuse: None) -> None:
    """Where the kernel mounts no overlay for a user; the store keeps its kind."""
    load(tess, layered(), PYRUN_OVERLAY="fuse")
    assert listing(tess) == LISTED
    assert (tess.root / "overlay").read_text() == "fuse\n"
    tess.ok("run", "-d", "--name", "box", "--net=none", "test/layered:1", "sh", "-c", "read x </dev/zero")
    assert "fuse-overlayfs" in tess.ok("exec", "box", "cat", "/proc/mounts").splitlines()[0]
    assert len(network_helpers(str(tess.root))) == 1
    tess.ok("rm", "-f", "box")
    assert network_helpers(str(tess.root)) == []
    assert list((tess.root / "containers").iterdir()) == []


def test_fuse_overlayfs_is_missing(solo: UserPyrun) -> None:
    programs = solo.home / "programs"
    programs.mkdir()
    for name in ("setpriv", "sh"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    environment = {"PATH": str(programs), "PYRUN_OVERLAY": "fuse"}
    error = solo.fails(125, "run", "--rm", "--net=none", "busybox", "true", env=environment)
    assert "there is no fuse-overlayfs here" in error and "apt-get install fuse-overlayfs" in error


@pytest.fixture
def usable_fuse() -> Iterator[None]:
    """/dev/fuse as most hosts have it: everybody's. It is the lab's own node."""
    mode = os.stat("/dev/fuse").st_mode
    os.chmod("/dev/fuse", 0o666)
    yield
    os.chmod("/dev/fuse", mode & 0o7777)
