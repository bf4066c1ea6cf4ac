"""pull: an image comes into the local store, from a recipe or a registry; ensure: only if it must.

A name resolves in this order: the local store, the recipe images/NAME.yaml, a registry (Docker Hub for short
names). What was tried is told when nothing helps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypedDict

from pyrun.errors import ImageError, NotFound, RegistryError, UsageError
from pyrun.notice import say
from pyrun.safe import shell_command
from pyrun.store import images, layers, platforms, recipes, references

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.image_json import Image


State = Literal["waiting", "downloading", "unpacking", "done", "exists", "building"]


class Step(TypedDict):
    """How far a layer is. layer: its short digest, or "" for all of an image that is built; current and total: bytes,
    0 for a total that is unknown."""

    image: str
    layer: str
    state: State
    current: int
    total: int


Progress = Callable[[Step], None]  # may be called from any thread

SPELLING = "check the spelling of name and tag; `pyrun images` lists what is here"
POLICIES = ("missing", "always", "never")


def ensure(
    name: str, policy: str = "missing", platform: str | None = None, progress: Progress | None = None
) -> Image:
    """The image called *name*, fetched or built if the policy says so: image.json as a value.

    Raises NotFound that lists what was tried, ImageError (another platform, damaged), UsageError.
    """
    if policy not in POLICIES:
        raise UsageError(
            f"--pull: {policy!r} is none of {', '.join(POLICIES)}", "leave it out to pull what is missing"
        )
    image = images.find(name) if policy != "always" or _is_id(name) else None
    if image is not None and not platform and policy != "never" and _is_of_another_machine(image, name):
        image = None
    elif image is not None and platform:
        image = _if_for(image, platform, name, policy)
    if image is None:
        if policy == "never" or _is_id(name):
            raise NotFound(f"no local image {name!r}", "`pyrun images` lists them, `pyrun pull` fetches one")
        if progress and policy == "missing":
            say(f"Unable to find image '{references.parse(name).familiar}' locally")
        image = pull(name, platform, progress)
    wanted = platforms.parse(platform)
    if platforms.rank(platforms.of_image(image), wanted) < 0 and not platform:
        raise ImageError(
            f"the image {name} is for {platforms.of_image(image)}, this machine is {wanted}",
            f"`{shell_command(['pyrun', 'pull', '--platform', wanted, name])}` replaces it, if there is one",
        )
    return image


def _is_id(name: str) -> bool:
    return name.startswith("sha256:") or (len(name) == 64 and references.is_hex(name))


def _if_for(image: Image, platform: str, name: str, policy: str) -> Image | None:
    """The local image if it is for *platform*, None if one that is can be pulled. Raises ImageError if it cannot."""
    has = platforms.of_image(image)
    if platforms.rank(has, platforms.parse(platform)) >= 0:
        return image
    if policy == "never" or _is_id(name):
        raise ImageError(
            f"--platform {platform}: the local image {name} is for {has}",
            "name an image, and without --pull=never" if policy == "never" else "name an image, not an id",
        )
    return None


def _is_of_another_machine(image: Image, name: str) -> bool:
    """Whether a digest, which may be an index's, has led to an image that was pulled for another machine."""
    return "@" in name and platforms.rank(platforms.of_image(image), platforms.host()) < 0


def pull(name: str, platform: str | None = None, progress: Progress | None = None) -> Image:
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
        here = (
            "what is in the local store stays as it is" if images.find_id(name) else "not in the local store"
        )
        lines = [here, *tried, error.message]
        raise type(error)(f"no image {name!r}: {'; '.join(lines)}", error.hint or SPELLING) from error


def told(name: str, before: str, image: Image) -> list[str]:
    """What Docker's client prints of a pull: the digest, what became of the name, the name in full.

    before: the id it had.
    """
    reference = references.parse(name)
    digest = reference.digest or images.digest_in(image, reference)
    new = (
        f"Downloaded newer image for {reference.familiar}"
        if digest
        else f"Made {reference.familiar} from its recipe"
    )
    status = f"Image is up to date for {reference.familiar}" if image["id"] == before else new
    return [*([f"Digest: {digest}"] if digest else []), f"Status: {status}", reference.full]


def _build(recipe: recipes.Recipe, reference: references.Reference, progress: Progress | None) -> Image:
    names = [reference.full]
    if progress:
        progress({"image": reference.familiar, "layer": "", "state": "building", "current": 0, "total": 0})
    if recipe["kind"] == "embedded":
        from pyrun.store import embedded

        return embedded.build(recipe, names)
    from pyrun.store import bootstrap

    return bootstrap.build(recipe, names)
