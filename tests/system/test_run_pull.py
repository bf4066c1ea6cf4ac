"""`run` of an image that is not here: what is fetched, and what is said of it, on standard error alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Pyrun
from image_files import Image, directory, file, symlink, tar
from pyrun.store import platforms
from registries import Registry
from system.test_terminal import Terminal

OWN = platforms.host()
RUN = ("run", "--rm", "--net=none")
NAME = "me/app:1"


@pytest.fixture
def hub(pyrun: Pyrun, tmp_path: Path) -> Iterator[Registry]:
    """Docker Hub, with an image of busybox for this machine and for s390x: that one is busybox for this machine all the
    same, and a program of its own, /x."""
    registry = Registry()
    busybox = tar(
        directory("bin"), file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755),
        *[symlink(f"bin/{name}", "busybox") for name in ("echo", "ls", "true")],
    )  # fmt: skip
    header = b"\x7fELF\2\2\1".ljust(18, b"\0") + b"\0\x16".ljust(46, b"\0")  # big-endian, EM_S390
    foreign = Image([busybox, tar(file("x", header, mode=0o755))], "s390x")
    registry.add("me/app", "1", Image([busybox], OWN.architecture, OWN.variant), foreign)
    mirror = {"url": f"http://{registry.host}", "insecure": True, "only": True}
    (tmp_path / "registries.yaml").write_text(json.dumps({"mirrors": {"docker.io": [mirror]}}))
    pyrun.env["PYRUN_REGISTRIES"] = str(tmp_path / "registries.yaml")
    yield registry
    registry.close()


def test_what_is_said_of_a_pull(pyrun: Pyrun, hub: Registry) -> None:
    """Once, and with -q never; nothing of it is the command's output."""
    done = pyrun(*RUN, NAME, "echo", "mine")
    assert (done.returncode, done.stdout) == (0, "mine\n")
    first, *layers = done.stderr.splitlines()
    assert first == f"Unable to find image '{NAME}' locally"
    assert [line.split(": ")[1] for line in layers] == ["done"]
    assert pyrun(*RUN, NAME, "true").stderr == ""
    told = pyrun(*RUN, "--pull=always", NAME, "true").stderr.splitlines()
    assert [line.split(": ")[1] for line in told] == ["exists"]
    pyrun.ok("rmi", NAME)
    assert pyrun(*RUN, "-q", NAME, "true").stderr == ""
    assert hub.log


def test_images_by_digest(pyrun: Pyrun, hub: Registry) -> None:
    pyrun.ok("pull", "-q", NAME)
    headers, *rows = [line.split() for line in pyrun.ok("images", "--digests").splitlines()]
    assert headers[:5] == ["REPOSITORY", "TAG", "DIGEST", "IMAGE", "ID"]
    (digest,) = [row[2] for row in rows if row[0] == "me/app"]
    assert {row[2] for row in rows if row[0] != "me/app"} == {"<none>"}
    assert pyrun.ok(*RUN, "--pull=never", f"me/app@{digest}", "echo", "mine") == "mine"
    assert "DIGEST" not in pyrun.ok("images")


def test_on_a_terminal(pyrun: Pyrun, hub: Registry) -> None:
    """It is over when the command begins."""
    terminal = Terminal(pyrun, "run", "--rm", "-t", "--net=none", NAME, "echo", "mine")
    seen = terminal.see("mine\r")
    assert terminal.end() == 0
    terminal.close()
    assert seen.index(f"Unable to find image '{NAME}' locally") < seen.index("done")


def test_whoever_names_a_platform_gets_it(pyrun: Pyrun, hub: Registry) -> None:
    """Another one than the image here: it is fetched, and said that this machine may not run it. The kernel decides."""
    foreign = (*RUN, "--platform=linux/s390x")
    pyrun.ok(*RUN, NAME, "true")
    for _ in range(2):
        done = pyrun(*foreign, NAME, "ls", "/x")
        assert (done.returncode, done.stdout) == (0, "/x\n")
        assert f"image {NAME} is for linux/s390x, this machine is {OWN}" in done.stderr
    done = pyrun(*foreign, NAME, "/x")
    assert done.returncode == 126 and "not a program (no #! line, or another architecture)" in done.stderr
    assert len([path for path in hub.paths() if path.endswith("/manifests/1")]) == 2
    told = pyrun.fails(125, *RUN, NAME, "true")
    assert f"hint: pull it for this machine: pyrun pull --platform {OWN} {NAME}" in told
    told = pyrun.fails(125, *RUN, "--pull=never", f"--platform={OWN}", NAME, "true")
    assert f"--platform {OWN}: the local image {NAME} is for linux/s390x" in told
