"""/etc/resolv.conf and /etc/hosts of a running container follow its networks, as Docker has it.

The files of its start (prepare.py) are bind-mounted, into containers that share its network as well, so they are
written in place. What the container wrote itself stays: a resolv.conf that is not as we left it is its own, and of
hosts only the lines of its own addresses change. Cold: for engine/connect.py.
"""

from __future__ import annotations

import errno
import posix
from collections.abc import Callable

from pyrun import notice
from pyrun.network import endpoint, resolver
from pyrun.store import paths

Record = dict[str, object]

# A container may write what it likes into its own files; nobody has to read more than this of it.
_MOST_BYTES = 1 << 20


def follow(record: Record, wires: list[endpoint.Wire]) -> None:
    """Let both files name what *wires* say, before these are noted in the container's *record* (container.json).

    What is written to resolv.conf is noted there: the next time tells by it whose the file is. A file that cannot be
    written is told of. A bundle has files of its own, and is left alone.
    """
    keep = f"{paths.root()}/containers/{record['id']}"
    resolv = record.get("resolv")
    if not isinstance(resolv, list):
        return
    former, now = _own_lines(record, _noted(record)), _own_lines(record, wires)
    _rewrite(f"{keep}/hosts", lambda content: _changed(content, former, now))
    lines = servers(record, wires)
    if _rewrite(f"{keep}/resolv.conf", lambda content: _text(lines) if content == _text(resolv) else None):
        record["resolv"] = lines


def servers(record: Record, wires: list[endpoint.Wire]) -> list[str]:
    """The lines of resolv.conf: the resolver of the interface with the default route, else of the first that has one,
    else the host's; with --dns, --dns-search and --dns-option of the start."""
    bridged = [wire for wire in wires if not wire.get("driver")]
    if not bridged:
        return resolver.chosen(record, resolver.reachable(fall_back=False))
    first = endpoint.first_for(bridged, "gateway") or endpoint.first_for(bridged, "gateway6") or bridged[0]
    return resolver.at(str(first["gateway"] or first["gateway6"]), record)


def _noted(record: Record) -> list[endpoint.Wire]:
    found = record.get("networks")
    return list(found) if isinstance(found, list) else []


def _own_lines(record: Record, wires: list[endpoint.Wire]) -> list[bytes]:
    """The lines of hosts that say which addresses the container has."""
    addresses = [wire[key] for wire in wires for key in ("address", "address6") if wire.get(key)]
    return [f"{address}\t{record['hostname']}".encode() for address in addresses]


def _text(lines: list[str]) -> bytes:
    return "".join([f"{line}\n" for line in lines]).encode()


def _changed(content: bytes, former: list[bytes], now: list[bytes]) -> bytes:
    """Hosts with the lines *now* in the place of *former*; new ones go to the end."""
    lines = content.split(b"\n")
    for line in former:
        if line not in now and line in lines:
            lines.remove(line)
    if lines[-1]:
        lines.append(b"")
    lines[-1:-1] = [line for line in now if line not in former and line not in lines]
    return b"\n".join(lines)


def _rewrite(path: str, changed: Callable[[bytes], bytes | None]) -> bool:
    """Write what *changed* makes of the file's content, in one go; None leaves it. Whether it was written."""
    try:
        if posix.stat(path).st_size > _MOST_BYTES:
            raise OSError(errno.EFBIG, posix.strerror(errno.EFBIG))
        content = changed(paths.read(path))
        if content is None:
            return False
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
        try:
            # over the old content: who reads meanwhile never finds the file empty
            posix.pwrite(fd, content, 0)
            posix.ftruncate(fd, len(content))
        finally:
            posix.close(fd)
    except OSError as error:
        notice.say(f"{path}: {error.strerror}: it still names the networks before")
        return False
    return True
