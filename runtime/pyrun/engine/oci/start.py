"""`pyrun-oci start`: tells the waiting init to go on, and hears whether the command executes.

Source: runtime-spec runtime.md#start, runc-start(8). init listens on start.sock in the state directory; the messages
are those of handshake.py.
"""

from __future__ import annotations

import _socket
import posix

from pyrun import handshake, verdict
from pyrun.errors import Conflict, EndedSilently, PyrunError
from pyrun.jsonlite import loads
from pyrun.plan.operations import Operation
from pyrun.stages import hooks as stages
from pyrun.store import bundles, paths, state

from . import hooks

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options
    from pyrun.store.record import BundleRecord


def start(options: Options, identifier: str) -> int:
    """Returns 0 once the command is executing. Raises what init failed with."""
    container = bundles.load(bundles.root_of(options), identifier)
    directory = str(container["directory"])
    failed = posix.environ.pop(b"PYRUN_START_FAILED", None)
    if failed is not None:  # csrc/quick.c has started it, and this is what init answered
        _judge(container, handshake.told(failed))
    status = bundles.status(container)
    if status != "created":
        words = {"stopped": "a container that has stopped", "running": "an already running container"}
        raise Conflict(f"cannot start {words.get(status, f'a container in the {status} state')}")
    pid = container["pid"]
    notify = _notify_socket(directory)
    _judge(container, _go(container, directory, pid))
    try:
        posix.rename(f"{directory}/created", f"{directory}/started")
    except FileNotFoundError:
        raise Conflict("the container was deleted while it started") from None
    _poststart(container)
    if notify:
        from . import notify_socket

        pidfd = state.open_process(container)
        notify_socket.forward(notify, notify_socket.host_socket(posix.environ), pid, pidfd)
    return 0


def _judge(container: BundleRecord, outcome: handshake.Outcome) -> None:
    """Raise what init failed with. One that goes on without a word to us has heard another `start`'s. A startContainer
    hook that fails is the container's end. Source: runtime-spec runtime.md#lifecycle, 7, 12 and 13."""
    if not outcome.failed and not outcome.ready and state.process_alive(container):
        raise Conflict("cannot start an already running container")
    operations = _plan(str(container["directory"]))
    try:
        verdict.judge(operations, outcome, oci=True)
    except EndedSilently:
        raise verdict.silent(bundles.config(container)) from None
    except PyrunError:
        if outcome.failed and [each.kind for each in operations[outcome.failed[0] :][:1]] == ["HOOK"]:
            from . import delete

            delete.remove(container)
        raise


def _notify_socket(directory: str) -> _socket.socket | None:
    """systemd waits for the container to be ready: the socket it tells that on, before it runs."""
    if b"NOTIFY_SOCKET" not in posix.environ:
        return None
    from . import notify_socket

    return notify_socket.listen(directory) if notify_socket.host_socket(posix.environ) else None


def _go(container: BundleRecord, directory: str, pid: int) -> handshake.Outcome:
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    directory_fd = posix.open(directory, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        socket.connect(f"/proc/self/fd/{directory_fd}/start.sock")
    except ConnectionRefusedError:
        raise Conflict("cannot start a container that is being started") from None
    except OSError as error:
        raise Conflict(f"cannot start the container: its init does not listen: {error.strerror}") from None
    outcome = handshake.Outcome()
    outcome.listener = lambda sync, number: _listener(container, sync, number)
    handshake.go(socket.fileno(), pid)
    return handshake.wait(socket.fileno(), outcome)


def _listener(container: BundleRecord, sync: int, number: int) -> None:
    """SCMP_ACT_NOTIFY: the filter was loaded just now. Without its agent the container must not live."""
    from . import kill, seccomp_agent

    config, pid = bundles.config(container), container["pid"]
    shown = hooks.state_of(config, container, "created", pid)
    try:
        seccomp_agent.forward(sync, number, (pid, state.open_process(container)), config, shown)
    except PyrunError:
        kill.end(container)
        raise


def _plan(directory: str) -> list[Operation]:
    """The operations as `create` noted them, for the wording of a failure."""
    try:
        found = loads(paths.read(f"{directory}/plan.json"))
    except (OSError, ValueError):
        return []
    return [Operation(*each) for each in found] if isinstance(found, list) else []


def _poststart(container: BundleRecord) -> None:
    """A poststart hook that fails ends the container: it is removed, and the poststop hooks are called, since 1.3.
    Source: runtime-spec runtime.md#lifecycle, 9, 12 and 13."""
    config = bundles.config(container)
    if not stages.of(config, "poststart"):
        return
    pid = container["pid"]
    try:
        hooks.run(config, "poststart", hooks.state_of(config, container, "running", pid))
    except PyrunError:
        from . import delete

        delete.remove(container)
        raise
