"""Pausing: no process of the container runs, until it is resumed.

v2: cgroup.freeze, and cgroup.events says when it has come to pass. v1: freezer.state; while processes keep being
born, one freeze may not catch all, so it is written again and again, with a thaw now and then so that they get on.
Source: cgroup-v2.rst (cgroup.freeze), cgroup-v1/freezer-subsystem.rst, runc issue 2530 (the retries).
"""

from __future__ import annotations

import errno
import posix
import select
import time

from pyrun.errors import PyrunError, StageFailed
from pyrun.store import paths

from . import files
from .layout import Group

PATIENCE_S = 10.0
# v1: empirical, as runc's: an occasional thaw and sleep helps while processes keep appearing
ATTEMPTS, THAW_EVERY, THAW_S = 1000, 50, 0.01
_GONE = (errno.ENOENT, errno.ENODEV)


def freeze(groups: list[Group]) -> None:
    """Pause every process; left running if that cannot be had. Raises PyrunError."""
    kind, directory = place(groups)
    try:
        if kind == "v2":
            _freeze_v2(directory)
        else:
            _freeze_v1(directory)
    except BaseException:
        thaw(groups)  # half frozen is the worst of all
        raise


def thaw(groups: list[Group]) -> None:
    """Let every process run again; a cgroup that is gone, or that no freezer is for, counts as done."""
    for file, word in _files(groups):
        try:
            _write(file, word)
        except StageFailed as error:
            if error.number not in _GONE:
                raise


def is_frozen(groups: list[Group]) -> bool:
    """Whether the container's own cgroup is frozen; one above that is frozen does not count."""
    for file, _ in _files(groups):
        directory, _, name = file.rpartition("/")
        try:
            if name == "cgroup.freeze":
                return paths.read(file).strip() == b"1"
            if paths.read(file).strip() == b"THAWED":
                return False
            return paths.read(f"{directory}/freezer.self_freezing").strip() != b"0"
        except OSError:
            continue
    return False


def place(groups: list[Group]) -> tuple[str, str]:
    """("v1" | "v2", directory) of what can freeze the container. Raises PyrunError."""
    for names, directory in groups:
        if "freezer" in names.split(","):
            return "v1", directory
    for names, directory in groups:
        if names == "unified":
            return "v2", directory
    raise PyrunError(
        "cannot pause: the container has no cgroup with a freezer",
        "linux.cgroupsPath needs cgroup v2, or v1's freezer controller",
    )


def _files(groups: list[Group]) -> list[tuple[str, str]]:
    """(file, word that thaws)."""
    v1 = [(f"{where}/freezer.state", "THAWED") for names, where in groups if "freezer" in names.split(",")]
    return v1 or [(f"{where}/cgroup.freeze", "0") for names, where in groups if names == "unified"]


def _write(path: str, word: str) -> None:
    try:
        files.put(path, word.encode())
    except OSError as error:
        raise StageFailed("cgroup", f"write {word} to {path}", error.errno) from None


def _freeze_v2(directory: str) -> None:
    _write(f"{directory}/cgroup.freeze", "1")
    events = posix.open(f"{directory}/cgroup.events", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        deadline = time.monotonic() + PATIENCE_S
        while b"frozen 1" not in posix.pread(events, 4096, 0):
            left = deadline - time.monotonic()
            if left <= 0:
                raise PyrunError(
                    f"cannot pause: the cgroup did not freeze within {PATIENCE_S:.0f} s ({directory})"
                )
            poll.poll(min(left, 0.1) * 1000)
    finally:
        posix.close(events)


def _freeze_v1(directory: str) -> None:
    path = f"{directory}/freezer.state"
    for attempt in range(ATTEMPTS):
        if attempt % THAW_EVERY == THAW_EVERY - 1:
            _write(path, "THAWED")
            time.sleep(THAW_S)
        _write(path, "FROZEN")
        if paths.read(path).strip() == b"FROZEN":
            return
        if attempt > 1:
            time.sleep(0.0001)
    raise PyrunError(f"cannot pause: new processes kept the cgroup from freezing ({directory})")
