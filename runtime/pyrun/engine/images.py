"""`pyrun images` and `pyrun rmi`: the local images as rows, and their removal."""

from __future__ import annotations

from fnmatch import fnmatchcase

from pyrun.errors import ImageError, UsageError
from pyrun.notice import say
from pyrun.store import image_removal, image_writer, images, layers, references


def rows(name: str = "") -> list[dict[str, object]]:
    """One dict a name, newest image first: repository, tag, digest, id, created (RFC 3339), size_bytes, names,
    platform. An image without a name has repository and tag "<none>".

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
    return sorted(found, key=lambda row: str(row["created"]), reverse=True)


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


def _row(identifier: str, full: str, names: list[str]) -> dict[str, object] | None:
    try:
        image = images.load(identifier)
    except ImageError as error:
        say(f"{error.message}; {error.hint}")
        return None
    if image is None:  # removed since the listing
        return None
    reference = references.parse(full) if full else None
    platform = "/".join(str(part) for part in (image["os"], image["architecture"], image["variant"]) if part)
    return {
        "repository": references.familiar(f"{reference.domain}/{reference.path}") if reference else "<none>",
        "tag": (reference.tag or "<none>") if reference else "<none>",
        "digest": (reference.digest or _digest(image, reference)) if reference else "",
        "id": identifier,
        "created": image.get("created") or "",
        "size_bytes": image.get("size_bytes") or 0,
        "names": [references.familiar(each) for each in names],
        "platform": platform,
    }


def _digest(image: dict[str, object], reference: references.Reference) -> str:
    """What the registry said of it last, if it is from there."""
    known = image.get("digests")
    found = [str(each).partition("@") for each in known] if isinstance(known, list) else []
    return next((digest for base, _, digest in found if base == f"{reference.domain}/{reference.path}"), "")


def remove(names: list[str], *, force: bool = False) -> list[str]:
    """Remove names and images; returns what was done, a line each. Raises NotFound, Conflict, UsageError."""
    if not names:
        raise UsageError("no image given", "pyrun rmi IMAGE...")
    layers.sweep()
    return [line for name in names for line in image_removal.remove(name, force)]
