"""A stand-in for systemd on its bus: a thread with one connection, which speaks with jeepney's words.

It answers the authentication, Hello and AddMatch as a bus does, and the manager's methods as the test's table says:
a list of replies by method, taken in turn. A reply is a job ("job", RESULT), an error (NAME, TEXT) or values with
their signature. Calls are noted.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from jeepney import (
    DBusAddress,
    MessageFlag,
    MessageType,
    Parser,
    new_error,
    new_method_return,
    new_signal,
)  # fmt: skip

MANAGER = DBusAddress("/org/freedesktop/systemd1", interface="org.freedesktop.systemd1.Manager")
JOBS = "/org/freedesktop/systemd1/job/"


class FakeSystemd:
    """replies: method -> what to answer, the last one again and again. welcome: the lines that
    answer the authentication; none: hang up."""

    def __init__(
        self, path: str, replies: dict[str, list[Any]], welcome: bytes = b"DATA\r\nOK 1234\r\n"
    ) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.greeting = b""
        self._replies, self._welcome, self._serial, self._jobs = replies, welcome, 0, 0
        self._connected: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def called(self, member: str) -> list[tuple[Any, ...]]:
        """The arguments of each call of a method."""
        return [values for name, values in self.calls if name == member]

    def close(self) -> None:
        """Ends the thread first: one that is about to accept would take the caller of the next listener, which gets the
        number of this one's descriptor."""
        for each in (self._listener, *self._connected):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            with connected:
                self._connected = [connected]
                try:
                    self._talk(connected)
                except ConnectionError:
                    continue  # the other side has had enough

    def _talk(self, connected: socket.socket) -> None:
        buffer = b""
        while b"BEGIN\r\n" not in buffer:
            if not (received := connected.recv(4096)):
                raise ConnectionResetError
            buffer += received
        self.greeting, _, buffer = buffer.partition(b"BEGIN\r\n")
        if not self._welcome:
            return
        connected.sendall(self._welcome)
        parser = Parser()
        while True:
            for message in parser.feed(buffer):
                self._answer(connected, message)
            buffer = connected.recv(65536)
            if not buffer:
                return

    def _send(self, connected: socket.socket, message: Any) -> None:
        self._serial += 1
        connected.sendall(message.serialise(serial=self._serial))

    def _answer(self, connected: socket.socket, message: Any) -> None:
        fields = {key.value: value for key, value in message.header.fields.items()}
        member = fields[3]
        self.calls.append((member, tuple(message.body)))
        if message.header.message_type is not MessageType.method_call:
            return
        if member in ("Hello", "AddMatch"):
            if not message.header.flags & MessageFlag.no_reply_expected:
                self._send(connected, new_method_return(message, "s", (":1.7",)))
            return
        table = self._replies.get(member, [("", ())])
        reply = table.pop(0) if len(table) > 1 else table[0]
        if reply[0] == "job":
            self._jobs += 1
            path = f"{JOBS}{self._jobs}"
            removed = (self._jobs, path, str(message.body[0]), reply[1])
            other = (99, f"{JOBS}99", "other.service", "failed")  # everybody's jobs are heard of
            signals = [new_signal(MANAGER, "JobRemoved", "uoss", each) for each in (other, removed)]
            for each in [signals[0], new_method_return(message, "o", (path,)), signals[1]]:
                self._send(connected, each)
        elif "." in reply[0]:
            self._send(connected, new_error(message, reply[0], "s", (reply[1],)))
        else:
            self._send(connected, new_method_return(message, reply[0] or None, tuple(reply[1])))
