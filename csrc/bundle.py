"""The hot bundle: the modules of the hot path in a few files, run as `python -I -S hot.<tag>.pyc ARGS`.

Modules loaded one by one are searched, stat'ed, opened, checked and given to importlib each: milliseconds. So the
build puts all that one way through the program needs (WAYS below) into one file. When its first module is asked for,
all are unmarshalled, put into sys.modules and executed in an order in which nothing is missing; importlib has no part
in it. A module that several ways need is in the file of each: a file more to read costs more than room on the disk. A
module that is asked for by itself comes with the file that brings least beside it.

Most of a module is for what goes wrong or is rare. So only the functions named in hot_functions.txt are in the files,
each in those of the ways that call it; that list is recorded from commands that are to be quick
(tests/bench/hot_functions.py). In the place of every other function at module level stands a Cold object: called, it
executes the rest of its module, which lies in one file for all modules, and hands the call on. A list that is out of
date costs time; what has to work when no file can be opened is never cold. What is hot has no line numbers: those are
in a file of their own, which a traceback reads (cli/traces.py).

A package's `__path__` is the real directory beside the bundle, so a cold module (`pyrun.registry.client`) is loaded
from its own file as ever. Which modules are hot: those named in WAYS and whatever they import at module level;
imports inside functions are cold by definition. Not here: the code of a module (bundle_code.py), the program that
loads them (bundle_main.py), what the interpreter reads before it (bundle_home.py), who starts it (csrc/launcher.c),
which modules may be hot (a test says).
"""

from __future__ import annotations

import ast
import hashlib
import marshal
import sys
from pathlib import Path

import bundle_code

_START = " pyrun.launch pyrun.plan.plan pyrun.spec.seccomp pyrun.spec.users pyrun.spec.capabilities"
_NETWORK = " pyrun.store.images pyrun.stages.network pyrun.network.attach"
_NETWORK += " pyrun.network.guard"

# Title: (the way it is a part of, whose modules are there already; the module that is asked for first, then what it
# needs too, though it is imported in functions only). The .pyc itself loads the first. Names that do not exist are
# left out.
WAYS = {
    "every command": ("", "pyrun.cli.main"),
    "system calls": ("every command", "pyrun.linux"),
    "pyrun": ("every command", "pyrun.cli.options pyrun.cli.tables"),
    "run": ("pyrun", "pyrun.engine.run" + _START + _NETWORK),
    "bundle": ("pyrun", "pyrun.engine.bundle" + _START),
    "exec": ("pyrun", "pyrun.engine.exec_" + _START),
    "verbs": ("pyrun", "pyrun.cli.verbs pyrun.engine.kill"),
    "oci": ("every command", "pyrun.cli.oci pyrun.engine.oci.state"),
    "oci create": ("oci", "pyrun.engine.oci.create" + _START),
    "oci run": ("oci", "pyrun.engine.oci.run" + _START),
    "oci start": ("oci", "pyrun.engine.oci.start"),
    "oci exec": ("oci", "pyrun.engine.oci.exec_" + _START),
    "oci kill": ("oci", "pyrun.engine.oci.kill"),
    "oci delete": ("oci", "pyrun.engine.oci.delete"),
    "descriptors": ("oci create", "pyrun.descriptors"),
    "systemd": ("oci create", "pyrun.cgroups.systemd"),
}

HOT_FUNCTIONS = Path(__file__).with_name("hot_functions.txt")
MAIN = Path(__file__).with_name("bundle_main.py")
FIRST_MODULE = Path(__file__).with_name("bundle_home.py")


def file_name() -> str:
    """The bundle's name for this Python, such as hot.cpython-311.pyc."""
    return f"hot.{sys.implementation.cache_tag}.pyc"


