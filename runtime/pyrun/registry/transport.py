"""HTTP as a registry needs it, over the standard library: one request a connection, and what can go wrong.

Redirects are followed by hand: credentials must not travel to another host (blobs usually live on one), and no server
may lead to an address nearer to this host than its own (zones.py).
Plain http is only for servers marked insecure and this machine; a redirect can not lower https to http.
Every wait has a limit. http.client bounds the sizes of status lines and headers.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

from pyrun import __version__
from pyrun.errors import RegistryError
from pyrun.registry import proxies, zones
from pyrun.registry.zones import Zone
from pyrun.safe import is_number

CONNECT_S = 10.0
READ_S = 30.0  # between two pieces of an answer
MAX_REDIRECTS = 5
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # this machine, however it is called
_REDIRECTS = (301, 302, 303, 307, 308)


class Unreachable(RegistryError):
    """No answer, or one that broke off. again: whether the next try may have more luck."""

    again = True


class Origin(NamedTuple):
    """What credentials belong to."""

    scheme: str
    host: str
    port: int


class Response:
    """An answer with its body still to be read; close it. zone: how near the server is."""

    def __init__(self, connection: http.client.HTTPConnection, url: str, zone: Zone) -> None:
        self._socket = (
            connection.sock
        )  # http.client forgets it as soon as it has the headers of a last answer
        raw = connection.getresponse()
        self.status = raw.status
        self.headers = raw.headers
        self.url = url
        self.zone = zone
        self._raw = raw
        self._connection = connection

    def read(self, count: int) -> bytes:
        """At most *count* bytes of the body, b"" at its end. Raises Unreachable if it breaks off."""
        try:
            return self._raw.read1(count)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unreachable(f"{show(self.url)}: the answer broke off: {_reason(error)}") from error

    def read_all(self, limit_bytes: int) -> bytes:
        """The whole body. Raises RegistryError if it is larger than the limit."""
        pieces, size = [], 0
        while piece := self.read(1 << 16):
            size += len(piece)
            if size > limit_bytes:
                raise RegistryError(f"{show(self.url)}: the answer is larger than {limit_bytes} bytes")
            pieces.append(piece)
        declared = self.headers.get("Content-Length", "")
        if is_number(declared) and int(declared) != size:
            raise Unreachable(f"{show(self.url)}: the answer broke off after {size} of {declared} bytes")
        return b"".join(pieces)

    def close(self) -> None:
        """Drop the connection."""
        self._raw.close()
        self._connection.close()

    def abort(self) -> None:
        """Make a `read` that another thread waits in fail at once."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def get(url: str, headers: dict[str, str], insecure: bool = False, limit: Zone = Zone.LOOPBACK) -> Response:
    """GET with redirects; the answer may have any status that is not a redirect.

    insecure: http is allowed and certificates are not checked, for this server. limit: the nearest that its address may
    be; for a redirect that is the zone of the server that answers with it. Raises RegistryError.
    """
    first, left = origin(url), False
    for _ in range(MAX_REDIRECTS + 1):
        if not left and origin(url) != first:  # for good: who sends us back here has chosen the path
            left = True
            headers = {key: value for key, value in headers.items() if key != "Authorization"}
        response = _request(url, headers, insecure and not left, limit)
        if response.status not in _REDIRECTS:
            return response
        limit = min(limit, response.zone)
        target = response.headers.get("Location", "")
        response.close()
        url = _redirected(url, target)
    raise RegistryError(f"{show(url)}: more than {MAX_REDIRECTS} redirects")


