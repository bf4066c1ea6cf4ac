"""Where a network test stands: in a container's network namespace, in the lab's surroundings, or on the host itself.

A place is the name of a container, NEIGHBOUR or INTERNET, or "" for the lab host. What runs there is a program of the
host, so that nothing depends on what an image has.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waiting import soon

INTERNET, NEIGHBOUR = "/run/pyrun-lab/internet", "/run/pyrun-lab/neighbour"
# IPv6 between the lab host and its internet, while `uplink6` lasts.
HOST6, INTERNET6 = "2001:db8:1a::2", "2001:db8:1a::1"

# What becomes of a connection that a policy refuses.
REFUSED = "no: Connection refused"

_PAGE = """
import http.client, sys
try:
    connection = http.client.HTTPConnection(sys.argv[1], timeout=1.5)
    connection.request("GET", "/")
    print(connection.getresponse().read().decode().strip())
except (OSError, http.client.HTTPException) as error: print("no:", getattr(error, "strerror", None) or error)
"""
# Says who asks, on port 80.
_TELL = """
import http.server, socket, sys
class Server(http.server.HTTPServer): address_family = socket.AF_INET6
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(b"you are " + self.client_address[0].removeprefix("::ffff:").encode())
    def log_message(self, *_): pass
Server((sys.argv[1], 80), Page).serve_forever()
"""


def entering(place: str) -> list[str]:
    """The words before a command that is to run there."""
    if not place:
        return []
    return ["nsenter", f"--net={place if place.startswith('/') else f'/run/netns/{place}'}"]


def command(place: str, *words: str) -> str:
    """What a command prints there; its status is nobody's concern."""
    done = subprocess.run([*entering(place), *words], capture_output=True, text=True, timeout=20, check=False)
    return str(done.stdout.strip())


def page(place: str, address: str) -> str:
    """The page somebody there gets from an address, or "no: ..."."""
    return command(place, sys.executable, "-c", _PAGE, address)


def pings(place: str, address: str) -> bool:
    return "1 received" in command(place, "ping", "-c1", "-W1", address)


def address_of(name: str, version: int = 4) -> str:
    """The address of a container's eth0."""
    rows = json.loads(command(name, "ip", "-j", "address", "show", "eth0"))[0]["addr_info"]
    family = "inet" if version == 4 else "inet6"
    return str(next(row["local"] for row in rows if row["family"] == family and row["scope"] == "global"))


def gateway_of(name: str, version: int = 4) -> str:
    """Where a container's default route leads."""
    return str(json.loads(command(name, "ip", f"-{version}", "-j", "route", "show", "default"))[0]["gateway"])


def listening(place: str, what: str = ":80 ") -> None:
    """Wait until somebody listens there."""
    soon(lambda: what in command(place, "ss", "-ltn"))


@contextmanager
def telling(place: str, address: str = "::") -> Iterator[None]:
    """A server there that says who asks."""
    with subprocess.Popen([*entering(place), sys.executable, "-c", _TELL, address]) as process:
        listening(place, ":80 " if address == "::" else f"[{address}]:80 ")
        try:
            yield
        finally:
            process.kill()


@contextmanager
def uplink6() -> Iterator[None]:
    """IPv6 addresses between the lab host and its internet."""
    cables = (("", HOST6, "eth0"), (INTERNET, INTERNET6, "lan0"))
    for place, address, link in cables:
        command(place, "ip", "address", "add", f"{address}/64", "dev", link, "nodad")
    try:
        yield
    finally:
        for place, address, link in cables:
            command(place, "ip", "address", "delete", f"{address}/64", "dev", link)


@contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    """A sysctl of the lab host, for a while."""
    path = Path("/proc/sys", name)
    before = path.read_text()
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)
