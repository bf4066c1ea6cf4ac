"""The operations on the process itself, explained (see explain.py), and the words for a command that cannot be had.

The latter are runc's for `pyrun-oci`: Docker and podman look for them, and make exit statuses 126 and 127 of them.
"""

from __future__ import annotations

import errno
import posix
import shlex

from pyrun.errors import CommandError
from pyrun.go_quote import quoted
from pyrun.spec.seccomp import FLAG_NEW_LISTENER

from .explain_kinds import Explanation, simple
from .operations import Operation

_POLICIES = ("other", "fifo", "rr", "batch", "iso", "idle", "deadline")
_IO_CLASSES = ("none", "realtime", "best-effort", "idle")
_MODES = ("default", "preferred", "bind", "interleave", "local", "preferred-many", "weighted-interleave")


def _scheduler(operation: Operation) -> Explanation:
    policy, nice, priority, flags, *times = (int(each) for each in operation.args)
    name = _POLICIES[policy] if policy < len(_POLICIES) else str(policy)
    details = f", nice {nice}" if nice else ""
    details += f", priority {priority}" if priority else ""
    words = ("runtime", "deadline", "period")
    details += "".join(f", {word} {time} ns" for word, time in zip(words, times, strict=True) if time)
    details += f", flags {flags:#x}" if flags else ""
    options = "".join(f" --sched-{word} {time}" for word, time in zip(words, times, strict=True) if time)
    shell = f"chrt --{name}{options} --pid {priority} $$" + (f"; renice -n {nice} $$" if nice else "")
    return f"be scheduled as {name}{details}", shell, "chrt --pid {pid}"


def _io_priority(operation: Operation) -> Explanation:
    value = int(operation.args[0])
    kind, level = value >> 13, value & 0x1FFF
    name = _IO_CLASSES[kind] if kind < len(_IO_CLASSES) else str(kind)
    return (
        f"have the I/O priority {name} {level}",
        f"ionice -c {kind} -n {level} -p $$",
        "ionice -p {pid}",
    )


def _ranges(numbers: tuple[object, ...]) -> str:
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return ",".join(f"{first}-{last}" if first != last else f"{first}" for first, last in pairs)


def _affinity(operation: Operation) -> Explanation:
    see = "taskset -c -p {pid}"
    if not operation.args:
        return "run on every processor of the cgroup, whichever pyrun was started on", "", see
    cpus = _ranges(operation.args)
    return f"run on the processors {cpus}", f"taskset -c -p {cpus} $$", see


def _memory_policy(operation: Operation) -> Explanation:
    mode, *nodes = operation.args
    number = int(mode) & 0x1FFF
    name = _MODES[number] if number < len(_MODES) else str(number)
    where = f" from the nodes {_ranges(tuple(nodes))}" if nodes else ""
    option = f"={_ranges(tuple(nodes))}" if nodes else ""
    return f"get memory by the policy {name}{where}", f"numactl --{name}{option} ...", "numactl --show"


def _label(operation: Operation) -> Explanation:
    _, value, *files = operation.args
    wanted = "the next key" if files[0] == "keycreate" else "the program"
    sentence = f"label {wanted} {value}" if value else f"label {wanted} as usual"
    return (
        sentence,
        f"echo -n {shlex.quote(str(value))} > /proc/self/attr/{files[0]}",
        f"cat /proc/{{pid}}/attr/{files[0]}",
    )


def _look_up(operation: Operation) -> Explanation:
    command, uid, _, path, *_ = operation.args
    where, look = "" if "/" in str(command) else f" in {path}", f"command -v {shlex.quote(str(command))}"
    return (
        f"look for the program {command}{where}, as user {uid}",
        f"setpriv --ruid={uid} env PATH={shlex.quote(str(path))} sh -c {shlex.quote(look)}",
        "",
    )


def _session(operation: Operation) -> Explanation:
    if len(operation.args) > 1:
        sentence = f"begin a session of its own, with the container's keyring {operation.args[1]}"
        return sentence, "setsid ...", "ps -o pid,sid -p {pid}"
    keyring = " and a keyring" if operation.args and operation.args[0] else ""
    return f"begin a session{keyring} of its own", "setsid ...", "ps -o pid,sid -p {pid}"


def _seccomp(operation: Operation) -> Explanation:
    _, flags, late = (int(each) for each in operation.args)
    when = "make ready the system call filter, which is loaded just before the command is executed"
    sentence = when if late else "load the system call filter"
    agent = ", and hand its listener to the seccomp agent" if flags & FLAG_NEW_LISTENER else ""
    return sentence + agent, "", "grep Seccomp /proc/{pid}/status"


PROCESS = {
    "SESSION": _session,
    "SECCOMP": _seccomp,
    "GUARD": simple(
        "let nobody in the container trace this process or see its descriptors until the command is executed",
        "",
        "ls -ld /proc/{pid}/fd",
    ),
    "SCHEDULER": _scheduler,
    "IO_PRIORITY": _io_priority,
    "AFFINITY": _affinity,
    "MEMORY_POLICY": _memory_policy,
    "PERSONALITY": simple(
        "have the personality {0} (8: a 32-bit machine)", "setarch linux32 ...", "cat /proc/{pid}/personality"
    ),
    "LABEL": _label,
    "LOOK_UP": _look_up,
    "STREAMS": simple(
        "of standard input, output and error give pipes to user {0}, and have the container's /dev/null for the host's",
        "for each in stdin stdout stderr; do test -p /dev/$each && chown {0} /dev/$each; done",
        "ls -lL /proc/{pid}/fd",
    ),
    "PROCFS": simple("open a /proc nobody else can reach, before parts of the container's are hidden"),
}


# ── a command that cannot be executed, in runc's words ─────────────────────────────────────────────


def command_error(operation: Operation, number: int, detail: str) -> CommandError:
    """What LOOK_UP or EXECUTE failed with. detail: see op_look_up in csrc/init_command.c; for EXECUTE, the path."""
    command = str(operation.args[0])
    reason = posix.strerror(number).lower()
    status = 127 if number in (errno.ENOENT, errno.ENOTDIR) else 126
    if operation.kind == "EXECUTE":  # it was found, and then the kernel refused it
        return CommandError(f"exec {detail or command}: {reason}", "", status)
    if detail == "$PATH":
        reason = "executable file not found in $PATH"
    elif detail == ".":
        reason = "cannot run executable found relative to current directory"
    elif detail == "stat":
        reason = f"stat {command}: {reason}"
    return CommandError(f"exec: {quoted(command)}: {reason}", "", status)
