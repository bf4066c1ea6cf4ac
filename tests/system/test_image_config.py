"""What an image's configuration asks for is done, or refused in words about the image."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from command import Pyrun
from image_files import Image, directory, docker_archive, file, symlink, tar
from jobs import job_of
from pyrun.errors import UsageError
from pyrun.plan.job import Job
from pyrun.plan.operations import Operation
from pyrun.spec import volumes
from pyrun.stages import mounts, rootfs
from pyrun.store import platforms
from unprivileged import UserPyrun

NONE = "--net=none"
APPLETS = "sh cat ls touch stat id mkdir rm true sleep".split()


def image(pyrun: Pyrun | UserPyrun, tmp_path: Path, **config: Any) -> str:
    """An image called `mine` with busybox, a directory of somebody's, a link, and that configuration."""
    layer = tar(
        directory("bin"), file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755),
        *[symlink(f"bin/{name}", "busybox") for name in APPLETS], directory("tmp", mode=0o1777), directory("run"),
        directory("data", mode=0o750, uid=7, gid=8), file("data/seed", b"from the image", uid=7, gid=8),
        directory("srv"), directory("srv/sub", mode=0o750, uid=7, gid=8), file("srv/sub/seed", b"below"),
        directory("var"), symlink("var/run", "/run"),
    )  # fmt: skip
    host = platforms.host()
    archive = tmp_path / "image.tar"
    archive.write_bytes(
        docker_archive(Image([layer], host.architecture, host.variant, config=config), "mine:1")
    )
    pyrun.ok("load", "-i", str(archive))
    return "mine:1"


# ── StopSignal ─────────────────────────────────────────────────────────────────────────────────────


def test_a_stop_signal_that_is_none_is_refused_at_run(pyrun: Pyrun, tmp_path: Path) -> None:
    name = image(pyrun, tmp_path, StopSignal="SIGFOO")
    told = pyrun.fails(125, "run", "-d", "--name=one", NONE, name, "sleep", "100")
    assert told.splitlines() == [
        "pyrun: the image's StopSignal 'SIGFOO' is no signal",
        "hint: give one with --stop-signal, for example --stop-signal TERM",
    ]
    assert pyrun.ok("ps", "-aq") == ""
    pyrun.ok("run", "-d", "--name=one", "--stop-signal=KILL", NONE, name, "sleep", "100")
    pyrun.ok("stop", "one")


def test_a_stop_signal_of_the_image_is_sent(pyrun: Pyrun, tmp_path: Path) -> None:
    name = image(pyrun, tmp_path, StopSignal="SIGUSR1")
    script = "trap 'exit 5' USR1; trap '' TERM; touch /tmp/ready; while :; do sleep 0.05; done"
    pyrun.ok("run", "-d", "--name=one", NONE, name, "sh", "-c", script)
    pyrun.ok("exec", "one", "sh", "-c", "while ! ls /tmp/ready; do sleep 0.05; done 2>&-")
    pyrun.ok("stop", "-t", "5", "one")
    assert "Exited (5) " in pyrun.ok("ps", "-a")


# ── Labels ─────────────────────────────────────────────────────────────────────────────────────────


def test_labels_of_the_image_are_its_containers(pyrun: Pyrun, tmp_path: Path) -> None:
    """As data: --label overrules them, and what is no text is none."""
    labels = {"tier": "back", "by": "me, \x1b[31m", "number": 7, "": "x"}
    name = image(pyrun, tmp_path, Labels=labels)
    pyrun.ok("run", "--name=one", "--label=tier=front", "--label=mine", NONE, name, "true")
    record = json.loads(next(pyrun.root.glob("containers/*/container.json")).read_text())
    assert record["labels"] == {"tier": "front", "by": "me, \x1b[31m", "mine": ""}
    assert pyrun.ok("ps", "-aq", "--filter", "label=by", "--filter", "label=tier=front")
    assert not pyrun.ok("ps", "-aq", "--filter", "label=tier=back")
    assert "\x1b" not in pyrun.ok("ps", "-a", "--format=json")


# ── WorkingDir ─────────────────────────────────────────────────────────────────────────────────────


def test_a_relative_working_directory_is_told_as_the_image_s(pyrun: Pyrun, tmp_path: Path) -> None:
    name = image(pyrun, tmp_path, WorkingDir="srv")
    told = pyrun.fails(125, "run", "--rm", NONE, name, "true")
    assert told.splitlines()[0] == "pyrun: the image's WorkingDir 'srv' is not an absolute path"
    assert "pyrun: --workdir 'x' is" in pyrun.fails(125, "run", "--rm", "-w", "x", NONE, name, "true")
    pyrun.ok("run", "--rm", "-w", "/data", NONE, name, "true")


