"""Texts from outside, made safe for where they go: a terminal, a shell, int().

Images, registries, containers and callers choose names, paths and commands. What is told of them is one line without a
meaning to the terminal (`visible`); what a reader is to type is a word of bash, whatever is in it (`shell_word`,
`shell_command`). JSON has escapes of its own. Source: man 1 bash, QUOTING.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

# 2**64 has twenty, a fraction as many. int() refuses 4,301 and is quadratic up to there, float() makes infinity of 309.
DIGITS_MAX = 40
# What no shell gives a meaning to, wherever in a command it stands.
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@%+=:,./_-")


def is_digits(text: str) -> bool:
    """Whether *text* is ASCII digits and nothing else: however long, it is meant as a number and never as a name."""
    return text.isascii() and text.isdigit()


def is_number(text: str) -> bool:
    """Whether *text* is an unsigned decimal number of DIGITS_MAX digits at most: int() and float() may be given it."""
    return is_digits(text) and len(text) <= DIGITS_MAX


def visible(text: str) -> str:
    """*text* with everything unprintable escaped: a newline becomes the two characters \\n."""
    if text.isprintable():
        return text
    return "".join(
        [c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text]
    )


def shell_word(value: object) -> str:
    """*value* as bash takes it for one word and nothing else; in $'..' if it has what cannot be printed."""
    text = str(value)
    if text and _PLAIN.issuperset(text):
        return text
    if text.isprintable():
        return "'" + text.replace("'", "'\"'\"'") + "'"
    shown = [
        c if c.isprintable() and c not in "\\'" else "".join([f"\\x{byte:02x}" for byte in _bytes(c)])
        for c in text
    ]
    return f"$'{''.join(shown)}'"


def _bytes(sign: str) -> bytes:
    """Those of a file name, where half a surrogate pair stands for a byte that is no UTF-8."""
    return sign.encode("utf-8", "surrogateescape" if "\udc80" <= sign <= "\udcff" else "surrogatepass")


def shell_command(words: Iterable[object]) -> str:
    """*words* as one command to be typed."""
    return " ".join([shell_word(word) for word in words])


# ── Go's quotes ────────────────────────────────────────────────────────────────────────────────────


_ESCAPES = {
    "\\": "\\\\", '"': '\\"', "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip


def quoted(text: str) -> str:
    """*text* as Go's %q has it, in runc's log and its errors, which callers compare; a byte that was no UTF-8
    (surrogateescape) is shown as a byte. Source: pkg.go.dev/strconv#Quote."""
    return '"' + "".join([_ESCAPES.get(each) or _go_escape(each) for each in text]) + '"'


def _go_escape(sign: str) -> str:
    if sign.isprintable():
        return sign
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
