"""Hooks: programs of the bundle's author, called at six points of the lifecycle with the state on standard input.

    prestart, createRuntime    the planner, once the mounts are made and before the pivot     (engine/oci/hooks.py)
    createContainer            init, before the pivot: in the container's namespaces, the host's file system
    startContainer             init, as the last step before the command: in the container, with its rights
    poststart, poststop        whoever starts, whoever deletes                                (engine/oci/hooks.py)

Their working directory is the bundle, as with runc and crun; that of createContainer and startContainer is the
container's root. The environment is the hook's own and nothing else: one of an image must not reach a program of the
host (CVE-2025-23266). A hook that has none gets of its caller's what INHERITED names; startContainer's, a program of
the container, that of the container's process.
Source: runtime-spec config.md#posix-platform-hooks, runtime.md#lifecycle. Next: stages/security.py.
"""

from __future__ import annotations

import posix

from pyrun.jsonlite import dumps
from pyrun.plan.operations import Operation
from pyrun.spec.defaults import DEFAULT_PATH

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.plan.job import Job
    from pyrun.spec.oci import Config, Hook, State

# What takes the place of init's pid as the container sees it, which init alone knows.
_PID = 987654321987654321


def of(config: Config, kind: str) -> list[Hook]:
    """The hooks of one kind."""
    return (config.get("hooks") or {}).get(kind) or []


# Programs of the host count on these (CUDA's hooks on PATH). What else a caller has may be a secret, or meant for the
# caller alone (NOTIFY_SOCKET, LD_PRELOAD).
INHERITED = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "PATH",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_RUNTIME_DIR",
)


def environment(hook: Hook) -> list[str]:
    """The variables of a hook that is a program of the host."""
    given = hook.get("env")
    if isinstance(given, list):
        return given
    path = {b"PATH": DEFAULT_PATH.encode()}
    own = {name: value for name, value in posix.environ.items() if name.decode(errors="replace") in INHERITED}
    return [
        f"{name.decode()}={value.decode('utf-8', 'surrogateescape')}" for name, value in (path | own).items()
    ]


def state(config: Config, identifier: str, bundle: str, status: str, pid: int) -> State:
    """The container's state as a hook gets it. Source: runtime-spec runtime.md#state."""
    found: State = {"pid": pid} if pid else {}
    found |= {
        "ociVersion": config.get("ociVersion") or "1.0.0",
        "id": identifier,
        "status": status,
        "bundle": bundle,
    }
    if config.get("annotations"):
        found["annotations"] = config["annotations"]
    return found


def plan(config: Config, job: Job, kind: str) -> list[Operation]:
    """The hooks that init runs. startContainer comes when the container is created, createContainer before."""
    hooks = of(config, kind)
    if not hooks:
        return []
    inside = kind == "startContainer"
    status = "created" if inside else "creating"
    directory = "" if inside else str(job.root or f"{job.keep}/rootfs")
    bundle = job.bundle or job.keep
    head, _, tail = dumps(state(config, job.id, bundle, status, _PID)).partition(str(_PID))
    operations = []
    for hook in hooks:
        path, timeout = hook["path"], hook.get("timeout") or 0
        arguments, variables = hook.get("args") or [path], environment(hook)
        if inside and hook.get("env") is None:
            variables = config["process"].get("env") or []
        operations.append(
            Operation("HOOK", path, timeout, directory, head, tail, len(arguments), *arguments, *variables)
        )
    return operations
