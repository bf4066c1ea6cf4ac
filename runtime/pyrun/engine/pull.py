"""pull: an image comes into the local store, from a recipe or a registry; ensure: only if it must.

A name resolves in this order: the local store, the recipe images/NAME.yaml, a registry (Docker Hub for short
names). What was tried is told when nothing helps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyrun.errors import ImageError, NotFound, RegistryError, UsageError
from pyrun.notice import say
from pyrun.store import images, layers, platforms, recipes, references

# Told of every step: {"image", "layer": short digest or "", "state": "waiting" | "downloading" | "unpacking" |
# "done" | "exists" | "building", "current": bytes, "total": bytes (0: unknown)}. May be called from any thread.
Progress = Callable[[dict[str, Any]], None]

SPELLING = "check the spelling of name and tag; `pyrun images` lists what is here"
POLICIES = ("missing", "always", "never")


def ensure(
    name: str, policy: str = "missing", platform: str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """The image called *name*, fetched or built if the policy says so: image.json as a value.

    Raises NotFound that lists what was tried, ImageError (another platform, damaged), UsageError.
    """
    if policy not in POLICIES:
        raise UsageError(
            f"--pull: {policy!r} is none of {', '.join(POLICIES)}", "leave it out to pull what is missing"
        )
    image = images.find(name) if policy != "always" or _is_id(name) else None
    if image is not None and platform and platforms.rank(_platform(image), platforms.parse(platform)) < 0:
        if policy == "never" or _is_id(name):
            raise ImageError(
                f"--platform {platform}: the local image {name} is for {_platform(image)}",
                "name an image, and without --pull=never"
                if policy == "never"
                else "name an image, not an id",
            )
        image = None
    if image is None:
        if policy == "never" or _is_id(name):
            raise NotFound(f"no local image {name!r}", "`pyrun images` lists them, `pyrun pull` fetches one")
        if progress and policy == "missing":
            say(f"Unable to find image '{references.parse(name).familiar}' locally")
        image = pull(name, platform, progress)
    wanted = platforms.parse(platform)
    if platforms.rank(_platform(image), wanted) < 0 and not platform:
        raise ImageError(
            f"the image {name} is for {_platform(image)}, this machine is {wanted}",
            f"`pyrun pull --platform {wanted} {name}` replaces it, if there is one",
        )
    return image


def _is_id(name: str) -> bool:
    return name.startswith("sha256:") or (len(name) == 64 and references.is_hex(name))


def _platform(image: dict[str, Any]) -> platforms.Platform:
    return platforms.normal(image["os"], image["architecture"], image["variant"])


def pull(name: str, platform: str | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Fetch or build the image called *name* anew, whatever is in the store: image.json as a value."""
    reference = references.parse(name)
    wanted = platforms.parse(platform)
    layers.sweep()
    tried = []
    recipe = recipes.find(reference)
    if recipe and recipe["kind"] != "registry":
        if wanted == platforms.host():
            return _build(recipe, reference, progress)
        tried.append(f"the recipe {recipe['path']} makes images for {platforms.host()} only")
    source = references.parse(recipe["image"]) if recipe and recipe["kind"] == "registry" else reference
    if recipe is None:
        tried.append(f"no recipe of that name in {', '.join(recipes.directories())}")
    from pyrun.engine import fetch

    try:
        return fetch.fetch(source, [reference.full], wanted, progress)
    except (NotFound, RegistryError) as error:
        lines = ["not in the local store", *tried, error.message]
        raise type(error)(f"no image {name!r}: {'; '.join(lines)}", error.hint or SPELLING) from error


def _build(
    recipe: dict[str, Any], reference: references.Reference, progress: Progress | None
) -> dict[str, Any]:
    names = [reference.full]
    if progress:
        progress({"image": reference.familiar, "layer": "", "state": "building", "current": 0, "total": 0})
    if recipe["kind"] == "embedded":
        from pyrun.store import embedded

        return embedded.build(recipe, names)
    from pyrun.store import bootstrap

    return bootstrap.build(recipe, names)
