"""The code of a module as the hot bundle holds it: what a start calls, without what only a reader needs.

Not here: which modules are in the bundle and in which file of it (bundle.py).
"""

from __future__ import annotations

import ast
import errno
import importlib.util
import marshal
from collections import Counter
from types import CodeType

# What is called when files cannot be opened any more: it must be there already, however rare.
ALWAYS_HOT = {"pyrun.launch": {"abandon"}, "pyrun.linux": {"pidfd_send_signal"}}

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


def as_pyc(code: CodeType) -> bytes:
    """The bytes of a .pyc file that is never compared with a source."""
    unchecked_hash = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + unchecked_hash + bytes(8) + marshal.dumps(code)


def compiled(tree: ast.Module, shown: str) -> CodeType:
    """optimize=2: no docstrings, and no asserts (they are for the type checker)."""
    code: CodeType = compile(_Leaner().visit(tree), shown, "exec", dont_inherit=True, optimize=2)
    return code


def without_lines(code: CodeType) -> CodeType:
    """The code without its line numbers, which are a quarter of it: a start would read them for nothing. With --debug
    the launcher takes the modules from their own files, and a traceback has them.

    Entries for "no place", one for eight units of two bytes each: traceback takes no code without a table. Source:
    Objects/locations.md of CPython."""
    constants = tuple(without_lines(each) if isinstance(each, CodeType) else each for each in code.co_consts)
    whole, rest = divmod(len(code.co_code) // 2, _ENTRY_UNITS)
    table = bytes([_NO_PLACE | _ENTRY_UNITS - 1]) * whole + (bytes([_NO_PLACE | rest - 1]) if rest else b"")
    return code.replace(co_linetable=table, co_consts=constants)


def cold_part(tree: ast.Module, hot: set[str] | None) -> ast.Module:
    """Take the functions that are not *hot* out of *tree*, into a module of their own, which it returns.

    Functions at module level alone, undecorated, whose name means nothing else there: for these, being defined later
    makes no difference. None: the whole module is hot.
    """
    if hot is None:
        return ast.Module([], tree.type_ignores)
    changed = [name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names]
    meant = Counter(changed + [name for node in module_level(tree) for name in _named(node)])
    cold = [
        each
        for each in tree.body
        if isinstance(each, ast.FunctionDef)
        and each.name not in hot
        and not each.decorator_list
        and meant[each.name] == 1
    ]
    tree.body = [each for each in tree.body if each not in cold]
    return ast.Module([*cold], tree.type_ignores)


def _named(node: ast.AST) -> list[str]:
    """The names to which *node* gives a meaning."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [each.asname or each.name for each in node.names]
    return [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []


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
