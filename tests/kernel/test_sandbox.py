"""The fixture `sandbox_fork` and `@in_child`: what happens in them stays in them, and what fails is seen outside."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import sysctls
from sandbox import in_child

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID = 0x00020000, 0x04000000, 0x20000000

Sandbox = Callable[..., object]


def test_a_result_comes_back(sandbox_fork: Sandbox) -> None:
    assert sandbox_fork(lambda one, two: (one, two), 1, "b") == (1, "b")


def test_an_exception_comes_back(sandbox_fork: Sandbox) -> None:
    with pytest.raises(FileNotFoundError):
        sandbox_fork(os.stat, "/no/such/file")


def test_the_network_is_new_by_default(sandbox_fork: Sandbox) -> None:
    assert sandbox_fork(lambda: socket.if_nameindex()) == [(1, "lo")]


def test_its_sysctls_are_the_kernels_whatever_the_machines_are(
    sandbox_fork: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel copies the machine's into every new namespace; a machine with Docker is a router."""

    def seen() -> dict[str, str]:
        places = [Path("/proc/sys/net/ipv6/conf/all/forwarding"), *sysctls.CONF.glob("*/*")]
        return {str(path): path.read_text() for path in places}

    def as_on_a_router() -> None:
        for words in ("all/forwarding 1", "all/accept_redirects 0", "all/rp_filter 2", "default/rp_filter 2",
                      "default/accept_source_route 0", "lo/log_martians 1"):  # fmt: skip
            path, value = words.split()
            (sysctls.CONF / path).write_text(value)

    clean = sandbox_fork(seen)
    assert isinstance(clean, dict) and clean[f"{sysctls.CONF}/all/forwarding"] == "0\n"
    begin = sysctls.begin
    monkeypatch.setattr(sysctls, "begin", as_on_a_router)
    assert sandbox_fork(seen) != clean
    monkeypatch.setattr(sysctls, "begin", lambda: (as_on_a_router(), begin()))
    assert sandbox_fork(seen) == clean


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


@pytest.mark.parametrize("given", ["x"])
@in_child
def test_a_whole_test_in_a_child(tmp_path: Path, given: str) -> None:
    (tmp_path / given).write_text("")
    assert socket.if_nameindex() == [(1, "lo")]


def test_what_fails_in_a_child_is_seen_with_its_line() -> None:
    @in_child
    def test() -> None:
        assert os.getpid() == 0, "the reason"

    with pytest.raises(AssertionError, match="the reason") as caught:
        test()
    assert "assert os.getpid() == 0" in caught.value.__notes__[0]


def test_a_dead_child_is_noticed(sandbox_fork: Sandbox) -> None:
    with pytest.raises(AssertionError, match="without a result"):
        sandbox_fork(os._exit, 3)
