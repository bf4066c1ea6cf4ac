"""The hot bundle: the modules of the hot path in a few files, run as `python -I -S hot.<tag>.pyc ARGS`.

Modules loaded one by one are searched, stat'ed, opened, checked and given to importlib each: milliseconds. So the
build compiles them into groups, one per way through the program (GROUPS below). When a module of a group is asked
for, the whole group is unmarshalled, put into sys.modules and executed in an order in which nothing is missing;
importlib has no part in it. The first group is a constant of the .pyc itself, the others lie beside it: reading and
holding what one command does not need costs half a millisecond.

A package's `__path__` is the real directory beside the bundle, so a cold module (`pyrun.registry.client`) is loaded
from its own file as ever. Which modules are hot: those named in GROUPS and whatever they import at module level;
imports inside functions are cold by definition. Not here: who starts the bundle (csrc/launcher.c), which modules may
be hot (a test says).
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
import sys
from pathlib import Path
from types import CodeType

# One group per way through the program, each with what it needs beyond the groups before it. Modules that one of these
# imports inside a function and which are hot all the same are named too. `.*` means every module of a package.
# Names that do not exist are left out.
GROUPS = {
    "every command": "pyrun.cli.main pyrun.signals pyrun.store.containers pyrun.store.state pyrun.undo",
    "pyrun": "pyrun.cli.options pyrun.cli.tables",
    "oci": "pyrun.cli.oci pyrun.engine.oci.state",
    "system calls": "pyrun.linux",
    "oci kill": "pyrun.engine.oci.kill",
    "start": "pyrun.launch pyrun.plan.plan pyrun.spec.seccomp pyrun.spec.users pyrun.spec.capabilities",
    "image": "pyrun.engine.run pyrun.store.images pyrun.stages.network pyrun.network.attach pyrun.network.guard",
    "exec": "pyrun.engine.exec_",
    "oci create": "pyrun.engine.oci.create pyrun.engine.oci.run",
    "oci start": "pyrun.engine.oci.start",
    "bundle": "pyrun.engine.bundle",
    "descriptors": "pyrun.descriptors",
    "oci exec": "pyrun.engine.oci.exec_",
    "oci systemd": "pyrun.cgroups.systemd",
    "oci delete": "pyrun.engine.oci.delete",
    "verbs": "pyrun.cli.verbs pyrun.engine.kill",
}

# The code of the bundle itself; "@GROUPS@" is filled in by build(): the first group, and which file the modules of the
# others are in.
_MAIN = '''
import gc
import sys

gc.disable()  # for the 20 ms of a start there is nothing to collect; cli.main switches it on for long verbs
FIRST, PLACES = "@GROUPS@"
HOME = (__file__.rpartition("/")[0] or ".").removesuffix("/pyrun")
Module = type(sys)


def load(group):
    for name, is_package, code in group:
        module = sys.modules[name] = Module(name)
        place = HOME + "/" + name.replace(".", "/")
        if is_package:
            module.__path__ = [place]
        module.__package__ = name if is_package else name.rpartition(".")[0]
        module.__file__ = place + ("/__init__.py" if is_package else ".py")
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, module)
        exec(code, module.__dict__)


class Bundle:
    """Finder and loader of the modules in the other groups: asked for one, it loads its group."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        file = PLACES.get(name)
        if file is None:
            return None
        if name not in sys.modules:
            import marshal
            import posix

            fd = posix.open(__file__.rpartition("/")[0] + "/" + file, posix.O_RDONLY | posix.O_CLOEXEC)
            load(marshal.loads(posix.read(fd, posix.fstat(fd).st_size)))
            posix.close(fd)
        from _frozen_importlib import ModuleSpec

        return ModuleSpec(name, Bundle)

    @staticmethod
    def create_module(spec):
        return sys.modules[spec.name]

    @staticmethod
    def exec_module(module):
        module.__spec__ = module.__loader__ = None