def post(url: str, form: dict[str, str], insecure: bool = False, limit: Zone = Zone.LOOPBACK) -> Response:
    """POST a form, which may hold a secret: redirects are not followed. limit: as for `get`. Raises RegistryError."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return _request(url, headers, insecure, limit, urlencode(form).encode())


def _redirected(url: str, target: str) -> str:
    try:
        new = urljoin(url, target)
        here = origin(new)
    except ValueError:
        raise RegistryError(f"{show(url)}: a redirect to nonsense: {target!r:.80}") from None
    if not target or here.scheme not in ("http", "https"):
        raise RegistryError(f"{show(url)}: a redirect to {target!r:.80}")
    if here.scheme == "http" and urlsplit(url).scheme == "https":
        raise RegistryError(f"{show(url)}: a redirect from https to plain http at {here.host}")
    return new


def origin(url: str) -> Origin:
    """Scheme, host and port of a URL. Raises ValueError."""
    parts = urlsplit(url)
    return Origin(parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


def show(url: str) -> str:
    """A URL for a message: without the query, which may hold a signature."""
    return url.partition("?")[0]


def may_use_http(url: str, insecure: bool) -> bool:
    """Whether this URL's plain http is allowed."""
    return insecure or origin(url).host in LOOPBACK


def _request(
    url: str, headers: dict[str, str], insecure: bool, limit: Zone, body: bytes | None = None
) -> Response:
    parts, here = urlsplit(url), origin(url)
    if here.scheme != "https" and not may_use_http(url, insecure):
        raise RegistryError(
            f"{show(url)}: plain http is not allowed",
            "mark the mirror `insecure: true` if you trust the way to it",
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if any(character <= " " or character > "~" for character in path + here.host):
        raise RegistryError(f"{show(url)!r}: not a valid address")
    proxy = None if here.host in LOOPBACK else proxies.choose(*here)
    sent = {"User-Agent": f"pyrun/{__version__}", **headers}
    if proxy and here.scheme == "http":
        path, sent = f"http://{_netloc(here)}{path}", sent | proxy.headers
    connection = None
    try:
        connection, zone = _connect(here, insecure, proxy, limit)
        connection.request("GET" if body is None else "POST", path, body, sent)
        return Response(connection, url, zone)
    except ssl.SSLCertVerificationError as error:
        raise RegistryError(
            f"{here.host}: its certificate is not trusted: {error.verify_message}",
            "install the certificate authority, or mark the mirror `insecure: true`",
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if connection is not None:
            connection.close()
        way = f" by the proxy {proxy}" if proxy else ""
        failure = Unreachable(f"{here.host}:{here.port} cannot be reached{way}: {_reason(error)}")
        failure.again = not isinstance(error, ConnectionRefusedError | socket.gaierror)
        raise failure from error


def speaks_tls(url: str) -> bool:
    """Whether the server of a URL answers a TLS handshake, with whatever certificate."""
    here = origin(url)
    context = _tls(insecure=True)
    try:
        with (
            socket.create_connection((here.host, here.port), CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=here.host),
        ):
            return True
    except OSError:
        return False


def _tls(*, insecure: bool) -> ssl.SSLContext:
    """insecure: any certificate will do."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _connect(
    here: Origin, insecure: bool, proxy: proxies.Proxy | None, limit: Zone
) -> tuple[http.client.HTTPConnection, Zone]:
    """A connection to the server, by the proxy if there is one, and the zone the server is in."""
    host, port = (proxy.host, proxy.port) if proxy else (here.host, here.port)
    context = _tls(insecure=insecure) if here.scheme == "https" else None
    connection = (
        http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=context)
        if context
        else http.client.HTTPConnection(host, port, timeout=CONNECT_S)
    )
    if proxy:
        zone = zones.refuse_literal(here.host, here.port, limit)
        if context:
            connection.set_tunnel(here.host, here.port, proxy.headers)
        connection.connect()
    else:
        plain = zones.dial(host, port, CONNECT_S, limit)
        zone = zones.zone_of(plain.getpeername()[0])
        connection.sock = context.wrap_socket(plain, server_hostname=host) if context else plain
    if isinstance(connection.sock, socket.socket):
        connection.sock.settimeout(READ_S)
    return connection, zone


def _netloc(here: Origin) -> str:
    host = f"[{here.host}]" if ":" in here.host else here.host
    return host if here.port == 80 else f"{host}:{here.port}"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]
