"""D-Bus messages as bytes: what a start with the systemd driver sends, and as much as it reads of what comes back.

jeepney, the library that the cold calls use (bus_library.py), takes 19 ms to import; this takes none. A test holds
every message to the library's bytes. Encoded is any signature of the types below; read are the header and the texts at
the beginning of a body. Source: D-Bus specification (type system, message protocol).
"""

from __future__ import annotations

from _struct import pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_REPLY_EXPECTED = 1
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SIGNATURE = 1, 2, 3, 4, 5, 6, 8
# type -> (code of struct, alignment)
_NUMBERS = {"y": ("B", 1), "b": ("I", 4), "i": ("i", 4), "u": ("I", 4), "x": ("q", 8), "t": ("Q", 8)}
_ALIGNMENT = {"s": 4, "o": 4, "a": 4, "(": 8, "g": 1, "v": 1}


def types(signature: str) -> list[str]:
    """The single complete types of a signature: `sa(sv)` -> s, a(sv)."""
    found, start, depth = [], 0, 0
    for index, letter in enumerate(signature):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0 and letter != "a":
            found.append(signature[start : index + 1])
            start = index + 1
    return found


def put(out: bytearray, kind: str, value: Any) -> None:
    """Append *value* of the type *kind*; out begins at a multiple of 8. A variant is (signature, value)."""
    first = kind[0]
    if first in _NUMBERS:
        code, size = _NUMBERS[first]
        out += bytes(-len(out) % size) + pack("<" + code, value)
    elif first == "g":
        out += bytes([len(value)]) + value.encode() + b"\0"
    elif first == "v":
        put(out, "g", value[0])
        put(out, value[0], value[1])
    else:
        out += bytes(-len(out) % _ALIGNMENT[first])
        if first == "(":
            for each, inner in zip(types(kind[1:-1]), value, strict=True):
                put(out, each, inner)
        elif first == "a":
            _array(out, kind[1:], value)
        else:
            text = value.encode()
            out += pack("<I", len(text)) + text + b"\0"


def _array(out: bytearray, kind: str, values: Any) -> None:
    at = len(out)
    size = _NUMBERS[kind[0]][1] if kind[0] in _NUMBERS else _ALIGNMENT[kind[0]]
    out += bytes(4)
    out += bytes(-len(out) % size)  # the padding before the first item does not count
    begin = len(out)
    for each in values:
        put(out, kind, each)
    out[at : at + 4] = pack("<I", len(out) - begin)


def message(
    serial: int,
    to: tuple[str, str, str],
    member: str,
    signature: str = "",
    values: tuple[Any, ...] = (),
    flags: int = 0,
) -> bytes:
    """A method call. to: destination, object, interface."""
    body = bytearray()
    for kind, value in zip(types(signature), values, strict=True):
        put(body, kind, value)
    destination, path, interface = to
    fields = [(PATH, ("o", path)), (INTERFACE, ("s", interface)), (MEMBER, ("s", member))]
    fields.append((DESTINATION, ("s", destination)))
    if signature:
        fields.append((SIGNATURE, ("g", signature)))
    head = bytearray(pack("<cBBBII", b"l", METHOD_CALL, flags, 1, len(body), serial))
    put(head, "a(yv)", fields)
    return bytes(head + bytes(-len(head) % 8) + body)


class Incoming:
    """A message from the bus. fields: those of the header by number; data: all of it."""

    __slots__ = ("body_at", "data", "fields", "kind", "order")

    def __init__(self, data: bytes) -> None:
        self.data, self.kind = data, data[1]
        self.order = "<" if data[:1] == b"l" else ">"
        end = 16 + unpack_from(self.order + "I", data, 12)[0]
        self.body_at = end + -end % 8
        self.fields: dict[int, Any] = {}
        at = 16
        while at < end:
            at += -at % 8
            number, kind, at = data[at], chr(data[at + 2]), at + 4
            if kind == "u":
                at += -at % 4
                self.fields[number], at = unpack_from(self.order + "I", data, at)[0], at + 4
            elif kind == "g":
                size = data[at]
                self.fields[number], at = data[at + 1 : at + 1 + size].decode(), at + size + 2
            else:
                self.fields[number], at = self.text(at)

    def text(self, at: int) -> tuple[str, int]:
        """The text at an offset, and where it ends."""
        at += -at % 4
        size = unpack_from(self.order + "I", self.data, at)[0]
        return self.data[at + 4 : at + 4 + size].decode("utf-8", "replace"), at + size + 5

    def texts(self, skip: int = 0) -> list[str]:
        """The leading texts of the body, after *skip* bytes of numbers."""
        found, at = [], self.body_at + skip
        for kind in types(self.fields.get(SIGNATURE, ""))[1 if skip else 0 :]:
            if kind not in ("s", "o"):
                break
            word, at = self.text(at)
            found.append(word)
        return found
