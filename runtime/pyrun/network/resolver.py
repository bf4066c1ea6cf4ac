"""resolv.conf of a container: the resolver at its network's gateway (network/dns/), with the host's search domains.

On cards alone the resolver is inside (drivers/naming.py); without any network, and where pyrun knows no address, it is
the host's own file, without servers the container could not reach.

A loopback address means the host's own resolver; inside the container it would mean the container. IPv6
servers are left out of a network without IPv6. What is left when nothing is left: Google's public servers,
as Docker does, and it is said.
"""

from __future__ import annotations

from pyrun import notice
from pyrun.errors import UsageError
from pyrun.network import requests
from pyrun.spec import values
from pyrun.store import paths

HOST_FILE = "/etc/resolv.conf"
# Where systemd-resolved keeps the servers behind its stub at 127.0.0.53.
BEHIND_STUB = "/run/systemd/resolve/resolv.conf"
FALLBACK = ("nameserver 8.8.8.8", "nameserver 8.8.4.4")


def same_as_host() -> list[str]:
    """The host's lines, for a container in the host's network."""
    return _meaningful(_read(HOST_FILE))


def reachable(*, fall_back: bool) -> list[str]:
    """The host's lines without loopback and IPv6 servers; *fall_back*: never without a server."""
    lines = _meaningful(_read(HOST_FILE))
    if servers(lines) == ["127.0.0.53"]:
        lines = _meaningful(_read(BEHIND_STUB)) or lines
    kept = [line for line in lines if not line.startswith("nameserver") or _reachable(line)]
    if fall_back and not servers(kept):
        notice.say("no name server of this host can be reached from a container: using 8.8.8.8 and 8.8.4.4")
        kept = [*FALLBACK, *kept]
    return kept


def at(gateway: str, request: dict[str, object]) -> list[str]:
    """The resolver at *gateway*, with --dns-search and --dns-option, else the host's. A search for "." means none."""
    own = same_as_host()
    search = [str(domain) for domain in request.get("dns_search") or ()]  # type: ignore[attr-defined]
    options = [str(option) for option in request.get("dns_option") or ()]  # type: ignore[attr-defined]
    lines = [f"nameserver {gateway}"]
    if search:
        lines += [f"search {' '.join(search)}"] if search != ["."] else []
    else:
        lines += [line for line in own if line.startswith(("search ", "domain "))]
    if options:
        return [*lines, f"options {' '.join(options)}"]
    return lines + [line for line in own if line.startswith("options ")]


def asked(options: dict[str, object]) -> dict[str, object]:
    """--dns, --dns-search and --dns-option as a request has them. Raises UsageError."""
    found: dict[str, object] = {}
    for key in ("dns", "dns_search", "dns_option"):
        found[key] = values.texts(options.get(key))
    found["dns"] = [_server(text) for text in found["dns"]]  # type: ignore[attr-defined]
    for key in ("dns_search", "dns_option"):
        for value in found[key]:  # type: ignore[attr-defined]
            if not value or not value.isprintable() or " " in value:
                raise UsageError(
                    f"--{key.replace('_', '-')} {value!r:.80}: one word, without spaces",
                    "give the option once for each",
                )
    for domain in found["dns_search"]:  # type: ignore[attr-defined]
        if domain != ".":
            requests.check_alias(domain.removesuffix("."), "--dns-search")
    return found


def _server(text: str) -> str:
    try:
        return requests.address(text, "--dns", six=":" in text)
    except UsageError:
        raise UsageError(f"--dns {text!r:.60}: is no IP address", "--dns 9.9.9.9") from None


def chosen(request: dict[str, object], otherwise: list[str]) -> list[str]:
    """*otherwise*, a resolv.conf without a resolver of ours, with what --dns, --dns-search and --dns-option say."""
    lines = otherwise
    for key, word in (("dns", "nameserver"), ("dns_search", "search"), ("dns_option", "options")):
        given = [str(value) for value in request.get(key) or ()]  # type: ignore[attr-defined]
        if given:
            words = (word, "domain") if key == "dns_search" else (word,)
            lines = [line for line in lines if not line.startswith(words)]
            told = given if key == "dns" else [" ".join(given)]
            lines += [f"{word} {each}" for each in told if (key, each) != ("dns_search", ".")]
    return lines


def servers(lines: list[str]) -> list[str]:
    """The addresses of the nameserver lines."""
    words = [line.split() for line in lines]
    return [line[1] for line in words if line[0] == "nameserver" and len(line) > 1]


def _reachable(line: str) -> bool:
    address = "".join(line.split()[1:2])
    return bool(address) and not address.startswith("127.") and ":" not in address and address != "0.0.0.0"


def _meaningful(text: str) -> list[str]:
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [line for line in lines if line and line[0] not in "#;"]


def _read(path: str) -> str:
    try:
        return paths.read(path).decode("utf-8", "replace")
    except OSError:
        return ""
