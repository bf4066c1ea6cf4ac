"""Publishing a port on every address although pyrun's own resolver has it on the gateways: a name server's 53.

A bind to every address fails then, for no reason that matters: questions to a gateway never reach the container, since
an element for that address comes first. Who else has the port is told by /proc/net. Cold: only after such a failure.
"""

from __future__ import annotations

import _socket
import errno
import socket
from pathlib import Path

from pyrun.network import guard, messages
from pyrun.network.publishing import reservation

_LISTENS = "0A"


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
