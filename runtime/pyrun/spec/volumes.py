"""The directories an image declares with VOLUME, as paths of the container.

Docker makes an anonymous volume for each. Here they are what the image has there, or an empty directory, in the
container's own writable layer: what is written goes with `rm`. With --read-only they stay writable, by a mount of their
own (stages/rootfs.py). --volume and --tmpfs are mounted over them. Loaded only for images that have one.
Source: image-spec config.md (Volumes).
"""

from __future__ import annotations

from pyrun.errors import UsageError

from .values import normal_path


def of_image(declared: object) -> list[str]:
    """The directories, parents first. Raises UsageError in words about the image."""
    paths = [str(path) for path in declared] if isinstance(declared, dict) else []
    for path in paths:
        if "\0" in path or normal_path(path) == "/":
            hint = "build the image without it"
            raise UsageError(f"the image's VOLUME {path!r} is no directory below the root", hint)
    return sorted({normal_path(path) for path in paths})
