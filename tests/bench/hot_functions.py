"""Which functions a start calls: writes csrc/hot_functions.txt (`make hot`; root, on a lab host).

The bundle (csrc/bundle.py) holds the code of these functions and leaves the others in a file beside it. So that the
list is no guess, rows of `make bench` are run with a profiler in front of the installed bundle: a mount lays it over
that file, for as long as the lab lasts. A function is hot in the file of a way through the program when at least two
processes called it that went that way: what happens once, such as making the bridge, is not. For ways that no row
takes it is hot if it is for any other.

    bench/hot_functions.py           write the list
    bench/hot_functions.py --check   say what is called and not listed; status 1 if there is any
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
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

# Laid over the bundle. Says, when the process exits or becomes the monitor, which files of the bundle it has read and
# which Python functions were called.
RECORDER = """
import marshal, posix, sys
called, read = set(), []

def note(frame, event, _):
    if event == "call":
        code = frame.f_code
        called.add((code.co_filename, code.co_qualname))
        if code.co_qualname == "execveat":
            write()

def write():
    fd = posix.open("@RECORD@", posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC, 0o600)
    ways = ",".join(read)
    posix.write(fd, "".join(f"{ways}\\t{file}\\t{name}\\n" for file, name in called).encode())
    posix.close(fd)
    called.clear()

def leave(status, leave=posix._exit):
    sys.setprofile(None)
    write()
    leave(status)

def opened(path, *more, _open=posix.open, **named):
    name = str(path).rpartition("/")[2]
    if name.startswith("@STEM@"):
        read.append(name.removeprefix("@STEM@"))
    return _open(path, *more, **named)

posix._exit = leave
posix.open = opened
posix.register_at_fork(after_in_child=called.clear)  # what came before counts for the parent
fd = posix.open("@BUNDLE@", posix.O_RDONLY | posix.O_CLOEXEC)
bundle = marshal.loads(posix.read(fd, posix.fstat(fd).st_size)[16:])
posix.close(fd)
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
        rows.start_sleepers(peers, DETACHED)  # whoever starts beside others looks whether they live
        for name in RECORDED:
            (rows.ROWS | OCI_ROWS)[name](peers, Effort(rounds=1, runs=2, budget_s=60))
        peers.remove("pyrun", *DETACHED)
        found = hot(record.read_text())
    finally:
        peers.close()
    if "--check" not in arguments:
        bundle.HOT_FUNCTIONS.write_text(worded(found))
        return 0
    listed = bundle_code.hot_functions(bundle.HOT_FUNCTIONS.read_text())
    late = [
        f"{module}.{name}: {', '.join(sorted(missed)) or 'all ways'}"
        for module, functions in found.items()
        for name, ways in functions.items()
        if (missed := _missed(ways, listed.get(module, {}).get(name))) is not None
    ]
    print("\n".join(late) or "every function that is called is listed")
    return 1 if late else 0


def _missed(called: set[str], listed: set[str] | None) -> set[str] | None:
    """The ways that call a function and have it not; an empty set: all; None: there are none."""
    if listed == set() or (listed and called and called <= listed):
        return None
    return called - (listed or set())


def lay_recorder(peers: Peers) -> Path:
    """Mount the recorder over the bundle; returns the file it writes to."""
    environment = Path(peers.pyrun).parent.parent
    (installed,) = environment.glob(f"lib/python3.*/site-packages/pyrun/{bundle.file_name()}")
    record, original, recorder = RUN / "called", RUN / "bundle", RUN / "recorder"
    original.write_bytes(installed.read_bytes())
    text = RECORDER.replace("@RECORD@", str(record)).replace("@BUNDLE@", str(original))
    text = text.replace("@STEM@", bundle.file_name().removesuffix("pyc"))
    recorder.write_bytes(bundle_code.as_pyc(compile(text, "recorder", "exec")))
    subprocess.run(["mount", "--bind", recorder, installed], check=True)
    return record


def hot(record: str) -> dict[str, bundle_code.Hot]:
    """Module -> functions at module level that two processes or more called, and on which of the module's ways; an
    empty set: on all of them."""
    times: Counter[tuple[str, str, str]] = Counter()
    for line in record.splitlines():
        ways, file, name = line.split("\t")
        times.update((way, file, name) for way in ways.split(","))
    taken = {way for way, _, _ in times}
    found: dict[str, bundle_code.Hot] = {}
    for module, path in bundle.hot_modules(PACKAGE).items():
        file = str(path.relative_to(PACKAGE.parent))
        within = {title for title, modules in bundle.ways(PACKAGE).items() if module in modules}
        for each in bundle_code.movable(ast.parse(path.read_bytes())):
            calling = {way for way in within if times[way, file, each.name] > 1}
            if calling:
                calling |= within - taken
                found.setdefault(module, {})[each.name] = set() if calling == within else calling
    return found


def worded(found: dict[str, bundle_code.Hot]) -> str:
    """The text of hot_functions.txt."""
    text = HEADER
    for module, functions in sorted(found.items()):
        text += f"{module}\n"
        groups: dict[str, list[str]] = {}
        for name, ways in sorted(functions.items()):
            groups.setdefault(", ".join(sorted(ways)) + ": " if ways else "", []).append(name)
        for ways, names in sorted(groups.items()):
            text += f"    {ways}{' '.join(names)}\n"
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
