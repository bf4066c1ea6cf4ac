"""The hot bundle: the modules of the hot path in a few files, run as `python -I -S hot.<tag>.pyc ARGS`.

Modules loaded one by one are searched, stat'ed, opened, checked and given to importlib each: milliseconds. So the
build compiles them into groups, one per way through the program (GROUPS below). When a module of a group is asked
for, the whole group is unmarshalled, put into sys.modules and executed in an order in which nothing is missing;
importlib has no part in it. The first group is a constant of the .pyc itself, the others lie beside it: reading and
holding what one command does not need costs half a millisecond.

Most of a module is for what goes wrong or is rare. So only the functions named in hot_functions.txt are in the groups;
that list is recorded from commands that are to be quick (tests/bench/hot_functions.py). In the place of every other
function at module level stands a Cold object: called, it executes the rest of its module, which lies in one file for
all modules, and hands the call on. A list that is out of date costs time, not correctness.

A package's `__path__` is the real directory beside the bundle, so a cold module (`pyrun.registry.client`) is loaded
from its own file as ever. Which modules are hot: those named in GROUPS and whatever they import at module level;
imports inside functions are cold by definition. Not here: who starts the bundle (csrc/launcher.c), which modules may
be hot (a test says).
"""

from __future__ import annotations

import ast
import errno
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
    "run": "pyrun.engine.explaining pyrun.engine.reconcile pyrun.engine.stdio pyrun.network.resolver",
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

# (module, is it a package?, code, names of its cold functions, offset and size of their code)
Entry = tuple[str, bool, CodeType, tuple[str, ...], int, int]

HOT_FUNCTIONS = Path(__file__).with_name("hot_functions.txt")

MAIN = Path(__file__).with_name("bundle_main.py")


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


def hot_functions(listed: str) -> dict[str, set[str]]:
    """Module -> the functions a start calls, from the text of hot_functions.txt: a line with the module, indented lines
    with names; `#` begins a comment."""
    found: dict[str, set[str]] = {}
    module = ""
    for line in listed.splitlines():
        words = line.partition("#")[0].split()
        if words and not line.startswith(" "):
            (module,) = words
        elif words:
            found.setdefault(module, set()).update(words)
    return found


def build(package: Path, listed: str | None = None) -> dict[str, bytes]:
    """The files of the bundle by name: a .pyc whose source is never looked for (unchecked hash, PEP 552), a
    marshalled group each for the others, and what is cold.

    listed: the text of a hot_functions.txt; None: the one beside this. An empty
    one leaves the modules whole.
    """
    hot = hot_functions(HOT_FUNCTIONS.read_text() if listed is None else listed)
    stem = file_name().removesuffix(".pyc")
    rest = bytearray()
    first, *others = [_compile(package, group, hot, rest) for group in grouped(package)]
    titles = [f"{stem}.{title}" for title in list(GROUPS)[1:]]
    places = tuple((each[0], title) for title, group in zip(titles, others, strict=True) for each in group)
    main = _code(ast.parse(MAIN.read_text().replace("@COLD@", f"{stem}.cold")), "pyrun/hot")
    # code objects cannot be written in source: they take the place of a constant
    main = main.replace(
        co_consts=tuple((first, places) if each == "@GROUPS@" else each for each in main.co_consts)
    )
    return {
        file_name(): as_pyc(main),
        **{title: marshal.dumps(group) for title, group in zip(titles, others, strict=True)},
        f"{stem}.cold": bytes(rest),
    }


def as_pyc(code: CodeType) -> bytes:
    """The bytes of a .pyc file that is never compared with a source."""
    unchecked_hash = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + unchecked_hash + bytes(8) + marshal.dumps(code)


def _compile(
    package: Path, group: dict[str, Path], hot: dict[str, set[str]], rest: bytearray
) -> tuple[Entry, ...]:
    """The modules of *group* as `load` takes them; what is cold of them is added to *rest*."""
    compiled = []
    for name, path in group.items():
        shown = str(path.relative_to(package.parent))
        tree = ast.parse(path.read_bytes(), shown)
        cold = cold_part(tree, hot.get(name, set()) if hot else None)
        code, frozen = _code(tree, shown), _code(cold, shown)
        names = tuple(each.name for each in cold.body if isinstance(each, ast.FunctionDef))
        offset = len(rest)
        if names:
            rest += marshal.dumps(frozen)
        compiled.append((name, path.name == "__init__.py", code, names, offset, len(rest) - offset))
    return tuple(compiled)


def _code(tree: ast.Module, shown: str) -> CodeType:
    """optimize=2: no docstrings, and no asserts (they are for the type checker)."""
    code: CodeType = compile(_Leaner().visit(tree), shown, "exec", dont_inherit=True, optimize=2)
    return code


def cold_part(tree: ast.Module, hot: set[str] | None) -> ast.Module:
    """Take the functions that are not *hot* out of *tree*, into a module of their own, which it returns.

    Functions at module level alone, undecorated and defined once: for these, being defined later makes no difference.
    None: the whole module is hot.
    """
    defined = [each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
    cold = [
        each
        for each in tree.body
        if hot is not None
        and isinstance(each, ast.FunctionDef)
        and each.name not in hot
        and not each.decorator_list
        and defined.count(each.name) == 1
    ]
    tree.body = [each for each in tree.body if each not in cold]
    return ast.Module([*cold], tree.type_ignores)


class _Leaner(ast.NodeTransformer):
    """Takes away what a bundle has no use for: annotations, which nothing reads, and with them the one feature of
    __future__; and the module errno, whose hundred names take 0.1 ms to make: the numbers stand in their place."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)

    def visit_Import(self, node: ast.Import) -> ast.stmt | None:
        node.names = [each for each in node.names if each.name != "errno"]
        return node if node.names else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt | None:
        if node.module == "errno":
            numbers = {each.asname or each.name: getattr(errno, each.name) for each in node.names}
            targets = ast.Tuple([ast.Name(name, ast.Store()) for name in numbers], ast.Store())
            values = ast.Tuple([ast.Constant(number) for number in numbers.values()], ast.Load())
            return ast.fix_missing_locations(ast.copy_location(ast.Assign([targets], values), node))
        return None if node.module == "__future__" else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if isinstance(node.value, ast.Name) and node.value.id == "errno":
            return ast.copy_location(ast.Constant(getattr(errno, node.attr)), node)
        self.generic_visit(node)
        return node


if __name__ == "__main__":  # `bundle.py`: show what is in it
    here = Path(__file__).resolve().parent.parent / "runtime" / "pyrun"
    for title, members in zip(GROUPS, grouped(here), strict=True):
        print(f"{title}: {len(members)} modules")
        for module, file in members.items():
            print(f"  {module} {file.stat().st_size}")
