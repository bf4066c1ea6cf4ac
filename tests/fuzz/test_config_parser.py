"""config.json, changed at random: the check takes it, or says in one line what is wrong; never a traceback.

The changes are of two kinds: those of unit/config_mutations.py, which knows every field, and bytes changed anywhere in
the text of the file, as the JSON reader gets it.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import documents
from pyrun.errors import PyrunError
from pyrun.spec import check, config_file
from unit import config_mutations


def is_one_line(error: PyrunError) -> bool:
    text = f"{error.message}{error.hint}"
    assert text.isprintable() and len(text) < 2000, (text[:300], len(text))
    text.encode()  # no lone surrogate, which could not be printed
    return True


def test_values_of_the_wrong_kind(random_seed: int, seconds: float) -> None:
    for seed in (1, random_seed):
        chance = random.Random(seed)
        deadline, refused, count = time.monotonic() + seconds, 0, 0
        while time.monotonic() < deadline:
            config = documents.changed(documents.CONFIG, chance)
            count += 1
            try:
                check.config(config)
            except PyrunError as error:
                assert is_one_line(error)
                refused += 1
        assert count > refused > 50, (count, refused)


def test_bytes_of_the_file(random_seed: int, seconds: float, tmp_path: Path) -> None:
    original = json.dumps(documents.CONFIG).encode()
    path = tmp_path / "config.json"
    for seed in (1, random_seed):
        chance = random.Random(seed)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            data = bytearray(original)
            for _ in range(chance.randrange(1, 6)):
                at = chance.randrange(len(data))
                data[at : at + chance.choice((0, 1, 1, 5))] = chance.choice(
                    (b"", b"\0", b'"', b"\xff", b"{", b"]", b"9" * 5000, b"\\ud800", b"1e999", b"[" * 3000)
                )
            path.write_bytes(data)
            try:
                check.config(config_file.read(str(path))[0])
            except PyrunError as error:
                assert is_one_line(error)


def test_every_field_by_its_own_mutations(random_seed: int, seconds: float) -> None:
    for seed in (1, random_seed):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for path, config in config_mutations.mutations(config_mutations.valid(seed), seed):
                try:
                    check.config(config)
                except PyrunError as error:
                    assert is_one_line(error), path
                if time.monotonic() > deadline:
                    break
            seed += 1
