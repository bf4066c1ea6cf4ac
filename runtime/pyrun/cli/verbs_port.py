"""The verbs of `pyrun port`: what they do is in engine/port.py.

As in verbs.py: `cmd_<verb>(options, arguments) -> exit status`, the engine does, this prints.
"""

from __future__ import annotations

import posix

from pyrun.cli import text
from pyrun.errors import UsageError

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.network.publishing.reach import Row
    from pyrun.spec.values import Options

_FORMS = ("docker", "table", "json")


def cmd_port(options: Options, arguments: list[str]) -> int:
    """Published ports: to a terminal with from where each is reachable, to others as Docker lists them.

    What Docker's lines do not tell, that a port is closed to the outside, is then said on standard error.
    """
    from pyrun.engine import port
    from pyrun.network.publishing.ports import place

    form = str(options["format"])
    usual = form == ""
    if usual:
        form = "table" if posix.isatty(1) else "docker"
    if form not in _FORMS:
        raise UsageError(f"unknown --format '{form}'", "docker, table or json")
    published = port.ls(*arguments)
    if form == "docker":
        begin = [f"{each[2]}/{each[3]} -> " if len(arguments) == 1 else "" for each in published]
        text.lines([f"{head}{place(each)}" for head, each in zip(begin, published, strict=True)])
        if usual:
            port.say_shut(published)
        return 0
    rows = port.reach(arguments[0], published)
    if form == "json":
        text.write(text.json_lines([_keys(row) for row in rows]))
    else:
        headers = ("PORT", "PUBLISHED", "FROM THIS HOST", "FROM THE LAN", "FROM CONTAINERS", "FIREWALL")
        text.show(headers, [_cells(row, place(each)) for row, each in zip(rows, published, strict=True)])
    return 0


def _keys(row: Row) -> Options:
    return {
        "ContainerPort": row.inside,
        "Protocol": row.protocol,
        "HostIp": row.host,
        "HostPort": row.port,
        "ReachableFrom": {"host": row.here, "lan": row.lan, "containers": row.containers},
        "OnlyContainersOf": row.only,
        "AnswersLeaveBy": row.astray,
        "Firewall": row.firewall,
    }


def _cells(row: Row, published: str) -> list[str]:
    astray = f"no: {row.protocol} is answered by {row.astray}" if row.astray else "no"
    containers = f"of {row.only} alone" if row.only else "yes"
    return [
        f"{row.inside}/{row.protocol}", published, "yes" if row.here else "no: not its address",
        ", ".join(row.lan) or astray, containers if row.containers else "no", row.firewall or "-",
    ]  # fmt: skip


def cmd_port_add(options: Options, arguments: list[str]) -> int:
    """Publish more of a running container; prints what was published, one line each."""
    from pyrun.engine import port
    from pyrun.network.publishing.ports import place

    added = port.add(arguments[0], arguments[1:], through_firewall=bool(options["publish_through_firewall"]))
    text.lines([f"{each[2]}/{each[3]} -> {place(each)}" for each in added])
    return 0


def cmd_port_rm(options: Options, arguments: list[str]) -> int:
    """Publish less of a running container; prints what was withdrawn, one line each."""
    del options
    from pyrun.engine import port
    from pyrun.network.publishing.ports import place

    removed = port.rm(arguments[0], arguments[1:])
    text.lines([f"{place(each)}/{each[3]}" for each in removed])
    return 0