# ── Volumes ────────────────────────────────────────────────────────────────────────────────────────

WRITE = "for each in /data /new/deep /run/linked; do touch $each/x && cat $each/seed 2>&-; done; touch /tmp/y"


@pytest.mark.parametrize("options", [(), ("--read-only",)])
def test_volumes_are_there_and_writable(pyrun: Pyrun, tmp_path: Path, options: tuple[str, ...]) -> None:
    """With what the image has there, and its owner; made where there is nothing; through the image's own links."""
    name = image(pyrun, tmp_path, Volumes={"/data": {}, "/new/deep/": {}, "/var/run/linked": {}})
    done = pyrun("run", "--rm", NONE, *options, name, "sh", "-c", WRITE)
    assert done.stdout == "from the image"
    assert (done.returncode, "Read-only" in done.stderr) == ((1, True) if options else (0, False))
    script = "stat -c '%a %u %g' /data; stat -c '%a %u %g' /new/deep"
    assert pyrun.ok("run", "--rm", NONE, *options, name, "sh", "-c", script) == "750 7 8\n755 0 0"
    pyrun.ok("run", "--rm", "-u7:8", NONE, *options, name, "touch", "/data/mine")
    assert pyrun("run", "--rm", NONE, "--read-only", name, "touch", "/run/linked/../x").returncode == 1


def test_what_is_in_a_volume_goes_with_its_container(pyrun: Pyrun, tmp_path: Path) -> None:
    name = image(pyrun, tmp_path, Volumes={"/data": {}})
    pyrun.ok("run", "--name=one", "--read-only", NONE, name, "touch", "/data/x")
    assert list(pyrun.root.glob("containers/*/upper/data/x"))
    pyrun.ok("rm", "-v", "one")
    assert not list(pyrun.root.glob("containers/*"))
    assert pyrun.ok("run", "--rm", NONE, name, "ls", "/data") == "seed"


