"""The hot path's JSON against the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyrun import jsonlite

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    "",
    'a"b\\c\n\t\0é\U0001f600',
    [],
    {},
    [1, [2, {"a": None}]],
    {"x": {"y": [True, "z"]}},
    1 << 64,
]


@pytest.mark.parametrize("value", VALUES)
def test_both_ways(value: object) -> None:
    assert json.loads(jsonlite.dumps(value)) == value
    assert jsonlite.loads(json.dumps(value, indent=2)) == value
    assert jsonlite.loads(json.dumps(value).encode()) == value


@pytest.mark.parametrize("name", [b"a\xe9b", b"\xff", "é".encode() + b"\xc3", b"\xed\xa0\x80"])
def test_bytes_of_the_system_that_are_no_utf_8(name: bytes) -> None:
    """A path, a variable: they are what they were when read again, by others too."""
    value = os.fsdecode(name)
    text = jsonlite.dumps({value: [value]}).encode()
    for read in (jsonlite.loads, json.loads):
        found: Any = read(text)
        assert [
            (os.fsencode(key), [os.fsencode(each) for each in list_]) for key, list_ in found.items()
        ] == [(name, [name])]


@pytest.mark.parametrize("text", ["", "{", "[1,]", '{"a"}', "nope", "1 2", '"a', "{'a':1}", "\x00"])
def test_errors_have_a_place(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 1|char"):
        jsonlite.loads(text)


def test_deep_nesting_is_an_error_not_a_crash() -> None:
    with pytest.raises(ValueError, match="deep"):
        jsonlite.loads("[" * 100_000 + "]" * 100_000)


def test_what_is_no_json() -> None:
    with pytest.raises(TypeError):
        jsonlite.dumps({"a": object()})


@pytest.mark.parametrize("text", ["{", "[1,", '{"a" 1}', '"\\x"', "nul"])
def test_errors_are_worded_where_json_was_not_imported_before(text: str) -> None:
    """The C scanner then ends in SystemError (Python 3.11, 3.12)."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pyrun.jsonlite import loads\n"
        "assert 'json' not in sys.modules\n"
        "try: loads(sys.argv[1])\n"
        "except ValueError as error: print(error)"
    )
    source = str(Path(jsonlite.__file__).parents[1])
    words = [sys.executable, "-I", "-S", "-c", script, text, source]
    assert "line 1" in subprocess.run(words, capture_output=True, text=True, check=True).stdout
