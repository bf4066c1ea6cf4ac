"""Image recipes, images/NAME.yaml: how an image comes to be; and the one place that reads YAML.

Looked for in this order, the first file of a name counts:
    $PYRUN_IMAGES                a directory, for tests and experiments
    /etc/pyrun/images            the machine's own recipes
    <package>/recipes            those that came with pyrun
    <checkout>/images            the same, when run from the sources

A recipe says what to do, never how: building is embedded.py's and bootstrap.py's business, and engine/pull.py's
for a registry. images/README.md explains the format to those who write one.
"""

from __future__ import annotations

import os
from typing import Any, TypedDict

from pyrun import boot
from pyrun.errors import UsageError
from pyrun.store import references

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.image_json import ImageConfig

SYSTEM_DIR = "/etc/pyrun/images"
MAX_BYTES = 1 << 20

_COMMON: dict[str, type] = {"kind": str, "tags": list, "about": str, "config": dict}
_FIELDS: dict[str, dict[str, type]] = {
    "embedded": {"program": str, "package": str},
    "bootstrap": {"suite": str, "variant": str, "include": list, "mirror": str},
    "registry": {"image": str},
}
_WORDS: dict[type, str] = {str: "text", list: "a list", dict: "a mapping"}
_OPTIONAL = ("variant", "include", "mirror", "package")
_CONFIG: dict[str, type] = {
    "Cmd": list,
    "Entrypoint": list,
    "Env": list,
    "WorkingDir": str,
    "User": str,
    "Labels": dict,
    "StopSignal": str,
}


class Recipe(TypedDict, total=False):
    """A recipe that was checked. name and path: where it was found; the others by its kind, see _FIELDS."""

    name: str
    path: str
    kind: str
    tags: list[str]
    about: str
    config: ImageConfig
    program: str
    package: str
    suite: str
    variant: str
    include: list[str]
    mirror: str
    image: str


def read_yaml(path: str) -> Any:
    """The value in a YAML file, made of plain types only. Raises UsageError (malformed), OSError (no such file)."""
    with open(path, "rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES} bytes")
    boot.site_packages()
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def directories() -> list[str]:
    """Where recipes are looked for, first to last."""
    given = os.environ.get("PYRUN_IMAGES")
    package = boot.PACKAGE_DIR
    checkout = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(package))), "images")
    return [*([given] if given else []), SYSTEM_DIR, f"{package}/recipes", checkout]


def find(reference: references.Reference) -> Recipe | None:
    """The recipe for a reference, checked, with "name" and "path" added; None if there is none.

    A recipe NAME stands for docker.io/library/NAME and for the tags it lists. Raises UsageError (malformed).
    """
    name = reference.path.removeprefix("library/")
    if reference.domain != "docker.io" or "/" in name or reference.digest:
        return None
    for directory in directories():
        path = f"{directory}/{name}.yaml"
        if os.path.isfile(path):
            recipe = check(read_yaml(path), path)
            return {**recipe, "name": name, "path": path} if reference.tag in recipe["tags"] else None
    return None


def names() -> list[str]:
    """The names of all recipes, sorted."""
    found: set[str] = set()
    for directory in directories():
        if os.path.isdir(directory):
            found.update(name[:-5] for name in os.listdir(directory) if name.endswith(".yaml"))
    return sorted(found)


def check(recipe: Any, path: str) -> Recipe:
    """The recipe with its defaults filled in. Raises UsageError that names file and field."""
    if not isinstance(recipe, dict):
        raise UsageError(f"{path}: a recipe is a mapping of fields", "see images/README.md")
    kind = recipe.get("kind")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise UsageError(f"{path}: kind: {kind!r} is none of {', '.join(_FIELDS)}", "see images/README.md")
    _check_fields(recipe, _COMMON | _FIELDS[kind], path)
    missing = [field for field in _FIELDS[kind] if field not in recipe and field not in _OPTIONAL]
    if missing:
        raise UsageError(
            f"{path}: {missing[0]}: missing from a recipe of kind {kind}", "see images/README.md"
        )
    _check_fields(recipe.get("config", {}), _CONFIG, path, "config.")
    for field in ("tags", "include"):
        for item in recipe.get(field, ()):
            if not references.is_tag(str(item).replace("+", "_").replace(":", "_")) or not isinstance(
                item, str
            ):
                raise UsageError(f"{path}: {field}: {item!r} is not a plain word")
    whole: Any = {"tags": ["latest"], "config": {}} | recipe
    checked: Recipe = whole
    return checked


def _check_fields(mapping: dict[Any, Any], fields: dict[str, type], path: str, prefix: str = "") -> None:
    for field, value in mapping.items():
        if field not in fields:
            raise UsageError(
                f"{path}: {prefix}{field}: unknown field", f"known are {', '.join(sorted(fields))}"
            )
        if not isinstance(value, fields[field]):
            expected = _WORDS[fields[field]]
            raise UsageError(f"{path}: {prefix}{field}: {value!r} is not {expected}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise UsageError(f"{path}: {prefix}{field}: every item must be text (put numbers in quotes)")
