"""engine/logs.py: where the last lines begin, found in blocks however long a line is."""

from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path

import pytest

from pyrun.engine import logs
from pyrun.errors import UsageError

TIME = b"2026-11-24T08:56:40.123456789Z"


def piece(text: bytes, whole: bool, stream: bytes = b"stdout") -> bytes:
    return b"%s %s %s %s\n" % (TIME, stream, b"F" if whole else b"P", text)


def offset(path: Path, wanted: int) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return logs._tail_offset(fd, wanted)
    finally:
        os.close(fd)


def expected(data: bytes, wanted: int) -> int:
    """The same by reading it all."""
    starts, at, begins = [], 0, True
    for line in data.splitlines(keepends=True):
        starts += [at] if begins else []
        begins = line.split(b" ")[2:3] == [b"F"]
        at += len(line)
    return (starts[-wanted] if len(starts) >= wanted else 0) if wanted else len(data)


def test_the_last_lines_begin_where_they_would(tmp_path: Path) -> None:
    dice, path = random.Random(5), tmp_path / "log"
    for _ in range(30):
        pieces = [
            piece(b"x" * dice.choice((0, 1, 50, 700, 16000)), dice.random() < 0.6)
            for _ in range(dice.randrange(60))
        ]
        if dice.random() < 0.3:
            pieces.append(b"2026-11-24T08:5")  # cut by a crash
        data = b"".join(pieces)
        path.write_bytes(data)
        for wanted in (0, 1, 2, 5, 30, 100):
            assert offset(path, wanted) == expected(data, wanted), (wanted, data[:300])


def test_one_line_of_64_megabytes(tmp_path: Path) -> None:
    """Once it was read as a whole, and taken apart beside that."""
    path = tmp_path / "log"
    path.write_bytes(piece(b"first", True) + piece(b"x" * 16384, False) * 4096 + piece(b"end", True))
    tracemalloc.start()
    found = [offset(path, wanted) for wanted in (1, 2, 3)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [len(piece(b"first", True)), 0, 0]
    assert peak < 1 << 20, peak


def test_what_a_crash_has_left_of_a_log(tmp_path: Path) -> None:
    """Zeros without a newline, where the disk had not what was written: nothing is kept of them."""
    path = tmp_path / "log"
    path.write_bytes(bytes(32 << 20) + b"\n" + piece(b"after", True))
    fd = os.open(path, os.O_RDONLY)
    tracemalloc.start()
    found = [text for _, _, text in logs._pieces(fd, logs._available(fd, bytearray()), None, "", "")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [b"after\n"] and peak < 8 << 20, peak


@pytest.mark.parametrize("text", ["9" * 5000, "-" + "9" * 5000, "x"])
def test_a_tail_that_is_no_number(text: str) -> None:
    with pytest.raises(UsageError, match="needs a number"):
        logs._count(text)


def test_an_age_older_than_time() -> None:
    assert logs.moment("--since", "9" * 400 + "h").startswith("1970-01-01")
