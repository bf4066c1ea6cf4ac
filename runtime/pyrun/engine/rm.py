"""`pyrun rm`: what is left of a container, and its name."""

from __future__ import annotations

from pyrun import signals, undo
from pyrun.engine import kill, reconcile
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
            raise
        reconcile.wait_until_undone(identifier)  # it was started with --rm
        return identifier
    word = state.status(container)
    if word != "exited":
        if not force:
            raise Conflict(f"container {reference} is {word}", "stop it first, or use `pyrun rm -f`")
        _end(identifier)
    reconcile.wait_until_undone(identifier)
    complaints = undo.replay_lines(undo.removal(identifier, str(container.get("name") or ""), paths.root()))
    if complaints:
        raise PyrunError(f"cannot remove container {reference}: {complaints[0]}")
    return identifier


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
