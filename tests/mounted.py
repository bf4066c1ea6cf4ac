"""A container reduced to its file system: the operations of stages/mounts.py and rootfs.py, init, and a shell script.

`run` gives back what a caller would see: init's report, the script's output, and what a look at the host gave
meanwhile. Everything happens in a forked child with a mount namespace of its own
(`sandbox_fork`), so that "the host" here is that child's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from jobs import job_of
from pyrun import descriptors, handshake, linux
from pyrun.plan.job import Job
from pyrun.plan.operations import Operation
from pyrun.plan.plan import encode
from pyrun.stages import mounts, rootfs

BUSYBOX = "/bin/busybox"
APPLETS = (
    "sh",
    "cat",
    "ls",
    "stat",
    "mount",
    "umount",
    "mkdir",
    "touch",
    "readlink",
    "id",
    "grep",
    "tty",
    "dd",
    "find",
)
MAP = [{"containerID": 0, "hostID": 100000, "size": 65536}]

PROC = {"destination": "/proc", "type": "proc", "source": "proc"}
DEV = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}
SHOW = "cat /proc/self/mountinfo"

Config = dict[str, object]


class Seen:
    """What came of a run. failed: (operation, errno, detail) or None; told: what `meanwhile` returned."""

    def __init__(self, failed: tuple[str, int, str] | None, output: str, told: object) -> None:
        self.failed, self.output, self.told = failed, output, told

    def lines(self) -> list[str]:
        assert self.failed is None, self.failed
        return self.output.splitlines()

    def mounts(self) -> dict[str, dict[str, object]]:
        """Of a script that printed /proc/self/mountinfo: by target, what is on top of it."""
        found: dict[str, dict[str, object]] = {}
        for line in self.lines():
            left, _, right = line.partition(" - ")
            fields, (kind, source, superblock) = left.split(), right.split()
            found[fields[4]] = {
                "root": fields[3], "options": set(fields[5].split(",")), "kind": kind, "source": source,
                "propagation": {each.partition(":")[0] for each in fields[6:]},
                "superblock": set(superblock.split(",")),
            }  # fmt: skip
        return found


# The fixture `run` of the kernel floor: mount entries in, what was seen out.
Run = Callable[..., Seen]


def tmpfs(*words: str, target: str = "/t") -> Config:
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": list(words)}


def bind(source: object, *words: str, target: str = "/t", **more: object) -> Config:
    return {"destination": target, "source": str(source), "options": ["bind", *words], **more}


def sh(*words: str) -> None:
    subprocess.run(words, check=True)


def make_root(directory: Path) -> Path:
    """A root of busybox alone."""
    for name in ("bin", "proc", "dev"):
        (directory / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    for name in APPLETS:
        (directory / "bin" / name).symlink_to("busybox")
    return directory


def run(
    binary: str, root: str, config: Config, script: str, host: Callable[[], object] | None = None,
    meanwhile: Callable[[int], object] | None = None, job: Job | None = None, user: bool = False,
) -> Seen:  # fmt: skip
    """Call it by sandbox_fork. host: what is done first; meanwhile: called with init's pid when the script has printed
    `ready`; the script may wait for its end by `read x`. user: in a user namespace with MAP."""
    if host:
        host()
    config = {"root": {}, **config}
    given = job or job_of()
    given.root, given.bundle, given.user_namespace = given.root or root, root, user
    own = config.pop("operations", [])
    mounted, late = mounts.plan(config, given, [])
    operations = [
        *([Operation("WAIT_GO"), Operation("ROOT_IDENTITY")] if user else []),
        *rootfs.plan_root(config, given), *mounted, *rootfs.plan_devices(config),
        *(own if isinstance(own, list) else []),
        *rootfs.plan_hidden(config), *rootfs.plan_pivot(config, given, late),
        Operation("ENVIRONMENT", "PATH=/bin"), Operation("EXECUTE", "/bin/sh", "-c", script),
    ]  # fmt: skip
    flags = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC
    flags |= linux.CLONE_NEWUSER | linux.CLONE_NEWNET if user else 0
    return _started(binary, operations, given, flags, meanwhile)


def _started(
    binary: str,
    operations: list[Operation],
    job: Job,
    flags: int,
    meanwhile: Callable[[int], object] | None,
) -> Seen:
    binary_fd = linux.open_tree(linux.AT_FDCWD, binary, linux.OPEN_TREE_CLONE)
    plan_fd = os.memfd_create("plan")
    os.write(plan_fd, encode(operations))
    ours, theirs = handshake.pair()
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    passed = descriptors.open_all(job)
    keep = [*passed, (in_r, 0), (out_w, 1), (out_w, 2), (plan_fd, 3), (theirs, 4)]
    pid, _ = linux.clone_exec(flags, -1, binary_fd, "pyrun-init", keep)
    for fd in (in_r, out_w, plan_fd, theirs, *[fd for fd, _ in passed]):
        os.close(fd)
    if flags & linux.CLONE_NEWUSER:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text("0 100000 65536\n")
    handshake.go(ours, pid)
    outcome = handshake.wait(ours)
    output, told = b"", None
    while chunk := os.read(out_r, 65536):
        output += chunk
        if meanwhile and b"ready\n" in output:
            told = meanwhile(pid)
            meanwhile = None
            os.write(in_w, b"\n")
    os.waitpid(pid, 0)
    failed = None
    if outcome.failed:
        index, number, detail = outcome.failed
        failed = (operations[index].kind, number, detail)
    return Seen(failed, output.decode().replace("ready\n", "", 1), told)
