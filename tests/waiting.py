"""Waiting for a condition, never for time: what a test wants to be true now is true a moment later."""

from __future__ import annotations

import time
from collections.abc import Callable

TICK_S = 0.02


def until(condition: Callable[[], object], what: str = "it", *, timeout_s: float = 30.0) -> object:
    """Wait for *condition* to be true; returns its value. After *timeout_s* the test fails, for want of *what*."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(TICK_S)
    return value
