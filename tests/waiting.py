"""Waiting for a condition, never for time: what a test wants to be true now is true a moment later.

`until` fails the test when that does not come, `soon` and `emptied` leave the word to an assert.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

TICK_S = 0.01
PATIENCE = float(os.environ.get("PYRUN_PATIENCE", "1"))  # more of it with a sanitizer or an emulated machine
Found = TypeVar("Found")


def soon(condition: Callable[[], Found], within_s: float = 5.0) -> Found:
    """What *condition* says, as soon as that is true; else what it says at the end."""
    deadline = time.monotonic() + within_s
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(TICK_S)
    return found


def emptied(look: Callable[[], Found], within_s: float = 5.0) -> Found:
    """What *look* still finds: nothing, as soon as nothing is there. The kernel takes some things away later."""
    deadline = time.monotonic() + within_s
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(TICK_S)
    return found


def until(condition: Callable[[], Found], what: str = "it", *, timeout_s: float = 30.0 * PATIENCE) -> Found:
    """Wait for *condition* to be true; returns its value. After *timeout_s* the test fails, for want of *what*."""
    found = soon(condition, timeout_s)
    assert found, f"waited in vain for {what}"
    return found


def seconds_until(condition: Callable[[], object], *, timeout_s: float = 5.0) -> float:
    """Wait for *condition* to be true; returns how long that took."""
    began = time.monotonic()
    until(condition, timeout_s=timeout_s)
    return time.monotonic() - began


def runs(pid: int) -> bool:
    """Whether the process has not ended yet; one that nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False
