"""`pyrun-oci kill`: one signal, to the first process or with --all to every process of the container.

By pidfd, so that a later process of the same number is never meant. Source: runtime-spec runtime.md#kill, runc-kill(8).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has no stub for the C half
import posix
import select
import time

from pyrun import signals
from pyrun.errors import Conflict, PyrunError, UsageError
from pyrun.store import bundles, state

Options = dict[str, object]
SIGKILL_LIMIT_S = 10.0
# Without a freezer: against somebody who forks faster than this, nothing but a pids limit helps.
ROUNDS = 1000


def kill(options: Options, identifier: str, signal_text: str) -> int:
    """Returns 0 once the signal is sent. Raises Conflict for one that has stopped, in the words callers look for; with
    --all nobody left to signal is no error, as in runc."""
    container = bundles.load(bundles.root_of(options), identifier)
    number = _number(signal_text or "SIGTERM")
    pidfd = state.open_process(container)
    everybody = bool(options.get("all"))
    if pidfd < 0:
        if everybody:
            send_to_all(container, number)
            return 0
        raise Conflict("container not running")
    made = container.get("made", container.get("namespaces"))
    shared = not (isinstance(made, list) and "pid" in made)
    sent = 0
    if everybody or (shared and number == signals.KILL):
        # without a pid namespace of its own the others would outlive the first
        sent = send_to_all(container, number)
    try:
        _signal.pidfd_send_signal(pidfd, number)
        if number == signals.KILL and bundles.status(container) == "paused":  # frozen by v1, it could not die
            from pyrun.cgroups import freezer

            freezer.thaw(container.get("cgroups"))
    except ProcessLookupError:
        if not sent and not everybody:  # else it has just died of what all of them got
            raise Conflict("container not running") from None
    finally:
        posix.close(pidfd)
    return 0


def _number(text: str) -> int:
    """A signal, or 0 to ask whether the process is there. Raises UsageError in runc's words."""
    try:
        return 0 if text == "0" else signals.number(text)
    except UsageError:
        raise UsageError(f'unknown signal "{text}"') from None


def send_to_all(container: dict[str, object], number: int) -> int:
    """Signal every process in the container's cgroup but the first, which gets it by pidfd; how many there were.

    None that is being born meanwhile may be missed: they are frozen first, as with runc.
    """
    from pyrun.cgroups import freezer, processes

    groups = container.get("cgroups")
    found = processes.pids(groups)
    if not found or (number == signals.KILL and processes.end(groups)):
        return len(found)
    frozen = freezer.is_frozen(groups)
    try:
        if not frozen:
            freezer.freeze(groups)  # type: ignore[arg-type]
    except PyrunError:  # no freezer for this container, or too many are being born
        return _send_until_quiet(container, number)
    try:
        found = processes.pids(groups)
        _send(found, container, number)
    finally:
        if not frozen or number == signals.KILL:  # by v1, who is frozen cannot die
            freezer.thaw(groups)
    return len(found)


def _send_until_quiet(container: dict[str, object], number: int) -> int:
    """Again and again, to those that were not there before, until there are none."""
    from pyrun.cgroups import processes

    reached: set[int] = set()
    for _ in range(ROUNDS):
        new = [pid for pid in processes.pids(container.get("cgroups")) if pid not in reached]
        if not new:
            break
        _send(new, container, number)
        reached.update(new)
    return len(reached)


def _send(pids: list[int], container: dict[str, object], number: int) -> None:
    for pid in pids:
        try:
            if pid != container.get("pid"):
                posix.kill(pid, number)
        except ProcessLookupError:
            continue


def end(container: dict[str, object]) -> None:
    """SIGKILL, and wait until the first process is gone; a frozen one is thawed. Raises PyrunError after 10 s."""
    pidfd = state.open_process(container)
    if pidfd < 0:
        return
    try:
        _signal.pidfd_send_signal(pidfd, signals.KILL)
        if bundles.status(container) == "paused":
            from pyrun.cgroups import freezer

            freezer.thaw(container.get("cgroups"))
        _wait(container, pidfd)
    except ProcessLookupError:
        return
    finally:
        posix.close(pidfd)


def _wait(container: dict[str, object], pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + SIGKILL_LIMIT_S
    while time.monotonic() < deadline:
        if poll.poll(100) or not state.process_alive(container):
            return
    raise PyrunError(f"container {container['id']} does not end", "its process waits inside the kernel")
