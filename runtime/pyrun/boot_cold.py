"""The way in without the bundle: an interpreter of another version than the one pyrun was installed with.

The launcher prefers hot.cpython-3X.pyc (csrc/bundle.py), which holds the same modules in one file.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.append(__file__.rpartition("/")[0].rpartition("/")[0])
    from pyrun.boot import system_packages

    system_packages()
    from pyrun.cli.main import main

    main(sys.argv)
