"""`pyrun system finish FILE`: what an undo list cannot do itself and has a line of its own for.

The monitor, or whoever replays a list, starts it; nobody types it. FILE says what is to be taken back.
"""

from __future__ import annotations

import posix


def finish(file: str) -> list[str]:
    """Take back what *file* tells of; returns what failed, a line each. Done again, it does nothing."""
    run, policies, _ = file.rpartition("/networks/policies/")
    if policies:
        posix.environ[b"PYRUN_RUNROOT"] = run.encode()  # an undo list hands no environment on
        from pyrun.network.egress import covering

        return covering.finish(file)
    from pyrun.network.drivers import cni

    return cni.finish(file)
