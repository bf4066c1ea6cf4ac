"""What `--network` and its companions ask for, as words: which networks, in which order, with which addresses.

    --network front:ip=10.1.0.9,alias=db   --network back      two endpoints: eth0 in front, eth1 in back
    --network none | host | pasta | slirp4netns                 no endpoint
    --network container:web | ns:blue | /run/netns/blue | cni:lan     somebody else's namespace or wiring
    --network l2:eth1 | macvlan:eth1 | ipvlan:eth1              an endpoint beside the host's own card

Pure: nothing here asks whether a network exists. What is asked of an endpoint is a dict with the keys of ENDPOINT.
`--ip --ip6 --mac-address --network-alias` mean the first endpoint, as in Docker.
Source: docs.docker.com/reference/cli/docker/container/run (--network, advanced syntax), man podman-run.
"""

from __future__ import annotations

from pyrun import boot
from pyrun.errors import UsageError

Endpoint = dict[str, object]
Options = dict[str, object]

ENDPOINT: Endpoint = {
    "network": "", "driver": "", "parent": "", "ip": "", "ip6": "", "mac": "", "aliases": (), "ifname": "",
    "gw_priority": 0,
}  # fmt: skip

OF_A_USER = ("pasta", "slirp4netns")
UNWIRED = ("host", "none")
ALONE = (*UNWIRED, *OF_A_USER)
# What stands before a colon and is no name of a network: the namespace of somebody else, or a way to be wired.
OF_OTHERS = ("container", "ns")
JOINED = (*OF_OTHERS, "cni")
ON_A_CARD = ("l2", "macvlan", "ipvlan")
# And what else stands beside the networks' directories in run/networks.
_FILES = ("policies", "events", "before.json", "claims.lock", "guard.lock", "guard.sock", "ula")
RESERVED = (*ALONE, *JOINED, *ON_A_CARD, "default", "private", *_FILES)

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_KEYS = {"ip": "ip", "ip6": "ip6", "mac": "mac", "mac-address": "mac", "alias": "aliases", "ifname": "ifname",
         "interface_name": "ifname", "gw-priority": "gw_priority"}  # fmt: skip


def parse(options: Options, default: str) -> tuple[str, str, list[Endpoint]]:
    """(mode, target, endpoints): mode "bridge" with endpoints, one of ALONE, or one of JOINED with its target.

    default: the network when none is named. Raises UsageError.
    """
    given = options.get("network")
    words = [str(word) for word in given] if isinstance(given, list | tuple) else [str(given or "")]
    words = [word for word in words if word] or [default]
    parsed = [_one(word) for word in words]
    alone = [(mode, target) for mode, target, _ in parsed if mode != "bridge"]
    if alone and len(parsed) > 1:
        raise _stands_alone(words, *alone[0])
    endpoints = [endpoint for _, _, endpoint in parsed if endpoint]
    _add_companions(options, endpoints, words[0])
    _check_together(endpoints)
    return (*alone[0], []) if alone else ("bridge", "", endpoints)


def _stands_alone(words: list[str], mode: str, target: str) -> UsageError:
    if mode in OF_A_USER and boot.rootless_uid() < 0:
        return of_ordinary_users(mode)
    named = _shown(":".join(filter(None, (mode, target))))
    return UsageError(
        f"--network {_shown(words[0])} and {_shown(words[1])}: {named} stands alone", "leave the others out"
    )


def of_ordinary_users(mode: str) -> UsageError:
    """The error about one of OF_A_USER, asked for by root."""
    return UsageError(
        f"--network={mode}: is for ordinary users, who may make no links on the host",
        "root has --network=bridge (the default), macvlan:IFACE, ipvlan:IFACE, l2:IFACE, host, none or a network of "
        "`pyrun network create`",
    )


def _one(word: str) -> tuple[str, str, Endpoint]:
    if word.startswith("/"):
        return "ns", word, {}
    before, colon, rest = word.partition(":")
    option = f"--network {_shown(word)}"
    if word in ALONE:
        return word, "", {}
    if before in ALONE or before in JOINED:
        return _joined(before, rest, option)
    if before == "default" and not colon:
        before = "bridge"
    endpoint = dict(ENDPOINT)
    if before in ON_A_CARD:
        parent, colon, rest = rest.partition(":")
        _check_interface(parent, option)
        endpoint.update(driver=before, parent=parent, network=f"{before}:{parent}")
    elif "=" in before:  # Docker's long form: name=front,ip=10.1.0.9
        colon, rest = ":", word
    else:
        endpoint["network"] = before
    if colon:
        _settings(endpoint, rest, option)
    if not endpoint["driver"]:
        check_name(str(endpoint["network"]), "--network")
    return "bridge", "", endpoint


def _joined(mode: str, target: str, option: str) -> tuple[str, str, Endpoint]:
    if mode in ALONE:
        raise UsageError(f"{option}: {mode} takes no settings", f"--network {mode}")
    if not target:
        raise UsageError(f"{option}: what is to be joined is missing", f"{mode}:NAME")
    return mode, target, {}


