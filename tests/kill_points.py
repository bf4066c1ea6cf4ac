"""Of a traced run: the points worth killing at, and the picture of what is there before and after."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import killing
import leftovers
from command import Pyrun
from waiting import emptied

# ── what there is ──────────────────────────────────────────────────────────────────────────────────


def everything(pyrun: Pyrun) -> leftovers.Picture:
    """The host, every process, and the names in the store and in the run directory."""
    stored = [
        path for part in ("names", "containers", "images", "layers") for path in (pyrun.root / part).glob("*")
    ]
    living = [path for path in pyrun.runroot.rglob("*") if path.name != "claims.lock"]
    found = leftovers.picture()
    found["store"] = {str(path) for path in [*stored, *living]}
    found["process"] = {
        f"{path.parent.name} {words}"
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if (words := _command(path))
    }
    return found


def _command(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:  # gone
        return ""


def settled(pyrun: Pyrun, before: leftovers.Picture) -> list[str]:
    """What differs from *before* once the kernel has had time to take away what was released."""
    return emptied(lambda: leftovers.difference(before, everything(pyrun)))


# ── which points ───────────────────────────────────────────────────────────────────────────────────


def points(steps: list[killing.Step]) -> list[tuple[str, int, str]]:
    """(role, number of the step within the role, what it is), see this module's docstring."""
    ends: dict[tuple[str, ...], list[tuple[str, int, str]]] = {}
    counts: dict[str, int] = {}
    place = ""
    for step in steps:
        number = counts[step.role] = counts.get(step.role, 0) + 1
        place = step.detail if step.detail or step.name not in ("write", "flock") else place
        kind = (step.role, step.name, "" if step.role == "init" else _kind(place))
        if step.name == "sendto":  # each is another request to the kernel
            kind = (*kind, str(number))
        point = (step.role, number, f"{step.name} {step.detail or '(' + place + ')'}")
        ends[kind] = [*ends.get(kind, [])[:1], point]
    chosen = {point for both in ends.values() for point in both}
    return sorted(
        chosen, key=lambda point: (("planner", "init", "monitor", "undo").index(point[0]), point[1])
    )


def _kind(path: str) -> str:
    """A path without what differs from one of its kind to the next."""
    path = re.sub(r"/sys/fs/cgroup/[^/]+", "/sys/fs/cgroup/X", path)
    path = re.sub(r"/(cpuset|devices)\.\w+$", "/limit", path)
    path = re.sub(r"/(hosts|hostname|resolv.conf|upper|work|rootfs)$", "/file", path)
    path = re.sub(r"\.pyrun-remove\.\d+", "removed", path)
    return re.sub(r"[0-9a-f]{12,}|\d{2,}", "N", path)


def assert_killed(pids: list[int], walked: list[tuple[str, int, str]]) -> None:
    """*pids*: who was killed at each point walked, 0 where the step did not come. A walk without kills shows nothing.

    One point in ten may be missed: the order of what runs side by side varies, and with it who waits how often.
    """
    assert len(pids) == len(walked), (len(pids), walked)
    missed = [point for pid, point in zip(pids, walked, strict=True) if not pid]
    assert len(missed) <= max(1, len(walked) // 10) and len(missed) < len(walked), (len(walked), missed)


# ── what is run ────────────────────────────────────────────────────────────────────────────────────


def make_bundle(pyrun: Pyrun, directory: Path) -> Path:
    """An OCI bundle with busybox as its root."""
    root = directory / "rootfs"
    layer = json.loads(next(pyrun.root.glob("images/*/image.json")).read_text())["layers"][0]
    directory.mkdir(parents=True)
    subprocess.run(["cp", "-a", layer, str(root)], check=True)
    names = ("mount", "pid", "uts", "ipc", "network", "cgroup")
    config = {
        "ociVersion": "1.0.2",
        "process": {"args": ["true"], "cwd": "/", "env": ["PATH=/bin"]},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/dev", "type": "tmpfs"}],
        "linux": {"namespaces": [{"type": name} for name in names], "resources": {"pids": {"limit": 50}}},
    }
    (root.parent / "config.json").write_text(json.dumps(config))
    return root.parent
