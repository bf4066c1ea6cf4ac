"""Which proxy a request goes through: https_proxy, http_proxy and no_proxy, as the environment has them.

A proxy is spoken to in plain http, whatever goes through it: https in a tunnel (CONNECT), http by an absolute URI.
The password in its address is for the proxy alone. Source: RFC 9110 sections 7.1, 9.3.6 and 11.7; curl(1), Environment.
"""

from __future__ import annotations

import base64
import ipaddress
import os
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from pyrun.errors import UsageError


class Proxy(NamedTuple):
    """headers: those for the proxy itself."""

    host: str
    port: int
    headers: dict[str, str]

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def choose(scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy for a server on another machine, or None. Raises UsageError (an address that cannot be used)."""
    address = getproxies().get(scheme)
    if not address or "REQUEST_METHOD" in os.environ or _is_bypassed(host, port):
        return None
    told = f"the variable {scheme}_proxy"
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        name, number = parts.hostname, parts.port or 80
    except ValueError:
        name = None
    if not name:
        raise UsageError(f"{told} is no address of a proxy", "write http://HOST:PORT")
    if parts.scheme != "http":
        hint = "pyrun speaks plain http to a proxy, also for what goes through it by https: write http://HOST:PORT"
        raise UsageError(f"{told} names a proxy of the kind {parts.scheme}://", hint)
    if parts.username is None:
        return Proxy(name, number, {})
    password = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(
        name, number, {"Proxy-Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
    )


def _is_bypassed(host: str, port: int) -> bool:
    """Whether no_proxy names the server: by name, the name's end, address or subnet; * is all."""
    if proxy_bypass(f"{host}:{port}"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for word in getproxies().get("no", "").split(","):
        try:
            if address in ipaddress.ip_network(word.strip().strip("[]"), strict=False):
                return True
        except ValueError:  # a name
            continue
    return False
