"""What a caller wants in its hands once the container is there: the terminal, the pid, a pidfd.

--console-socket gets the master of the terminal and its name; --pidfd-socket a descriptor of the process; --pid-file
the pid, complete or not at all. Source: runc docs/terminals.md (behaviour), man 7 unix (SCM_RIGHTS).
"""

from __future__ import annotations

import posix

from pyrun.errors import PyrunError, UsageError
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options

_PATIENCE_S = 10.0


def check(options: Options, *, terminal: bool, detached: bool) -> None:
    """runc's rules for who may have a terminal, and whether there is somebody to deliver to: a command nobody will hear
    of is better not run. Raises UsageError, PyrunError."""
    socket = options.get("console_socket")
    if terminal and detached and not socket:
        raise UsageError("cannot allocate tty if runc will detach without setting console socket")
    if socket and not (terminal and detached):
        raise UsageError("cannot use console socket if runc will not detach or allocate tty")
    for name in ("console_socket", "pidfd_socket"):
        if options.get(name):
            _check_socket("--" + name.replace("_", "-"), str(options[name]))
    if options.get("pid_file"):
        _check_pid_file(str(options["pid_file"]))


def _check_socket(option: str, path: str) -> None:
    try:
        posix.stat(path)
    except OSError as error:
        raise _unheard(option, path, error) from None


def _check_pid_file(path: str) -> None:
    where = path.rpartition("/")[0] or ("/" if path[:1] == "/" else ".")
    try:
        posix.stat(f"{where}/.")
    except OSError as error:
        raise PyrunError(f"--pid-file {path}: {error.strerror}") from None
    if not posix.access(where, posix.W_OK):
        raise PyrunError(f"--pid-file {path}: no file can be made in {where}")


def deliver(options: Options, pid: int, pidfd: int, tty_fd: int) -> None:
    """Everything asked for, the pid file last: callers wait for it. Raises PyrunError."""
    if options.get("console_socket") and tty_fd >= 0:
        _send(str(options["console_socket"]), tty_fd, "--console-socket", b"/dev/ptmx")
    if options.get("pidfd_socket"):
        _send(str(options["pidfd_socket"]), pidfd, "--pidfd-socket", b"pidfd")
    if options.get("pid_file"):
        path = str(options["pid_file"])
        try:
            paths.replace(path, str(pid).encode(), 0o644)
        except OSError as error:
            raise PyrunError(f"--pid-file {path}: {error.strerror}") from None


def _send(path: str, fd: int, option: str, word: bytes) -> None:
    """One descriptor to whoever listens on the socket at *path*."""
    import _socket
    import _struct

    directory, _, name = path.rpartition("/")
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    socket.settimeout(_PATIENCE_S)  # somebody may listen and never accept
    try:
        where = path
        if len(path) > 100:  # a socket's path has room for 107 bytes
            directory_fd = posix.open(directory or "/", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
            where = f"/proc/self/fd/{directory_fd}/{name}"
        socket.connect(where)
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _struct.pack("i", fd))
        socket.sendmsg([word], [rights])
    except OSError as error:
        raise _unheard(option, path, error) from None
    finally:
        socket.close()


def _unheard(option: str, path: str, error: OSError) -> PyrunError:
    reason = error.strerror or "no process accepts"
    return PyrunError(f"{option} {path}: {reason}", "a process has to listen on that socket")
