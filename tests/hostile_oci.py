"""What the hostile tests of pyrun-oci share: a bundle, calls that cannot hang, and the picture of what is there.

A created container keeps its standard streams open, so nobody may wait for the end of a pipe: streams are files.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import leftovers
from oci.box import BASE
from waiting import PATIENCE, emptied

TIMEOUT_S = 20.0 * PATIENCE
PROGRAMS = ("sh", "sleep", "true", "cat")
Config = dict[str, Any]


class Done(NamedTuple):
    """A finished call, with how long it took."""

    status: int
    out: str
    err: str
    seconds: float


class Started(subprocess.Popen[bytes]):
    """A call in the background. names: the files its output goes to; begun: when it began."""

    names: list[Path]
    begun: float


class Oci:
    """`oci("state", "x")`: pyrun-oci with a --root and a bundle of its own."""

    def __init__(self, program: Path, directory: Path) -> None:
        self.program = program
        self.directory = directory
        self.root = directory / "state"
        self.bundle = directory / "bundle"
        self.rootfs = self.bundle / "rootfs"
        self.env = {
            key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "XDG_RUNTIME_DIR")
        }
        self.started: list[Started] = []
        self._calls = 0
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "data"):
            (self.rootfs / name).mkdir(parents=True)
        busybox = shutil.which("busybox")
        assert busybox, "needs a static busybox: apt-get install busybox-static"
        shutil.copy(busybox, self.rootfs / "bin/busybox")
        for name in PROGRAMS:
            (self.rootfs / "bin" / name).symlink_to("busybox")
        self.config: Config = copy.deepcopy(BASE)
        self.config["process"]["args"] = ["sleep", "1000"]
        self.linux: Config = self.config["linux"]

    def write(self, config: Config | None = None, bundle: Path | None = None) -> None:
        (bundle or self.bundle).joinpath("config.json").write_text(json.dumps(config or self.config))

    def command(self, *words: str, root: Path | None = None) -> list[str]:
        return [str(self.program), "--root", str(root or self.root), *words]

    def __call__(
        self, *words: str, root: Path | None = None, timeout: float = TIMEOUT_S, **more: Any
    ) -> Done:
        return self.finish(self.start(*words, root=root, **more), timeout)

    def ok(self, *words: str, **more: Any) -> str:
        done = self(*words, **more)
        assert done.status == 0, (words, done)
        return done.out

    def start(self, *words: str, root: Path | None = None, **more: Any) -> Started:
        """In the background."""
        self._calls += 1
        names = [self.directory / f"{self._calls}.{kind}" for kind in ("out", "err")]
        with names[0].open("wb") as out, names[1].open("wb") as err:
            streams: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": out,
                "stderr": err,
                "env": self.env,
            }
            process: Started = Started(self.command(*words, root=root), **(streams | more))
        process.names, process.begun = names, time.monotonic()
        self.started.append(process)
        return process

    def finish(self, process: Started, timeout: float = TIMEOUT_S) -> Done:
        """Wait for it. Fails the test, and ends it, when it takes longer."""
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            said = process.names[1].read_text(errors="replace")
            raise AssertionError(f"still there after {timeout} s: {process.args!r}: {said}") from None
        out, err = [path.read_text(errors="replace") for path in process.names]
        for path in process.names:
            path.unlink()
        self.started.remove(process)
        return Done(status, out, err, time.monotonic() - process.begun)

    def create(self, name: str = "box", *options: str, **more: Any) -> None:
        self.write()
        self.ok("create", "--bundle", str(self.bundle), *options, name, **more)

    def detach(self, name: str = "box", *options: str, **more: Any) -> None:
        self.write()
        self.ok("run", "--detach", "--bundle", str(self.bundle), *options, name, **more)

    def state(self, name: str = "box") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("state", name))
        return found

    def gone(self, name: str = "box") -> None:
        """`delete -f` works, and quickly."""
        done = self("delete", "--force", name)
        assert (done.status, done.err) == (0, ""), done
        assert "does not exist" in self("state", name).err

    def script(self, name: str, text: str) -> str:
        """An executable of the host, beside the bundle."""
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(10)
        names = os.listdir(self.root) if self.root.is_dir() else []
        for name in names:
            if name[0] != ".":
                self("delete", "--force", "--", name)

    # ── what is there ──────────────────────────────────────────────────────────────────────────────

    def picture(self) -> leftovers.Picture:
        """Of the host, and every path below --root."""
        return {
            "link": leftovers.links(),
            "mount": leftovers.mounts(),
            "cgroup": leftovers.cgroups(),
            "process": processes(),
            "state": {str(path) for path in self.root.rglob("*") if path.name != ".staging"},
        }

    def unchanged(self, before: leftovers.Picture, timeout_s: float = 3.0 * PATIENCE) -> None:
        """As before, once the kernel has had time to take away what was released."""
        lines = emptied(lambda: leftovers.difference(before, self.picture()), timeout_s)
        assert not lines, "\n".join(lines)

    def refused(self, *words: str, status: int = 1, seconds: float = 2.0, **more: Any) -> str:
        """It fails in time, with one line of log; nothing is left. Returns the line's message."""
        before = self.picture()
        done = self(*words, **more)
        message = message_of(done)
        assert done.status == status, done
        assert done.seconds < seconds * PATIENCE, done
        self.unchanged(before)
        return message


def unharmed(binary: Path, directory: Path) -> Iterator[Oci]:
    """For a fixture: afterwards the host is what it was before."""
    command = Oci(binary.with_name("pyrun-oci"), directory)
    command.root.mkdir()
    before = command.picture()
    yield command
    command.close()
    command.unchanged(before)


def message_of(done: Done) -> str:
    """The msg of the one line that was logged: short, printable, ours, and no traceback in disguise."""
    lines = [line for line in done.err.splitlines() if "level=warning" not in line]
    assert len(lines) == 1, done
    found = re.fullmatch(r'time="[^"]+" level=error msg=("?)(.*)\1', lines[0])
    assert found, done
    message = re.sub("x{200,}", "xxx", found[2].replace('\\"', '"'))  # names that are wrong by their length
    assert message.isprintable() and len(message) < 600 and "unexpected" not in message, message
    assert "Traceback" not in message and "Error:" not in message, message
    return message


def processes() -> set[str]:
    """Every process but kernel threads and the tests' own children that are about to end, as "pid words"."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:  # gone
            continue
        if words:
            found.add(f"{path.parent.name} {words[:200]}")
    return found
