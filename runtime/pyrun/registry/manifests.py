"""Manifests and indexes: documents anybody may have written, turned into checked values.

A document is an index or an image's manifest by what it holds, and its media type has to agree: one that could
be read as both would mean different images to different readers (CVE-2021-41190). Digests are exactly
`sha256:` and 64 hex digits, since they become paths and URLs (CVE-2024-3727). `urls` of layers are ignored
(CVE-2020-15157).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from pyrun.errors import ImageError
from pyrun.safe import shell_word
from pyrun.store import platforms, references
from pyrun.store.image_writer import MAX_LAYERS

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyrun.store.image_json import Configuration

MAX_BYTES = 4 << 20
MAX_INDEX_ENTRIES = 1000
MAX_BLOB_BYTES = 64 << 30

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"
_VAGUE = ("", "application/json", "text/plain", "application/octet-stream")  # servers that serve plain files


class Descriptor(NamedTuple):
    """What a document says of another one. platform: of an index's entries; annotations: names, in OCI layouts."""

    digest: str
    size_bytes: int
    media_type: str
    platform: platforms.Platform | None
    annotations: dict[str, object]


class Index(NamedTuple):
    """A list of manifests, one a platform."""

    manifests: list[Descriptor]


class Manifest(NamedTuple):
    """One image: its configuration and its layers, bottom to top."""

    config: Descriptor
    layers: list[Descriptor]


def read(body: bytes, content_type: str, what: str) -> Index | Manifest:
    """Check a document. content_type: from the server or the descriptor that led here. Raises ImageError."""
    if len(body) > MAX_BYTES:
        raise ImageError(f"{what}: a manifest of {len(body)} bytes (at most {MAX_BYTES})")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ImageError(f"{what}: the answer is not a manifest", "is this really a registry?")
    declared = _declared_type(document, content_type, what)
    is_index, is_manifest = "manifests" in document, "layers" in document or "config" in document
    if is_index and (is_manifest or "fsLayers" in document):
        raise ImageError(f"{what}: a document that is both an index and a manifest is refused")
    if (is_index and declared in MANIFEST_TYPES) or (is_manifest and declared in INDEX_TYPES):
        raise ImageError(f"{what}: the media type {declared} contradicts the document")
    if is_index:
        rows = _list(document["manifests"], MAX_INDEX_ENTRIES, f"{what}: manifests")
        return Index([_descriptor(row, f"{what}: manifests", MAX_BYTES) for row in rows])
    if not is_manifest:
        raise ImageError(f"{what}: neither an image nor an index (no config, layers or manifests)")
    rows = _list(document.get("layers"), MAX_LAYERS, f"{what}: layers")
    config = _descriptor(document.get("config"), f"{what}: config", MAX_BYTES)
    return Manifest(config, [_descriptor(row, f"{what}: layers", MAX_BLOB_BYTES) for row in rows])


def _declared_type(document: Mapping[str, object], content_type: str, what: str) -> str:
    outer = content_type.partition(";")[0].strip().lower()
    inner = document.get("mediaType", "")
    if outer in _VAGUE:
        outer = ""
    if _SCHEMA1 in outer or document.get("schemaVersion") == 1:
        raise ImageError(
            f"{what}: an image in the format of 2015 (schema 1), which is no longer read", "push it again"
        )
    if not isinstance(inner, str) or (inner and outer and inner != outer):
        raise ImageError(f"{what}: the document says it is {inner!r:.80}, the server says {outer!r:.80}")
    declared = inner or outer
    if declared and declared not in INDEX_TYPES + MANIFEST_TYPES:
        raise ImageError(f"{what}: {declared!r:.80} is not a container image")
    return declared


def _list(value: Any, limit: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > limit:
        raise ImageError(f"{what}: expected a list of at most {limit} entries")
    return value


def _descriptor(row: Any, what: str, limit_bytes: int) -> Descriptor:
    if not isinstance(row, dict):
        raise ImageError(f"{what}: expected a descriptor, not {row!r:.40}")
    digest, size, kind = row.get("digest"), row.get("size"), row.get("mediaType", "")
    if not isinstance(digest, str) or not references.is_digest(digest):
        raise ImageError(f"{what}: the digest {digest!r:.90} is not sha256: and 64 hex digits")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= limit_bytes:
        raise ImageError(f"{what}: the size {size!r:.40} is not between 0 and {limit_bytes}")
    if not isinstance(kind, str) or "+encrypted" in kind:
        raise ImageError(f"{what}: the media type {kind!r:.80} cannot be read")
    annotations = row.get("annotations")
    annotations = annotations if isinstance(annotations, dict) else {}
    return Descriptor(digest, size, kind, _platform(row.get("platform")), annotations)


def _platform(row: Any) -> platforms.Platform | None:
    if not isinstance(row, dict):
        return None
    fields = [row.get(field) or "" for field in ("os", "architecture", "variant")]
    if not all(isinstance(field, str) and field.isprintable() and len(field) < 40 for field in fields):
        return None
    return platforms.normal(*fields)


def choose(index: Index, wanted: platforms.Platform, what: str) -> Descriptor:
    """The entry for a platform, the best if there are several. Raises ImageError that lists what there is."""
    ranked = []
    for position, entry in enumerate(index.manifests):
        rank = platforms.rank(entry.platform, wanted) if entry.platform else -1
        if rank >= 0:
            ranked.append((rank, position, entry))
    if ranked:
        return min(ranked)[2]
    if len(index.manifests) == 1 and index.manifests[0].platform is None:
        return index.manifests[0]  # an index around one image, as layouts have it
    there = sorted(
        {
            str(entry.platform)
            for entry in index.manifests
            if entry.platform and entry.platform.os != "unknown"
        }
    )
    raise ImageError(
        f"{what} is not available for {wanted}; it is for {', '.join(there) or 'no platform at all'}",
        "choose one with --platform, if this machine can run it" if there else "",
    )


def check_platform(config: Configuration, wanted: platforms.Platform, what: str) -> None:
    """Raise ImageError if an image's configuration is for a platform that does not suit."""
    has = platform_of(config, wanted)
    if platforms.rank(has, wanted) < 0:
        raise ImageError(
            f"{what} is for {has}, not for {wanted}", f"`--platform {shell_word(has)}` takes it all the same"
        )


def platform_of(config: Configuration, otherwise: platforms.Platform | None = None) -> platforms.Platform:
    """What an image's configuration says it is for; otherwise: the processor's kind, of one that is silent on it."""
    return platforms.normal(
        config.get("os") or "linux",
        config.get("architecture") or (otherwise or platforms.host()).architecture,
        config.get("variant") or "",
    )


def verify(body: bytes, digest: str, what: str) -> bytes:
    """*body*, if that is its digest. Raises ImageError."""
    actual = f"sha256:{hashlib.sha256(body).hexdigest()}"
    if actual != digest:
        raise ImageError(f"{what}: the content does not match its digest: {actual}, not {digest}",
                         "it was damaged on the way, or tampered with")  # fmt: skip
    return body