def _settings(endpoint: Endpoint, text: str, option: str) -> None:
    seen: list[str] = []
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        meant = _KEYS.get(key, key)
        if meant in seen and meant != "aliases":
            raise UsageError(f"{option}: {_shown(key)}= is given twice", "say it once")
        seen.append(meant)
        if key == "name" and equals:
            if value in ALONE:
                raise UsageError(f"{option}: {value} takes no settings", f"--network {value}")
            endpoint["network"] = value
        elif endpoint["driver"] and value and key not in _KEYS:  # the driver's own, which it checks
            endpoint["options"] = {**endpoint.get("options", {}), key: value}  # type: ignore[dict-item]
        elif key not in _KEYS or not value:
            raise UsageError(f"{option}: {pair!r} is no setting", "ip= ip6= mac= alias= ifname= gw-priority=")
        else:
            _set(endpoint, _KEYS[key], value, f"{option}: {key}={_shown(value)}")


def _set(endpoint: Endpoint, key: str, value: str, told: str) -> None:
    if key == "aliases":
        endpoint[key] = (*endpoint[key], check_alias(value, told))  # type: ignore[misc]
    elif key == "gw_priority":
        digits = value.removeprefix("-")
        if not digits.isdigit() or not digits.isascii() or len(digits) > 9:
            raise UsageError(f"{told}: a priority is a whole number of at most 9 digits", "gw-priority=10")
        endpoint[key] = int(value)
    elif key == "ifname":
        _check_interface(value, told)
        endpoint[key] = value
    else:
        endpoint[key] = mac(value, told) if key == "mac" else address(value, told, six=key == "ip6")


def _add_companions(options: Options, endpoints: list[Endpoint], word: str) -> None:
    """--ip and the like, which mean the first endpoint."""
    for option, key in (("ip", "ip"), ("ip6", "ip6"), ("mac_address", "mac"), ("network_alias", "aliases")):
        given = options.get(option)
        for value in given if isinstance(given, list | tuple) else [given]:
            if not value:
                continue
            told = f"--{option.replace('_', '-')} {_shown(str(value))}"
            if not endpoints:
                raise UsageError(
                    f"{told}: --network={_shown(word)} has no address of its own to choose",
                    "leave it out, or name a network: `pyrun network ls`",
                )
            if endpoints[0][key] and key != "aliases":
                raise UsageError(f"{told}: --network {_shown(word)} has one already", "say it once")
            _set(endpoints[0], key, str(value), told)


def _shown(text: str) -> str:
    """As it can stand in a line of an error."""
    return text if text.isprintable() and len(text) <= 80 else f"{text!r:.80}"


def _check_together(endpoints: list[Endpoint]) -> None:
    for key, told in (("network", "is given twice"), ("ifname", "names two interfaces")):
        values = [str(endpoint[key]) for endpoint in endpoints if endpoint[key]]
        for value in values:
            if values.count(value) > 1:
                raise UsageError(f"--network: {value} {told}", "say it once")
    names = interface_names(endpoints)
    if len(set(names)) < len(names):
        raise UsageError(
            f"--network: two interfaces would be called {max(names, key=names.count)}", "set ifname="
        )


def interface_names(endpoints: list[Endpoint]) -> list[str]:
    """What each is called inside: as asked for, or eth and its place in the order given."""
    return [str(endpoint["ifname"]) or f"eth{number}" for number, endpoint in enumerate(endpoints)]


def check_name(name: str, option: str) -> str:
    """A network's name. Raises UsageError."""
    if not name or len(name) > 128 or name[0] not in _LETTERS or name.strip(_LETTERS + "_.-"):
        raise UsageError(
            f"{option} {name!r:.80} is no name of a network",
            "letters, digits, _, . and -, beginning with a letter or digit, at most 128",
        )
    return name


def check_alias(name: str, told: str) -> str:
    """A name other containers may use. Raises UsageError."""
    labels = name.split(".")
    if len(name) > 253 or not all(
        label and len(label) < 64 and not label.strip(_LETTERS + "_-") for label in labels
    ):
        raise UsageError(
            f"{told}: {name!r:.80} is no host name", "letters, digits, - and _, parts joined by dots"
        )
    return name


def _check_interface(name: str, told: str) -> None:
    if (
        not name
        or len(name) > 15
        or name in (".", "..", "lo", "all", "default")  # the last two are what /proc/sys/net calls every one
        or not name.isascii()
        or not name.isprintable()
        or (set(name) & set("/ :%"))
    ):
        raise UsageError(
            f"{told}: {name!r:.40} is no name of an interface", "at most 15 characters, no / : % or space"
        )


def address(text: str, told: str, *, six: bool) -> str:
    """An address in its one spelling. Raises UsageError."""
    from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

    family, kind = (AF_INET6, "IPv6") if six else (AF_INET, "IPv4")
    try:
        return inet_ntop(family, inet_pton(family, text))
    except OSError:
        raise UsageError(
            f"{told}: {text!r:.60} is no {kind} address", "fd00:1::5, say" if six else "10.1.0.5, say"
        ) from None


def mac(text: str, told: str) -> str:
    """A MAC address of one station, lower case with colons. Raises UsageError."""
    digits = text.replace("-", ":").lower().split(":")
    if len(digits) != 6 or not all(len(pair) == 2 and not pair.strip("0123456789abcdef") for pair in digits):
        raise UsageError(
            f"{told}: {text!r:.40} is no MAC address", "six pairs of hexadecimal digits: 02:42:0a:00:00:09"
        )
    if int(digits[0], 16) & 1 or not any(int(pair, 16) for pair in digits):
        raise UsageError(
            f"{told}: {text!r:.40} belongs to no single station", "the first byte must be even: 02:..."
        )
    return ":".join(digits)
