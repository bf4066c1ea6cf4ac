"""The kinds of rules config.json is checked by: numbers, words, texts, lists, objects.

A rule is called with a value and its place; it returns nothing, or raises UsageError `PLACE: RULE, not VALUE`, one
printable line of less than 300 characters. Rules of objects and lists hold those of their members (`table`, `rule`),
so that tables of them can be walked; a test compares them with the official schema. Places begin with the file
(`config.json: `); the JSON path follows. Not here: which field has which rule (check.py, check_rare.py).
"""

from __future__ import annotations

from pyrun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrun.spec.oci import Object

    Rule = Callable[[object, str], None]


def wrong(path: str, rule: str, *value: object, hint: str = "") -> UsageError:
    """The error for *value* at *path*; without a value, the rule is the whole sentence."""
    if len(path) > 140:
        path = path[:90] + "..." + path[-47:]
    return UsageError(f"{path.rstrip(': ')}: {rule}{', not ' + shown(value[0]) if value else ''}", hint)


def shown(value: object) -> str:
    """*value* as an error shows it: short, printable, and never deeper than one level."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, int) and value.bit_length() > 150:
        return f"a number of {value.bit_length()} bits"
    text = repr(value[:50] if isinstance(value, str) else value)
    whole = len(text) < 64 and not (isinstance(value, str) and len(value) > 50)
    return text if whole else text[:60] + "..."


def place(path: str, key: str) -> str:
    """`PATH.KEY`, or `PATH["KEY"]` for a key that is no plain word."""
    if key.isascii() and key.isidentifier():
        return path + key if path[-1:] == " " else f"{path}.{key}"
    return f"{path}[{shown(key)}]"


def flag(value: object, path: str) -> None:
    """true or false."""
    if value is not True and value is not False:
        raise wrong(path, "must be true or false", value)


def text(value: object, path: str) -> None:
    """A string the kernel can take: without NUL. May be empty."""
    if type(value) is not str or "\0" in value:
        raise wrong(path, "must be a string without NUL", value)


def name(value: object, path: str) -> None:
    """The same, not empty."""
    if type(value) is not str or not value or "\0" in value:
        raise wrong(path, "must be a string that is not empty and holds no NUL", value)


def absolute(value: object, path: str) -> None:
    """An absolute path."""
    name(value, path)
    if str(value)[0] != "/":
        raise wrong(path, "must be an absolute path", value)


def absolute_if_any(value: object, path: str) -> None:
    """An absolute path, or empty for none: Go's encoders write the empty string for what is not there."""
    if value != "":
        absolute(value, path)


def one_line(value: object, path: str) -> None:
    """A string without line breaks: it becomes one line of a kernel file, and must not become two."""
    text(value, path)
    if "\n" in str(value):
        raise wrong(path, "must not hold a line break", value)


NUMBER_MAX = (1 << 16) - 1  # CPUs and NUMA nodes: far above any machine, and keeps masks small


def number_list(value: object, path: str) -> None:
    """CPUs or memory nodes: `0-3,7`; empty for none. Blanks and empty items beside others pass, as in runc."""
    text(value, path)
    items = [item for piece in str(value).split(",") if (item := piece.strip(" "))] or [str(value)]
    for item in items if value else ():
        first, dash, last = item.partition("-")
        ends = (first, last if dash else first)
        good = all(end.isascii() and end.isdigit() and len(end) < 10 for end in ends)
        if not good or not int(ends[0]) <= int(ends[1]) <= NUMBER_MAX:
            raise wrong(path, f"must be a list like 0-3,7 of numbers up to {NUMBER_MAX}", value)


class Whole:
    """A whole number from *least* to *most*, or one of *also*."""

    __slots__ = ("also", "least", "most")

    def __init__(self, least: int, most: int, *also: int) -> None:
        self.least, self.most, self.also = least, most, also

    def __call__(self, value: object, path: str) -> None:
        if type(value) is not int or not (self.least <= value <= self.most or value in self.also):
            others = "".join(f"{number} or " for number in self.also)
            raise wrong(path, f"must be {others}a whole number from {self.least} to {self.most}", value)


