"""`pyrun-oci delete`: the undo list of `create`, then the poststop hooks.

Works on whatever state there is: a container whose `create` was killed half-way, whose process is frozen, whose cgroup
somebody else removed. Source: runtime-spec runtime.md#delete, runc-delete(8).
"""

from __future__ import annotations

import fcntl
import posix
import time

from pyrun import notice, undo
from pyrun.errors import Conflict, NotFound, PyrunError, UsageError
from pyrun.stages import cgroup
from pyrun.stages import hooks as stages
from pyrun.store import bundles

from . import kill

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Config
    from pyrun.spec.values import Options
    from pyrun.store.record import BundleRecord

LOCK_LIMIT_S = 5.0


def delete(options: Options, identifier: str) -> int:
    """Returns 0 with nothing of the container left. --force: end it first, and no complaint if there is none. --regex:
    every container whose id *identifier* matches somewhere, as with crun."""
    if options.get("regex"):
        return _delete_matching(options, identifier)
    force = bool(options.get("force"))
    root = bundles.root_of(options)
    bundles.sweep(root)
    try:
        container = bundles.load(root, identifier)
    except NotFound:
        if force:
            return 0
        raise
    status = bundles.status(container)
    if status not in ("stopped", "created") and not force:
        raise Conflict(f"cannot delete container {identifier} that is not stopped: {status}")
    remove(container)
    return 0


def remove(container: BundleRecord) -> None:
    """End it, undo what `create` did, call the poststop hooks."""
    config = _config(container)
    kill.end(container)
    if _undo(container) and config:
        from . import hooks

        hooks.run(config, "poststop", hooks.state_of(config, container, "stopped", 0), required=False)


def _delete_matching(options: Options, pattern: str) -> int:
    import re

    try:
        matches = re.compile(pattern).search
    except re.error as error:
        raise UsageError(
            f"--regex {pattern!r:.100}: {error}", "a regular expression, such as '^test-'"
        ) from None
    refused = []
    for each in bundles.ids(bundles.root_of(options)):
        if not matches(each):
            continue
        try:
            delete({**options, "regex": False}, each)
        except NotFound:  # by somebody else, meanwhile
            continue
        except Conflict as error:
            refused.append(error)
    if refused:
        raise refused[0]
    return 0


def _config(container: BundleRecord) -> Config:
    """The config if there are poststop hooks in it: afterwards it is gone."""
    try:
        config = bundles.config(container)
    except PyrunError:
        return {}
    return config if stages.of(config, "poststop") else {}


def _undo(container: BundleRecord) -> bool:
    """False: somebody else did it meanwhile, and what has this id now may be another container."""
    if container.get("driver") == "systemd" and container.get("unit"):
        from pyrun.cgroups import systemd

        try:
            systemd.stop(container)
        except PyrunError as error:  # the list does what can be done without it
            notice.say(error.message)
    try:
        directory_fd = posix.open(
            str(container["directory"]), posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
        )
    except FileNotFoundError:
        return False
    try:
        lock_fd = _list(container, directory_fd)
        if lock_fd < 0:
            return False
        complaints = undo.replay(lock_fd)
        posix.close(lock_fd)
        for complaint in complaints:
            notice.say(complaint)
        if posix.fstat(directory_fd).st_nlink:
            complaints = _without_list(container)
        if posix.fstat(directory_fd).st_nlink:
            reason = "; ".join(complaints) or container["directory"]
            raise PyrunError(f"container {container['id']} cannot be removed: {reason}")
    finally:
        posix.close(directory_fd)
    return True


def _list(container: BundleRecord, directory_fd: int) -> int:
    """The undo list, locked, of a container whose process has ended; -1 if it has been executed meanwhile."""
    try:
        lock_fd = posix.open("undo", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=directory_fd)
    except FileNotFoundError:
        return _written_again(container) if posix.fstat(directory_fd).st_nlink else -1
    _wait_for_lock(lock_fd, str(container["id"]))
    if posix.fstat(lock_fd).st_nlink == 0:
        posix.close(lock_fd)
        return -1
    kill.end(bundles.again(container))  # a `create` that had no process yet when we looked
    return lock_fd


def _wait_for_lock(lock_fd: int, identifier: str) -> None:
    """Until the planner or monitor that holds it has ended: init is dead, which is the end of both."""
    deadline = time.monotonic() + LOCK_LIMIT_S
    while True:
        try:
            return fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                hint = f"end that process; it has the lock of {identifier}/undo (lslocks)"
                raise Conflict(
                    "the container is in use by another pyrun-oci that does not end", hint
                ) from None
            time.sleep(0.005)


def _written_again(container: BundleRecord) -> int:
    """An undo list in memory, for a container that has lost its own or whose own is torn: from its state."""
    groups = [(str(names), str(where)) for names, where in container.get("cgroups") or []]
    lines = [*cgroup.undo(cgroup.Cgroup([], groups)), f"rmtree\t{container['directory']}"]
    return undo.in_memory(lines)


def _without_list(container: BundleRecord) -> list[str]:
    fd = _written_again(container)
    try:
        return undo.replay(fd)
    finally:
        posix.close(fd)
