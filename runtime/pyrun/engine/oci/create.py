"""`pyrun-oci create`: everything but the command itself, which waits for `start`.

Nobody of ours stays: init is a child of the caller's subreaper once this process has ended, as containerd, podman and
Docker expect, and costs a tenth of a megabyte. Source: runtime-spec runtime.md#create, runc-create(8).
"""

from __future__ import annotations

from pyrun import handshake, launch, verdict
from pyrun.errors import EndedSilently, PyrunError
from pyrun.spec.values import linux_section
from pyrun.stages import hooks as stages

from . import delivery, hooks, prepare, quick

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options


def create(options: Options, identifier: str) -> int:
    """Returns 0 with init waiting at START; raises with nothing left behind."""
    binary_fd = launch.seal()
    prepared = prepare.prepare(options, identifier, waits=True)
    delivery.check(options, terminal=prepare.has_terminal(prepared.config), detached=True)
    hand_over(options, prepared)
    prepared.watched = False
    start(prepared, binary_fd)
    return 0


def start(prepared: launch.Launch, binary_fd: int) -> handshake.Outcome:
    """launch.start; after one that failed, what comes after a container's end. Source: runtime.md#lifecycle, 3 to 5."""
    try:
        return launch.start(prepared, binary_fd)
    except PyrunError as error:
        if stages.of(prepared.config, "poststop"):
            state = hooks.state(prepared, "stopped", 0)
            hooks.run(prepared.config, "poststop", state, required=False)
        if isinstance(error, EndedSilently):
            raise verdict.silent(prepared.config) from None
        raise


def hand_over(options: Options, prepared: launch.Launch) -> None:
    """The hooks of the host's, and what is the caller's, at their places in the start."""
    host_hooks(prepared)
    prepared.outcome.listener = lambda sync, number: _listener(prepared, sync, number)
    prepared.deliver = lambda done: _deliver(options, done)


def host_hooks(prepared: launch.Launch) -> None:
    """prestart, createRuntime and the interfaces that move, if the config has any."""
    if hooks.before_pivot(prepared.config) or linux_section(prepared.config).get("netDevices"):
        prepared.hooks = hooks.run_before_pivot


def _deliver(options: Options, done: launch.Launch) -> None:
    quick.note(done)
    delivery.deliver(options, done.pid, done.pidfd, done.outcome.tty_fd)


def _listener(prepared: launch.Launch, sync: int, number: int) -> None:
    """SCMP_ACT_NOTIFY, in `run`; with `create` it is `start` that hears of it."""
    from . import seccomp_agent

    shown = hooks.state(prepared, "creating", prepared.pid)
    seccomp_agent.forward(sync, number, (prepared.pid, prepared.pidfd), prepared.config, shown)
