"""load: images out of a file: a docker-archive, an OCI layout (tar or directory), or a plain root file system.

Which of them it is shows in the table of contents: `manifest.json` (Docker's, also beside an OCI layout),
`oci-layout`, or neither. Digests are checked as for a pull.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from functools import partial
from typing import Any, BinaryIO, NamedTuple

from pyrun.errors import ImageError, NotFound, UsageError
from pyrun.notice import say
from pyrun.registry import manifests
from pyrun.safe import shell_word
from pyrun.spec.defaults import DEFAULT_PATH
from pyrun.store import archives, image_writer, layers, platforms, references
from pyrun.store.archives import Archive, Directory, TarFile

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.image_json import Configuration, ImageConfig

_NAME_KEYS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MAX_IMAGES = 1000  # of an archive: its list, with 4 MiB, has room for a hundred times that
_MAX_NAMES = 1000  # of an image
_ROOT_CONFIG: ImageConfig = {"Cmd": ["/bin/sh"], "Env": [f"PATH={DEFAULT_PATH}"]}


class _Wanted(NamedTuple):
    """What the caller asks for. name: a full reference or ""; platform: None takes what there is."""

    name: str
    platform: platforms.Platform | None

    def best(self) -> platforms.Platform:
        """Which one to take where there are several."""
        return self.platform or platforms.host()


def load(path: str = "", name: str = "", platform: str | None = None) -> list[str]:
    """Load every image of the file or directory *path* ("" or "-": standard input); returns their names.

    name: what to call it, for an archive of one image; a plain root file system has to be given one.
    platform: of an archive for several the images for this one; without it this machine's, or the only one.
    An image without a name is returned as its id. Raises NotFound, ImageError, UsageError.
    """
    wanted = _Wanted(
        references.parse(name).full if name else "", platforms.parse(platform) if platform else None
    )
    layers.sweep()
    if os.path.isdir(path):
        directory = Directory(path)
        if not directory.has("oci-layout"):
            raise ImageError(
                f"{path} is a directory, but not an OCI layout",
                f"tar -C {shell_word(path)} -c . | pyrun load -t NAME",
            )
        return _load_layout(directory, wanted)
    with _open(path) as file, layers.Staging() as staging:
        what = path if path not in ("", "-") else "the archive on standard input"
        try:
            plain = archives.plain_file(file, what, staging)
        except OSError as error:
            raise ImageError(f"{what} cannot be read: {error.strerror}") from error
        with plain:
            archive = TarFile(plain, what)
            if archive.has("manifest.json") and _is_docker(archive):
                return _load_docker(archive, wanted)
            if archive.has("oci-layout") and archive.has("index.json"):
                return _load_layout(archive, wanted)
            return _load_root(plain, what, wanted)


def _open(path: str) -> BinaryIO:
    if path in ("", "-"):
        if sys.stdin.isatty():
            raise UsageError("standard input is a terminal", "pyrun load -i FILE, or pyrun load <FILE")
        return open(os.dup(0), "rb")
    try:
        return open(path, "rb")
    except OSError as error:
        raise NotFound(
            f"{path}: {error.strerror}", "pyrun load -i FILE; without a file it reads standard input"
        ) from None


# ── docker-archive ─────────────────────────────────────────────────────────────────────────────────


def _json(archive: Archive, name: str) -> Any:
    try:
        return json.loads(archives.read(archive, name, manifests.MAX_BYTES))
    except (ValueError, RecursionError):
        raise ImageError(f"{archive.what}: {name} is not JSON") from None


def _is_docker(archive: Archive) -> bool:
    """A root file system may hold a file called manifest.json as well."""
    try:
        rows = _json(archive, "manifest.json")
    except ImageError:
        return False
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(isinstance(row, dict) and "Config" in row for row in rows)
    )


def _load_docker(archive: Archive, wanted: _Wanted) -> list[str]:
    rows = _json(archive, "manifest.json")
    _check_images(wanted.name, len(rows), archive.what)
    loaded = []
    for row in rows:
        config_name, files, tags = row["Config"], row.get("Layers"), row.get("RepoTags") or []
        if not isinstance(config_name, str) or not _all_text(files) or not _all_text(tags):
            raise ImageError(f"{archive.what}: manifest.json: Config, Layers or RepoTags has the wrong type")
        if len(tags) > _MAX_NAMES:
            raise ImageError(
                f"{archive.what}: manifest.json: {len(tags)} names of an image (at most {_MAX_NAMES})"
            )
        config_text = archives.read(archive, config_name, image_writer.MAX_CONFIG_BYTES)
        _check_count(len(files), config_text, archive.what)
        names = [wanted.name] if wanted.name else [references.parse(tag).full for tag in tags]
        open_layer = partial(_docker_layer, archive, files)
        loaded += _install(config_text, open_layer, names, wanted, archive.what)
    return loaded


def _docker_layer(archive: Archive, files: list[str], number: int) -> BinaryIO:
    return archive.open(files[number])


def _check_count(count: int, config_text: bytes, what: str) -> None:
    wanted = len(image_writer.parse_config(config_text, what)["rootfs"]["diff_ids"])
    if count != wanted:
        raise ImageError(f"{what}: {count} layers, but {wanted} diff ids")


def _all_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check_images(wanted: str, count: int, what: str) -> None:
    if count > _MAX_IMAGES:
        raise ImageError(
            f"{what} holds {count} images (at most {_MAX_IMAGES})", "save fewer into one archive"
        )
    if wanted and count != 1:
        raise UsageError(f"--tag names one image, but {what} holds {count}", "leave it out")


def _install(
    config_text: bytes, open_layer: image_writer.Open, names: list[str], wanted: _Wanted, what: str
) -> list[str]:
    """Install one image; returns the familiar names, or the id."""
    _check_platform(image_writer.parse_config(config_text, what), wanted, what)
    with layers.Staging() as staging:
        image = image_writer.install(config_text, open_layer, names, staging)
    if not names:
        say(
            f"an image without a name was loaded; use its id, or load it again with --tag NAME: {image['id'][:12]}"
        )
    return [references.familiar(name) for name in names] or [f"sha256:{image['id']}"]


def _check_platform(config: Configuration, wanted: _Wanted, what: str) -> None:
    """As Docker: whoever names no platform may load what this machine does not run, to keep it or to pass it on."""
    has = manifests.platform_of(config)
    if has.os != "linux":
        raise ImageError(f"{what} is for {has}", "only images for linux can be loaded")
    if wanted.platform:
        manifests.check_platform(config, wanted.platform, what)
    elif platforms.rank(has, platforms.host()) < 0:
        say(f"{what} is for {has}: it is loaded, but this machine, {platforms.host()}, does not run it")


# ── OCI layout ─────────────────────────────────────────────────────────────────────────────────────


def _load_layout(archive: Archive, wanted: _Wanted) -> list[str]:
    document = manifests.read(archives.read(archive, "index.json", manifests.MAX_BYTES), "", archive.what)
    if not isinstance(document, manifests.Index) or not document.manifests:
        raise ImageError(f"{archive.what}: index.json lists no image")
    entries = document.manifests
    if len(entries) > 1 and all(entry.platform for entry in entries) and not any(map(_name, entries)):
        entries = [manifests.choose(document, wanted.best(), archive.what)]  # one image, one entry a platform
    _check_images(wanted.name, len(entries), archive.what)
    loaded = []
    for entry in entries:
        manifest = _manifest(archive, entry, wanted)
        config_text = _blob(archive, manifest.config)
        _check_count(len(manifest.layers), config_text, archive.what)
        name = wanted.name or _name(entry)
        open_layer = partial(_layout_layer, archive, manifest.layers)
        loaded += _install(config_text, open_layer, [name] if name else [], wanted, archive.what)
    return loaded


def _layout_layer(archive: Archive, descriptors: list[manifests.Descriptor], number: int) -> Any:
    return Checked(archive.open(_path(descriptors[number])), descriptors[number], archive.what)


def _name(entry: manifests.Descriptor) -> str:
    """The full reference an entry's annotations give, or "": a bare tag, as skopeo writes it, names nothing."""
    for key in _NAME_KEYS:
        text = entry.annotations.get(key)
        if isinstance(text, str) and ("/" in text or ":" in text):
            return references.parse(text).full
    return ""


