"""image.json and the configuration it comes from as types, for readers and the type checker: no start loads them.

What is in `config` is the image's author's: image_writer.py has checked its fields for their kinds, and not what the
items of Labels, Volumes and ExposedPorts are. A field may be null. Source: image-spec config.md.
"""

from __future__ import annotations

from typing import TypedDict


class ImageConfig(TypedDict, total=False):
    """What an image says for its containers."""

    User: str | None
    WorkingDir: str | None
    Env: list[str] | None
    Cmd: list[str] | None
    Entrypoint: list[str] | None
    Shell: list[str] | None
    StopSignal: str | None
    Labels: dict[str, object] | None
    Volumes: dict[str, object] | None
    ExposedPorts: dict[str, object] | None


class Rootfs(TypedDict, total=False):
    """diff_ids: always there, bottom to top."""

    type: str
    diff_ids: list[str]


class Configuration(TypedDict, total=False):
    """An image's configuration; config and rootfs: always there, once it was parsed."""

    os: str
    architecture: str
    variant: str
    created: str
    config: ImageConfig
    rootfs: Rootfs


class Image(TypedDict, total=False):
    """image.json: see image_writer.py. --dry-run makes one of layers and config alone, of an image that is not here."""

    id: str
    names: list[str]
    digests: list[str]
    layers: list[str]
    diff_ids: list[str]
    layer_bytes: list[int]
    size_bytes: int
    created: str
    os: str
    architecture: str
    variant: str
    config: ImageConfig
