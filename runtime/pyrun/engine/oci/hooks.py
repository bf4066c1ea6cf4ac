"""The hooks that are called from outside the container: prestart, createRuntime, poststart, poststop.

Each gets the state as JSON on standard input, the bundle as its working directory and the environment that
stages/hooks.py gives it. One that fails before the command runs fails the container (1.3: poststart too); a failing
poststop is told and the rest goes on. The beginning of what a hook prints is kept for the error, never for the caller's
streams. Before the pivot a hook is given up when init ends: `delete -f` of a container whose hook hangs. Those that
init runs: stages/hooks.py, csrc/init_hooks.c.
Source: runtime-spec config.md#posix-platform-hooks, runtime.md#lifecycle.
"""

from __future__ import annotations

import posix
import time

from pyrun import launch, linux, notice
from pyrun.errors import PyrunError
from pyrun.jsonlite import dumps
from pyrun.spec.values import linux_section
from pyrun.stages import hooks

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Config, Hook, State
    from pyrun.store.record import BundleRecord

_SAID_BYTES = 400
_LONGEST_S = 1e6  # what poll() takes is limited
_SIGPIPE = 13


def state(prepared: launch.Launch, status: str, pid: int) -> State:
    """What a hook is told of a container that is being started. pid: 0 for none."""
    job = prepared.job
    return hooks.state(prepared.config, job.id, job.bundle or job.keep, status, pid)


def state_of(config: Config, container: BundleRecord, status: str, pid: int) -> State:
    """The same of one that is there. container: its state.json."""
    return hooks.state(config, str(container["id"]), str(container["bundle"]), status, pid)


def before_pivot(config: Config) -> list[Hook]:
    """prestart, then createRuntime."""
    return [*hooks.of(config, "prestart"), *hooks.of(config, "createRuntime")]


def run_before_pivot(prepared: launch.Launch) -> None:
    """At its place in the start, with the interfaces the container takes over. Raises PyrunError."""
    devices = linux_section(prepared.config).get("netDevices")
    if devices:
        from pyrun.network import net_devices

        net_devices.take(devices, prepared.pid)
    shown = state(prepared, "creating", prepared.pid)
    for kind in ("prestart", "createRuntime"):
        run(prepared.config, kind, shown, init_fd=prepared.pidfd)


def run(
    config: Config,
    kind: str,
    state: State,
    *,
    required: bool = True,
    init_fd: int = -1,
) -> None:
    """Every hook of *kind* in order. Raises PyrunError at the first that fails if *required*, else tells of it.

    init_fd: a pidfd; when that process ends, the hook is ended too.
    """
    wanted = hooks.of(config, kind)
    before_fd = _enter(state["bundle"]) if wanted else -1
    try:
        _run(wanted, kind, state, required=required, init_fd=init_fd)
    finally:
        if before_fd >= 0:
            posix.fchdir(before_fd)
            posix.close(before_fd)


def _enter(directory: str) -> int:
    """The bundle, if it is still there, becomes the working directory. A descriptor of the one before, to return; -1:
    nobody has to."""
    before_fd = -1
    try:
        before_fd = posix.open(".", linux.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError:  # closed to this user, as after `sudo -u`: from there nothing could be found anyway
        pass
    try:
        posix.chdir(directory)
    except OSError:  # removed before `delete`, or closed to the user whose namespaces these are
        if before_fd >= 0:
            posix.close(before_fd)
        return -1
    return before_fd


def _run(wanted: list[Hook], kind: str, state: State, *, required: bool, init_fd: int) -> None:
    linux.close_range(3, (1 << 32) - 1, linux.CLOSE_RANGE_CLOEXEC)  # what our caller left open is not theirs
    text = dumps(state).encode("utf-8", "surrogateescape")
    for index, hook in enumerate(wanted):
        try:
            said = _call(hook, text, init_fd)
        except OSError as error:
            said = str(error.strerror)
        if said is None:
            continue
        message = f"hooks: error running {kind} hook #{index}: {hook['path']}: {said}"
        if required:
            raise PyrunError(message)
        notice.say(message)


def _call(hook: Hook, text: bytes, init_fd: int) -> str | None:
    """None when it ended with 0, else what became of it."""
    input_fd = posix.memfd_create("hook-state")
    # the hook's end stays open here: no end of file, no special case
    output_fd, its_fd = posix.pipe2(posix.O_CLOEXEC)
    posix.set_blocking(output_fd, False)
    pid = -1
    try:
        posix.write(input_fd, text)
        posix.lseek(input_fd, 0, 0)
        pid = _spawn(hook, input_fd, its_fd)
        status, said = _wait(pid, hook.get("timeout"), output_fd, init_fd)
        pid = -1
    finally:
        for fd in (input_fd, output_fd, its_fd):
            posix.close(fd)
        if pid > 0:  # we are interrupted
            _end(pid)
    if status == "exit status 0":
        return None
    words = said.decode("utf-8", "replace").strip().replace("\n", " ")
    return f"{status}: {words}" if words else status


def _spawn(hook: Hook, input_fd: int, output_fd: int) -> int:
    """The process, leader of a group: what it starts ends with it when it is given up."""
    path = hook["path"]
    arguments = hook.get("args") or [path]
    assert isinstance(arguments, list)
    return posix.posix_spawn(
        path,
        arguments,
        {
            item.partition("=")[0]: item.partition("=")[2]
            for item in hooks.environment(hook)
            if item.find("=") > 0
        },
        file_actions=[
            (posix.POSIX_SPAWN_DUP2, input_fd, 0),
            (posix.POSIX_SPAWN_DUP2, output_fd, 1),
            (posix.POSIX_SPAWN_DUP2, output_fd, 2),
        ],
        setpgroup=0,
        setsigdef=[_SIGPIPE],  # which the interpreter ignores
    )


def _wait(pid: int, timeout: object, output_fd: int, init_fd: int) -> tuple[str, bytes]:
    """(what became of it, the beginning of its output). Whoever keeps the output open after it is not waited for."""
    import select

    pidfd = posix.pidfd_open(pid)
    poll = select.poll()
    for fd in (pidfd, output_fd, *((init_fd,) if init_fd >= 0 else ())):
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + timeout if isinstance(timeout, int) and timeout > 0 else None
    said = b""
    try:
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = [fd for fd, _ in poll.poll(None if left_s is None else min(left_s, _LONGEST_S) * 1000)]
            if output_fd in ready:
                said = _listen(output_fd, said)
            if pidfd in ready:
                code = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
                said = _listen(output_fd, said)
                return (f"exit status {code}" if code >= 0 else f"signal {-code}"), said
            if init_fd in ready or left_s == 0.0:
                _end(pid)
                return ("the container was ended" if init_fd in ready else f"no end after {timeout} s"), said
    finally:
        posix.close(pidfd)


def _listen(output_fd: int, said: bytes) -> bytes:
    """The beginning is kept, the rest is read so that the hook need not wait."""
    try:
        return (said + posix.read(output_fd, 65536))[:_SAID_BYTES]
    except BlockingIOError:
        return said


def _end(pid: int) -> None:
    """SIGKILL to the hook and what it has started in its process group."""
    posix.kill(-pid, linux.SIGKILL)
    posix.waitpid(pid, 0)
