"""Building and running the fuzzers of the C parts: gcc with AddressSanitizer, UBSan and trace-pc coverage, no clang.

A target includes the product's file it is about (its functions are static) and is linked with the product's other
files, or with stubs made here. Nothing in csrc/ knows of it; `source` may be a changed copy of csrc/, which is how the
tests show that a planted bug is found.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent / "fuzz"
CSRC = HERE.parents[1] / "csrc"
TARGETS = ("plan", "operations", "undo", "monitor", "numbers", "quick")
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
WRAPPED = ("fork", "vfork", "_exit", "write", "dprintf")
# the files of csrc/ a target includes itself, and those that are replaced or of another program
_LEFT_OUT = {
    "plan": {"init*.c"},
    "operations": {"init.c"},
    "undo": {"undo.c", "remove.c", "init*.c", "waiting.c"},
    "monitor": {"monitor.c", "init*.c", "waiting.c"},
    "quick": {"[!c]*.c", "cgroup*.c"},
    "numbers": {"[!c]*.c", "cgroup*.c"},
}
_NEVER = {"main.c", "shim.c", "launcher.c"}


def stubs(source: Path) -> str:
    """C text: a stub for every operation init.h declares, which hands itself to fuzz_stub of target_plan.c."""
    declared = re.findall(r"^operation ([^;]*);", (source / "init.h").read_text(), re.MULTILINE | re.DOTALL)
    names = [name.strip() for group in declared for name in group.split(",")]
    lines = ['#include "init.h"', "int fuzz_stub(struct plan *plan, operation *self);"]
    lines += [f"int {name}(struct plan *plan) {{ return fuzz_stub(plan, {name}); }}" for name in names]
    return "\n".join(lines) + "\n"


def product_files(target: str, source: Path) -> list[str]:
    """The files of csrc/ that are linked with *target*."""
    out = _LEFT_OUT[target]
    return sorted(
        str(path)
        for path in source.glob("*.c")
        if path.name not in _NEVER and not any(path.match(pattern) for pattern in out)
    )


def build(
    target: str, directory: Path, source: Path = CSRC, compiler: tuple[str, ...] = ("gcc", *SANITIZERS)
) -> Path:
    """Compile fuzz-TARGET into *directory*; returns its path. Raises: CalledProcessError with the compiler's words."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / f"fuzz-{target}"
    command = [
        *compiler,
        "-std=gnu11",
        "-O1",
        "-g1",
        "-Wall",
        "-Wno-unused-function",
        f"-I{source}",
        f"-I{HERE}",
    ]
    covered = [str(HERE / f"target_{target}.c"), *product_files(target, source)]
    if target == "plan":
        generated = directory / "stubs.c"
        generated.write_text(stubs(source))
        covered.append(str(generated))
    objects = []
    for number, path in enumerate([str(HERE / "fuzzer.c"), str(HERE / "fake_kernel.c"), *covered]):
        objects.append(f"{directory}/{target}-{number}.o")
        extra = ["-fsanitize-coverage=trace-pc"] if path in covered else []
        _run([*command, *extra, "-c", path, "-o", objects[-1]])
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    _run([*compiler, *objects, *wraps, "-o", str(program)])
    return program


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")


def fuzz(program: Path, seconds: float, seed: int, seeds: Path, finding: Path,
         prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run it; status 0: nothing found. The input that went wrong is in *finding*."""
    return subprocess.run(
        [*prefix, str(program), str(seconds), str(seed), str(seeds), str(finding)], capture_output=True, text=True,
        errors="replace", timeout=seconds + 60, env=os.environ | {"LC_ALL": "C"}, check=False,
    )  # fmt: skip


def run_one(program: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """Run one input again; status 1: it goes wrong."""
    return subprocess.run([str(program), str(data)], capture_output=True, text=True, errors="replace", timeout=60,
                          check=False)  # fmt: skip
