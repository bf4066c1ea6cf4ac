"""A CNI configuration: found by its network's name, read, and turned into what each plugin is to be told.

    NETCONFPATH    where the configurations are (/etc/cni/net.d): *.conflist, and *.conf or *.json of a single plugin;
                   of several with one name the first by file name counts
    CNI_PATH       where the plugins are, separated by colons (/opt/cni/bin, /usr/lib/cni, /usr/libexec/cni)

Both are the variables of the specification's own tool, cnitool. Pure but for reading files.
Source: the CNI specification 1.0.0 (SPEC.md), sections 1 and 3.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pyrun.errors import NotFound, UsageError
from pyrun.spec import config_file
from pyrun.spec.check_rules import Each, Fields, Map, flag, name, wrong

DIRECTORY = "/etc/cni/net.d"
PLUGINS = "/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni"
_ENDINGS = (".conflist", ".conf", ".json")
# Of the results we understand; the plugins say whether they know it.
_VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

Network = dict[str, Any]


def _program(value: object, path: str) -> None:
    if not isinstance(value, str) or not value or "/" in value or "\0" in value:
        raise wrong(path, "must be the name of a program")


def _plugins(value: object, path: str) -> None:
    if not isinstance(value, list) or not value:
        raise wrong(path, "must be a list with at least one plugin")
    _EACH_PLUGIN(value, path)


_EACH_PLUGIN = Each(Fields({"type": _program, "capabilities": Map(flag)}, needed="type"))
# What pyrun itself reads of a configuration; the rest is the plugins'.
NETWORK = Fields({"name": name, "plugins": _plugins}, needed="name plugins")


def load(wanted: str) -> Network:
    """{"name", "cniVersion", "plugins": [...], "file"} of the network called *wanted*. Raises: NotFound, UsageError."""
    directory = Path(os.environ.get("NETCONFPATH") or DIRECTORY)
    names = []
    files = (
        sorted(path for path in directory.iterdir() if path.suffix in _ENDINGS) if directory.is_dir() else []
    )
    for file in files:
        network = _read(file, tolerant=True)
        if network and network["name"] == wanted:
            return _checked(network)
        names += [network["name"]] if network else []
    for ending in _ENDINGS:  # a broken file would rather be told of than overlooked
        if (broken := directory / f"{wanted}{ending}").exists():
            _read(broken, tolerant=False)
    raise NotFound(
        f"--network cni:{wanted}: no configuration in {directory} has that name",
        f"there are {', '.join(names)}" if names else "NETCONFPATH names another directory",
    )


def _read(file: Path, *, tolerant: bool) -> Network | None:
    try:
        content = config_file.parse(file.read_bytes(), "it")
        if not isinstance(content, dict) or not isinstance(content.get("name"), str):
            raise UsageError("it has no name")
        if file.suffix != ".conflist" and "plugins" not in content:  # one plugin: the list is made around it
            content = {"name": content["name"], "cniVersion": content.get("cniVersion"), "plugins": [content]}
    except (OSError, UsageError) as error:
        if tolerant:
            return None
        raise UsageError(f"{file}: is no CNI configuration: {error}") from None
    return {**content, "file": str(file)}


def _checked(network: Network) -> Network:
    """Raises UsageError for what the specification does not allow."""
    told = network["file"]
    network["cniVersion"] = version = network.get("cniVersion") or "0.3.1"
    if version not in _VERSIONS:
        raise UsageError(f"{told}: cniVersion {version!r:.40}: is not known here", ", ".join(_VERSIONS))
    NETWORK(network, f"{told}: ")
    return network


def search_path() -> str:
    """Where plugins are looked for."""
    return os.environ.get("CNI_PATH") or PLUGINS


def program(kind: str, path: str, told: str) -> str:
    """The plugin *kind*. Raises NotFound."""
    for directory in path.split(":"):
        candidate = f"{directory}/{kind}"
        if directory.startswith("/") and os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return candidate
    raise NotFound(
        f"{told}: there is no plugin {kind!r} in {path}",
        "apt-get install containernetworking-plugins; or set CNI_PATH",
    )


def declares(network: Network, capability: str) -> bool:
    """Whether a plugin of the chain wants to be told of *capability*."""
    return any((plugin.get("capabilities") or {}).get(capability) for plugin in network["plugins"])


def request(
    network: Network, number: int, arguments: dict[str, Any], previous: dict[str, Any] | None
) -> dict[str, Any]:
    """What plugin *number* of the chain gets on its standard input: its part of the configuration with the list's name
    and version, the arguments of those capabilities it declares, and the result so far."""
    plugin = {key: value for key, value in network["plugins"][number].items() if key != "capabilities"}
    wanted = network["plugins"][number].get("capabilities") or {}
    given = {key: value for key, value in arguments.items() if wanted.get(key)}
    told: dict[str, Any] = {**plugin, "cniVersion": network["cniVersion"], "name": network["name"]}
    if given:
        told["runtimeConfig"] = given
    if previous is not None:
        told["prevResult"] = previous
    return told
