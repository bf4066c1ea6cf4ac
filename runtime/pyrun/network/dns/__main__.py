"""The resolver's way in: `pyrun-resolver admit|answer RUN` (csrc/launcher.c) on an interpreter with nothing but its own
library; descriptor 3 leads to the guard."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.append(__file__.rsplit("/", 4)[0])
    from pyrun.boot import system_packages

    system_packages()
    from pyrun.network.dns import server

    server.main(sys.argv[1:])
