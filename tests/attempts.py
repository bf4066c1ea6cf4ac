"""Calls of the product in a forked child, by the thousand: what is told is any exception that is not a PyrunError.

The modules are loaded once, in the parent; a child has a store and a run directory of its own, no standard streams, and
ten seconds. An `OSError` with the kernel's word is an answer, too: cli/main.py gives it as one line.
"""

from __future__ import annotations

import os
import posix
import select
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

from pyrun import notice
from pyrun.cli import main, oci
from pyrun.errors import PyrunError

PATIENCE_S = 10.0


def tracebacks(function: Callable[[], object], directory: Path, runroot: Path | None = None) -> str:
    """The traceback with which *function* ends in a child, or that it does not end; "" is what is wanted.

    The store is *directory*/root; the run directory too is below it, or *runroot*.
    """
    reading_fd, writing_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        _in_child(function, directory / "root", runroot or directory / "run", writing_fd)
    os.close(writing_fd)
    with os.fdopen(reading_fd, "rb") as stream:
        ended, _, _ = select.select([stream], [], [], PATIENCE_S)
        if not ended:
            os.kill(pid, signal.SIGABRT)
        told = stream.read().decode("utf-8", "replace") if ended else f"has not ended after {PATIENCE_S} s"
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return told or ("" if status >= 0 else f"ended by signal {-status}")


def _in_child(function: Callable[[], object], root: Path, runroot: Path, writing_fd: int) -> None:
    """Never returns. *writing_fd* is closed at an execve: then another program answers for itself."""
    told = ""
    try:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        notice.install(lambda text: None)
        posix.environ[b"PYRUN_ROOT"] = os.fsencode(root)
        posix.environ[b"PYRUN_RUNROOT"] = os.fsencode(runroot)
        function()
    except (PyrunError, SystemExit, KeyboardInterrupt):
        pass
    except OSError as error:
        told = "" if error.strerror else traceback.format_exc()
    except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
        told = traceback.format_exc()
    os.write(writing_fd, told[-8000:].encode("utf-8", "backslashreplace"))
    os._exit(0)


def pyrun(*words: str) -> object:
    """What `pyrun WORDS` does, without what tells an exception to the user."""
    return main._dispatch(list(words))


def pyrun_oci(*words: str) -> object:
    """The same of `pyrun-oci WORDS`."""
    options: dict[str, object] = {"log": "", "log_format": "text", "log_fd": -1, "debug": False}
    command, rest = oci._before(options, list(words))
    return oci._command(options, command, rest)
