"""ps, rm, images, info, version and help on real containers; a command that cannot work at all."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import hostile
from command import Pyrun
from detached import POLITE, begin, listed
from pyrun.spec.config import OCI_VERSION


def test_the_life_of_a_container(pyrun: Pyrun) -> None:
    ident = begin(pyrun, "web", POLITE, "--label", "tier=front")
    assert len(ident) == 64
    assert pyrun.ok("ps", "-q") == ident[:12]
    assert pyrun.ok("ps", "-q", "--no-trunc") == ident
    row = listed(pyrun)["web"]
    assert (row["State"], row["Image"], row["Labels"], row["Networks"]) == (
        "running",
        "busybox",
        "tier=front",
        "none",
    )
    assert row["Status"].startswith("Up ")
    assert pyrun.ok("stop", "web") == "web"
    assert pyrun.ok("ps", "-q") == ""
    assert listed(pyrun)["web"]["Status"].startswith("Exited (3) ")
    assert pyrun.ok("logs", "web").split() == ["ready", "bye"]
    assert pyrun.ok("rm", ident[:12]) == ident[:12]
    assert listed(pyrun) == {}
    assert "no such container: web" in pyrun.fails(1, "logs", "web")
    assert not list((pyrun.root / "containers").iterdir())
    assert not list((pyrun.root / "names").iterdir())


def test_info_and_version(pyrun: Pyrun) -> None:
    info = json.loads(pyrun.ok("info", "--format", "json"))
    assert info["namespaces"]["pid"] is True
    assert info["system_calls"] == {"openat2": True, "close_range": True, "mount_setattr": True}
    assert info["cgroup"]["mode"] in ("v1", "v2", "hybrid")
    assert "SYS_ADMIN" in info["capabilities"]["held"]
    assert info["seccomp"]["filter"] is True
    assert info["images"] == 1
    version = json.loads(pyrun.ok("version", "--format=json"))
    assert version["libraries"]["rich"] and version["version"]
    assert f"version: {version['version']}" in pyrun.ok("version")
    assert version["oci_runtime_spec"] == json.loads(oci_features(pyrun))["ociVersionMax"] == OCI_VERSION
    assert "unknown --format" in pyrun.fails(1, "version", "--format=xml")


def oci_features(pyrun: Pyrun) -> str:
    return subprocess.check_output([f"{pyrun.binary}-oci", "features"], text=True)


def test_aliases_and_help(pyrun: Pyrun) -> None:
    ident = begin(pyrun, "web")
    assert pyrun.ok("container", "ls", "-q") == ident[:12]
    assert pyrun.ok("image", "ls").splitlines()[1].split()[:2] == ["busybox", "latest"]
    assert pyrun.ok("container", "kill", "web") == "web"
    assert pyrun.ok("container", "rm", "web") == "web"
    assert pyrun.ok("network", "--help").startswith("Usage:  pyrun network COMMAND")
    assert pyrun.ok("help", "network", "ls") == pyrun.ok("network", "list", "--help")
    assert pyrun.ok("run", "--help").startswith("Usage:  pyrun run ")
    assert "unknown command 'rum'" in pyrun.fails(1, "rum")
    assert "unknown option --frob" in pyrun.fails(125, "ps", "--frob")


def test_a_terminal_gets_a_decorated_table(pyrun: Pyrun) -> None:
    begin(pyrun, "web")
    shown = hostile.on_a_terminal(
        [str(pyrun.binary), "ps"], pyrun.env | {"NO_COLOR": "", "TERM": "xterm-256color"}
    )
    assert "\x1b[" in shown and "web" in shown


@pytest.mark.parametrize("force", [False, True])
def test_several_remove_one_container_at_once(pyrun: Pyrun, force: bool) -> None:
    for number in range(4):
        begin(pyrun, "web", "mkdir -p /a/b/c/d /e/f/g; touch /a/b/c/x /e/f/y; echo ready; sleep 100")
        if not force:
            pyrun.ok("stop", "-t", "0", "web")
        running = [pyrun.start("rm", *(["-f"] if force else []), "web") for _ in range(6)]
        told = [process.communicate(timeout=30)[1] for process in running]
        statuses = [process.returncode for process in running]
        assert statuses.count(0) == 6 if force else statuses.count(0) >= 1, (number, told)
        assert not any("cannot" in text for text in told), told
        assert all(
            text.startswith("pyrun: no such container: web\n")
            for text, status in zip(told, statuses, strict=True) if status
        ), told  # fmt: skip
        assert not list((pyrun.root / "containers").iterdir()) and not list((pyrun.root / "names").iterdir())


def test_images_by_a_pattern(pyrun: Pyrun) -> None:
    """As a shell's file names: a star does not go beyond a slash; with the tag or without."""
    for pattern, found in (("bus*", 1), ("*sybo?:*", 1), ("busybox:l[a-m]test", 1), ("*:latest", 1), ("*/bus*", 0),
                           ("us*", 0), ("bus*:1", 0)):  # fmt: skip
        assert len(pyrun.ok("images", "-q", pattern).split()) == found, pattern


