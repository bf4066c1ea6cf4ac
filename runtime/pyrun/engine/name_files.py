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
from pyrun.engine import connected
from pyrun.network import endpoint, live_undo, resolver
from pyrun.spec import values
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.record import Record


# A container may write what it likes into its own files; nobody has to read more than this of it.
_MOST_BYTES = 1 << 20


def expect(record: Record, wires: list[endpoint.Wire]) -> None:
    """Note in the *record* (container.json) what both files say, and are to say when *wires* are its interfaces.

    That is noted before they are written: whoever dies in between leaves files that the next one knows as ours.
    A bundle has files of its own, and is left alone.
    """
    if not isinstance(record.get("resolv"), list):
        return
    before = _before(record)
    before["hosts"] += [
        each for each in _own_lines(record, connected.wires_of(record)) if each not in before["hosts"]
    ]
    before["resolv"] += [_text(record["resolv"])]
    record["names_before"] = before
    record["resolv"] = servers(record, wires)


def follow(identifier: str) -> None:
    """Write both files as the container's record says. A file that cannot be written is told of. Call under
    `live_undo.locked`."""
    live_undo.change_record(identifier, _written)


def _written(record: Record) -> None:
    if "names_before" not in record:
        return
    keep, before = f"{paths.root()}/containers/{record['id']}", _before(record)
    now, resolv = _own_lines(record, connected.wires_of(record)), _text(record["resolv"])
    former = [line for line in before["hosts"] if line not in now]
    _rewrite(f"{keep}/hosts", lambda content: _changed(content, former, now))
    _rewrite(f"{keep}/resolv.conf", lambda content: resolv if content in before["resolv"] else None)
    del record["names_before"]


def _before(record: Record) -> dict[str, list[str]]:
    """What a file may say of us: lines of hosts, whole contents of resolv.conf."""
    found = record.get("names_before")
    return found if isinstance(found, dict) else {"hosts": [], "resolv": []}


def servers(record: Record, wires: list[endpoint.Wire]) -> list[str]:
    """The lines of resolv.conf: the resolver of the interface with the default route, else of the first that has one,
    else the one inside, else the host's; with --dns, --dns-search and --dns-option of the start."""
    bridged, dns = [wire for wire in wires if not wire.driver], connected.dns_of(record)
    if wires and not bridged:
        from pyrun.network.drivers import naming

        if naming.is_answered(str(record["id"]), wires):
            return resolver.at(naming.INSIDE, dns)
    if not bridged:
        return resolver.chosen(dns, resolver.reachable(fall_back=False))
    first = endpoint.first_for(bridged, False) or endpoint.first_for(bridged, True) or bridged[0]
    return resolver.at(first.gateway or first.gateway6, dns)


def _own_lines(record: Record, wires: list[endpoint.Wire]) -> list[str]:
    """The lines of hosts that say which addresses the container has."""
    addresses = [address for wire in wires for address in wire.addresses()]
    own = values.names_in_hosts(str(record["hostname"]))
    return [f"{address}\t{own}" for address in addresses]


def _text(lines: list[str]) -> str:
    return "".join([f"{line}\n" for line in lines])


def _changed(content: str, former: list[str], now: list[str]) -> str:
    """Hosts without the lines *former* and with *now*; new ones go to the end."""
    lines = content.split("\n")
    for line in former:
        if line in lines:
            lines.remove(line)
    if lines[-1]:
        lines.append("")
    lines[-1:-1] = [line for line in now if line not in lines]
    return "\n".join(lines)


def _rewrite(path: str, changed: Callable[[str], str | None]) -> None:
    """Write what *changed* makes of the file's content; None leaves it.

    Over the old content: who reads meanwhile never finds the file empty.
    """
    try:
        # without waiting: the container may hold a lease on it
        fd = posix.open(path, posix.O_RDWR | posix.O_NONBLOCK | posix.O_CLOEXEC | posix.O_NOFOLLOW)
        try:
            found = posix.pread(fd, _MOST_BYTES + 1, 0)
            if len(found) > _MOST_BYTES:
                raise OSError(errno.EFBIG, posix.strerror(errno.EFBIG))
            text = changed(found.decode("utf-8", "surrogateescape"))
            if text is None:
                return
            data, done = text.encode("utf-8", "surrogateescape"), 0
            while done < len(data):
                done += posix.pwrite(fd, data[done:], done)
            posix.ftruncate(fd, len(data))
        finally:
            posix.close(fd)
    except OSError as error:
        notice.say(f"{path}: {error.strerror}: it still names the networks before")
