"""What pyrun prints to be typed is typed: as root, by bash; then the host is as it was, but for what it says.

Names, paths and commands in there are an image's, a recipe's or a file's: here they hold everything a shell or a
terminal gives a meaning to. /etc is a copy while they are typed: a hint has emptied files of it once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import hostile
import leftovers
from command import Pyrun
from waiting import until

EVIL = "a$(:>pwned)`:>pwned`;:>pwned;'\"\n       sh   :>pwned\n\x1b[2J&|>pwned #{pid}$ROOT \\"
# What must not be done for real: it would ask for packages, services, modules.
STAND_INS = ("apt-get", "docker", "systemctl", "modprobe", "sudo")


class Typist:
    """Types lines in a directory of its own; `changed()` tells what is not as it was."""

    def __init__(self, pyrun: Pyrun, directory: Path) -> None:
        self.directory, self.asked = directory / "desk", directory / "asked"
        tools = directory / "tools"
        for each in (self.directory, tools):
            each.mkdir()
        for name in STAND_INS:
            (tools / name).write_text(f'#!/bin/sh\nprintf "%s\\0" {name} "$@" >>{self.asked}\n')
            (tools / name).chmod(0o755)
        self.etc = directory / "etc"
        self.path = f"{tools}:{pyrun.binary.parent}:{os.environ['PATH']}"
        self.env = pyrun.env | {"PATH": self.path}
        self.before = leftovers.picture()

    def types(self, text: str) -> str:
        """What it printed. The text is bash's standard input, as from a terminal; lines that fail are the last ones."""
        assert text.isprintable() or text.replace("\n", "").isprintable(), repr(text)
        shutil.rmtree(self.etc, ignore_errors=True)
        inside = f"/bin/cp -a /etc {self.etc}; /bin/mount --bind {self.etc} /etc; cd {self.directory}; exec /bin/bash"
        words = ["/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", inside]
        done = subprocess.run(
            words, input=text, env=self.env, capture_output=True, text=True, timeout=100, check=False
        )
        assert not re.search(r"bash: line \d+: (syntax|unexpected)", done.stderr), (text, done.stderr)
        return done.stdout + done.stderr

    def changed(self) -> list[str]:
        """Of the host, of its /etc, of the directory where it was typed."""
        there = subprocess.run(
            ["diff", "-rq", "--no-dereference", "/etc", self.etc], capture_output=True, text=True
        )
        left = leftovers.settle(self.before)
        return [*left, *there.stdout.splitlines(), *[str(path) for path in self.directory.iterdir()]]

    def was_asked(self) -> list[str]:
        return self.asked.read_text().split("\0")[:-1] if self.asked.exists() else []


@pytest.fixture(autouse=True)
def names_of_namespaces() -> None:
    """The first one makes /run/netns a mount, which stays."""
    subprocess.run("ip netns add first && ip netns delete first", shell=True, check=True)


@pytest.fixture
def typist(pyrun: Pyrun, tmp_path: Path) -> Typist:
    return Typist(pyrun, tmp_path)


def recipe(directory: Path, name: str, **fields: object) -> dict[str, str]:
    """The environment in which there is an image recipe of that name."""
    directory.mkdir(exist_ok=True)
    (directory / f"{name}.yaml").write_text(json.dumps(fields))  # JSON is YAML
    return {"PYRUN_IMAGES": str(directory)}


def hint_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode and len(done.stderr.splitlines()) <= 3, done
    assert done.stderr.replace("\n", "").isprintable(), repr(done.stderr)
    return re.findall(r"^hint: (.*)$", done.stderr, re.MULTILINE)[0]


@pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap: apt-get install mmdebstrap")
@pytest.mark.parametrize("mirror", ["http://127.0.0.1:9/debian", f"deb http://127.0.0.1:9/ {EVIL}"])
def test_a_recipe_that_cannot_be_built_is_tried_by_hand(
    pyrun: Pyrun, typist: Typist, tmp_path: Path, mirror: str
) -> None:
    """The quotes of its hook were lost: typed as root, it emptied /etc/hostname and /etc/resolv.conf of the host."""
    env = recipe(
        tmp_path / "recipes", "debian", kind="bootstrap", suite="trixie", variant="minbase", mirror=mirror
    )
    hint = hint_of(pyrun("pull", "-q", "debian", env=env))
    typed = hint[hint.index("unshare --mount") :]
    told = typist.types(typed + "\n")
    assert "mmdebstrap" in typed and "E: " in told, told
    assert typist.changed() == []


def test_a_recipes_package_is_one_word(pyrun: Pyrun, typist: Typist, tmp_path: Path) -> None:
    env = recipe(tmp_path / "recipes", "x", kind="embedded", program="/nowhere", package=EVIL)
    hint = hint_of(pyrun("pull", "-q", "x", env=env))
    typist.types(hint + "\n")
    assert typist.was_asked() == ["apt-get", "install", EVIL]
    assert typist.changed() == []


def test_a_directory_that_is_no_image_is_packed(pyrun: Pyrun, typist: Typist, tmp_path: Path) -> None:
    directory = tmp_path / EVIL.replace("/", "")
    directory.mkdir()
    (directory / "file").write_text("here")
    hint = hint_of(pyrun("load", "-i", str(directory)))
    typist.types(hint.replace("NAME", "packed") + "\n")
    assert "packed" in pyrun.ok("images")
    assert typist.changed() == []


