"""What is on disk about networks and published ports; the truth everything else is rebuilt from.

    root/networks/<name>.json             what a user asked for with `network create`: lasts over a reboot
    run/networks/<name>/network.json      the network as built: bridge, index, subnets; gone with its links

Reading and writing these and following the claims, without any call to the kernel.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pyrun.errors import Conflict, UsageError
from pyrun.network import claims
from pyrun.network.publishing import ports
from pyrun.store import paths

BUILT_IN = ("bridge", "host", "none")
SHORTEST_ID = 4  # digits of an id that may stand for all of it

# The keys of network.json in their order; subnets, and what not every network has, come besides.
_PLAIN = (
    "id", "driver", "bridge", "index", "labels", "options", "internal", "icc", "isolate", "ipv6", "mtu", "subnet",
    "gateway", "prefix", "broadcast", "range", "subnets4", "subnet6", "gateway6", "prefix6", "range6", "subnets6",
    "shards", "master", "master_index", "adopted", "dns_port", "parent", "created", "name",
)  # fmt: skip


class Pool:
    """A subnet of a network. gateway: this host's address in it; prefix: in bits; broadcast: "" with IPv6; range: the
    part that containers get, "" for all."""

    __slots__ = ("broadcast", "gateway", "prefix", "range", "subnet")

    def __init__(
        self, subnet: str, gateway: str = "", prefix: int = 0, broadcast: str = "", within: str = ""
    ) -> None:
        self.subnet, self.gateway, self.prefix = subnet, gateway, prefix
        self.broadcast, self.range = broadcast, within

    def record(self) -> dict[str, object]:
        """As network.json has it."""
        keys = ("subnet", "gateway", "prefix", "broadcast", "range")
        return {key: getattr(self, key) for key in keys}


class Place:
    """A chain of somebody else's that drops what containers send or receive: its family and table, and the hook.

    base: that chain; by_policy: it drops by that; chain: where our rules are; handle: of one of them, 0 for none.
    """

    __slots__ = ("base", "by_policy", "chain", "family", "handle", "hook", "table")

    def __init__(self, family: int, table: str, base: str, chain: str, hook: int, *, by_policy: bool) -> None:
        self.family, self.table, self.base, self.chain = family, table, base, chain
        self.hook, self.by_policy, self.handle = hook, by_policy, 0

    def record(self) -> dict[str, object]:
        """As network.json has it."""
        keys = (
            "family",
            "table",
            "base",
            "chain",
            "hook",
            "by_policy",
            *(("handle",) if self.handle else ()),
        )
        return {key: getattr(self, key) for key in keys}


class Network:
    """A network as it was created, and as it was built.

    bridge, index: the link; shards: its further bridges; master, master_index: the one that new links join; subnets4,
    subnets6: all of them, and of the first of a family by themselves subnet, gateway, prefix, broadcast, range; mtu: in
    bytes; labels, options: as given; internal: leads nowhere else; icc: its containers reach each other; isolate: no
    others reach them; adopted: made by hand; dns_port: of its resolver; parent: the card; created: in s since 1970;
    before, attached: of an adopted one, what its bridge was like and who was on it; foreign: the chains of others that
    drop, None before they were looked for.
    """

    __slots__ = (*_PLAIN, "attached", "before", "foreign")

    def __init__(self, name: str = "", identifier: str = "") -> None:
        self.name, self.id = name, identifier
        self.driver, self.parent = "bridge", ""
        self.bridge, self.index = "", 0
        self.labels: dict[str, str] = {}
        self.options: dict[str, str] = {}
        self.icc, self.internal, self.isolate, self.ipv6, self.adopted = True, False, False, False, False
        self.mtu, self.dns_port, self.created = 1500, 53, 0.0
        self.subnet = self.gateway = self.broadcast = self.range = ""
        self.subnet6 = self.gateway6 = self.range6 = ""
        self.prefix = self.prefix6 = 0
        self.subnets4: list[Pool] = []
        self.subnets6: list[Pool] = []
        self.shards: list[str] = []
        self.master, self.master_index = "", 0
        self.before: dict[str, Any] | None = None
        self.attached: list[dict[str, object]] | None = None
        self.foreign: list[Place] | None = None

    def bridges(self) -> list[str]:
        """The first one and the further ones."""
        return [self.bridge, *self.shards]

    def pools(self) -> list[Pool]:
        """Every subnet, those of IPv4 first."""
        return [*self.subnets4, *self.subnets6]

    def has(self, four: list[Pool], six: list[Pool]) -> None:
        """Give it these subnets."""
        self.subnets4, self.subnets6, self.ipv6 = four, six, bool(six)
        if four:
            first = four[0]
            self.subnet, self.gateway, self.prefix = first.subnet, first.gateway, first.prefix
            self.broadcast, self.range = first.broadcast, first.range
        if six:
            first = six[0]
            self.subnet6, self.gateway6, self.prefix6 = first.subnet, first.gateway, first.prefix
            self.range6 = first.range

    def record(self) -> dict[str, object]:
        """As network.json has it."""
        found: dict[str, object] = {key: getattr(self, key) for key in _PLAIN}
        for key, pools in (("subnets4", self.subnets4), ("subnets6", self.subnets6)):
            found[key] = [each.record() for each in pools]
        if self.before is not None:
            found |= {"before": self.before, "attached": self.attached}
        if self.foreign is not None:
            found["foreign"] = [each.record() for each in self.foreign]
        return found


def parsed(told: dict[str, Any]) -> Network:
    """The network that a network.json tells of; what one of an older version lacks is as at first."""
    network = Network()
    for key in Network.__slots__:
        if key in told:
            setattr(network, key, told[key])
    network.subnets4, network.subnets6 = (
        [_pool(each) for each in told.get(key, ())] for key in ("subnets4", "subnets6")
    )
    if network.foreign is not None:
        network.foreign = [_place(each) for each in told["foreign"]]
    return network


def _pool(told: dict[str, Any]) -> Pool:
    pool = Pool(told["subnet"])
    for key in Pool.__slots__:
        if key in told:
            setattr(pool, key, told[key])
    return pool


def _place(told: dict[str, Any]) -> Place:
    words = (told[key] for key in ("family", "table", "base", "chain", "hook"))
    place = Place(*words, by_policy=told["by_policy"])
    place.handle = told.get("handle", 0)
    return place


def load(name: str) -> Network | None:
    """network.json of one network, None when there is none."""
    return _read(Path(paths.run(), "networks", name, "network.json"))


def definition(name: str) -> Network | None:
    """What was asked for when the network was created; None for the default one, and for one nobody created."""
    return _read(_definition_path(name))


def _read(path: Path) -> Network | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return parsed(value) if isinstance(value, dict) else None


def named(reference: str) -> str:
    """The name of the network that *reference* means: a name, else the beginning of one id (four digits at least).

    What means none is given back as it is. Raises UsageError when several ids begin so.
    """
    if len(reference) < SHORTEST_ID or reference.strip("0123456789abcdef") or load(reference):
        return reference
    if definition(reference):
        return reference
    ids = {network.name: network.id for network in known()}
    ids = {name: built_in_id(name) for name in BUILT_IN} | ids
    found = [name for name, identifier in ids.items() if identifier.startswith(reference)]
    if len(found) > 1:
        raise UsageError(f"network '{reference}' is ambiguous: {len(found)} ids begin so", "use a longer one")
    return found[0] if found else reference


def built_in_id(name: str) -> str:
    """The id of a network that is there without being made: the same always, another in another run directory."""
    from hashlib import sha256

    return sha256(f"{paths.run()}:{name}".encode()).hexdigest()


def all_networks() -> list[Network]:
    """network.json of every network, by name."""
    directory = Path(paths.run(), "networks")
    names = (
        sorted(entry.name for entry in directory.iterdir() if entry.is_dir()) if directory.is_dir() else []
    )
    return [network for network in map(load, names) if network is not None]


def known() -> list[Network]:
    """Every network there is, built or only defined, by name."""
    found = {network.name: network for network in definitions()}
    found.update({network.name: network for network in all_networks()})
    return [found[name] for name in sorted(found)]


def definitions() -> list[Network]:
    """Every network a user created."""
    directory = Path(paths.root(), "networks")
    names = sorted(path.stem for path in directory.glob("*.json")) if directory.is_dir() else []
    return [network for network in map(definition, names) if network is not None]


def save(network: Network) -> None:
    """Write network.json, atomically."""
    directory = Path(paths.run(), "networks", network.name)
    paths.make(str(directory))
    paths.replace(str(directory / "network.json"), _text(network))


def define(network: Network) -> None:
    """Write the definition of a new network, so that it is there after a crash. Raises: Conflict."""
    path = _definition_path(network.name)
    paths.make(str(path.parent))
    if path.exists():
        raise Conflict(f"network {network.name} exists", "`pyrun network inspect` shows it")
    paths.replace(str(path), _text(network), lasting=True)


def forget_definition(name: str) -> None:
    """Remove what `define` wrote; fine if there is nothing."""
    _definition_path(name).unlink(missing_ok=True)


def _definition_path(name: str) -> Path:
    return Path(paths.root(), "networks", f"{name}.json")


def _text(network: Network) -> bytes:
    return (json.dumps(network.record(), indent=1) + "\n").encode()


def published_ports() -> list[tuple[ports.Port, str]]:
    """Every published port of a living container, with the container's address it leads to."""
    directory = Path(paths.run(), "ports")
    inodes = {entry.path: entry.inode() for entry in os.scandir(directory)} if directory.is_dir() else {}
    found = []
    # The claims of one start are links to the same record, which tells of all of them.
    for path in {inode: path for path, inode in sorted(inodes.items())}.values():
        lines = claims.lines(path)
        targets = ports.leads(lines)
        if not (targets and claims.alive(lines[0])):
            continue
        for port in ports.parse(lines):
            # what goes to ::1 is relayed, to an address of either family
            target = targets.get(":" in port[0]) or (port[0] == ports.LOOPBACK6 and targets[False])
            if target and inodes.get(ports.path(port)) == inodes[path]:
                found.append((port, target))
    return found
