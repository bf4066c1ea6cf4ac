"""The servers outside: those of the host's resolv.conf, loopback ones too, since this runs on the host; or the ones a
container was given by --dns. Which of them answered last is asked first, one that was silent last."""

from __future__ import annotations

import posix
from _socket import AF_INET, AF_INET6, if_nametoindex, inet_pton

HOST_FILE = "/etc/resolv.conf"
_LOOK_EVERY_S = 1.0
_SILENT_FOR_S = 15.0
_MOST_SERVERS = 6
_MOST_BYTES = 65536


class Servers:
    """The servers to ask, in order."""

    __slots__ = ("_file", "_host", "_looked_s", "_seen", "_silent", "own")

    def __init__(self, file: str = HOST_FILE) -> None:
        self._file = file
        self._host: tuple[str, ...] = ()
        self._seen = (0, 0)
        self._looked_s = -_LOOK_EVERY_S
        self._silent: dict[str, float] = {}
        self.own: set[str] = set()  # addresses we answer on ourselves: asking them would go round in circles

    def of(self, given: tuple[str, ...], now_s: float) -> tuple[str, ...]:
        """*given* by --dns, else the host's; those that lately were silent at the end."""
        self._look(now_s)
        wanted = [server for server in given or self._host if server not in self.own and _is_usable(server)]
        silent = [server for server in wanted if self._silent.get(server, 0.0) > now_s]
        return tuple([server for server in wanted if server not in silent] + silent)[:_MOST_SERVERS]

    def note(self, server: str, *, answered: bool, now_s: float) -> None:
        """What became of a question."""
        if answered:
            self._silent.pop(server, None)
        else:
            if len(self._silent) > 256:
                self._silent.clear()
            self._silent[server] = now_s + _SILENT_FOR_S

    def _look(self, now_s: float) -> None:
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            status = posix.stat(self._file)
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                self._host, self._seen = _nameservers(self._file), seen
        except OSError:
            self._host, self._seen = (), (0, 0)


def _nameservers(path: str) -> tuple[str, ...]:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        text = posix.read(fd, _MOST_BYTES).decode("utf-8", "replace")
    finally:
        posix.close(fd)
    words = [line.split() for line in text.splitlines()]
    return tuple(line[1] for line in words if len(line) > 1 and line[0] == "nameserver")


def family(server: str) -> int:
    """Of an address: AF_INET or AF_INET6."""
    return AF_INET6 if ":" in server else AF_INET


def place(server: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """Where to connect: an address of a link is one only with that link, "fe80::1%eth0". Raises OSError."""
    address, _, link = server.partition("%")
    if not link:
        return address, port
    return address, port, 0, int(link) if link.isdigit() else if_nametoindex(link)


def _is_usable(server: str) -> bool:
    try:
        packed = inet_pton(family(server), server.partition("%")[0])
    except (OSError, ValueError):
        return False
    return any(packed)
