"""The architecture as data: who may import whom, where each library lives, how long things may be.

The tables are the documentation; a violation names file and line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bundle
import bundle_code

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "runtime" / "pyrun"

# From the top down. A module imports only from rows below its own, or from its own package. Of two names that fit, the
# longer one counts: plan/ puts the stages' operations together, and what an operation is, they must know; which
# hierarchies there are, the network's guard too.
LAYERS = (
    ("boot_cold",),
    ("cli",),
    ("engine",),
    ("launch",),
    ("verdict",),
    ("plan",),
    ("stages",),
    ("registry", "network", "cgroups"),
    ("birth", "descriptors", "detach", "device_rules", "idmaps", "sealing", "undo"),
    ("plan.operations", "plan.performers", "plan.job", "cgroups.layout"),
    ("spec",),
    ("store",),
    ("handshake", "host", "signals", "launching"),
    ("linux", "jsonlite"),
    ("boot", "digest", "errors", "notice", "safe"),
)

# Third-party libraries and where they may be imported: a file or a package. Nowhere else, not even lazily.
ONE_PLACE = {
    "pyroute2": "network/",
    "yaml": "store/recipes.py",
    "rich": "cli/render.py",
    "prctl": "host.py",
    "_shim": "linux.py",
    "jeepney": "cgroups/bus_library.py",
    "dnslib": "network/dns/wire.py",
    "zstandard": "store/inflate.py",
    "cffi": "nowhere: csrc/build_backend.py uses it",
}

# What hot modules may import at module level besides one another: built in, or C extensions that load in a moment.
HOT_ALLOWED = set(
    "__future__ sys posix time errno marshal _json _socket _struct fcntl _signal select _imp _frozen_importlib".split()
)

# These packages' modules do not know one another: each is one kernel idea.
STRANGERS = ("stages",)

FILE_LINES, FUNCTION_LINES, C_FILE_LINES = 450, 40, 500


def python_files() -> list[Path]:
    return sorted(
        path for path in PACKAGE.rglob("*.py") if not any(part.startswith(".") for part in path.parts)
    )


def c_files() -> list[Path]:
    return sorted((REPOSITORY / "csrc").rglob("*.[ch]"))


def inside(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file, those inside functions too: line, absolute name."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in executed(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, *([base] if base else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if is_module(whole) else base


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING:`, which only a type checker reads."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not bundle_code.is_for_types(node):
            waiting += ast.iter_child_nodes(node)


def is_module(name: str) -> bool:
    return bundle.source_of(PACKAGE, name) is not None or name == "pyrun._shim"


def top(name: str) -> str:
    """The row of the table a module of ours belongs to: pyrun.store.images -> store; pyrun -> ''."""
    return [*name.split("."), ""][1]


RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}


def rank(name: str) -> int | None:
    """The row of a module of ours, None if the table does not know it."""
    return RANK.get(".".join(name.split(".")[1:3]), RANK.get(top(name)))


def complaints_about(paths: list[Path]) -> Iterator[str]:
    """Every import that the tables forbid."""
    for path in paths:
        own = module_name(path)
        for line, name in imports(path):
            where = f"runtime/pyrun/{inside(path)}:{line}: imports {name}"
            library = name.split(".")[-1] if name == "pyrun._shim" else name.split(".")[0]
            if library in ONE_PLACE and not inside(path).startswith(ONE_PLACE[library]):
                yield f"{where}, allowed in {ONE_PLACE[library]}"
            if library != "pyrun" or top(name) == "" or top(own) == "":
                continue
            above, below = rank(own), rank(name)
            if above is None or below is None:
                yield f"{where}, one of which is not in LAYERS"
            elif top(name) != top(own) and below <= above:
                yield f"{where}, which is not below {top(own)}"
            elif top(name) == top(own) in STRANGERS and name not in (own, f"pyrun.{top(own)}"):
                yield f"{where}: modules of {top(own)} do not know one another"


def test_imports_go_down_and_each_library_has_one_place() -> None:
    assert not list(complaints_about(python_files())), "\n".join(complaints_about(python_files()))


def test_every_module_is_in_the_table() -> None:
    tops = {top(module_name(path)) for path in python_files()} - {"", "_shim"}
    assert tops <= set(RANK), f"not in LAYERS: {sorted(tops - set(RANK))}"


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("store/images.py", "from pyrun.engine import run", "not below store"),
        ("spec/config.py", "import yaml", "allowed in store/recipes.py"),
        ("stages/rootfs.py", "from pyrun.stages import cgroup", "do not know one another"),
        ("errors.py", "def f():\n    from .linux import mount", "not below errors"),
    ],
)
def test_the_test_can_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, line: str, expected: str
) -> None:
    """Planted violations are found."""
    package = tmp_path / "pyrun"
    for name in (
        file,
        "engine/run.py",
        "linux.py",
        "stages/cgroup.py",
        "stages/__init__.py",
        "engine/__init__.py",
    ):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("")
    (package / file).write_text(line)
    monkeypatch.setitem(globals(), "PACKAGE", package)
    assert expected in "\n".join(complaints_about([package / file]))


def test_hot_modules_import_only_what_is_cheap() -> None:
    hot = bundle.hot_modules(PACKAGE)
    wrong = []
    for name, path in hot.items():
        for each in bundle.module_imports(path, name):
            base = each.rpartition(".")[0]
            if each.split(".")[0] == "pyrun" or each in HOT_ALLOWED or base in HOT_ALLOWED:
                continue
            wrong.append(f"{name} imports {each}")
    assert not wrong, "hot modules (csrc/bundle.py) import what costs milliseconds:\n" + "\n".join(wrong)


def test_files_are_short() -> None:
    wrong = [f"{path}: {size} lines" for path in python_files() if (size := count(path)) > FILE_LINES]
    wrong += [f"{path}: {size} lines" for path in c_files() if (size := count(path)) > C_FILE_LINES]
    assert not wrong, "\n".join(wrong)


def count(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_functions_are_short() -> None:
    wrong = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines >= FUNCTION_LINES:
                    wrong.append(f"runtime/pyrun/{inside(path)}:{node.lineno}: {node.name} has {lines} lines")
    assert not wrong, "\n".join(wrong)


def test_only_cli_prints_and_exits() -> None:
    wrong = []
    for path in python_files():
        if inside(path).startswith("cli/"):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print",
                "sys.exit",
                "exit",
                "sys.stdout.write",
            ):
                wrong.append(f"runtime/pyrun/{inside(path)}:{node.lineno}: {ast.unparse(node.func)}")
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_is() -> None:
    silent = [inside(path) for path in python_files() if not ast.get_docstring(ast.parse(path.read_bytes()))]
    assert not silent, f"no docstring: {silent}"


def test_every_map_names_every_module() -> None:
    """A package's docstring is its map: whoever adds a module says there what it is for."""
    wrong = [
        f"runtime/pyrun/{inside(path)} does not name {name}"
        for path in python_files()
        if path.name == "__init__.py"
        for name in unnamed(path)
    ]
    assert not wrong, "\n".join(wrong)


