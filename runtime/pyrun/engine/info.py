"""`pyrun info` and `pyrun version`: the machine and the program, as plain values."""

from __future__ import annotations

import os
import sys

from pyrun import __version__, boot, host, sealing
from pyrun.errors import NetworkError
from pyrun.spec import config
from pyrun.store import images, paths, state

_LIBRARIES = ("cffi", "pyroute2", "python-prctl", "pyyaml", "rich", "zstandard")


def info() -> dict[str, object]:
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
        "interpreter": _interpreter(),
        **({"rootless": _of_a_user()} if boot.rootless_uid() >= 0 else {}),
        **host.facts(),
    }


def _interpreter() -> str:
    """ "own", or "system", with which a start takes 2 ms more; with the remedy where our own is older than the system's
    and therefore not used: that update may be about security (csrc/interpreter_build.py)."""
    if "_halfway" in sys.builtin_module_names:
        return "own"
    home = f"{__file__.rpartition('/engine/')[0]}/home"
    is_old = os.path.isdir(home) and any(name.startswith("python3-") for name in os.listdir(home))
    return "system, which is newer than the own one: install pyrun again" if is_old else "system"


def _seal() -> str:
    """How the binary is sealed, found out by doing it."""
    os.close(sealing.descriptor(boot.binary()))
    return sealing.used


def _of_a_user() -> dict[str, int | str | list[str]]:
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


def version() -> dict[str, str | dict[str, str]]:
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