def _manifest(archive: Archive, entry: manifests.Descriptor, wanted: _Wanted) -> manifests.Manifest:
    for _ in range(3):
        document = manifests.read(_blob(archive, entry), entry.media_type, archive.what)
        if isinstance(document, manifests.Manifest):
            return document
        entry = manifests.choose(document, wanted.best(), archive.what)
    raise ImageError(f"{archive.what}: an index within an index within an index")


def _path(descriptor: manifests.Descriptor) -> str:
    return f"blobs/sha256/{descriptor.digest[7:]}"


def _blob(archive: Archive, descriptor: manifests.Descriptor) -> bytes:
    return manifests.verify(
        archives.read(archive, _path(descriptor), manifests.MAX_BYTES), descriptor.digest, archive.what
    )


class Checked:
    """A file whose end is only reached if its content has the digest the manifest says."""

    def __init__(self, file: BinaryIO, descriptor: manifests.Descriptor, what: str) -> None:
        self._file = file
        self._wanted = descriptor
        self._what = what
        self._hash = hashlib.sha256()

    def read(self, count: int) -> bytes:
        """At most *count* bytes. Raises ImageError at the end of a content that is not the right one."""
        data = self._file.read(count)
        self._hash.update(data)
        if not data and f"sha256:{self._hash.hexdigest()}" != self._wanted.digest:
            raise ImageError(f"{self._what}: the blob {self._wanted.digest[7:19]} does not match its digest",
                             "it was damaged, or tampered with")  # fmt: skip
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Checked:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ── a plain root file system ───────────────────────────────────────────────────────────────────────


def _load_root(file: Any, what: str, wanted: _Wanted) -> list[str]:
    """file: a BinaryIO, but by its type not what file_digest asks for."""
    if not wanted.name:
        raise UsageError(
            f"{what} is neither a docker-archive nor an OCI layout",
            "a plain root file system needs --tag NAME",
        )
    file.seek(0)
    diff_id = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    changed_s = int(os.fstat(file.fileno()).st_mtime)
    variant = wanted.platform.variant if wanted.platform else ""
    config_text = image_writer.config_of_one_layer(
        _ROOT_CONFIG, diff_id, changed_s, wanted.best().architecture, variant
    )
    file.seek(0)
    return _install(config_text, lambda number: file, [wanted.name], wanted, what)
