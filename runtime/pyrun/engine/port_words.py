"""Which published ports of a container the words after `port` and `port rm` mean.

80, 53/udp                  a port of the container's own
8080, 8000-8010, 8080/udp   ports of the host, on every address they are published on
127.0.0.1:8080, [::1]:8080  on that address alone
8080:80, [::1]:8080:80      as it was said to -p

And what is said of a container whose ports do not change.
"""

from __future__ import annotations

from pyrun import boot
from pyrun.errors import Conflict, NotFound, UsageError
from pyrun.network import claims, requests
from pyrun.network.publishing import ports
from pyrun.safe import is_number, shell_word

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.record import Record


def unchangeable(container: Record, reference: str) -> Conflict:
    """The error about a container whose ports do not change while it runs, with what can be done instead."""
    mode, rootless = str(container.get("mode")), boot.rootless_uid() >= 0
    message = f"container {reference} is on no network that ports could be published from"
    if mode in requests.OF_A_USER:
        message = f"container {reference}: {mode} takes no more ports while it runs, and gives none up"
    option = " --network=pasta" if mode == "none" else ""
    hint = f"start it anew: pyrun rm -f {shell_word(reference)}; pyrun run{option} -p ..."
    if mode == "host":
        hint = "on the host's network, what it listens to is a port of the host already"
    elif mode in requests.OF_OTHERS:
        hint = "a port is published where its network namespace is made"
    elif not rootless and mode in ("bridge", "none"):
        hint = "`pyrun network connect` puts it on one"
    return Conflict(message, hint)


def private(word: str) -> tuple[int, str]:
    """`80` or `80/tcp` -> (80, "tcp"). Raises UsageError."""
    text, _, protocol = word.partition("/")
    protocol = protocol.lower() or "tcp"
    if not is_number(text) or not 1 <= int(text) <= 65535 or protocol not in ports.PROTOCOLS:
        raise UsageError(f"port {word!r:.60}: no port of a container", "80, 80/tcp, 53/udp")
    return int(text), protocol


def chosen(word: str, published: list[ports.Port], reference: str, identifier: str) -> list[ports.Port]:
    """The ports *word* means among the published ones, and those whose publication was killed half way.

    Raises: UsageError, NotFound.
    """
    host, first, last, inside, protocol = _parsed(word)
    found = [
        port
        for port in published
        if first <= port[1] <= last
        and port[3] == protocol
        and host in ("", port[0])
        and (not inside or port[2] - inside == port[1] - first)
    ]
    if not found and first == last:
        hosts = [host] if host else [ports.ANY, ports.ANY6]
        known = {ports.path(port) for port in published}
        found = [
            port
            for each in hosts
            for port in claimed(identifier, (each, first, inside, protocol))
            if inside in (0, port[2]) and ports.path(port) not in known
        ]
    if not found:
        others = list(dict.fromkeys(f"{port[1]}/{port[3]}" for port in published if first <= port[1] <= last))
        hint = (
            f"but {', '.join(others[:3])}"
            if others
            else f"`pyrun port {shell_word(reference)}` lists what it does"
        )
        raise NotFound(f"container {reference} publishes no port {word}", hint)
    return found


def claimed(identifier: str, port: ports.Port) -> list[ports.Port]:
    """The port as its claim tells of it, if the container holds that; at most one."""
    lines = claims.lines(ports.path(port))
    if not lines or not lines[0].startswith(f"{identifier} "):
        return []
    return [told for told in ports.parse(lines) if ports.path(told) == ports.path(port)]


def _parsed(word: str) -> tuple[str, int, int, int, str]:
    """(address or "", first, last, first port of the container or 0, protocol)."""
    text, _, protocol = word.partition("/")
    host = ""
    if text.startswith("["):
        host, _, text = text[1:].partition("]")
        text = text.removeprefix(":")
    elif "." in text:
        host, _, text = text.partition(":")
    text, _, inside = text.partition(":")
    first, dash, last = text.partition("-")
    inside = inside.partition("-")[0] or "0"
    protocol = protocol.lower() or "tcp"
    numbers = (first, last if dash else first, inside)
    fine = all(is_number(number) and int(number) <= 65535 for number in numbers)
    if not fine or protocol not in ports.PROTOCOLS or not 1 <= int(first) <= int(numbers[1]):
        raise UsageError(
            f"port rm {word!r:.60}: no port of the host", "8080, 8080/udp, 127.0.0.1:8080, 8000-8010, 8080:80"
        )
    try:
        return ports.normal(host) if host else "", int(first), int(numbers[1]), int(inside), protocol
    except (OSError, ValueError):
        raise UsageError(
            f"port rm {word!r:.60}: {host!r} is no IP address", "127.0.0.1:8080, [::1]:8080"
        ) from None
