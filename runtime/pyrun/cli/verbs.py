"""One function a verb: call the engine, print what it returns. The verbs about containers are here.

`cmd_<verb>(options, arguments) -> exit status`; options by destination as tables.py names them. Everything the
engine needs is imported inside the functions, so that `kill` loads no more than `kill` needs. Images, networks
and the machine are in verbs_cold.py.
"""

from __future__ import annotations

from pyrun.cli import text
from pyrun.errors import NotFound, PyrunError
from pyrun.safe import visible

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrun.engine.ps import Row
    from pyrun.spec.values import Options


def call(verb: str, options: Options, arguments: list[str]) -> int:
    """Run *verb* (a key of tables.VERBS other than run and exec); returns the exit status."""
    function = globals().get(f"cmd_{verb}")
    if function is None and verb.startswith("network "):
        from pyrun.cli import verbs_network

        function = getattr(verbs_network, f"cmd_{verb.replace(' ', '_')}")
    if function is None and verb.startswith("port"):
        from pyrun.cli import verbs_port

        function = getattr(verbs_port, f"cmd_{verb.replace(' ', '_')}")
    if function is None:
        from pyrun.cli import verbs_cold

        function = getattr(verbs_cold, f"cmd_{verb.replace(' ', '_')}")
    return int(function(options, arguments))


# So many containers end side by side; not all at once, since an end is much work for the kernel.
_AHEAD = 64


def each(
    arguments: list[str],
    action: Callable[[str], object],
    *,
    forgive: bool = False,
    begin: Callable[[str], object] | None = None,
    remedies: bool = False,
) -> int:
    """Call *action* for every argument and print it; a failure is told and the rest goes on.

    forgive: one that does not exist is told, but is no failure (--force). begin: called for an argument before its
    turn, while *action* is at others; what fails there is for *action* to find and tell. remedies: hints are told too,
    each once. Returns 0, or 1 if something failed.
    """
    status = 0
    told: list[str] = []
    for number, argument in enumerate(arguments):
        if begin and len(arguments) > 1:
            _begin(begin, arguments[number + _AHEAD - 1 : number + _AHEAD] if number else arguments[:_AHEAD])
        try:
            action(argument)
        except PyrunError as error:
            forgiven = forgive and isinstance(error, NotFound)
            hint = error.hint if remedies and not forgiven and error.hint not in told else ""
            told.append(hint)
            text.complain(error.message, hint)
            status = status if forgiven else 1
        else:
            text.lines([argument])
    return status


def _begin(begin: Callable[[str], object], arguments: list[str]) -> None:
    for argument in arguments:
        try:
            begin(argument)
        except PyrunError:
            pass


def cmd_ps(options: Options, arguments: list[str]) -> int:
    """Containers as a table, as ids, or as JSON with Docker's keys."""
    del arguments
    from pyrun.engine import ps
    from pyrun.spec import values

    wanted = text.as_json(str(options["format"]))
    rows = ps.rows(everything=bool(options["all"]), filters=values.texts(options["filter"]))
    whole = bool(options["no_trunc"])
    if options["quiet"]:
        text.lines([_short(row, whole) for row in rows])
    elif wanted:
        text.write(text.json_lines([_docker_keys(row, whole) for row in rows]))
    else:
        headers = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
        text.show(headers, [_cells(row, whole) for row in rows])
    return 0


def _short(row: Row, whole: bool) -> str:
    return row["id"] if whole else row["id"][:12]


def _command(row: Row, whole: bool) -> str:
    """In quotes as Docker's: an argument with a blank has its own, within which a quote is escaped."""
    words = [f"'{arg}'" if number and " " in arg else arg for number, arg in enumerate(row["args"])]
    joined = " ".join(words) if whole else text.shortened(" ".join(words), 20)
    return '"' + visible(joined.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _age(row: Row) -> str:
    """How long ago a container was made; empty when its record is gone."""
    import time

    from pyrun.engine import ps

    created = row["created"]
    return f"{ps.span(time.time() - created)} ago" if created else ""


def _cells(row: Row, whole: bool) -> list[str]:
    return [_short(row, whole), row["image"], _command(row, whole), _age(row), row["status"],
            ", ".join(row["ports"]), row["name"]]  # fmt: skip


def _counters(networks: list[Any]) -> dict[str, dict[str, int]]:
    """Network -> bytes and packets, of a container that runs."""
    from pyrun.network import counters

    found = {str(wire["network"]): counters.read(str(wire["link"])) for wire in networks}
    return {network: counted for network, counted in found.items() if counted}


def _docker_keys(row: Row, whole: bool) -> Options:
    """The row under the names that scripts written for Docker look for; what pyrun has not is empty."""
    import time

    cells, created = _cells(row, whole), row["created"]
    return {
        "Command": cells[2],
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created)) if created else "",
        "ID": cells[0],
        "Image": cells[1],
        "Labels": ",".join([f"{key}={value}" for key, value in row["labels"].items()]),
        "LocalVolumes": "0",
        "Mounts": "",
        "Names": cells[6],
        "Networks": row["network"],
        "Platform": _platform(row["image_id"]),
        "Ports": cells[5],
        "RunningFor": cells[3],
        "Size": "",
        "State": row["state"],
        "Status": cells[4],
        "NetworkCounters": _counters(row["networks"]),
    }


def _platform(image_id: str) -> Options | None:
    """Of the container's image; None for a bundle, and for an image that is gone."""
    from pyrun.errors import ImageError
    from pyrun.store import images

    try:
        image = images.load(image_id) if image_id else None
    except ImageError:
        image = None
    return {"architecture": image["architecture"], "os": image["os"]} if image else None


def cmd_stop(options: Options, arguments: list[str]) -> int:
    """Stop each container."""
    from pyrun import signals
    from pyrun.engine import stop

    timeout_s, signal = options["timeout"], str(options["signal"])
    assert timeout_s is None or isinstance(timeout_s, int)
    if signal:
        signals.number(signal)
    asked: dict[str, stop.Asked] = {}

    def ask(name: str) -> None:
        if name not in asked:
            asked[name] = stop.ask(name, signal)

    return each(
        arguments,
        lambda name: stop.stop(name, timeout_s, signal, asked.pop(name, None)),
        begin=ask,
        remedies=True,
    )


def cmd_kill(options: Options, arguments: list[str]) -> int:
    """Signal each container."""
    from pyrun import signals
    from pyrun.engine import kill

    signals.number(str(options["signal"]))
    return each(arguments, lambda name: kill.kill(name, str(options["signal"])), remedies=True)


def cmd_rm(options: Options, arguments: list[str]) -> int:
    """Remove each container."""
    from pyrun.engine import rm

    force = bool(options["force"])
    killed: dict[str, str] = {}

    def begin(name: str) -> None:
        if name not in killed:
            killed[name] = rm.kill_unless_ended(name)

    return each(
        arguments,
        lambda name: rm.remove(name, force=force, killed=killed.pop(name, "")),
        forgive=force,
        begin=begin if force else None,
        remedies=True,
    )


def cmd_logs(options: Options, arguments: list[str]) -> int:
    """What the container wrote to standard output goes to ours, standard error likewise."""
    from pyrun.engine import logs

    pieces = logs.logs(
        arguments[0],
        follow=bool(options["follow"]),
        tail=str(options["tail"]),
        since=str(options["since"]),
        until=str(options["until"]),
    )
    for stream, moment, piece in pieces:
        if options["timestamps"] and moment:
            piece = f"{moment} ".encode() + piece
        text.write(piece, 2 if stream == "stderr" else 1)
    return 0
