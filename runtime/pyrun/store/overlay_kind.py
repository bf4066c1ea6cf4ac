"""Which overlay a user's store is made for: the kernel's own, or fuse-overlayfs where the kernel refuses it.

In a user namespace overlayfs can be mounted since Linux 5.11 (option userxattr), on file systems that keep user.*
attributes and are no overlay themselves. Whether that holds for PYRUN_ROOT is tried once, in a mount namespace of a
child, and kept in root/overlay: what fuse-overlayfs notes in a layer the kernel does not understand, so a store stays
with its kind. $PYRUN_OVERLAY (native, fuse) decides for a new store. Not asked for root of the host.
Source: Documentation/filesystems/overlayfs.rst (user xattr), man 1 fuse-overlayfs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from pyrun import linux
from pyrun.errors import PyrunError, StageFailed
from pyrun.store import layers, paths

PROGRAM = "fuse-overlayfs"
_PATIENCE_S = 20


def noted() -> str:
    """What this store is made for; empty for a new one."""
    note = f"{paths.root()}/overlay"
    return paths.read(note).decode().strip() if paths.exists(note) else ""


def kind() -> str:
    """ "native" or "fuse", found out and noted if this store is new. Raises PyrunError where there is neither."""
    note, known = f"{paths.root()}/overlay", noted()
    found, why = known or os.environ.get("PYRUN_OVERLAY", ""), f"{paths.root()} is made for {PROGRAM}"
    if not found:
        reason = tried()
        found, why = ("fuse", os.strerror(reason)) if reason else ("native", "")
    if found not in ("native", "fuse"):
        raise PyrunError(f"{note} or $PYRUN_OVERLAY says {found!r:.40}", "native or fuse")
    if found == "fuse" and not shutil.which(PROGRAM):
        raise PyrunError(
            f"no overlay for this user: {why}, and there is no {PROGRAM} here",
            "apt-get install fuse-overlayfs; or PYRUN_ROOT on a local file system with user.* attributes",
        )
    if not known:
        paths.replace(note, f"{found}\n".encode(), lasting=True)
    return found


def tried() -> int:
    """0 if an overlay could be mounted and used below root(), else the errno."""
    with layers.Staging() as staging:
        for name in ("lower", "lower/gone", "upper", "work", "merged"):
            os.mkdir(f"{staging.path}/{name}")
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(_try(staging.path))
            except BaseException:  # noqa: BLE001 - a child must not come back
                os._exit(5)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _try(base: str) -> int:
    try:
        linux.unshare(linux.CLONE_NEWNS)
        data = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work,userxattr"
        linux.mount("overlay", f"{base}/merged", "overlay", 0, data)
        os.rmdir(f"{base}/merged/gone")  # a whiteout, then an opaque directory
        os.mkdir(f"{base}/merged/gone")
    except OSError as error:
        return error.errno or 5
    return 0


def command(directory: str, upper: str, work: str, lowers: Sequence[str]) -> list[str]:
    """fuse-overlayfs's command line; lowers: from the top layer down."""
    return [PROGRAM, "-o", f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}", directory]


def mount_fuse(directory: str, upper: str, work: str, lowers: Sequence[str]) -> None:
    """Mount by fuse-overlayfs, in the mount namespace of the calling thread; it ends when that is unmounted. Raises
    StageFailed, PyrunError."""
    output_fd = os.memfd_create("output")  # not a pipe: what stays behind would keep it open
    try:
        done = subprocess.run(command(directory, upper, work, lowers), stdin=subprocess.DEVNULL, check=False,
                              stdout=output_fd, stderr=output_fd, timeout=_PATIENCE_S)  # fmt: skip
        said = os.pread(output_fd, 4096, 0).decode("utf-8", "replace").strip().splitlines()
    except OSError as error:
        raise StageFailed("rootfs", f"start {PROGRAM}", error.errno) from None
    except subprocess.TimeoutExpired:
        raise PyrunError(f"{PROGRAM} did not mount the root within {_PATIENCE_S} s") from None
    finally:
        os.close(output_fd)
    if done.returncode:
        reason = next((line for line in said if "/dev/fuse" in line), (said or ["it said nothing"])[-1])
        raise PyrunError(
            f"{PROGRAM} could not mount the root: {reason:.200}", "users must be able to open /dev/fuse"
        )
