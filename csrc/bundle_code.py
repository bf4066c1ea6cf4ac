"""The code of a module as the hot bundle holds it: what a start calls, without what only a reader needs.

Not here: which modules are in the bundle and in which file of it (bundle.py).
"""

from __future__ import annotations

import ast
import copy
import errno
import importlib.util
import marshal
from collections import Counter
from types import CodeType
from zlib import crc32

# What is called when files cannot be opened any more: it must be there already, however rare.
ALWAYS_HOT = {"pyrun/launch.py": {"abandon"}, "pyrun/linux.py": {"pidfd_send_signal"}}

_NO_PLACE, _ENTRY_UNITS = 0x80 | 15 << 3, 8


def module_level(tree: ast.AST) -> list[ast.AST]:
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
    """`if TYPE_CHECKING:`; what follows it is never executed, what follows its else is."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


# Of a module: its hot functions, and the ways that call each; none: all
Hot = dict[str, set[str]]


def hot_functions(listed: str) -> dict[str, Hot]:
    """Module -> its hot functions, from the text of hot_functions.txt: a line with the module, indented lines with
    names, behind `way, way:` those that only these ways call; `#` begins a comment."""
    found: dict[str, Hot] = {}
    module = ""
    for line in listed.splitlines():
        line = line.partition("#")[0].rstrip()
        if line and not line.startswith(" "):
            module = line
        elif line:
            ways, _, names = line.rpartition(":")
            titles = {title.strip() for title in ways.split(",")} - {""}
            found.setdefault(module, {}).update(dict.fromkeys(names.split(), titles))
    return found


class Split:
    """A module in two parts: the code that a way needs, and the rest of it, which is one for all ways."""

    def __init__(self, source: bytes, shown: str, hot: Hot | None) -> None:
        """shown: the file's name in tracebacks; hot: None: all of it is."""
        self._tree, self._shown = ast.parse(source, shown), shown
        self._hot: Hot = {**(hot or {})}
        for name in ALWAYS_HOT.get(shown, ()):
            self._hot[name] = set()
        rest = [each for each in movable(self._tree) if hot is not None and self._ways(each.name) != set()]
        self._names = [each.name for each in rest]
        self.lines: Lines = {}  # of what `hot` has returned
        # a copy: compiling changes what it is given
        body = copy.deepcopy(ast.Module([*rest], self._tree.type_ignores))
        self.cold = marshal.dumps(compiled(body, shown)) if rest else b""

    def _ways(self, function: str) -> set[str] | None:
        """The ways that call it; an empty set: all; None: none."""
        return self._hot.get(function)

    def hot(self, way: str) -> tuple[CodeType, tuple[str, ...]]:
        """The code of the module for *way*, and the names of the functions that are not in it."""
        cold = tuple(name for name in self._names if way not in (self._ways(name) or ()))
        tree = copy.deepcopy(self._tree)
        tree.body = [
            each for each in tree.body if not isinstance(each, ast.FunctionDef) or each.name not in cold
        ]
        return without_lines(compiled(tree, self._shown), self.lines), cold


def as_pyc(code: CodeType) -> bytes:
    """The bytes of a .pyc file that is never compared with a source."""
    unchecked_hash = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + unchecked_hash + bytes(8) + marshal.dumps(code)


def compiled(tree: ast.Module, shown: str) -> CodeType:
    """optimize=2: no docstrings, and no asserts (they are for the type checker)."""
    code: CodeType = compile(_Leaner().visit(tree), shown, "exec", dont_inherit=True, optimize=2)
    return code


# How a traceback finds the line numbers of a function: as cli/traces.py asks for them.
Lines = dict[tuple[str, str, int, int], bytes]


def without_lines(code: CodeType, lines: Lines) -> CodeType:
    """The code without its line numbers, which are a quarter of it: a start would read them for nothing. They go into
    *lines*, which is a file of its own, for tracebacks.

    Entries for "no place", one for eight units of two bytes each: traceback takes no code without a table. Source:
    Objects/locations.md of CPython."""
    lines[code.co_filename, code.co_qualname, code.co_firstlineno, crc32(code.co_code)] = code.co_linetable
    constants = tuple(
        without_lines(each, lines) if isinstance(each, CodeType) else each for each in code.co_consts
    )
    whole, rest = divmod(len(code.co_code) // 2, _ENTRY_UNITS)
    table = bytes([_NO_PLACE | _ENTRY_UNITS - 1]) * whole + (bytes([_NO_PLACE | rest - 1]) if rest else b"")
    return code.replace(co_linetable=table, co_consts=constants)


def movable(tree: ast.Module) -> list[ast.FunctionDef]:
    """The functions of *tree* that may be defined later than the rest: those at module level, undecorated, whose name
    means nothing else there."""
    changed = [name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names]
    meant = Counter(changed + [name for node in module_level(tree) for name in _named(node)])
    return [
        each
        for each in tree.body
        if isinstance(each, ast.FunctionDef) and not each.decorator_list and meant[each.name] == 1
    ]


def _named(node: ast.AST) -> list[str]:
    """The names to which *node* gives a meaning."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [each.asname or each.name for each in node.names]
    return [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []


class _Leaner(ast.NodeTransformer):
    """Takes away what a bundle has no use for: annotations, which nothing reads, with what is imported or made for them
    alone and the one feature of __future__; and the module errno, whose hundred names take 0.1 ms to make: the numbers
    stand in their place."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if is_for_types(node) else node

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
