"""The runtimes under test: where they are, which version, and how they are called.

PYRUN_OCI names the program under test; else it is the one beside this interpreter, else the one on PATH. The
references are those on PATH. crun before 1.20 refuses a host whose cgroups are v1 with a v2 mount beside them
("hybrid"): it is called in a mount namespace in which that mount is gone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

NAMES = ("pyrun-oci", "runc", "crun")
HYBRID = Path("/sys/fs/cgroup/unified")
_HIDE = f'umount {HYBRID}; exec "$@"'


@dataclass(frozen=True)
class Runtime:
    """A runtime that is installed."""

    name: str
    program: str
    version: tuple[int, ...]

    def command(self, root: Path, words: tuple[str, ...], globals_: tuple[str, ...] = ()) -> list[str]:
        """The whole command line; *globals_* are options before the verb."""
        line = [self.program, "--root", str(root), *globals_, *words]
        if self.name == "crun" and is_hybrid():
            line = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", _HIDE, "sh", *line]
        return line

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name} {'.'.join(map(str, self.version))}"

    def knows(self, since: str | None) -> bool:
        """Whether this version is *since* or later; no version knows None."""
        return since is not None and self.version >= tuple(int(part) for part in since.split("."))


def is_hybrid() -> bool:
    """Whether there is a v2 mount beside v1 controllers."""
    return os.path.ismount(HYBRID)


def find(name: str) -> Runtime | None:
    """The runtime called *name*, or None where it is not installed."""
    program = _program(name)
    if not program:
        return None
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    number = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    version = tuple(int(part) for part in number.groups() if part) if number else (0,)
    return Runtime(name, program, version)


def _program(name: str) -> str | None:
    if name != "pyrun-oci":
        return shutil.which(name)
    given = os.environ.get("PYRUN_OCI")
    beside = Path(sys.executable).parent / name
    if given or beside.exists():
        return given or str(beside)
    return shutil.which(name)
