"""Networks, containers and name servers made by hand, to ask the resolver without starting a container; and what the
guard and the resolver behind it are seen by."""

from __future__ import annotations

import os
import posix
import socket
import struct
import subprocess
from pathlib import Path

from pyrun.network import guard, messages

TYPE_A, TYPE_PTR, TYPE_MX, TYPE_AAAA = 1, 12, 15, 28
GATEWAY, GATEWAY6, WEB, WEB6 = "10.99.0.1", "fd99::1", "10.99.0.2", "fd99::2"
WEB_ID, CLIENT_ID, OTHER_ID = "a" * 64, "b" * 64, "c" * 64
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)


def question(
    name: str, kind: int = TYPE_A, ident: int = 0x1234, extra: bytes = b"", flags: int = 0x0100
) -> bytes:
    """A question as a client writes it; *extra*: an OPT record."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    counts = struct.pack(">HHHHHH", ident, flags, 1, 0, 0, 1 if extra else 0)
    return counts + labels + b"\0" + struct.pack(">HH", kind, 1) + extra


def edns(size: int) -> bytes:
    """An OPT record that says how long a datagram may be."""
    return b"\0" + struct.pack(">HHIH", 41, size, 0, 0)


class Answer:
    """An answer, taken apart: rcode, truncated, and the values of its records in order."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.ident, flags, questions, count, _, _ = struct.unpack(">6H", data[:12])
        self.rcode, self.truncated = flags & 15, bool(flags & 0x200)
        at = 12
        for _ in range(questions):
            at = _skip(data, at) + 4
        self.values: list[str] = []
        for _ in range(count):
            at = _skip(data, at)
            kind, _, _, size = struct.unpack(">HHIH", data[at : at + 10])
            at += 10
            self.values.append(_value(data, at, kind, size))
            at += size


def _skip(data: bytes, at: int) -> int:
    while data[at]:
        if data[at] >= 0xC0:
            return at + 2
        at += 1 + data[at]
    return at + 1


def _value(data: bytes, at: int, kind: int, size: int) -> str:
    if kind == TYPE_A:
        return socket.inet_ntop(socket.AF_INET, data[at : at + size])
    if kind == TYPE_AAAA:
        return socket.inet_ntop(socket.AF_INET6, data[at : at + size])
    return _name(data, at) if kind == TYPE_PTR else data[at : at + size].hex()


def _name(data: bytes, at: int) -> str:
    labels = []
    while data[at]:
        if data[at] >= 0xC0:
            at = int.from_bytes(data[at : at + 2], "big") & 0x3FFF
            continue
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(labels)


class Networks:
    """A run directory with networks and leases as starts write them; *links*: with bridges and namespaces too."""

    def __init__(self, run: Path, links: bool = False) -> None:
        self.run, self.links = run, links
        self.made: list[list[str]] = []
        (run / "networks").mkdir(parents=True, mode=0o700, exist_ok=True)

    def network(
        self, name: str, gateway: str, gateway6: str = "", internal: bool = False
    ) -> tuple[str, str, str]:
        """Make it; returns what guard.need wants to hear of it."""
        directory = self.run / "networks" / name
        (directory / "leases").mkdir(parents=True)
        told = {"name": name, "bridge": _bridge(name), "index": 1, "gateway": gateway, "prefix": 24,
                "gateway6": gateway6, "prefix6": 64 if gateway6 else 0, "mtu": 1500, "internal": internal}  # fmt: skip
        lines = [messages.FORMAT, *[f"{key}\t{value}" for key, value in told.items()], "end"]
        (directory / "template").write_text("\n".join(lines) + "\n")
        if self.links:
            self.made.append(["ip", "link", "delete", _bridge(name)])
            _ip(f"link add {_bridge(name)} type bridge", f"address add {gateway}/24 dev {_bridge(name)}",
                *([f"address add {gateway6}/64 dev {_bridge(name)} nodad"] if gateway6 else []),
                f"link set {_bridge(name)} up")  # fmt: skip
        return name, gateway, gateway6

    def lease(self, network: str, address: str, identifier: str, *lines: str) -> Path:
        """A lease, as claims.take makes it."""
        path = self.run / "networks" / network / "leases" / address
        record = self.run / "networks" / f".record-{identifier}"
        record.write_text("\n".join([f"{identifier} {os.getpid()} 1", *lines]) + "\n")
        os.link(record, path)
        record.unlink()
        (self.run / "containers" / identifier).mkdir(parents=True, exist_ok=True)
        return path

    def namespace(self, name: str, network: str, *addresses: str) -> None:
        """A network namespace connected to the bridge of *network*."""
        # By its name: a namespace that a failed test's sockets hold would keep its cable.
        self.made[:0] = [["ip", "link", "delete", f"v{name}"], ["ip", "netns", "delete", name]]
        _ip(f"netns add {name}", f"link add v{name} type veth peer name eth0 netns {name}",
            f"link set v{name} master {_bridge(network)} up")  # fmt: skip
        for address in addresses:
            size = "64 nodad" if ":" in address else "24"
            _ip(f"-n {name} address add {address}/{size} dev eth0")
        _ip(f"-n {name} link set eth0 up", f"-n {name} link set lo up")

    def close(self) -> None:
        """Take links and leases away; the guard ends with the last network."""
        for words in self.made:
            subprocess.run(words, check=False, capture_output=True)
        for lease in self.run.glob("networks/*/leases/*"):
            lease.unlink()
        for directory in self.run.glob("networks/*/leases"):
            directory.rmdir()


