"""Tracebacks, for --debug: those of the hot bundle, too, whose code has no line numbers. Cold.

The numbers are in a file beside the bundle (csrc/bundle.py), by the file, name and first line of a function and a check
sum of its code. Not here: who shows a traceback (main.py, oci.py).
"""

from __future__ import annotations

import linecache
import marshal
import sys
import traceback
from collections.abc import Iterator
from types import CodeType, TracebackType
from zlib import crc32

from pyrun import boot
from pyrun.safe import visible

_Tables = dict[tuple[str, str, int, int], bytes]


_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"


def text(error: BaseException) -> str:
    """The traceback of *error*, its causes and contexts, without the last newline; what it says is one line."""
    tables = _tables()
    told, seen = [_one(error, tables)], {id(error)}
    while True:
        cause = error.__cause__
        before = cause or (None if error.__suppress_context__ else error.__context__)
        if before is None or id(before) in seen:  # one that was raised from itself
            return "\n\n".join(reversed(told))
        told += [_CAUSE if cause else _CONTEXT, _one(before, tables)]
        seen.add(id(before))
        error = before


def _one(error: BaseException, tables: _Tables) -> str:
    stack = traceback.StackSummary.from_list(list(_frames(error.__traceback__, tables)))
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"Traceback (most recent call last):\n{''.join(stack.format())}{name}: {visible(str(error))}"


def _tables() -> _Tables:
    """What the bundle's program knows of; {} where there is no bundle."""
    path = getattr(sys.modules["__main__"], "LINES", "")
    try:
        with open(path, "rb") as file:
            found: _Tables = marshal.loads(file.read())
            return found
    except (OSError, ValueError):
        return {}


def _frames(tb: TracebackType | None, tables: _Tables) -> Iterator[traceback.FrameSummary]:
    while tb:
        code = tb.tb_frame.f_code
        if code.co_filename == "pyrun/hot":  # what stands for a cold function
            tb = tb.tb_next
            continue
        file, line = code.co_filename, _line(code, tb.tb_lasti, tables) or tb.tb_lineno
        if file.startswith("pyrun/"):
            file = f"{boot.SITE_DIR}/{file}"
        yield traceback.FrameSummary(file, line, code.co_name, line=linecache.getline(file, line or 0))
        tb = tb.tb_next


def _line(code: CodeType, at: int, tables: _Tables) -> int | None:
    """The line of the instruction at byte *at*; None if the tables know nothing of it."""
    table = tables.get((code.co_filename, code.co_qualname, code.co_firstlineno, crc32(code.co_code)))
    if table is None:
        return None
    for first, last, line in code.replace(co_linetable=table).co_lines():
        if first <= at < last:
            return line
    return None