class Word:
    """One of *words*."""

    __slots__ = ("words",)

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, value: object, path: str) -> None:
        if type(value) is str and value in self.words:
            return
        import difflib

        listed = ", ".join(word for word in self.words if word)  # "" is for Go's encoders
        near = difflib.get_close_matches(str(value)[:50], self.words, n=1) if isinstance(value, str) else []
        listed = listed if len(listed) < 110 else listed[:100].rpartition(", ")[0] + " ..."
        raise wrong(path, f"must be one of {listed}", value, hint=f"did you mean {near[0]}?" if near else "")


class Each:
    """A list whose items keep *rule*; with *unique*, no two of its objects have the same member of that name."""

    __slots__ = ("most", "rule", "unique")

    def __init__(self, rule: Rule, unique: str = "", most: int = 1 << 62) -> None:
        self.rule, self.unique, self.most = rule, unique, most

    def __call__(self, value: object, path: str) -> None:
        if type(value) is not list:
            raise wrong(path, "must be an array", value)
        if len(value) > self.most:
            raise wrong(path, f"must have at most {self.most} items, not {len(value)}")
        rule = self.rule
        if rule is text:  # most lists, and the longest
            for item in value:
                if type(item) is not str or "\0" in item:
                    break
            else:
                return
        for number, item in enumerate(value):
            rule(item, f"{path}[{number}]")
        if self.unique and len(value) > 1:
            self._no_two(value, path)

    def _no_two(self, items: list[Object], path: str) -> None:
        seen = set()
        for number, item in enumerate(items):
            if item[self.unique] in seen:
                raise wrong(f"{path}[{number}].{self.unique}", f"{shown(item[self.unique])} is there twice")
            seen.add(item[self.unique])


class Map:
    """An object with names of the user's own: its keys keep *key_rule*, its values *rule*."""

    __slots__ = ("key_rule", "rule")

    def __init__(self, rule: Rule, key_rule: Rule = name) -> None:
        self.rule, self.key_rule = rule, key_rule

    def __call__(self, value: object, path: str) -> None:
        if type(value) is not dict:
            raise wrong(path, "must be an object", value)
        for key, item in value.items():
            where = place(path, key)
            self.key_rule(key, where)
            self.rule(item, where)


class Fields:
    """An object with the members of *table*; *needed* ones must be there; *then* checks them against one another.

    Members the table does not know are ignored, as the specification demands. A member that is null is taken out:
    Go's encoders write null for what is not there, runc reads it so, and nobody behind this has to think of it.
    """

    __slots__ = ("needed", "table", "then")

    def __init__(
        self, table: dict[str, Rule], needed: str = "", then: Callable[[Any, str], None] | None = None
    ) -> None:
        self.table, self.needed, self.then = table, needed.split(), then

    def __call__(self, value: object, path: str) -> None:
        if type(value) is not dict:
            raise wrong(path, "must be an object", value)
        rules, prefix = self.table, path if path[-1:] == " " else path + "."
        empty = None
        for key, item in value.items():
            if item is None:
                empty = [*(empty or ()), key]
            elif key in rules:
                rules[key](item, prefix + key)
        for key in empty or ():
            del value[key]
        for key in self.needed:
            if key not in value:
                raise wrong(prefix + key, "is required")
        if self.then:
            self.then(value, path)


class Rare:
    """A section few configs have: its rule is *name* in the cold module *module*, loaded when the section is there."""

    __slots__ = ("empty", "module", "name")

    def __init__(self, name: str, module: str = "check_rare", *, empty: object = None) -> None:
        self.name, self.module, self.empty = name, module, empty  # the value that needs no look

    def rule(self) -> Rule:
        if self.module == "check_ids":
            from . import check_ids as module
        else:
            from . import check_rare as module  # type: ignore[no-redef]
        found: Rule = getattr(module, self.name)
        return found

    def __call__(self, value: object, path: str) -> None:
        if value != self.empty:
            self.rule()(value, path)