def taken_name(pyrun: Pyrun) -> subprocess.CompletedProcess[str]:
    pyrun.ok("run", "-d", "--name=one", "--net=none", "busybox", "true")
    until(lambda: "Exited (0) " in pyrun.ok("ps", "-a"), "its end")
    return pyrun("run", "--name=one", "--net=none", "busybox", "true")


def taken_namespace(pyrun: Pyrun) -> subprocess.CompletedProcess[str]:
    subprocess.run(["ip", "netns", "add", "theirs"], check=True)
    return pyrun("run", "--rm", "--name=theirs", "--net=bridge", "busybox", "true")


def no_such_port(pyrun: Pyrun) -> subprocess.CompletedProcess[str]:
    pyrun.ok("run", "-d", "--name=one", "--net=bridge", "busybox", "sleep", "100")
    return pyrun("port", "one", "99")


def used_image(pyrun: Pyrun) -> subprocess.CompletedProcess[str]:
    pyrun.ok("run", "--name=one", "--net=none", "busybox", "true")
    return pyrun("rmi", "busybox")


# What is provoked, and whose name what is different afterwards bears.
SITUATIONS: dict[str, tuple[Callable[[Pyrun], subprocess.CompletedProcess[str]], str]] = {
    "a name that is taken": (taken_name, ""),
    "a namespace of that name": (taken_namespace, "theirs"),
    "no such port": (no_such_port, ""),
    "an image in use": (used_image, ""),
    "no such container": (lambda pyrun: pyrun("logs", "nobody"), ""),
    "no such verb": (lambda pyrun: pyrun("frob"), ""),
    "no such option": (lambda pyrun: pyrun("network", "ls", "--frob"), ""),
    "no such image": (lambda pyrun: pyrun("run", "--pull=never", "nothing", "true"), ""),
    "no such network": (lambda pyrun: pyrun("network", "connect", "nothing", "nobody"), ""),
    "no image": (lambda pyrun: pyrun("run"), ""),
    "a broken record": (lambda pyrun: [path.write_text("{") for path in pyrun.root.glob("images/*/image.json")]
                        and pyrun("run", "busybox", "true"), ""),
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hints_do_what_they_say(pyrun: Pyrun, typist: Typist, situation: str) -> None:
    provoke, wanted = SITUATIONS[situation]
    done = provoke(pyrun)
    lines = done.stderr.splitlines()
    hint = lines[-1].removeprefix("hint: ").partition("(")[2] if lines[-1][:6] != "hint: " else lines[-1][6:]
    typed = re.findall(r"`([a-z]+ [^`]*)`", lines[-1]) or [hint]
    typist.before = leftovers.picture()
    typist.types("\n".join(typed) + "\n")
    left = typist.changed()
    assert bool(left) == bool(wanted) and all(wanted in line for line in left), (typed, left)


@pytest.fixture
def evil_image(pyrun: Pyrun) -> str:
    return hostile.put_image(
        pyrun, "evil", Cmd=["sh", "-c", EVIL], Entrypoint=["-a" + EVIL], WorkingDir=f"/{EVIL}", User="0",
        Volumes={f"/vol/{EVIL}".replace("\n", ""): {}}, Env=["PATH=/bin", f"EVIL={EVIL}"],
    )  # fmt: skip


def test_a_plan_holds_no_line_of_an_image(pyrun: Pyrun, typist: Typist, evil_image: str) -> None:
    """Every line of --dry-run is pyrun's own, and typed, it does to files what it says and nothing else."""
    text = pyrun.ok(
        "run", "--dry-run", "--name=evil", "--net=none", "-v", "/etc:/in a new/place:ro", evil_image
    )
    assert text.replace("\n", "").isprintable()
    lines = text.splitlines()
    shaped = re.compile(r"container |export |  -- |\s*\d+\. |       (sh|see)   ?|undo list|  [a-z-]+|$")
    assert all(shaped.match(line) for line in lines), [line for line in lines if not shaped.match(line)]
    typed = re.findall(r"^       (?:sh|see)  +(.*)$", text, re.MULTILINE)
    assert len(typed) > 40 and not any(line.startswith(":>pwned") for line in typed)
    for name in (
        "mount",
        "umount",
        "mknod",
        "unshare",
        "nsenter",
        "ip",
        "mkdir",
        "touch",
        "pivot_root",
        "chroot",
        "cp",
        "setpriv",
        "prlimit",
        "hostname",
        "ln",
        "chown",
        "nft",
        "findmnt",
        "mktemp",
        "rmdir",
        "tini",
        "env",
    ):
        shutil.copy(typist.path.partition(":")[0] + "/apt-get", typist.path.partition(":")[0] + f"/{name}")
    # each in a shell of its own, since `exec` ends one; what is written to is left out
    typist.types("".join(f"(\n{line}\n)\n" for line in typed if "..." not in line and " > /" not in line))
    assert typist.changed() == []
    assert [word for word in typist.was_asked() if EVIL in word]
