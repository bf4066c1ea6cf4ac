"""Making and unmaking local images: layers into directories, image.json, names.

An installation works in a staging area (layers.py), checks every digest, and only then, holding the store's
lock for a moment, renames layers and image into place: an image is there entirely or not at all.

image.json: {"id", "names", "digests", "layers": absolute directories bottom to top, "diff_ids", "layer_bytes",
"size_bytes", "created", "os", "architecture", "variant", "config"}; `config` is the image configuration's
own `config` (Env, Cmd, Entrypoint, WorkingDir, User, Labels ...) and is data of the image's author: nothing
of it may ever decide what pyrun does outside the container (CVE-2026-53488). digests are full references by digest, by
which a registry knows it. names is a copy for readers;
the files in root/refs decide.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal, NamedTuple

from pyrun.errors import ImageError, NotFound
from pyrun.notice import say
from pyrun.store import images, layers, overlay_view, paths, references
from pyrun.store.inflate import Read, Stream

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Object
    from pyrun.store.image_json import Configuration, Image, ImageConfig

MAX_LAYERS = 127  # as Docker; the mount options of a start hold no more either
MAX_CONFIG_BYTES = 4 << 20

Open = Callable[[int], BinaryIO]  # layer number, from 0 at the bottom -> the layer's bytes, compressed or not


def parse_config(text: bytes, what: str) -> Configuration:
    """Check an image configuration (image-spec config.md) and return it. Raises ImageError."""
    if len(text) > MAX_CONFIG_BYTES:
        raise ImageError(f"{what}: a configuration of {len(text)} bytes (at most {MAX_CONFIG_BYTES})")
    try:
        config = json.loads(text)
        json.dumps(config, ensure_ascii=False).encode()  # half a surrogate pair could never be an argument
    except (ValueError, RecursionError):
        raise ImageError(f"{what}: the configuration is not JSON") from None
    root = config.get("rootfs") if isinstance(config, dict) else None
    diff_ids = root.get("diff_ids") if isinstance(root, dict) else None
    if not isinstance(diff_ids, list):
        raise ImageError(f"{what}: not a container image (its configuration has no rootfs.diff_ids)")
    if not all(isinstance(each, str) and references.is_digest(each) for each in diff_ids):
        raise ImageError(f"{what}: a diff id is not sha256: and 64 hex digits")
    if not 0 < len(diff_ids) <= MAX_LAYERS:
        raise ImageError(f"{what}: {len(diff_ids)} layers (1 to {MAX_LAYERS} are possible)")
    _check_shape(config, what)
    checked: Configuration = config
    return checked


def config_of_one_layer(
    config: ImageConfig, diff_id: str, unix_s: int, architecture: str, variant: str = ""
) -> bytes:
    """The configuration of an image that is made here: equal content gives equal bytes, and so the same id."""
    document: Configuration = {
        "architecture": architecture,
        "config": config,
        "created": datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z"),
        "os": "linux",
        "rootfs": {"diff_ids": [diff_id], "type": "layers"},
    }
    if variant:
        document["variant"] = variant
    return json.dumps(document, sort_keys=True).encode()


_TEXTS = ("os", "architecture", "variant", "created")
_CONFIG_FIELDS: dict[type, tuple[str, ...]] = {
    str: ("User", "WorkingDir", "StopSignal"),
    list: ("Env", "Cmd", "Entrypoint", "Shell"),
    dict: ("Labels", "Volumes", "ExposedPorts"),
}


def _check_shape(document: Object, what: str) -> None:
    """The fields a start reads have the types it expects."""
    config = document.get("config")
    if config is None:
        document["config"] = config = {}
    wrong = [] if isinstance(config, dict) else ["config"]
    for field in _TEXTS:
        text = document.get(field) or ""
        if not isinstance(text, str) or not text.isprintable() or len(text) > 64:
            wrong.append(field)
    for kind, fields in _CONFIG_FIELDS.items() if not wrong else ():
        for field in fields:
            value = config.get(field)
            right = value is None or isinstance(value, kind)
            if right and kind is list:
                right = all(isinstance(item, str) and "\0" not in item for item in value or ())
            wrong += [] if right else [f"config.{field}"]
    if wrong:
        raise ImageError(f"{what}: the field {wrong[0]} of the configuration cannot be used")


def install(
    config_text: bytes,
    open_layer: Open,
    names: list[str],
    staging: layers.Staging,
    tell: Callable[[int, Literal["unpacking", "done", "exists"]], None] = lambda number, state: None,
    stop: threading.Event | None = None,
) -> Image:
    """Make the image of that configuration, with those full names; returns its image.json.

    open_layer: called in order, only for layers that are not there yet; tell: hears of each layer that it is
    "unpacking", "done" or "exists". Raises ImageError (a diff id that differs, a hostile archive, a full disk).
    """
    identifier = hashlib.sha256(config_text).hexdigest()
    what = references.familiar(names[0]) if names else identifier[:12]
    config = parse_config(config_text, what)
    diff_ids = config["rootfs"]["diff_ids"]
    chain = layers.chain_ids(diff_ids)
    placed: list[_Placed] = []
    sizes: dict[str, int] | None = None
    for number, diff_id in enumerate(diff_ids):
        final = layers.directory(chain[number])
        if os.path.isdir(final):
            tell(number, "exists")
            sizes = _known_sizes() if sizes is None else sizes
            # measured if whoever made it was killed then
            placed.append(_Placed(final, final, sizes.get(final) or layers.size_bytes(final)))
            continue
        tell(number, "unpacking")
        place, lower = f"{staging.path}/{number}", [layer.now for layer in placed]
        with open_layer(number) as file:
            size_bytes = _unpack_layer(file.read, place, lower, diff_id, f"{what}, layer {number + 1}", stop)
        placed.append(_Placed(place, final, size_bytes))
        tell(number, "done")
    if any(layer.now != layer.final for layer in placed):
        with _full_disk():
            staging.sync()
    _commit(identifier, config, placed, names)
    return _loaded(identifier)


class _Placed(NamedTuple):
    """A layer: where it is now, where it will be, the bytes of its files."""

    now: str
    final: str
    size_bytes: int


def _loaded(identifier: str) -> Image:
    image = images.load(identifier)
    if image is None:
        raise NotFound(
            f"image {identifier[:12]} was removed while it was being installed",
            "again, with no other removal of images meanwhile",
        )
    return image


@contextmanager
def _full_disk() -> Any:
    """Turn a full disk into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ImageError(f"no space left below {paths.root()}", "free some space and try again") from error


