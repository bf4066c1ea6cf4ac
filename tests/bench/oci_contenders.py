"""The OCI runtimes that are measured, each with a root of its own, on the bundles of contenders.py."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from contenders import RUN, NoPeer, Peers, crun_program
from hyperfine import returned_ms

OURS = "pyrun"  # as the figures call it
HYBRID = Path("/sys/fs/cgroup/unified")
# A warm planner serves those of its own namespaces only: these are new, so it needs one of its own (warm_rows.py).
LEAVE_A_PLANNER = '[ -z "$PYRUN_WARM" ] || { "$PYRUN" run --bundle /nowhere 2>/dev/null; sleep 1; }'


def without_hybrid() -> list[str]:
    """Words before a command: it then sees only the v1 hierarchies of a host that has both."""
    if not os.path.ismount(HYBRID):
        return []
    script = f'umount {HYBRID}; {LEAVE_A_PLANNER}; exec "$@"'
    return ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script, "sh"]


class Runtimes:
    """`runtimes("runc", "state", "x")` is a command line."""

    def __init__(self, peers: Peers) -> None:
        self._ours = Path(peers.pyrun).with_name("pyrun-oci")
        os.environ["PYRUN"] = peers.pyrun

    def program(self, who: str) -> str:
        """The path of a runtime. Raises NoPeer where it is not installed."""
        found = str(self._ours) if who == OURS else crun_program() if who == "crun" else shutil.which(who)
        if not found:
            raise NoPeer(f"{who} is not installed")
        return found

    def __call__(self, who: str, *words: str) -> list[str]:
        return [self.program(who), "--root", str(RUN / f"oci-{who}"), *words]

    def create(self, who: str, name: str, bundle: Path, *options: str) -> float:
        """`create`; returns the milliseconds it took."""
        return returned_ms(self(who, "create", *options, "--bundle", str(bundle), name))

    def start(self, who: str, name: str) -> float:
        """`start`; the same."""
        return returned_ms(self(who, "start", name))

    def remove(self, who: str, *names: str) -> None:
        """`delete --force` of each, until the first that fails; there may be none of that name."""
        for name in names:
            returned_ms(self(who, "delete", "--force", name))
