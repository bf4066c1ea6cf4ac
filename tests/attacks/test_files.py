"""Files that a container or an image makes for us to read or to remove: of the kernel, without an end, too deep."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hostile
from command import Pyrun
from image_files import Image, directory, docker_archive, file, symlink, tar
from pyrun.store import rooted
from waiting import until

# What is taken out of the weakened builds.
FILES_OF_THE_KERNEL = ("store/distrusted.py", r"if linux\.fstatfs\(place_fd\) in _KERNELS:", "if False:")
ANY_MOUNT = ("spec/users.py", r"    if mounts is None:\n", "    if True:\n")
ANY_DEPTH = ("store/rooted.py", r"if below\.count\(b\"/\"\) > MAX_DEPTH or [^\n]*", "if False:")
HOSTS_ARE_READ = (
    "store/containers.py",
    r"posix\.link\(source, path\)",
    "paths.write(path, paths.read(source))",
)

BOB = "bob:x:1234:4321::/of-the-kernel:/bin/sh"


def shown_to_bob(pyrun: Pyrun) -> str:
    """What `exec -u bob` prints of itself where /etc/passwd is /proc/1/environ, which the container has filled."""
    script = "ln -sf /proc/1/environ /etc/passwd; exec sleep 100"
    options = ("--name=victim", "--net=none", "-e", f"A=\n{BOB}\n")
    pyrun.ok("run", "-d", *options, "busybox", "sh", "-c", script)
    for _ in range(100):
        if "/proc/1/environ" in pyrun("exec", "victim", "readlink", "/etc/passwd").stdout:
            break
    began = time.monotonic()
    shown = pyrun("exec", "-u", "bob", "victim", "id", "-u").stdout.strip()
    assert time.monotonic() - began < 5
    return shown


def test_a_passwd_that_is_the_kernels(pyrun: Pyrun) -> None:
    assert shown_to_bob(pyrun) == ""
    pyrun.ok(
        "exec", "victim", "ln", "-sf", "/proc/kmsg", "/etc/passwd"
    )  # it blocks, and what was read is gone
    began = time.monotonic()
    assert "no user 'bob'" in pyrun.fails(126, "exec", "-u", "bob", "victim", "true")
    assert time.monotonic() - began < 5
    assert pyrun.ok("exec", "-u", "7", "victim", "id", "-u") == "7"


def test_a_passwd_that_was_the_kernels(pyrun: Pyrun, weak_installation: Callable[..., Path]) -> None:
    pyrun.binary = weak_installation(FILES_OF_THE_KERNEL, ANY_MOUNT).with_name("pyrun")
    assert shown_to_bob(pyrun) == "1234"


def mounted_over(pyrun: Pyrun) -> str:
    """The same where the container has mounted a file system of its own on /etc."""
    script = f"mount -t tmpfs tmpfs /etc; echo '{BOB}' >/etc/passwd; touch /etc/ready; exec sleep 100"
    pyrun.ok("run", "-d", "--name=victim", "--privileged", "--net=none", "busybox", "sh", "-c", script)
    until(lambda: pyrun("exec", "victim", "test", "-e", "/etc/ready").returncode == 0, "the mount")
    return pyrun("exec", "-u", "bob", "victim", "id", "-u").stdout.strip()


def test_a_passwd_on_a_mount_of_the_containers(pyrun: Pyrun) -> None:
    assert mounted_over(pyrun) == ""


def test_a_passwd_on_any_mount(pyrun: Pyrun, weak_installation: Callable[..., Path]) -> None:
    pyrun.binary = weak_installation(ANY_MOUNT).with_name("pyrun")
    assert mounted_over(pyrun) == "1234"


@pytest.mark.parametrize("target", ["/etc", "/etc/passwd", "/data"])
def test_a_passwd_on_a_mount_of_the_users(pyrun: Pyrun, tmp_path: Path, target: str) -> None:
    """--volume and --tmpfs are the caller's own doing; also behind a link of the image."""
    (tmp_path / "passwd").write_text(BOB + "\n")
    source = tmp_path / "passwd" if target == "/etc/passwd" else tmp_path
    hostile.put_image(
        pyrun, "linked", hostile.link("/etc/passwd", "/data/passwd") if target == "/data" else None
    )
    pyrun.ok("run", "-d", "--name=victim", "--net=none", "-v", f"{source}:{target}", "linked", "sleep", "100")
    assert pyrun.ok("exec", "-u", "bob", "victim", "/usr/bin/id", "-u") == "1234"


