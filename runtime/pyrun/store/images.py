"""Looking up local images: what every `run` does first, so it costs two small reads and one JSON value.

    root/refs/<quoted reference>     one line: the image's id
    root/images/<id>/image.json      the image: layers bottom to top, configuration
    root/layers/<chain id>/          an unpacked layer (layers.py)

An image's id is the SHA-256 of its configuration, as Docker's. Writing is image_writer.py's business.
"""

from __future__ import annotations

import posix

from pyrun import jsonlite
from pyrun.errors import ImageError, UsageError
from pyrun.safe import shell_word
from pyrun.store import paths, references

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

    from pyrun.store.image_json import Image

SHORTEST_ID = 4  # hex digits that are taken for the beginning of an id


def find(name: str) -> Image | None:
    """The image called *name* (a reference, an id, or the unique beginning of one), or None.

    The value is image.json, see image_writer.py. Raises UsageError for a malformed or ambiguous name.
    """
    identifier = find_id(name)
    return load(identifier) if identifier else None


def find_id(name: str) -> str:
    """The id of the image called *name*, or "". Raises UsageError."""
    bare = name.removeprefix("sha256:")
    if len(bare) == 64 and references.is_hex(bare):
        return bare
    if bare is name:  # no reference begins with sha256:, that is a tag of an image called sha256
        reference = references.parse(name)
        found = read_reference(reference.full) or (_by_digest(reference.full) if reference.digest else "")
        if found:
            return found
    if len(bare) >= SHORTEST_ID and references.is_hex(bare):
        return _by_prefix(bare)
    return ""


def read_reference(full: str) -> str:
    """The id the full reference points to, or ""."""
    try:
        identifier = (
            paths.read(f"{paths.root()}/refs/{references.quote(full)}").decode("ascii", "replace").strip()
        )
    except PermissionError:
        raise _denied() from None
    except OSError:
        return ""
    return identifier if len(identifier) == 64 and references.is_hex(identifier) else ""


def load(identifier: str) -> Image | None:
    """The image with that full id, or None if it is not in the store. Raises ImageError if its record is broken."""
    path = f"{paths.root()}/images/{identifier}/image.json"
    try:
        text = paths.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        value = jsonlite.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ImageError(
            f"the image record {path} is broken", f"remove it with `pyrun rmi {shell_word(identifier[:12])}`"
        )
    record: Any = value
    image: Image = record
    return image


def identifiers() -> list[str]:
    """The full ids of all local images, sorted."""
    try:
        names = posix.listdir(f"{paths.root()}/images")
    except PermissionError:
        raise _denied() from None
    except FileNotFoundError:
        return []
    return sorted([name for name in names if len(name) == 64 and references.is_hex(name)])


def _denied() -> UsageError:
    return UsageError(f"the images below {paths.root()} are root's", "run as root, or set PYRUN_ROOT")


def digest_in(image: Image, reference: references.Reference) -> str:
    """What the registry of *reference* said of the image last; "" if it is not from there."""
    known = image.get("digests")
    found = [str(each).partition("@") for each in known] if isinstance(known, list) else []
    return next((digest for base, _, digest in found if base == f"{reference.domain}/{reference.path}"), "")


def _by_digest(full: str) -> str:
    """The id of the image that was pulled by another name, and has this digest in that repository; or "".

    An index has an image for each platform: of several that of this machine, or the nearest to it.
    """
    from pyrun.store import platforms

    found: dict[str, int] = {}
    for identifier in identifiers():
        try:
            image = load(identifier) or {}
        except ImageError:
            continue
        digests = image.get("digests")
        if isinstance(digests, list) and full in digests:
            found[identifier] = platforms.rank(platforms.of_image(image), platforms.host())
    return min(found, key=lambda identifier: (found[identifier] < 0, found[identifier]), default="")


def _by_prefix(prefix: str) -> str:
    matches = [name for name in identifiers() if name.startswith(prefix)]
    if len(matches) > 1:
        raise UsageError(
            f"image id {prefix} is ambiguous: {len(matches)} images begin with it", "give more digits"
        )
    return matches[0] if matches else ""
