"""Reading config.json: bounded in size, depth, time and memory; strict; one clear line of error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyrun import jsonlite
from pyrun.errors import UsageError
from pyrun.spec import config_file

MIB = 1 << 20


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b"\xef\xbb\xbf{}", "must be UTF-8 without a byte order mark"),
        ("{}".encode("utf-16"), "must be UTF-8 without a byte order mark"),
        (b'{"a":\n"\xff"}', "must be UTF-8, not b'\\xff' in line 2"),
        (b'{"a":"\xed\xa0\x80"}', "must be UTF-8, not b'\\xed' in line 1"),
        (b'{"a":', "line 1 column 6: expecting value"),
        (b'{"a":1\n;}', "line 2 column 1: expecting ',' delimiter"),
        (b"{} {}", "line 1 column 4: extra data"),
        (b'{"a":1}\0', "line 1 column 8: extra data"),
        (b'{"a":"\0"}', "line 1 column 7: invalid control character"),
        (b"{'a':1}", "line 1 column 2: expecting property name"),
        (b'{"a":01}', "line 1 column 7: expecting ',' delimiter"),
        (b'{"a":NaN}', "NaN is no number in JSON"),
        (b'{"a":-Infinity}', "-Infinity is no number in JSON"),
        (b'{"a":' + b"1" * 5000 + b"}", "holds a number with more digits than a parser takes"),
        (b'{"x":1,"x":2}', "x: is there twice"),
        (b'{"a":{"b c":[1,{"x":1,"y":0,"x":2}]}}', "a['b c'][1].x: is there twice"),
        (b'{"a":["ok","\\ud800"]}', "a[1]: holds half a surrogate pair"),
        (b'{"a":["\\uDC00\\uD800"]}', "a[0]: holds half a surrogate pair"),
        (b'{"a":{"\\udc00":1}}', "a: holds half a surrogate pair"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "is nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "is nested too deeply"),
        (b" " * (5 * MIB), "must have at most 4 MiB"),
    ],
)
def test_texts_that_are_no_config(raw: bytes, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(UsageError) as caught:
        config_file.parse(raw)
    assert time.monotonic() - started < 1
    text = caught.value.message
    assert text.startswith(f"config.json: {message}") and len(text) < 300 and text.isprintable(), text


@pytest.mark.parametrize(
    "raw",
    [b'{"a":"\\ud83d\\ude00"}', b'{"a":"\\\\ud800"}', b'{"a":"\\u0000"}', b'{"a":1e400}', b'{"a":' + b"9" * 400 + b"}",
     b' \r\n{"a":{"x":1},"b":{"x":1}}\n', b"null", b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", '{"ä":"€"}'.encode()],
)  # fmt: skip
def test_texts_that_are_json(raw: bytes) -> None:
    assert config_file.parse(raw) == json.loads(raw)


def test_the_limit_of_nesting_leaves_room() -> None:
    """What is accepted can be walked by those who come after, for example by repr."""
    before = sys.getrecursionlimit()
    # beyond Python's own limit as well: since 3.12 C code has its own
    for depth in (*range(700, before + 10, 7), 5000, 9000, 20_000, 100_000):
        try:
            value = config_file.parse(b"[" * depth + b"]" * depth)
        except UsageError as error:
            assert error.message == "config.json: is nested too deeply"
            break
        assert len(repr(value)) == 2 * depth
    else:
        pytest.fail("nothing was too deep")
    assert sys.getrecursionlimit() == before


def test_a_file_and_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(b'{"a": 1}\n')
    assert config_file.read(str(path)) == ({"a": 1}, b'{"a": 1}\n')
    path.write_bytes(b"[" + b" " * (4 * MIB - 2) + b"]")
    assert config_file.read(str(path))[0] == []
    path.write_bytes(b"[" + b" " * (4 * MIB - 1) + b"]")
    with pytest.raises(UsageError, match=r"^process\.json: must have at most 4 MiB$"):
        config_file.read(str(path), "process.json")


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name, message in (
        ("absent", "No such file or directory"),
        ("", "Is a directory"),
        ("fifo", "not a regular file"),
        ("loop", "Too many levels of symbolic links"),
    ):
        with pytest.raises(UsageError, match=f"^config.json: {message}: {tmp_path}"):
            config_file.read(str(tmp_path / name))
    with pytest.raises(UsageError, match="not a regular file: /dev/zero"):
        config_file.read("/dev/zero")


def test_a_sparse_giant_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "giant"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    started = time.monotonic()
    with pytest.raises(UsageError, match="at most 4 MiB"):
        config_file.read(str(path))
    assert time.monotonic() - started < 0.5


WORST = {
    "empty objects": b'{"a":[' + b"{}," * (4 * MIB // 3 - 10) + b"0]}",
    "small objects": b'{"a":[' + b'{"":{}},' * (4 * MIB // 8 - 10) + b"0]}",
    "a key twice at the end": b'{"a":[' + b'{"":1},' * (4 * MIB // 7 - 10) + b'{"":1,"":2}]}',
    "text outside the first plane": b'{"a":"' + "\N{GRINNING FACE}".encode() * (MIB - 10) + b'"}',
    "escapes": b'{"a":"' + b"\\ud83d\\ude00" * (MIB // 3 - 10) + b'"}',
}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_texts_stay_within_bounds(name: str, tmp_path: Path) -> None:
    """About a second of time and 200 MB, in a process of its own, as at a create."""
    path = tmp_path / "config.json"
    path.write_bytes(WORST[name])
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(jsonlite.__file__).parents[1])!r})
from pyrun.spec import check, config_file
from pyrun.errors import UsageError
try:
    check.config(config_file.read({str(path)!r})[0])
except UsageError as error:
    print(error.message)
peak, = (line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM:'))
print(time.process_time(), peak)  # not ru_maxrss, which execve(2) hands on from the process that forked
"""
    command = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    message, figures = done.stdout.splitlines()
    spent_s, peak_kb = map(float, figures.split())
    assert message.startswith("config.json: ")
    assert peak_kb < 200_000, f"{peak_kb} kB"
    assert spent_s < 2, f"{spent_s} s"  # half of it on a quiet machine
