"""The planner's own interpreter (interpreter/interpreter.c), linked with the libpython.a of the Python that builds it.

    pyrun/home/python3-SIZE-MTIME      SIZE and MTIME are those of the python3 that is installed

The launcher takes it as long as that python3 is the same file: after an update of Python, which may be about security,
a start is slower again until pyrun is installed anew. Where there is no libpython.a, as for an interpreter that uv
brings, or where what was built does not tell the same version, there is no such file, and starts are slower.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "interpreter/interpreter.c"
FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-O2", "-no-pie", "-s"]

# What it has to answer before it is taken: half-way, and then whole.
_TRIAL = """
import posix, sys
from _halfway import complete
half = hasattr(sys, "stdout"), sys.argv[1:]
complete()
import json
posix.write(1, (json.dumps([half, sys.version])).encode())
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
        print(f"pyrun: {sys.executable} has no libpython.a: starts will take 2 ms more")
        return None
    # as the interpreter itself is linked; all of the library, since modules to be loaded look for it here
    words = " ".join(
        str(sysconfig.get_config_var(each) or "") for each in ("LINKFORSHARED", "MODLIBS", "LIBS", "SYSLIBS")
    )
    whole = ["-Wl,--whole-archive", str(from_library), "-Wl,--no-whole-archive"]
    include = f"-I{sysconfig.get_paths()['include']}"
    command = [compiler, *FLAGS, include, str(SOURCE), *whole, *shlex.split(words), "-o", str(product)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not works(product, scratch):
        print(
            f"pyrun: no interpreter of our own could be built, starts will take 2 ms more: {done.stderr.strip()}"
        )
        return None
    return product


def works(product: Path, scratch: Path) -> bool:
    """Whether it executes a program half-way, is whole when asked to, and is the Python that builds it."""
    import json

    import bundle
    import bundle_code

    for path, content in bundle.home().items():
        (scratch / path).parent.mkdir(parents=True, exist_ok=True)
        (scratch / path).write_bytes(content)
    program = scratch / "trial.pyc"
    program.write_bytes(bundle_code.as_pyc(compile(_TRIAL, "trial", "exec")))
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
    return bool(json.loads(done.stdout) == [[False, ["\u00e4"]], sys.version])
