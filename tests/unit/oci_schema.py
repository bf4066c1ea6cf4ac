"""The official JSON schemas (schema/), as much of draft-04 as they use: look up, judge, walk, make examples.

A path is what errors show: `process.rlimits[0].soft`. In patterns, which name a field wherever it is, `[]` stands for
any index and `{}` for any key of the user's own.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pyrun.spec.check_rules import place

DIRECTORY = Path(__file__).parent / "schema"
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "boolean": (bool,),
}  # fmt: skip


@cache
def document(name: str) -> dict[str, Any]:
    return json.loads((DIRECTORY / name).read_text())


class Node:
    """A schema, with references followed and `allOf` and `anyOf` of one merged into it."""

    def __init__(self, schema: dict[str, Any], file: str) -> None:
        while "$ref" in schema:
            target, _, pointer = schema["$ref"].partition("#")
            file = target or file
            schema = document(file)
            for key in pointer.strip("/").split("/"):
                schema = schema[key]
        self.file, self.schema = file, dict(schema)
        for part in [*schema.get("allOf", ()), *schema.get("anyOf", ())]:
            merged = Node(part, file)
            self.file = merged.file
            for key, value in merged.schema.items():
                both = isinstance(value, dict) and isinstance(self.schema.get(key), dict)
                self.schema[key] = {**self.schema[key], **value} if both else value

    def members(self) -> dict[str, Node]:
        """The named members of an object."""
        return {key: Node(value, self.file) for key, value in self.schema.get("properties", {}).items()}

    def others(self) -> Node | None:
        """What a member with a name of the user's own is, or an item of a list."""
        patterns = list(self.schema.get("patternProperties", {}).values())
        for schema in (self.schema.get("additionalProperties"), self.schema.get("items"), *patterns):
            if isinstance(schema, dict):
                return Node(schema, self.file)
        return None


def whole(name: str = "config-schema.json") -> Node:
    return Node(document(name), name)


def errors(value: object, node: Node, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, rule) of everything that is against the schema, in the order of *value*."""
    schema = node.schema
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (kind != "boolean" and isinstance(value, bool))):
        yield path, f"is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield path, "is not in the list"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield path, f"does not match {schema['pattern']}"
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield path, "is out of range"
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield path, "is too short"
        inner = node.others()
        for number, item in enumerate(value if inner else ()):
            yield from errors(item, inner, f"{path}[{number}]")
    if isinstance(value, dict):
        yield from _member_errors(value, node, path)


def _member_errors(value: dict[str, Any], node: Node, path: str) -> Iterator[tuple[str, str]]:
    members, other = node.members(), node.others()
    for key, item in value.items():
        if key in members:
            yield from errors(item, members[key], below(path, key))
        elif other and key:
            yield from errors(item, other, below(path, key))
    for key in node.schema.get("required", ()):
        if key not in value:
            yield below(path, key), "is required"


def below(path: str, key: str) -> str:
    return place(path, key) if path else place(" ", key).removeprefix(" ")


def at(path: tuple[str | int, ...]) -> Node | None:
    """The schema of the value there; None where the schema says nothing."""
    node: Node | None = whole()
    for key in path:
        if node is None:
            return None
        members = node.members()
        node = members[key] if key in members else node.others()
    return node


def fields(node: Node | None = None, pattern: str = "") -> Iterator[tuple[str, Node]]:
    """Every field there is, as (pattern, schema)."""
    for key, member in (node or whole()).members().items():
        where = f"{pattern}.{key}" if pattern else key
        yield where, member
        yield from fields_in(member, where)


def fields_in(node: Node, pattern: str) -> Iterator[tuple[str, Node]]:
    yield from fields(node, pattern)
    inner = node.others()
    if inner:
        where = pattern + ("[]" if node.schema.get("type") == "array" else "{}")
        yield where, inner
        yield from fields_in(inner, where)


def example(node: Node, chance: random.Random, values: dict[str, Any], pattern: str = "") -> Any:
    """A random value the schema accepts. *values*: pattern -> what to choose from, or a function of *chance*."""
    if pattern in values:
        given = values[pattern]
        return json.loads(json.dumps(given(chance) if callable(given) else chance.choice(given)))
    kind = node.schema.get("type", "object")
    if kind == "array":
        inner = node.others()
        return (
            [example(inner, chance, values, pattern + "[]") for _ in range(chance.randint(0, 3))]
            if inner
            else []
        )
    return _example_object(node, chance, values, pattern) if kind == "object" else _example_leaf(node, chance)


def _example_leaf(node: Node, chance: random.Random) -> Any:
    schema = node.schema
    least, most = schema.get("minimum", 0), schema.get("maximum", 1 << 31)
    choices: dict[str, tuple[Any, ...]] = {
        "boolean": (True, False),
        "integer": (least, most, chance.randint(least, most)),
        "string": ("", "word", "two words", "Ünïcode", "a.b/c"),
    }
    return chance.choice(schema.get("enum") or choices[schema["type"]])


def _example_object(
    node: Node, chance: random.Random, values: dict[str, Any], pattern: str
) -> dict[str, Any]:
    result = {}
    for key, member in node.members().items():
        where = f"{pattern}.{key}" if pattern else key
        if values.get(where) != () and (key in node.schema.get("required", ()) or chance.random() < 0.6):
            result[key] = example(member, chance, values, where)
    other = node.others()
    for key in ("a.b", "key", "Käse")[: chance.randint(0, 3)] if other else ():
        result[key] = example(other, chance, values, pattern + "{}")
    return result
