"""What is wrong with a JSON text that config_file.py refused: the line, the place or the path. Cold.

Asked once, for a text that is known to be wrong, so it may read it again and again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from pyrun.errors import UsageError

from .check_rules import place, wrong

_DEEP = "{}: is nested too deeply"
_TOO_LONG = "a number with more digits than a parser takes"


class _Twice(dict[str, Any]):
    """An object in which a key is there twice."""

    key = ""


def explain(raw: bytes, name: str) -> UsageError:
    """The error for *raw*."""
    try:
        text = _decoded(raw)
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant)
    except RecursionError:
        return UsageError(_DEEP.format(name))
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        return UsageError(f"{name}: line {error.lineno} column {error.colno}: {what}")
    except ValueError as error:
        digits = "integer string conversion" in str(error)
        return UsageError(f"{name}: {'holds ' + _TOO_LONG if digits else error}")
    twice = _find(value, lambda item: isinstance(item, _Twice))
    if twice:
        path, item = twice
        return wrong(place(f"{name}: {path}", item.key) if path else f"{name}: {item.key}", "is there twice")
    half = surrogate(value)
    if half is None:
        return UsageError(_DEEP.format(name))  # this time there was more room
    return wrong(f"{name}: {half}", "holds half a surrogate pair, which is no character")


def _decoded(raw: bytes) -> str:
    if raw[:3] == b"\xef\xbb\xbf" or raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError("must be UTF-8 without a byte order mark")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"must be UTF-8, not {raw[error.start : error.start + 1]!r} in line {line}"
        ) from None
    if not text.strip(" \t\r\n"):
        raise ValueError("is empty")
    return text


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    twice = _Twice(value)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            twice.key = key
            break
        seen.add(key)
    return twice


def _constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number in JSON")


def surrogate(value: object) -> str | None:
    """The path of the first object or string that holds half a surrogate pair; None if all is text."""
    found = _find(value, _is_torn)
    return found[0] if found else None


def _is_torn(item: object) -> bool:
    try:
        for text in item if isinstance(item, dict) else [item] if isinstance(item, str) else ():
            text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _find(value: object, wanted: Callable[[Any], bool]) -> tuple[str, Any] | None:
    """(path, value) of the first value that is *wanted*, in the text's order; without recursion, in little memory."""
    trail: list[str | int] = []
    waiting: list[Iterator[tuple[str | int, Any]]] = [iter([("", value)])]
    while waiting:
        for key, item in waiting[-1]:
            if wanted(item):
                return _path([*trail, key][1:]), item
            if isinstance(item, dict | list):
                trail.append(key)
                waiting.append(iter(item.items() if isinstance(item, dict) else enumerate(item)))
                break
        else:
            waiting.pop()
            del trail[-1:]
    return None


def _path(keys: list[str | int]) -> str:
    path = ""
    for key in keys:
        path = f"{path}[{key}]" if isinstance(key, int) else place(path, key) if path else _first(key)
    return path


def _first(key: str) -> str:
    """A key where the path begins."""
    return place(" ", key).removeprefix(" ")