def _bridge(network: str) -> str:
    return f"pyr{network}"


def _ip(*lines: str) -> None:
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)


class Inside:
    """Sockets of a network namespace; the process itself stays where it is."""

    def __init__(self, name: str) -> None:
        self.path = f"/run/netns/{name}"

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """A socket in there."""
        own, there = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(self.path, os.O_RDONLY)
        try:
            _setns(there)
            sock = socket.socket(family, kind)
        finally:
            _setns(own)
            os.close(own)
            os.close(there)
        sock.settimeout(5)
        return sock

    def ask(self, server: str, name: str, kind: int = TYPE_A, port: int = 53, extra: bytes = b"") -> Answer:
        """By UDP."""
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with self.socket(family) as sock:
            sock.sendto(question(name, kind, extra=extra), (server, port))
            return Answer(sock.recv(65535))

    def ask_stream(self, server: str, name: str, kind: int = TYPE_A, port: int = 53) -> Answer:
        """By TCP."""
        with self.socket(kind=socket.SOCK_STREAM) as sock:
            sock.connect((server, port))
            message = question(name, kind)
            sock.sendall(len(message).to_bytes(2, "big") + message)
            return Answer(received(sock))


def received(sock: socket.socket) -> bytes:
    """One message of a TCP connection."""
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
        more = sock.recv(65535)
        assert more, f"the connection was closed after {len(data)} bytes"
        data += more
    return data[2:]


def _setns(fd: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")


class Site:
    """A network with the containers web, client and other; need() is called as a start does."""

    def __init__(self, run: Path, binary: Path) -> None:
        posix.environ[b"PYRUN_RUNROOT"] = str(run).encode()
        posix.environ[b"PYRUN_BINARY"] = str(binary).encode()
        self.run = run
        self.networks = Networks(run, links=True)
        try:
            self._wire()
        except BaseException:
            self.close()
            raise
        self.web, self.client, self.other = (Inside(f"dns{name}") for name in ("web", "client", "other"))

    def _wire(self) -> None:
        self.gateways = [self.networks.network("dnsa", GATEWAY, GATEWAY6)]
        for number, name, identifier in (
            (2, "web", WEB_ID),
            (3, "client", CLIENT_ID),
            (4, "other", OTHER_ID),
        ):
            for address in (f"10.99.0.{number}", f"fd99::{number}"):
                self.networks.lease("dnsa", address, identifier, f"name {name}", "alias all")
        for number, name in ((2, "web"), (3, "client"), (4, "other")):
            self.networks.namespace(f"dns{name}", "dnsa", f"10.99.0.{number}", f"fd99::{number}")

    def need(self) -> dict[str, int]:
        return guard.need(self.gateways)

    def close(self) -> None:
        self.networks.close()
        for name in (b"PYRUN_RUNROOT", b"PYRUN_BINARY"):
            posix.environ.pop(name, None)


def processes(*words: str) -> list[int]:
    """Those whose command line has all *words*, and that are no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text().replace("\0", " ")
            if all(word in line for word in words):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def guards(site: Site) -> list[int]:
    return processes(f"pyrun-guard {site.run}")


def resolvers(site: Site) -> list[int]:
    return processes(f"{site.run}", "network/dns")


def pss_kb(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def bind(address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    if ":" in address:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def is_taken(address: str, port: int, kind: int = socket.SOCK_STREAM) -> bool:
    try:
        bind(address, port, kind).close()
    except OSError:
        return True
    return False
