"""An egress policy from the words of --egress, and back. Pure.

    none                         nobody at all; of names, only those of its neighbours resolve
    dns                          names resolve, nobody is reached; beside others: every name resolves
    10.0.0.0/8:443/tcp           addresses, a port or a range of ports, a protocol: what is left out is any
    [fd00::/8]:443/tcp           IPv6 with a port stands in brackets
    example.org:443  *.example.org    what these names, or all names below one, resolve to
    deny:169.254.169.254         never, whatever else is allowed; with nothing else the rest is allowed

Parts are joined by commas. `all` lifts a policy, for `pyrun network policy`.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from pyrun.errors import UsageError
from pyrun.network.egress.policy import Policy
from pyrun.safe import is_number

PROTOCOLS = ("tcp", "udp", "sctp", "icmp")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_-"
_MOST, _MOST_PORTS = 500, 32
_HINT = "none, dns, CIDR[:PORT][/PROTO], a domain name, deny:CIDR; joined by commas"


def parse(text: str, option: str = "--egress") -> Policy | None:
    """The policy; None for `all`. Raises UsageError."""
    words = [word.strip() for word in text.split(",")]
    if words == ["all"]:
        return None
    for alone in ("none", "all"):
        if alone in words and len(words) > 1:
            raise UsageError(f"{option} {text!r:.80}: {alone} stands alone", _HINT)
    if len(words) > _MOST:
        raise UsageError(f"{option}: {len(words)} parts, {_MOST} at most", "wider networks, or *.domain")
    if words in (["none"], ["dns"]):
        return Policy(words[0])
    policy = Policy("list")
    for word in words:
        _add(policy, word, f"{option} {word!r:.80}")
    return policy


def _add(policy: Policy, word: str, told: str) -> None:
    if not word:
        raise UsageError(f"{told}: a part is empty", _HINT)
    if word == "dns":
        policy.dns = True
    elif word.startswith("deny:"):
        cidr = _network(word[5:].strip("[]"), told)
        if not cidr:
            raise UsageError(f"{told}: only addresses can be denied, names have many", "deny:169.254.169.254")
        policy.deny.append(cidr)
    else:
        rest, protocol = _split_protocol(word, told)
        host, port = _split_port(rest, protocol, told)
        cidr = _network(host, told)
        if cidr:
            policy.allow.append((cidr, port, protocol))
        else:
            policy.domains.append((_domain(host, told), _of_name(port, protocol, told), protocol))


def _split_protocol(word: str, told: str) -> tuple[str, str]:
    rest, slash, last = word.rpartition("/")
    if not slash or not last[:1].isalpha():
        return word, "*"
    if last.lower() not in PROTOCOLS:
        raise UsageError(f"{told}: {last!r} is no protocol", ", ".join(PROTOCOLS))
    return rest, last.lower()


def _split_port(word: str, protocol: str, told: str) -> tuple[str, str]:
    if word.startswith("["):
        host, bracket, port = word[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise UsageError(
                f"{told}: a bracket is not closed, or not followed by a port", "[fd00::/8]:443/tcp"
            )
        port = port[1:] if port else ""
    elif word.count(":") == 1:
        host, _, port = word.partition(":")
    else:
        return word, "*"
    if not port and not word.endswith(":"):
        return host, "*"
    if protocol == "icmp":
        raise UsageError(f"{told}: ICMP has no ports", "10.0.0.0/8/icmp")
    return host, _port(port, told)


def _port(text: str, told: str) -> str:
    first, dash, last = text.partition("-")
    ends = [first, last] if dash else [first]
    if not all(end.isascii() and end.isdigit() and len(end) < 6 and 0 < int(end) < 65536 for end in ends):
        raise UsageError(f"{told}: {text!r} is no port", "a number from 1 to 65535, or two joined by -")
    if int(ends[0]) > int(ends[-1]):
        raise UsageError(f"{told}: {text}: a range begins with its lower end", "8000-8010")
    return "-".join(str(int(end)) for end in ends)


def _of_name(port: str, protocol: str, told: str) -> str:
    """What a name resolves to is noted port by port."""
    first, dash, last = port.partition("-")
    if port == "*" and protocol != "*":
        raise UsageError(f"{told}: a protocol of a name needs a port", f"NAME:443/{protocol}, or NAME alone")
    if dash and int(last) - int(first) >= _MOST_PORTS:
        raise UsageError(f"{told}: more than {_MOST_PORTS} ports of a name", "NAME alone allows all")
    return port


def _network(host: str, told: str) -> str:
    """The address or network in its one spelling, with its length; "" for what is no address at all."""
    address, slash, length = host.partition("/")
    six = ":" in address
    family, bits = (AF_INET6, 128) if six else (AF_INET, 32)
    try:
        packed = inet_pton(family, address)
    except (OSError, ValueError):
        if six or slash or not address.strip("0123456789."):
            raise UsageError(f"{told}: {address!r} is no address", _HINT) from None
        return ""
    if slash and not (is_number(length) and int(length) <= bits):
        raise UsageError(f"{told}: /{length:.20} is no length of a network", f"a number from 0 to {bits}")
    size = int(length) if slash else bits
    number = int.from_bytes(packed, "big")
    first = number >> (bits - size) << (bits - size)
    network = f"{inet_ntop(family, first.to_bytes(bits // 8, 'big'))}/{size}"
    if first != number:
        raise UsageError(f"{told}: {address} has bits set beyond /{size}", network)
    return network


def _domain(host: str, told: str) -> str:
    name = host.lower().rstrip(".")
    labels = name.removeprefix("*.").split(".")
    good = all(label and len(label) < 64 and not label.strip(_LETTERS) for label in labels)
    if not good or len(name) > 253 or labels[-1].isdigit():
        raise UsageError(f"{told}: neither an address nor a domain name", _HINT)
    return name


def spelled(policy: Policy | None) -> str:
    """The words that say the same."""
    if policy is None:
        return "all"
    if policy.mode != "list":
        return policy.mode
    words = ["dns"] if policy.dns else []
    for host, port, protocol in [*policy.allow, *policy.domains]:
        short = host.removesuffix("/128" if ":" in host else "/32")
        if port != "*":
            short = f"[{short}]:{port}" if ":" in short else f"{short}:{port}"
        words.append(short if protocol == "*" else f"{short}/{protocol}")
    words += [f"deny:{cidr.removesuffix('/128' if ':' in cidr else '/32')}" for cidr in policy.deny]
    return ",".join(words)
