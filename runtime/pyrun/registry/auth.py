"""Who we are to a registry: the answer to `401 WWW-Authenticate`.

Bearer: a token server, named by the registry, hands out a token for `repository:NAME:pull`, to anybody or
against a password or an identity token (what `docker login` got for the password, of Azure for one). Basic: the
password itself. Both come from the file `docker login` writes; without one we are anybody. Tokens live in memory alone.
Source: distribution-spec "Authentication"; the Docker registry token protocol, by GET and by POST (OAuth 2).
"""

from __future__ import annotations

import base64
import json
import os
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pyrun.errors import RegistryError
from pyrun.registry import transport

_MAX_ANSWER_BYTES = 1 << 20
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")


class Challenge(NamedTuple):
    """scheme: lower case; parameters: realm, service, scope ..."""

    scheme: str
    parameters: dict[str, str]


def authorization(header: str, domain: str, path: str, insecure: bool) -> str:
    """The Authorization header that answers a WWW-Authenticate *header* for pulling *path*.

    domain: the registry whose password may be used. Raises RegistryError.
    """
    challenge = parse_challenge(header)
    if challenge.scheme == "basic":
        password = credentials(domain)
        if not password:
            raise RegistryError(
                f"{domain} asks for a password", f"`docker login {domain}` stores one that pyrun reads"
            )
        return f"Basic {password}"
    if challenge.scheme == "bearer":
        return f"Bearer {_token(challenge.parameters, domain, path, insecure)}"
    raise RegistryError(
        f"{domain} asks for an unknown way of authentication: {challenge.scheme or header!r:.40}"
    )


def parse_challenge(header: str) -> Challenge:
    """Read `Bearer realm="...",service="..."`; quoted values may hold commas and escaped quotes."""
    scheme, _, rest = header.strip().partition(" ")
    parameters: dict[str, str] = {}
    while rest := rest.lstrip(" ,\t"):
        key, _, rest = rest.partition("=")
        if rest.startswith('"'):
            value, at = "", 1
            while at < len(rest) and rest[at] != '"':
                at += rest[at] == "\\"
                value += rest[at : at + 1]
                at += 1
            rest = rest[at + 1 :]
        else:
            value, _, rest = rest.partition(",")
        parameters[key.strip().lower()] = value.strip()
    return Challenge(scheme.lower(), parameters)


def _token(parameters: dict[str, str], domain: str, path: str, insecure: bool) -> str:
    realm = parameters.get("realm", "")
    try:
        parts = urlsplit(realm)
        host = transport.origin(realm).host
        allowed = host and (
            parts.scheme == "https" or (parts.scheme == "http" and transport.may_use_http(realm, insecure))
        )
    except ValueError:
        allowed = ""
    if not allowed:
        raise RegistryError(f"{domain} names a token server that is not https: {realm!r:.80}")
    asked = {"scope": parameters.get("scope") or f"repository:{path}:pull"}
    if parameters.get("service"):
        asked["service"] = parameters["service"]
    password, identity = credentials(domain), identity_token(domain)
    with _ask(realm, asked, password, identity, insecure) as response:
        body = response.read_all(_MAX_ANSWER_BYTES)
        if response.status in (401, 403) or (identity and response.status == 400):
            why = "refuses the stored password" if password or identity else "asks for a password"
            raise RegistryError(
                f"{parts.hostname} {why} for {domain}/{path}",
                f"`docker login {domain}` stores one that pyrun reads",
            )
        if response.status != 200:
            raise RegistryError(
                f"{transport.show(realm)} answers with status {response.status} instead of a token"
            )
    token = _field(body, "token") or _field(body, "access_token")
    if not token or any(character <= " " or character > "~" for character in token):
        raise RegistryError(f"{transport.show(realm)} answers without a usable token")
    return token


def _ask(
    realm: str, asked: dict[str, str], password: str, identity: str, insecure: bool
) -> transport.Response:
    """The token server's answer: to a POST of the identity token, else to a GET with the password, if there is one."""
    if identity:
        form = asked | {"grant_type": "refresh_token", "client_id": "pyrun", "refresh_token": identity}
        return transport.post(realm, form, insecure)
    parts = urlsplit(realm)
    query = urlencode(dict(parse_qsl(parts.query)) | asked)
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
    return transport.get(url, {"Authorization": f"Basic {password}"} if password else {}, insecure)


def _field(body: bytes, name: str) -> str:
    try:
        value = json.loads(body)[name]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""


def credentials(domain: str) -> str:
    """The base64 `user:password` stored for a registry by `docker login`, or ""."""
    for entry in _stored(domain):
        value = entry.get("auth")
        try:
            if isinstance(value, str) and b":" in base64.b64decode(value, validate=True):
                return value
        except ValueError:
            continue
    return ""


def identity_token(domain: str) -> str:
    """The token `docker login` has got and stored in place of the password, or ""."""
    tokens = [entry.get("identitytoken") for entry in _stored(domain)]
    return next((token for token in tokens if token and isinstance(token, str)), "")


def _stored(domain: str) -> list[dict[str, Any]]:
    """What is stored for a registry, the likeliest first: from `auths` of $DOCKER_CONFIG/config.json or
    ~/.docker/config.json; credential helpers are programs and are not run."""
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    keys = _HUB_KEYS if domain == "docker.io" else (domain, f"https://{domain}", f"https://{domain}/")
    try:
        with open(f"{directory}/config.json", "rb") as file:
            stored: Any = json.loads(file.read(1 << 20))
        auths = stored.get("auths") or {}
        return [auths[key] for key in keys if isinstance(auths.get(key), dict)]
    except (OSError, ValueError, AttributeError, RecursionError):
        return []
