"""A text in quotes as Go's strconv.Quote has it (%q): in runc's log and its errors, which callers compare.

Source: pkg.go.dev/strconv#Quote.
"""

from __future__ import annotations

_ESCAPES = {
    "\\": "\\\\", '"': '\\"', "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip


def quoted(text: str) -> str:
    """*text* in double quotes; a byte that was no UTF-8 (surrogateescape) is shown as a byte."""
    return '"' + "".join([_ESCAPES.get(each) or _printable(each) for each in text]) + '"'


def _printable(sign: str) -> str:
    if sign.isprintable():
        return sign
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