def _unpack_layer(
    read: Read, directory: str, lower: list[str], diff_id: str, what: str, stop: threading.Event | None
) -> int:
    """Unpack one layer and check what was unpacked; returns the bytes of its files."""
    with _full_disk():
        os.mkdir(directory, 0o755)
        os.chmod(directory, 0o755)
        os.mkdir(f"{directory}.work", 0o700)
    stream = Stream(read, what)
    done = overlay_view.unpack_over(stream, directory, f"{directory}.work", lower, stop)
    if done.skipped:
        say(f"{what}: {done.skipped} device nodes or attributes could not be made here")
    actual = stream.drain()
    if actual != diff_id:
        raise ImageError(
            f"{what} is not what the image says: {actual}, not {diff_id}", "it was damaged or tampered with"
        )
    return done.size_bytes


def _known_sizes() -> dict[str, int]:
    """The bytes of the layers' files, by directory, as the images that have them tell."""
    known: dict[str, int] = {}
    for identifier in images.identifiers():
        image = _readable(identifier) or {}
        known |= zip(image.get("layers") or (), image.get("layer_bytes") or (), strict=False)
    return known


def _commit(identifier: str, config: Configuration, placed: list[_Placed], names: list[str]) -> None:
    with layers.store_lock(), _full_disk():
        for layer in placed:
            if layer.now != layer.final and not os.path.isdir(layer.final):  # else somebody else was quicker
                os.rename(layer.now, layer.final)
        missing = [layer.final for layer in placed if not os.path.isdir(layer.final)]
        if missing:
            raise ImageError(f"the layer {missing[0]} was removed meanwhile", "try again")
        record: Image = {
            "id": identifier,
            "names": names,
            "layers": [layer.final for layer in placed],
            "diff_ids": config["rootfs"]["diff_ids"],
            "layer_bytes": [layer.size_bytes for layer in placed],
            "size_bytes": sum(layer.size_bytes for layer in placed),
            "created": config.get("created") or "",
            "os": config.get("os") or "linux",
            "architecture": config.get("architecture") or "",
            "variant": config.get("variant") or "",
            "config": config["config"],
        }
        if before := _readable(identifier):
            record["names"] = list(dict.fromkeys([*current_names(identifier), *names]))
            record["digests"] = before.get("digests") or []
        paths.make(f"{paths.root()}/images/{identifier}")
        write_record(record)
        for each in {_point(name, identifier) for name in names} - {"", identifier}:
            refresh_names(each)


def _readable(identifier: str) -> Image | None:
    """The image, or None: a broken record is replaced by the next installation, and speaks for no other image."""
    try:
        return images.load(identifier)
    except ImageError:
        return None


def write_record(image: Image) -> None:
    """Write image.json so that it survives a power cut."""
    path = f"{paths.root()}/images/{image['id']}/image.json"
    paths.replace(path, json.dumps(image).encode(), lasting=True)


def note_digests(image: Image, digests: list[str]) -> None:
    """Note in the image's record, and in *image*, what a registry calls it: full references by digest. They find it
    (images.py), but do not keep it, as names do."""
    with layers.store_lock():
        current = _readable(image["id"])
        if current:  # else it was removed meanwhile
            known = current.get("digests")
            image["digests"] = list(dict.fromkeys([*digests, *(known if isinstance(known, list) else [])]))
            write_record({**current, "digests": image["digests"]})


# ── names ──────────────────────────────────────────────────────────────────────────────────────────


def _point(full: str, identifier: str) -> str:
    """Let a full reference mean an image; returns the one it has meant before, or ""."""
    base = f"{paths.root()}/refs"
    paths.make(base)
    before = images.read_reference(full)
    beside = f"{base}/.new-{secrets.token_hex(8)}"  # no quoted reference begins with a dot
    paths.write(beside, f"{identifier}\n".encode(), exclusive=True)
    paths.sync(beside)
    os.rename(beside, f"{base}/{references.quote(full)}")
    paths.sync(base)
    return before or ""


def all_references() -> dict[str, str]:
    """Every local name (full reference) and the id it means, sorted by name."""
    try:
        files = sorted(name for name in os.listdir(f"{paths.root()}/refs") if not name.startswith("."))
    except FileNotFoundError:
        return {}
    found = {references.unquote(name): "" for name in files}
    return {name: identifier for name in found if (identifier := images.read_reference(name))}


def current_names(identifier: str) -> list[str]:
    """The full names of an image."""
    return [name for name, target in all_references().items() if target == identifier]


def refresh_names(identifier: str) -> None:
    """Bring image.json's copy of the names up to date."""
    image = _readable(identifier)
    if image:
        image["names"] = current_names(identifier)
        write_record(image)
