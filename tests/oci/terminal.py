"""The caller's ends of what a runtime hands over: a terminal, a pidfd, a readiness message."""

from __future__ import annotations

import array
import os
import select
import socket
import termios
import time
from fcntl import ioctl
from pathlib import Path
from types import TracebackType

from waiting import PATIENCE

RECEIVE_S = 10.0 * PATIENCE


class Listener:
    """A unix stream socket at *path* that accepts connections and receives one descriptor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._socket.settimeout(RECEIVE_S)
        self.fds: list[int] = []
        self.message = b""

    def receive(self) -> int:
        """Accept, take the message and its descriptor; returns the descriptor."""
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(RECEIVE_S)
            self.message, fds, _, _ = socket.recv_fds(connection, 65536, 4)
            self.fds += fds
            while chunk := connection.recv(65536):
                self.message += chunk
        assert len(fds) == 1, f"{len(fds)} descriptors with {self.message!r}"
        return fds[0]

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self._socket.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.close()


def read_terminal(master_fd: int, until: str = "\0", timeout_s: float = RECEIVE_S) -> str:
    """What arrives at a terminal's master until *until* is in it or the other side is closed."""
    text = b""
    deadline = time.monotonic() + timeout_s
    while until.encode() not in text.replace(b"\r\n", b"\n"):
        ready, _, _ = select.select([master_fd], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more from the terminal after {text!r}"
        try:
            chunk = os.read(master_fd, 4096)
        except OSError:  # EIO: the last one on the other side has closed it
            break
        if not chunk:
            break
        text += chunk
    return text.decode(errors="replace").replace("\r\n", "\n")


def window_size(master_fd: int) -> tuple[int, int]:
    """Rows and columns."""
    size = array.array("H", [0, 0, 0, 0])
    ioctl(master_fd, termios.TIOCGWINSZ, size)
    return size[0], size[1]
