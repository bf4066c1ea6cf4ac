"""`pyrun images` and `pyrun rmi`: the local images as rows, and their removal."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TypedDict

from pyrun.errors import ImageError, UsageError
from pyrun.notice import say
from pyrun.store import image_removal, image_writer, images, layers, references


class Row(TypedDict):
    """An image by one of its names; without any, repository and tag are "<none>". created: as in RFC 3339."""

    repository: str
    tag: str
    digest: str
    id: str
    created: str
    size_bytes: int
    names: list[str]
    platform: str


def rows(name: str = "") -> list[Row]:
    """One a name, newest image first.

    name: only that repository, or that repository and tag; * ? and [...] mean what they mean in a shell's file names.
    Raises UsageError.
    """
    pattern = any(sign in name for sign in "*?[")
    wanted = references.parse(name) if name and not pattern else None
    by_image: dict[str, list[str]] = {identifier: [] for identifier in images.identifiers()}
    for full, identifier in image_writer.all_references().items():
        if identifier in by_image:
            by_image[identifier].append(full)
    found = []
    for identifier, names in by_image.items():
        for full in names or [""]:
            if (wanted and not _matches(full, wanted, name)) or (pattern and not _is_like(full, name)):
                continue
            row = _row(identifier, full, names)
            if row:
                found.append(row)
    return sorted(found, key=lambda row: row["created"], reverse=True)


def _matches(full: str, wanted: references.Reference, text: str) -> bool:
    if not full:
        return False
    has = references.parse(full)
    if (has.domain, has.path) != (wanted.domain, wanted.path):
        return False
    tagged = ":" in text.rpartition("/")[2] or "@" in text
    return not tagged or has.full == wanted.full


def _is_like(full: str, pattern: str) -> bool:
    """Whether the name as it is shown, with its tag or without, is one of the pattern's."""
    if not full:
        return False
    reference = references.parse(full)
    shown = [references.familiar(each) for each in (full, f"{reference.domain}/{reference.path}")]
    parts = pattern.split("/")
    return any(
        text.count("/") == len(parts) - 1 and all(map(fnmatchcase, text.split("/"), parts)) for text in shown
    )


def _row(identifier: str, full: str, names: list[str]) -> Row | None:
    try:
        image = images.load(identifier)
    except ImageError as error:
        say(f"{error.message}; {error.hint}")
        return None
    if image is None:  # removed since the listing
        return None
    reference = references.parse(full) if full else None
    platform = "/".join(part for part in (image["os"], image["architecture"], image["variant"]) if part)
    return {
        "repository": references.familiar(f"{reference.domain}/{reference.path}") if reference else "<none>",
        "tag": (reference.tag or "<none>") if reference else "<none>",
        "digest": (reference.digest or images.digest_in(image, reference)) if reference else "",
        "id": identifier,
        "created": image.get("created") or "",
        "size_bytes": image.get("size_bytes") or 0,
        "names": [references.familiar(each) for each in names],
        "platform": platform,
    }


def remove(names: list[str], *, force: bool = False) -> list[str]:
    """Remove names and images; returns what was done, a line each. Raises NotFound, Conflict, UsageError."""
    if not names:
        raise UsageError("no image given", "pyrun rmi IMAGE...")
    layers.sweep()
    return [line for name in names for line in image_removal.remove(name, force)]
