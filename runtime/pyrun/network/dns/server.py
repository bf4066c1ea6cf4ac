"""The resolver's loop: what the guard tells, questions by UDP, and everybody's turn.

    guard, descriptor 3   "net NAME GATEWAY GATEWAY6 PORT" with its sockets; "inside CONTAINER" with those in its
                          namespace, where nobody but that container asks; "drop NAME"; "there?"; its end is ours
    to the guard          "mute NAME ADDRESS SECONDS"; "here", the answer that keeps us from being killed; inside.py

A round of the loop takes a few questions from every socket that has some, so that a network where somebody floods
slows the others by that much and no more.
"""

from __future__ import annotations

import gc
import posix
import select
import sys
import time
from _socket import CMSG_SPACE, SO_TYPE, SOCK_DGRAM, SOL_SOCKET, socket
from _struct import unpack
from collections.abc import Callable

from pyrun.network.dns import budget, forward, inside, names, streams, upstream, wire

GUARD_FD = 3
# Whoever has not been asked for so long gives its memory back: the guard starts another for the next question.
IDLE_S = 300.0
_TICK_S = 0.05
_AT_ONCE = 1024
_OF_ONE = 256  # of these, so many from one address
_RECURSION = 160
_MOST_ANSWERS = 512
_MESSAGE_BYTES = 4096

Ready = Callable[[int], None]
Peer = tuple[str, int]


class Server:
    """The loop and what it serves."""

    def __init__(self, run: str, channel: socket, host_file: str = upstream.HOST_FILE) -> None:
        self._channel = channel
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._sockets: dict[str, list[socket]] = {}
        self.names = names.Names(run)
        self.budget = budget.Budget()
        self.forwarder = forward.Forwarder(self, run, upstream.Servers(host_file))
        self.inside = inside.Sockets(self._say)
        self.clients: dict[int, streams.Client] = {}
        self.answered = 0
        self.now_ns = time.monotonic_ns()
        self.now_s = self.asked_s = self.now_ns / 1e9
        channel.setblocking(False)
        self.add(channel.fileno(), select.EPOLLIN, self._told)

    # ── the set of descriptors ─────────────────────────────────────────────────────────────────────

    def add(self, fd: int, mask: int, ready: Ready) -> None:
        """Call *ready* with what happened on *fd*."""
        self._ready[fd] = ready
        self._epoll.register(fd, mask)

    def change(self, fd: int, mask: int) -> None:
        """Wait for something else on *fd*."""
        self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        """Forget *fd*, which is about to be closed."""
        if self._ready.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    # ── the guard ──────────────────────────────────────────────────────────────────────────────────

    def _told(self, mask: int) -> None:
        del mask
        try:
            data, control, _, _ = self._channel.recvmsg(_MESSAGE_BYTES, CMSG_SPACE(4 * 4))
        except BlockingIOError:
            return
        if not data:
            posix._exit(0)
        if data == b"there?":
            self._say(b"here")
            return
        fds = [fd for _, _, rights in control for fd in unpack(f"{len(rights) // 4}i", rights)]
        verb, name, *rest = data.decode().split("\t")
        sockets = [socket(fileno=fd) for fd in fds]
        if verb == "socket":
            self.inside.came(rest[-1], sockets)
            return
        self._drop(name)
        if verb == "inside":
            self.names.add_container(name)
        elif verb == "net":
            self.names.add(name, rest[:2])
        self._serve(name, sockets)

    def _serve(self, network: str, sockets: list[socket]) -> None:
        self._sockets[network] = sockets
        self.forwarder.servers.own = set(self.names.gateways)
        for sock in sockets:
            if sock.getsockopt(SOL_SOCKET, SO_TYPE) == SOCK_DGRAM:
                ready = self._datagrams(sock, network)
            else:
                ready = streams.Listener(self, sock, network).ready
            self.add(sock.fileno(), select.EPOLLIN, ready)

    def _drop(self, network: str) -> None:
        for sock in self._sockets.pop(network, []):
            self.remove(sock.fileno())
            sock.close()
        for client in [each for each in self.clients.values() if each.network == network]:
            client.close()
        self.names.forget(network)
        self.forwarder.forget(network)

    def _mute(self, network: str, source: str, seconds: int) -> None:
        address = names.INSIDE if source == network else source
        self._say(f"mute\t{network}\t{address}\t{seconds}".encode())

    def _say(self, words: bytes) -> bool:
        try:
            self._channel.send(words)
        except OSError:  # gone, or it does not read
            return False
        return True

    # ── questions ──────────────────────────────────────────────────────────────────────────────────

    def _datagrams(self, sock: socket, network: str) -> Ready:
        """What to do when questions wait on a UDP socket: the way everything else is measured by."""
        view_of, receive, send = self.names.view, sock.recvfrom, sock.sendto
        drained, alone = self._drained, self.names.alone(network)

        def ready(mask: int) -> None:
            del mask
            now_ns = self.now_ns
            for data, peer in drained(receive, network, alone):
                source = alone or peer[0]
                view = view_of(source, network, now_ns)
                if view is None:
                    continue
                known = view.answers.get(data[2:])
                if known is None:
                    self._asked(data, source, network, view, _by_datagram(sock, peer), False)
                    continue
                self.answered += 1
                try:
                    send(data[:2] + _next(known), peer)
                except OSError:  # gone, or its queue is full: it asks again
                    continue

        return ready

    def _drained(
        self, receive: Callable[[int], tuple[bytes, Peer]], network: str, alone: str
    ) -> list[tuple[bytes, Peer]]:
        """The datagrams that wait, all of them but those of whoever sends too many: the queue is everybody's, so it
        is emptied faster than one can fill it. alone: the container whose queue it is, "" if it is everybody's."""
        spent, allowance = self.budget.spent, self.budget
        questions: list[tuple[bytes, Peer]] = []
        for _ in range(_AT_ONCE):
            try:
                data, peer = receive(wire.QUESTION_MOST_BYTES + 1)
            except OSError:  # no more; or a word about an answer that did not arrive
                break
            source = alone or peer[0]
            cost = spent[source] = spent.get(source, 0) + 1
            if cost < budget.FLOOD:
                questions.append((data, peer))
            elif seconds := allowance.mutes(source, self.now_s):
                self._mute(network, source, seconds)
        if len(questions) <= _OF_ONE:
            return questions
        if alone:
            spent[alone] += (len(questions) - _OF_ONE) * budget.EXCESS_COST
            return questions[:_OF_ONE]
        return _fair(questions, spent)

    def asked_by_stream(self, client: streams.Client, data: bytes) -> None:
        """A question that came by TCP."""
        source, network = client.source, client.network
        view = self.names.view(source, network, self.now_ns)
        known = view.answers.get(data[2:]) if view is not None else None
        if known is not None:
            self.answered += 1
            client.answer(data[:2] + _next(known))
        elif view is None or not self._asked(data, source, network, view, client.answer, True):
            client.close()

    def _asked(
        self, data: bytes, source: str, network: str, view: names.View, reply: forward.Reply, stream: bool
    ) -> bool:
        """A question that has to be read. False: dropped."""
        self.asked_s = self.now_s
        if not self.budget.may_read(source):
            return False
        try:
            asked = wire.question(data)
        except wire.Malformed as problem:
            if problem.rcode < 0:
                return False
            reply(data[:2] + wire.complaint(data, problem.rcode))
            return True
        known = self._of_ours(asked, view)
        if not known and self.names.look(self.now_ns):
            found = self.names.view(source, network, self.now_ns)
            if found is None:
                return False
            view, known = found, self._of_ours(asked, found)
        if not known:
            self.forwarder.forward(asked, view, source, reply, stream)
            return True
        first = posix.urandom(1)[0] % len(known)
        known = known[first:] + known[:first]
        if len(view.answers) < _MOST_ANSWERS:
            view.answers[data[2:]] = known
        self.answered += 1
        reply(data[:2] + _next(known))
        return True

    def _of_ours(self, asked: wire.Question, view: names.View) -> list[bytes]:
        """Answers we know; one that cannot be written fails alone, since all networks are answered here."""
        try:
            return names.answers(asked, view, self.names)
        except wire.UNREADABLE:
            return [wire.empty(asked, wire.SERVFAIL)]

    # ── the loop ───────────────────────────────────────────────────────────────────────────────────

    def round(self, most_s: float = 60.0) -> None:
        """Wait for something, handle it, look at the clock."""
        busy = self.forwarder.pending or self.clients
        happened = self._epoll.poll(min(most_s, _TICK_S) if busy else most_s)
        self.now_ns = time.monotonic_ns()
        self.now_s = self.now_ns / 1e9
        self.budget.renew(self.now_s)
        for fd, mask in happened:
            ready = self._ready.get(fd)
            if ready is not None:
                ready(mask)
        if busy:
            self.forwarder.tick()
            for client in [each for each in self.clients.values() if each.deadline_s <= self.now_s]:
                client.close()


