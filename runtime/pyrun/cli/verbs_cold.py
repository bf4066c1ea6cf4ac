"""The verbs about images and the machine: those where a few milliseconds more do not count.

As in verbs.py: `cmd_<verb>(options, arguments) -> exit status`, the engine does, this prints.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping

from pyrun import notice
from pyrun.cli import text
from pyrun.errors import NotFound, PyrunError, UsageError

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.engine.pull import Progress, Step
    from pyrun.spec.values import Options


def cmd_images(options: Options, arguments: list[str]) -> int:
    """Local images, one line a name."""
    from pyrun.engine import images

    wanted = text.as_json(str(options["format"]))
    rows = images.rows(arguments[0] if arguments else "")
    whole = bool(options["no_trunc"])
    ids = [f"sha256:{row['id']}" if whole else row["id"][:12] for row in rows]
    if options["quiet"]:
        text.lines(dict.fromkeys(ids))
        return 0
    cells = [
        [row["repository"], row["tag"], identifier, _ago(row["created"]), _size(row["size_bytes"])]
        for row, identifier in zip(rows, ids, strict=True)
    ]
    if wanted:
        keys = ("Repository", "Tag", "ID", "CreatedSince", "Size")
        # Docker's client knows no more of these, either
        more = dict.fromkeys(("Containers", "SharedSize", "UniqueSize"), "N/A")
        text.write(text.json_lines([
            {**dict(zip(keys, line, strict=True)), "CreatedAt": row["created"], "Digest": row["digest"] or "<none>",
             **more, "VirtualSize": line[-1], "Platform": row["platform"]}
            for row, line in zip(rows, cells, strict=True)
        ]))  # fmt: skip
        return 0
    headers = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    if options["digests"]:
        column = ["DIGEST", *[row["digest"] or "<none>" for row in rows]]
        for line, digest in zip([headers, *cells], column, strict=True):
            line.insert(2, digest)
    text.show(tuple(headers), cells)
    return 0


def cmd_rmi(options: Options, arguments: list[str]) -> int:
    """Remove each image."""
    from pyrun.engine import images

    force = bool(options["force"])
    status = 0
    for name in arguments:
        try:
            text.lines(images.remove([name], force=force))
        except PyrunError as error:
            _complain(error)
            status = status if force and isinstance(error, NotFound) else 1
    return status


def cmd_pull(options: Options, arguments: list[str]) -> int:
    """Fetch or build an image; prints digest, status and name as Docker's client does, or the name alone."""
    from pyrun.engine import pull
    from pyrun.store import images

    quiet = bool(options["quiet"])
    before = images.find_id(arguments[0])
    with progress(quiet=quiet) as told:
        image = pull.pull(arguments[0], str(options["platform"]) or None, told)
    lines = pull.told(arguments[0], before, image)
    text.lines(lines[-1:] if quiet else lines)
    return 0


def cmd_load(options: Options, arguments: list[str]) -> int:
    """Load images from an archive, a file or standard input."""
    from pyrun.engine import load

    source = str(options["input"]) or (arguments[0] if arguments else "")
    if options["input"] and arguments:
        raise UsageError(f"two files to load: {options['input']} and {arguments[0]}", "give one of them")
    names = load.load(source or "-", str(options["tag"]), str(options["platform"]) or None)
    text.lines([f"Loaded image: {name}" for name in names])
    return 0


def cmd_system_finish(options: Options, arguments: list[str]) -> int:
    """For undo lists."""
    del options
    from pyrun.engine import reconcile

    failed = reconcile.finish(arguments[0])
    for line in failed:
        text.complain(line)
    return 1 if failed else 0


def cmd_system_reconcile(options: Options, arguments: list[str]) -> int:
    """Tell what was cleaned up; status 1 when something could not be."""
    del arguments
    from pyrun.engine import system

    done, failed = system.reconcile_all()
    if not options["quiet"]:
        text.lines(done or ["nothing to clean up"])
    for line in failed:
        text.complain(line)
    return 1 if failed else 0


def cmd_info(options: Options, arguments: list[str]) -> int:
    """What this machine offers."""
    del arguments
    from pyrun.engine import info

    return _report(info.info(), str(options["format"]))


def cmd_version(options: Options, arguments: list[str]) -> int:
    """Versions."""
    del arguments
    from pyrun.engine import info

    return _report(info.version(), str(options["format"]))


def _report(facts: Mapping[str, object], form: str) -> int:
    """Nested facts as indented text or as JSON."""
    if text.as_json(form, "text"):
        text.write(json.dumps(facts, indent=2) + "\n")
    else:
        text.lines(_lines(facts, ""))
    return 0


def _lines(facts: Mapping[str, object], indent: str) -> Iterator[str]:
    for key, value in facts.items():
        label = f"{indent}{key.replace('_', ' ')}:"
        if isinstance(value, dict):
            yield label
            yield from _lines(value, indent + "  ")
        else:
            yield f"{label} {text.cell(value)}".rstrip()


def _ago(created: object) -> str:
    """`3 weeks ago` of an RFC 3339 time; images may be older than anything, or from nowhere."""
    import time

    from pyrun.engine import ps

    moment = ps.unix_s(created)
    return f"{ps.span(time.time() - moment)} ago" if moment > 0 else "N/A"


def _size(size_bytes: int) -> str:
    """`4.26MB`: decimal units, three figures, as Docker."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:.3g}TB"


def _complain(error: PyrunError) -> None:
    text.complain(error.message + (f" ({error.hint})" if error.hint else ""))


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Progress | None]:
    """What hears of a pull, or None. On standard error: bars on a terminal, elsewhere a line for a finished layer."""
    with contextlib.ExitStack() as stack:
        yield None if quiet else _bars(stack) if text.is_terminal(2) else _told


def _bars(stack: contextlib.ExitStack) -> Progress:
    """Bars that begin with the first event: there may be nothing to pull."""
    lock = threading.Lock()
    shown: list[Progress] = []

    def tell(event: Step) -> None:
        with lock:
            if not shown:
                shown.append(_begin(stack))
        shown[0](event)

    return tell


def _begin(stack: contextlib.ExitStack) -> Progress:
    try:
        from pyrun.cli import render
    except ImportError:
        return _told
    return stack.enter_context(render.Bars())


def _told(event: Step) -> None:
    """One event in words, if it is one of those that happen once a layer."""
    if event["state"] in ("done", "exists", "building"):
        notice.say(f"{event['layer'] or event['image']}: {event['state']}")
