"""Which servers to ask for the images of a registry: the mirror table, then the registry itself.

The table is /etc/pyrun/registries.yaml, or the file $PYRUN_REGISTRIES names:

    mirrors:
      docker.io:
        - url: https://mirror.example.com        # asked first; a path is a prefix: https://host/dockerhub
        - url: http://127.0.0.1:5000
          insecure: true                         # plain http allowed, and certificates are not checked
          only: true                             # do not ask the registry itself when this one fails

The image's name stays that of the registry: a mirror is trusted to answer for it (by tag), never to change
what a digest means.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pyrun.errors import UsageError
from pyrun.registry import transport
from pyrun.store import recipes

TABLE = "/etc/pyrun/registries.yaml"
_UPSTREAM = {"docker.io": "https://registry-1.docker.io"}  # where Docker Hub answers


class Endpoint(NamedTuple):
    """A server. url: scheme, host, port and perhaps a path prefix, no slash at the end."""

    url: str
    insecure: bool


def endpoints(domain: str) -> list[Endpoint]:
    """The servers for a registry's images, first to last. Raises UsageError (a malformed table)."""
    path = os.environ.get("PYRUN_REGISTRIES") or TABLE
    try:
        table = recipes.read_yaml(path)
    except FileNotFoundError:
        if "PYRUN_REGISTRIES" in os.environ:
            raise UsageError(f"PYRUN_REGISTRIES: no such file: {path}", "name another, or unset it") from None
        table = None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    found, only = check({} if table is None else table, path).get(domain, ([], False))
    return found if only else [*found, upstream(domain)]


def settled(registry: Endpoint) -> Endpoint:
    """A registry itself as it is to be asked: one on this machine by https if it speaks that, as Docker does it. It is
    found out by a handshake: no password goes in clear to one that could have it otherwise."""
    parts = urlsplit(registry.url)
    if parts.scheme == "http" and transport.speaks_tls(registry.url):
        return Endpoint(f"https://{parts.netloc}", registry.insecure)
    return registry


def upstream(domain: str) -> Endpoint:
    """The registry itself: https, but plain http for one on this machine unless `settled` knows better."""
    host = urlsplit(f"//{domain}").hostname or ""
    if host in transport.LOOPBACK:
        return Endpoint(f"http://{domain}", True)
    return Endpoint(_UPSTREAM.get(domain, f"https://{domain}"), False)


def check(table: Any, path: str) -> dict[str, tuple[list[Endpoint], bool]]:
    """The table as values: registry -> (mirrors, whether only they are asked). Raises UsageError."""
    if (
        not isinstance(table, dict)
        or set(table) - {"mirrors"}
        or not isinstance(table.get("mirrors") or {}, dict)
    ):
        raise UsageError(
            f"{path}: expected a mapping with the one field mirrors: registry -> list of mirrors"
        )
    checked = {}
    for domain, rows in (table.get("mirrors") or {}).items():
        where = f"{path}: mirrors.{domain}"
        if not isinstance(rows, list) or not rows:
            raise UsageError(f"{where}: expected a list of mirrors")
        servers = [_endpoint(row, f"{where}[{number}]") for number, row in enumerate(rows)]
        checked[str(domain)] = (servers, any(row.get("only") for row in rows))
    return checked


def _endpoint(row: Any, where: str) -> Endpoint:
    if (
        not isinstance(row, dict)
        or set(row) - {"url", "insecure", "only"}
        or not isinstance(row.get("url"), str)
    ):
        raise UsageError(f"{where}: expected url (text), insecure and only (true or false)")
    for field in ("insecure", "only"):
        if not isinstance(row.get(field, False), bool):
            raise UsageError(f"{where}.{field}: {row[field]!r} is not true or false")
    try:
        parts = urlsplit(row["url"])
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username:
        raise UsageError(f"{where}.url: {row['url']!r} is not a plain http or https address")
    insecure = bool(row.get("insecure"))
    if parts.scheme == "http" and not insecure and parts.hostname not in transport.LOOPBACK:
        raise UsageError(
            f"{where}.url: plain http needs `insecure: true`", "its answers could be changed on the way"
        )
    return Endpoint(row["url"].rstrip("/"), insecure or parts.hostname in transport.LOOPBACK)
