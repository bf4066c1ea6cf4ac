"""Plain output: the way to standard output, tables in Docker's manner, JSON lines. Nothing to load, so it is quick.

What is told of names, paths and commands that others chose goes through `table`, `lines` or `complain`, which escape
what would drive the terminal or forge a line (pyrun/safe.py); JSON has escapes of its own. `write` is for what is safe
already, and for a container's own output. For terminals there is render.py.
"""

from __future__ import annotations

import posix

from pyrun import signals
from pyrun.errors import PyrunError, UsageError
from pyrun.jsonlite import dumps
from pyrun.safe import visible

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def write(data: str | bytes, fd: int = 1) -> None:
    """Write all of *data*. When the reader is gone this process ends as by SIGPIPE, like any other filter."""
    view = memoryview(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)
    try:
        while view:
            try:
                view = view[posix.write(fd, view) :]
            except BlockingIOError:  # a terminal or pipe that somebody else who has it made non-blocking
                _wait_for_room(fd)
    except BrokenPipeError:
        signals.die_of(signals.PIPE)
    except OSError as error:
        stream = "error" if fd == 2 else "output"
        raise PyrunError(f"cannot write to standard {stream}: {error.strerror}") from None


def _wait_for_room(fd: int) -> None:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


def complain(message: str, hint: str = "") -> None:
    """One line on standard error, for a part that failed while the rest goes on, and one for its remedy."""
    write(f"pyrun: {visible(message)}\n", 2)
    if hint:
        write(f"hint: {visible(hint)}\n", 2)


def lines(texts: Iterable[object]) -> None:
    """Each of *texts* as one line on standard output."""
    write("".join([f"{visible(str(text))}\n" for text in texts]))


def is_terminal(fd: int = 1) -> bool:
    """Whether to decorate: a terminal, and nobody has set NO_COLOR (no-color.org) or TERM=dumb."""
    plain = posix.environ.get(b"NO_COLOR") or posix.environ.get(b"TERM", b"dumb") == b"dumb"
    return not plain and posix.isatty(fd)


def as_json(choice: str, usual: str = "table") -> bool:
    """Whether --format asks for JSON. Raises: UsageError for anything but that and the usual form."""
    if choice not in ("json", usual):
        raise UsageError(f"unknown --format '{choice}'", f"{usual} or json" if usual else "json, or none")
    return choice == "json"


def json_lines(rows: Sequence[Mapping[str, object]]) -> str:
    """One JSON object a line, as Docker's `--format json`."""
    return "".join([dumps(row) + "\n" for row in rows])


_NARROWEST = 7  # characters of a column; ten with the spaces behind it


# Of a terminal: the headers, and the state of a container by the beginning of its cell. Source: ECMA-48, SGR.
_BOLD = "1"
_COLOURS = (("Up", "32"), ("Exited (0)", "2"), ("Exited", "33"), ("Created", "36"))


def table(headers: tuple[str, ...], rows: list[list[str]], *, coloured: bool = False) -> str:
    """Columns three spaces apart and as wide as Docker's, headers above; the last column is not padded, so that a line
    is no wider than what is in it."""
    lines = [list(headers), *[[visible(cell) for cell in row] for row in rows]]
    widths = [max([_NARROWEST, *[len(line[column]) for line in lines]]) for column in range(len(headers))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    padded = [[*line[:-1], line[-1].rstrip()] for line in padded]
    if coloured:
        padded = [
            [_coloured(cell, "" if number else _BOLD) for cell in line] for number, line in enumerate(padded)
        ]
    return "".join(["   ".join(line).rstrip() + "\n" for line in padded])


def _coloured(cell: str, style: str) -> str:
    style = style or next((colour for beginning, colour in _COLOURS if cell.startswith(beginning)), "")
    return f"\x1b[{style}m{cell}\x1b[0m" if style and cell else cell


def shortened(text: str, length: int) -> str:
    """At most *length* characters, the last one then being an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def show(headers: tuple[str, ...], rows: list[list[str]]) -> None:
    """A table on standard output, with colours on a terminal, which wraps what is too wide for it."""
    write(table(headers, rows, coloured=is_terminal()))


def cell(value: object) -> str:
    """A value of a row as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}".rstrip() for key, each in value.items())
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
