"""Executing undo lists when their monitor cannot: `pyrun-undo`, the same C code, run over the same file.

There is one implementation of undoing (csrc/undo.c), so a crash, a failed start and `rm` cannot differ.
"""

from __future__ import annotations

import posix

from pyrun import boot
from pyrun.errors import PyrunError
from pyrun.store import paths

_LOCKED = 75  # pyrun-undo could not take the list's lock


def replay(lock_fd: int) -> list[str]:
    """Execute the undo list behind *lock_fd*, which may hold its lock; returns what failed, a line each.

    A list that somebody else is executing is left to them. Raises: PyrunError when the program itself cannot
    be started.
    """
    binary = boot.binary()
    output_fd = posix.memfd_create("pyrun-undo")
    try:
        posix.set_inheritable(lock_fd, True)
        try:
            pid = posix.posix_spawn(
                binary,
                ["pyrun-undo", f"fd={lock_fd}"],
                {},
                file_actions=[(posix.POSIX_SPAWN_DUP2, output_fd, 1), (posix.POSIX_SPAWN_DUP2, output_fd, 2)],
            )
        except OSError as error:
            raise PyrunError(f"cannot run {binary}: {error.strerror}", "install pyrun again") from None
        status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
        complaints = posix.pread(output_fd, 65536, 0).decode("utf-8", "replace").splitlines()
    finally:
        posix.close(output_fd)
    if status == _LOCKED:
        return []
    if status and not complaints:
        complaints = [f"pyrun-undo ended with status {status}"]
    return [complaint.removeprefix("pyrun: ") for complaint in complaints]


def drop(lock_fd: int, lines: list[str]) -> None:
    """Make comments of *lines* in the list behind *lock_fd*, whose lock is ours.

    In place, so that whoever dies in between leaves a list: an empty one would count as executed.
    """
    at = 0
    for line in posix.pread(lock_fd, posix.fstat(lock_fd).st_size, 0).split(b"\n"):
        if line.decode("utf-8", "surrogateescape") in lines:
            posix.pwrite(lock_fd, b"#", at)
        at += len(line) + 1


def in_memory(lines: list[str]) -> int:
    """A descriptor of *lines* (without newlines) as a list that is in no directory."""
    fd = posix.memfd_create("pyrun-undo")
    posix.write(fd, "".join([f"{line}\n" for line in lines]).encode("utf-8", "surrogateescape"))
    return fd


def replay_lines(lines: list[str]) -> list[str]:
    """Execute *lines* (without newlines) as an undo list of their own; returns what failed.

    Raises: PyrunError as `replay`.
    """
    paths.make(f"{paths.run()}/staging")
    path = f"{paths.run()}/staging/list.{posix.getpid()}"  # named as system.py expects it, should we die here
    fd = posix.open(path, posix.O_RDWR | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
    try:
        posix.write(fd, "".join([f"{line}\n" for line in lines]).encode("utf-8", "surrogateescape"))
        return replay(fd)
    finally:
        posix.close(fd)
        posix.unlink(path)


def removal(identifier: str, name: str, root: str) -> list[str]:
    """The undo lines that remove what is kept of a container: its directory, then its name."""
    lines = [f"rmtree\t{root}/containers/{identifier}"]
    if name:
        lines.append(f"unlink-if\t{root}/names/{name}\t{identifier}")
    return lines