PLACES = dict(PLACES)
sys.meta_path.insert(0, Bundle)
load(FIRST)
sys.modules["pyrun.cli.main"].main(sys.argv)
'''


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
    """The modules of the hot path: name -> source file, all groups together."""
    return {name: path for group in grouped(package) for name, path in group.items()}


def grouped(package: Path) -> list[dict[str, Path]]:
    """The groups, in order: name -> source file, each module after those it imports at module level.

    Packages are in the first: whichever group is asked for, its modules find them.
    """
    seen: set[str] = set()
    groups: list[dict[str, Path]] = [{} for _ in GROUPS]
    for group, names in zip(groups, GROUPS.values(), strict=True):
        for pattern in names.split():
            for name in _expand(package, pattern):
                _visit(package, name, seen, group, groups[0])
    return groups


def _visit(package: Path, name: str, seen: set[str], group: dict[str, Path], first: dict[str, Path]) -> None:
    """Add module *name* to *group*, behind its packages and whatever it imports."""
    path = source_of(package, name)
    if path is None or name in seen:
        return
    seen.add(name)
    if path.name == "__init__.py":
        group = first
    parent = name.rpartition(".")[0]
    if parent:
        _visit(package, parent, seen, group, first)
    for each in module_imports(path, name):
        _visit(package, each, seen, group, first)
    group[name] = path


def _expand(package: Path, pattern: str) -> list[str]:
    if not pattern.endswith(".*"):
        return [pattern]
    parent = pattern.removesuffix(".*")
    inside = package.parent.joinpath(*parent.split(".")).glob("*.py")
    return [parent, *(f"{parent}.{path.stem}" for path in inside if path.stem != "__init__")]


def module_imports(path: Path, name: str) -> list[str]:
    """The absolute names imported at module level of *path* (module *name*), outside functions.

    `from a import b` gives both `a` and `a.b`, since b may be a module.
    """
    is_package = path.name == "__init__.py"
    names: list[str] = []
    for node in _module_level(ast.parse(path.read_bytes(), str(path))):
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


def _module_level(tree: ast.AST) -> list[ast.AST]:
    """The nodes that run when the module is imported: not the bodies of functions, nor what only a checker reads."""
    found: list[ast.AST] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not is_for_types(
            node
        ):
            waiting += ast.iter_child_nodes(node)
    return found


def is_for_types(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:` without else: never executed."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def build(package: Path) -> dict[str, bytes]:
    """The files of the bundle by name: a .pyc whose source is never looked for (unchecked hash, PEP 552), and a
    marshalled group each for the others."""
    first, *others = [_compile(package, group) for group in grouped(package)]
    titles = [f"{file_name().removesuffix('.pyc')}.{title}" for title in list(GROUPS)[1:]]
    places = tuple((name, title) for title, group in zip(titles, others, strict=True) for name, _, _ in group)
    main = compile(_MAIN, "pyrun/hot", "exec", dont_inherit=True, optimize=2)
    # code objects cannot be written in source: they take the place of a constant
    main = main.replace(
        co_consts=tuple((first, places) if each == "@GROUPS@" else each for each in main.co_consts)
    )
    unchecked_hash = (1).to_bytes(4, "little")
    pyc = importlib.util.MAGIC_NUMBER + unchecked_hash + bytes(8) + marshal.dumps(main)
    return {
        file_name(): pyc,
        **{title: marshal.dumps(group) for title, group in zip(titles, others, strict=True)},
    }


def _compile(package: Path, group: dict[str, Path]) -> tuple[tuple[str, bool, CodeType], ...]:
    """(name, is it a package?, code); optimize=2: no docstrings, and no asserts (they are for the type checker)."""
    compiled = []
    for name, path in group.items():
        shown = str(path.relative_to(package.parent))
        code = compile(path.read_bytes(), shown, "exec", dont_inherit=True, optimize=2)
        compiled.append((name, path.name == "__init__.py", code))
    return tuple(compiled)


if __name__ == "__main__":  # `bundle.py`: show what is in it
    here = Path(__file__).resolve().parent.parent / "runtime" / "pyrun"
    for title, members in zip(GROUPS, grouped(here), strict=True):
        print(f"{title}: {len(members)} modules")
        for module, file in members.items():
            print(f"  {module} {file.stat().st_size}")
