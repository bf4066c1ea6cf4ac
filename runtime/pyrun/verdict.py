"""What init's report means for the user: which stage failed, at what, and with which exit status.

init knows an operation's number, an errno and a name; the plan knows the rest. The wording of an operation is that of
plan/catalogue/, loaded only when something has failed.
"""

from __future__ import annotations

import posix
from errno import EACCES, ECANCELED, EINVAL, ENOENT, ENOEXEC, ENOTDIR, EPERM, ETIMEDOUT, EXDEV

from . import handshake
from .errors import CommandError, EndedSilently, PyrunError, StageFailed
from .plan.operations import Operation
from .store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrun.cgroups.layout import Group
    from pyrun.spec.oci import Config

_SYSCTL_HINTS = {EINVAL: "the kernel does not take that value", ENOENT: "this kernel has no such parameter"}
_PRIORITY_HINTS = {
    "SCHEDULER": "it needs CAP_SYS_NICE; SCHED_DEADLINE also a process that may run on every processor",
    "IO_PRIORITY": "IOPRIO_CLASS_RT needs CAP_SYS_NICE or CAP_SYS_ADMIN",
}
SILENT = "init ended without a word: it was killed, perhaps for want of memory"


def judge(
    operations: list[Operation],
    outcome: handshake.Outcome,
    *,
    oci: bool,
    run_dir: str = "",
    groups: Sequence[Group] = (),
) -> None:
    """Raise what init's report means for the user. oci: a missing command is told in runc's words, which
    callers look for."""
    if outcome.failed is None:
        if outcome.ready or outcome.created:
            return
        if run_dir and paths.exists(f"{run_dir}/killed"):
            raise PyrunError("it was killed meanwhile, by `pyrun rm -f` or `pyrun kill`")
        raise EndedSilently(SILENT, "see dmesg, or a larger --memory")
    index, number, detail = outcome.failed
    operation = operations[index] if index < len(operations) else Operation("EXECUTE", "?")
    if operation.kind in ("EXECUTE", "LOOK_UP"):
        if oci or operation.kind == "LOOK_UP":
            raise command_error(operation, number, detail)
        raise _command_error(str(operation.args[0]), number)
    if operation.kind == "HOOK":
        raise _hook_failed(operations[: index + 1], number, detail)
    from .plan import catalogue

    words = catalogue.action(operation, detail)
    if operation.kind == "DIRECTORY_CURRENT" and oci:
        words = f'chdir to cwd ("{operation.args[0]}") set in config.json'  # which callers look for
    failed = StageFailed(catalogue.row(operation.kind).stage, words, number)
    if operation.kind == "SYSCTL":
        failed.hint = _SYSCTL_HINTS.get(number, "")
    elif operation.kind in _PRIORITY_HINTS and number == EPERM:
        failed.hint = _without_real_time(operation, groups) or _PRIORITY_HINTS[operation.kind]
    raise failed


def _without_real_time(operation: Operation, groups: Sequence[Group]) -> str:
    """The hint for a policy which the cgroup refuses to whoever asks. Source: man 7 cpuset, sched-rt-group.txt."""
    if operation.kind != "SCHEDULER" or operation.args[0] not in (1, 2):  # SCHED_FIFO, SCHED_RR
        return ""
    for names, directory in groups:
        try:
            if "cpu" in names.split(",") and paths.read(f"{directory}/cpu.rt_runtime_us").strip() == b"0":
                return "the cgroup has no real-time runtime: see linux.resources.cpu.realtimeRuntime"
        except OSError:  # a kernel without CONFIG_RT_GROUP_SCHED
            pass
    return ""


def silent(config: Config) -> EndedSilently:
    """The same, for who has a config.json and no flags: its limit is named."""
    found: object = config
    for key in ("linux", "resources", "memory", "limit"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, int) or found <= 0:
        return EndedSilently(SILENT, "see dmesg")
    return EndedSilently(SILENT, f"see dmesg; config.json: linux.resources.memory.limit is {found}")


def _hook_failed(operations: list[Operation], number: int, detail: str) -> PyrunError:
    """A hook that init ran, the last of *operations*: what it said, or what became of it."""
    path, timeout_s = operations[-1].args[:2]
    kinds = [each.kind for each in operations]
    moved = [index for index, kind in enumerate(kinds) if kind in ("PIVOT", "ROOT_MOVE", "CHROOT")]
    place = "startContainer" if moved else "createContainer"
    number_of_it = kinds[moved[0] if moved else 0 :].count("HOOK") - 1
    if number == ETIMEDOUT:
        detail = f"no end within its timeout of {timeout_s} s"
    elif number == EXDEV:
        detail = "it would be a process of the host's, seen in the pid namespace that the container joins"
    elif number != ECANCELED:
        detail = posix.strerror(number)
    return PyrunError(f"hooks: error running {place} hook #{number_of_it}: {path}: {detail}")


def _command_error(command: str, number: int) -> CommandError:
    """Docker's distinction: 127 there is no such command, 126 it cannot be executed."""
    if number in (ENOENT, ENOTDIR):
        where = "in the container" if "/" in command else "in the container's $PATH"
        return CommandError(f"{command}: no such command {where}", "is it part of the image?", 127)
    told = {
        EACCES: (
            "not executable",
            "name a file that its user may execute (see its mode); no directory, no mount with noexec",
        ),
        ENOEXEC: ("not a program (no #! line, or another architecture)", "a script begins with #!/bin/sh"),
    }
    reason, remedy = told.get(
        number, (posix.strerror(number), "name a program that the container can execute")
    )
    return CommandError(f"{command}: {reason}", remedy, 126)


def command_error(operation: Operation, number: int, detail: str) -> CommandError:
    """What LOOK_UP or EXECUTE failed with, in runc's words: Docker and podman look for them, and make exit statuses 126
    and 127 of them. detail: see op_look_up in csrc/init_command.c; for EXECUTE, the path."""
    from .safe import quoted

    command = str(operation.args[0])
    reason = posix.strerror(number).lower()
    status = 127 if number in (ENOENT, ENOTDIR) else 126
    if operation.kind == "EXECUTE":  # it was found, and then the kernel refused it
        return CommandError(f"exec {detail or command}: {reason}", "", status)
    if detail == "$PATH":
        reason = "executable file not found in $PATH"
    elif detail == ".":
        reason = "cannot run executable found relative to current directory"
    elif detail == "stat":
        reason = f"stat {command}: {reason}"
    return CommandError(f"exec: {quoted(command)}: {reason}", "", status)