def unnamed(path: Path) -> list[str]:
    """The modules and packages beside *path*, an __init__.py, that its docstring has no word of."""
    words = set(re.findall(r"\w+/?", ast.get_docstring(ast.parse(path.read_bytes())) or ""))
    modules = {each.stem for each in path.parent.glob("*.py") if not each.stem.startswith("__")}
    packages = {f"{each.parent.name}/" for each in path.parent.glob("*/__init__.py")}
    return sorted((modules | packages) - words)


def test_a_module_that_no_map_names_is_found(tmp_path: Path) -> None:
    for name in "__init__.py __main__.py told.py untold.py room/__init__.py hall/__init__.py".split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('"""told.py  and room/"""')
    assert unnamed(tmp_path / "__init__.py") == ["hall/", "untold"]


def test_names_that_say_nothing_are_not_used() -> None:
    empty_words = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert not [inside(path) for path in python_files() if path.stem in empty_words]


# What begins a command within a hint, where no backticks say so.
TYPED = re.compile(
    r"(^|[:;] )(sudo |pyrun(-oci)? [a-z]|apt-get |ip (link|addr|route|netns|-n) |docker login |iptables -|nft "
    r"|systemctl |modprobe |tar -|umount |mmdebstrap )[^:;]*$"
)
# Constants of ours, and numbers.
HARMLESS = {"first", "name_of(usage)", "letter", "number", "six", "option", "verb", "mtu", "length", "kind",
            "card_name", "program", "port[3]", "_PACKAGES[mode or 'pasta']", "TIMEOUT_S", "identifier", "__version__",
            "group", "f'pyrun {command}'.rstrip()"}  # fmt: skip
