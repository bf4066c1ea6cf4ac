"""Images as files, made by the tests: tar layers entry by entry, docker-archives and OCI layouts.

The tests of unpacking need archives no honest tool writes, and those of pull and load need images of known
content; both are put together here, from plain values, without any container tool.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


# ── entries ────────────────────────────────────────────────────────────────────────────────────────


class Entry(tarfile.TarInfo):
    """A tar header and the data behind it."""

    data = b""


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", target: str = "", **more: Any
) -> Entry:
    """A tar entry that belongs to whoever runs the test; *more* sets its fields (mode, pax_headers, ...)."""
    info = Entry(name)
    info.type, info.size, info.linkname = kind, len(data), target
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.uid, info.gid, info.mtime = os.getuid(), os.getgid(), 1_700_000_000
    info.data = data
    for key, value in more.items():
        setattr(info, key, value)
    return info


def file(name: str, data: bytes = b"", **more: Any) -> Entry:
    return entry(name, tarfile.REGTYPE, data, **more)


def directory(name: str, **more: Any) -> Entry:
    return entry(name, tarfile.DIRTYPE, **more)


def symlink(name: str, target: str, **more: Any) -> Entry:
    return entry(name, tarfile.SYMTYPE, target=target, **more)


def hard_link(name: str, target: str, **more: Any) -> Entry:
    return entry(name, tarfile.LNKTYPE, target=target, **more)


def device(name: str, major: int, minor: int, kind: bytes = tarfile.CHRTYPE) -> Entry:
    return entry(name, kind, devmajor=major, devminor=minor)


def tar(*entries: Entry, format: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of those entries in that order, whatever they say."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info in entries:
            archive.addfile(info, io.BytesIO(info.data))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def compressed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


# ── images ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Image:
    """Layers (tar archives, bottom to top) and what the configuration says."""

    layers: list[bytes]
    architecture: str = "amd64"
    variant: str = ""
    config: dict[str, Any] = field(default_factory=lambda: {"Cmd": ["/bin/true"], "Env": ["A=b"]})
    compress: bool = True

    @property
    def config_text(self) -> bytes:
        document: dict[str, Any] = {
            "architecture": self.architecture, "config": self.config, "os": "linux", "created": "2024-01-02T03:04:05Z",
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in self.layers]},
        }  # fmt: skip
        if self.variant:
            document["variant"] = self.variant
        return json.dumps(document).encode()

    @property
    def id(self) -> str:
        return hashlib.sha256(self.config_text).hexdigest()

    @property
    def blobs(self) -> list[bytes]:
        return [compressed(layer) if self.compress else layer for layer in self.layers]

    @property
    def manifest(self) -> bytes:
        return json.dumps({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(self.config_text, OCI_CONFIG),
            "layers": [descriptor(blob, OCI_LAYER + ("+gzip" if self.compress else "")) for blob in self.blobs],
        }).encode()  # fmt: skip

    def platform(self) -> dict[str, str]:
        return {"os": "linux", "architecture": self.architecture} | (
            {"variant": self.variant} if self.variant else {}
        )


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def index(*images: Image) -> bytes:
    """An index by platform."""
    rows = [descriptor(image.manifest, OCI_MANIFEST, platform=image.platform()) for image in images]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}).encode()


def docker_archive(image: Image, *tags: str) -> bytes:
    """What `docker save` wrote for many years."""
    names = [f"{number}/layer.tar" for number in range(len(image.layers))]
    manifest = [{"Config": f"{image.id}.json", "RepoTags": list(tags), "Layers": names}]
    return tar(
        *(file(name, layer) for name, layer in zip(names, image.layers, strict=True)),
        file(f"{image.id}.json", image.config_text),
        file("manifest.json", json.dumps(manifest).encode()),
    )


def layout(path: Path, *images: Image, name: str = "", by_platform: bool = False) -> Path:
    """An OCI layout directory; by_platform: one index entry that is itself an index of all images."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def put(data: bytes) -> None:
        (blobs / digest(data)[7:]).write_bytes(data)

    for image in images:
        for data in (image.manifest, image.config_text, *image.blobs):
            put(data)
    notes = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
    rows = [descriptor(image.manifest, OCI_MANIFEST, **notes) for image in images]
    if by_platform:
        put(index(*images))
        rows = [descriptor(index(*images), OCI_INDEX, **notes)]
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": rows}))
    return path
