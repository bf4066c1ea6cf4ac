"""Names on cards of the host: a container that reaches no address of ours is answered inside its own namespace."""

from __future__ import annotations

import os
import posix
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import Pyrun
from name_server import NXDOMAIN, SERVFAIL, TYPE_A, TYPE_PTR, Answer, Inside, question
from pyrun.network import endpoint, guard
from pyrun.network.drivers import naming
from segments import CARD, FAR, GATEWAY, pings
from waiting import until

RESOLVER = "127.0.0.11"
NETWORK = ("network", "create", "-d", "macvlan", "-o", f"parent={CARD}")
RANGE = ("--subnet=192.168.50.0/24", "--ip-range=192.168.50.64/28")
WIRE = endpoint.recorded({"driver": "macvlan", "network": "lan", "address": "192.168.50.64"})
FIRST, SECOND = "192.168.50.64", "192.168.50.65"


@pytest.fixture
def its_guard(pyrun: Pyrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """guard.status() asks the one of this test."""
    monkeypatch.setitem(posix.environ, b"PYRUN_RUNROOT", str(pyrun.runroot).encode())


def asked(name: str, question: str, kind: int = TYPE_A) -> Answer:
    return Inside(name).ask(RESOLVER, question, kind)


def started(pyrun: Pyrun, *options: str, name: str, network: str = "--network=lan") -> str:
    pyrun.ok("run", "-d", "--name", name, network, *options, "busybox", "sleep", "1000")
    return pyrun.ok("exec", name, "cat", "/etc/resolv.conf")


def is_answered(name: str) -> bool:
    try:
        return asked(name, name).values == [FIRST]
    except TimeoutError:  # nobody listens yet
        return False


def test_they_find_each_other_and_the_world(
    card: None, pyrun: Pyrun, its_guard: None, internet: SimpleNamespace
) -> None:
    pyrun.ok(*NETWORK, *RANGE, "lan")
    assert started(pyrun, name="one").startswith(f"nameserver {RESOLVER}")
    assert guard.status()["resolver"] == 0, "nobody has asked: nobody answers"
    started(pyrun, "--network-alias=db", name="two")
    for wanted in ("two", "db", "two.lan"):
        assert asked("one", wanted).values == [SECOND]
        assert Inside("one").ask_stream(RESOLVER, wanted).values == [SECOND]
    assert asked("two", "one").values == [FIRST]
    assert asked("one", "65.50.168.192.in-addr.arpa", TYPE_PTR).values == ["two.lan"]
    assert asked("one", internet.name).values == [internet.far], "by the host's servers, which the host asks"
    assert Inside("one").ask_stream(RESOLVER, internet.name).values == [internet.far]
    assert asked("one", "nothing.test").rcode == NXDOMAIN
    assert SECOND in pyrun.ok("exec", "one", "nslookup", "-type=a", "two")
    pyrun.ok("rm", "-f", "two")
    assert asked("one", "two").values == []
    pyrun.ok("rm", "-f", "one")
    assert not list(pyrun.runroot.glob("resolvers/*"))


def test_port_53_is_the_containers(card: None, pyrun: Pyrun) -> None:
    """What serves names on a card, as people like to, binds 53 of every address."""
    pyrun.ok(*NETWORK, *RANGE, "lan")
    started(pyrun, name="one")
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with Inside("one").socket(kind=kind) as sock:
            sock.bind(("0.0.0.0", 53))
            assert asked("one", "one").values == [FIRST]
    assert not pyrun.ok("exec", "one", "sh", "-c", "cat /proc/net/nf_conntrack 2>/dev/null || true"), (
        "without connection tracking"
    )


def test_an_internal_network_asks_nobody_outside(card: None, pyrun: Pyrun, internet: SimpleNamespace) -> None:
    pyrun.ok(*NETWORK, *RANGE, "--internal", "lan")
    started(pyrun, name="one")
    started(pyrun, name="two")
    assert asked("one", "two").values == [SECOND]
    assert asked("one", internet.name).rcode == NXDOMAIN


class Server:
    """A name server of the segment's: whatever the name, the answer is the address of whoever asked."""

    def __init__(self) -> None:
        kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        self.udp, self.tcp = (Inside(FAR).socket(kind=kind) for kind in kinds)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (self.udp, self.tcp):
            sock.bind((GATEWAY, 53))
            sock.settimeout(None)
        self.tcp.listen()
        self.threads = [threading.Thread(target=each) for each in (self.datagrams, self.streams)]

    def __enter__(self) -> None:
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        for thread, sock in zip(self.threads, (self.udp, self.tcp), strict=True):
            try:
                sock.shutdown(socket.SHUT_RDWR)  # wakes who waits in it
            except OSError:  # UDP says that it is not connected, and does it
                pass
            thread.join(5)
            sock.close()

    def datagrams(self) -> None:
        while data := self.udp.recvfrom(2048):
            if not data[1]:
                return
            self.udp.sendto(told(data[0], data[1][0]), data[1])

    def streams(self) -> None:
        while True:
            try:
                client, peer = self.tcp.accept()
            except OSError:
                return
            with client:
                answer = told(client.recv(2048)[2:], peer[0])
                client.sendall(len(answer).to_bytes(2, "big") + answer)


def told(data: bytes, address: str) -> bytes:
    end = data.index(b"\0", 12) + 5
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(address)
    return data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:end] + record