@pytest.mark.parametrize("options", [(), ("--read-only",)])
def test_a_mount_of_the_caller_s_goes_over_a_volume(
    pyrun: Pyrun, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """And nothing is made in what it shows of the host, but the place of a volume below it."""
    name = image(pyrun, tmp_path, Volumes={"/data": {}, "/data/below": {}, "/var/run/x": {}, "/t": {}})
    (tmp_path / "host").mkdir()
    (tmp_path / "host/seen").write_text("x")
    volume = f"{tmp_path}/host"
    told = pyrun.fails(125, "run", "--rm", NONE, *options, "-v", f"{volume}:/data:ro", name, "true")
    assert told.splitlines()[0].endswith("there again, over what covers it: Read-only file system")
    assert (
        told.startswith("pyrun: the image's VOLUME /data/below: cannot show") and "make the directory" in told
    )
    (tmp_path / "host/below").mkdir()
    told = pyrun.ok(
        "run", "--rm", NONE, *options, "-v", f"{volume}:/data:ro", "-v", f"{volume}:/run", "--tmpfs", "/t", name,
        "sh", "-c", "ls /data /run; touch /t/x",
    )  # fmt: skip
    assert told.split() == ["/data:", "below", "seen", "/run:", "below", "seen"]
    assert sorted(path.name for path in (tmp_path / "host").iterdir()) == ["below", "seen"]
    within = ("-v", f"{volume}:/data/inside")
    assert pyrun.ok("run", "--rm", NONE, *options, *within, name, "ls", "/data", "/data/inside").split() == [
        "/data:", "below", "inside", "seed", "/data/inside:", "below", "seen",
    ]  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--read-only",)])
def test_a_volume_below_a_mount_of_the_caller_s_is_shown_there(
    pyrun: Pyrun, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The image's and those of `-v PATH`, one in the other too; with what the image has there. Its place is made in the
    host's directory, as Docker does, and nothing else."""
    name = image(pyrun, tmp_path, Volumes={"/srv/sub": {}, "/t/declared": {}, "/srv/given": {}})
    host = tmp_path / "host"
    (host / "given").mkdir(parents=True)
    script = (
        "cat /srv/sub/seed; stat -c ' %a %u %g' /srv/sub; ls /srv /srv/given;"
        "touch /srv/sub/x /srv/own/x /srv/own/in/y /t/declared/x /alone/x /dev/own/x; ls /srv/own"
    )
    run = ("run", "--name=one", NONE, *options)
    given = ("-v", f"{host}:/srv", "--tmpfs=/t", "-v", f"{host}:/srv/given")
    own = ("-v/srv/own/in", "-v/srv/own/", "-v=/srv/own", "-v/alone", "-v/dev/own", "-v/srv/sub/")
    told = pyrun.ok(*run, *given, *own, name, "sh", "-c", script)
    assert told.split() == [
        "below", "750", "7", "8", "/srv:", "given", "own", "sub", "/srv/given:", "given", "own", "sub", "in", "x"
    ]  # fmt: skip
    left = sorted(str(path.relative_to(host)) for path in host.rglob("*"))
    assert left == ["given", "own", "sub"]
    assert list(pyrun.root.glob("containers/*/upper/srv/own/in/y"))
    pyrun.ok("rm", "one")
    assert not list(pyrun.root.glob("containers/*"))


def test_a_directory_of_one_s_own_alone(pyrun: Pyrun, tmp_path: Path) -> None:
    """It begins with what the image has, and takes the place of what pyrun would mount there."""
    name = image(pyrun, tmp_path)
    script = "cat /data/seed; stat -c ' %a %u %g' /data; touch /data/x /dev/shm/x; cat /proc/self/mountinfo"
    told = pyrun.ok("run", "--rm", NONE, "--read-only", "-v/data", "-v/dev/shm", name, "sh", "-c", script)
    assert told.startswith("from the image 750 7 8\n")
    assert "/dev/shm /dev/shm rw" in told
    twice = pyrun.fails(125, "run", "--rm", NONE, "-v/t", "--tmpfs=/t", name, "true")
    assert "two mounts go to /t" in twice


@pytest.mark.needs("user_namespaces")
@pytest.mark.needs("newuidmap")
def test_a_user_s_volume_below_a_mount(tess: UserPyrun) -> None:
    name = image(tess, tess.home)
    host = tess.home / "host"
    tess.ok("run", "--rm", NONE, name, "true")
    host.mkdir()
    os.chown(host, tess.user.uid, tess.user.uid)
    given = ("-v", f"{host}:/srv", "-v/srv/sub", "--read-only")
    script = "cat /srv/sub/seed; touch /srv/sub/x; ls /srv /srv/sub"
    told = tess.ok("run", "--rm", NONE, *given, name, "sh", "-c", script)
    assert told.split() == ["below/srv:", "sub", "/srv/sub:", "seed", "x"]
    assert not list((host / "sub").iterdir())


@pytest.mark.needs("user_namespaces")
@pytest.mark.needs("newuidmap")
def test_volumes_of_a_user(tess: UserPyrun) -> None:
    name = image(tess, tess.home, Volumes={"/data": {}, "/new": {}})
    done = tess(
        "run", "--rm", "--read-only", NONE, name, "sh", "-c", "touch /data/x /new/x /x; stat -c %u /data/x"
    )
    assert (done.stdout, done.stderr.count("Read-only")) == ("0\n", 1)


def test_volumes_that_are_none(pyrun: Pyrun, tmp_path: Path) -> None:
    name = image(pyrun, tmp_path, Volumes={"/data/..": {}})
    told = pyrun.fails(125, "run", "--rm", NONE, name, "true")
    assert told.splitlines()[0] == "pyrun: the image's VOLUME '/data/..' is no directory below the root"
    with pytest.raises(UsageError, match="no directory below the root"):
        volumes.of_image({"/a\0b": {}})
    assert volumes.of_image({"/b/../a/": {}, "rel": {}, "/a": {}, "/a/b": {}}) == ["/a", "/a/b", "/rel"]


def test_the_operations_of_volumes() -> None:
    def volumes_of(config: dict[str, Any], job: Job) -> list[Operation]:
        return rootfs.plan_volumes(config, job, rootfs.kept(config, job))

    job = job_of(volumes=["/a"])
    made = Operation("DIRECTORY", "/a", 0o755, 0, 0)
    config: dict[str, Any] = {"root": {"readonly": False, "path": "/r"}, "mounts": []}
    assert volumes_of(config, job) == [made]
    config["root"]["readonly"] = True
    assert volumes_of(config, job) == [made, Operation("WRITABLE", "/a")]
    config["mounts"] = [{"destination": "/a", "type": "bind", "source": "/r/a", "options": ["rbind"]}]
    assert volumes_of(config, job) == [made, Operation("KEEP", "/a")]
    assert Operation("SHOW_KEPT", "/a") in mounts.plan(config, job, ["/a"])[0]
    assert (
        Operation("SHOW_KEPT", "/a") not in mounts.plan(config, job_of(), [])[0]
    )  # a config that only looks like it
