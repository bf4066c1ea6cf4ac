"""Reading config.json, or a part of it (`exec --process`, `update --resources`): bounded, strict, one line of error.

Stricter than JSON parsers are: a key twice, NaN, half a surrogate pair. Two readers could understand such a text
differently, and the one that checked it is then not the one that carries it out. Not here: what is wrong with a text
(config_text.py, cold), what the values mean (check.py).
"""

from __future__ import annotations

import posix
import sys
from errno import EINVAL, ENOENT, ENOTDIR

from pyrun import jsonlite
from pyrun.errors import UsageError
from pyrun.store import distrusted

# Engines write 5 to 50 kB; Linux hands a program 2 MB of arguments and environment with the usual stack limit; etcd,
# where Kubernetes keeps its objects, takes 1.5 MB. Parsed, the worst text of this size (empty objects) takes 140 MB.
BYTES_MAX = 4 << 20


def read(path: str, name: str = "config.json", *, piped: bool = False) -> tuple[object, bytes]:
    """(value, raw bytes) of the file *path*, which errors call *name*. Raises UsageError; never waits for a writer.

    piped: unless it is a pipe, which the caller of this process has named itself.
    """
    place = "" if path in name else f": {path}"
    try:
        raw = _of_the_caller(path) if piped else distrusted.read(path, BYTES_MAX)
    except OSError as error:
        hint = ""
        if name == "config.json" and error.errno in (ENOENT, ENOTDIR):
            hint = "an OCI bundle is a directory with config.json"
        raise UsageError(f"{name}: {error.strerror}{place}", hint) from None
    return parse(raw, name), raw


def _of_the_caller(path: str) -> bytes:
    """Of a file, or of a pipe, whose writer is waited for."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOCTTY)
    if posix.fstat(fd).st_mode & 0o170000 not in (0o100000, 0o010000):
        posix.close(fd)
        raise OSError(EINVAL, "not a regular file or pipe")
    return distrusted.content(fd, BYTES_MAX)


def parse(raw: bytes, name: str = "config.json") -> object:
    """The value of a JSON text. Raises UsageError, with the place."""
    if len(raw) > BYTES_MAX:
        raise UsageError(f"{name}: must have at most {BYTES_MAX >> 20} MiB")
    # A little below the interpreter's limit, so that whoever walks the value later has room.
    depth = sys.getrecursionlimit()
    sys.setrecursionlimit(depth - 100)
    try:
        return _scan(raw)
    except (ValueError, RecursionError, StopIteration, SystemError):
        pass
    finally:
        sys.setrecursionlimit(depth)
    from . import config_text

    raise config_text.explain(raw, name)


def _scan(raw: bytes) -> object:
    text = raw.decode("utf-8").strip(" \t\r\n")
    value, end = jsonlite.scanner(_Strict)(text, 0)
    if end != len(text) or b"\\ud" in raw or b"\\uD" in raw:
        from . import config_text

        if end != len(text) or config_text.surrogate(value) is not None:
            raise ValueError
    return value


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError
    return value


def _constant(word: str) -> object:
    raise ValueError(word)  # NaN, Infinity, -Infinity: no JSON


class _Strict(jsonlite.Context):
    object_pairs_hook = staticmethod(_members)
    parse_constant = staticmethod(_constant)