def test_servers_of_its_own_are_asked_from_inside(card: None, pyrun: Pyrun) -> None:
    """They may be on a segment where the host has no address; here, they tell who asked."""
    with Server():
        pyrun.ok(*NETWORK, *RANGE, "lan")
        assert started(pyrun, f"--dns={GATEWAY}", name="one").splitlines()[0] == f"nameserver {RESOLVER}"
        started(pyrun, f"--dns={GATEWAY}", name="two")
        assert asked("one", "two").values == [SECOND]
        assert asked("one", "who.test").values == [FIRST]
        assert asked("two", "who.test").values == [SECOND], "what another was answered is not its answer"
        assert Inside("one").ask_stream(RESOLVER, "again.test").values == [FIRST]
    assert threading.active_count() == 1


def test_servers_that_cannot_be_reached(card: None, pyrun: Pyrun) -> None:
    pyrun.ok(*NETWORK, *RANGE, "lan")
    started(pyrun, "--dns=192.168.50.200", name="one")
    assert asked("one", "one").values == [FIRST]
    with Inside("one").socket() as sock:
        sock.settimeout(8)
        sock.sendto(question("who.test"), (RESOLVER, 53))
        assert Answer(sock.recv(4096)).rcode == SERVFAIL, "before the client gives up"


def test_no_question_keeps_a_namespace_alive(card: None, pyrun: Pyrun) -> None:
    """It would keep an interface that answers for an address which is somebody else's by now."""
    pyrun.ok(*NETWORK, *RANGE, "lan")
    started(pyrun, f"--dns={GATEWAY}", name="one")
    assert pings(FIRST, at=FAR)
    with Inside(FAR).socket() as silent, Inside("one").socket() as sock:
        silent.bind((GATEWAY, 53))
        sock.sendto(question("who.test"), (RESOLVER, 53))
        assert silent.recv(100)  # and no answer, for which the resolver waits 4.5 s
        sock.close()
        pyrun.ok("rm", "-f", "one")
        ping = ["ip", "netns", "exec", FAR, "ping", "-c1", "-W0.1", FIRST]
        until(lambda: subprocess.run(ping, capture_output=True, check=False).returncode, timeout_s=0.8)


def test_a_bare_card(card: None, pyrun: Pyrun) -> None:
    """`macvlan:CARD:ip=`, without a network that somebody created; without an address there is no name."""
    started(pyrun, name="one", network=f"--network=macvlan:{CARD}:ip={FIRST}")
    started(pyrun, name="two", network=f"--network=macvlan:{CARD}:ip={SECOND}")
    assert asked("one", "two").values == [SECOND]
    assert RESOLVER not in started(pyrun, name="three", network=f"--network=macvlan:{CARD}")


def test_a_bridge_besides(card: None, pyrun: Pyrun) -> None:
    """Who has a bridge asks there, and learns of its neighbours on the card as well; off the bridge, it asks inside."""
    pyrun.ok(*NETWORK, *RANGE, "lan")
    started(pyrun, name="one")
    assert RESOLVER not in started(pyrun, "--network=bridge", name="both")
    gateway = pyrun.ok("exec", "both", "cat", "/etc/resolv.conf").split()[1]
    assert Inside("both").ask(gateway, "one").values == [FIRST]
    pyrun.ok("network", "disconnect", "bridge", "both")
    assert f"nameserver {RESOLVER}" in pyrun.ok("exec", "both", "cat", "/etc/resolv.conf")
    assert asked("both", "one").values == [FIRST]
    pyrun.ok("network", "connect", "bridge", "both")
    assert f"nameserver {gateway}" in pyrun.ok("exec", "both", "cat", "/etc/resolv.conf")


def test_connected_later(card: None, pyrun: Pyrun) -> None:
    pyrun.ok(*NETWORK, *RANGE, "lan")
    started(pyrun, name="one")
    started(pyrun, name="late", network="--network=none")
    pyrun.ok("network", "connect", "lan", "late")
    assert f"nameserver {RESOLVER}" in pyrun.ok("exec", "late", "cat", "/etc/resolv.conf")
    assert asked("late", "one").values == [FIRST]
    pyrun.ok("network", "disconnect", "lan", "late")
    assert RESOLVER not in pyrun.ok("exec", "late", "cat", "/etc/resolv.conf")
    pyrun.ok("rm", "-f", "late")
    assert len(list(pyrun.runroot.glob("resolvers/*"))) == 1


def test_its_own_servers_are_asked_of_a_card_that_is_connected_later(card: None, pyrun: Pyrun) -> None:
    pyrun.ok(*NETWORK, *RANGE, "lan")
    started(pyrun, f"--dns={GATEWAY}", name="late", network="--network=none")
    with Server():
        pyrun.ok("network", "connect", "lan", "late")
        assert asked("late", "who.test").values == [FIRST]


