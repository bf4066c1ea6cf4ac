"""The connection to systemd by D-Bus, as a start with the systemd driver needs it: call a method, wait for a job's end.

    client                                              bus
      AUTH EXTERNAL, BEGIN, Hello, AddMatch, the call ────►      all in one go: nothing of it waits for an answer
      ◄──── OK, replies; the call's own is the path of a job
      ◄──── JobRemoved(number, path, unit, result)               when systemd is done

Messages: bus_messages.py; calls that are not of a start or an end: bus_library.py.
Source: D-Bus specification (authentication, addresses), org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import posix
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket
from _struct import unpack_from

from pyrun.errors import PyrunError

from .bus_messages import (
    ERROR,
    ERROR_NAME,
    MEMBER,
    METHOD_RETURN,
    NO_REPLY_EXPECTED,
    REPLY_SERIAL,
    SIGNAL,
    Incoming,
    message,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    To = tuple[str, str, str]  # destination, object, interface

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
PATIENCE_S = 30.0  # as runc's
MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
DRIVER = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
JOB_REMOVED = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'"


class Refused(PyrunError):
    """A call that was answered by an error. name: org.freedesktop..."""

    def __init__(self, name: str, text: str, member: str) -> None:
        super().__init__(f"systemd refused {member}: {text or name}")
        self.name, self.text = name, text


class Bus:
    """A connection. `send` goes out with the next `wait`; jobs: path -> result of those that are over."""

    __slots__ = ("buffer", "jobs", "outgoing", "serial", "socket")

    def __init__(self, connected: Any, greet: bool = True) -> None:
        self.socket, self.serial = connected, 0
        self.buffer, self.jobs = b"", dict[str, str]()
        # who we are the kernel tells them, which is right in a user namespace too
        self.outgoing = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"
        connected.settimeout(PATIENCE_S)
        if greet:
            self.send(DRIVER, "Hello")
            self.send(DRIVER, "AddMatch", "s", (JOB_REMOVED,), NO_REPLY_EXPECTED)

    def send(
        self, to: To, member: str, signature: str = "", values: tuple[Any, ...] = (), flags: int = 0
    ) -> int:
        """Queue a call; returns its serial number."""
        self.serial += 1
        self.outgoing += message(self.serial, to, member, signature, values, flags)
        return self.serial

    def call(self, member: str, signature: str, *values: Any) -> Incoming:
        """Call a method of systemd's and wait for its answer. Raises Refused, PyrunError."""
        return self.answer(self.send(MANAGER, member, signature, values), member)

    def answer(self, serial: int, member: str) -> Incoming:
        """The answer to the call *serial*."""
        while True:
            incoming = self.receive(member)
            if incoming.fields.get(REPLY_SERIAL) == serial and incoming.kind == METHOD_RETURN:
                return incoming
            if incoming.kind == ERROR and incoming.fields.get(REPLY_SERIAL) in (serial, 1):
                text = (incoming.texts() or [""])[0]
                raise Refused(str(incoming.fields.get(ERROR_NAME)), text, member)

    def job(self, path: str, member: str) -> str:
        """Wait until the job *path* is over: done, canceled, timeout, failed, dependency, skipped."""
        deadline = time.monotonic() + PATIENCE_S
        while path not in self.jobs:
            if time.monotonic() > deadline:
                raise PyrunError(f"systemd did not finish {member} within {PATIENCE_S:.0f} s")
            self.receive(member)
        return self.jobs.pop(path)

    def receive(self, doing: str) -> Incoming:
        """The next message, whichever it is; a JobRemoved is noted in jobs."""
        try:
            if self.outgoing:
                self.socket.sendall(self.outgoing)
                self.outgoing = b""
            data = self._whole()
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else error.strerror
            raise PyrunError(f"the bus to systemd broke while it was to {doing}: {reason}") from None
        incoming = Incoming(data)
        if incoming.kind == SIGNAL and incoming.fields.get(MEMBER) == "JobRemoved":
            path, _, result = (*incoming.texts(skip=4), "", "", "")[:3]
            self.jobs[path] = result
        return incoming

    def _whole(self) -> bytes:
        """One message off the stream, behind the lines of the authentication."""
        while True:
            if self.buffer[:1] in (b"l", b"B"):
                if len(self.buffer) >= 16:
                    order = "<" if self.buffer[:1] == b"l" else ">"
                    body, fields = (unpack_from(order + "I", self.buffer, at)[0] for at in (4, 12))
                    size = 16 + fields + -fields % 8 + body
                    if len(self.buffer) >= size:
                        data, self.buffer = self.buffer[:size], self.buffer[size:]
                        return data
            elif b"\r\n" in self.buffer:
                line, _, self.buffer = self.buffer.partition(b"\r\n")
                if line[:3] not in (b"DAT", b"OK ", b"AGR"):
                    raise PyrunError(
                        f"the bus to systemd does not let us in: {line.decode('ascii', 'replace')!r:.60}"
                    )
                continue
            got = self.socket.recv(65536)
            if not got:
                raise ConnectionResetError(104, "it was closed")
            self.buffer += got

    def close(self) -> None:
        """Leave the bus."""
        self.socket.close()


def address(*, user: bool) -> str:
    """The address of the system's bus, or of the user's own. Raises PyrunError when the user has none."""
    if not user:
        return _environment(b"DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS
    if given := _environment(b"DBUS_SESSION_BUS_ADDRESS"):
        return given
    if runtime := _environment(b"XDG_RUNTIME_DIR"):
        return f"unix:path={runtime}/bus"
    raise PyrunError(
        "--systemd-cgroup: there is no bus to the user's systemd",
        "$DBUS_SESSION_BUS_ADDRESS or $XDG_RUNTIME_DIR must say where; log in anew, or loginctl enable-linger",
    )


def _environment(name: bytes) -> str:
    return posix.environ.get(name, b"").decode("utf-8", "surrogateescape")


def sockets(text: str) -> list[str | bytes]:
    """What to connect to for an address: `unix:path=/run/bus,guid=...;unix:abstract=...`."""
    found: list[str | bytes] = []
    for each in text.split(";"):
        transport, _, rest = each.partition(":")
        keys = dict(pair.split("=", 1) for pair in rest.split(",") if "=" in pair)
        if transport == "unix" and "path" in keys:
            found.append(_unescaped(keys["path"]))
        elif transport == "unix" and "abstract" in keys:
            found.append(b"\0" + _unescaped(keys["abstract"]).encode())
    return found


def _unescaped(text: str) -> str:
    head, *rest = text.split("%")
    return head + "".join([chr(int(part[:2], 16)) + part[2:] for part in rest])


def connect(*, user: bool) -> Bus:
    """Connect to the bus where systemd listens. Raises PyrunError."""
    where = address(user=user)
    reason = "no unix:path= in it"
    for target in sockets(where):
        connected = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            connected.connect(target)
            return Bus(connected)
        except OSError as error:
            reason = str(error.strerror)
            connected.close()
    raise PyrunError(
        f"--systemd-cgroup: cannot reach systemd by {where:.120}: {reason}",
        "is this host run by systemd? if not: no --systemd-cgroup, and a linux.cgroupsPath with slashes",
    )
