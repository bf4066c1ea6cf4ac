"""A test, or one function of it, in a forked child with namespaces of its own."""

from __future__ import annotations

import ctypes
import functools
import os
import pickle
import traceback
from collections.abc import Callable
from typing import ParamSpec

from lab import sysctls

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
Given = ParamSpec("Given")


def in_child(test: Callable[Given, None]) -> Callable[Given, None]:
    """Run the whole test in a child with a mount and a network namespace of its own.

    Fixtures are made before, outside.
    """

    @functools.wraps(test)
    def forked(*args: Given.args, **named: Given.kwargs) -> None:
        fork(functools.partial(test, *args, **named))

    return forked


def fork(function: Callable[..., object], *args: object, flags: int = CLONE_NEWNS | CLONE_NEWNET) -> object:
    """Call *function* in a forked child in new namespaces; returns its result, or raises its exception here.

    Mount namespaces are made private; with CLONE_NEWPID the function is pid 1.
    """
    reading_fd, writing_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(function, args, flags, writing_fd)
    os.close(writing_fd)
    with os.fdopen(reading_fd, "rb") as stream:
        data = stream.read()
    status = os.waitpid(pid, 0)[1]
    assert data, f"the child ended without a result: wait status {status:#x}"
    failed, value = pickle.loads(data)
    if failed:
        raise value
    return value


def _child(function: Callable[..., object], args: tuple[object, ...], flags: int, writing_fd: int) -> None:
    """Never returns."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(flags):
            raise OSError(ctypes.get_errno(), f"unshare({flags:#x})")
        if flags & CLONE_NEWPID and (pid := os.fork()):
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)
        if flags & CLONE_NEWNET:
            sysctls.begin()
        if flags & CLONE_NEWNS:
            ms_rec_private = 0x4000 | 0x40000
            if libc.mount(b"none", b"/", None, ms_rec_private, None):
                raise OSError(ctypes.get_errno(), "mount --make-rprivate /")
        outcome = pickle.dumps((False, function(*args)))
    except BaseException as problem:  # noqa: BLE001 - handed to the parent, whatever it is
        problem.add_note("".join(traceback.format_exception(problem)))  # the lines are lost with the child
        try:
            outcome = pickle.dumps((True, problem))
            pickle.loads(outcome)
        except Exception:  # noqa: BLE001 - an exception that does not survive pickling
            outcome = pickle.dumps((True, RuntimeError(f"{type(problem).__name__}: {problem}")))
    with os.fdopen(writing_fd, "wb") as stream:
        stream.write(outcome)
    os._exit(0)
