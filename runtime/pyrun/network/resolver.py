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

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options

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


def at(gateway: str, dns: requests.Dns) -> list[str]:
    """The resolver at *gateway*, with --dns-search and --dns-option, else the host's. A search for "." means none."""
    own = same_as_host()
    lines = [f"nameserver {gateway}"]
    if dns.search:
        lines += [f"search {' '.join(dns.search)}"] if dns.search != ["."] else []
    else:
        lines += [line for line in own if line.startswith(("search ", "domain "))]
    if dns.options:
        return [*lines, f"options {' '.join(dns.options)}"]
    return lines + [line for line in own if line.startswith("options ")]


def asked(options: Options) -> requests.Dns:
    """--dns, --dns-search and --dns-option as a request has them. Raises UsageError."""
    given = {key: values.texts(options.get(key)) for key in ("dns", "dns_search", "dns_option")}
    found = requests.Dns([_server(text) for text in given["dns"]], given["dns_search"], given["dns_option"])
    for key in ("dns_search", "dns_option"):
        for value in given[key]:
            if not value or not value.isprintable() or " " in value:
                raise UsageError(
                    f"--{key.replace('_', '-')} {value!r:.80}: one word, without spaces",
                    "give the option once for each",
                )
    for domain in found.search:
        if domain != ".":
            requests.check_alias(domain.removesuffix("."), "--dns-search")
    return found


def _server(text: str) -> str:
    try:
        return requests.address(text, "--dns", six=":" in text)
    except UsageError:
        raise UsageError(f"--dns {text!r:.60}: is no IP address", "--dns 9.9.9.9") from None


def chosen(dns: requests.Dns, otherwise: list[str]) -> list[str]:
    """*otherwise*, a resolv.conf without a resolver of ours, with what --dns, --dns-search and --dns-option say."""
    lines = otherwise
    for word, given in (("nameserver", dns.servers), ("search", dns.search), ("options", dns.options)):
        if given:
            words = (word, "domain") if word == "search" else (word,)
            lines = [line for line in lines if not line.startswith(words)]
            told = given if word == "nameserver" else [" ".join(given)]
            lines += [f"{word} {each}" for each in told if (word, each) != ("search", ".")]
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
