"""A row of the catalogue: what one kind of operation is to a reader, in an error and to who performs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps

from pyrun.network import tags
from pyrun.plan.operations import Operation
from pyrun.safe import shell_word
from pyrun.store import paths

# What an operation says: its words, as a verb phrase; the shell's equivalent and how to see it, either may be empty.
Explanation = tuple[str, str, str]

# Of unshare(1) and nsenter(1), in the order of the kernel's flags.
NAMESPACES = {
    "mount": "m", "uts": "u", "ipc": "i", "user": "U", "pid": "p", "network": "n", "cgroup": "C", "time": "T",
}  # fmt: skip


class Row:
    """One kind.

    stage: the file in stages/ whose failure it is; mounts are told as rootfs. told: the names of its arguments,
    those with dots may be missing or more; they are in braces in *words* as they are, in *shell* and *see* as the shell
    takes them. Or a function of the arguments that returns all three. by: who performs it, for what neither init does
    nor plan/performers.py names.
    `{name}` and `{pid}` of the container are filled in by plan/explain.py.
    """

    __slots__ = ("by", "see", "shell", "stage", "told", "words")

    def __init__(
        self,
        stage: str,
        told: str | Callable[..., Explanation],
        words: str = "",
        shell: str = "",
        see: str = "",
        by: str = "",
    ) -> None:
        self.stage, self.told, self.by = stage, told, by
        self.words, self.shell, self.see = words, shell, see

    def explain(self, operation: Operation) -> Explanation:
        """What the operation says."""
        if not isinstance(self.told, str):
            return self.told(*operation.args)
        here = {"name": "{name}", "pid": "{pid}", "table": tags.table(), "run": shell_word(paths.run())}
        names = self.told.replace("...", "").split()
        given = [*operation.args, *[""] * len(names)]
        said = {**here, **dict(zip(names, given, strict=False))}
        typed = {**here, **dict(zip(names, map(shell_word, given), strict=False))}
        return (self.words.format_map(said), self.shell.format_map(typed), self.see.format_map(typed))


def quoted(told: Callable[..., Explanation]) -> Callable[..., Explanation]:
    """*told* with its arguments as the shell takes them, but for those that are empty."""

    @wraps(told)
    def typed(*given: str | int) -> Explanation:
        return told(*[shell_word(each) if each != "" else "" for each in given])

    return typed


def letters(kinds: Iterable[str]) -> str:
    """Kinds of namespaces as options."""
    return " ".join(f"-{NAMESPACES[kind]}" for kind in kinds)


def ranges(bounds: tuple[int, ...]) -> str:
    """First and last by turns, as taskset(1) takes them."""
    pairs = zip(bounds[::2], bounds[1::2], strict=True)
    return ",".join(f"{first}-{last}" if first != last else f"{first}" for first, last in pairs)
