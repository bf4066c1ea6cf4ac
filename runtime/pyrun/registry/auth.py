"""Who we are to a registry: the answer to `401 WWW-Authenticate`.

Bearer: a token server, named by the registry, hands out a token for `repository:NAME:pull`, to anybody or
against a password or an identity token (what `docker login` got for the password, of Azure for one). Basic: the
password itself. Both come from the file `docker login` writes; without one we are anybody. Tokens live in memory alone.

The realm is the registry's word, which may be hostile: the token server is no nearer to this host than the registry
(zones.py), speaks https unless the registry itself does not, and gets a password only if it belongs to it.
Source: distribution-spec "Authentication"; the Docker registry token protocol, by GET and by POST (OAuth 2).
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pyrun.errors import RegistryError
from pyrun.registry import transport
from pyrun.registry.zones import Zone
from pyrun.safe import shell_word

_MAX_ANSWER_BYTES = 1 << 20
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")


class Challenge(NamedTuple):
    """scheme: lower case; parameters: realm, service, scope ..."""

    scheme: str
    parameters: dict[str, str]


def authorization(asked: transport.Response, domain: str, path: str, insecure: bool) -> str:
    """The Authorization header that answers the WWW-Authenticate of *asked*, for pulling *path*.

    domain: the registry whose password may be used. Raises RegistryError.
    """
    header = asked.headers.get("WWW-Authenticate", "")
    challenge = parse_challenge(header)
    if challenge.scheme == "basic":
        password = credentials(domain)
        if not password:
            raise RegistryError(
                f"{domain} asks for a password",
                f"`docker login {shell_word(domain)}` stores one that pyrun reads",
            )
        return f"Basic {password}"
    if challenge.scheme == "bearer":
        return f"Bearer {_token(challenge.parameters, asked, domain, path, insecure)}"
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


def _token(
    parameters: dict[str, str], asked: transport.Response, domain: str, path: str, insecure: bool
) -> str:
    realm = parameters.get("realm", "")
    host = _host_of(realm, asked, insecure)
    if not host:
        raise RegistryError(f"{domain} names a token server that is not https: {realm!r:.80}")
    fields = {"scope": parameters.get("scope") or f"repository:{path}:pull"}
    if parameters.get("service"):
        fields["service"] = parameters["service"]
    password, identity = credentials(domain), identity_token(domain)
    withheld = bool(password or identity) and not belongs(host, transport.origin(asked.url).host)
    if withheld:
        password = identity = ""
    with _ask(realm, fields, password, identity, insecure, asked.zone) as response:
        body = response.read_all(_MAX_ANSWER_BYTES)
        if response.status in (401, 403) or (identity and response.status == 400):
            raise _refusal(host, domain, path, withheld=withheld, stored=bool(password or identity))
        if response.status != 200:
            raise RegistryError(
                f"{transport.show(realm)} answers with status {response.status} instead of a token"
            )
    token = _field(body, "token") or _field(body, "access_token")
    if not token or any(character <= " " or character > "~" for character in token):
        raise RegistryError(f"{transport.show(realm)} answers without a usable token")
    return token


def _host_of(realm: str, asked: transport.Response, insecure: bool) -> str:
    """The host of a realm that may be asked: by https, or by http as the registry itself was; else ""."""
    try:
        where, registry = transport.origin(realm), transport.origin(asked.url)
        plain = where.scheme == registry.scheme == "http" and transport.may_use_http(realm, insecure)
    except ValueError:
        return ""
    return where.host if where.scheme == "https" or plain else ""


def _refusal(host: str, domain: str, path: str, *, withheld: bool, stored: bool) -> RegistryError:
    if withheld:
        return RegistryError(
            f"{host} asks for a password for {domain}/{path}, but does not belong to the registry that names it: "
            f"what is stored for {domain} is not sent there",
            "the registry is set up wrongly, or hostile",
        )
    why = "refuses the stored password" if stored else "asks for a password"
    return RegistryError(
        f"{host} {why} for {domain}/{path}",
        f"`docker login {shell_word(domain)}` stores one that pyrun reads",
    )


def _ask(
    realm: str, fields: dict[str, str], password: str, identity: str, insecure: bool, limit: Zone
) -> transport.Response:
    """The token server's answer: to a POST of the identity token, else to a GET with the password, if there is one."""
    if identity:
        form = fields | {"grant_type": "refresh_token", "client_id": "pyrun", "refresh_token": identity}
        return transport.post(realm, form, insecure, limit)
    parts = urlsplit(realm)
    query = urlencode(dict(parse_qsl(parts.query)) | fields)
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
    headers = {"Authorization": f"Basic {password}"} if password else {}
    return transport.get(url, headers, insecure, limit)


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


