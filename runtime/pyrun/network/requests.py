"""What `--network` and its companions ask for, as words: which networks, in which order, with which addresses.

    --network front:ip=10.1.0.9,alias=db   --network back      two endpoints: eth0 in front, eth1 in back
    --network none | host | pasta | slirp4netns                 no endpoint
    --network container:web | ns:blue | /run/netns/blue | cni:lan     somebody else's namespace or wiring
    --network l2:eth1 | macvlan:eth1 | ipvlan:eth1              an endpoint beside the host's own card

Pure: nothing here asks whether a network exists.
`--ip --ip6 --mac-address --network-alias` mean the first endpoint, as in Docker.
Source: docs.docker.com/reference/cli/docker/container/run (--network, advanced syntax), man podman-run.
"""

from __future__ import annotations

from pyrun import boot
from pyrun.errors import UsageError

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.network.publishing.ports import Port
    from pyrun.spec.values import Options


class Endpoint:
    """What is asked of one interface; "" where nothing is.

    network: its name, DRIVER:CARD where nobody created one; driver, parent: of one that is not on a bridge of ours, and
    its card; options: of that driver, as given; ip, ip6, mac: static addresses; aliases: names other containers may
    use; ifname: inside; gw_priority: the highest has the default route.
    """

    __slots__ = (
        "aliases", "driver", "gw_priority", "ifname", "ip", "ip6", "mac", "network", "options", "parent",
    )  # fmt: skip

    def __init__(self, network: str = "", driver: str = "", parent: str = "") -> None:
        self.network = network
        self.driver, self.parent = driver, parent
        self.ip = self.ip6 = self.mac = self.ifname = ""
        self.aliases: tuple[str, ...] = ()
        self.gw_priority = 0
        self.options: dict[str, str] = {}


class Dns:
    """--dns, --dns-search and --dns-option: addresses, domains ("." for none), words of resolv.conf."""

    __slots__ = ("options", "search", "servers")

    def __init__(self, servers: list[str], search: list[str], options: list[str]) -> None:
        self.servers, self.search, self.options = servers, search, options


class Request:
    """What a container asks of its network.

    id, name: of the container; hostname: inside; keep: its lasting directory, "" without one; run_dir: the other one;
    mode, target, endpoints: as `parse` has them; ports: to be published, exposed: (port, protocol) to be told of;
    through_firewall: published whatever the host's firewall lets in; dns: for resolv.conf; egress, net_rate,
    net_fault: the words of these options, egress None where there is no policy; netns, on_host: the namespace that is
    joined, and whether that is the host's; shared_files: {file below /etc: the host's path} that come with it,
    files_of: the directory all of them are in; early: init waits at its very beginning.
    """

    __slots__ = (
        "dns", "early", "egress", "endpoints", "exposed", "files_of", "hostname",
        "id", "keep", "mode", "name", "net_fault", "net_rate", "netns", "on_host", "ports", "run_dir", "shared_files",
        "target", "through_firewall",
    )  # fmt: skip

    def __init__(self, identifier: str, name: str, mode: str = "bridge", target: str = "") -> None:
        self.id, self.name, self.hostname = identifier, name, ""
        self.keep = self.run_dir = ""
        self.mode, self.target = mode, target
        self.endpoints: list[Endpoint] = []
        self.ports: list[Port] = []
        self.exposed: list[tuple[int, str]] = []
        self.dns = Dns([], [], [])
        self.egress: str | None = None
        self.net_rate = self.net_fault = ""
        self.netns, self.files_of = "", ""
        self.shared_files: dict[str, str] = {}
        self.through_firewall = self.on_host = self.early = False

    def take(self, options: Options) -> None:
        """The words of the options that are read by whoever carries them out."""
        self.through_firewall = bool(options.get("publish_through_firewall"))
        self.egress = None if options.get("egress") is None else str(options["egress"])
        self.net_rate, self.net_fault = (str(options.get(key) or "") for key in ("net_rate", "net_fault"))


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
    endpoints = [endpoint for _, _, endpoint in parsed if endpoint is not None]
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


def _one(word: str) -> tuple[str, str, Endpoint | None]:
    if word.startswith("/"):
        return "ns", word, None
    before, colon, rest = word.partition(":")
    option = f"--network {_shown(word)}"
    if word in ALONE:
        return word, "", None
    if before in ALONE or before in JOINED:
        return *_joined(before, rest, option), None
    if before == "default" and not colon:
        before = "bridge"
    endpoint = Endpoint()
    if before in ON_A_CARD:
        parent, colon, rest = rest.partition(":")
        check_interface(parent, option)
        endpoint = Endpoint(f"{before}:{parent}", before, parent)
    elif "=" in before:  # Docker's long form: name=front,ip=10.1.0.9
        colon, rest = ":", word
    else:
        endpoint.network = before
    if colon:
        _settings(endpoint, rest, option)
    if not endpoint.driver:
        check_name(endpoint.network, "--network")
    return "bridge", "", endpoint


def _joined(mode: str, target: str, option: str) -> tuple[str, str]:
    if mode in ALONE:
        raise UsageError(f"{option}: {mode} takes no settings", f"--network {mode}")
    if not target:
        raise UsageError(f"{option}: what is to be joined is missing", f"{mode}:NAME")
    return mode, target


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
            endpoint.network = value
        elif endpoint.driver and value and key not in _KEYS:  # the driver's own, which it checks
            endpoint.options[key] = value
        elif key not in _KEYS or not value:
            raise UsageError(f"{option}: {pair!r} is no setting", "ip= ip6= mac= alias= ifname= gw-priority=")
        else:
            _set(endpoint, _KEYS[key], value, f"{option}: {key}={_shown(value)}")


def _set(endpoint: Endpoint, key: str, value: str, told: str) -> None:
    if key == "aliases":
        endpoint.aliases = (*endpoint.aliases, check_alias(value, told))
    elif key == "gw_priority":
        digits = value.removeprefix("-")
        if not digits.isdigit() or not digits.isascii() or len(digits) > 9:
            raise UsageError(f"{told}: a priority is a whole number of at most 9 digits", "gw-priority=10")
        endpoint.gw_priority = int(value)
    elif key == "ifname":
        check_interface(value, told)
        endpoint.ifname = value
    elif key == "mac":
        endpoint.mac = mac(value, told)
    elif key == "ip6":
        endpoint.ip6 = address(value, told, six=True)
    else:
        endpoint.ip = address(value, told, six=False)


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
            if key != "aliases" and getattr(endpoints[0], key):
                raise UsageError(f"{told}: --network {_shown(word)} has one already", "say it once")
            _set(endpoints[0], key, str(value), told)


def _shown(text: str) -> str:
    """As it can stand in a line of an error."""
    return text if text.isprintable() and len(text) <= 80 else f"{text!r:.80}"


def _check_together(endpoints: list[Endpoint]) -> None:
    networks, asked = [each.network for each in endpoints], [each.ifname for each in endpoints if each.ifname]
    for values, told in ((networks, "is given twice"), (asked, "names two interfaces")):
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
    return [endpoint.ifname or f"eth{number}" for number, endpoint in enumerate(endpoints)]


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


def check_interface(name: str, told: str) -> None:
    """Whether a link can be called so. told: the option. Raises UsageError."""
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
    except (OSError, ValueError):  # the latter: a byte that is no character
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
