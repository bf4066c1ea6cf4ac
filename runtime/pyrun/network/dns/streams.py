"""Questions by TCP: a connection asks one after the other, and has little time for each.

Slowness costs nobody but who is slow: reading never waits, a deadline does not move because a byte came, and so many
connections an address may have, and all together. Source: RFC 7766.
"""

from __future__ import annotations

from _socket import SOL_SOCKET, socket
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Any

from pyrun.network.dns import wire

MESSAGE_S = 3.0  # for a whole question, and to take its answer
_ANSWER_S = 6.0  # for our part
QUESTIONS_MOST = 256
OF_ONE_MOST = 16
TOGETHER_MOST = 256
_ACCEPTS_AT_ONCE = 16
_SO_LINGER = 13


class Listener:
    """The TCP socket of a gateway."""

    __slots__ = ("network", "server", "sock")

    def __init__(self, server: Any, sock: socket, network: str) -> None:
        self.server, self.sock, self.network = server, sock, network

    def ready(self, mask: int) -> None:
        """Take new connections. Inside a container, whoever rules its network can shut the socket: it is left then."""
        if mask & (EPOLLERR | EPOLLHUP):
            self.server.remove(self.sock.fileno())
            return
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                fd, peer = self.sock._accept()  # type: ignore[attr-defined]
            except OSError:
                return
            self._taken(socket(fileno=fd), self.server.names.alone(self.network) or str(peer[0]))

    def _taken(self, sock: socket, source: str) -> None:
        sock.setblocking(False)
        clients = self.server.clients
        known = self.server.names.view(source, self.network, self.server.now_ns)
        if known is None or sum(each.source == source for each in clients.values()) >= OF_ONE_MOST:
            _drop(sock)
            return
        if len(clients) >= TOGETHER_MOST:
            next(iter(clients.values())).close()
        client = Client(self.server, sock, self.network, source)
        clients[sock.fileno()] = client
        self.server.add(sock.fileno(), EPOLLIN, client.ready)


class Client:
    """One connection."""

    __slots__ = (
        "answering",
        "asking",
        "deadline_s",
        "network",
        "over",
        "questions",
        "read",
        "server",
        "sock",
        "source",
        "unsent",
    )

    def __init__(self, server: Any, sock: socket, network: str, source: str) -> None:
        self.server, self.sock, self.network, self.source = server, sock, network, source
        self.read, self.unsent = b"", b""
        self.asking = self.answering = False  # a question is under way; we are in the loop that takes them
        self.over = False
        self.questions = 0
        self.deadline_s = server.now_s + MESSAGE_S

    def ready(self, mask: int) -> None:
        """Something can be read or written, or it is over."""
        if mask & (EPOLLERR | EPOLLHUP):
            self.close()
            return
        try:
            if mask & EPOLLOUT:
                self._write()
            if mask & EPOLLIN:
                more = self.sock.recv(wire.QUESTION_MOST_BYTES + 2)
                if not more:
                    self.close()
                    return
                self.read += more
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._take()

    def _take(self) -> None:
        """The questions that are there whole, one by one: each waits for the answer to the one before."""
        self.answering = True
        while not self.over and not self.asking and not self.unsent and len(self.read) >= 2:
            size = int.from_bytes(self.read[:2], "big")
            self.questions += 1
            if not wire.HEADER_BYTES <= size <= wire.QUESTION_MOST_BYTES or self.questions > QUESTIONS_MOST:
                self.close()
                break
            if len(self.read) < size + 2:
                self.questions -= 1
                break
            data, self.read = self.read[2 : size + 2], self.read[size + 2 :]
            self.asking = True
            self.deadline_s = self.server.now_s + _ANSWER_S
            self.server.asked_by_stream(self, data)
        self.answering = False
        self._listen()

    def answer(self, message: bytes) -> None:
        """What the question is answered with."""
        if self.over:
            return
        self.asking = False
        self.deadline_s = self.server.now_s + MESSAGE_S
        self.unsent = len(message).to_bytes(2, "big") + message
        try:
            self._write()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self.answering:
            return
        self._take()

    def _write(self) -> None:
        if self.unsent:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]

    def _listen(self) -> None:
        if self.over:
            return
        full = self.asking or len(self.read) > wire.QUESTION_MOST_BYTES + 2
        mask = (0 if full or self.unsent else EPOLLIN) | (EPOLLOUT if self.unsent else 0)
        self.server.change(self.sock.fileno(), mask)

    def close(self) -> None:
        """Over."""
        if self.over:
            return
        self.server.clients.pop(self.sock.fileno(), None)
        self.server.remove(self.sock.fileno())
        self.sock.close()
        self.over = True


def _drop(sock: socket) -> None:
    """Without the minute in which the kernel would remember it."""
    try:
        sock.setsockopt(SOL_SOCKET, _SO_LINGER, b"\1\0\0\0\0\0\0\0")
    except OSError:
        pass
    sock.close()
