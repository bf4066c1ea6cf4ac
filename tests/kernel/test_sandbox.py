"""The fixture `sandbox_fork`: what happens in it stays in it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID = 0x00020000, 0x04000000, 0x20000000

Sandbox = Callable[..., object]


def test_a_result_comes_back(sandbox_fork: Sandbox) -> None:
    assert sandbox_fork(lambda one, two: (one, two), 1, "b") == (1, "b")


def test_an_exception_comes_back(sandbox_fork: Sandbox) -> None:
    with pytest.raises(FileNotFoundError):
        sandbox_fork(os.stat, "/no/such/file")


def test_the_network_is_new_by_default(sandbox_fork: Sandbox) -> None:
    assert sandbox_fork(lambda: socket.if_nameindex()) == [(1, "lo")]


def test_the_host_s_name_stays(sandbox_fork: Sandbox) -> None:
    def rename() -> str:
        socket.sethostname("sandbox")
        return socket.gethostname()

    assert sandbox_fork(rename, flags=CLONE_NEWUTS) == "sandbox"
    assert socket.gethostname() != "sandbox"


def test_it_can_be_pid_1(sandbox_fork: Sandbox) -> None:
    assert sandbox_fork(os.getpid, flags=CLONE_NEWPID | CLONE_NEWNS) == 1


def test_mounts_are_private(sandbox_fork: Sandbox) -> None:
    def shared() -> list[str]:
        return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " shared:" in line]

    assert sandbox_fork(shared) == []


def test_a_dead_child_is_noticed(sandbox_fork: Sandbox) -> None:
    with pytest.raises(AssertionError, match="without a result"):
        sandbox_fork(os._exit, 3)
