"""What init's report means for the user: which stage failed, at what, and with which exit status.

init knows an operation's number, an errno and a name; the plan knows the rest. The wording of an operation is that of
plan/explain*.py, loaded only when something has failed.
"""

from __future__ import annotations

import posix
from errno import EACCES, ECANCELED, EINVAL, ENOENT, ENOEXEC, ENOTDIR, ETIMEDOUT

from . import handshake
from .errors import CommandError, EndedSilently, PyrunError, StageFailed
from .plan.operations import Operation
from .store import paths

# Which stage an operation of init belongs to, for the wording of its failure; those of rootfs and mounts are not named.
STAGE_OF = {
    "CGROUP_JOIN": "cgroup", "UNSHARE": "namespaces", "HOSTNAME": "namespaces", "DOMAINNAME": "namespaces",
    "SYSCTL": "namespaces", "LOOPBACK_UP": "network", "BOUNDING": "security", "IDENTITY": "security",
    "CAPABILITIES": "security", "NO_NEW_PRIVILEGES": "security", "SECCOMP": "security", "SESSION": "process",
    "TERMINAL": "process", "RLIMIT": "process", "OOM_SCORE": "process", "DIRECTORY_CURRENT": "process",
    "WAIT_GO": "process", "REAPER": "process", "ENTER": "namespaces", "GUARD": "process", "LABEL": "security",
    "STREAMS": "security", "SCHEDULER": "process", "IO_PRIORITY": "process", "AFFINITY": "process",
    "MEMORY_POLICY": "process", "PERSONALITY": "process", "PROCFS": "process", "NO_IPV6": "network",
    "ROOT_IDENTITY": "namespaces", "START": "process", "PRESERVE": "process", "ENVIRONMENT": "process",
}  # fmt: skip

_SYSCTL_HINTS = {EINVAL: "the kernel does not take that value", ENOENT: "this kernel has no such parameter"}
SILENT = "init ended without a word: it was killed, perhaps for want of memory"


def judge(operations: list[Operation], outcome: handshake.Outcome, job: dict[str, object]) -> None:
    """Raise what init's report means for the user. With job["oci"] a missing command is told in runc's words, which
    callers look for."""
    if outcome.failed is None:
        if outcome.ready or outcome.created:
            return
        if paths.exists(f"{job.get('run_dir')}/killed"):
            raise PyrunError("it was killed meanwhile, by `pyrun rm -f` or `pyrun kill`")
        raise EndedSilently(SILENT, "see dmesg, or a larger --memory")
    index, number, detail = outcome.failed
    operation = operations[index] if index < len(operations) else Operation("EXECUTE", "?")
    if operation.kind in ("EXECUTE", "LOOK_UP"):
        if job.get("oci") or operation.kind == "LOOK_UP":
            from .plan.explain_process import command_error

            raise command_error(operation, number, detail)
        raise _command_error(str(operation.args[0]), number)
    if operation.kind == "HOOK":
        raise _hook_failed(operations[: index + 1], number, detail)
    from .plan.explain import action

    failed = StageFailed(STAGE_OF.get(operation.kind, "rootfs"), action(operation, detail), number)
    if operation.kind == "SYSCTL":
        failed.hint = _SYSCTL_HINTS.get(number, "")
    raise failed


def silent(config: dict[str, object]) -> EndedSilently:
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
    moved = [index for index, kind in enumerate(kinds) if kind in ("PIVOT", "ROOT_MOVE")]
    place = "startContainer" if moved else "createContainer"
    number_of_it = kinds[moved[0] if moved else 0 :].count("HOOK") - 1
    if number == ETIMEDOUT:
        detail = f"no end within its timeout of {timeout_s} s"
    elif number != ECANCELED:
        detail = posix.strerror(number)
    return PyrunError(f"hooks: cannot run hooks.{place}[{number_of_it}] {path}: {detail}")


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
