"""--root of every kind: full, read-only, with a path that is too long.

Whatever happens, `state` is true, every command ends in time with at most one line, and `delete -f` works and leaves
nothing: every test begins and ends with a picture of the host.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile_oci import Oci, message_of, unharmed

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def oci(static_binary: Path, tmp_path: Path) -> Iterator[Oci]:
    yield from unharmed(static_binary, tmp_path)


@contextlib.contextmanager
def tmpfs(place: Path, options: str) -> Iterator[Path]:
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    path = place / "fill"
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return path


def test_a_root_without_room(oci: Oci) -> None:
    """Whether bytes or names run out, and wherever in the middle: one line, nothing left."""
    oci.write()
    refused = 0
    for options in [f"size={4096 * pages}" for pages in range(1, 9)] + [
        f"nr_inodes={n}" for n in range(1, 12)
    ]:
        with tmpfs(oci.directory / "small", options) as root:
            before = set(root.rglob("*"))
            done = oci("create", "--bundle", str(oci.bundle), "box", root=root)
            if done.status == 0:
                assert oci("delete", "--force", "box", root=root).status == 0
                continue
            refused += 1
            assert "no space left on device" in message_of(done), (options, done)
            left = {path for path in set(root.rglob("*")) - before if path.name != ".staging"}
            assert not left, (options, left)
    assert refused > 8


def test_a_root_that_is_full_later(oci: Oci) -> None:
    """start, kill, pause and delete make nothing new."""
    oci.write()
    with tmpfs(oci.directory / "small", "size=256k") as root:
        for name in ("one", "two"):
            assert oci("create", "--bundle", str(oci.bundle), name, root=root).status == 0
        filled = fill(root)
        assert "no space left" in message_of(oci("create", "--bundle", str(oci.bundle), "three", root=root))
        for words in (("start", "one"), ("pause", "one"), ("resume", "one"), ("exec", "one", "true"),
                      ("kill", "one", "KILL")):  # fmt: skip
            assert oci(*words, root=root).status == 0, words
        assert oci("delete", "--force", "one", root=root).status == 0
        (root / "two/quick").unlink()  # by the interpreter
        filled = fill(root)
        assert oci("delete", "--force", "two", root=root).status == 0
        assert list(root.iterdir()) in ([filled, root / ".staging"], [root / ".staging", filled])


def test_a_pid_file_without_room(oci: Oci) -> None:
    oci.write()
    with tmpfs(oci.directory / "small", "size=64k") as place:
        filled = fill(place)
        path = place / "pid"
        message = oci.refused("create", "--bundle", str(oci.bundle), "--pid-file", str(path), "box")
        assert f"--pid-file {path}: no space left on device" in message
        assert list(place.iterdir()) == [filled]


def test_a_root_that_cannot_be_written(oci: Oci) -> None:
    oci.write()
    with tmpfs(oci.directory / "small", "ro") as root:
        for below in (root, root / "a/b"):
            done = oci("create", "--bundle", str(oci.bundle), "box", root=below)
            assert "read-only file system" in message_of(done)
        assert oci("list", root=root).status == 0
        assert "does not exist" in message_of(oci("state", "box", root=root))
    for place in ("/proc/x", "/dev/null/x", str(oci.bundle / "config.json")):
        assert oci.refused("create", "--bundle", str(oci.bundle), "box", root=Path(place))
        assert "does not exist" in message_of(oci("delete", "box", root=Path(place)))


def test_a_root_that_becomes_read_only(oci: Oci) -> None:
    """`delete -f` says what it cannot do, and does it once it can."""
    oci.write()
    with tmpfs(oci.directory / "small", "size=1m") as root:
        assert oci("create", "--bundle", str(oci.bundle), "box", root=root).status == 0
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        done = oci("delete", "--force", "box", root=root)
        assert done.status == 1 and "read-only file system" in done.err.lower(), done
        assert json.loads(oci("state", "box", root=root).out)["status"] == "stopped"
        subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
        assert oci("delete", "--force", "box", root=root).status == 0


@pytest.mark.parametrize("length", [100, 108, 250, 2000, 4000])
def test_a_root_with_a_long_path(oci: Oci, length: int) -> None:
    """A socket's path has room for 107 bytes, a path for 4095."""
    root = oci.directory / "long"
    while len(str(root)) < length - 1:
        root /= "x" * min(200, length - len(str(root)) - 1)
    oci.write()
    words = ("create", "--bundle", str(oci.bundle), "box")
    assert oci(*words, root=root).status == 0
    assert oci("start", "box", root=root).status == 0
    assert json.loads(oci("state", "box", root=root).out)["status"] == "running"
    (root / "box/quick").unlink()
    assert json.loads(oci("state", "box", root=root).out)["status"] == "running"
    assert oci("exec", "box", "true", root=root).status == 0
    assert oci("delete", "--force", "box", root=root).status == 0


def test_an_id_as_long_as_a_file_name_can_be(oci: Oci) -> None:
    oci.linux["cgroupsPath"] = "/hostile/long"
    oci.write()
    for name, fits in (("x" * 255, True), ("x" * 256, False)):
        before = oci.picture()
        done = oci("create", "--bundle", str(oci.bundle), name)
        assert (done.status == 0) is fits, done
        if fits:
            assert oci.state(name)["status"] == "created"
            oci.gone(name)
        else:
            assert "file name too long" in message_of(done)
        oci.unchanged(before)


def test_a_root_with_a_path_that_is_too_long(oci: Oci) -> None:
    oci.write()
    root = oci.directory
    while len(str(root)) < 4090:
        root /= "x" * min(200, 4090 - len(str(root)))
    before = oci.picture()
    done = oci("create", "--bundle", str(oci.bundle), "box", root=root)
    assert "file name too long" in message_of(done) or done.status == 1, done
    oci.unchanged(before)
    for words in (("state", "box"), ("delete", "box"), ("start", "box"), ("kill", "box", "KILL")):
        assert "does not exist" in message_of(oci(*words, root=root))
