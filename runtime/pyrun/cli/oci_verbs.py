"""The commands of pyrun-oci that nobody waits for: list, features, spec, ps, events, update, pause, resume.

What they print is what runc prints, to the byte where scripts read it. Not here: create, start, run, exec, kill,
delete, state (oci.py calls the engine itself).
"""

from __future__ import annotations

import gc
import json
import posix

from pyrun.errors import PyrunError, UsageError
from pyrun.safe import visible

from . import oci

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options


_COLUMN = 12  # characters, at the least: Go's tabwriter as runc sets it
_GAP = 3
_DURATION_MAX_S = (1 << 63) / 1e9  # Go counts nanoseconds
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def call(command: str, options: Options, arguments: list[str]) -> int:
    """Run it; returns the exit status."""
    gc.enable()  # the bundle switched it off
    return int(globals()[f"cmd_{command}"](options, arguments))


def duration_s(text: str) -> float:
    """Go's durations: `5s`, `1m30s`, `1.5h`, `300ms`, `0`. Raises ValueError."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    total = 0.0
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("nuµmsh"))]
        rest = rest[len(unit) :]
        if unit not in _UNITS or not number.isascii():
            raise ValueError(text)
        total += float(number) * _UNITS[unit]
    if not text or text in ("-", "+") or total > _DURATION_MAX_S:
        raise ValueError(text)
    return -total if text[0] == "-" else total


def make_user_root() -> None:
    """The default root of a user, below $XDG_RUNTIME_DIR: sticky, so that nobody tidies it away.

    Source: XDG base directory specification.
    """
    from pyrun.store import bundles, paths

    root = bundles.default_root()
    if root.startswith("/run/pyrun"):
        return
    try:
        paths.make(root)
        posix.chmod(root, 0o1700)
    except OSError as error:
        raise PyrunError(f"{root}: {error.strerror}", "$XDG_RUNTIME_DIR has to be yours") from None


def _as_json(options: Options) -> bool:
    if options["format"] not in ("table", "json"):
        raise UsageError("invalid format option")
    return options["format"] == "json"


def cmd_list(options: Options, arguments: list[str]) -> int:
    """Ids, a table, or JSON with the keys of `state`."""
    del arguments
    from pyrun.engine.oci.list import containers
    from pyrun.jsonlite import dumps

    found = containers(options)
    if options["quiet"]:
        oci.write("".join([f"{each['id']}\n" for each in found]))
    elif _as_json(options):
        oci.write((dumps(found) if found else "null") + "\n")
    else:
        keys = ("id", "pid", "status", "bundle", "created", "owner")
        oci.write(
            _table(
                [
                    [key.upper() for key in keys],
                    *[[visible(str(each[key])) for key in keys] for each in found],
                ]
            )
        )
    return 0


def _table(lines: list[list[str]]) -> str:
    widths = [max(_COLUMN, max([len(line[at]) for line in lines]) + _GAP) for at in range(len(lines[0]) - 1)]
    return "".join(
        [
            "".join([cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)]) + "\n"
            for line in lines
        ]
    )


def cmd_features(options: Options, arguments: list[str]) -> int:
    """The Features structure."""
    del options, arguments
    from pyrun.engine.oci.features import features

    oci.write(json.dumps(features(), indent=4) + "\n")
    return 0


def cmd_spec(options: Options, arguments: list[str]) -> int:
    """config.json in --bundle or here."""
    del arguments
    from pyrun.engine.oci import spec

    spec.write(str(options["bundle"]), rootless=bool(options["rootless"]))
    return 0


def cmd_pause(options: Options, arguments: list[str]) -> int:
    """Freeze."""
    from pyrun.engine.oci import pause

    pause.pause(options, arguments[0])
    return 0


def cmd_resume(options: Options, arguments: list[str]) -> int:
    """Thaw."""
    from pyrun.engine.oci import pause

    pause.resume(options, arguments[0])
    return 0


def cmd_update(options: Options, arguments: list[str]) -> int:
    """New limits."""
    from pyrun.engine.oci import update

    update.update(options, arguments[0])
    return 0


def cmd_events(options: Options, arguments: list[str]) -> int:
    """One JSON object a line, until the container has ended, or one with --stats."""
    from pyrun.engine.oci import events

    if float(str(options["interval"])) <= 0:
        raise UsageError("duration interval must be greater than 0")
    for event in events.events(options, arguments[0]):
        oci.write(json.dumps(event, separators=(",", ":")) + "\n")
    return 0


def cmd_ps(options: Options, arguments: list[str]) -> int:
    """ps's own lines about the container's processes, or their ids."""
    from pyrun.engine.oci import ps

    if _as_json(options):
        oci.write(json.dumps(ps.pids(options, arguments[0]), separators=(",", ":")) + "\n")
    else:
        oci.write("".join([f"{visible(line)}\n" for line in ps.lines(options, arguments[0], arguments[1:])]))
    return 0


def cmd_checkpoint(options: Options, arguments: list[str]) -> int:
    """Not yet."""
    del options, arguments
    raise UsageError(
        "checkpoint is not implemented in pyrun-oci yet", "use runc with criu for this container"
    )


def cmd_restore(options: Options, arguments: list[str]) -> int:
    """Not yet."""
    del options, arguments
    raise UsageError("restore is not implemented in pyrun-oci yet", "use runc with criu for this container")
