"""What an egress policy has to say about names: may this one be asked outside, and which addresses did it have.

The policies, and the firewall's sets that the addresses go to, are those of network/egress/, which is imported when the
first container with a policy asks. A policy that cannot be read forbids everything.
"""

from __future__ import annotations

import posix
import sys
from _socket import socket
from typing import Any

_RECURSION = 1000


class Forbidden(Exception):
    """The policy of a container does not let it ask this."""


class Policies:
    """The policies of the containers that have one."""

    __slots__ = ("_directory", "_known", "_module", "_netfilter")

    def __init__(self, run: str) -> None:
        self._directory = f"{run}/networks/policies"
        self._known: dict[str, tuple[tuple[int, int], Any]] = {}
        self._module: Any = None
        self._netfilter: socket | None = None

    def asked(self, owner: str, name: str) -> Any:
        """The policy of a container, None without one. Raises Forbidden when it may not ask for *name*."""
        try:
            status = posix.stat(f"{self._directory}/{owner}")
        except OSError:
            return None
        seen = (status.st_mtime_ns, status.st_ino)
        known = self._known.get(owner)
        if known is None or known[0] != seen:
            if len(self._known) > 1024:
                self._known.clear()
            known = self._known[owner] = (seen, self._loaded(owner))
        if known[1] is None or not self._module.resolves(known[1], name):
            raise Forbidden(name)
        return known[1]

    def _loaded(self, owner: str) -> Any:
        try:
            if self._module is None:
                limit = sys.getrecursionlimit()
                sys.setrecursionlimit(_RECURSION)  # imports go deep
                try:
                    from pyrun.network import egress

                    self._module = egress
                finally:
                    sys.setrecursionlimit(limit)
            return self._module.load(owner)
        except (ImportError, OSError, ValueError):
            return None

    def admit(self, source: str, policy: Any, name: str, addresses: list[tuple[str, int]]) -> None:
        """Let the container with *source* reach what *name* was answered with. Raises OSError."""
        if not addresses:
            return
        if self._netfilter is None:
            from pyrun.network import messages

            self._netfilter = messages.opened(messages.NETLINK_NETFILTER)
        self._module.admit(self._netfilter, source, policy, name, addresses)
