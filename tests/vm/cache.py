"""Where guest images lie, outside every checkout: /var/cache/pyrun-vm/SUITE-KEY (PYRUN_VM_CACHE: another directory).

    SUITE-KEY/root/           the guest's files, for work at native speed (chroot.py)
              disk.ext4       the same files as the guest's disk
              vmlinuz initrd  what qemu starts
              python-KEY/     an environment with the libraries that the tests need
              MODE-KEY.state  memory of a guest that has booted, MODE-KEY.qcow2 its disk (run --fast)

KEY is a hash of everything that the image is made of, so that a changed script makes another image. Whoever uses an
image holds a shared lock on its directory; images of an old key that nobody uses are removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PROVISION = REPOSITORY / "vagrant" / "provision.sh"
CACHE = Path(os.environ.get("PYRUN_VM_CACHE", "/var/cache/pyrun-vm"))
SUITES = ("trixie", "bookworm")
KEY_LENGTH = 12


def digest(*parts: bytes) -> str:
    """A short name for *parts*."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()[:KEY_LENGTH]


def image_directory(suite: str) -> Path:
    """Where the image of *suite* belongs; it need not be there yet."""
    inputs = [PROVISION, HERE / "image", HERE / "initramfs.py", *sorted((HERE / "guest").iterdir())]
    contents = [each.name.encode() + b"\0" + each.read_bytes() for each in inputs]
    return CACHE / f"{suite}-{digest(os.uname().machine.encode(), *contents)}"


@contextmanager
def locked(directory: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock on *directory*, which must exist; waits for others."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def remove_others(suite: str, kept: Path) -> None:
    """Remove the images of *suite* that nobody uses, but for *kept*."""
    for directory in CACHE.glob(f"{suite}-*"):
        if directory == kept:
            continue
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)
