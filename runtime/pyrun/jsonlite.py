"""JSON for the hot path: the C scanner of the standard library without `json`, `re` and `typing` around it.

`import json` costs 6.6 ms, a third of a whole start; its C parts 0.15. Syntax errors are worded by the real
`json` module, loaded for that. A unit test compares both ways over and over.
"""

from __future__ import annotations

from . import boot

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    import _json
    from collections.abc import Callable
    from typing import Any
else:
    _json = boot.standard("_json")


class Context:
    """What `_json.make_scanner` reads from a decoder."""

    strict = True
    object_hook = None
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
    parse_float = float
    parse_int = int
    parse_constant: Callable[[str], Any] = float
    memo: dict[str, str] = {}  # noqa: RUF012  (shared on purpose: the scanner clears it after each run)


def scanner(context: type[Context]) -> Callable[[str, int], tuple[object, int]]:
    """The C scanner with *context*'s settings: (text, start) -> (value, end). Raises all that `loads` catches."""
    return _json.make_scanner(context)  # type: ignore[arg-type]


def loads(text: bytes | str) -> object:
    """Parse one JSON value. Raises ValueError with the place of the error."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    stripped = text.strip(" \t\r\n")
    try:
        value, end = scanner(Context)(stripped, 0)
    except (StopIteration, ValueError, RecursionError, SystemError):
        # SystemError: before 3.13 the scanner words its errors by `json`, if somebody has imported that already
        end = -1
    if end == len(stripped):
        return value
    import json

    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refused(value: object) -> object:
    raise TypeError(f"not JSON: {value!r}")


# Neither circles are looked for nor keys sorted; separators as compact as can be. As json/encoder.py calls it.
_encoded = _json.make_encoder(None, _refused, _json.encode_basestring, None, ":", ",", False, False, True)


def dumps(value: object) -> str:
    """Compact JSON of dicts with str keys, lists, str, int, float, bool and None, all of which can be printed: what has
    a meaning to a terminal is escaped, and so is a byte of the system's that is no UTF-8 (half a surrogate pair, in
    Python): what is written can be read, and is that byte again."""
    text = "".join(_encoded(value, 0))
    return text if text.isprintable() else "".join([c if c.isprintable() else _escaped(c) for c in text])


def _escaped(sign: str) -> str:
    code = ord(sign)
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD7C0 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def indented(found: dict[str, object]) -> str:
    """An object whose values are scalars or objects of scalars as JSON, as Go's MarshalIndent has it."""
    lines = []
    for key, value in found.items():
        text = dumps(value)
        if isinstance(value, dict) and value:
            inner = ",\n".join([f"    {dumps(name)}: {dumps(each)}" for name, each in value.items()])
            text = f"{{\n{inner}\n  }}"
        lines.append(f"  {dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}"
