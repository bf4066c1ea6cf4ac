"""One function a verb: call the engine, print what it returns. The verbs about containers are here.

`cmd_<verb>(options, arguments) -> exit status`; options by destination as tables.py names them. Everything the
engine needs is imported inside the functions, so that `kill` loads no more than `kill` needs. Images, networks
and the machine are in verbs_cold.py.
"""

from __future__ import annotations

from pyrun.cli import text
from pyrun.errors import NotFound, PyrunError

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable

Options = dict[str, object]


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
            text.complain(error.message)
            if forgive and isinstance(error, NotFound):
                continue
            if remedies and error.hint not in ("", *told):
                told.append(error.hint)
                text.write(f"hint: {error.hint}\n", 2)
            status = 1
        else:
            text.write(f"{argument}\n")
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

    wanted = text.as_json(str(options["format"]))
    rows = ps.rows(everything=bool(options["all"]), filters=options["filter"])  # type: ignore[arg-type]
    whole = bool(options["no_trunc"])
    if options["quiet"]:
        text.write("".join([f"{_short(row, whole)}\n" for row in rows]))
    elif wanted:
        text.write(text.json_lines([_docker_keys(row, whole) for row in rows]))
    else:
        headers = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
        text.show(headers, [_cells(row, whole) for row in rows])
    return 0


def _short(row: Options, whole: bool) -> str:
    return str(row["id"]) if whole else str(row["id"])[:12]


def _command(row: Options, whole: bool) -> str:
    args = row["args"]
    joined = text.visible(" ".join([str(arg) for arg in args]) if isinstance(args, list) else "")
    return f'"{joined if whole else text.shortened(joined, 20)}"'


def _age(row: Options) -> str:
    """How long ago a container was made; empty when its record is gone."""
    import time

    from pyrun.engine import ps

    created = row["created"]
    return f"{ps.span(time.time() - created)} ago" if isinstance(created, float) and created else ""


def _cells(row: Options, whole: bool) -> list[str]:
    ports = row["ports"]
    listed = ", ".join(ports) if isinstance(ports, list) else ""
    return [_short(row, whole), str(row["image"]), _command(row, whole), _age(row), str(row["status"]),
            listed, str(row["name"])]  # fmt: skip


def _counters(networks: object) -> dict[str, dict[str, int]]:
    """Network -> bytes and packets, of a container that runs."""
    from pyrun.network import counters

    wires = networks if isinstance(networks, list) else []
    found = {str(wire["network"]): counters.read(str(wire["link"])) for wire in wires}
    return {network: counted for network, counted in found.items() if counted}


def _docker_keys(row: Options, whole: bool) -> Options:
    """The row under the names that scripts written for Docker look for; what pyrun has not is empty."""
    import time

    cells = _cells(row, whole)
    created = row["created"] if isinstance(row["created"], float) else 0.0
    labels = row["labels"] if isinstance(row["labels"], dict) else {}
    return {
        "Command": cells[2],
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created)) if created else "",
        "ID": cells[0],
        "Image": cells[1],
        "Labels": ",".join([f"{key}={value}" for key, value in labels.items()]),
        "LocalVolumes": "0",
        "Mounts": "",
        "Names": cells[6],
        "NetworkCounters": _counters(row["networks"]),
        "Networks": row["network"],
        "Ports": cells[5],
        "RunningFor": cells[3],
        "Size": "",
        "State": row["state"],
        "Status": cells[4],
    }


def cmd_stop(options: Options, arguments: list[str]) -> int:
    """Stop each container."""
    from pyrun import signals
    from pyrun.engine import stop

    timeout_s, signal = options["timeout"], str(options["signal"])
    if signal:
        signals.number(signal)
    asked: dict[str, stop.Asked] = {}

    def ask(name: str) -> None:
        if name not in asked:
            asked[name] = stop.ask(name, signal)

    return each(
        arguments,
        lambda name: stop.stop(name, timeout_s, signal, asked.pop(name, None)),  # type: ignore[arg-type]
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
