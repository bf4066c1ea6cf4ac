"""--env-file: variables a line each. Loaded only by who is given one.

Source: docker/cli pkg/kvfile: NAME=VALUE or NAME (nothing, if the caller has no such variable), `#` begins a comment
line, a byte order mark and the carriage return before a newline are left out; no other character ends a line.
"""

from __future__ import annotations

import posix

from pyrun.errors import UsageError

from .values import environment

MAX_BYTES = 1 << 20
_MARK = b"\xef\xbb\xbf"


def read(paths: list[str]) -> list[str]:
    """The variables of those files, as NAME=VALUE, the later files' behind. Raises UsageError."""
    found: list[str] = []
    for path in paths:
        lines = _lines(path)
        for line in lines:
            name = line.partition("=")[0]
            if any(letter.isspace() for letter in name):
                raise UsageError(
                    f"invalid variable for --env-file {path}: {line!r}",
                    f"the name {name!r} has white space in it",
                )
        found += [item for item in environment(lines, f"--env-file {path}") if "=" in item]
    return found


def _lines(path: str) -> list[str]:
    hint = "give a file of NAME=VALUE lines"
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        text = b""
        while len(text) <= MAX_BYTES and (chunk := posix.read(fd, 65536)):
            text += chunk
        posix.close(fd)
        if len(text) > MAX_BYTES:
            raise UsageError(
                f"--env-file {path!r}: larger than {MAX_BYTES >> 20} MiB",
                "Linux hands a program 2 MiB of arguments and variables: give a smaller file",
            )
        lines = [line.removesuffix("\r") for line in text.removeprefix(_MARK).decode("utf-8").split("\n")]
    except OSError as error:
        raise UsageError(f"--env-file {path!r}: {error.strerror}", hint) from None
    except UnicodeDecodeError:
        raise UsageError(f"--env-file {path!r}: not UTF-8", hint) from None
    return [line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
