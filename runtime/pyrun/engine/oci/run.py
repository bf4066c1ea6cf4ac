"""`pyrun-oci run`: create and start in one; in the foreground the monitor waits, forwards signals, and deletes.

Source: runc-run(8). With --keep, or when poststop hooks have to be called, deleting is not the monitor's undo list but
`pyrun-oci delete`, by whoever wants it or by the monitor itself.
"""

from __future__ import annotations

import fcntl
import posix

from pyrun import boot, launch, launching, notice
from pyrun.errors import Conflict, PyrunError
from pyrun.stages import hooks as stages
from pyrun.store import bundles

from . import create, delivery, hooks, prepare

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from pyrun.spec.values import Options


def run(options: Options, identifier: str) -> int:
    """With --detach returns 0 with the command running; otherwise the monitor takes this process over."""
    binary_fd = launch.seal()
    prepared = prepare.prepare(options, identifier, waits=False)
    detached = bool(options.get("detach"))
    terminal = prepare.has_terminal(prepared.config)
    delivery.check(options, terminal=terminal, detached=detached)
    create.hand_over(options, prepared)
    listening: list[socket] = []
    prepared.hooks = _listening(prepared, listening)
    prepared.watched = not detached
    outcome = create.start(prepared, binary_fd)
    poststart(prepared)
    if listening:
        try:
            _forward(prepared, listening[0], detached=detached)
        except PyrunError as error:  # the container runs all the same, and wants its monitor
            notice.say(error.message)
    if detached:
        return 0
    inherited = [prepared.pidfd, prepared.lock_fd, *([outcome.tty_fd] if outcome.tty_fd >= 0 else [])]
    launch.become_monitor(binary_fd, _settings(options, prepared, outcome.tty_fd), inherited)
    return 0


def _listening(prepared: launch.Launch, listening: list[socket]) -> Callable[[launch.Launch], None] | None:
    """The hooks, and before them the container's notify socket, when systemd waits for it to be ready: then it is added
    to *listening*."""
    if not prepared.job.notify:
        return prepared.hooks
    from . import notify_socket

    def listen(started: launch.Launch) -> None:
        if found := notify_socket.listen(started.job.run_dir):
            listening.append(found)
        if others:
            others(started)

    others = prepared.hooks
    return listen


def _forward(prepared: launch.Launch, listening: socket, *, detached: bool) -> None:
    from . import notify_socket

    main_pid = prepared.pid if detached else launching.process.pid()  # which becomes the monitor
    notify_socket.forward(listening, notify_socket.host_socket(posix.environ), main_pid, prepared.pidfd)


def poststart(prepared: launch.Launch) -> None:
    """A poststart hook that fails ends the container, since 1.3. Source: runtime-spec runtime.md#lifecycle, 9."""
    if not stages.of(prepared.config, "poststart"):
        return
    fcntl.flock(prepared.lock_fd, fcntl.LOCK_UN)  # `delete -f` works while a hook hangs
    try:
        hooks.run(
            prepared.config,
            "poststart",
            hooks.state(prepared, "running", prepared.pid),
        )
    except PyrunError:
        launch.abandon(prepared)
        stopped = hooks.state(prepared, "stopped", 0)
        hooks.run(prepared.config, "poststop", stopped, required=False)
        raise
    fcntl.flock(prepared.lock_fd, fcntl.LOCK_EX)
    if posix.fstat(prepared.lock_fd).st_nlink == 0:
        raise Conflict("the container was deleted while its poststart hooks ran")


def _settings(options: Options, prepared: launch.Launch, tty_fd: int) -> list[str]:
    """The monitor's words."""
    words = [*launch.identity(prepared), "status=exit", "sigproxy=1"]
    if tty_fd >= 0:
        words += prepare.terminal_words(prepared.job, tty_fd)
    if options.get("keep"):
        return [word for word in words if not word.startswith("undo_fd=")]
    if stages.of(prepared.config, "poststop") or prepared.job.cgroup.driver == "systemd":
        words.append(f"finish={boot.binary()}-oci")
        words.append(f"root={bundles.root_of(options)}")
    return words
