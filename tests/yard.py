"""A network of pyrun with somebody evil on it: what the attack tests of the network are made on.

    lab host ── bridge ──┬── evil      has the program of attacks/frames.c, and CAP_NET_RAW as every container
                         ├── victim    a page on port 80
                         └── third     somebody to be told lies about the victim

All of it is one network of one test, with IPv4 and IPv6, on the lab host.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import hostile
import leftovers
import ruleset
from command import Pyrun

NETWORK = "yard"
SLEEP = ("sleep", "1000")
LAN6 = "2001:db8:1a::"  # of the lab's LAN, where a test wants one: the host is 2, the neighbour 3
SERVE = ("sh", "-c", "mkdir -p /www; echo a secret >/www/index.html; exec httpd -f -p 80 -h /www")
# What a web server says to a client of the lab, without a program it may lack.
GET = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=1)
connection.request("GET", "/")
print(connection.getresponse().read().decode().strip())
"""
# Opens a connection and says what came of it.
CONNECT = """
import socket, sys
try: print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.7).getpeername()[1])
except OSError as error: print(error)
"""
SOURCE = Path(__file__).parent / "attacks" / "frames.c"


class Member(NamedTuple):
    """A container on the network; link: the host's end of its cable."""

    name: str
    address: str
    address6: str
    mac: str
    link: str


def compile_frames(directory: Path) -> Path:
    """The static program of attacks/frames.c."""
    compiler = shutil.which("musl-gcc") or "gcc"
    program = directory / "frames"
    words = [compiler, "-static", "-O1", "-Wall", "-Wextra", "-Werror"]
    headers = ["-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu"]
    subprocess.run([*words, *headers, "-o", str(program), str(SOURCE)], check=True)
    return program


@contextmanager
def shared(binary: Path, store: Path, directory: Path) -> Iterator[Pyrun]:
    """What the fixture `pyrun` is, for several tests together."""
    with leftovers.nothing_is_left():
        command = Pyrun(binary, directory)
        command.copy_store(store)
        try:
            yield command
        finally:
            command.close()


def run(*words: str) -> str:
    """A command of the lab host that must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


class Yard:
    """The network, made at once; its containers are started by `start`."""

    def __init__(self, pyrun: Pyrun, program: Path, *options: str) -> None:
        self.pyrun = pyrun
        path = ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"]
        hostile.put_image(pyrun, "evil", lambda root: shutil.copy(program, root / "frames"), Env=path)
        pyrun.ok("network", "create", "--ipv6", *options, NETWORK)
        found = self.inspect()
        (four, six) = found["IPAM"]["Config"]
        self.gateway, self.gateway6 = four["Gateway"], six["Gateway"]
        self.subnet, self.subnet6 = four["Subnet"], six["Subnet"]
        self.bridge = found["Pyrun"]["Bridge"]
        self.mac = Path(f"/sys/class/net/{self.bridge}/address").read_text().strip()

    def inspect(self, network: str = NETWORK) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.pyrun.ok("network", "inspect", network))[0]
        return found

    def start(self, name: str, *words: str, options: tuple[str, ...] = ()) -> Member:
        """A container on the network; without *words* one that sleeps, evil's with its program."""
        image = "evil" if name.startswith("evil") else "busybox"
        self.pyrun.ok("run", "-d", "--name", name, "--network", NETWORK, *options, image, *(words or SLEEP))
        return self.member(name)

    def member(self, name: str, network: str = NETWORK) -> Member:
        (found,) = (each for each in self.inspect(network)["Containers"].values() if each["Name"] == name)
        addresses = (found.get(f"IPv{version}Address", "").partition("/")[0] for version in (4, 6))
        return Member(name, *addresses, found["MacAddress"], found["HostInterface"])

    def send(self, *sent: bytes, name: str = "evil", times: int = 1, pause_ms: int = 0) -> None:
        """Frames out of eth0 of a container that has the program."""
        text = "".join(f"{frame.hex()}\n" for frame in sent)
        self.pyrun.ok("exec", "-i", name, "/frames", "send", "eth0", str(times), str(pause_ms), input=text)

    def take_out(self, *comments: str) -> None:
        """Delete rules, by their comments: the weakened ruleset."""
        ruleset.take_out(self.pyrun.runroot, *comments)

    def known_to_host(self, address: str) -> str:
        """The MAC this host believes *address* has."""
        return _hardware(run("ip", "neigh", "show", "to", address, "dev", self.bridge))

    def known_to(self, name: str, address: str) -> str:
        """The MAC another container believes *address* has."""
        shown = self.pyrun.ok("exec", name, "ip", "neigh", "show", "dev", "eth0")
        return next((_hardware(line) for line in shown.splitlines() if line.split()[0] == address), "")

    def learned(self, hardware: str) -> str:
        """The link behind which the bridge believes a MAC to be."""
        lines = run("bridge", "fdb", "show", "br", self.bridge).splitlines()
        found = [line.split()[2] for line in lines if line.startswith(hardware) and "permanent" not in line]
        return found[0] if found else ""

    def forget(self, *names: str) -> None:
        """What the host, the bridge and the containers have learned of each other."""
        run("ip", "link", "set", "dev", self.bridge, "type", "bridge", "fdb_flush")
        for enter in ([], *(["-n", name] for name in names or ("evil", "victim", "third"))):
            run("ip", *enter, "neigh", "flush", "dev", "eth0" if enter else self.bridge)


def _hardware(line: str) -> str:
    words = line.split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def meet(yard: Yard, *addresses: str) -> None:
    """Have the host and `third` talk to them, so that both know who is where."""
    for address in addresses:
        six = ("-6",) if ":" in address else ()
        run("ping", *six, "-c1", "-W2", address)
        yard.pyrun.ok("exec", "third", "ping", *six, "-c1", "-W2", address)


def page(internet: SimpleNamespace, address: str, place: str = "neighbour") -> str:
    """What the published port says to the LAN; "" for nothing."""
    shown: str = internet.at(place, sys.executable, "-c", GET, address, check=False)
    return shown.strip()


def connects(internet: SimpleNamespace, place: str, address: str, port: int) -> bool:
    """Whether somebody at *place* gets a connection."""
    return internet.at(place, sys.executable, "-c", CONNECT, address, str(port)).strip() == str(port)
