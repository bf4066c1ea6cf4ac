"""The resolver's loop with real sockets on loopback addresses: forwarding, its failures, and hostile clients."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from name_server import (
    FORMERR,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    TYPE_AAAA,
    Answer,
    Networks,
    edns,
    question,
    received,
)
from pyrun.network.dns import budget, forward, streams
from pyrun.network.dns.server import Server

GATEWAY, INNER, CLIENT, OTHER, WEB = "127.53.0.1", "127.53.1.1", "127.53.0.9", "127.53.0.8", "127.53.0.2"
UPSTREAMS = ("127.53.9.1", "127.53.9.2", "127.53.9.3")
A_RECORD = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4"


def bound(address: str, kind: int, port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.settimeout(5)
    sock.bind((address, port))
    return sock


def both(address: str) -> tuple[socket.socket, socket.socket]:
    """One port of both kinds: the one that is free for datagrams may be somebody's for connections."""
    for _ in range(20):
        datagrams = bound(address, socket.SOCK_DGRAM)
        try:
            return datagrams, bound(address, socket.SOCK_STREAM, datagrams.getsockname()[1])
        except OSError as error:
            datagrams.close()
            if error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("no port is free")


class Upstream:
    """A name server that answers by *behave*(question) -> messages to send back."""

    def __init__(self, address: str, port: int) -> None:
        self.behave: Callable[[bytes], list[bytes]] = lambda data: [good(data)]
        self.asked: list[bytes] = []
        self.sock = bound(address, socket.SOCK_DGRAM, port)
        self.sock.setblocking(False)

    def serve(self) -> None:
        try:
            data, peer = self.sock.recvfrom(65535)
        except BlockingIOError:
            return
        self.asked.append(data)
        for message in self.behave(data):
            self.sock.sendto(message, peer)


def good(data: bytes, address: bytes = b"\xc0\0\2\1", flags: bytes = b"\x81\x80") -> bytes:
    """An answer with one address."""
    end = data.index(b"\0", 12) + 5
    return data[:2] + flags + b"\0\1\0\1\0\0\0\0" + data[12:end] + A_RECORD + address


def failed(data: bytes, rcode: int = SERVFAIL) -> bytes:
    return data[:2] + bytes([0x81, 0x80 | rcode]) + data[4:]


