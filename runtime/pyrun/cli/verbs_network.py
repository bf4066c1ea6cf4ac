"""The verbs of `pyrun network`: what they do is in engine/network*.py and engine/connect.py.

As in verbs.py: `cmd_<verb>(options, arguments) -> exit status`, the engine does, this prints.
"""

from __future__ import annotations

import json

from pyrun.cli import text

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.engine.network import Row
    from pyrun.spec.values import Options


def cmd_network_create(options: Options, arguments: list[str]) -> int:
    """Make a network and print its id."""
    from pyrun.engine import network

    text.lines([network.create(arguments[0], options)])
    return 0


def cmd_network_adopt(options: Options, arguments: list[str]) -> int:
    """Take over a bridge and print the network's name."""
    from pyrun.engine import network

    text.lines([network.adopt(arguments[0], options)])
    return 0


def cmd_network_inspect(options: Options, arguments: list[str]) -> int:
    """Everything about each network, as one JSON list: of many lines, or with --format json in one."""
    from pyrun.engine import network_inspect

    indent = None if text.as_json(str(options["format"]), "") else 4
    text.write(json.dumps([network_inspect.inspect(name) for name in arguments], indent=indent) + "\n")
    return 0


def cmd_network_connect(options: Options, arguments: list[str]) -> int:
    """Connect a running container to a network."""
    from pyrun.engine import connect, network

    name, mac = network.resolve(arguments[0]), str(options["mac_address"] or "")
    if mac:
        network.refuse_taken_mac(name, mac)
    connect.connect(name, arguments[1], options)
    return 0


def cmd_network_disconnect(options: Options, arguments: list[str]) -> int:
    """Disconnect a running container from a network."""
    from pyrun.engine import connect, network

    connect.disconnect(network.resolve(arguments[0]), arguments[1], force=bool(options["force"]))
    return 0


def cmd_network_policy(options: Options, arguments: list[str]) -> int:
    """Show a container's egress policy, or give it another; then say what is in force."""
    del options
    from pyrun.engine import policy

    text.lines([policy.show(arguments[0]) if len(arguments) == 1 else policy.change(*arguments)])
    return 0


def cmd_network_reload(options: Options, arguments: list[str]) -> int:
    """Restore what is missing of the networks; status 1 when something could not be."""
    del arguments
    from pyrun.engine import network

    told, failed = network.reload(counted=not options["quiet"])
    if not (told or failed or options["quiet"]):
        told = ["nothing was missing"]
    text.lines(told)
    for line in failed:
        text.complain(line)
    return 1 if failed else 0


def cmd_network_ls(options: Options, arguments: list[str]) -> int:
    """Networks, ours and the two that need no bridge."""
    del arguments
    from pyrun.engine import network

    wanted = text.as_json(str(options["format"]))
    rows = network.ls()
    for row in rows if not options["no_trunc"] else ():
        row["id"] = row["id"][:12]
    if options["quiet"]:
        text.lines([row["id"] for row in rows])
    elif wanted:
        text.write(text.json_lines([_docker_keys(row) for row in rows]))
    else:
        keys = ("name", "driver", "scope", "subnet", "gateway", "bridge", "containers")
        text.show(
            ("NETWORK ID", *[key.upper() for key in keys]),
            [[row["id"], *[text.cell(row.get(key, "")) for key in keys]] for row in rows],
        )
    return 0


def _docker_keys(row: Row) -> dict[str, object]:
    """The row under Docker's names, all of whose values are text, and in its style what only pyrun tells."""
    import time

    created = time.localtime(row["created"])
    return {
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", created) if row["created"] else "",
        "Driver": row["driver"],
        "ID": row["id"],
        "IPv4": str(bool(row["subnet"])).lower(),
        "IPv6": str(row["ipv6"]).lower(),
        "Internal": str(row["internal"]).lower(),
        "Labels": ",".join([f"{key}={value}" for key, value in row["labels"].items()]),
        "Name": row["name"],
        "Scope": "local",
        "Subnet": row["subnet"],
        "Subnet6": row["subnet6"],
        "Gateway": row["gateway"],
        "Bridge": row["bridge"],
        "Mtu": row["mtu"],
        "Containers": row["containers"],
    }


def cmd_network_rm(options: Options, arguments: list[str]) -> int:
    """Remove each network."""
    from pyrun.cli.verbs import each
    from pyrun.engine import network

    force = bool(options["force"])
    return each(arguments, lambda name: network.rm(name, force=force), forgive=force, remedies=True)


def cmd_network_prune(options: Options, arguments: list[str]) -> int:
    """Remove the networks nobody uses, and what was changed on the host for them."""
    del options, arguments
    from pyrun.engine import network, system

    for row in network.prune():
        restored = row.get("restored")
        if isinstance(restored, list):
            text.lines([f"restored: {what}" for what in restored])
        else:
            text.lines([row["name"]])
    system.drop_empty_cgroups()
    return 0