def test_a_start_with_few_descriptors(pyrun: Pyrun) -> None:
    """The reason is the limit, and its remedy is told."""
    words = ["run", "--rm", "--net=none", "busybox", "true"]
    few = ["sh", "-c", 'ulimit -Sn 10; exec "$@"', "sh", str(pyrun.binary), *words]
    done = subprocess.run(few, env=pyrun.env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        125, "pyrun: the limit of open files is 10, and 32 are needed\nhint: ulimit -Sn 1024\n"
    )  # fmt: skip


def test_a_binary_that_lies_in_the_root_directory(pyrun: Pyrun, tmp_path: Path) -> None:
    """There is no environment above it."""
    (tmp_path / "proc").mkdir()
    shutil.copy(pyrun.binary, tmp_path / "pyrun")
    words = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t proc proc "$1/proc"; exec chroot "$1" /pyrun info',
        "sh",
    ]
    done = subprocess.run([*words, str(tmp_path)], env=pyrun.env, capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert done.stderr.startswith("pyrun: no installation of pyrun below /lib; "), done


def test_verbs_on_several_tell_the_remedy(pyrun: Pyrun) -> None:
    begin(pyrun, "aa")
    assert pyrun.fails(1, "rm", "aa").endswith("hint: stop it first, or use `pyrun rm -f`")
    for verb in ("stop", "kill", "rm"):
        lines = pyrun.fails(1, verb, "nope", "neither").splitlines()
        assert lines == ["pyrun: no such container: nope", "hint: see `pyrun ps -a`",
                         "pyrun: no such container: neither"]  # fmt: skip
    pyrun.ok("stop", "-t", "0", "aa")
    assert pyrun.fails(1, "kill", "aa") == "pyrun: container aa is not running\nhint: see `pyrun ps -a`"


@pytest.mark.parametrize("words", [("ps", "-a"), ("images",), ("run", "--dry-run", "--net=none", "busybox", "true"),
                                   ("info",), ("ps", "--help")], ids=" ".join)  # fmt: skip
def test_no_room_for_what_is_printed(pyrun: Pyrun, words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(pyrun.binary), *words], env=pyrun.env, stdout=full, stderr=subprocess.PIPE,
                              text=True, check=False, timeout=30)  # fmt: skip
    assert done.stderr == "pyrun: cannot write to standard output: No space left on device\n"
    assert done.returncode == (125 if words[0] == "run" else 1)


def test_a_store_that_is_no_directory(pyrun: Pyrun) -> None:
    env = {"PYRUN_ROOT": "/etc/passwd"}
    told = pyrun.fails(125, "run", "-q", "--rm", "--net=none", "busybox", "true", env=env)
    assert "Not a directory\nhint: PYRUN_ROOT is /etc/passwd: " in told
    for name in ("PYRUN_ROOT", "PYRUN_RUNROOT"):
        told = pyrun.fails(1, "ps", env={name: "relative/place"})
        assert told.startswith(f"pyrun: {name} is no absolute path: 'relative/place'\nhint: ")
        told = pyrun.fails(1, "ps", env={name: "/tmp/a\nb"})  # what an undo list would make /tmp/a of
        assert told.startswith(f"pyrun: {name} holds a tab or a line break: '/tmp/a\\nb'\nhint: ")
    assert pyrun.ok("ps", "-q", env={"PYRUN_RUNROOT": ""}) == "", "empty is not set"


def test_help_tells_what_detaching_prints(pyrun: Pyrun) -> None:
    assert "print the container's id" in pyrun.ok("run", "--help")
    begin(pyrun, "web")
    assert (
        pyrun.ok("exec", "-d", "web", "echo", "lost") == "" and "id" not in pyrun.ok("exec", "--help").split()
    )