def _stored(domain: str) -> list[dict[str, object]]:
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


# ── which token servers belong to a registry ───────────────────────────────────────────────────────


# Only one that belongs to the registry gets the password stored for it. A registry names its token server itself, in
# WWW-Authenticate. If it is hostile or broken into it may name any other (CVE-2026-33540). The token server sees the
# password, which a registry with a token server of its own never does.
# The host of the realm belongs to the registry if it is, in lower case and whatever the port,
#
# 1. the registry's own host: quay.io, ghcr.io, gcr.io, registry.redhat.io, *.azurecr.io, *.pkg.dev, Harbor,
#    Artifactory;
# 2. of the same registered domain, which is the last two labels of a name, the last three below a country's co.uk and
#    its like: registry-1.docker.io and auth.docker.io, registry.gitlab.com and gitlab.com, registry.example.co.uk and
#    gitlab.example.co.uk. Not where each name below is another customer's: of `_SHARED` the host has to be the same;
# 3. of the domain that `_PAIRS` names.
#
# An address in digits and a name of one label belong to themselves alone. Any other token server is asked without a
# password: public images of such a registry can be had. `_SHARED` cannot be whole: it has what may serve a registry.

# Registered domain of a registry -> that of its token server: registry.hub.docker.com is Docker Hub by another name.
_PAIRS = {"docker.com": "docker.io"}

# Second labels below which a country's registry gives names to anybody: co.uk, com.au, ne.jp.
_SECOND_LABELS = frozenset(
    "ac co com ed edu gob gov go gv id info ltd mil ne net nom or org plc sch web".split()
)

_SHARED = frozenset(
    """
    amazonaws.com amplifyapp.com appspot.com azure.com azurecontainer.io azurecontainerapps.io azurecr.io
    azurefd.net azurewebsites.net cloudfront.net ddns.net deno.dev digitaloceanspaces.com duckdns.org dyndns.org
    elasticbeanstalk.com firebaseapp.com fly.dev github.io gitlab.io googleusercontent.com herokuapp.com hopto.org
    jfrog.io linodeobjects.com linodeusercontent.com loca.lt netlify.app ngrok-free.app ngrok.app ngrok.dev ngrok.io
    nip.io no-ip.org on.aws ondigitalocean.app onrender.com ovh.net pages.dev pkg.dev r2.dev railway.app replit.app
    run.app scw.cloud sslip.io synology.me trycloudflare.com ts.net vercel.app web.app windows.net workers.dev
    your-server.de zapto.org
    """.split()
)


def belongs(realm_host: str, registry_host: str) -> bool:
    """Whether the token server at *realm_host* may see the password for the registry at *registry_host*."""
    realm, registry = realm_host.lower().rstrip("."), registry_host.lower().rstrip(".")
    if realm == registry:
        return bool(realm)
    if _is_address(realm) or _is_address(registry):
        return False
    mine, other = _registered(registry), _registered(realm)
    return bool(other) and other in (mine, _PAIRS.get(mine))


def _registered(name: str) -> str:
    """The registered domain a name lies in; "" if it has none of its own."""
    labels = name.split(".")
    if not all(labels) or ".".join(labels[-2:]) in _SHARED:
        return ""
    below_country = len(labels) > 1 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LABELS
    count = 3 if below_country else 2
    return ".".join(labels[-count:]) if len(labels) >= count else ""


def _is_address(host: str) -> bool:
    """Whether a host is no name: also 1.2 and 0x7f.1, which inet_aton(3) reads."""
    last = host.rpartition(".")[2]
    try:
        return ":" in host or last.isdecimal() or bool(ipaddress.ip_address(host))
    except ValueError:
        return last.startswith("0x")