# Where every argument is quoted before it is taken apart; tests/system/test_typed.py types what comes of it.
QUOTED_BEFORE = (
    "plan/catalogue/",
    "plan/explain",
    "cli/help.py",
    "cli/oci_help.py",
)


def typed_values(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, expression) of what an f-string puts into a command a person is to type."""
    for node in ast.walk(tree):
        text = ""
        for part in node.values if isinstance(node, ast.JoinedStr) else ():
            if isinstance(part, ast.FormattedValue):
                if text.count("`") % 2 or TYPED.search(text):
                    yield part.lineno, ast.unparse(part.value)
                text += "x"
            else:
                text += str(part.value) if isinstance(part, ast.Constant) else ""


def test_what_is_to_be_typed_has_one_quoting_function() -> None:
    """Whatever is put into a command goes through safe.py, whoever chose it; and nothing else quotes."""
    quoting = ("shell_word(", "shell_command(", "int(")
    wrong = []
    for path in python_files():
        tree = ast.parse(path.read_bytes())
        if not inside(path).startswith(QUOTED_BEFORE):
            wrong += [
                f"runtime/pyrun/{inside(path)}:{line}: {value}"
                for line, value in typed_values(tree)
                if not value.startswith(quoting) and value not in HARMLESS
            ]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "shlex":
                wrong.append(f"runtime/pyrun/{inside(path)}:{node.lineno}: quotes by itself")
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("shlex.quote", "shlex.join"):
                wrong.append(f"runtime/pyrun/{inside(path)}:{node.lineno}: quotes by itself")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text", ["f'`pyrun rm {who}`'", "f'try: ip link delete {who}'", "f'apt-get install {who}'"]
)
def test_a_command_without_quotes_is_found(text: str) -> None:
    assert [value for _, value in typed_values(ast.parse(text))] == ["who"]


# What planning fills in itself: a stage's descriptors through operations.descriptor, and those that are passed on.
PLANNED = {"preserved"}


def filled(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, field) of each field of a job, and each key of a config, that is assigned."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            text = ast.unparse(target)
            if isinstance(target, ast.Attribute | ast.Subscript) and re.match(r"(job|config)\b", text):
                yield target.lineno, text


def test_no_stage_writes_into_what_another_reads() -> None:
    """A stage returns what others need; compose() passes it on."""
    wrong = [
        f"runtime/pyrun/{inside(path)}:{line}: {text}"
        for path in python_files()
        if inside(path).startswith(("stages/", "plan/"))
        for line, text in filled(ast.parse(path.read_bytes()))
        if text.removeprefix("job.") not in PLANNED
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("text", ["job.kept = []", "job.cgroup.late = True", "config['mounts'] += []"])
def test_a_stage_that_writes_is_found(text: str) -> None:
    assert [line for line, _ in filled(ast.parse(text))] == [1]
