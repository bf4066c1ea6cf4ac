"""A container that serves, and who asks it: for the tests of published ports."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

# "hello" at /, the client's address as the server sees it at /cgi-bin/who
SERVE = ["sh", "-c", r"""
mkdir -p /www/cgi-bin
echo hello >/www/index.html
printf '#!/bin/sh\necho; echo $REMOTE_ADDR\n' >/www/cgi-bin/who
chmod +x /www/cgi-bin/who
exec httpd -f -p ${PORT:-80} -h /www"""]  # fmt: skip

_GET = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=float(sys.argv[3]))
connection.request("GET", sys.argv[2])
print(connection.getresponse().read().decode())
"""


def fetch(place: str, path: str = "/", *, at: str = "", tries: int = 40, timeout_s: float = 1.0) -> str:
    """The page at ADDRESS:PORT, from the lab host or one of its surroundings; "" if nobody answers."""
    enter = ["nsenter", f"--net=/run/pyrun-lab/{at}"] if at else []
    for _ in range(tries):
        command = [*enter, sys.executable, "-c", _GET, place, path, str(timeout_s)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip().removeprefix("[::ffff:").rstrip("]").removeprefix("[")
        time.sleep(0.05)
    return ""


def refuses(place: str, *, at: str = "") -> bool:
    """Whether nobody answers there, asked once."""
    return fetch(place, at=at, tries=1, timeout_s=0.5) == ""


_SERVER = """
import socket, sys
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
while True:
    _, whom = server.recvfrom(2048)
    server.sendto(whom[0].encode(), whom)
"""

_ASK = """
import socket, sys
asking = socket.socket(type=socket.SOCK_DGRAM)
asking.bind(("0.0.0.0", int(sys.argv[3])))
asking.settimeout(0.5)
asking.sendto(b"who am I?", (sys.argv[1], int(sys.argv[2])))
print(asking.recv(2048).decode())
"""


@contextmanager
def udp_server(container: str, port: int) -> Iterator[None]:
    """In the network of a container: answers every packet with the address it came from."""
    words = ["nsenter", f"--net=/run/netns/{container}", sys.executable, "-c", _SERVER, str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
        assert server.stdout and server.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            server.kill()


def ask_udp(internet: SimpleNamespace, at: str, address: str, port: int, source_port: int = 0) -> str:
    """What that server says to a packet sent there; "" if nothing."""
    words = [sys.executable, "-c", _ASK, address, str(port), str(source_port)]
    return str(internet.at(at, *words, check=False)).strip()
