"""The C decoders under random inputs: init's plans, its operations, the undo list, the monitor's words and streams.

Bounded: a second or two each, from a fixed and from a random number; `make fuzz SECONDS=60` goes on for longer. That
the fuzzers can find something is shown by bugs planted into a copy of csrc/.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import fuzz_seeds
import fuzzing

pytestmark = pytest.mark.needs("sanitizers")
Fuzzer = Callable[[str], tuple[Path, Path]]

# what is planted: target, file, what is searched, what takes its place
PLANTED = {
    "next_string reads at the end": ("plan", "init.c", r"plan->next >= plan->end", "plan->next > plan->end"),
    "a plan need not end in NUL": ("plan", "init.c", r"text\[size - 1\] != '\\0'", "0"),
    "no check of bad numbers": ("plan", "init.c", r"return !ahead\.bad && ", "return "),
    "a count is cut to 32 bits": ("plan", "init.c", r" \|\| count != plan->arguments", ""),
    "numbers with blanks": ("plan", "init.c", r" \|\| \(\*text != '-'[^;]*\)\)", ")"),
    "a link's text one byte too long": (
        "operations", "init_rootfs.c", r"sizeof destination - 1", "sizeof destination"),
    "one field too many": ("undo", "undo.c", r"while \(count < most\)", "while (count <= most)"),
    "a step behind the last message": ("undo", "undo.c", r"return step < left \? step : left", "return step"),
    "paths that are not absolute": ("undo", "undo.c", r" \|\| \(is_path && [^;]*\)\)\) \{", ") {"),
    "texts are not cut": ("monitor", "complain.c", r"while \(\*text && to < end\)", "while (*text)"),
    "numbers one digit short": ("numbers", "complain.c", r"length < digits\)", "length < digits - 1)"),
    "a number that overflows": ("numbers", "complain.c", r" \|\| sum > \(INT64_MAX - 9\) / 10", ""),
}  # fmt: skip


@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_nothing_is_found(
    fuzzer: Fuzzer, target: str, random_seed: int, seconds: float, tmp_path: Path
) -> None:
    program, directory = fuzzer(target)
    for seed in (1, random_seed):
        done = fuzzing.fuzz(program, seconds, seed, directory, tmp_path / "finding")
        assert done.returncode == 0, f"{done.stdout}{done.stderr[:3000]}"
        inputs, edges = map(int, re.findall(r"(\d+) inputs, (\d+) edges", done.stdout)[0])
        assert inputs > 500 and edges > 30, done.stdout


@pytest.mark.parametrize("plant", PLANTED)
def test_planted_bugs_are_found(plant: str, tmp_path: Path) -> None:
    target, file, searched, instead = PLANTED[plant]
    source = tmp_path / "csrc"
    shutil.copytree(fuzzing.CSRC, source, ignore=shutil.ignore_patterns("__pycache__"))
    changed, times = re.subn(searched, instead.replace("\\", "\\\\"), (source / file).read_text())
    assert times == 1, f"{file} has changed: {searched} is there {times} times; plant the bug in another way"
    (source / file).write_text(changed)
    program = fuzzing.build(target, tmp_path / "build", source)
    done = fuzzing.fuzz(program, 40, 1, fuzz_seeds.write(target, tmp_path / "seeds"), tmp_path / "finding")
    assert done.returncode == 1 and "FOUND" in done.stdout, done.stdout
    repeated = fuzzing.run_one(program, tmp_path / "finding")
    assert repeated.returncode == 1, "the input that was found does not show it again"


def test_the_fake_kernel_is_one(fuzzer: Fuzzer, tmp_path: Path) -> None:
    """Operations under the fuzzer do nothing: not even to the directory of this test, by the user who owns it."""
    program, _ = fuzzer("undo")
    (tmp_path / "canary").write_text("alive")
    (tmp_path / "list").write_text(f"unlink\t{tmp_path}/canary\nrmtree\t{tmp_path}\n")
    assert fuzzing.run_one(program, tmp_path / "list").returncode == 0
    assert (tmp_path / "canary").read_text() == "alive"
