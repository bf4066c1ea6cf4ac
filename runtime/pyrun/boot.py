"""Where this installation is, and the way to the libraries that a start does not load.

The launcher runs the interpreter as `python -I -S`: no site module, no .pth files, nothing of the caller's
environment, and so no third-party packages. Whoever needs one (pyroute2, yaml, rich) calls
`site_packages` first; that is the cold path, where their 15 to 150 ms do not matter.
"""

from __future__ import annotations

import posix
import sys

# .../lib/python3.X/site-packages/pyrun (outside an environment Debian says dist-packages) of an installation, or
# runtime/pyrun of a checkout
PACKAGE_DIR = __file__.rpartition("/")[0]
SITE_DIR = PACKAGE_DIR.rpartition("/")[0]


def site_packages() -> None:
    """Make the packages installed beside pyrun importable; .pth files stay unread.

    Of pyroute2 only the modules somebody names: its own beginning imports databases, name spaces and more, 80 ms.
    """
    if SITE_DIR in sys.path:
        return
    sys.path.append(SITE_DIR)
    system_packages()
    for directory in sys.path[sys.path.index(SITE_DIR) :]:
        if _is_there(f"{directory}/pyroute2"):
            bare = type(sys)("pyroute2")
            bare.__path__ = [f"{directory}/pyroute2"]
            sys.modules.setdefault("pyroute2", bare)
            return


def system_packages() -> None:
    """Outside an environment: what was there when pip installed pyrun is not beside it, but where Debian has it."""
    if _is_there(f"{SITE_DIR.rpartition('/lib/')[0]}/pyvenv.cfg"):
        return
    places = (f"/usr/local/lib/python3.{sys.version_info[1]}/dist-packages", "/usr/lib/python3/dist-packages")
    sys.path += [place for place in places if place not in sys.path]


def _is_there(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def rootless_uid() -> int:
    """The ordinary user on whose behalf we are root of a user namespace (csrc/rootless.c); -1: root of the host."""
    given = posix.environ.get(b"PYRUN_ROOTLESS", b"")
    return int(given) if given.isdigit() else -1


def binary() -> str:
    """The static binary (launcher, init, monitor): `bin/pyrun` of the environment pyrun is installed in."""
    given = posix.environ.get(b"PYRUN_BINARY")
    if given:
        return given.decode("utf-8", "surrogateescape")
    return SITE_DIR.rpartition("/lib/")[0] + "/bin/pyrun"


def extension(name: str, directory: str) -> object:
    """Load a C extension by its path: the import system would list whole directories to find it."""
    import _imp
    from _frozen_importlib import ModuleSpec

    for suffix in _imp.extension_suffixes():
        path = f"{directory}/{name.rpartition('.')[2]}{suffix}"
        try:
            posix.stat(path)
        except OSError:
            continue
        spec = ModuleSpec(name, None, origin=path)
        module = _imp.create_dynamic(spec)
        sys.modules[name] = module
        _imp.exec_dynamic(module)
        return module
    raise ImportError(f"no extension module {name} in {directory}")


def standard(name: str) -> object:
    """A C extension of the standard library, from its own directory: a fifth of what searching for it costs."""
    if name in sys.builtin_module_names or name in sys.modules:
        return __import__(name)
    for directory in sys.path:
        if directory.endswith("/lib-dynload"):
            try:
                return extension(name, directory)
            except ImportError:
                break
    return __import__(name)