class Place:
    """A server, its two networks and three name servers outside; everything happens in `go`."""

    def __init__(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        networks = Networks(run)
        networks.network("front", GATEWAY)
        networks.network("inner", INNER, internal=True)
        for address, name in ((CLIENT, "client"), (OTHER, "other"), (WEB, "web")):
            networks.lease("front", address, f"{name:0>64}", f"name {name}")
        networks.lease("inner", "127.53.1.9", "e" * 64, "name hidden")
        self.networks = networks
        first = bound(UPSTREAMS[0], socket.SOCK_DGRAM)
        port = first.getsockname()[1]
        first.close()
        monkeypatch.setattr(forward, "_PORT", port)
        self.upstreams = [Upstream(address, port) for address in UPSTREAMS]
        resolv = run / "resolv.conf"
        resolv.write_text("".join(f"nameserver {address}\n" for address in UPSTREAMS))
        own, self.guard = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server = Server(str(run), socket.socket(fileno=own.detach()), str(resolv))
        self.ports = {}
        for name, gateway in (("front", GATEWAY), ("inner", INNER)):
            datagrams, stream = both(gateway)
            self.ports[name] = datagrams.getsockname()[1]
            stream.listen(512)
            datagrams.setblocking(False)
            stream.setblocking(False)
            message = f"net\t{name}\t{gateway}\t\t{self.ports[name]}".encode()
            socket.send_fds(self.guard, [message], [datagrams.fileno(), stream.fileno()])
            datagrams.close()
            stream.close()
            self.server.round(1)

    def go(self, seconds: float = 5.0, until: Callable[[], bool] = lambda: False) -> None:
        """Rounds of the loop, and turns of the servers outside."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            self.server.round(0.002)
            for each in self.upstreams:
                each.serve()

    def ask(
        self, data: bytes, source: str = CLIENT, network: str = "front", seconds: float = 6.0
    ) -> Answer | None:
        """The answer, None when there is none in time."""
        gateway = GATEWAY if network == "front" else INNER
        with bound(source, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(data, (gateway, self.ports[network]))
            got: list[bytes] = []

            def arrived() -> bool:
                try:
                    got.append(sock.recv(65535))
                except BlockingIOError:
                    return False
                return True

            self.go(seconds, arrived)
        return Answer(got[0]) if got else None

    def connect(self, source: str = CLIENT) -> socket.socket:
        sock = bound(source, socket.SOCK_STREAM)
        sock.connect((GATEWAY, self.ports["front"]))
        return sock

    def close(self) -> None:
        for fd in list(self.server._ready):
            self.server.remove(fd)
        for client in list(self.server.clients.values()):
            client.close()
        for pending in list(self.server.forwarder.pending.values()):
            self.server.forwarder._finish(pending, b"")
        for sock in [sock for sockets in self.server._sockets.values() for sock in sockets]:
            sock.close()
        self.server._channel.close()
        self.server._epoll.close()
        self.guard.close()
        for each in self.upstreams:
            each.sock.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(tmp_path, monkeypatch)
    yield made
    made.close()


def values(answer: Answer | None) -> list[str]:
    assert answer is not None, "no answer"
    return answer.values


# ── names and forwarding ───────────────────────────────────────────────────────────────────────────


def test_a_name_of_ours(place: Place) -> None:
    for _ in range(3):
        assert values(place.ask(question("web"))) == [WEB]
    assert not any(each.asked for each in place.upstreams)


def test_an_answer_that_cannot_be_written_fails_alone(place: Place) -> None:
    """A claim that no start of ours wrote: neither an address nor a reason to end for all."""
    place.networks.lease("front", "127.53.0.300", "f" * 64, "name broken")
    answer = place.ask(question("broken"))
    assert answer is not None and answer.rcode == SERVFAIL
    assert values(place.ask(question("web"))) == [WEB]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_several_addresses_take_turns(place: Place, count: int) -> None:
    """For a client that asks for both kinds of address each time, as a C library does."""
    for number in range(count):
        place.networks.lease(
            "front", f"127.53.0.{20 + number}", f"{number:064x}", f"name db{number}", "alias db"
        )
    first = []
    for _ in range(2 * count):
        first.append(values(place.ask(question("db")))[0])
        assert values(place.ask(question("db", TYPE_AAAA))) == []
    assert len(set(first[:count])) == count and first[:count] == first[count:]


def test_clients_that_ask_once_get_different_addresses(place: Place) -> None:
    for number in range(2):
        place.networks.lease(
            "front", f"127.53.0.{20 + number}", f"{number:064x}", f"name db{number}", "alias db"
        )
    first = set()
    # one address for all of them: once in 2 ** 39
    clients = [f"127.53.0.{100 + number}" for number in range(40)]
    for client in clients:
        place.networks.lease("front", client, f"{client[-3:]:f>64}", f"name c{client[-3:]}")
    for client in clients:
        first.add(values(place.ask(question("db"), client))[0])
    assert first == {"127.53.0.20", "127.53.0.21"}


def test_the_outside_is_asked_once_and_remembered_for_a_moment(place: Place) -> None:
    for ident in range(5):
        answer = place.ask(question("x.example", ident=ident))
        assert answer is not None and answer.ident == ident and answer.values == ["192.0.2.1"]
    assert len(place.upstreams[0].asked) == 1 and not place.upstreams[1].asked
    assert values(place.ask(question("x.example", extra=edns(1232)))) == ["192.0.2.1"]
    assert len(place.upstreams[0].asked) == 2, "asked in another way"


def test_a_question_under_way_is_not_asked_twice(place: Place) -> None:
    place.upstreams[0].behave = lambda data: []
    with bound(CLIENT, socket.SOCK_DGRAM) as sock, bound(OTHER, socket.SOCK_DGRAM) as another:
        for ident in range(10):
            sock.sendto(question("x.example", ident=ident), (GATEWAY, place.ports["front"]))
        another.sendto(question("x.example", ident=99), (GATEWAY, place.ports["front"]))
        place.go(2.0, lambda: len(place.upstreams[1].asked) > 0)
        place.go(0.2)
        assert {Answer(sock.recv(600)).ident for _ in range(10)} == set(range(10))
        assert Answer(another.recv(600)).ident == 99
    assert len(place.upstreams[0].asked) == 1


@pytest.mark.parametrize("rcode", [SERVFAIL, REFUSED, FORMERR])
def test_a_server_that_fails_gives_way_to_the_next_at_once(place: Place, rcode: int) -> None:
    place.upstreams[0].behave = lambda data: [failed(data, rcode)]
    began = time.monotonic()
    assert values(place.ask(question("x.example"))) == ["192.0.2.1"]
    assert time.monotonic() - began < 0.5 and len(place.upstreams[1].asked) == 1


def test_a_server_that_does_not_know_edns_is_not_waited_for(place: Place) -> None:
    for each in place.upstreams:
        each.behave = lambda data: [data[:2] + bytes([0x81, FORMERR]) + bytes(8)]
    began = time.monotonic()
    answer = place.ask(question("x.example", extra=edns(1232)))
    assert answer is not None and answer.rcode == FORMERR, "so that the client asks again without"
    assert time.monotonic() - began < 0.5
    assert answer.data[4:] == bytes([0, 1]) + bytes(6) + question("x.example")[12:], (
        "which has to recognise it"
    )


def test_no_such_name_is_an_answer(place: Place) -> None:
    place.upstreams[0].behave = lambda data: [failed(data, NXDOMAIN)]
    answer = place.ask(question("x.example"))
    assert answer is not None and answer.rcode == NXDOMAIN and not place.upstreams[1].asked


def test_when_all_fail_their_last_word_is_the_answer(place: Place) -> None:
    for each in place.upstreams:
        each.behave = lambda data: [failed(data)]
    answer = place.ask(question("x.example"))
    assert answer is not None and answer.rcode == SERVFAIL
    assert [len(each.asked) for each in place.upstreams] == [1, 1, 1]


def test_a_silent_server_costs_a_second_once(place: Place) -> None:
    place.upstreams[0].behave = lambda data: []
    began = time.monotonic()
    assert values(place.ask(question("x.example"))) == ["192.0.2.1"]
    assert 0.8 < time.monotonic() - began < 2.0
    began = time.monotonic()
    assert values(place.ask(question("y.example"))) == ["192.0.2.1"]
    assert time.monotonic() - began < 0.5, "who was silent is asked last"


def test_a_port_where_nobody_listens_costs_nothing(place: Place) -> None:
    place.upstreams[0].sock.close()
    began = time.monotonic()
    place.upstreams[0] = place.upstreams[1]
    assert values(place.ask(question("x.example"))) == ["192.0.2.1"]
    assert time.monotonic() - began < 0.5


def test_nobody_answers(place: Place) -> None:
    for each in place.upstreams:
        each.behave = lambda data: []
    began = time.monotonic()
    answer = place.ask(question("x.example"))
    assert answer is not None and answer.rcode == SERVFAIL
    assert time.monotonic() - began < 5.0, "before the client gives up"
    assert not place.server.forwarder.pending and not place.server.forwarder._of


def test_an_answer_that_comes_late_is_taken_too(place: Place) -> None:
    late: list[tuple[bytes, object]] = []
    first = place.upstreams[0]

    def hold(data: bytes) -> list[bytes]:
        late.append((data, None))
        return []

    first.behave = hold
    place.upstreams[1].behave = place.upstreams[2].behave = lambda data: first_answers() or []

    def first_answers() -> None:
        peer = next(iter(place.server.forwarder.pending.values())).attempts
        ports = [attempt.sock.getsockname() for attempt in peer.values() if attempt.server == UPSTREAMS[0]]
        first.sock.sendto(good(late[0][0]), ports[0])

    assert values(place.ask(question("x.example"))) == ["192.0.2.1"]


def test_forged_answers_are_not_believed(place: Place) -> None:
    """The right sender with a wrong id or question; and the right message from a wrong sender."""

    def forge(data: bytes) -> list[bytes]:
        wrong_id = bytes([data[0] ^ 1]) + data[1:]
        return [good(wrong_id, b"\6\6\6\6"), good(data.replace(b"example", b"exbmple"), b"\6\6\6\6"), data, b"",
                b"\0" * 11, good(data)]  # fmt: skip

    place.upstreams[0].behave = forge
    assert values(place.ask(question("x.example"))) == ["192.0.2.1"]

    def spoof(data: bytes) -> list[bytes]:
        pending = next(iter(place.server.forwarder.pending.values()))
        attempt = next(iter(pending.attempts.values()))
        with bound("127.53.9.99", socket.SOCK_DGRAM) as liar:
            liar.sendto(good(data, b"\6\6\6\6"), attempt.sock.getsockname())
        place.go(0.05)
        return [good(data)]

    place.upstreams[0].behave = spoof
    assert values(place.ask(question("y.example"))) == ["192.0.2.1"]


def test_ids_and_ports_cannot_be_guessed(place: Place) -> None:
    seen = set()
    for number in range(40):
        place.ask(question(f"n{number}.example"))
        seen.add(place.upstreams[0].asked[-1][:2])
    assert len(seen) > 35


def test_a_container_on_internal_networks_alone_asks_nobody_outside(place: Place) -> None:
    for name in ("secret.attacker.example", "x", "8.8.8.8.in-addr.arpa"):
        answer = place.ask(question(name), "127.53.1.9", "inner")
        assert answer is not None and answer.rcode == NXDOMAIN, "musl waits 5 s after any refusal"
    assert values(place.ask(question("hidden"), "127.53.1.9", "inner")) == ["127.53.1.9"]
    host = place.ask(question("x.example"), INNER, "inner")
    assert host is not None and host.rcode == REFUSED, "who has other servers asks the next"
    assert not any(each.asked for each in place.upstreams)


def test_an_egress_policy_decides_and_learns(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    from pyrun import network as package

    learned: list[tuple[object, ...]] = []
    egress = types.ModuleType("egress")
    egress.load = lambda owner: "policy"  # type: ignore[attr-defined]
    egress.resolves = lambda policy, name: name.endswith(".example")  # type: ignore[attr-defined]
    egress.admit = lambda sock, source, policy, name, addresses: learned.append(
        (source, policy, name, addresses)
    )  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "pyrun.network.egress", egress)
    monkeypatch.setattr(package, "egress", egress, raising=False)
    directory = place.networks.run / "networks" / "policies"
    directory.mkdir()
    (directory / f"{'client':0>64}").write_text("mode list\n")
    place.server.forwarder._policies._netfilter = socket.socket()
    answer = place.ask(question("bad.test"))
    assert answer is not None and answer.rcode == NXDOMAIN and not place.upstreams[0].asked
    for _ in range(2):  # from outside, and from memory
        assert values(place.ask(question("x.example"))) == ["192.0.2.1"]
    assert learned == [(CLIENT, "policy", "x.example", [("192.0.2.1", 60)])] * 2
    assert values(place.ask(question("web"))) == [WEB] and len(learned) == 2
    assert values(place.ask(question("bad.test"), OTHER)) == ["192.0.2.1"], "of others no policy speaks"
    place.server.forwarder._policies._netfilter.close()


def test_a_policy_that_cannot_be_read_forbids(place: Place) -> None:
    directory = place.networks.run / "networks" / "policies"
    directory.mkdir()
    (directory / f"{'client':0>64}").mkdir()
    answer = place.ask(question("x.example"))
    assert answer is not None and answer.rcode == NXDOMAIN and not place.upstreams[0].asked


# ── TCP ────────────────────────────────────────────────────────────────────────────────────────────


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def over_stream(place: Place, sock: socket.socket, seconds: float = 5.0) -> bytes:
    """What comes back on a connection, while the loop runs."""
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(_received_or_end(sock)))
    thread.start()
    place.go(seconds, lambda: not thread.is_alive())
    thread.join(1)
    return got[0] if got else b"?"


def _received_or_end(sock: socket.socket) -> bytes:
    try:
        return received(sock)
    except (AssertionError, OSError):
        return b""


def test_names_by_tcp(place: Place) -> None:
    with place.connect() as sock:
        for _ in range(3):
            sock.sendall(framed(question("web")))
            assert Answer(over_stream(place, sock)).values == [WEB]


def test_many_questions_at_once_are_answered_in_order(place: Place) -> None:
    with place.connect() as sock:
        sock.sendall(b"".join(framed(question("web", ident=ident)) for ident in range(60)))
        data = b""
        sock.settimeout(0.05)

        def all_there() -> bool:
            nonlocal data
            try:
                data += sock.recv(65535)
            except TimeoutError:
                pass
            return len(data) >= 60 * (2 + 37)

        place.go(5, all_there)
    idents = [int.from_bytes(data[at + 2 : at + 4], "big") for at in range(0, len(data), len(data) // 60)]
    assert idents == list(range(60))


def test_outside_by_tcp_when_the_datagram_was_too_small(place: Place) -> None:
    """The server says truncated by UDP; the client comes by TCP; so do we."""
    place.upstreams[0].behave = lambda data: [good(data, flags=b"\x83\x80")]
    answer = place.ask(question("big.example"))
    assert answer is not None and answer.truncated
    listener = bound(UPSTREAMS[0], socket.SOCK_STREAM, forward._PORT)
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            asked = received(connection)
            message = framed(good(asked, b"\xc0\0\2\7") + b"\0" * 3000)
            connection.sendall(message[:700])
            time.sleep(0.05)  # the client reads the first piece alone
            connection.sendall(message[700:])

    thread = threading.Thread(target=serve)
    thread.start()
    with place.connect() as sock:
        sock.sendall(framed(question("big.example")))
        assert Answer(over_stream(place, sock)).values == ["192.0.2.7"]
    thread.join(5)
    listener.close()


def test_an_answer_too_long_for_the_datagram_is_cut_and_says_so(place: Place) -> None:
    place.upstreams[0].behave = lambda data: [good(data) + bytes(1500)]
    answer = place.ask(question("big.example"))
    assert answer is not None and answer.truncated and len(answer.data) <= 512


@pytest.mark.parametrize("message", [b"\0\0", b"\0\1x", b"\0\x0b" + bytes(11), b"\xff\xff" + b"x" * 5000])
def test_lengths_of_nothing_and_of_too_much_end_the_connection(place: Place, message: bytes) -> None:
    with place.connect() as sock:
        sock.sendall(message)
        assert over_stream(place, sock) == b""
    assert not place.server.clients


def test_a_slow_client_is_not_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then: the others are answered meanwhile, and its time is up however many bytes came."""
    monkeypatch.setattr(streams, "MESSAGE_S", 0.6)
    with place.connect(OTHER) as slow:
        message = framed(question("web"))
        began, at = time.monotonic(), 0
        place.go(0.05)
        assert len(place.server.clients) == 1
        while place.server.clients and time.monotonic() - began < 3:
            slow.send(message[at : at + 1])
            at += 1
            asked = time.monotonic()
            assert values(place.ask(question("web"))) == [WEB]
            assert time.monotonic() - asked < 0.1
            place.go(0.1, lambda: not place.server.clients)
            if at == len(message) - 1:
                break
        place.go(1.0, lambda: not place.server.clients)
        assert time.monotonic() - began < 1.5


def test_who_does_not_read_its_answers_is_let_go(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MESSAGE_S", 0.5)
    monkeypatch.setattr(streams, "QUESTIONS_MOST", 10**9)
    with place.connect() as sock:
        sock.setblocking(False)
        message = framed(question("web")) * 100

        def stuck() -> bool:
            try:
                sock.send(message)
            except OSError:
                pass
            return any(client.unsent for client in place.server.clients.values())

        place.go(8, stuck)
        assert len(place.server.clients) == 1
        place.go(1.0, lambda: not place.server.clients)
        assert not place.server.clients


def test_connections_are_counted(place: Place) -> None:
    mine = [place.connect() for _ in range(streams.OF_ONE_MOST + 30)]
    place.go(0.3)
    assert len(place.server.clients) == streams.OF_ONE_MOST
    with place.connect(OTHER) as sock:
        sock.sendall(framed(question("web")))
        assert Answer(over_stream(place, sock)).values == [WEB]
    for sock in mine:
        sock.close()
    place.go(0.3)
    assert not place.server.clients


# ── floods ─────────────────────────────────────────────────────────────────────────────────────────


def test_strangers_are_not_answered(place: Place) -> None:
    assert place.ask(question("web"), "127.53.0.77", seconds=0.2) is None


def test_malformed_datagrams_are_answered_or_dropped_and_others_served(place: Place) -> None:
    answer = place.ask(question("web") + b"x" * 3000)
    assert answer is not None and answer.rcode == FORMERR
    assert place.ask(b"", seconds=0.1) is None and place.ask(b"\0" * 5, seconds=0.1) is None
    assert values(place.ask(question("web"))) == [WEB]


def test_a_flood_is_told_to_the_guard_and_costs_the_others_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "FLOOD", 1000)
    told = b""
    place.guard.setblocking(False)
    with bound(CLIENT, socket.SOCK_DGRAM) as sock:
        message = question("web")
        end = time.monotonic() + 5
        while not told and time.monotonic() < end:
            for _ in range(200):
                sock.sendto(message, (GATEWAY, place.ports["front"]))
            place.server.now_ns -= 1
            for _ in range(8):
                place.server.round(0)
            try:
                told = place.guard.recv(1000)
            except BlockingIOError:
                pass
    assert told == f"mute\tfront\t{CLIENT}\t1".encode()
    place.go(budget.PERIOD_S + 0.05)
    assert values(place.ask(question("web"), OTHER)) == [WEB]


def test_a_flood_of_new_names_leaves_room_for_others(place: Place) -> None:
    """Each has to be read and asked outside, where nobody answers: that is dear, so it is rationed."""
    for each in place.upstreams:
        each.behave = lambda data: []
    with bound(CLIENT, socket.SOCK_DGRAM) as sock:
        for number in range(1500):
            sock.sendto(question(f"n{number}.example"), (GATEWAY, place.ports["front"]))
            if number % 100 == 0:
                place.server.round(0)
        place.go(0.3)
        assert len(place.server.forwarder.pending) <= forward.MOST_OF_ONE
        began = time.monotonic()
        assert values(place.ask(question("web"), OTHER)) == [WEB]
        assert time.monotonic() - began < 0.1


def test_it_tells_the_guard_that_it_is_there(place: Place) -> None:
    """Between questions, and even if the guard does not read."""
    place.guard.setblocking(False)
    place.guard.send(b"there?")
    place.go(0.02)
    assert place.guard.recv(1000) == b"here"
    for _ in range(2000):
        try:
            place.guard.send(b"there?")
        except BlockingIOError:
            pass
        place.server.round(0)
    assert values(place.ask(question("web"))) == [WEB]


def test_the_guard_takes_a_network_away(place: Place) -> None:
    place.guard.send(b"drop\tfront")
    place.go(0.1)
    assert place.ask(question("web"), seconds=0.2) is None
    assert values(place.ask(question("hidden"), "127.53.1.9", "inner")) == ["127.53.1.9"]


# ── inside a container's namespace ─────────────────────────────────────────────────────────────────


def test_the_hosts_own_server_may_have_the_address_we_have_inside(place: Place) -> None:
    """As in a container of Docker's, where all there is is 127.0.0.11."""
    place.server.names.add_container("e" * 64)
    place.server._serve("e" * 64, [])
    assert "127.0.0.11" not in place.server.forwarder.servers.own


def test_one_that_floods_its_own_queue_pays_for_it(place: Place) -> None:
    """Nobody shares the queue; the resolver's time is everybody's."""
    waiting = [(b"question", ("127.0.0.1", 1))] * 1000

    def receive(size: int) -> tuple[bytes, tuple[str, int]]:
        if not waiting:
            raise BlockingIOError
        return waiting.pop()

    taken = place.server._drained(receive, "e" * 64, "e" * 64)
    assert len(taken) < 300
    assert place.server.budget.spent["e" * 64] > 10_000
