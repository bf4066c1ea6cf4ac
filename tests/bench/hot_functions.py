"""Which functions a start calls: writes csrc/hot_functions.txt (`make hot`; root, on a lab host).

The bundle (csrc/bundle.py) holds the code of these functions and leaves the others in a file beside it. So that the
list is no guess, rows of `make bench` are run with a profiler in front of the installed bundle: a mount lays it over
that file, for as long as the lab lasts. A function is hot when at least two processes called it: what happens once,
such as making the bridge, is not.

    bench/hot_functions.py           write the list
    bench/hot_functions.py --check   say what is called and not listed; status 1 if there is any
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import rows
from contenders import RUN, Peers
from hyperfine import Effort
from oci_rows import ROWS as OCI_ROWS

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "runtime/pyrun"
sys.path.insert(0, str(REPOSITORY / "csrc"))

import bundle  # noqa: E402  (of the tree that is measured)
import bundle_code  # noqa: E402

RECORDED = (
    "bridge", "none", "publish", "bundle", "bundle-seccomp", "exec",
    "oci-run", "oci-run-seccomp", "oci-run-crun", "oci-lifecycle", "oci-exec", "oci-podman",
)  # fmt: skip
DETACHED = ["bench-detached-1", "bench-detached-2"]
HEADER = "# Functions that a start calls, by module; written by `make hot` (tests/bench/hot_functions.py).\n"

# Laid over the bundle. Says which Python functions are called, when the process exits or becomes the monitor.
RECORDER = """
import marshal, posix, sys
called = set()

def note(frame, event, _):
    if event == "call":
        code = frame.f_code
        called.add((code.co_filename, code.co_qualname))
        if code.co_qualname == "execveat":
            write()

def write():
    fd = posix.open("@RECORD@", posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC, 0o600)
    posix.write(fd, "".join(f"{file} {name}\\n" for file, name in called).encode())
    posix.close(fd)
    called.clear()

def leave(status, leave=posix._exit):
    sys.setprofile(None)
    write()
    leave(status)

posix._exit = leave
posix.register_at_fork(after_in_child=called.clear)  # what came before counts for the parent
with open("@BUNDLE@", "rb") as file:
    bundle = marshal.loads(file.read()[16:])
sys.setprofile(note)
exec(bundle, {"__name__": "__main__", "__file__": __file__})
"""


def main(arguments: list[str]) -> int:
    """Run the rows, write or compare the list; returns the exit status."""
    if os.environ.get("PYRUN_LAB") != "1":
        print("hot_functions: needs the lab host: tests/lab/enter ..., or `make hot`", file=sys.stderr)
        return 2
    peers = Peers(rows.installed_pyrun(sys.executable))
    try:
        peers.prepare()
        record = lay_recorder(peers)
        rows.start_sleepers(peers, DETACHED)
        peers.remove("pyrun", *DETACHED)
        for name in RECORDED:
            (rows.ROWS | OCI_ROWS)[name](peers, Effort(rounds=1, runs=2, budget_s=60))
        found = hot(record.read_text())
    finally:
        peers.close()
    if "--check" not in arguments:
        bundle.HOT_FUNCTIONS.write_text(worded(found))
        return 0
    listed = bundle_code.hot_functions(bundle.HOT_FUNCTIONS.read_text())
    late = [
        f"{module}.{name}" for module, names in found.items() for name in names - listed.get(module, set())
    ]
    print("\n".join(late) or "every function that is called is listed")
    return 1 if late else 0


def lay_recorder(peers: Peers) -> Path:
    """Mount the recorder over the bundle; returns the file it writes to."""
    environment = Path(peers.pyrun).parent.parent
    (installed,) = environment.glob(f"lib/python3.*/site-packages/pyrun/{bundle.file_name()}")
    record, original, recorder = RUN / "called", RUN / "bundle", RUN / "recorder"
    original.write_bytes(installed.read_bytes())
    text = RECORDER.replace("@RECORD@", str(record)).replace("@BUNDLE@", str(original))
    recorder.write_bytes(bundle_code.as_pyc(compile(text, "recorder", "exec")))
    subprocess.run(["mount", "--bind", recorder, installed], check=True)
    return record


def hot(record: str) -> dict[str, set[str]]:
    """Module -> functions at module level, of modules in the bundle, that two processes or more called."""
    times = Counter(record.splitlines())
    found: dict[str, set[str]] = {}
    for module, path in bundle.hot_modules(PACKAGE).items():
        file = path.relative_to(PACKAGE.parent)
        defined = (
            each.name for each in ast.parse(path.read_bytes()).body if isinstance(each, ast.FunctionDef)
        )
        if names := {name for name in defined if times[f"{file} {name}"] > 1}:
            found[module] = names
    return found


def worded(found: dict[str, set[str]]) -> str:
    """The text of hot_functions.txt."""
    indent = {"initial_indent": "    ", "subsequent_indent": "    ", "width": 110}
    return HEADER + "".join(
        f"{module}\n{textwrap.fill(' '.join(sorted(names)), **indent)}\n"  # type: ignore[arg-type]
        for module, names in sorted(found.items())
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
