"""Ordinary users of the lab host, and pyrun as they run it.

`make_users` adds two to /etc, whose changes the lab throws away: `tess`, with ranges in /etc/subuid and /etc/subgid,
and `solo`, who may map nobody but herself. `UserPyrun` is command.Pyrun behind setpriv, in the user's own directories.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from command import Pyrun


class User(NamedTuple):
    """name; uid, also the number of the group; first: of the ids in /etc/subuid, 0 without any."""

    name: str
    uid: int
    first: int


TESS, SOLO = User("tess", 12345, 200_000), User("solo", 12346, 0)
COUNT = 65_536


def make_users() -> None:
    """Let /etc know them; harmless when it does already."""
    assert os.environ.get("PYRUN_LAB") == "1" or os.environ.get("PYRUN_VM") == "1", "this changes /etc"
    for user in (TESS, SOLO):
        _add("passwd", f"{user.name}:x:{user.uid}:{user.uid}::/nonexistent:/bin/sh")
        _add("group", f"{user.name}:x:{user.uid}:")
        if user.first:
            _add("subuid", f"{user.name}:{user.first}:{COUNT}")
            _add("subgid", f"{user.name}:{user.first}:{COUNT}")


def _add(name: str, line: str) -> None:
    path = Path("/etc", name)
    text = path.read_text() if path.exists() else ""
    if line not in text.splitlines():
        path.write_text(f"{text}{line}\n")


def as_user(user: User, *words: str) -> list[str]:
    """The command line that runs *words* as *user*."""
    return ["setpriv", f"--reuid={user.uid}", f"--regid={user.uid}", "--clear-groups", "--", *words]


def own_directory(user: User) -> Path:
    """A new directory of the user's that everybody can reach: pytest's own are root's alone."""
    path = Path(tempfile.mkdtemp(prefix=f"pyrun-{user.name}-", dir="/tmp"))
    os.chown(path, user.uid, user.uid)
    path.chmod(0o755)
    return path


class UserPyrun(Pyrun):
    """pyrun as *user*, with HOME and XDG_RUNTIME_DIR below a directory of this object's."""

    copies = "-a"  # files of the user's own

    def __init__(self, binary: Path, user: User) -> None:
        self.user = user
        self.home = own_directory(user)
        super().__init__(binary, self.home)
        runtime = Path("/run") / f"pyrun-{user.name}-{os.getpid()}-{self.home.name[-8:]}"
        runtime.mkdir(0o700)
        os.chown(runtime, user.uid, user.uid)
        self.runtime = runtime
        self.root, self.runroot = self.home / ".local/share/pyrun", runtime / "pyrun"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYRUN_", "XDG_"))}
        self.env = kept | {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(runtime), "NO_COLOR": "1"}
        self.binary = self.home / "pyrun"  # in its place: setpriv, then the real one
        self.binary.write_text(f'#!/bin/sh\nexec {" ".join(as_user(user, str(binary)))} "$@"\n')
        self.binary.chmod(0o755)

    def copy_store(self, prepared: Path) -> None:
        """A copy of root's *prepared*, given to the user; possible where all its files are root's."""
        self.root.parent.mkdir(parents=True)
        super().copy_store(prepared)
        owner = f"{self.user.uid}:{self.user.uid}"
        subprocess.run(["chown", "-hR", owner, str(self.home / ".local")], check=True)

    def run_as(
        self, *words: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Another command as this user, with the same environment, in the home directory."""
        return subprocess.run(as_user(self.user, *words), capture_output=True, text=True, timeout=timeout, env=self.env,
                              stdin=subprocess.DEVNULL, cwd=self.home, check=check)  # fmt: skip

    def pause_pid(self) -> int:
        """The process that holds the user's namespaces."""
        return int((self.runroot / "pause").read_text().split()[0])

    def inside(self, *words: str) -> str:
        """What root sees in the user's namespaces."""
        pid = str(self.pause_pid())
        return subprocess.run(["nsenter", "-t", pid, "-U", "-m", *words], capture_output=True, text=True, check=True,
                              timeout=30).stdout  # fmt: skip

    def close(self) -> None:
        """Remove every container, then the namespaces, then all files."""
        self("ps", "-q")  # what follows would make the namespaces if there were none
        pause = self.pause_pid()
        super().close()
        helpers = network_helpers(str(self.runroot))
        os.kill(pause, signal.SIGTERM)
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.runtime, ignore_errors=True)
        assert not helpers, f"left running: {helpers}"


def network_helpers(directory: str) -> list[str]:
    """The command lines of pasta and slirp4netns that serve a container below *directory*."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if words[0].rpartition("/")[2] in (
            "pasta",
            "pasta.avx2",
            "passt",
            "passt.avx2",
            "slirp4netns",
            "fuse-overlayfs",
        ):
            found += [" ".join(words)] if directory in " ".join(words) else []
    return found
