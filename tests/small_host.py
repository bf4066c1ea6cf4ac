"""A small host of its own for a test of the network stage: forked into new namespaces by `@on_host`.

It has an uplink to an "internet" namespace, of IPv6 as well after `host.six()`. Containers are processes in an empty
network namespace; what undoes them is executed here as csrc/undo.c does.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
import posix
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sandbox
from lab import sysctls
from pyrun import linux, notice
from pyrun import undo as lists
from pyrun.engine import network as engine
from pyrun.network import claims, messages, records, requests
from pyrun.network.wiring import NetworkPlan
from pyrun.stages import network as stage
from waiting import until

HOST, INTERNET = "198.51.100.2", "198.51.100.1"
HOST6, INTERNET6 = "2001:db8::2", "2001:db8::1"
Ports = list[tuple[str, int, int, str]]


def on_host(test: Callable[..., None]) -> Callable[..., None]:
    """Run the test on a small host, which it gets as `host`; all that it started ends with it."""
    signature = inspect.signature(test)

    @functools.wraps(test)
    def forked(**given: object) -> None:
        # A pid namespace too, so that every process a test leaves ends with it.
        flags = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWPID
        sandbox.fork(lambda: test(Host(), **given), flags=flags)

    parameters = [each for name, each in signature.parameters.items() if name != "host"]  # is no fixture
    forked.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return forked


class Host:
    """What a test sees: start and stop containers, run something in one or on the internet."""

    def __init__(self) -> None:
        linux.mount("none", "/proc", "proc", 0)
        linux.mount("none", "/sys", "sysfs", 0)  # of this network namespace
        linux.mount("none", "/run", "tmpfs", 0)
        for name, value in ((b"PYRUN_RUNROOT", b"/run/pyrun"), (b"PYRUN_ROOT", b"/run/store")):
            posix.environ[name] = value
        self.said: list[str] = []
        notice.install(self.said.append)
        self.number = 0
        self.internet = Namespace()
        shell("ip link set lo up")
        shell(f"ip link add up0 type veth peer name up1 netns {self.internet.pid}")
        # without addresses that appear by themselves a moment later
        shell(f"ip link set up0 addrgenmode none; ip addr add {HOST}/24 dev up0; ip link set up0 up")
        shell(f"ip route add default via {INTERNET}")
        self.internet.run(shell, f"ip addr add {INTERNET}/24 dev up1; ip link set up1 up; ip link set lo up")
        until(lambda: "NO-CARRIER" not in shell("ip link show up0"), "the carrier of the uplink")

    def six(self) -> None:
        """IPv6 on the uplink."""
        shell(f"ip addr add {HOST6}/64 dev up0 nodad; ip -6 route add default via {INTERNET6}")
        self.internet.run(shell, f"ip addr add {INTERNET6}/64 dev up1 nodad")

    def create(self, name: str, *subnets: str, **asked: Any) -> records.Network:
        """As `network create` does."""
        plain: dict[str, Any] = {
            "driver": "bridge", "gateways": [], "ranges": [], "internal": False, "ipv6": False, "isolate": False,
            "icc": True, "mtu": 0, "label": [], "opt": [],
        }  # fmt: skip
        engine.create(name, {**plain, "subnets": list(subnets), **asked})
        network = records.load(name)
        assert network is not None
        return network

    def start(
        self, name: str = "", mode: str = "bridge", ports: Ports | None = None, **options: object
    ) -> Container:
        """As the planner does: plan, then the namespace, then outside."""
        planned = self.plan(name, mode, ports, **options)
        container = Container(planned)
        stage.outside(planned, container.pid)
        return container

    def plan(
        self,
        name: str = "",
        mode: str = "bridge",
        ports: Ports | None = None,
        dry_run: bool = False,
        **options: object,
    ) -> NetworkPlan:
        """mode: the words of one or several --network; options: of `run`, as ip or mac_address."""
        self.number += 1
        identifier = os.urandom(32).hex()
        kind, target, endpoints = requests.parse({"network": mode.split(), **options}, "bridge")
        request = requests.Request(identifier, name or f"c{self.number}", kind, target)
        request.endpoints, request.ports = endpoints, ports or []
        stage.check(request)
        had = stage.look(request) if dry_run else stage.claim(request)
        try:
            return stage.plan(request, had)
        except BaseException:
            had.release()
            raise


class Namespace:
    """A process in a network namespace of its own, to enter it by."""

    def __init__(self) -> None:
        ready_fd, made_fd = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            linux.unshare(linux.CLONE_NEWNET)
            sysctls.begin()
            os.write(made_fd, b"x")
            while True:
                signal.pause()
        os.read(ready_fd, 1)
        os.close(ready_fd)
        os.close(made_fd)

    def run(self, function: Callable[..., Any], *args: object) -> Any:
        """Call *function* in the namespace and return what it returns."""
        own_fd = os.open("/proc/self/ns/net", os.O_RDONLY)
        there_fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        linux.setns(there_fd, linux.CLONE_NEWNET)
        try:
            return function(*args)
        finally:
            linux.setns(own_fd, linux.CLONE_NEWNET)
            os.close(own_fd)
            os.close(there_fd)

    def end(self) -> None:
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


class Container(Namespace):
    """A container as far as the network is concerned: a namespace and what was planned for it."""

    def __init__(self, planned: NetworkPlan) -> None:
        super().__init__()
        self.planned = planned
        self.identifier = planned.claimed.owner[:64]
        self.address, self.address6 = planned.address, planned.address6
        self.link = "pyv" + planned.claimed.owner[:12]
        if planned.no_ipv6:  # csrc/init.c does that
            self.run(Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text, "1")

    def stop(self) -> None:
        self.end()
        undo(self.planned.undo)


def undo(lines: list[str]) -> None:
    """Execute an undo list: what the monitor does in C."""
    skip = False
    # closing one after a deletion takes long
    sockets = {str(family): messages.opened(family) for family in (0, 12)}
    for line in lines:
        kind, *fields = line.split("\t")
        if kind in ("guard", "end"):
            skip = kind == "guard" and claims.holder(fields[0]) != fields[1]
        elif kind == "flows6" and not skip:  # csrc/flows.c
            assert lists.replay_lines([line]) == []
        elif kind == "netlink" and not skip:
            number = messages.answers(sockets[fields[0]], [bytes.fromhex(fields[1])], 1)[0]
            assert number in (0, errno.ENOENT, errno.ENODEV), os.strerror(number)
        elif not skip:
            _undo_file(kind, fields)
    for sock in sockets.values():
        sock.close()


def _undo_file(kind: str, fields: list[str]) -> None:
    if kind == "also":
        undo(Path(fields[0]).read_text().splitlines() if Path(fields[0]).exists() else [])
    elif kind == "unlink-if":
        claims.release(fields[0], fields[1])
    elif kind == "unlink":
        Path(fields[0]).unlink(missing_ok=True)
    elif kind == "umount":
        with contextlib.suppress(OSError):
            linux.umount2(fields[0], linux.MNT_DETACH)
    else:
        raise AssertionError(kind)


def shell(command: str) -> str:
    done = subprocess.run(f"set -e; {command}", shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def listen(port: int, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
    server = socket.socket(family, kind)
    server.bind(("", port))
    if kind == socket.SOCK_STREAM:
        server.listen()
    server.settimeout(3)
    return server


def connect(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port), timeout=0.7)


def reach(server: socket.socket, place: Namespace | None, address: str, port: int) -> str:
    """Connect from *place* (None: the host itself) and return the address the server sees."""
    client = place.run(connect, address, port) if place else connect(address, port)
    served, peer = server.accept()
    served.close()
    client.close()
    return str(peer[0])


def picture() -> dict[str, str]:
    """All of the host that a start may change."""
    return {
        "links": shell(
            "ip -o link | sed 's/ qdisc.*//'; ip -o addr | cut -c1-60; ip rule; ip route show table all"
        ),
        "rules": shell("nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'"),
        "sysctls": shell(
            "sysctl -a 2>/dev/null | grep -E '^net.ipv[46]' | grep -v -E 'neigh|now|tcp_fastopen_key|max_dst'"
        ),
        "mounts": shell("cut -d' ' -f4- /proc/self/mountinfo"),
        "names": shell("ls -a /run/netns 2>/dev/null || true"),
    }


@contextlib.contextmanager
def listening(
    place: Namespace, port: int, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET
) -> Iterator[socket.socket]:
    """A server in *place*; with AF_INET6 it serves IPv4 too."""
    server = place.run(listen, port, kind, family)
    with server:
        yield server
