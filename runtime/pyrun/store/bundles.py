"""The state directory of pyrun-oci: what is kept of a bundle's container between `create` and `delete`.

    ROOT/ID    undo (locked while a planner or monitor is at it), state.json, config.json (as it was at `create`),
               starting -> created -> started, start.sock (where init listens until `start`)

ROOT is --root: every caller (Docker, podman, containerd) has its own. Nobody keeps a container's status: it is told
from these files and /proc. Source: runtime-spec runtime.md#state.
"""

from __future__ import annotations

import posix

from pyrun.errors import NotFound, PyrunError, UsageError
from pyrun.jsonlite import loads

from . import containers, paths, state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

    from pyrun.spec.oci import Config
    from pyrun.spec.values import Options
    from pyrun.store.record import BundleRecord


def default_root() -> str:
    """/run/pyrun-oci, or below $XDG_RUNTIME_DIR for a user, also in podman's user namespace; as csrc/quick.c."""
    own = posix.environ.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape")
    return f"{own}/pyrun-oci" if own[:1] == "/" and paths.is_user() else "/run/pyrun-oci"


def root_of(options: Options) -> str:
    """--root, absolute. Raises UsageError for one that undo lists cannot name: a tab ends a field there, and what
    stands before a line break is another path, which would be removed."""
    given = str(options.get("root") or default_root())
    root = (given if given[:1] == "/" else f"{posix.getcwd()}/{given}").rstrip("/") or "/"
    if "\n" in root or "\t" in root:
        raise UsageError(
            f"--root {root!r:.200}: must hold no tab and no line break", "choose another directory"
        )
    return root


def directory(root: str, identifier: str) -> str:
    """The state directory of one container. Raises UsageError for what cannot be an id."""
    try:
        containers.check_id(identifier)
    except UsageError as error:
        raise UsageError("invalid container ID format", error.hint) from None
    if identifier == ".staging":
        raise UsageError("invalid container ID format", "that name is taken")
    return f"{root}/{identifier}"


def load(root: str, identifier: str) -> BundleRecord:
    """state.json, with "id" and "directory"; little more when a `create` died early. Raises NotFound."""
    where = directory(root, identifier)
    if not paths.exists(where):
        raise NotFound("container does not exist")
    return again({"id": identifier, "directory": where})


def again(container: BundleRecord) -> BundleRecord:
    """The same container as it is noted now. Torn or missing: what the file quick knows of the process."""
    found: object = None
    try:
        found = loads(paths.read(f"{container['directory']}/state.json"))
    except (OSError, ValueError):
        pass
    if not isinstance(found, dict):
        found = _process(f"{container['directory']}/quick")
    noted: Any = {**found, "id": container["id"], "directory": container["directory"]}
    record: BundleRecord = noted
    return record


def _process(path: str) -> dict[str, object]:
    """pid and start time, as engine/oci/quick.py wrote them."""
    try:
        pid, start_time = paths.read(path).split(b"\0")[:2]
        return {"pid": int(pid), "start_time": int(start_time)}
    except (OSError, ValueError):
        return {}


def config(container: BundleRecord) -> Config:
    """The config.json it was created from; what lies in the bundle now does not matter. Raises PyrunError."""
    try:
        found: Any = loads(paths.read(f"{container['directory']}/config.json"))
        config: Config = found  # it was checked when the container was created
        assert isinstance(config, dict)
        return config
    except (OSError, ValueError, AssertionError):
        if not paths.exists(str(container["directory"])):  # deleted meanwhile
            raise NotFound("container does not exist") from None
        hint = "only `delete --force` is left for it"
        raise PyrunError(f"container {container['id']} has lost its config.json", hint) from None


def ids(root: str) -> list[str]:
    """Every container below *root*, sorted."""
    try:
        names = posix.listdir(root)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name != ".staging" and paths.exists(f"{root}/{name}/undo"))


def sweep(root: str) -> None:
    """Take away what commands left that died before their container's directory had its place."""
    where = f"{root}/.staging"
    try:
        names = posix.listdir(where)
    except OSError:  # there is none, or a root that cannot be: then nothing is found there either
        return
    for name in names:
        pid = name.rpartition(".")[2]
        if pid.isdigit() and not state.start_time(int(pid)):
            for each in posix.listdir(f"{where}/{name}"):
                posix.unlink(f"{where}/{name}/{each}")
            posix.rmdir(f"{where}/{name}")


def status(container: BundleRecord) -> str:
    """creating, created, running, paused or stopped."""
    where = container["directory"]
    if not state.process_alive(container):
        pid = container.get("pid")
        return "creating" if not pid and state.locked(f"{where}/undo") else "stopped"
    if paths.exists(f"{where}/starting"):
        return "creating"
    if _frozen(groups(container)):
        return "paused"
    return "created" if paths.exists(f"{where}/created") and _waits(container) else "running"


def groups(container: BundleRecord) -> list[tuple[str, str]]:
    """(controllers, directory) of each of the container's cgroups."""
    return [(names, where) for names, where in container.get("cgroups") or ()]


def _waits(container: BundleRecord) -> bool:
    """Whether it is still init: a `start` that was killed in its last moment did not come to say so."""
    try:
        return paths.command_line(container["pid"])[0].startswith(b"pyrun-init")
    except OSError:
        return False


def _frozen(groups: list[tuple[str, str]]) -> bool:
    """Source: cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst (cgroup.freeze)."""
    for names, where in groups:
        try:
            if names == "unified" and len(groups) == 1:  # not a hybrid host's
                return paths.read(f"{where}/cgroup.freeze").strip() == b"1"
            if "freezer" in names.split(","):
                return paths.read(f"{where}/freezer.state").strip() != b"THAWED"
        except OSError:
            continue
    return False
