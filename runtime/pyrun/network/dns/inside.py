"""Sockets of a container's own network namespace, for what is asked of its own servers (--dns): they may be on a
segment which the host cannot reach. Only the guard can make them; it is asked for one at a time (csrc/guard_dns.c).

    to the guard     "socket CONTAINER udp|tcp 4|6 NUMBER"
    and back         the same words with the socket, without one when there is none to be had
"""

from __future__ import annotations

from _socket import socket
from collections.abc import Callable

Given = Callable[[socket | None], None]

# Answers that never came are forgotten when there are so many; whoever waits for one has given up long before.
_MOST = 4096


class Sockets:
    """Those asked for. *say*: sends words to the guard, False when it does not take them."""

    __slots__ = ("_number", "_say", "_wanted")

    def __init__(self, say: Callable[[bytes], bool]) -> None:
        self._say = say
        self._wanted: dict[int, Given] = {}
        self._number = 0

    def ask(self, container: str, *, stream: bool, six: bool, given: Given) -> bool:
        """Have *given* called with a socket, later. False: it will not be."""
        if len(self._wanted) >= _MOST:
            self._wanted.clear()
        self._number += 1
        words = f"socket\t{container}\t{'tcp' if stream else 'udp'}\t{6 if six else 4}\t{self._number}"
        if not self._say(words.encode()):
            return False
        self._wanted[self._number] = given
        return True

    def came(self, number: str, sockets: list[socket]) -> None:
        """The guard's answer."""
        given = self._wanted.pop(int(number), None)
        if given is None:
            for sock in sockets:
                sock.close()
            return
        for sock in sockets:
            sock.setblocking(False)
        given(sockets[0] if sockets else None)