def source_of(package: Path, name: str) -> Path | None:
    """The file of module *name* (pyrun.x.y), where *package* is the directory of pyrun; None: no such module."""
    base = package.parent.joinpath(*name.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def hot_modules(package: Path) -> dict[str, Path]:
    """The modules of the hot path: name -> source file, all ways together."""
    return {name: path for way in ways(package).values() for name, path in way.items()}


def ways(package: Path) -> dict[str, dict[str, Path]]:
    """What is in the file of each way: name -> source file, each module after those it imports at module level.

    Packages are in the first: whichever file is asked for, its modules find them.
    """
    found: dict[str, dict[str, Path]] = {}
    first: dict[str, Path] = {}
    for title, (within, names) in WAYS.items():
        modules: dict[str, Path] = {} if found else first
        there = set(first)
        while within:
            there |= set(found[within])
            within = WAYS[within][0]
        for name in names.split():
            _visit(package, name, there, modules, first)
        found[title] = modules
    return found


def _visit(
    package: Path, name: str, seen: set[str], modules: dict[str, Path], first: dict[str, Path]
) -> None:
    """Add module *name* to *modules*, behind its packages and whatever it imports."""
    path = source_of(package, name)
    if path is None or name in seen:
        return
    seen.add(name)
    parent = name.rpartition(".")[0]
    if parent:
        _visit(package, parent, seen, modules, first)
    for each in module_imports(path, name):
        _visit(package, each, seen, modules, first)
    (first if _is_package(path) else modules)[name] = path


def _is_package(path: Path) -> bool:
    return path.name == "__init__.py"


def places(ways: dict[str, dict[str, Path]]) -> dict[str, str]:
    """Which file a module comes with when it is asked for: its own way's, else the one that brings least with it."""

    def brought(title: str) -> int:
        return len(ways[title]) + (brought(WAYS[title][0]) if WAYS[title][0] else 0)

    by_size = sorted(list(ways)[1:], key=brought, reverse=True)
    found = {name: title for title in by_size for name in ways[title]}
    own = {WAYS[title][1].split()[0]: title for title in by_size}
    return {**found, **{name: title for name, title in own.items() if name in ways[title]}}


def module_imports(path: Path, name: str) -> list[str]:
    """The absolute names imported at module level of *path* (module *name*), outside functions.

    `from a import b` gives both `a` and `a.b`, since b may be a module.
    """
    is_package = _is_package(path)
    names: list[str] = []
    for node in bundle_code.module_level(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                keep = len(parts) - node.level + (1 if is_package else 0)
                base = ".".join([*parts[:keep], *([base] if base else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


def build(package: Path, listed: str | None = None) -> dict[str, bytes]:
    """The files of the bundle by name: a .pyc whose source is never looked for (unchecked hash, PEP 552), one for each
    way, what is cold, the line numbers, and the interpreter's home.

    listed: the text of a hot_functions.txt; None: the one beside this. An empty one leaves the modules whole.
    """
    hot = bundle_code.hot_functions(HOT_FUNCTIONS.read_text() if listed is None else listed)
    stem = file_name().removesuffix(".pyc")
    found = ways(package)
    split, rest, place = {}, bytearray(), {}
    for name, path in hot_modules(package).items():
        called = hot.get(name, {}) if hot else None
        split[name] = bundle_code.Split(path.read_bytes(), str(path.relative_to(package.parent)), called)
        place[name] = len(rest), len(split[name].cold)
        rest += split[name].cold
    # a module in a file: (name, is it a package?, code, names of its cold functions, offset and size of their code)
    files = {
        f"{stem}.{title}": marshal.dumps(
            tuple(
                (name, _is_package(path), *split[name].hot(title), *place[name]) for name, path in way.items()
            )
        )
        for title, way in found.items()
    }
    # named after what is in it: a command that still runs while pyrun is installed anew must not read another's
    cold = f"{stem}.{hashlib.sha256(rest).hexdigest()[:12]}.cold"
    lines = marshal.dumps({place: table for each in split.values() for place, table in each.lines.items()})
    numbers = f"{stem}.{hashlib.sha256(lines).hexdigest()[:12]}.lines"
    where = tuple((name, f"{stem}.{title}") for name, title in places(found).items())
    text = MAIN.read_text().replace('"@PLACES@"', repr(where)).replace("@COLD@", cold)
    text = text.replace("@LINES@", numbers)
    text = text.replace("@FIRST@", f"{stem}.{next(iter(found))}")
    main = bundle_code.compiled(ast.parse(text), "pyrun/hot")
    return {file_name(): bundle_code.as_pyc(main), **files, cold: bytes(rest), numbers: lines, **home()}


def without_modules() -> str:
    """The bundle's program without what it is for: an interpreter is tried with it (interpreter_build.py)."""
    text = MAIN.read_text().replace('"@PLACES@"', "()").replace('load("@FIRST@")\n', "")
    return text.partition('sys.modules["pyrun.cli.main"]')[0]


def home() -> dict[str, bytes]:
    """The directory in which the interpreter finds its first module (bundle_home.py), by its landmarks of a library:
    os.py and lib-dynload. Source: Modules/getpath.py of CPython."""
    library = f"home/{sys.platlibdir}/python{sys.version_info[0]}.{sys.version_info[1]}"
    code = bundle_code.compiled(ast.parse(FIRST_MODULE.read_bytes()), "pyrun/home/encodings")
    return {
        f"{library}/os.py": b"# By this file the interpreter knows its library. It is never read.\n",
        f"{library}/lib-dynload/README": b"By this directory the interpreter knows its library.\n",
        f"{library}/encodings.pyc": bundle_code.as_pyc(code),
    }


if __name__ == "__main__":  # `bundle.py`: show what is in it
    here = Path(__file__).resolve().parent.parent / "runtime" / "pyrun"
    for title, members in ways(here).items():
        print(f"{title}: {len(members)} modules")
        for module, file in members.items():
            print(f"  {module} {file.stat().st_size}")