def _fair(questions: list[tuple[bytes, Peer]], spent: dict[str, int]) -> list[tuple[bytes, Peer]]:
    """Those of whoever asks least first, and few enough of each: the rest is dropped, and charged for."""
    by_source: dict[str, list[tuple[bytes, Peer]]] = {}
    for each in questions:
        by_source.setdefault(each[1][0], []).append(each)
    for source, some in by_source.items():
        spent[source] += max(0, len(some) - _OF_ONE) * budget.EXCESS_COST
    return [each for some in sorted(by_source.values(), key=len) for each in some[:_OF_ONE]]


def _next(known: list[bytes]) -> bytes:
    """The answer whose turn it is. Each question of each client has turns of its own, which begin anywhere: most ask
    for both kinds of address each time, and many only once."""
    if len(known) > 1:
        known.append(known.pop(0))
    return known[-1]


def _by_datagram(sock: socket, peer: Peer) -> forward.Reply:
    def reply(message: bytes) -> None:
        try:
            sock.sendto(message, peer)
        except OSError:  # gone, or its queue is full: it asks again
            pass

    return reply


def main(words: list[str]) -> None:
    """Serve until the guard ends, or nobody has asked for IDLE_S."""
    _, run = words
    server = Server(run, socket(fileno=GUARD_FD))
    sys.setrecursionlimit(_RECURSION)
    gc.collect()
    gc.freeze()
    seen = -1
    while True:
        server.round()
        if server.answered != seen:
            seen, server.asked_s = server.answered, server.now_s
        if server.now_s - server.asked_s > IDLE_S:
            posix._exit(0)
