"""Where everything is on disk: the one place that knows the directories.

`root()` survives a reboot (images, containers); `run()` is a tmpfs (states, leases, undo lists) and needs
no fsync, since it disappears together with the links and mounts it tells of. Both are 0700.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator


def _from_environment(name: bytes, default: str) -> str:
    found = posix.environ.get(name, b"")
    return found.decode("utf-8", "surrogateescape").rstrip("/") if found[:1] == b"/" else default


def root() -> str:
    """What must last: $PYRUN_ROOT (absolute: cli/main.py refuses others) or /var/lib/pyrun."""
    return _from_environment(b"PYRUN_ROOT", "/var/lib/pyrun")


def run() -> str:
    """What lives until the reboot: $PYRUN_RUNROOT or /run/pyrun."""
    return _from_environment(b"PYRUN_RUNROOT", "/run/pyrun")


def cache() -> str:
    """What can be made again: below root(), or where that is not ours to write (pyrun-oci of a user, or of podman in
    its user namespace) below $XDG_CACHE_HOME or ~/.cache."""
    base = root()
    if b"PYRUN_ROOT" in posix.environ or posix.access(base, posix.W_OK) or not is_user():
        return f"{base}/cache"
    home = _from_environment(b"HOME", "")
    return _from_environment(b"XDG_CACHE_HOME", f"{home}/.cache") + "/pyrun"


def is_user() -> bool:
    """Whether we are somebody else than the host's root: an ordinary user, or root of a user namespace.

    Source: man 7 user_namespaces (uid_map)."""
    return posix.geteuid() != 0 or read("/proc/self/uid_map").split() != [b"0", b"0", b"4294967295"]


def staging(containers: str) -> str:
    """Where the directories below *containers* are made before they appear there by a rename: on the same file system,
    and not among them for those who list them."""
    return f"{run()}/staging" if containers == f"{run()}/containers" else f"{containers}/.staging"


NETNS_DIR = "/run/netns"


def make(path: str, mode: int = 0o700) -> None:
    """Make the directory *path* and its missing parents, all with *mode*; one that exists is left as it is."""
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        return
    except FileNotFoundError:
        make(path.rpartition("/")[0], mode)
        try:
            posix.mkdir(path, mode)
        except FileExistsError:  # by somebody else, meanwhile
            return


def exists(path: str) -> bool:
    """Whether there is something at *path*, links followed."""
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def read(path: str) -> bytes:
    """The whole of a file that is ours or the kernel's; for those of others there is distrusted.py. Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        data = posix.read(fd, 65536)
        pieces = [data]
        while data and (data := posix.read(fd, 65536)):
            pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    finally:
        posix.close(fd)


def command_line(pid: object) -> list[bytes]:
    """The first words of a process's arguments, to know ours by: a container's may be gigabytes. Raises OSError.
    Source: man 5 proc_pid_cmdline."""
    fd = posix.open(f"/proc/{pid}/cmdline", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, 65536).split(b"\0")
    finally:
        posix.close(fd)


def lines(path: str) -> Iterator[str]:
    """The lines of a file of /proc, a read at a time: the kernel writes each when it is asked for. Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        rest = b""
        while data := posix.read(fd, 65536):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "surrogateescape")
        if rest:
            yield rest.decode("utf-8", "surrogateescape")
    finally:
        posix.close(fd)


def write(path: str, data: bytes, mode: int = 0o600, *, exclusive: bool = False) -> None:
    """Write a new file or replace the content in place. Raises OSError (FileExistsError when *exclusive*).

    A new file for which there is no room is taken away again.
    """
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC | (posix.O_EXCL if exclusive else posix.O_TRUNC)
    fd = posix.open(path, flags, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[posix.write(fd, view) :]
    except OSError as error:
        error.filename = path
        if exclusive:
            posix.unlink(path)
        raise
    finally:
        posix.close(fd)


def replace(path: str, data: bytes, mode: int = 0o600, *, lasting: bool = False) -> None:
    """Replace *path* atomically (write beside it, rename); *lasting* makes it survive a power cut."""
    beside = f"{path}.{posix.getpid()}.tmp"
    fd = posix.open(beside, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[posix.write(fd, view) :]
        if lasting:
            posix.fsync(fd)
        posix.rename(beside, path)
    except OSError as error:  # the file system is full
        error.filename = path
        posix.unlink(beside)
        raise
    finally:
        posix.close(fd)
    if lasting:
        sync(path.rpartition("/")[0] or "/")  # the new name is the directory's


def sync(path: str) -> None:
    """Have a file, or the names in a directory, survive a power cut."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        posix.fsync(fd)
    finally:
        posix.close(fd)
