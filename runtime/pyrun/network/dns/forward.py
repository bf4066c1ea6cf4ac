"""Questions that go outside: sent to one server after the other until one answers, by UDP or TCP as they came.

    forward ─► policy, cache ─► the same question under way? ─► a socket of its own, a random id ─► server 1
                                                                 SERVFAIL, refused ─► server 2 at once
                                                                 silence ─► server 2 after a second, 1 still listened to
    whoever waits for it gets the answer; after 4.5 s or two rounds, SERVFAIL

A socket a question and server, connected: the kernel chooses a random port and drops what comes from elsewhere; what
does come must have the id and the question. So an answer can only be forged by who reads the wire.
"""

from __future__ import annotations

import posix
from _socket import SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM, socket
from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Any

from pyrun.network.dns import cache, egress_view, names, upstream, wire

_PORT = 53
PATIENCE_S = 1.0  # with one server
TOGETHER_S = 4.5  # with all of them: below the 5 s for which clients wait
_ROUNDS = 2
MOST_PENDING = 1024
MOST_OF_ONE = 64
_MOST_WAITERS = 64

Reply = Callable[[bytes], None]


class Waiter:
    """Somebody who waits: id of the question, how to answer, who it is."""

    __slots__ = ("asked", "policy", "reply", "source", "stream")

    def __init__(self, asked: wire.Question, reply: Reply, source: str, policy: Any, stream: bool) -> None:
        self.asked, self.reply, self.source, self.policy, self.stream = asked, reply, source, policy, stream


class Attempt:
    """One question to one server."""

    __slots__ = ("message", "read", "server", "sock", "unsent")

    def __init__(self, sock: socket, server: str, message: bytes, stream: bool) -> None:
        self.sock, self.server, self.message = sock, server, message
        self.unsent = len(message).to_bytes(2, "big") + message if stream else b""
        self.read = b""


class Pending:
    """One question and all its attempts."""

    __slots__ = (
        "at", "attempts", "end_s", "failed", "inside", "key", "last", "message", "next_s", "servers", "stream",
        "waiters",
    )  # fmt: skip

    def __init__(
        self, key: cache.Key, servers: tuple[str, ...], inside: str, stream: bool, now_s: float
    ) -> None:
        self.key, self.servers, self.stream, self.message = key, servers, stream, key[1]
        self.inside = inside  # the container from whose namespace they are asked, "" for the host's
        self.end_s, self.next_s = now_s + TOGETHER_S, now_s
        self.at = 0
        self.attempts: dict[int, Attempt] = {}
        self.failed: set[str] = set()
        self.waiters: list[Waiter] = []
        self.last = b""


