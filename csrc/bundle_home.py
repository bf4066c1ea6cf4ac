"""The first module of the planner's interpreter, in the place of the standard library's `encodings`.

Before an interpreter executes a program it imports `encodings`, which reads three files, a hundred names of codecs and
two directories of two hundred files: 0.5 ms, for UTF-8. The launcher has the planner's interpreter believe that it
lives in a directory with this module and nothing else, and says by -X library where its library is. What is asked for
beside UTF-8 is answered by the real `encodings`, which takes this module's place then.

Source: Python/pylifecycle.c (init_fs_encoding) and Modules/getpath.py of CPython, and the `codecs` module.
"""

from __future__ import annotations

import sys
from _codecs import utf_8_decode, utf_8_encode

LIBRARY = str(sys._xoptions["library"])
sys.path[:] = [LIBRARY, LIBRARY + "/lib-dynload"]

import codecs  # noqa: E402  (an interpreter made for debugging has it in the library alone)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from _typeshed import ReadableBuffer


def encode(text: str, errors: str = "strict") -> tuple[bytes, int]:
    """The bytes of *text*, and how many characters that were."""
    return utf_8_encode(text, errors)


def decode(data: ReadableBuffer, errors: str = "strict") -> tuple[str, int]:
    """The text of *data*, which is whole, and how many bytes that were."""
    return utf_8_decode(data, errors, True)


class Encoder(codecs.IncrementalEncoder):
    """What standard output and error write with."""

    def encode(self, text: str, final: bool = False) -> bytes:
        """The bytes of *text*; nothing is kept for the next call."""
        return utf_8_encode(text, self.errors)[0]


class Decoder(codecs.BufferedIncrementalDecoder):
    """What standard input is read with: a character may come in pieces."""

    _buffer_decode = staticmethod(utf_8_decode)  # type: ignore[assignment]


def _stream(name: str) -> Callable[..., Any]:
    """A stream of codecs.open, which the planner has no use for, by the library's own class."""

    def made(*given: Any, **named: Any) -> Any:
        import encodings.utf_8

        return getattr(encodings.utf_8, name)(*given, **named)

    return made


def search(name: str) -> codecs.CodecInfo | None:
    """The codec of that name, for `codecs.lookup`."""
    if name in ("utf_8", "utf-8"):
        return UTF_8
    found: codecs.CodecInfo | None = _real().search_function(name)
    return found


def _real() -> ModuleType:
    """The standard library's module, from now on in this one's place."""
    codecs.unregister(search)
    if sys.modules[__name__].__dict__ is globals():
        del sys.modules[__name__]
    import encodings

    return encodings


def __getattr__(name: str) -> Any:
    """Whatever else somebody takes from `encodings`."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_real(), name)


UTF_8 = codecs.CodecInfo(
    encode, decode, _stream("StreamReader"), _stream("StreamWriter"), Encoder, Decoder, "utf-8"
)
codecs.register(search)
__path__ = [LIBRARY + "/encodings"]
