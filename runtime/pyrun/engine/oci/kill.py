"""`pyrun-oci kill`: one signal, to the first process or with --all to every process of the container.

By pidfd, so that a later process of the same number is never meant. Source: runtime-spec runtime.md#kill, runc-kill(8).
"""

from __future__ import annotations

import _signal
import posix
import select
import time

from pyrun import signals
from pyrun.errors import Conflict, PyrunError, UsageError
from pyrun.store import bundles, state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options
    from pyrun.store.record import BundleRecord
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
    made = container.get("made", container.get("namespaces"))
    shared = not (isinstance(made, list) and "pid" in made)
    if pidfd < 0:
        # the first process of a pid namespace that is shared ends alone: the others are reached by their cgroup
        if (everybody or shared) and (send_to_all(container, number) or everybody):
            return 0
        raise Conflict("container not running")
    sent = 0
    if everybody or (shared and number == signals.KILL):
        # without a pid namespace of its own the others would outlive the first
        sent = send_to_all(container, number)
    try:
        _signal.pidfd_send_signal(pidfd, number)
        if number == signals.KILL and bundles.status(container) == "paused":  # frozen by v1, it could not die
            from pyrun.cgroups import freezer

            freezer.thaw(bundles.groups(container))
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


def send_to_all(container: BundleRecord, number: int) -> int:
    """Signal every process in the container's cgroup but the first, which gets it by pidfd; how many there were.

    None that is being born meanwhile may be missed: they are frozen first, as with runc.
    """
    from pyrun.cgroups import freezer, processes

    groups = bundles.groups(container)
    found = processes.all_of(groups)
    if not found or (number == signals.KILL and processes.end(groups)):
        return len(found)
    frozen = freezer.is_frozen(groups)
    try:
        if not frozen:
            freezer.freeze(groups)
    except PyrunError:  # no freezer for this container, or too many are being born
        return _send_until_quiet(container, number)
    try:
        found = processes.all_of(groups)
        _send(found, container, number)
    finally:
        if not frozen or number == signals.KILL:  # by v1, who is frozen cannot die
            freezer.thaw(groups)
    return len(found)


def _send_until_quiet(container: BundleRecord, number: int) -> int:
    """Again and again, to those that were not there before, until there are none."""
    from pyrun.cgroups import processes

    reached: set[int] = set()
    for _ in range(ROUNDS):
        new = [pid for pid in processes.all_of(bundles.groups(container)) if pid not in reached]
        if not new:
            break
        _send(new, container, number)
        reached.update(new)
    return len(reached)


def _send(pids: list[int], container: BundleRecord, number: int) -> None:
    for pid in pids:
        try:
            if pid != container.get("pid"):
                posix.kill(pid, number)
        except ProcessLookupError:
            continue


def end(container: BundleRecord) -> None:
    """SIGKILL, and wait until the first process is gone; a frozen one is thawed. Raises PyrunError after 10 s."""
    pidfd = state.open_process(container)
    if pidfd < 0:
        return
    try:
        _signal.pidfd_send_signal(pidfd, signals.KILL)
        if bundles.status(container) == "paused":
            from pyrun.cgroups import freezer

            freezer.thaw(bundles.groups(container))
        _wait(container, pidfd)
    except ProcessLookupError:
        return
    finally:
        posix.close(pidfd)


def _wait(container: BundleRecord, pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    deadline, reached = time.monotonic() + SIGKILL_LIMIT_S, False
    while time.monotonic() < deadline:
        if poll.poll(100) or not state.process_alive(container):
            return
        if not reached:
            _reach_frozen(container)
            reached = True
    raise PyrunError(f"container {container['id']} does not end", "its process waits inside the kernel")


def _reach_frozen(container: BundleRecord) -> None:
    """What it has frozen itself, in v1 cgroups below its own, does not die, and so its first process does not: the undo
    list's kill-cgroup thaws whatever it finds."""
    from pyrun import undo
    from pyrun.stages import cgroup

    found = bundles.groups(container)
    groups = [(str(names), str(where)) for names, where in found] if isinstance(found, list) else []
    lines = cgroup.undo(cgroup.Cgroup([], groups))
    fd = undo.in_memory([line for line in lines if line.startswith("kill-cgroup")])
    try:
        undo.replay(fd)  # what it complains of is seen by who is left
    finally:
        posix.close(fd)
