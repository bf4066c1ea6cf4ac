"""Published SCTP ports with real associations; the lab host's kernel may lack the protocol, the VM floor's has it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from command import Pyrun

pytestmark = pytest.mark.needs("sctp")

TRANSPORT = {"sctp": socket.IPPROTO_SCTP, "tcp": socket.IPPROTO_TCP}
PORT, KEPT, INSIDE = 7000, 7001, 70

# Tells every client the address it came from.
_SERVER = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[1]))
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", int(sys.argv[2])))
server.listen()
print("ready", flush=True)
while True:
    client, whom = server.accept()
    client.sendall(whom[0].encode())
    client.close()
"""
_ASK = """
import socket, sys
asking = socket.socket(socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[1]))
asking.settimeout(5)
try:
    asking.connect((sys.argv[2], int(sys.argv[3])))
    print(asking.recv(64).decode())
except OSError as error:
    print(type(error).__name__)
"""


@contextmanager
def server(container: str, protocol: str) -> Iterator[None]:
    """In the network of a container, on INSIDE."""
    words = ["nsenter", f"--net=/run/netns/{container}", sys.executable, "-c", _SERVER]
    with subprocess.Popen([*words, str(TRANSPORT[protocol]), str(INSIDE)], stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout and running.stdout.readline() == b"ready\n"
            yield
        finally:
            running.kill()


def ask(place: str, protocol: str, address: str, port: int = PORT) -> str:
    """The address that the server saw, or the name of the exception; *place*: a namespace's file, "" for the host."""
    enter = ["nsenter", f"--net={place}"] if place else []
    words = [*enter, sys.executable, "-c", _ASK, str(TRANSPORT[protocol]), address, str(port)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_from_everywhere_as_tcp(pyrun: Pyrun, internet: SimpleNamespace) -> None:
    """Each sees the client that the other sees; what is taken away is refused, and its neighbour is not."""
    published = [word for protocol in TRANSPORT for word in ("-p", f"{PORT}:{INSIDE}/{protocol}")]
    pyrun.ok(
        "run", "-d", "--name", "web", *published, "-p", f"{KEPT}:{INSIDE}/sctp", "busybox", "sleep", "1000"
    )
    pyrun.ok("run", "-d", "--name", "other", "busybox", "sleep", "1000")
    assert f"{INSIDE}/sctp -> 0.0.0.0:{PORT}" in pyrun.ok("port", "web").splitlines()
    neighbour, other = "/run/pyrun-lab/neighbour", "/run/netns/other"
    with server("web", "tcp"), server("web", "sctp"):
        for place, address in ((neighbour, internet.host), ("", internet.host), ("", "127.0.0.1"),
                               (other, internet.host)):  # fmt: skip
            seen = ask(place, "sctp", address)
            assert seen == ask(place, "tcp", address), (place, address)
            assert seen.count(".") == 3, (place, address, seen)
        assert ask(neighbour, "sctp", internet.host) == internet.neighbour
        assert ask("", "sctp", internet.host) == internet.host
        pyrun.ok("port", "rm", "web", f"{PORT}/sctp")
        assert ask(neighbour, "sctp", internet.host) == "ConnectionRefusedError"
        assert ask("", "sctp", "127.0.0.1") == "ConnectionRefusedError"
        assert ask(neighbour, "tcp", internet.host) == internet.neighbour, "TCP has ports of its own"
        assert ask(neighbour, "sctp", internet.host, KEPT) == internet.neighbour
        pyrun.ok("port", "add", "web", f"{PORT}:{INSIDE}/sctp")
        assert ask(neighbour, "sctp", internet.host) == internet.neighbour


def test_a_published_port_is_taken(pyrun: Pyrun) -> None:
    """For programs of the host too, and by them; the same number of TCP is another port."""
    pyrun.ok("run", "-d", "--name", "web", "-p", f"{PORT}:{INSIDE}/sctp", "busybox", "sleep", "1000")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as late:
        with pytest.raises(OSError, match="in use"):
            late.bind(("0.0.0.0", PORT))
        late.bind(("0.0.0.0", KEPT))
        late.listen()
        refused = pyrun.fails(125, "run", "--rm", "-p", f"{KEPT}:{INSIDE}/sctp", "busybox", "true")
        assert f":{KEPT}/sctp is in use by another program of this host: " in refused
        assert f"(pid {os.getpid()})" in refused
    refused = pyrun.fails(125, "run", "--rm", "-p", f"{PORT}:{INSIDE}/sctp", "busybox", "true")
    assert "container web" in refused, refused
    pyrun.ok("run", "--rm", "-p", f"{PORT}:{INSIDE}/tcp", "busybox", "true")
