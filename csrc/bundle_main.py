"""The program of the hot bundle, in the .pyc that the launcher starts; csrc/bundle.py builds it from this text.

The build puts the file that a module comes with in the place of "@PLACES@", the name of the file that every command
needs in that of @FIRST@, the name of the one with all cold functions in that of @COLD@, and of the one with the line
numbers of all others in that of @LINES@.
"""

from __future__ import annotations

import _codecs
import builtins
import gc
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from codecs import CodecInfo
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any

    # module, is it a package?, its code, its cold functions, and where the code of these is: offset and size
    Entry = tuple[str, bool, CodeType, tuple[str, ...], int, int]

gc.disable()  # for the 20 ms of a start there is nothing to collect; cli.main switches it on for long verbs
PLACES: dict[str, str] = dict("@PLACES@")  # type: ignore[arg-type]
HERE = __file__.rpartition("/")[0] or "."
HOME = HERE.removesuffix("/pyrun")
LINES = HERE + "/@LINES@"  # for cli/traces.py
Module = type(sys)


class Cold:
    """Stands for a function at module level that a start does not call."""

    __slots__ = ("__name__", "function", "rest")

    def __init__(self, name: str, rest: tuple[dict[str, Any], int, int]) -> None:
        self.__name__ = name
        self.rest = rest
        self.function: Any = None

    def __call__(self, *given: Any, **named: Any) -> Any:
        if self.function is None:
            self.load()
        return self.function(*given, **named)

    def load(self) -> None:
        """Read all functions of that module that are cold here, if none was called before."""
        module, offset, size = self.rest
        if module[self.__name__] is self:
            fd = posix.open(HERE + "/@COLD@", posix.O_RDONLY | posix.O_CLOEXEC)
            code = posix.pread(fd, size, offset)
            posix.close(fd)
            exec(marshal.loads(code), module)
        self.function = module[self.__name__]


def load(file: str) -> None:
    """Make and execute the modules in that file which are not there yet."""
    fd = posix.open(HERE + "/" + file, posix.O_RDONLY | posix.O_CLOEXEC)
    content = posix.read(fd, posix.fstat(fd).st_size)
    posix.close(fd)
    entries: tuple[Entry, ...] = marshal.loads(content)
    for name, is_package, code, cold, offset, size in entries:
        if name in sys.modules:
            continue
        module = sys.modules[name] = Module(name)
        place = HOME + "/" + name.replace(".", "/")
        if is_package:
            module.__path__ = [place]
        module.__package__ = name if is_package else name.rpartition(".")[0]
        module.__file__ = place + ("/__init__.py" if is_package else ".py")
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, module)
        names = module.__dict__
        if cold:
            rest = names, offset, size
            for function in cold:
                names[function] = Cold(function, rest)
        exec(code, names)


class Bundle:
    """Finder and loader of the modules in the other files: asked for one, it loads the file. Asked for one that is in
    none, it has the interpreter made whole, which alone finds it."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The spec of a module that is in a file; that it is loaded already does not matter to importlib."""
        file = PLACES.get(name)
        if file is None:
            if name not in sys.builtin_module_names:
                complete()
            return None
        if name not in sys.modules:
            load(file)
        from _frozen_importlib import ModuleSpec

        return ModuleSpec(name, Bundle)  # type: ignore[arg-type]  # a class, where one would be made

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        """The module, executed as it is."""
        return sys.modules[spec.name]

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Nothing is left to execute; a module without a spec is one that importlib does not wait for."""
        module.__spec__ = module.__loader__ = None


# ── an interpreter that is half-way (csrc/interpreter): whoever needs the rest has it made ────────────────────────


def complete() -> None:
    """Have what is missing made; the system's interpreter is whole from the beginning."""
    if "_halfway" in sys.builtin_module_names:
        import _halfway

        _halfway.complete()


class Later:
    """Stands for a standard stream."""

    def __init__(self, name: str) -> None:
        self._name = name

    def flush(self) -> None:
        """Nothing was written yet."""

    def __getattr__(self, name: str) -> Any:
        complete()
        return getattr(getattr(sys, self._name), name)


def open_later(*given: Any, **named: Any) -> Any:
    """Stands for `open`."""
    complete()
    return builtins.open(*given, **named)


def find_codec(name: str) -> CodecInfo | None:
    """The codec of that name, which the library's `encodings` finds as soon as the interpreter is whole."""
    complete()
    _codecs.unregister(find_codec)
    __import__("encodings")
    return _codecs.lookup(name)


if "_halfway" in sys.builtin_module_names:
    _codecs.register(find_codec)
    builtins.open = open_later
    for stream in ("stdin", "stdout", "stderr"):
        setattr(sys, stream, Later(stream))
sys.meta_path.insert(0, Bundle)
load("@FIRST@")
sys.modules["pyrun.cli.main"].main(sys.argv)
