"""The planner's own interpreter (interpreter/interpreter.c), linked with the libpython.a of the Python that builds it.

    pyrun/home/python3-SIZE-MTIME      SIZE and MTIME are those of the python3 that is installed

The launcher takes it as long as that python3 is the same file: after an update of Python, which may be about security,
a start is slower again until pyrun is installed anew. Where there is no libpython.a, as for an interpreter that uv
brings, or where what was built does not tell the same version, there is no such file, and starts are slower.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import bundle
import bundle_code

SOURCE = Path(__file__).resolve().parent / "interpreter/interpreter.c"
FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-O2", "-no-pie", "-s"]

# What it has to answer before it is taken, behind the bundle's program without its modules: half-way, made whole by a
# codec, and then.
_TRIAL = """
half = sys.argv[1:], "_halfway" in sys.builtin_module_names, "io" in sys.modules, b"\\xe4".decode("cp1252")
import hashlib, json, random
digest, number = hashlib.sha256(b"").hexdigest()[:4], random.Random("x").randint(1, 1)
sys.stdout.write(json.dumps([half, sys.version, digest, number]))
sys.stdout.flush()
posix._exit(0)
"""


def name() -> str:
    """Its name in the wheel, by the interpreter that is installed."""
    status = os.stat(os.path.realpath(sys.executable))
    return f"pyrun/home/python3-{status.st_size}-{int(status.st_mtime)}"


def library() -> Path | None:
    """libpython.a of this Python, if it has one."""
    found = Path(str(sysconfig.get_config_var("LIBPL")), str(sysconfig.get_config_var("LIBRARY")))
    return found if found.suffix == ".a" and found.is_file() else None


def build(scratch: Path, compiler: str) -> Path | None:
    """Compile and try it; None where it cannot be had, with a line that says so."""
    from_library, product = library(), scratch / "interpreter"
    if from_library is None:
        print(f"pyrun: {sys.executable} has no libpython.a: starts take 2 ms more")
        return None
    done = _compile(compiler, from_library, product, [])
    lacking = set(re.findall(r"undefined reference to `(\w+)'", done.stderr))
    if done.returncode and lacking and all("Hacl_Hash_SHA2" in each for each in lacking):
        without = [f"-Wl,--defsym={each}=abort" for each in sorted(lacking)]
        done = _compile(compiler, from_library, product, ['-DLEFT_OUT="_sha2"', *without])
    if done.returncode or not works(product, scratch):
        print(f"pyrun: no interpreter of our own, starts take 2 ms more: {done.stderr.strip()[-500:]}")
        return None
    return product


def _compile(
    compiler: str, library: Path, product: Path, more: list[str]
) -> subprocess.CompletedProcess[str]:
    """As the interpreter itself is linked, but for libraries of its build that were left there (Debian 13: see
    LEFT_OUT in interpreter.c); all of libpython.a, since modules that are loaded look for it here."""
    names = ("LINKFORSHARED", "MODLIBS", "LIBS", "SYSLIBS")
    words = shlex.split(" ".join(str(sysconfig.get_config_var(each) or "") for each in names))
    words = [word for word in words if not word.endswith(".a") or Path(word).is_file()]
    whole = ["-Wl,--whole-archive", str(library), "-Wl,--no-whole-archive"]
    include = f"-I{sysconfig.get_paths()['include']}"
    command = [compiler, *FLAGS, *more, include, str(SOURCE), *whole, *words, "-o", str(product)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def works(product: Path, scratch: Path) -> bool:
    """Whether it executes a program half-way, is whole when asked to, and is the Python that builds it."""
    for path, content in bundle.home().items():
        (scratch / path).parent.mkdir(parents=True, exist_ok=True)
        (scratch / path).write_bytes(content)
    program = scratch / "trial.pyc"
    code = bundle_code.compiled(ast.parse(bundle.without_modules() + _TRIAL), "trial")
    program.write_bytes(bundle_code.as_pyc(code))
    words = [
        f"{scratch}/home/python3",
        "-I",
        "-S",
        "-Xutf8",
        f"-Xlibrary={sysconfig.get_path('stdlib')}",
        str(program),
    ]
    done = subprocess.run([*words, "\u00e4"], executable=product, capture_output=True, text=True, check=False)
    if done.returncode:
        return False
    return bool(json.loads(done.stdout) == [[["\u00e4"], True, False, "\u00e4"], sys.version, "e3b0", 1])