def test_a_port_that_somebody_inside_has(card: None, pyrun: Pyrun) -> None:
    pyrun.ok(*NETWORK, *RANGE, "lan")
    started(pyrun, name="late", network="--network=none")
    identifier = str(pyrun.state("late")["id"])
    with taken_inside("late", int(naming.operations(identifier, "late", [WIRE], asks=False)[-1].args[2])):
        pyrun.ok("network", "connect", "lan", "late")
        assert asked("late", "late").values == [FIRST]


def test_a_container_that_shuts_the_socket_harms_itself_alone(
    card: None, pyrun: Pyrun, its_guard: None
) -> None:
    """Who rules its network can: by TCP nobody answers there any more, and nobody is kept busy by that."""
    pyrun.ok(*NETWORK, *RANGE, "lan")
    started(pyrun, name="one")
    assert asked("one", "one").values == [FIRST]
    subprocess.run(
        ["ip", "netns", "exec", "one", "ss", "-K", "-tl", "src", RESOLVER], check=True, capture_output=True
    )
    with pytest.raises(ConnectionRefusedError):
        Inside("one").ask_stream(RESOLVER, "one")
    spent = [busy_ticks(guard.status()["resolver"]), busy_ticks(guard.status()["pid"])]
    time.sleep(1)  # in which they hardly work
    now = [busy_ticks(guard.status()["resolver"]), busy_ticks(guard.status()["pid"])]
    assert max(after - before for before, after in zip(spent, now, strict=True)) < 20, "of 100"
    assert asked("one", "one").values == [FIRST]


def busy_ticks(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]))


def test_a_note_of_a_container_that_is_gone(card: None, pyrun: Pyrun) -> None:
    """It would keep a namespace, with an address that is free."""
    pyrun.ok(*NETWORK, *RANGE, "lan")
    started(pyrun, name="one")
    left = pyrun.runroot / "resolvers" / ("ab" * 32)
    left.write_text("40000 one 0\n")
    assert "resolver of container abababababab: freed" in pyrun.ok("system", "reconcile")
    assert not left.exists()
    assert asked("one", "one").values == [FIRST]


def killed() -> None:
    """The guard and its spare, both at once."""
    found = guard.status()
    for key in ("spare", "pid"):
        os.kill(found[key], signal.SIGKILL)
    until(lambda: not guard.status(), timeout_s=5)


_TAKE = """
import socket, sys
taken = []
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    sock = socket.socket(type=kind)
    sock.bind(("0.0.0.0", int(sys.argv[1])))
    taken.append(sock)
print("taken", flush=True)
sys.stdin.read()
"""


@contextmanager
def taken_inside(name: str, port: int) -> Iterator[None]:
    """Somebody in the container has this port."""
    words = ["ip", "netns", "exec", name, sys.executable, "-c", _TAKE, str(port)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as there:
        assert there.stdout and there.stdin and there.stdout.readline() == "taken\n"
        yield
        there.stdin.close()


def test_the_next_guard_answers_as_well(card: None, pyrun: Pyrun, its_guard: None) -> None:
    pyrun.ok(*NETWORK, *RANGE, "lan")
    started(pyrun, name="one")
    assert asked("one", "one").values == [FIRST]
    (note,) = pyrun.runroot.glob("resolvers/*")
    port = int(note.read_text().split()[0])
    killed()
    pyrun.ok("network", "reload")
    assert asked("one", "one").values == [FIRST]
    killed()
    with taken_inside("one", port):
        pyrun.ok("network", "reload")
        assert int(note.read_text().split()[0]) != port, "somebody inside has it meanwhile"
        assert asked("one", "one").values == [FIRST]
    os.kill(guard.status()["pid"], signal.SIGKILL)
    until(lambda: is_answered("one"), timeout_s=20.0)  # by the spare's hand


def test_a_plan_says_so(card: None, pyrun: Pyrun) -> None:
    told = pyrun.ok("run", "--dry-run", f"--network=macvlan:{CARD}:ip={FIRST}", "busybox", "true")
    assert "answer it at 127.0.0.11, inside" in told
    assert "table ip pyrun-names" in told


def test_the_explained_table_is_the_one_that_is_made(card: None, pyrun: Pyrun) -> None:
    """The rules `--explain` tells, given to nft by hand, list as ours do."""
    pyrun.ok(*NETWORK, *RANGE, "lan")
    told = pyrun("run", "-d", "--explain", "--name", "one", "--network=lan", "busybox", "sleep", "100")
    text = told.stdout + told.stderr
    table = text.split("nft 'table ip")[1].split("'")[0]
    ours = pyrun_rules("one")
    subprocess.run(["ip", "netns", "exec", "one", "nft", "delete table ip pyrun-names"], check=True)
    subprocess.run(["ip", "netns", "exec", "one", "nft", f"table ip{table}"], check=True)
    assert sorted(pyrun_rules("one")) == sorted(ours) != []


def pyrun_rules(name: str) -> list[str]:
    words = ["ip", "netns", "exec", name, "nft", "list", "table", "ip", "pyrun-names"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [line.strip() for line in listed.splitlines() if "set" in line]
