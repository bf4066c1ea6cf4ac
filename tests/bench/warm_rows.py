"""The rows that start something once more, with a warm planner (PYRUN_WARM): `warm-bundle`, `warm-oci-run` ...

What is measured, against whom and within which limit is the row's own. The planner is left behind before the row
begins, and it is that of the namespaces the row runs in: beside crun those are made anew for every round
(oci_contenders.py).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import oci_rows
import rows
from contenders import Peers
from hyperfine import Effort
from rows import Figure, Row

WARMED = (
    "bridge", "none", "publish", "bundle", "bundle-seccomp", "exec", "parallel", "oci-run", "oci-run-seccomp",
    "oci-run-crun", "oci-run-crun-seccomp", "oci-lifecycle", "oci-exec", "oci-podman", "oci-together",
)  # fmt: skip
IDLE_S = 30


@contextlib.contextmanager
def planner(peers: Peers) -> Iterator[None]:
    """With PYRUN_WARM, and a planner that waits: a start leaves it behind, be it one that fails."""
    os.environ["PYRUN_WARM"] = str(IDLE_S)
    try:
        subprocess.run([peers.pyrun, "run", "--bundle", "/nowhere"], capture_output=True, check=False)
        time.sleep(1)
        yield
    finally:
        del os.environ["PYRUN_WARM"]


def warm(name: str, row: Row) -> Row:
    """The row, and its lines' names with it."""

    def measure(peers: Peers, effort: Effort) -> list[Figure]:
        with planner(peers):
            return [
                replace(figure, what=f"warm: {title(name, figure.what)}") for figure in row(peers, effort)
            ]

    return measure


def title(name: str, what: str) -> str:
    """A name that does not lean on the line above."""
    return (
        f"{name.replace('-', ' ')}, {what.removeprefix('the same ')}"
        if what.startswith("the same ")
        else what
    )


ROWS: dict[str, Row] = {f"warm-{name}": warm(name, (rows.ROWS | oci_rows.ROWS)[name]) for name in WARMED}
