"""Taking images out of the store: names first, then the image, then layers no other image needs.

An image that a container was made from stays, since its layers are that container's root: with *force* only
its names go. Nothing in use can be pulled away from under a mount.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator

from pyrun import jsonlite, notice
from pyrun.errors import Conflict, ImageError, NotFound
from pyrun.safe import shell_word
from pyrun.store import image_writer, images, layers, paths, references


def remove(name: str, force: bool = False) -> list[str]:
    """Remove a name or, given an id or its last name, the image; returns what was done, a line each, in Docker's words
    (a layer is told by its chain id).

    Raises NotFound, Conflict (a container uses it, or several names mean it; *force* overrides).
    """
    identifier = images.find_id(name)
    if not identifier or not os.path.isdir(f"{paths.root()}/images/{identifier}"):
        raise NotFound(f"no image {name!r}", "`pyrun images` lists them")
    done: list[str] = []
    gone: list[str] = []
    with layers.store_lock():
        known = image_writer.current_names(identifier)
        doomed = _names_to_remove(name, identifier, known, force)
        last = len(doomed) == len(known)
        own, needed = _layers_of(identifier), _needed_layers(identifier)
        users = _hide(identifier) if last else []
        if users and not force:
            raise Conflict(
                f"image {name} is used by container {users[0]}"
                + (f" and {len(users) - 1} more" if users[1:] else ""),
                f"remove it first: `pyrun rm {shell_word(users[0])}`",
            )
        for full in doomed:
            os.unlink(f"{paths.root()}/refs/{references.quote(full)}")
            done.append(f"Untagged: {references.familiar(full)}")
        if not last or users:
            image_writer.refresh_names(identifier)
        else:
            gone, lines = _remove_image(identifier, own, needed)
            done += lines
    for path in gone:
        layers.remove_or_tell(path)
    return done


def _names_to_remove(name: str, identifier: str, known: list[str], force: bool) -> list[str]:
    bare = name.removeprefix("sha256:")
    by_id = (
        identifier.startswith(bare) and references.is_hex(bare) and references.parse(bare).full not in known
    )
    if not by_id:
        full = references.parse(name).full
        if known and full not in known:  # found by what a registry calls it
            raise Conflict(
                f"image {name} has another name", f"`pyrun rmi {shell_word(references.familiar(known[0]))}`"
            )
        return [full] if known else []
    if len(known) > 1 and not force:
        listed = ", ".join(map(references.familiar, known))
        raise Conflict(
            f"image {name} has several names: {listed}", "remove the names one by one, or use --force"
        )
    return known


def _hide(identifier: str) -> list[str]:
    """Take the image from the starts that are under way; returns the containers for which it stays as it is.

    A start writes its container's record before it looks for the image again (engine/run.py), we take the image away
    before we look for containers again: one of the two sees the other, and nobody has to wait for a lock.
    """
    record = f"{paths.root()}/images/{identifier}/image.json"
    users = containers_of(identifier)
    if users or not os.path.exists(record):
        return users
    hidden = f"{record}.{os.getpid()}.tmp"  # should we be killed, it is an unfinished image
    os.rename(record, hidden)
    if users := containers_of(identifier):
        os.rename(hidden, record)
    return users


def _remove_image(
    identifier: str, own: list[str] | None, needed: set[str] | None
) -> tuple[list[str], list[str]]:
    """Move the image and those of its *own* layers that are not *needed* out of sight: (where they are now, what to
    tell)."""
    gone = [layers.discard(f"{paths.root()}/images/{identifier}")]
    lines = [f"Deleted: sha256:{identifier}"]
    if own is None or needed is None:
        why = (
            "the image's record is broken: `pyrun system reconcile` removes those that no image has"
            if own is None
            else "the record of another image is broken: see `pyrun images`"
        )
        return gone, [*lines, f"layers are kept, {why}"]
    for layer in reversed(own):
        if layer not in needed and os.path.isdir(layers.directory(layer)):
            gone.append(layers.discard(layers.directory(layer)))
            lines.append(f"Deleted: sha256:{layer}")
    return gone, lines


def _layers_of(identifier: str) -> list[str] | None:
    """The chain ids of an image's layers, bottom to top; None if its record does not tell them.

    Only the names count: a store that was moved, or is reached by a link, has records that say another path.
    """
    try:
        image = images.load(identifier)
    except ImageError:
        return None
    listed = [] if image is None else image.get("layers")  # none: whoever began it was killed
    if not isinstance(listed, list):
        return None
    names = [os.path.basename(layer) for layer in listed if isinstance(layer, str)]
    whole = len(names) == len(listed) and all(references.is_digest(f"sha256:{name}") for name in names)
    return names if whole else None


def _needed_layers(but_for: str = "") -> set[str] | None:
    """The chain ids that some image has, but for that one; None while there is an image that could have any."""
    known = [_layers_of(each) for each in images.identifiers() if each != but_for]
    told = [names for names in known if names is not None]
    return {name for names in told for name in names} if len(told) == len(known) else None


def remove_unneeded(tell: Callable[[str], None] = notice.say) -> list[str]:
    """Remove what killed installations left behind; returns what was done, a line each. What cannot be removed is told,
    and stays. Raises ImageError.

    That is: records that were being written, images without a record, layers that no image has. Images and names appear
    with the store's lock held, so whatever is half done while we hold it will never be whole. Layers are left alone
    while somebody else installs, and may be about to use them.
    """
    layers.sweep(lambda sentence: None)  # whoever wants to hear of it has swept before
    done, gone = [], []
    with layers.store_lock():
        doomed = dict(_half_written())
        if not layers.in_use():
            doomed |= _orphans()
        for path, sentence in doomed.items():
            try:
                gone.append(layers.discard(path))
                done.append(sentence)
            except OSError as error:
                tell(f"{path} cannot be removed: {error.strerror}")
    for path in gone:
        layers.remove_or_tell(path, tell)
    return done


def _half_written() -> Iterator[tuple[str, str]]:
    base = paths.root()
    for path in glob.glob(f"{base}/refs/.new-*"):
        yield path, f"unfinished name {path.rpartition('-')[2]}: removed"
    for identifier in images.identifiers():
        if not os.path.exists(f"{base}/images/{identifier}/image.json"):
            yield f"{base}/images/{identifier}", f"unfinished image {identifier[:12]}: removed"
            continue
        for path in glob.glob(f"{base}/images/{identifier}/image.json.*.tmp"):
            yield path, f"unfinished record of image {identifier[:12]}: removed"


def _orphans() -> dict[str, str]:
    needed = _needed_layers()
    if needed is None:
        return {}
    base = f"{paths.root()}/layers"
    names = sorted(name for name in os.listdir(base) if references.is_digest(f"sha256:{name}"))
    return {
        f"{base}/{name}": f"layer {name[:12]}: removed, no image has it"
        for name in names
        if name not in needed
    }


def containers_of(identifier: str) -> list[str]:
    """The names (or short ids) of the containers made from the image, running or not."""
    users = []
    base = f"{paths.root()}/containers"
    for container in sorted(os.listdir(base)) if os.path.isdir(base) else []:
        try:
            record = jsonlite.loads(paths.read(f"{base}/{container}/container.json"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("image_id") == identifier:
            users.append(str(record.get("name") or container[:12]))
    return users
