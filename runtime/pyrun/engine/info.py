"""`pyrun info` and `pyrun version`: the machine and the program, as plain values."""

from __future__ import annotations

import os
import sys
from typing import Any

from pyrun import __version__, boot, host, sealing
from pyrun.errors import NetworkError
from pyrun.spec import config
from pyrun.store import images, paths, state

_LIBRARIES = ("cffi", "pyroute2", "python-prctl", "pyyaml", "rich", "zstandard")


def info() -> dict[str, Any]:
    """What is here: containers by state, images, directories, and what the machine offers (host.facts)."""
    words = [state.status(state.load(identifier)) for identifier in state.all_ids()]
    return {
        "version": __version__,
        "containers": {word: words.count(word) for word in ("running", "created", "exited")},
        "images": len(images.identifiers()),
        "root": paths.root(),
        "run": paths.run(),
        "binary": boot.binary(),
        "seal": _seal(),
        # a start takes 2 ms more with the system's: csrc/interpreter_build.py says when
        "interpreter": "own" if "_halfway" in sys.builtin_module_names else "system",
        **({"rootless": _of_a_user()} if boot.rootless_uid() >= 0 else {}),
        **host.facts(),
    }


def _seal() -> str:
    """How the binary is sealed, found out by doing it."""
    os.close(sealing.descriptor(boot.binary()))
    return sealing.used


def _of_a_user() -> dict[str, Any]:
    """What an ordinary user has instead of root's rights."""
    from pyrun.network import user_mode
    from pyrun.store import overlay_kind

    try:
        network = user_mode.choose("")
    except NetworkError:
        network = ""
    maps = {kind: paths.read(f"/proc/self/{kind}_map").decode().splitlines() for kind in ("uid", "gid")}
    return {
        "uid": boot.rootless_uid(),
        **{f"{kind}_map": [" ".join(line.split()) for line in lines] for kind, lines in maps.items()},
        "network": network,
        "overlay": overlay_kind.noted() or "not used yet",
    }


def version() -> dict[str, Any]:
    """pyrun's version and the versions of everything it stands on; "" for a library that is not installed."""
    boot.site_packages()
    from importlib import metadata

    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            libraries[name] = ""
    return {
        "version": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "oci_runtime_spec": config.OCI_VERSION,
        "libraries": libraries,
    }
