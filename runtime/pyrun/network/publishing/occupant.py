"""Which program of the host has a port that a container wants: as `ss -lp` finds it, and like it only when asked.

    /proc/net/tcp, tcp6, udp, ..., sctp/eps   the inodes of the sockets on the port
    /proc/PID/fd                              who has a descriptor of one of them

Cold: a start comes here only to be refused. Nobody is found where the owner is in another PID namespace or of another
user, where the kernel itself has the socket (NFS), and where a TCP socket is bound but does not listen.
"""

from __future__ import annotations

import _socket
import errno
import posix
import socket
from _socket import AF_INET, AF_INET6, inet_ntop
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pyrun.network import guard, messages
from pyrun.network.publishing import reservation
from pyrun.network.publishing.ports import ANY, ANY6

_LISTENS = "0A"
_SCTP_COLUMNS = 8  # ENDPT SOCK STY SST HBKT LPORT UID INODE, then the addresses


def named(host: str, number: int, protocol: str) -> str:
    """`nginx (pid 812)`: of several that share the socket the one that was there first; "" if nobody is found."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(host, number, protocol)}
    for pid in sorted(int(name) for name in posix.listdir("/proc") if name.isdigit()) if wanted else ():
        if wanted & set(_open(pid)):
            return f"{_name(pid)} (pid {pid})"
    return ""


def _inodes(host: str, number: int, protocol: str) -> list[str]:
    """The sockets that keep the port from being bound on *host*."""
    if protocol == "sctp":
        rows = (line.split() for line in _lines("sctp/eps"))
        return [
            row[7]
            for row in rows
            if len(row) >= _SCTP_COLUMNS
            and row[5] == str(number)
            and any(_overlap(host, each) for each in row[_SCTP_COLUMNS:])
        ]
    rows = (line.split() for table in (protocol, f"{protocol}6") for line in _lines(table))
    found = [
        (row[3] != _LISTENS, row[9])
        for row in rows
        if row[1].endswith(f":{number:04X}") and _overlap(host, _address(row[1].partition(":")[0]))
    ]
    # Connections of a listener have its port too, and may be another program's by now.
    listening = [inode for idle, inode in found if not idle]
    return listening or [inode for _, inode in found if inode != "0"]


def _overlap(host: str, other: str) -> bool:
    """Whether a socket on *other* keeps *host* from being bound; one on :: has IPv4 too, if it did not decline."""
    return other in (host, ANY6) or (
        (":" in host) == (":" in other) and (host in (ANY, ANY6) or other == ANY)
    )


def _address(digits: str) -> str:
    """The address that /proc/net writes in words of 32 bits, each in the order of this machine's bytes."""
    import sys

    words = [int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8)]
    return inet_ntop(AF_INET if len(words) == 1 else AF_INET6, b"".join(words)).removeprefix("::ffff:")


def _lines(table: str) -> list[str]:
    try:
        with open(f"/proc/net/{table}", encoding="ascii") as file:
            return file.read().splitlines()[1:]
    except OSError:  # no such protocol here
        return []


def _open(pid: int) -> Iterator[str]:
    try:
        descriptors = posix.listdir(f"/proc/{pid}/fd")
    except OSError:  # it ended, or is not ours to read
        return
    for descriptor in descriptors:
        with suppress(OSError):  # closed meanwhile
            yield posix.readlink(f"/proc/{pid}/fd/{descriptor}")


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="backslashreplace") as file:
            return file.read().strip()
    except OSError:
        return "a program that has ended"


# ── port 53 beside the resolver's ──────────────────────────────────────────────────────────────────


# A name server's port on every address, although pyrun's own resolver has it on the gateways. A bind to every address
# fails then, for no reason that matters: questions to a gateway never reach the container, since an element for that
# address comes first. Who else has the port is told by /proc/net. Only after such a failure.


def bound(host: str, number: int, protocol: str) -> _socket.socket | None:
    """A socket that reserves the port where that is possible; None when somebody else has it too."""
    known = guard.status()
    gateways = {
        _hexadecimal(template[key])
        for name, port in known.items()
        if port == number and (template := messages.load(name))
        for key in ("gateway", "gateway6")
        if template.get(key)
    }
    if not gateways or not holders(number, protocol, six=":" in host) <= gateways:
        return None
    for address in ("::1",) if ":" in host else ("127.0.0.1",):
        try:
            return reservation.bound(address, number, protocol)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return None


def holders(number: int, protocol: str, *, six: bool) -> set[str]:
    """The addresses, as /proc/net has them, on which programs have the port."""
    found = set()
    path = Path("/proc/net", f"{protocol}6" if six else protocol)
    for line in path.read_text().splitlines()[1:]:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        if int(port, 16) == number and (protocol == "udp" or fields[3] == _LISTENS):
            found.add(address)
    return found


def _hexadecimal(address: str) -> str:
    """As /proc/net prints it: words of four bytes, each in the machine's order."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    return "".join(f"{int.from_bytes(packed[at : at + 4], 'little'):08X}" for at in range(0, len(packed), 4))
