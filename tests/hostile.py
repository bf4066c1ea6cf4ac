"""What the attack tests are made of: images and bundles nobody should trust, and a canary outside of them.

Images are put into the store as they are, past every check of pull and load: a start must be safe whatever is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from command import Pyrun

Change = Callable[[Path], object]
SOURCE = Path(__file__).parent / "attacks" / "attacker.c"
BUNDLE_MOUNTS = (
    {"destination": "/proc", "type": "proc"},
    {"destination": "/dev", "type": "tmpfs", "options": ["nosuid", "mode=755"]},
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666"],
    },
    {"destination": "/sys", "type": "sysfs", "options": ["ro", "nosuid", "noexec", "nodev"]},
)

# A process's own streams (this floor's files, a pipe, a terminal), and the directory `ls` itself is reading.
ALLOWED = re.compile(
    r"pipe:\[\d+\]|/dev/null|/dev/pts/\d+|/dev/console|/proc/\d+/fd|.*/\d+\.(in|out|err)|.*/hook\.log"
)


class Canary:
    """A directory of the host that has nothing to do with any container: `unchanged()` makes sure of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "below").mkdir(parents=True)
        for name in ("null", "hosts", "sys"):
            (directory / name).write_text("alive\n")
        self.before = self.picture()

    def picture(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for path in [self.directory, *self.directory.rglob("*")]:
            seen = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(seen.st_mode) else b""
            found[str(path)] = (seen.st_ino, seen.st_mode, seen.st_uid, seen.st_nlink, seen.st_mtime_ns, seen.st_rdev,
                                os.path.ismount(path), content)  # fmt: skip
        return found

    def unchanged(self) -> bool:
        assert self.picture() == self.before
        return True


def compile_attacker(directory: Path) -> Path:
    """The static program of attacks/attacker.c."""
    compiler = shutil.which("musl-gcc") or "gcc"
    program = directory / "attacker"
    subprocess.run([compiler, "-static", "-O1", "-o", str(program), str(SOURCE)], check=True)
    return program


EVIL = "e" * 52  # how the ids of our images begin


def busybox(pyrun: Pyrun) -> dict[str, Any]:
    """The image record the others are made from."""
    (path,) = (
        path for path in pyrun.root.glob("images/*/image.json") if not path.parent.name.startswith(EVIL)
    )
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def busybox_layer(pyrun: Pyrun) -> Path:
    return Path(busybox(pyrun)["layers"][0])


def put_image(pyrun: Pyrun, name: str, change: Change | None = None, **config: Any) -> str:
    """An image `name`: busybox with *change* done to its root, and *config* (Env, User, ...) in its configuration."""
    number = hashlib.sha256(name.encode()).hexdigest()[:12]
    layer = pyrun.root / "layers" / f"evil-{number}"
    subprocess.run(["cp", "-a", str(busybox_layer(pyrun)), str(layer)], check=True)
    if change:
        change(layer)
    image = busybox(pyrun) | {
        "id": EVIL + number,
        "layers": [str(layer)],
        "names": [f"docker.io/library/{name}:latest"],
    }
    image["config"] = {"Cmd": ["sh"], "Env": ["PATH=/bin"]} | config
    directory = pyrun.root / "images" / image["id"]
    directory.mkdir()
    (directory / "image.json").write_text(json.dumps(image))
    (pyrun.root / "refs" / f"docker.io%2Flibrary%2F{name}%3Alatest").write_text(image["id"] + "\n")
    return name


def put_bundle(pyrun: Pyrun, directory: Path, change: Change | None = None, **parts: Any) -> Path:
    """A bundle of busybox; *parts* replace those of config.json (args, terminal, cwd: those of its process)."""
    root = directory / "rootfs"
    directory.mkdir(parents=True)
    subprocess.run(["cp", "-a", str(busybox_layer(pyrun)), str(root)], check=True)
    if change:
        change(root)
    process = {"args": parts.pop("args", ["true"]), "cwd": parts.pop("cwd", "/"), "env": ["PATH=/bin"],
               "terminal": parts.pop("terminal", False)}  # fmt: skip
    linux = {"namespaces": [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network", "cgroup")]}
    linux |= parts.pop("linux", {})
    config = {"ociVersion": "1.0.2", "process": process, "root": {"path": "rootfs"}, "mounts": list(BUNDLE_MOUNTS),
              "linux": linux} | parts  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def odd_file(place: Path, kind: str) -> None:
    """What is no file to be read: a "huge" one, a "fifo" nobody writes to, a "device" without an end (/dev/zero)."""
    if kind == "huge":
        with place.open("wb") as file:
            file.truncate(1 << 30)
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        assert kind == "device", kind
        os.mknod(place, 0o20666, os.makedev(1, 5))


@contextlib.contextmanager
def without_umask() -> Iterator[None]:
    """As the most careless caller has it: what is made keeps the mode it was given."""
    old = os.umask(0)
    try:
        yield
    finally:
        os.umask(old)


@contextlib.contextmanager
def renaming(directory: Path) -> Iterator[None]:
    """Somebody renames a file of *directory* all the time: some paths with `..` the kernel then gives up (EAGAIN)."""
    names = [str(directory / name) for name in ("this", "that")]
    Path(names[0]).touch()
    pid = os.fork()
    while pid == 0:
        os.rename(*names)
        names.reverse()
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def link(name: str, target: str | Path) -> Change:
    """Put a symbolic link where the root has something else."""

    def change(root: Path) -> None:
        place = root / name.strip("/")
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    return change


def stored(pyrun: Pyrun) -> set[str]:
    """What the store and the run directory hold of containers."""
    parts = [pyrun.root / "names", pyrun.root / "containers", pyrun.runroot / "containers", pyrun.runroot / "staging",
             pyrun.runroot / "netns", pyrun.runroot / "ports", *pyrun.runroot.glob("networks/*/leases")]  # fmt: skip
    return {str(path) for part in parts for path in part.glob("*")}


def on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What a command prints to a terminal."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, environment)
    shown = b""
    try:
        while chunk := os.read(fd, 4096):
            shown += chunk
    except OSError:  # EIO: the other side is closed
        pass
    os.close(fd)
    os.waitpid(pid, 0)
    return shown.decode("utf-8", "replace")


# What hides or protects in each mount, by the end of its place in mountinfo: the mount itself may be anywhere.
PROTECTED = {"proc": ("/kcore", "/timer_list", "/bus", "/irq", "/sysrq-trigger"), "sys": ("/firmware",)}


def while_it_is_swapped(name: str) -> str:
    """A script for busybox: what is mounted in the container, as soon as *name* is a directory for a moment; somebody
    swaps it with a link all the time."""
    seen = "until cat /proc/self/mountinfo >/tmp/seen 2>/dev/null; do :; done; "
    return f"{seen}cat /tmp/seen; until [ ! -L /{name} ]; do :; done; echo end"


def unprotected(name: str, shown: str) -> list[str]:
    """What of PROTECTED is not covered in a container that has shown its mounts."""
    places = [line.split()[4] for line in shown.splitlines() if line.count(" ") > 6]
    there = [end for end in PROTECTED[name] if Path(f"/{name}{end}").exists()]
    assert places and there, shown
    return [end for end in there if not any(place.endswith(end) for place in places)]
