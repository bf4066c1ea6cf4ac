"""Plain output: the way to standard output, tables in Docker's manner, JSON lines. Nothing to load, so it is quick.

What a container or an image chose (commands, names, labels) is shown with its control characters escaped, so
that it cannot drive the terminal. For terminals there is render.py.
"""

from __future__ import annotations

import posix

from pyrun import signals
from pyrun.errors import PyrunError, UsageError
from pyrun.jsonlite import dumps


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


def complain(message: str) -> None:
    """One line on standard error, for a part that failed while the rest goes on."""
    write(f"pyrun: {message}\n", 2)


def is_terminal(fd: int = 1) -> bool:
    """Whether to decorate: a terminal, and nobody has set NO_COLOR (no-color.org) or TERM=dumb."""
    plain = posix.environ.get(b"NO_COLOR") or posix.environ.get(b"TERM", b"dumb") == b"dumb"
    return not plain and posix.isatty(fd)


def as_json(choice: str, usual: str = "table") -> bool:
    """Whether --format asks for JSON. Raises: UsageError for anything but that and the usual form."""
    if choice not in ("json", usual):
        raise UsageError(f"unknown --format '{choice}'", f"{usual} or json" if usual else "json, or none")
    return choice == "json"


def json_lines(rows: list[dict[str, object]]) -> str:
    """One JSON object a line, as Docker's `--format json`."""
    return "".join([dumps(row) + "\n" for row in rows])


_NARROWEST = 7  # characters of a column; ten with the spaces behind it


def table(headers: tuple[str, ...], rows: list[list[str]]) -> str:
    """Columns three spaces apart and as wide as Docker's, headers above; the last column is not padded."""
    lines = [list(headers), *[[visible(cell) for cell in row] for row in rows]]
    widths = [max([_NARROWEST, *[len(line[column]) for line in lines]]) for column in range(len(headers))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "".join(["   ".join(line).rstrip() + "\n" for line in padded])


def visible(text: str) -> str:
    """*text* with everything unprintable escaped: a newline becomes the two characters \\n."""
    if text.isprintable():
        return text
    return "".join(
        [c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text]
    )


def shortened(text: str, length: int) -> str:
    """At most *length* characters, the last one then being an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def show(headers: tuple[str, ...], rows: list[list[str]]) -> None:
    """A table on standard output, with colours on a terminal that has the library for them."""
    if is_terminal():
        try:
            from pyrun.cli import render
        except ImportError:  # rich is not installed
            pass
        else:
            render.table(headers, rows)
            return
    write(table(headers, rows))


def cell(value: object) -> str:
    """A value of a row as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}".rstrip() for key, each in value.items())
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
