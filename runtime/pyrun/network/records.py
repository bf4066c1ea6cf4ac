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

Network = dict[str, Any]
SHORTEST_ID = 4  # digits of an id that may stand for all of it

# What a network.json of an older version may lack, and a definition need not tell.
DEFAULTS: Network = {
    "id": "", "driver": "bridge", "bridge": "", "index": 0, "labels": {}, "options": {}, "internal": False,
    "icc": True, "isolate": False, "ipv6": False, "mtu": 1500, "subnet": "", "gateway": "", "prefix": 0,
    "broadcast": "", "range": "", "subnets4": [], "subnet6": "", "gateway6": "", "prefix6": 0, "range6": "",
    "subnets6": [], "shards": [], "master": "", "master_index": 0, "adopted": False, "dns_port": 53,
    "parent": "", "created": 0.0,
}  # fmt: skip


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
    return {**DEFAULTS, **value} if isinstance(value, dict) else None


def named(reference: str) -> str:
    """The name of the network that *reference* means: a name, else the beginning of one id (four digits at least).

    What means none is given back as it is. Raises UsageError when several ids begin so.
    """
    if len(reference) < SHORTEST_ID or reference.strip("0123456789abcdef") or load(reference):
        return reference
    if definition(reference):
        return reference
    found = [str(network["name"]) for network in known() if network["id"].startswith(reference)]
    if len(found) > 1:
        raise UsageError(f"network '{reference}' is ambiguous: {len(found)} ids begin so", "use a longer one")
    return found[0] if found else reference


def subnets(network: Network) -> list[dict[str, Any]]:
    """Every subnet of a network, those of IPv4 first: dicts of subnet, gateway, prefix, broadcast, range."""
    return [*network["subnets4"], *network["subnets6"]]


def all_networks() -> list[Network]:
    """network.json of every network, by name."""
    directory = Path(paths.run(), "networks")
    names = (
        sorted(entry.name for entry in directory.iterdir() if entry.is_dir()) if directory.is_dir() else []
    )
    return [network for network in map(load, names) if network is not None]


def known() -> list[Network]:
    """Every network there is, built or only defined, by name."""
    found = {str(network["name"]): network for network in definitions()}
    found.update({str(network["name"]): network for network in all_networks()})
    return [found[name] for name in sorted(found)]


def definitions() -> list[Network]:
    """Every network a user created."""
    directory = Path(paths.root(), "networks")
    names = sorted(path.stem for path in directory.glob("*.json")) if directory.is_dir() else []
    return [network for network in map(definition, names) if network is not None]


def save(network: Network) -> None:
    """Write network.json, atomically."""
    directory = Path(paths.run(), "networks", network["name"])
    paths.make(str(directory))
    paths.replace(str(directory / "network.json"), _text(network))


def define(network: Network) -> None:
    """Write the definition of a new network, so that it is there after a crash. Raises: Conflict."""
    path = _definition_path(network["name"])
    paths.make(str(path.parent))
    if path.exists():
        raise Conflict(f"network {network['name']} exists", "`pyrun network inspect` shows it")
    paths.replace(str(path), _text(network), lasting=True)


def forget_definition(name: str) -> None:
    """Remove what `define` wrote; fine if there is nothing."""
    _definition_path(name).unlink(missing_ok=True)


def _definition_path(name: str) -> Path:
    return Path(paths.root(), "networks", f"{name}.json")


def _text(network: Network) -> bytes:
    return (json.dumps(network, indent=1) + "\n").encode()


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
