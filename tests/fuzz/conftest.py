"""What the fuzz tests share: compiled fuzzers, their seeds, and a random number that is printed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import fuzz_seeds
import fuzzing


@pytest.fixture(scope="session")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """`fuzzer(target)`: (program, directory of seeds), compiled once."""
    made: dict[str, tuple[Path, Path]] = {}
    directory = tmp_path_factory.mktemp("fuzzers")

    def get(target: str) -> tuple[Path, Path]:
        if target not in made:
            made[target] = (
                fuzzing.build(target, directory),
                fuzz_seeds.write(target, directory / f"seeds-{target}"),
            )
        return made[target]

    return get


@pytest.fixture
def random_seed() -> int:
    """Another one each time, shown when the test fails; PYRUN_FUZZ_SEED repeats one."""
    seed = int(os.environ.get("PYRUN_FUZZ_SEED", random.randrange(1 << 30)))
    print(f"PYRUN_FUZZ_SEED={seed}")
    return seed


@pytest.fixture(scope="session")
def seconds() -> float:
    """How long each search goes on: `make fuzz SECONDS=60` sets it."""
    return float(os.environ.get("PYRUN_FUZZ_SECONDS", "1.2"))