class Forwarder:
    """All questions under way. *loop*: add(fd, mask, ready), change(fd, mask), remove(fd), now_s, inside."""

    def __init__(self, loop: Any, run: str, servers: upstream.Servers) -> None:
        self._loop = loop
        self.servers = servers
        self._cache = cache.Cache()
        self._policies = egress_view.Policies(run)
        self.pending: dict[tuple[cache.Key, bool], Pending] = {}
        self._of: dict[str, int] = {}

    def forward(
        self, asked: wire.Question, view: names.View, source: str, reply: Reply, stream: bool
    ) -> None:
        """Have *asked* answered from outside; *reply* is called now or later, or never when we drown in questions."""
        now_s = self._loop.now_s
        try:
            if view.internal:
                raise egress_view.Forbidden(asked.name)
            policy = self._policies.asked(view.owner, asked.name)
        except egress_view.Forbidden:
            # musl overlooks REFUSED, waits 5 s and gives its search list up: no short name would be found. The host
            # has other servers, which are to be asked instead.
            rcode = wire.NXDOMAIN if view.owner else wire.REFUSED
            reply(asked.raw[:2] + wire.empty(asked, rcode))
            return
        waiter = Waiter(asked, reply, source, policy, stream)
        key = ((*view.dns, view.inside) if view.dns and view.inside else view.dns, wire.forwarded(asked))
        known = self._cache.get(key, now_s)
        if known is not None:
            self._tell(waiter, known[0], known[1])
            return
        self._enqueue(key, view, waiter)

    def _enqueue(self, key: cache.Key, view: names.View, waiter: Waiter) -> None:
        now_s, source, stream = self._loop.now_s, waiter.source, waiter.stream
        pending = self.pending.get((key, stream))
        if pending is not None and len(pending.waiters) < _MOST_WAITERS:
            pending.waiters.append(waiter)
            self._of[source] = self._of.get(source, 0) + 1
            return
        servers = self.servers.of(view.dns, now_s)
        if view.inside and view.dns:  # there, that is ourselves
            servers = tuple([server for server in servers if server != names.INSIDE])
        crowded = self._of.get(source, 0) >= MOST_OF_ONE or len(self.pending) >= MOST_PENDING
        if not servers or crowded or pending is not None:
            waiter.reply(waiter.asked.raw[:2] + wire.empty(waiter.asked, wire.SERVFAIL))
            return
        inside = view.inside if view.dns else ""  # the host's servers are the host's to ask
        pending = self.pending[(key, stream)] = Pending(key, servers, inside, stream, now_s)
        pending.waiters.append(waiter)
        self._of[source] = self._of.get(source, 0) + 1
        self._next(pending)

    # ── attempts ───────────────────────────────────────────────────────────────────────────────────

    def _next(self, pending: Pending) -> None:
        """Ask the next server; when there is none left, what came last is the answer."""
        while pending.at < _ROUNDS * len(pending.servers):
            server = pending.servers[pending.at % len(pending.servers)]
            pending.at += 1
            if server in pending.failed:
                continue
            if self._ask(pending, server):
                pending.next_s = self._loop.now_s + PATIENCE_S
                return
            pending.failed.add(server)
        pending.next_s = pending.end_s
        if not pending.attempts or len(pending.failed) == len(pending.servers):
            self._finish(pending, pending.last)

    def _ask(self, pending: Pending, server: str) -> bool:
        if pending.inside:

            def given(sock: socket | None) -> None:
                self._given(pending, server, sock)

            return bool(
                self._loop.inside.ask(pending.inside, stream=pending.stream, six=":" in server, given=given)
            )
        kind = SOCK_STREAM if pending.stream else SOCK_DGRAM
        try:
            sock = socket(upstream.family(server), kind | SOCK_NONBLOCK | SOCK_CLOEXEC)
        except OSError:
            return False
        return self._send(pending, server, sock)

    def _given(self, pending: Pending, server: str, sock: socket | None) -> None:
        """A socket of the container's namespace, None: there is none to be had."""
        if self.pending.get((pending.key, pending.stream)) is not pending:  # too late
            if sock is not None:
                sock.close()
        elif sock is None or not self._send(pending, server, sock):
            pending.failed.add(server)
            self._next(pending)

    def _send(self, pending: Pending, server: str, sock: socket) -> bool:
        message = posix.urandom(2) + pending.message
        try:
            sock.connect(upstream.place(server, _PORT))
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            return False
        attempt = Attempt(sock, server, message, pending.stream)
        try:
            if not pending.stream:
                sock.send(message)
        except OSError:
            sock.close()
            return False
        pending.attempts[sock.fileno()] = attempt

        def ready(mask: int) -> None:
            self._ready(pending, attempt, mask)

        self._loop.add(sock.fileno(), EPOLLOUT if pending.stream else EPOLLIN, ready)
        return True

    def _ready(self, pending: Pending, attempt: Attempt, mask: int) -> None:
        try:
            data = self._read_stream(attempt, mask) if pending.stream else attempt.sock.recv(65535)
        except BlockingIOError:
            return
        except OSError:
            self._failed(pending, attempt, b"")
            return
        if not data or (not pending.stream and not wire.is_reply(data, attempt.message)):
            return  # not all of it yet; or not what we asked, from a server that answers twice or somebody who guesses
        if pending.stream and not wire.is_reply(data, attempt.message):
            self._failed(pending, attempt, b"")
            return
        self.servers.note(attempt.server, answered=True, now_s=self._loop.now_s)
        if wire.rcode(data) in wire.FAILURES:
            self._failed(pending, attempt, data)
        else:
            self._finish(pending, data)

    def _read_stream(self, attempt: Attempt, mask: int) -> bytes:
        """The whole answer, or b"" while it is not there. Raises OSError."""
        if attempt.unsent:
            if mask & (EPOLLERR | EPOLLHUP):
                raise OSError
            attempt.unsent = attempt.unsent[attempt.sock.send(attempt.unsent) :]
            if not attempt.unsent:
                self._loop.change(attempt.sock.fileno(), EPOLLIN)
            return b""
        more = attempt.sock.recv(65535)
        if not more:
            raise OSError
        attempt.read += more
        size = int.from_bytes(attempt.read[:2], "big") if len(attempt.read) > 1 else 1 << 16
        return attempt.read[2 : size + 2] if len(attempt.read) >= size + 2 else b""

    def _failed(self, pending: Pending, attempt: Attempt, data: bytes) -> None:
        """This server will not do: the next one, without waiting."""
        if not data:
            self.servers.note(attempt.server, answered=False, now_s=self._loop.now_s)
        pending.last = data or pending.last
        pending.failed.add(attempt.server)
        self._close(pending, attempt)
        if len(pending.failed) == len(pending.servers):
            self._finish(pending, pending.last)
        else:
            self._next(pending)

    def _close(self, pending: Pending, attempt: Attempt) -> None:
        self._loop.remove(attempt.sock.fileno())
        pending.attempts.pop(attempt.sock.fileno(), None)
        attempt.sock.close()

    # ── the end ────────────────────────────────────────────────────────────────────────────────────

    def tick(self) -> None:
        """What has waited long enough."""
        now_s = self._loop.now_s
        for pending in list(self.pending.values()):
            if now_s >= pending.end_s:
                self._finish(pending, pending.last)
            elif now_s >= pending.next_s:
                for attempt in pending.attempts.values():
                    self.servers.note(attempt.server, answered=False, now_s=now_s)
                self._next(pending)

    def _finish(self, pending: Pending, data: bytes) -> None:
        for attempt in list(pending.attempts.values()):
            self._close(pending, attempt)
        self.pending.pop((pending.key, pending.stream), None)
        addresses: list[cache.Address] = []
        if data and wire.rcode(data) not in wire.FAILURES:
            life_s, addresses = wire.told(data)
            if not wire.is_truncated(data):
                self._cache.put(pending.key, data[2:], addresses, life_s, self._loop.now_s)
        for waiter in pending.waiters:
            left = self._of.get(waiter.source, 1) - 1
            if left > 0:
                self._of[waiter.source] = left
            else:
                self._of.pop(waiter.source, None)
            answer = wire.repeated(data, waiter.asked) or wire.empty(waiter.asked, wire.SERVFAIL)
            self._tell(waiter, answer, addresses)

    def forget(self, container: str) -> None:
        """Nothing more is asked from inside a container that has ended: a socket would keep its namespace alive, and
        with it an interface that answers for an address which is somebody else's by now."""
        for pending in [each for each in self.pending.values() if each.inside == container]:
            self._finish(pending, b"")

    def _tell(self, waiter: Waiter, answer: bytes, addresses: list[cache.Address]) -> None:
        """The firewall first: whoever gets an address may use it at once."""
        if waiter.policy is not None:
            try:
                self._policies.admit(waiter.source, waiter.policy, waiter.asked.name, addresses)
            except PermissionError:
                posix._exit(1)  # the guard starts one that may
            except OSError:
                answer = wire.empty(waiter.asked, wire.SERVFAIL)
        message = waiter.asked.raw[:2] + answer
        fits = waiter.stream or len(message) <= waiter.asked.room
        waiter.reply(message if fits else wire.truncated(message))