def test_home_is_not_what_the_kernel_says(arena: Any) -> None:
    """`pyrun-oci exec` without HOME: that of uid 0 by /etc/passwd, which is /proc/1/environ."""
    box = arena.box()
    box.process["env"] = ["PATH=/bin", "A=\nroot:x:0:0::/of-the-kernel:/bin/sh\n"]
    place = box.rootfs / "etc/passwd"
    place.unlink()
    place.symlink_to("/proc/1/environ")
    box.detach()
    assert box.exec("sh", "-c", "echo $HOME").strip() == "/"


# ── an image ───────────────────────────────────────────────────────────────────────────────────────


def deep_layer(chains: int) -> bytes:
    """*chains* times 200 directories, each chain behind a link into the one before: no name has more than 202."""
    whole = "/".join(["d"] * 200)
    entries = [directory("top")]
    for number in range(chains):
        start = f"l{number - 1}" if number else "top"
        entries += [file(f"{start}/{whole}/f"), symlink(f"l{number}", f"{start}/{whole}")]
    return tar(*entries)


def load(pyrun: Pyrun, tmp_path: Path, name: str, *layers: bytes) -> Any:
    archive = tmp_path / f"{name}.tar"
    archive.write_bytes(docker_archive(Image(list(layers)), f"{name}:latest"))
    return pyrun("load", "-i", str(archive))


def test_an_image_deeper_than_anybody_counts(
    pyrun: Pyrun, tmp_path: Path, weak_installation: Callable[..., Path]
) -> None:
    done = load(pyrun, tmp_path, "deep", deep_layer(8))
    assert done.returncode == 1 and f"deeper than {rooted.MAX_DEPTH} directories" in done.stderr, done
    assert len(done.stderr.splitlines()) <= 2
    strong, pyrun.binary = pyrun.binary, weak_installation(ANY_DEPTH).with_name("pyrun")
    assert load(pyrun, tmp_path, "deep", deep_layer(8)).returncode == 0, "the attack works without the limit"
    pyrun.binary = strong
    try:
        pyrun.ok("rmi", "deep")  # of any depth
    finally:  # pytest's own removal has no such depth
        subprocess.run(
            ["find", str(pyrun.root / "layers"), "-name", "d", "-prune", "-exec", "rm", "-rf", "{}", "+"],
            check=True,
        )
    assert load(pyrun, tmp_path, "flat", tar(file("f"))).returncode == 0
    assert not [name for name in os.listdir(pyrun.root / "layers") if name.startswith(".")]


# ── a container that is joined ─────────────────────────────────────────────────────────────────────


def joined(pyrun: Pyrun) -> float:
    """How long it takes to join a container whose hosts file is 30 MB, in seconds."""
    pyrun.ok("run", "-d", "--name=victim", "busybox", "sleep", "100")
    pyrun.ok("exec", "victim", "truncate", "-s", "30000000", "/etc/hosts")
    began = time.monotonic()
    size = pyrun.ok("run", "--rm", "--network=container:victim", "busybox", "stat", "-c", "%s", "/etc/hosts")
    assert size == "30000000", "the file is one and the same"
    pyrun.ok("run", "-d", "--name=next", "--network=container:victim", "busybox", "sleep", "100")
    took_s = time.monotonic() - began
    (hosts,) = (path for path in pyrun.root.glob("containers/*/hosts") if is_of(path, "next"))
    return took_s if hosts.stat().st_nlink == 2 else -took_s


def is_of(path: Path, name: str) -> bool:
    return json.loads((path.parent / "container.json").read_text()).get("name") == name


def test_hosts_without_an_end_are_not_read(pyrun: Pyrun) -> None:
    assert 0 < joined(pyrun) < 10


def test_hosts_without_an_end_are_copied(pyrun: Pyrun, weak_installation: Callable[..., Path]) -> None:
    pyrun.binary = weak_installation(HOSTS_ARE_READ).with_name("pyrun")
    assert joined(pyrun) < 0, "each container gets a copy of it"
