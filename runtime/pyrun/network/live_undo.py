"""What changes of a running container after its start: more to undo, and another record.

Its undo list is held by the monitor and executed by descriptor, so it cannot be replaced. Once the links are down, its
network part goes on with `also run/containers/ID/more.undo`: whoever connects or publishes something later writes the
lines into that file first, then does it. Each line may be executed for something that was never done, or is gone.
"""

from __future__ import annotations

import fcntl
import posix

from pyrun.errors import NotFound
from pyrun.jsonlite import dumps, loads
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrun.store.record import Record

_FILE, _LOCK = "more.undo", "more.lock"


def path(identifier: str) -> str:
    """The further undo list of a container."""
    return f"{paths.run()}/containers/{identifier}/{_FILE}"


def undo_line(identifier: str) -> str:
    """The line of the first undo list that has the further one executed."""
    return f"also\t{path(identifier)}"


def inserted(lines: list[str], more: list[str]) -> list[str]:
    """The network's part of a first undo list with *more* right behind the line that has the further one executed."""
    place = next(number for number, line in enumerate(lines) if line.partition("\t")[0] == "also") + 1
    return [*lines[:place], *more, *lines[place:]]


class locked:
    """One change of a running container at a time. Raises NotFound when it has ended."""

    __slots__ = ("fd", "identifier")

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier

    def __enter__(self) -> None:
        lock = f"{paths.run()}/containers/{self.identifier}/{_LOCK}"
        try:
            self.fd = posix.open(lock, posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise ended(self.identifier) from None
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        posix.close(self.fd)


def append(identifier: str, lines: list[str]) -> None:
    """Add *lines* to what is undone when the container ends: before the thing itself is done. Call under `locked`.

    Raises NotFound when the container ended meanwhile: its list may have been executed already.
    """
    text = _text(lines)
    flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC
    try:
        fd = posix.open(path(identifier), flags, 0o600)
    except FileNotFoundError:
        raise ended(identifier) from None
    try:
        posix.write(fd, text)
    finally:
        posix.close(fd)


def precede(identifier: str, lines: list[str], *, instead: bool = False) -> None:
    """The same as `append`, in front of what is there already: for what is undone before an address is given up.

    instead: lines and guarded blocks that begin as one of these are taken out; once what they undo is gone.
    """
    firsts = {block[0] for block in _blocks(lines)} if instead else set[str]()
    kept = [line for block in _blocks(_listed(identifier)) if block[0] not in firsts for line in block]
    try:
        paths.replace(path(identifier), _text([*lines, *kept]))
    except FileNotFoundError:
        raise ended(identifier) from None


def drop(identifier: str, lines: list[str]) -> None:
    """Take *lines* out again: what they undo is undone. A guarded block goes with its first line. Call under `locked`.

    Without that a container whose ports come and go for months would have months of them.
    """
    gone, kept = set(lines), list[str]()
    try:
        listed = _listed(identifier)
        for block in _blocks(listed):
            kept += [] if block[0] in gone else block
        if len(kept) < len(listed):
            paths.replace(path(identifier), _text(kept))
    except FileNotFoundError:  # the container has just ended
        pass


def _listed(identifier: str) -> list[str]:
    """What is noted, [] when nothing came later."""
    try:
        return paths.read(path(identifier)).decode("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return []


def _text(lines: list[str]) -> bytes:
    return "".join([f"{line}\n" for line in lines]).encode("utf-8", "surrogateescape")


def _blocks(lines: list[str]) -> list[list[str]]:
    """Each line for itself, those from a `guard` to its `end` together."""
    blocks: list[list[str]] = []
    guarded = False
    for line in lines:
        if guarded:
            blocks[-1].append(line)
        else:
            blocks.append([line])
        guarded = line != "end" if guarded else line.startswith("guard\t")
    return blocks


def change_record(identifier: str, function: Callable[[Record], None]) -> None:
    """Read container.json, let *function* change it, and replace it. Call under `locked`."""
    file = f"{paths.root()}/containers/{identifier}/container.json"
    try:
        record = loads(paths.read(file))
    except (OSError, ValueError):
        raise NotFound(f"container {identifier[:12]} has no record") from None
    assert isinstance(record, dict)
    container: Any = record
    function(container)
    paths.replace(file, dumps(record).encode("utf-8", "surrogateescape"))


def ended(identifier: str) -> NotFound:
    """The error for a container that runs no more."""
    try:
        record = loads(paths.read(f"{paths.root()}/containers/{identifier}/container.json"))
        assert isinstance(record, dict)
        known = str(record["name"])
    except (OSError, ValueError, KeyError, AssertionError):  # removed with its end
        known = identifier[:12]
    return NotFound(f"container {known} is not running", "see `pyrun ps -a`")
