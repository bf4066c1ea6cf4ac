"""The quick look for containers whose keeper died; every start and stop begins or ends with it.

A healthy container costs some five microseconds: one open and one refused lock. Of very many a part is looked at, and
not by every start, for even their list takes a millisecond; else the thousandth would wait for a thousand others.
`system reconcile` looks at all. Only when somebody is really dead is the cold half (engine/system.py) loaded.
"""

from __future__ import annotations

import fcntl
import posix

from pyrun.errors import PyrunError
from pyrun.store import paths, state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.record import Record

# So many are looked at by every start; of more than that so many by one in some, so that it comes to half of these.
_FEW, _PART = 32, 512


def reconcile_quietly() -> int:
    """Clean up after dead containers without a word, of very many after those of a part; how many there were."""
    dead = claim_dead(_PART) if _is_our_turn() else []
    if not dead:
        return 0
    from pyrun.engine import system

    for identifier, lock_fd in dead:
        try:
            system.undo_container(identifier, lock_fd)
        except (PyrunError, OSError):  # `system reconcile` says it; the caller has work of its own
            continue
    return len(dead)


def _is_our_turn() -> bool:
    """Whether this start looks. Every directory counts in the links of the one it is in."""
    try:
        number = posix.stat(f"{paths.run()}/containers").st_nlink - 2
    except FileNotFoundError:
        return False
    return number <= _FEW or int.from_bytes(posix.urandom(4), "little") % number < _FEW


def claim_dead(most: int = 0) -> list[tuple[str, int]]:
    """Every container that has neither monitor nor process: (id, descriptor with the lock of its undo list).

    most: look at so many, beginning anywhere; 0: at all. The lock keeps others from cleaning up the same one; the
    caller closes the descriptor.
    """
    directory_fd = _containers_fd()
    if directory_fd < 0:
        return []
    dead = []
    try:
        for identifier in _part(posix.listdir(directory_fd), most):
            lock_fd = _claim(identifier, directory_fd)
            if lock_fd >= 0:
                dead.append((identifier, lock_fd))
    finally:
        posix.close(directory_fd)
    return dead


def _part(names: list[str], most: int) -> list[str]:
    if not most or len(names) <= most:
        return names
    start = int.from_bytes(posix.urandom(4), "little") % len(names)
    return (names[start:] + names[:start])[:most]


def claim(identifier: str) -> int:
    """The lock of one container's undo list if monitor and process are dead, else -1."""
    directory_fd = _containers_fd()
    if directory_fd < 0:
        return -1
    try:
        return _claim(identifier, directory_fd)
    finally:
        posix.close(directory_fd)


def _containers_fd() -> int:
    """The directory of the living containers, or -1 before the first one."""
    try:
        return posix.open(f"{paths.run()}/containers", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def _claim(identifier: str, directory_fd: int) -> int:
    """Lock *identifier*/undo; -1 if a monitor has it, if the process lives, or if it has just been undone."""
    try:
        fd = posix.open(f"{identifier}/undo", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=directory_fd)
    except FileNotFoundError:
        _bury(identifier, directory_fd)
        return -1
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Unlinked between the open and the lock: its monitor has finished.
        if posix.fstat(fd).st_nlink:
            container = state.load(identifier)
            if not state.process_alive(container):
                return fd
            _acknowledge(identifier, container)
    except (OSError, PyrunError):
        pass
    posix.close(fd)
    return -1


def _acknowledge(identifier: str, container: Record) -> None:
    """Note what a planner did not live to note: the command is executing, so the container is to be kept."""
    directory = state.run_dir(identifier)
    if not paths.command_line(container["pid"])[0].startswith(b"pyrun-init"):
        posix.rename(f"{directory}/starting", f"{directory}/started")


def _bury(identifier: str, directory_fd: int) -> None:
    """Finish what an undo list does last: its own removal is done, that of the directory it was in may not be.

    By descriptor, so that a container of the same id, which is renamed into an empty place, is not meant.
    """
    try:
        fd = posix.open(identifier, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=directory_fd)
    except OSError:
        return
    try:
        names = posix.listdir(fd)
        if "undo" not in names:
            for name in names:
                posix.unlink(name, dir_fd=fd)
            posix.rmdir(identifier, dir_fd=directory_fd)
    except OSError:  # its monitor was still at it
        return
    finally:
        posix.close(fd)


# ── system finish ──────────────────────────────────────────────────────────────────────────────────


def finish(file: str) -> list[str]:
    """Take back what *file* tells of, which an undo list cannot do itself and has a line of its own for; returns what
    failed, a line each. Done again, it does nothing."""
    run, policies, _ = file.rpartition("/networks/policies/")
    if policies:
        posix.environ[b"PYRUN_RUNROOT"] = run.encode()  # an undo list hands no environment on
        from pyrun.network.egress import interfaces

        return interfaces.finish(file)
    from pyrun.network.drivers import cni

    return cni.finish(file)
