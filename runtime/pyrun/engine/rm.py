"""`pyrun rm`: what is left of a container, and its name."""

from __future__ import annotations

import fcntl
import posix
import time

from pyrun import signals, undo
from pyrun.engine import ending, kill
from pyrun.errors import Conflict, NotFound, PyrunError
from pyrun.store import paths, state


def remove(reference: str, *, force: bool = False, killed: str = "") -> str:
    """Remove a container that has ended; with *force* one that runs is killed first. Returns the id.

    killed: its id, if `kill_unless_ended` was there before.
    Raises: NotFound, Conflict (it runs), PyrunError (something cannot be deleted).
    """
    identifier = killed or state.resolve(reference)
    try:
        container = state.load(identifier)
    except NotFound:
        if not killed:
            raise _missing(reference) from None
        ending.wait_until_undone(identifier)  # it was started with --rm
        return identifier
    kept = paths.exists(f"{paths.root()}/containers/{identifier}")
    _ended(reference, identifier, state.status(container), force=force)
    name = str(container.get("name") or _name(identifier))
    if not _take_away(reference, identifier, name) and kept and not force:
        raise _missing(reference)
    return identifier


def _ended(reference: str, identifier: str, word: str, *, force: bool) -> None:
    """Return when the container has ended, by force if it may be. Raises: Conflict (it may not)."""
    while True:
        if word != "exited":
            if not force:
                raise Conflict(f"container {reference} is {word}", "stop it first, or use `pyrun rm -f`")
            _end(identifier)
        if ending.wait_until_undone(identifier):
            return
        word = "running"  # it was only being started


def _name(identifier: str) -> str:
    """Of one that had no record yet when it was to be removed."""
    try:
        return str(state.load(identifier).get("name") or "")
    except NotFound:
        return ""


def _take_away(reference: str, identifier: str, name: str) -> bool:
    """Remove directory and name; False when there is no directory (any more).

    Of several that remove it one does, the others wait for its lock on the directory: whoever looked on would find
    the tree changing under its hands.
    """
    try:
        fd = posix.open(
            f"{paths.root()}/containers/{identifier}", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
        )
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not posix.fstat(fd).st_nlink:
            return False
        complaints = undo.replay_lines(undo.removal(identifier, name, paths.root()))
    finally:
        posix.close(fd)
    if complaints:
        raise PyrunError(f"cannot remove container {reference}: {complaints[0]}")
    return True


def remove_rebooted(name: str) -> None:
    """Remove the --rm container of that name if a reboot has ended it; any other is left alone.

    It has no run directory then. A container of another run directory's has none here either, so its age counts too.
    """
    identifier = state.named_id(name)
    if not identifier or paths.exists(state.run_dir(identifier)):
        return
    booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        container = state.load(identifier)
        created = container.get("created")
        if container.get("rm") and isinstance(created, int | float) and created < booted_at:
            remove(identifier)
    except NotFound:  # another start was quicker
        return


def _missing(reference: str) -> NotFound:
    return NotFound(f"no such container: {reference}", "see `pyrun ps -a`")


def kill_unless_ended(reference: str) -> str:
    """SIGKILL without waiting for what comes of it. Returns the id. Raises: NotFound."""
    identifier = state.resolve(reference)
    kill.send(state.load(identifier), signals.KILL)
    return identifier


def _end(identifier: str) -> None:
    """SIGKILL; one that ends or vanishes by itself meanwhile is as good."""
    try:
        kill.kill(identifier, "KILL")
    except (Conflict, NotFound):
        return
