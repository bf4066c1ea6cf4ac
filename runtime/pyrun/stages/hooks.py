"""Hooks: programs of the bundle's author, called at six points of the lifecycle with the state on standard input.

    prestart, createRuntime    the planner, once the mounts are made and before the pivot     (engine/oci/hooks.py)
    createContainer            init, before the pivot: in the container's namespaces, the host's file system
    startContainer             init, as the last step before the command: in the container, with its rights
    poststart, poststop        whoever starts, whoever deletes                                (engine/oci/hooks.py)

Their working directory is the bundle, as with runc and crun; startContainer's is the container's root. The environment
is the hook's own and nothing else: one of an image must not reach a program of the host (CVE-2025-23266).
Source: runtime-spec config.md#posix-platform-hooks, runtime.md#lifecycle. Next: stages/security.py.
"""

from __future__ import annotations

from pyrun.jsonlite import dumps
from pyrun.plan.operations import Operation

# What takes the place of init's pid as the container sees it, which init alone knows.
_PID = 987654321987654321


def of(config: dict[str, object], kind: str) -> list[dict[str, object]]:
    """The hooks of one kind."""
    section = config.get("hooks")
    found = section.get(kind) if isinstance(section, dict) else None
    return found if isinstance(found, list) else []


def state(config: dict[str, object], job: dict[str, object], status: str, pid: int) -> dict[str, object]:
    """The container's state as a hook gets it. Source: runtime-spec runtime.md#state."""
    found: dict[str, object] = {"pid": pid} if pid else {}
    found |= {
        "ociVersion": config.get("ociVersion") or "1.0.0",
        "id": job["id"],
        "status": status,
        "bundle": job.get("bundle") or job.get("keep"),
    }
    if config.get("annotations"):
        found["annotations"] = config["annotations"]
    return found


def plan(config: dict[str, object], job: dict[str, object], kind: str) -> list[Operation]:
    """The hooks that init runs. startContainer comes when the container is created, createContainer before."""
    hooks = of(config, kind)
    if not hooks:
        return []
    status = "created" if kind == "startContainer" else "creating"
    directory = "" if kind == "startContainer" else str(job.get("bundle") or job["keep"])
    head, _, tail = dumps(state(config, job, status, _PID)).partition(str(_PID))
    operations = []
    for hook in hooks:
        path, timeout = str(hook["path"]), hook.get("timeout")
        arguments, environment = hook.get("args") or [path], hook.get("env") or []
        assert isinstance(arguments, list) and isinstance(environment, list)
        seconds = timeout if isinstance(timeout, int) else 0
        operations.append(
            Operation("HOOK", path, seconds, directory, head, tail, len(arguments), *arguments, *environment)
        )
    return operations
