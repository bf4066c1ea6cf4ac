"""The operations of the OCI lifecycle and of user namespaces, explained: see explain.py."""

from __future__ import annotations

import shlex

from .explain_kinds import Explanation, simple
from .operations import Operation


def _hook(operation: Operation) -> Explanation:
    path, timeout_s, directory, head, tail, count = operation.args[:6]
    command = shlex.join([str(path), *[str(each) for each in operation.args[6 : 6 + int(count)][1:]]])
    entered = f"cd {shlex.quote(str(directory))}; " if directory else ""
    limit = f"timeout {timeout_s} " if timeout_s else ""
    sentence = f"run the hook {path}, with the container's state on its standard input"
    return sentence, f"{entered}echo {shlex.quote(f'{head}PID{tail}')} | env -i {limit}{command}", ""


LIFECYCLE = {
    "HOOK": _hook,
    "START": simple(
        "tell `create` that the container is there, and wait for `start`", "", "cat /proc/{pid}/cmdline"
    ),
    "ROOT_IDENTITY": simple(
        "become root of the user namespace", "setpriv --reuid 0 --regid 0", "cat /proc/{pid}/uid_map"
    ),
    "PRESERVE": simple("hand on {1} descriptors of the caller's, from 3 on", "", "ls -l /proc/{pid}/fd"),
}
